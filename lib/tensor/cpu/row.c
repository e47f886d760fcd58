/* Kernels by rows: the loops of simd/row.c, a share of the rows for each thread. */
#include "tensor/cpu/cpu.h"

#include <string.h>

static int threads(const RowArgs *a)
{
    return a->rows * a->cols > CPU_SERIAL ? omp_get_max_threads() : 1;
}

#define ROWS(call)                                                                       \
    do {                                                                                 \
        _Pragma("omp parallel num_threads(threads(a))")                                  \
        {                                                                                \
            int64_t from, to, n, at;                                                     \
            cpu_share(a->rows, omp_get_thread_num(), omp_get_num_threads(), &from, &to); \
            n = to - from;                                                               \
            at = from * a->cols;                                                         \
            call;                                                                        \
        }                                                                                \
        return 0;                                                                        \
    } while (0)

/* A per-row array, or NULL, from row `from` on. */
#define FROM(p, each) ((p) ? (p) + (each) * from : NULL)

static int layer_norm(Backend *be, const RowArgs *a)
{
    (void)be;
    ROWS(cpu.layer_norm(floats(a->x, at), a->gamma, a->beta, a->eps, floats(a->y, at), FROM(a->stat, 2), n, a->cols));
}

/* Each thread sums the gradients of gamma and beta over its rows; then they are added in order. */
static int layer_norm_backward(Backend *be, const RowArgs *a)
{
    (void)be;
    int nth = threads(a);
    float *partial = cpu_scratch(SCRATCH_PARTIAL, 2 * nth * a->cols);
    if (!partial)
        return -1;
    memset(partial, 0, (size_t)(2 * nth * a->cols) * sizeof *partial);
    bool affine = a->dgamma || a->dbeta;
#pragma omp parallel for schedule(static) num_threads(nth)
    for (int i = 0; i < nth; i++) {
        int64_t from, to;
        cpu_share(a->rows, i, nth, &from, &to);
        float *p = partial + 2 * i * a->cols;
        cpu.layer_norm_backward(floats(a->x, from * a->cols), floats(a->dy, from * a->cols), a->gamma, a->stat + 2 * from,
                                floats(a->dx, from * a->cols), a->add, affine ? p : NULL,
                                affine ? p + a->cols : NULL, to - from, a->cols);
    }
    for (int i = 0; affine && i < nth; i++) {
        if (a->dgamma)
            cpu.axpby(partial + 2 * i * a->cols, 1, NULL, 0, a->dgamma, a->cols, true);
        if (a->dbeta)
            cpu.axpby(partial + (2 * i + 1) * a->cols, 1, NULL, 0, a->dbeta, a->cols, true);
    }
    return 0;
}

static int l2_normalize(Backend *be, const RowArgs *a)
{
    (void)be;
    ROWS(cpu.normalize(floats(a->x, at), a->eps, NULL, floats(a->y, at), FROM(a->stat, 1), n, a->cols));
}

static int l2_normalize_backward(Backend *be, const RowArgs *a)
{
    (void)be;
    ROWS(cpu.normalize_backward(floats(a->x, at), floats(a->dy, at), a->eps, NULL, a->stat + from, floats(a->dx, at),
                                a->add, NULL, n, a->cols));
}

static int weight_norm(Backend *be, const RowArgs *a)
{
    (void)be;
    ROWS(cpu.normalize(floats(a->x, at), 0, FROM(a->gamma, 1), floats(a->y, at), FROM(a->stat, 1), n, a->cols));
}

static int weight_norm_backward(Backend *be, const RowArgs *a)
{
    (void)be;
    ROWS(cpu.normalize_backward(floats(a->x, at), floats(a->dy, at), 0, FROM(a->gamma, 1), a->stat + from,
                                floats(a->dx, at), a->add, FROM(a->dgamma, 1), n, a->cols));
}

static int softmax(Backend *be, const RowArgs *a)
{
    (void)be;
    ROWS(cpu.softmax(floats(a->x, at), floats(a->y, at), n, a->cols));
}

static int softmax_backward(Backend *be, const RowArgs *a)
{
    (void)be;
    if (!a->dx)
        return 0;
    ROWS(cpu.softmax_backward(floats(a->y, at), floats(a->dy, at), floats(a->dx, at), a->add, n, a->cols));
}

static int log_softmax(Backend *be, const RowArgs *a)
{
    (void)be;
    ROWS(cpu.log_softmax(floats(a->x, at), floats(a->y, at), n, a->cols));
}

static int log_softmax_backward(Backend *be, const RowArgs *a)
{
    (void)be;
    if (!a->dx)
        return 0;
    ROWS(cpu.log_softmax_backward(floats(a->y, at), floats(a->dy, at), floats(a->dx, at), a->add, n, a->cols));
}

void cpu_row_table(Backend *be)
{
    be->layer_norm = layer_norm;
    be->layer_norm_backward = layer_norm_backward;
    be->l2_normalize = l2_normalize;
    be->l2_normalize_backward = l2_normalize_backward;
    be->weight_norm = weight_norm;
    be->weight_norm_backward = weight_norm_backward;
    be->softmax = softmax;
    be->softmax_backward = softmax_backward;
    be->log_softmax = log_softmax;
    be->log_softmax_backward = log_softmax_backward;
}
