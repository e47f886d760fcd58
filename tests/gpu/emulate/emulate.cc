/* Fibers for the threads of a block. */
#include <cuda_runtime.h>

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <vector>

enum { STACK = 64 * 1024, MOST_THREADS = 1024, WARP = 32 };

thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace {

struct Fiber {
    ucontext_t context;
    dim3 index;
    enum { READY, AT_WARP, AT_BLOCK, DONE } state;
    double value;
    std::vector<char> stack;
};

thread_local std::vector<Fiber> fibers(MOST_THREADS);
thread_local ucontext_t scheduler;
thread_local unsigned current, threads;
thread_local const std::function<void()> *body;

void begin()
{
    (*body)();
    fibers[current].state = Fiber::DONE;
    swapcontext(&fibers[current].context, &scheduler);
}

void wait_at(decltype(Fiber::state) where)
{
    Fiber &f = fibers[current];
    f.state = where;
    swapcontext(&f.context, &scheduler);
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

void run_block()
{
    for (unsigned i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        f.stack.resize(STACK);
        f.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
        f.state = Fiber::READY;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data();
        f.context.uc_stack.ss_size = f.stack.size();
        f.context.uc_link = NULL;
        makecontext(&f.context, begin, 0);
    }
    for (;;) {
        bool ran = false;
        for (current = 0; current < threads; current++)
            if (fibers[current].state == Fiber::READY) {
                ran = true;
                threadIdx = fibers[current].index;
                swapcontext(&scheduler, &fibers[current].context);
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

void emulate(dim3 grid, dim3 block, const std::function<void()> &kernel)
{
    gridDim = grid;
    blockDim = block;
    threads = block.x * block.y * block.z;
    body = &kernel;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = dim3(x, y, z);
                run_block();
            }
}
