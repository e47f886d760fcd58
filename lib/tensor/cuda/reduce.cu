/* Sums: of columns, over a middle dimension, of all elements, and whether all are finite.
 * Columns: strips of rows first, see sums.cuh. Others: one block or one thread an output. The order of the sums is fixed.
 * Floor: the input read once. */
#include "tensor/cuda/sums.cuh"

static int colsum(Backend *be, const ColsumArgs *a)
{
    if (!a->cols)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return sum_columns(be, a->rows, a->cols, (const T *)a->x, 1, a->add, a->out);
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
            return sum_columns(be, a->reduce, a->n, (const T *)a->x, a->factor, a->add, (Out *)a->out);
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
