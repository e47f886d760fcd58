/* Sums: of columns, over a middle dimension, of all elements, and whether all are finite.
 * Columns: a block a strip of rows and 32 columns, then one thread a column over the strips. Others: one block or one
 * thread an output. The order of the sums is fixed.
 * Floor: the input read once. */
#include "tensor/cuda/kernel.cuh"

enum { STRIP_COLS = 32, STRIP_ROWS = 8, MOST_STRIPS = 64 };

template <typename T>
__global__ void k_column_strips(int64_t rows, int64_t cols, int64_t strip, const T *x, float *partial)
{
    __shared__ float sums[STRIP_ROWS][STRIP_COLS];
    int64_t col = (int64_t)blockIdx.x * STRIP_COLS + threadIdx.x % STRIP_COLS, from = blockIdx.y * strip;
    int64_t to = from + strip < rows ? from + strip : rows;
    unsigned lane = threadIdx.x / STRIP_COLS;
    float s = 0;
    for (int64_t r = from + lane; col < cols && r < to; r += STRIP_ROWS)
        s += get(x, r * cols + col);
    sums[lane][threadIdx.x % STRIP_COLS] = s;
    __syncthreads();
    if (lane || col >= cols)
        return;
    for (int i = 1; i < STRIP_ROWS; i++)
        s += sums[i][threadIdx.x];
    partial[blockIdx.y * cols + col] = s;
}

/* out[c] = factor * sum over r of x[r, c] (+ out) */
template <typename T, typename Out>
static int sum_columns(Backend *be, int64_t rows, int64_t cols, const T *x, float factor, Out *out, bool add)
{
    int64_t strip = STRIP_ROWS * 16;
    if ((rows + strip - 1) / strip > MOST_STRIPS)
        strip = (rows + MOST_STRIPS - 1) / MOST_STRIPS;
    int strips = (int)((rows + strip - 1) / strip);
    float *partial = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(strips * cols + 1) * sizeof(float));
    dim3 grid((unsigned)((cols + STRIP_COLS - 1) / STRIP_COLS), (unsigned)strips);
    if (!partial ||
        (strips && LAUNCH(be, k_column_strips<T>, grid, STRIP_COLS * STRIP_ROWS, rows, cols, strip, x, partial)))
        return -1;
    return add_strips(be, cols, strips, partial, factor, out, add);
}

static int colsum(Backend *be, const ColsumArgs *a)
{
    if (!a->cols)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return sum_columns(be, a->rows, a->cols, (const T *)a->x, 1, a->out, a->add);
    });
}

template <typename T, typename Out> __global__ void k_sum_rows(ReduceArgs a)
{
    float s = 0;
    for (int64_t i = threadIdx.x; i < a.reduce; i += blockDim.x)
        s += get((const T *)a.x, blockIdx.x * a.x_outer + i);
    s = block_sum(s);
    if (threadIdx.x == 0)
        put((Out *)a.out, blockIdx.x, a.factor * s, a.add);
}

template <typename T, typename Out> __global__ void k_sum_middle(ReduceArgs a)
{
    for (EACH(i, a.outer * a.n)) {
        const T *x = (const T *)a.x + i / a.n * a.x_outer + i % a.n;
        float s = 0;
        for (int64_t j = 0; j < a.reduce; j++)
            s += get(x, j * a.n);
        put((Out *)a.out, i, a.factor * s, a.add);
    }
}

static int reduce(Backend *be, const ReduceArgs *a)
{
    if (!a->outer || !a->n)
        return 0;
    return by_types(a->type, a->type_out, [&](auto t, auto o) {
        typedef decltype(t) T;
        typedef decltype(o) Out;
        if (a->n == 1)
            return LAUNCH(be, (k_sum_rows<T, Out>), (unsigned)a->outer, BLOCK, *a);
        if (a->outer == 1)
            return sum_columns(be, a->reduce, a->n, (const T *)a->x, a->factor, (Out *)a->out, a->add);
        return LAUNCH(be, (k_sum_middle<T, Out>), grid_for(be, a->outer * a->n, BLOCK), BLOCK, *a);
    });
}

template <typename T> __global__ void k_not_finite(int64_t n, const T *x, int *bad)
{
    int found = 0;
    for (EACH(i, n))
        found |= !isfinite(get(x, i));
    if (found)
        *bad = 1; /* all write the same */
}

static int all_finite(Backend *be, DType type, const void *x, int64_t n, bool *finite)
{
    int bad = 0, *flag = (int *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, sizeof *flag);
    if (!flag || be->zero(be, flag, sizeof *flag))
        return -1;
    int rc = !n ? 0 : by_type(type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_not_finite<T>, grid_for(be, n, BLOCK), BLOCK, n, (const T *)x, flag);
    });
    if (rc || be->read(be, &bad, flag, sizeof bad))
        return -1;
    *finite = !bad;
    return 0;
}

void cuda_reduce_table(Backend *be)
{
    be->colsum = colsum;
    be->reduce = reduce;
    be->all_finite = all_finite;
}
