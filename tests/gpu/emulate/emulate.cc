/* Fibers for the threads of a block. */
#include <cuda_runtime.h>

#include <cuda_bf16.h>

#include "stream.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <typeindex>
#include <unordered_set>
#include <vector>

enum { STACK = 64 * 1024, MOST_THREADS = 1024, WARP = 32, MOST_SHARED = 227 * 1024, COPY = 16, BEYOND = 256 };

thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

/* Where a fiber goes on: swapcontext would ask the kernel for its signals each time. */
#ifdef __x86_64__
typedef void *Place; /* its stack pointer, above the registers that a call keeps */

extern "C" void emulate_switch(Place *here, Place *to);
asm(".text\n.globl emulate_switch\n.hidden emulate_switch\n.type emulate_switch, @function\nemulate_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp, (%rdi)\nmov (%rsi), %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

static void begin_at(Place *p, char *stack, size_t bytes, void (*run)())
{
    void **top = (void **)((uintptr_t)(stack + bytes) / 16 * 16);
    *--top = NULL;
    *--top = (void *)run;
    *p = top - 6;
}
#else
typedef ucontext_t Place;

static void emulate_switch(Place *here, Place *to)
{
    swapcontext(here, to);
}

static void begin_at(Place *p, char *stack, size_t bytes, void (*run)())
{
    getcontext(p);
    p->uc_stack.ss_sp = stack;
    p->uc_stack.ss_size = bytes;
    p->uc_link = NULL;
    makecontext(p, run, 0);
}
#endif

namespace {

struct alignas(128) Shared {
    char bytes[128];
};

/* What is on its way to shared memory. */
struct Copy {
    void *to;
    const void *from; /* NULL: zeros */
};

/* A fiber is made once and runs one thread after the other. */
struct Fiber {
    Place place;
    dim3 index;
    enum { READY, AT_WARP, AT_BLOCK, DONE } state;
    double value;
    const __nv_bfloat16 *a, *b;
    std::vector<Copy> copies;
    std::vector<char> stack;
};

thread_local std::vector<Fiber> fibers(MOST_THREADS);
thread_local Place scheduler;
thread_local unsigned current, threads;
thread_local const std::function<void()> *body;
thread_local char *shared; /* of the launch, and a piece BEYOND that must stay as it is */
thread_local bool plain, met; /* threads follow one another without fibers; some thread came to a barrier */

void live()
{
    for (;;) {
        (*body)();
        fibers[current].state = Fiber::DONE;
        emulate_switch(&fibers[current].place, &scheduler);
    }
}

void wait_at(decltype(Fiber::state) where)
{
    if (plain) {
        fprintf(stderr, "emulated kernel: its first block has no barrier, another one has\n");
        abort();
    }
    met = true;
    Fiber &f = fibers[current];
    f.state = where;
    emulate_switch(&f.place, &scheduler);
    threadIdx = f.index;
}

/* Those of [from, to) that all wait at one place may go on. A thread that has ended counts as arrived. */
bool release(unsigned from, unsigned to, decltype(Fiber::state) where)
{
    bool some = false;
    for (unsigned i = from; i < to; i++)
        if (fibers[i].state == where)
            some = true;
        else if (fibers[i].state != Fiber::DONE)
            return false;
    for (unsigned i = from; some && i < to; i++)
        if (fibers[i].state == where)
            fibers[i].state = Fiber::READY;
    return some;
}

/* Threads that meet nobody may follow one another. */
void run_plain()
{
    for (unsigned i = 0; i < threads; i++) {
        threadIdx = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
        (*body)();
    }
}

void run_block()
{
    for (unsigned i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        if (f.stack.empty()) {
            f.stack.resize(STACK);
            begin_at(&f.place, f.stack.data(), STACK, live);
        }
        f.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
        f.state = Fiber::READY;
        f.copies.clear();
    }
    for (;;) {
        bool ran = false;
        for (current = 0; current < threads; current++)
            if (fibers[current].state == Fiber::READY) {
                ran = true;
                threadIdx = fibers[current].index;
                emulate_switch(&scheduler, &fibers[current].place);
            }
        for (unsigned i = 0; i < threads; i += WARP)
            ran |= release(i, i + WARP < threads ? i + WARP : threads, Fiber::AT_WARP);
        ran |= release(0, threads, Fiber::AT_BLOCK);
        if (ran)
            continue;
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].state != Fiber::DONE) {
                fprintf(stderr, "emulated kernel: threads of a block wait at different barriers\n");
                abort();
            }
        return;
    }
}

} // namespace

void emulate_block_barrier()
{
    wait_at(Fiber::AT_BLOCK);
}

void emulate_warp_barrier()
{
    wait_at(Fiber::AT_WARP);
}

