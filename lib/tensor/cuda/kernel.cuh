/* What the kernels share: element types, reductions of a warp and a block, launches. CUDA C++. */
#ifndef HSSL_CUDA_KERNEL_H
#define HSSL_CUDA_KERNEL_H

#include "tensor/cuda/cuda.h"

#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

enum { WARP = 32, BLOCK = 256, ROW_BLOCK = 128 };

/* ---- elements: read and computed with as floats */

template <typename T> __device__ inline float get(const T *p, int64_t i);

template <> __device__ inline float get(const float *p, int64_t i)
{
    return p[i];
}

template <> __device__ inline float get(const bf16 *p, int64_t i)
{
    return __bfloat162float(p[i]);
}

__device__ inline void set(float *p, int64_t i, float v)
{
    p[i] = v;
}

__device__ inline void set(bf16 *p, int64_t i, float v)
{
    p[i] = __float2bfloat16(v);
}

template <typename T> __device__ inline void put(T *p, int64_t i, float v, bool add)
{
    set(p, i, add ? get(p, i) + v : v);
}

/* ---- packs: 16 bytes of elements, read and written at once */

template <typename T, int N = 16 / sizeof(T)> struct alignas(N * sizeof(T)) Pack {
    enum { SIZE = N };
    T v[N];
};

#ifdef __CUDACC__
#define ALIGNED(p, n) /* or the kernel is ended */
#else
#define ALIGNED(p, n) emulate_alignment(p, n)
#endif

template <typename P, typename T> __device__ inline P load(const T *p, int64_t i)
{
    ALIGNED(p + i, sizeof(P));
    return *(const P *)(p + i);
}

template <typename P, typename T> __device__ inline void store(T *p, int64_t i, const P &v)
{
    ALIGNED(p + i, sizeof(P));
    *(P *)(p + i) = v;
}

/* Whether packs may begin at all of these, and n elements further on. */
template <typename T, typename... A> static inline bool packs_fit(int64_t n, const T *p, A... others)
{
    bool fits = (uintptr_t)p % 16 == 0 && n * (int64_t)sizeof(T) % 16 == 0;
    if constexpr (sizeof...(others) > 0)
        return fits && packs_fit(n, others...);
    else
        return fits;
}

/* ---- reductions: the order of the sums is fixed, so the bits are, too */

template <typename V> __device__ inline V warp_sum(V v)
{
    for (int d = WARP / 2; d; d /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, d);
    return v;
}

__device__ inline float warp_max(float v)
{
    for (int d = WARP / 2; d; d /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}

/* Each thread of the block gets the sum; all must call it. */
template <typename V> __device__ inline V block_sum(V v)
{
    __shared__ V part[WARP];
    v = warp_sum(v);
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    V sum = part[0];
    for (unsigned i = 1; i < blockDim.x / WARP; i++)
        sum += part[i];
    __syncthreads();
    return sum;
}

__device__ inline float block_max(float v)
{
    __shared__ float part[WARP];
    v = warp_max(v);
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    float most = part[0];
    for (unsigned i = 1; i < blockDim.x / WARP; i++)
        most = fmaxf(most, part[i]);
    __syncthreads();
    return most;
}

/* ---- loops and launches */

#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

/* The elements of a grid-stride loop over n. */
#define EACH(i, n)                                                                         \
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, i##_end = n; i < i##_end;  \
    i += (int64_t)gridDim.x * blockDim.x

enum { BLOCK_ROWS = BLOCK / WARP }; /* where each warp has one */

/* The row of this warp, and the columns of this lane. */
#define EACH_ROW(r, rows)                                                                   \
    int64_t r = (int64_t)blockIdx.x * BLOCK_ROWS + threadIdx.x / WARP; r < rows; \
    r += (int64_t)gridDim.x * BLOCK_ROWS
#define EACH_COL(i, cols) int64_t i = threadIdx.x % WARP, i##_end = cols; i < i##_end; i += WARP

/* Blocks for n pieces of work of which a block does `each` at once: a few for each processor at most. */
static inline unsigned grid_for(Backend *be, int64_t n, int each)
{
    int64_t blocks = (n + each - 1) / each, most = (int64_t)((CudaDevice *)be)->processors * 16;
    return (unsigned)(blocks < most ? blocks : most);
}

#ifdef __CUDACC__
#define LAUNCH(be, kernel, grid, block, ...) \
    (kernel<<<grid, block, 0, cuda_stream(be)>>>(__VA_ARGS__), cuda_check(cudaGetLastError(), #kernel))
/* With so many bytes of shared memory, which the kernel finds by SHARED_OF_LAUNCH. */
#define LAUNCH_SHARED(be, kernel, grid, block, bytes, ...)                                                               \
    (cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)), #kernel) ||     \
     (kernel<<<grid, block, bytes, cuda_stream(be)>>>(__VA_ARGS__), cuda_check(cudaGetLastError(), #kernel)))
#define SHARED_OF_LAUNCH(T, name) extern __shared__ T name[]
#else
#define LAUNCH(be, kernel, grid, block, ...) \
    (emulate_launch<(kernel)>(kernel, cuda_stream(be), grid, block, 0, __VA_ARGS__), cuda_check(cudaSuccess, #kernel))
#define LAUNCH_SHARED(be, kernel, grid, block, bytes, ...) \
    (emulate_launch<(kernel)>(kernel, cuda_stream(be), grid, block, bytes, __VA_ARGS__), cuda_check(cudaSuccess, #kernel))
#define SHARED_OF_LAUNCH(T, name) T *name = (T *)emulate_shared()
#endif

/* f with an element of the type that `type` names. */
template <typename F> static inline int by_type(DType type, F f)
{
    return type == DT_BF16 ? f(bf16()) : f(float());
}

template <typename F> static inline int by_types(DType one, DType other, F f)
{
    return by_type(one, [&](auto x) { return by_type(other, [&](auto y) { return f(x, y); }); });
}

#endif
