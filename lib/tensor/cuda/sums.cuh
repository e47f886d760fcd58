/* Sums over rows: strips of rows first, then the strips, each in its order. CUDA C++. */
#ifndef HSSL_CUDA_SUMS_H
#define HSSL_CUDA_SUMS_H

#include "tensor/cuda/kernel.cuh"

/* A block has 32 columns, and so many lanes of rows for each. */
enum { STRIP_COLS = 32, STRIP_LANES = 8, SUM_LANES = 32, MOST_STRIPS = 64 };

/* Each thread of lane 0 gets the sum over the block's lanes; all must call it. */
template <int LANES> __device__ inline float lanes_sum(float s)
{
    __shared__ float part[LANES][STRIP_COLS];
    unsigned lane = threadIdx.x / STRIP_COLS, col = threadIdx.x % STRIP_COLS;
    part[lane][col] = s;
    __syncthreads();
    for (int i = 1; !lane && i < LANES; i++)
        s += part[i][col];
    __syncthreads();
    return s;
}

/* The parts of n sums, or of n for each of two outputs, partial [strips, gridDim.y, n]: out = factor * sum + keep * out. What
 * is not kept is not read. */
template <typename T>
__global__ void __launch_bounds__(STRIP_COLS *SUM_LANES)
    k_add_strips(int64_t n, int64_t strips, const float *partial, float factor, float keep, T *out, T *second)
{
    int64_t i = (int64_t)blockIdx.x * STRIP_COLS + threadIdx.x % STRIP_COLS;
    T *to = blockIdx.y ? second : out;
    float s = 0;
    for (int64_t k = threadIdx.x / STRIP_COLS; to && i < n && k < strips; k += SUM_LANES)
        s += partial[(k * gridDim.y + blockIdx.y) * n + i];
    s = factor * lanes_sum<SUM_LANES>(s);
    if (threadIdx.x < STRIP_COLS && to && i < n)
        set(to, i, keep != 0 ? keep * get(to, i) + s : s);
}

template <typename T>
static inline int add_strips(Backend *be, int64_t n, int64_t strips, const float *partial, float factor, float keep, T *out)
{
    return LAUNCH(be, k_add_strips<T>, dim3((unsigned)((n + STRIP_COLS - 1) / STRIP_COLS), 1), STRIP_COLS * SUM_LANES, n,
                  strips, partial, factor, keep, out, (T *)NULL);
}

/* Of both outputs, each of which may be NULL. */
template <typename T>
static inline int add_strips(Backend *be, int64_t n, int64_t strips, const float *partial, float factor, float keep, T *out,
                             T *second)
{
    return LAUNCH(be, k_add_strips<T>, dim3((unsigned)((n + STRIP_COLS - 1) / STRIP_COLS), 2), STRIP_COLS * SUM_LANES, n,
                  strips, partial, factor, keep, out, second);
}

template <typename T>
__global__ void k_column_strips(int64_t rows, int64_t cols, int64_t strip, const T *x, float *partial)
{
    int64_t col = (int64_t)blockIdx.x * STRIP_COLS + threadIdx.x % STRIP_COLS, from = blockIdx.y * strip;
    int64_t to = from + strip < rows ? from + strip : rows;
    float s = 0;
    for (int64_t r = from + threadIdx.x / STRIP_COLS; col < cols && r < to; r += STRIP_LANES)
        s += get(x, r * cols + col);
    s = lanes_sum<STRIP_LANES>(s);
    if (threadIdx.x < STRIP_COLS && col < cols)
        partial[blockIdx.y * cols + col] = s;
}

/* out[c] = factor * sum over r of x[r, c] + keep * out[c] */
template <typename T, typename Out>
static int sum_columns(Backend *be, int64_t rows, int64_t cols, const T *x, float factor, float keep, Out *out)
{
    int64_t strip = STRIP_LANES * 16;
    if ((rows + strip - 1) / strip > MOST_STRIPS)
        strip = (rows + MOST_STRIPS - 1) / MOST_STRIPS;
    int64_t strips = (rows + strip - 1) / strip;
    float *partial = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(strips * cols + 1) * sizeof(float));
    dim3 grid((unsigned)((cols + STRIP_COLS - 1) / STRIP_COLS), (unsigned)strips);
    if (!partial ||
        (strips && LAUNCH(be, k_column_strips<T>, grid, STRIP_COLS * STRIP_LANES, rows, cols, strip, x, partial)))
        return -1;
    return add_strips(be, cols, strips, partial, factor, keep, out);
}

#endif
