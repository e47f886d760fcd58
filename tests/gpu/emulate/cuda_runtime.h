/* The part of CUDA C that the kernels use, on the processor: a block's threads are fibers that take turns at barriers
 * and shuffles, blocks follow one another. So every kernel runs, slowly, in tests on machines without a GPU.
 * Stands in for the toolkit's header of this name. */
#ifndef EMULATE_CUDA_RUNTIME_H
#define EMULATE_CUDA_RUNTIME_H

typedef enum { cudaSuccess } cudaError_t;
typedef void *cudaStream_t;

#ifdef __cplusplus

#include <cmath>
#include <functional>

using std::isfinite;

#define __global__ static
#define __device__
#define __shared__ static thread_local

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

/* kernel() once for each thread of each block. */
void emulate(dim3 grid, dim3 block, const std::function<void()> &kernel);

static inline void __syncthreads()
{
    emulate_block_barrier();
}

template <typename V> static inline V __shfl_xor_sync(unsigned, V value, int mask)
{
    return (V)emulate_shuffle((double)value, threadIdx.x % 32 ^ (unsigned)mask);
}

#endif
#endif
