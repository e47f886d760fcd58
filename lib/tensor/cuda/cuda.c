/* The device: memory, one stream on which all work is ordered, and the table. */
#include "tensor/cuda/cuda.h"
#include "tensor/cuda/plugin.h"

#include "tensor/cuda/products.h"
#include "util/err.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEVICES = 16, CHUNK = 256 << 20 };

int cuda_check(cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return 0;
    cudaGetLastError(); /* or the next launch would be blamed */
    return err_set(code == cudaErrorMemoryAllocation ? ERR_MEMORY : ERR_SYSTEM, "CUDA: %s: %s", what,
                   cudaGetErrorString(code));
}

static int out_of_memory(size_t bytes, const char *what)
{
    size_t left = 0, all = 0;
    cudaGetLastError();
    cudaMemGetInfo(&left, &all);
    return err_set(ERR_MEMORY, "out of GPU memory: %zu bytes wanted%s, %zu of %zu are free", bytes, what, left, all);
}

static int not_recorded(Backend *be)
{
    return ((CudaDevice *)be)->recording ? err_set(ERR_USAGE, "CUDA: this cannot be recorded") : 0;
}

static void *take(Backend *be, size_t bytes)
{
    void *p = NULL;
    if (not_recorded(be))
        return NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) == cudaSuccess)
        return p;
    out_of_memory(bytes, "");
    return NULL;
}

/* cudaFree waits for the device, so nobody still uses p. */
static void release(Backend *be, void *p, size_t bytes)
{
    (void)be;
    (void)bytes;
    cudaFree(p);
}

/* Memory of a device that is lent to nobody else stays where it is: giving it back would cost a wait each step. */
static void rest(Backend *be, void *p, size_t bytes)
{
    (void)be;
    (void)p;
    (void)bytes;
}

static int write_device(Backend *be, void *device, const void *host, size_t bytes)
{
    CudaDevice *d = (CudaDevice *)be;
    cudaStream_t s = d->recording ? d->copies : d->stream;
    if (!bytes)
        return 0;
    return cuda_check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s), "copy up") ||
                   (d->recording && cuda_check(cudaStreamSynchronize(s), "wait for a copy"))
               ? -1
               : 0;
}

static int sync_device(Backend *be)
{
    return not_recorded(be) ? -1 : cuda_check(cudaStreamSynchronize(cuda_stream(be)), "wait");
}

static int memory(Backend *be, size_t *left, size_t *all)
{
    (void)be;
    return cuda_check(cudaMemGetInfo(left, all), "ask for the memory left");
}

static int read_device(Backend *be, void *host, const void *device, size_t bytes)
{
    if (!bytes || not_recorded(be))
        return bytes ? -1 : 0;
    return cuda_check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_stream(be)), "copy down") ||
                   sync_device(be)
               ? -1
               : 0;
}

/* cudaMemcpy does not allow overlap. */
static int move(Backend *be, void *to, const void *from, size_t bytes)
{
    const char *a = from, *b = to;
    if (!bytes || a == b)
        return 0;
    if (a + bytes > b && b + bytes > a) {
        void *between = cuda_scratch(be, CUDA_SCRATCH_MOVE, bytes);
        if (!between ||
            cuda_check(cudaMemcpyAsync(between, from, bytes, cudaMemcpyDeviceToDevice, cuda_stream(be)), "copy"))
            return -1;
        from = between;
    }
    return cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_stream(be)), "copy");
}

static int zero(Backend *be, void *device, size_t bytes)
{
    return bytes ? cuda_check(cudaMemsetAsync(device, 0, bytes, cuda_stream(be)), "zero") : 0;
}

/* ---- host memory */

static void pin(Backend *be, void *host, size_t bytes)
{
    (void)be;
    /* The teacher maps what it only reads so that it can only be read. */
    if (cudaHostRegister(host, bytes, cudaHostRegisterPortable) != cudaSuccess &&
        cudaHostRegister(host, bytes, cudaHostRegisterPortable | cudaHostRegisterReadOnly) != cudaSuccess)
        log_debug("cuda", "%zu bytes stay unpinned, copies are slower: %s", bytes, cudaGetErrorString(cudaGetLastError()));
    cudaGetLastError();
}

static void unpin(Backend *be, void *host)
{
    (void)be;
    if (cudaHostUnregister(host) != cudaSuccess)
        cudaGetLastError();
}

static int upload(Backend *be, void *device, const void *host, size_t bytes)
{
    CudaDevice *d = (CudaDevice *)be;
    return bytes ? cuda_check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, d->copies), "copy up") : 0;
}

static int uploaded(Backend *be)
{
    return cuda_check(cudaStreamSynchronize(((CudaDevice *)be)->copies), "wait for a copy");
}

/* ---- memory of other processes */

_Static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(BackendHandle), "a handle holds what CUDA names memory by");

static int lend(Backend *be, const void *p, BackendHandle *out)
{
    (void)be;
    return cuda_check(cudaIpcGetMemHandle((cudaIpcMemHandle_t *)out->bytes, (void *)(uintptr_t)p), "lend memory");
}

static void *borrow(Backend *be, const BackendHandle *handle, size_t bytes)
{
    cudaIpcMemHandle_t h;
    void *p = NULL;
    (void)be;
    (void)bytes;
    memcpy(&h, handle, sizeof h);
    cudaError_t e = cudaIpcOpenMemHandle(&p, h, cudaIpcMemLazyEnablePeerAccess);
    if (e == cudaSuccess)
        return p;
    cudaGetLastError();
    err_set(ERR_PEER, "CUDA IPC: %s", cudaGetErrorString(e));
    return NULL;
}