double emulate_shuffle(double value, unsigned lane)
{
    unsigned me = current;
    fibers[me].value = value;
    emulate_warp_barrier();
    double other = fibers[me / WARP * WARP + lane].value;
    emulate_warp_barrier();
    return other;
}

bool emulate_any(bool mine)
{
    unsigned warp = current / WARP * WARP;
    bool any = false;
    fibers[current].value = mine;
    emulate_warp_barrier();
    for (unsigned i = warp; i < warp + WARP; i++)
        any = any || fibers[i].value != 0;
    emulate_warp_barrier();
    return any;
}

/* Which lane holds row (column) `line` of an operand at k, and where: a has two rows for each of k's halves, b one column. */
static float element(unsigned warp, const __nv_bfloat16 *Fiber::*operand, unsigned line, unsigned k)
{
    unsigned rows = operand == &Fiber::a ? 2 : 1, pair = line / 8 + k / 8 * rows;
    return __bfloat162float((fibers[warp + line % 8 * 4 + k % 8 / 2].*operand)[2 * pair + k % 2]);
}

void emulate_mma(float *c, const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    unsigned me = current, warp = me / WARP * WARP, lane = me % WARP;
    fibers[me].a = a;
    fibers[me].b = b;
    emulate_warp_barrier();
    for (unsigned e = 0; e < 4; e++)
        for (unsigned k = 0; k < 16; k++)
            c[e] += element(warp, &Fiber::a, lane / 4 + e / 2 * 8, k) * element(warp, &Fiber::b, lane % 4 * 2 + e % 2, k);
    emulate_warp_barrier();
}

void emulate_ldmatrix(__nv_bfloat16 *to, const __nv_bfloat16 *line, bool transposed)
{
    emulate_alignment(line, 16);
    unsigned me = current, warp = me / WARP * WARP, g = me % WARP / 4, t = me % 4;
    fibers[me].a = line;
    emulate_warp_barrier();
    for (unsigned i = 0; i < 8; i++) {
        unsigned matrix = warp + i / 2 * 8, along = 2 * t + i % 2;
        to[i] = transposed ? fibers[matrix + along].a[g] : fibers[matrix + g].a[along];
    }
    emulate_warp_barrier();
}

void emulate_copy(void *to, const void *from, bool zeros)
{
    emulate_alignment(to, COPY);
    emulate_alignment(from, COPY);
    memset(to, 0xff, COPY);
    fibers[current].copies.push_back({ to, zeros ? NULL : from });
}

void emulate_copies_wait()
{
    for (const Copy &c : fibers[current].copies)
        if (c.from)
            memcpy(c.to, c.from, COPY);
        else
            memset(c.to, 0, COPY);
    fibers[current].copies.clear();
}

void *emulate_shared()
{
    return shared;
}

/* Each block finds its shared memory full of what are no numbers, and may write no further. */
static void shared_fill(size_t bytes)
{
    memset(shared, 0xff, bytes + BEYOND);
}

static void shared_check(size_t bytes)
{
    for (size_t i = 0; i < BEYOND; i++)
        if (shared[bytes + i] != (char)0xff) {
            fprintf(stderr, "emulated kernel: it writes beyond its %zu bytes of shared memory\n", bytes);
            abort();
        }
}

static void run(dim3 grid, dim3 block, size_t bytes, const std::function<void()> &kernel)
{
    static thread_local std::vector<Shared> memory((MOST_SHARED + BEYOND) / sizeof(Shared));
    if (bytes > MOST_SHARED) {
        fprintf(stderr, "emulated GPU: a block cannot have %zu bytes of shared memory\n", bytes);
        abort();
    }
    shared = (char *)memory.data();
    gridDim = grid;
    blockDim = block;
    threads = block.x * block.y * block.z;
    body = &kernel;
    /* What the first block of a kernel does at barriers, the others do. */
    static thread_local std::unordered_set<std::type_index> without;
    std::type_index who(kernel.target_type());
    plain = without.count(who) > 0;
    met = false;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = dim3(x, y, z);
                if (bytes)
                    shared_fill(bytes);
                if (plain)
                    run_plain();
                else
                    run_block();
                if (bytes)
                    shared_check(bytes);
                if (!plain && !met) {
                    plain = true;
                    without.insert(who);
                }
            }
    plain = false;
}

void emulate(cudaStream_t stream, dim3 grid, dim3 block, size_t bytes, const std::function<void()> &kernel)
{
    stream_issue(stream, [=] { run(grid, block, bytes, kernel); });
}

void emulate_alignment(const void *p, size_t n)
{
    if ((uintptr_t)p % n) {
        fprintf(stderr, "emulated GPU: %zu bytes at an address that is no multiple of that\n", n);
        abort();
    }
}
