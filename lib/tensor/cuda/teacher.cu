/* What the teacher makes of its logits: targets, centre, discrepancy, in F32.
 * Targets and discrepancy: one block a row. Centre: sums over rows by strips.
 * Floor: targets read their logits twice and write once; discrepancy reads the head twice and the base three times; the centre reads once. */
#include "tensor/cuda/sums.cuh"
#include "tensor/cuda/wide.cuh"

template <int N> __global__ void __launch_bounds__(WIDE) k_targets(TargetsArgs a, float f)
{
    typedef Pack<float, N> P;
    const float *x = a.logits + blockIdx.x * a.k;
    float lse = log_sum_exp<N>(x, a.center, f, a.k);
    for (EACH_WIDE(i, a.k, N)) {
        P v = tempered<N>(x, a.center, f, i);
        UNROLL
        for (int j = 0; j < N; j++)
            v.v[j] = expf(v.v[j] - lse);
        store(a.q + blockIdx.x * a.k, i, v);
    }
}

static int targets(Backend *be, const TargetsArgs *a)
{
    bool packs = packs_fit(a->k, a->logits, a->center, (const float *)a->q);
    return a->rows ? LAUNCH_WIDE(be, k_targets, packs, a->rows, a->k, *a, (float)(1 / a->temp)) : 0;
}

static int center(Backend *be, const CenterArgs *a)
{
    if (!a->rows || !a->k)
        return 0;
    return sum_columns(be, a->rows, a->k, a->logits, (float)((1 - a->momentum) / (double)a->rows), (float)a->momentum,
                       a->center);
}

template <int N> __global__ void __launch_bounds__(WIDE) k_discrepancy(DiscrepancyArgs a, float f, float student, double *row)
{
    typedef Pack<float, N> P;
    const float *b = a.base + blockIdx.x * a.k, *h = a.head + blockIdx.x * a.k;
    float head = log_sum_exp<N>(h, a.center_head, f, a.k);
    float base = log_sum_exp<N>(b, a.center_base, f, a.k), plain = log_sum_exp<N>(b, NULL, student, a.k);
    double d = 0, role = 0;
    for (EACH_WIDE(i, a.k, N)) {
        P lh = tempered<N>(h, a.center_head, f, i), lb = tempered<N>(b, a.center_base, f, i),
          lp = tempered<N>(b, NULL, student, i);
        UNROLL
        for (int j = 0; j < N; j++) {
            float la = lh.v[j] - head;
            d += (double)(expf(lb.v[j] - base) * (lb.v[j] - base - la));
            role += (double)(expf(lp.v[j] - plain) * (lp.v[j] - plain - la));
        }
    }
    d = block_sum(d);
    role = block_sum(role);
    if (threadIdx.x == 0) {
        row[2 * blockIdx.x] = d;
        row[2 * blockIdx.x + 1] = role;
    }
}

__global__ void k_mean_pairs(int64_t rows, const double *row, float *out)
{
    for (int which = 0; which < 2; which++) {
        double s = 0;
        for (int64_t r = threadIdx.x; r < rows; r += WARP)
            s += row[2 * r + which];
        s = warp_sum(s);
        if (threadIdx.x == 0)
            out[which] = rows ? (float)(s / (double)rows) : 0;
    }
}

static int discrepancy(Backend *be, const DiscrepancyArgs *a)
{
    double *row = (double *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(2 * a->rows + 2) * sizeof *row);
    bool packs = packs_fit(a->k, a->base, a->head, a->center_base, a->center_head);
    if (!row || (a->rows && LAUNCH_WIDE(be, k_discrepancy, packs, a->rows, a->k, *a, (float)(1 / a->temp),
                                        (float)(1 / a->student_temp), row)))
        return -1;
    return LAUNCH(be, k_mean_pairs, 1, WARP, a->rows, row, a->out);
}

void cuda_teacher_table(Backend *be)
{
    be->targets = targets;
    be->center = center;
    be->discrepancy = discrepancy;
}
