/* The part of CUDA C that the backend uses, on the processor: a block's threads are fibers that take turns at barriers
 * and shuffles, blocks follow one another. So every kernel runs, slowly, in tests on machines without a GPU.
 * Stands in for the toolkit's header of this name. */
#ifndef EMULATE_CUDA_RUNTIME_H
#define EMULATE_CUDA_RUNTIME_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what the host calls: runtime.cc, stream.cc */

typedef enum {
    cudaSuccess,
    cudaErrorInvalidValue,
    cudaErrorMemoryAllocation,
    cudaErrorInvalidResourceHandle,
    cudaErrorNotSupported
} cudaError_t;
typedef struct EmulatedStream *cudaStream_t;
typedef struct EmulatedEvent *cudaEvent_t;
typedef struct EmulatedGraph *cudaGraph_t, *cudaGraphExec_t;
typedef enum { cudaStreamCaptureModeRelaxed = 2 } cudaStreamCaptureMode;
typedef enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice } cudaMemcpyKind;
typedef enum {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor
} cudaDeviceAttr;
typedef struct { char reserved[64]; } cudaIpcMemHandle_t;
enum { cudaStreamNonBlocking = 1, cudaHostRegisterPortable = 1, cudaHostRegisterReadOnly = 8, cudaIpcMemLazyEnablePeerAccess = 1,
       cudaEventDisableTiming = 2 };

const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int n);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr what, int device);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMemGetInfo(size_t *left, size_t *all);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s);
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *p);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *p);
cudaError_t cudaIpcOpenMemHandle(void **p, cudaIpcMemHandle_t handle, unsigned flags);
cudaError_t cudaIpcCloseMemHandle(void *p);

#ifdef __cplusplus
}
#endif

/* ---- what kernels are made of: emulate.cc */

#ifdef __cplusplus

#include <cmath>
#include <functional>
#include <tuple>

using std::isfinite;

#define __global__ static
#define __device__
#define __shared__ static thread_local
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

extern thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

/* All threads of the block, or of the warp, come here before any goes on. */
void emulate_block_barrier();
void emulate_warp_barrier();
/* What lane `lane` of this warp brought along. */
double emulate_shuffle(double value, unsigned lane);

/* Whether any lane of this warp says so. */
bool emulate_any(bool mine);

/* c [16,8] += a [16,16] b [16,8] by the lanes of this warp, whose pieces these are: as mma.m16n8k16 with BF16. */
void emulate_mma(float *c, const struct __nv_bfloat16 *a, const struct __nv_bfloat16 *b);

/* to[2 i], to[2 i + 1]: of matrix i [8,8], whose lines lanes 8 i ... 8 i + 7 bring along, line g at columns 2t, 2t + 1, or
 * column g at lines 2t, 2t + 1, where lane = 4 g + t: as ldmatrix.m8n8.x4, .trans. */
void emulate_ldmatrix(struct __nv_bfloat16 *to, const struct __nv_bfloat16 *line, bool transposed);

/* 16 bytes, or zeros, to shared memory on the way: until the thread waits there is something else. */
void emulate_copy(void *to, const void *from, bool zeros);
void emulate_copies_wait();

/* The shared memory that the launch asked for. */
void *emulate_shared();

/* Ends the process where p is no multiple of n, as a GPU ends the kernel. */
void emulate_alignment(const void *p, size_t n);

/* kernel() once for each thread of each block: now, or when what is recorded on the stream is launched. Kernels are told
 * apart by the type of the function. */
void emulate(cudaStream_t stream, dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel);

/* The arguments are those of now. */
template <auto kernel, typename... P, typename... A>
void emulate_launch(void (*)(P...), cudaStream_t stream, dim3 grid, dim3 block, size_t shared, const A &...args)
{
    std::tuple<P...> values(args...);
    emulate(stream, grid, block, shared, [values] { std::apply(kernel, values); });
}

static inline void __syncthreads()
{
    emulate_block_barrier();
}

static inline void __syncwarp()
{
    emulate_warp_barrier();
}

template <typename V> static inline V __shfl_xor_sync(unsigned, V value, int mask)
{
    return (V)emulate_shuffle((double)value, threadIdx.x % 32 ^ (unsigned)mask);
}

static inline int __any_sync(unsigned, int mine)
{
    return emulate_any(mine != 0);
}

#endif
#endif