static void give_back(Backend *be, void *p, size_t bytes)
{
    (void)be;
    (void)bytes;
    if (cudaIpcCloseMemHandle(p) != cudaSuccess)
        cudaGetLastError();
}

void *cuda_scratch(Backend *be, int slot, size_t bytes)
{
    CudaDevice *d = (CudaDevice *)be;
    if (d->scratch[slot].bytes >= bytes && d->scratch[slot].p)
        return d->scratch[slot].p;
    if (not_recorded(be))
        return NULL;
    d->era += d->scratch[slot].p != NULL;
    cudaFree(d->scratch[slot].p); /* waits for the device */
    d->scratch[slot].p = NULL;
    d->scratch[slot].bytes = 0;
    if (cudaMalloc(&d->scratch[slot].p, bytes ? bytes : 1) != cudaSuccess) {
        d->scratch[slot].p = NULL;
        out_of_memory(bytes, " for scratch");
        return NULL;
    }
    d->scratch[slot].bytes = bytes;
    return d->scratch[slot].p;
}

static void close_device(Backend *be)
{
    CudaDevice *d = (CudaDevice *)be;
    products_close(d);
    for (int i = 0; i < CUDA_SCRATCH_SLOTS; i++)
        cudaFree(d->scratch[i].p);
    if (d->stream)
        cudaStreamDestroy(d->stream);
    if (d->copies)
        cudaStreamDestroy(d->copies);
    memset(d, 0, sizeof *d);
}

/* "cuda", "cuda:1", "cuda:1,bf16", "cuda:1,bf16,any": the last may give other bits each time */
static int parse(const char *name, int *device, CudaPrecision *precision, bool *varies)
{
    static const char *const names[] = { "fp32", "tf32", "bf16" };
    const char *comma = strchr(name, ',');
    char *end = NULL;
    *device = 0;
    *precision = CUDA_FP32;
    if (name[4] == ':') {
        long n = strtol(name + 5, &end, 10);
        if (end == name + 5 || n < 0 || n >= MOST_DEVICES || (*end && *end != ','))
            return err_set(ERR_USAGE, "device '%s': no such number of a GPU", name);
        *device = (int)n;
    }
    for (int i = 0; comma && i < 3; i++)
        if (!strncmp(comma + 1, names[i], 4) && (!comma[5] || !strcmp(comma + 5, ",any"))) {
            *precision = (CudaPrecision)i;
            *varies = comma[5] != 0;
            return 0;
        }
    return comma ? err_set(ERR_USAGE, "device '%s': the precisions are fp32, tf32 and bf16", name) : 0;
}

static int start(CudaDevice *d, int device, CudaPrecision precision)
{
    int n = 0, major = 0, minor = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess)
        return err_set(ERR_SYSTEM, "CUDA finds no GPU: %s", cudaGetErrorString(e));
    if (device >= n)
        return err_set(ERR_USAGE, "cuda:%d: this machine has %d GPU%s, counted from 0", device, n, n == 1 ? "" : "s");
    if (cuda_check(cudaSetDevice(device), "choose the GPU") ||
        cuda_check(cudaDeviceGetAttribute(&d->processors, cudaDevAttrMultiProcessorCount, device), "ask the GPU") ||
        cuda_check(cudaDeviceGetAttribute(&d->shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "ask the GPU") ||
        cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "ask the GPU") ||
        cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "ask the GPU"))
        return -1;
    if (major < 8)
        return err_set(ERR_USAGE, "cuda:%d: its compute capability is %d.%d; 8.0 or more is needed", device, major,
                       minor);
    d->device = device;
    d->precision = precision;
    return cuda_check(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "make a stream") ||
                   cuda_check(cudaStreamCreateWithFlags(&d->copies, cudaStreamNonBlocking), "make a stream") ||
                   products_open(d)
               ? -1
               : 0;
}

Backend *hssl_backend(const char *name)
{
    static CudaDevice devices[MOST_DEVICES][3][2];
    int device;
    bool varies = false;
    CudaPrecision precision;
    if (parse(name, &device, &precision, &varies))
        return NULL;
    CudaDevice *d = &devices[device][precision][varies];
    Backend *be = &d->table;
    if (be->name)
        return be;
    d->varies = varies;
    if (start(d, device, precision)) {
        close_device(be);
        return NULL;
    }
    *be = (Backend){ .name = "cuda", .real = precision == CUDA_BF16 ? DT_BF16 : DT_F32, .chunk = CHUNK, .alloc = take,
                     .release = release, .rest = rest, .write = write_device, .read = read_device, .move = move,
                     .zero = zero, .sync = sync_device, .memory = memory, .close = close_device, .pin = pin, .unpin = unpin,
                     .upload = upload, .uploaded = uploaded, .lend = lend, .borrow = borrow, .give_back = give_back };
    cuda_point_table(be);
    cuda_row_table(be);
    cuda_norm_table(be);
    cuda_layout_table(be);
    cuda_reduce_table(be);
    cuda_loss_table(be);
    cuda_train_table(be);
    cuda_teacher_table(be);
    cuda_linear_table(be);
    cuda_attention_table(be);
    cuda_conv_table(be);
    cuda_collective_table(be);
    cuda_record_table(be);
    return be;
}
