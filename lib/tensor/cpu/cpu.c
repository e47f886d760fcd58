/* The CPU backend: memory, scratch, and the table. */
#include "tensor/cpu/cpu.h"

#include "util/err.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

CpuKernels cpu;

/* ---- memory: large pieces are address space that the kernel backs, with huge pages, as it is touched */

enum { MAP_FROM = 1 << 20 };

static void *cpu_alloc(Backend *be, size_t bytes)
{
    (void)be;
    void *p;
    if (bytes < MAP_FROM) {
        p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    } else {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            p = NULL;
        else
            madvise(p, bytes, MADV_HUGEPAGE);
    }
    if (!p)
        err_set(ERR_MEMORY, "out of memory: %zu bytes wanted for tensors", bytes);
    return p;
}

static void cpu_release(Backend *be, void *p, size_t bytes)
{
    (void)be;
    if (p && bytes >= MAP_FROM)
        munmap(p, bytes);
    else
        free(p);
}

static void cpu_rest(Backend *be, void *p, size_t bytes)
{
    (void)be;
    if (bytes >= MAP_FROM)
        madvise(p, bytes, MADV_DONTNEED);
}

static int cpu_copy_in(Backend *be, void *device, const void *host, size_t bytes)
{
    (void)be;
    if (bytes)
        memcpy(device, host, bytes);
    return 0;
}

static int cpu_copy_out(Backend *be, void *host, const void *device, size_t bytes)
{
    (void)be;
    if (bytes)
        memcpy(host, device, bytes);
    return 0;
}

static int cpu_move(Backend *be, void *to, const void *from, size_t bytes)
{
    (void)be;
    if (bytes)
        memmove(to, from, bytes);
    return 0;
}

static int cpu_zero(Backend *be, void *device, size_t bytes)
{
    (void)be;
    if (bytes)
        memset(device, 0, bytes);
    return 0;
}

static int cpu_sync(Backend *be)
{
    (void)be;
    return 0;
}

static void cpu_close(Backend *be)
{
    (void)be;
}

/* All memory of the host is memory of the device. */
static void cpu_pin(Backend *be, void *host, size_t bytes)
{
    (void)be;
    (void)host;
    (void)bytes;
}

static void cpu_unpin(Backend *be, void *host)
{
    (void)be;
    (void)host;
}

/* ---- scratch */

typedef struct {
    struct { float *p; int64_t count; } slot[SCRATCH_SLOTS];
} Scratch;

static pthread_key_t scratch_key;
static _Thread_local Scratch *scratch;

static void scratch_free(void *p)
{
    Scratch *s = p;
    for (int i = 0; i < SCRATCH_SLOTS; i++)
        free(s->slot[i].p);
    free(s);
}

float *cpu_scratch(int slot, int64_t count)
{
    if (!scratch) {
        scratch = calloc(1, sizeof *scratch);
        if (scratch)
            pthread_setspecific(scratch_key, scratch);
    }
    if (scratch && scratch->slot[slot].count < count) {
        free(scratch->slot[slot].p);
        size_t bytes = ((size_t)count * sizeof(float) + 4095) / 4096 * 4096;
        scratch->slot[slot].p = aligned_alloc(4096, bytes);
        scratch->slot[slot].count = scratch->slot[slot].p ? (int64_t)(bytes / sizeof(float)) : 0;
    }
    if (!scratch || !scratch->slot[slot].p) {
        if (count == 0)
            return cpu_scratch(slot, 1);
        err_set(ERR_MEMORY, "out of memory: %lld bytes wanted for scratch", (long long)count * 4);
        return NULL;
    }
    return scratch->slot[slot].p;
}

/* ---- the table */

static Backend backend;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    pthread_key_create(&scratch_key, scratch_free);
    ISA_PICK(cpu_gemm_kernels)(&cpu);
    ISA_PICK(cpu_point_kernels)(&cpu);
    ISA_PICK(cpu_row_kernels)(&cpu);
    ISA_PICK(cpu_depthwise_kernels)(&cpu);
    backend = (Backend){
        .name = "cpu",
        .mapped = true,
        .chunk = (size_t)16 << 30,
        .alloc = cpu_alloc,
        .release = cpu_release,
        .rest = cpu_rest,
        .write = cpu_copy_in,
        .read = cpu_copy_out,
        .move = cpu_move,
        .zero = cpu_zero,
        .sync = cpu_sync,
        .close = cpu_close,
        .pin = cpu_pin,
        .unpin = cpu_unpin,
        .upload = cpu_copy_in,
        .uploaded = cpu_sync,
    };
    cpu_linear_table(&backend);
    cpu_mlp_table(&backend);
    cpu_attention_table(&backend);
    cpu_conv_table(&backend);
    cpu_layout_table(&backend);
    cpu_point_table(&backend);
    cpu_row_table(&backend);
    cpu_loss_table(&backend);
    cpu_train_table(&backend);
}

Backend *backend_cpu(void)
{
    pthread_once(&once, fill_table);
    return &backend;
}
