/* Rows of many classes: a block has one, its threads take packs of four columns where they are so aligned. CUDA C++. */
#ifndef HSSL_CUDA_WIDE_H
#define HSSL_CUDA_WIDE_H

#include "tensor/cuda/kernel.cuh"

enum { WIDE = 1024 };

/* The columns of this thread, N at a time. */
#define EACH_WIDE(i, k, N)                                                                \
    int64_t i = threadIdx.x * (N), i##_end = k; i < i##_end; i += blockDim.x * (N)

/* Few rows, so threads enough that they keep the memory busy. */
static inline unsigned wide_block(int64_t k)
{
    return k >= 4 * WIDE ? (unsigned)WIDE : (unsigned)BLOCK;
}

/* Launches kernel<4> where packs fit the rows of k at all these addresses, else kernel<1>. */
#define LAUNCH_WIDE(be, kernel, fits, rows, k, ...)                                       \
    ((fits) ? LAUNCH(be, (kernel<4>), (unsigned)(rows), wide_block(k), __VA_ARGS__)       \
            : LAUNCH(be, (kernel<1>), (unsigned)(rows), wide_block(k), __VA_ARGS__))

/* The log of a sum of exponentials, in one pass with a running maximum [Milakov 2018]. */
struct LogSum {
    float most = -INFINITY, sum = 0;

    template <int N> __device__ void take(const Pack<float, N> &v)
    {
        float top = v.v[0];
        UNROLL
        for (int j = 1; j < N; j++)
            top = fmaxf(top, v.v[j]);
        if (top > most) {
            sum *= expf(most - top);
            most = top;
        }
        UNROLL
        for (int j = 0; j < N; j++)
            sum += expf(v.v[j] - most);
    }

    /* Of all threads of the block, which must all call it. */
    __device__ float of_block() const
    {
        float all = block_max(most);
        return all + logf(block_sum(sum > 0 ? sum * expf(most - all) : sum));
    }
};

/* f (x[i] - center[i]) for a pack from i on; center may be NULL. */
template <int N, typename T> __device__ inline Pack<float, N> tempered(const T *x, const float *center, float f, int64_t i)
{
    typedef Pack<float, N> P;
    Pack<T, N> in = load<Pack<T, N>>(x, i);
    P v, c = center ? load<P>(center, i) : P();
    UNROLL
    for (int j = 0; j < N; j++)
        v.v[j] = f * (get(in.v, j) - (center ? c.v[j] : 0));
    return v;
}

/* Of tempered(x, center, f), for the block. */
template <int N> __device__ inline float log_sum_exp(const float *x, const float *center, float f, int64_t k)
{
    LogSum s;
    for (EACH_WIDE(i, k, N))
        s.take(tempered<N>(x, center, f, i));
    return s.of_block();
}

#endif
