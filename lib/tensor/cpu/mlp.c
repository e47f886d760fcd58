/* The MLP branch by chunks of rows: what lies between the two products never leaves the cache of the core
 * that made it, except for the pre-activation that the backward pass needs. */
#include "tensor/cpu/cpu.h"

#include <string.h>

enum { CHUNK = 192 };

/* Chunks: a multiple of the threads, of nearly equal size. */
static int64_t chunk_count(int64_t rows)
{
    int64_t nth = omp_get_max_threads(), n = (rows + CHUNK - 1) / CHUNK;
    return (n + nth - 1) / nth * nth;
}

/* The weights as the two products of a pass want them: packed, or NULL to leave that to oneDNN. */
typedef struct {
    const float *w1, *w2;
} Packed;

static int pack_weights(const MlpArgs *a, bool backward, Packed *p)
{
    *p = (Packed){ NULL, NULL };
    if (a->rows < CPU_PACK_ROWS)
        return 0;
    if (backward) {
        p->w1 = cpu_pack(SCRATCH_PACK1, a->w1, a->dim, false, a->dim, a->hidden);
        p->w2 = cpu_pack(SCRATCH_PACK2, a->w2, a->hidden, false, a->hidden, a->out);
    } else {
        p->w1 = cpu_pack(SCRATCH_PACK1, a->w1, a->dim, true, a->hidden, a->dim);
        p->w2 = cpu_pack(SCRATCH_PACK2, a->w2, a->hidden, true, a->out, a->hidden);
    }
    return p->w1 && p->w2 ? 0 : -1;
}

static int times(int64_t m, int64_t n, int64_t k, const float *x, const float *w, bool tb,
                 const float *packed, bool add, float *y)
{
    if (!packed)
        return cpu_gemm(false, tb, m, n, k, x, k, w, tb ? k : n, add, y, n);
    cpu.gemm_product(m, n, k, x, k, false, packed, add, y, n);
    return 0;
}

static int chunk_forward(const MlpArgs *a, const Packed *p, int64_t from, int64_t to)
{
    int64_t n = to - from;
    const float *x = a->x + from * a->dim;
    float *h = cpu_scratch(SCRATCH_A, n * a->hidden);
    float *y = a->y + from * a->out;
    if (!h)
        return -1;
    if (a->norm_w) {
        float *normed = cpu_scratch(SCRATCH_B, n * a->dim);
        if (!normed)
            return -1;
        cpu.layer_norm(x, a->norm_w, a->norm_b, a->eps, normed, a->stat ? a->stat + 2 * from : NULL, n,
                       a->dim);
        x = normed;
    }
    if (times(n, a->hidden, a->dim, x, a->w1, true, p->w1, false, h) < 0)
        return -1;
    cpu.bias_gelu(h, a->b1, a->pre ? a->pre + from * a->hidden : NULL, h, n, a->hidden);
    /* y may not be the residual's memory: the product comes first. */
    if (times(n, a->out, a->hidden, h, a->w2, true, p->w2, false, y) < 0)
        return -1;
    const float *r = a->residual ? a->residual + from * a->out : NULL;
    if (!a->scale) {
        cpu.bias_residual(y, a->b2, 1, r, n, a->out);
        return 0;
    }
    for (int64_t i = 0; i < n; i++)
        cpu.bias_residual(y + i * a->out, a->b2, a->scale[(from + i) / a->rows_per_scale],
                          r ? r + i * a->out : NULL, 1, a->out);
    return 0;
}

static int mlp(Backend *be, const MlpArgs *a)
{
    (void)be;
    int64_t chunks = chunk_count(a->rows);
    int failed = 0;
    Packed packed;
    if (pack_weights(a, false, &packed) < 0)
        return -1;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t from, to;
        cpu_share_rows(a->rows, (int)c, (int)chunks, &from, &to);
        if (to > from && chunk_forward(a, &packed, from, to) < 0)
            failed = 1;
    }
    return failed ? -1 : 0;
}

/* ---- backward: each thread sums its own weight gradients, the first one in place */

typedef struct {
    float *dw1, *db1, *dw2, *db2, *dnorm_w, *dnorm_b;
} Grads;

static int64_t grads_size(const MlpArgs *a)
{
    return 2 * a->dim * 1 + a->hidden * (a->dim + 1 + a->out) + a->out;
}

static Grads grads_at(const MlpArgs *a, float *p)
{
    Grads g;
    g.dw1 = p;
    g.dw2 = g.dw1 + a->hidden * a->dim;
    g.db1 = g.dw2 + a->hidden * a->out;
    g.db2 = g.db1 + a->hidden;
    g.dnorm_w = g.db2 + a->out;
    g.dnorm_b = g.dnorm_w + a->dim;
    return g;
}

static size_t mlp_scratch(Backend *be, const MlpArgs *a)
{
    (void)be;
    return (size_t)(omp_get_max_threads() * grads_size(a));
}

static int chunk_backward(const MlpArgs *a, const Packed *p, const Grads *g, int64_t from, int64_t to)
{
    int64_t n = to - from;
    const float *x = a->x + from * a->dim, *dy = a->dy + from * a->out, *pre = a->pre + from * a->hidden;
    float *act = cpu_scratch(SCRATCH_A, n * a->hidden), *dpre = cpu_scratch(SCRATCH_B, n * a->hidden);
    int64_t wide = a->dim > a->out ? a->dim : a->out;
    float *rows = cpu_scratch(SCRATCH_C, n * wide);
    if (!act || !dpre || !rows)
        return -1;
    if (a->scale) {
        for (int64_t i = 0; i < n; i++)
            cpu.axpby(dy + i * a->out, a->scale[(from + i) / a->rows_per_scale], NULL, 0, rows + i * a->out,
                      a->out, false);
        dy = rows;
    }
    if (times(n, a->hidden, a->out, dy, a->w2, false, p->w2, false, dpre) < 0)
        return -1;
    cpu.gelu_both(pre, dpre, act, dpre, n * a->hidden);
    if (a->dw2 &&
        cpu_gemm(true, false, a->out, a->hidden, n, dy, a->out, act, a->hidden, 1, g->dw2, a->hidden) < 0)
        return -1;
    if (a->db2)
        cpu.colsum(dy, n, a->out, g->db2);
    if (a->db1)
        cpu.colsum(dpre, n, a->hidden, g->db1);
    const float *in = x;
    if (a->norm_w && a->dw1) {
        cpu.layer_norm_again(x, a->norm_w, a->norm_b, a->stat + 2 * from, act, n, a->dim);
        in = act;
    }
    if (a->dw1 &&
        cpu_gemm(true, false, a->hidden, a->dim, n, dpre, a->hidden, in, a->dim, 1, g->dw1, a->dim) < 0)
        return -1;
    float *dx = a->dx ? a->dx + from * a->dim : NULL;
    if (!a->norm_w)
        return dx ? times(n, a->dim, a->hidden, dpre, a->w1, false, p->w1, a->add, dx) : 0;
    if (!dx && !a->dnorm_w)
        return 0;
    if (times(n, a->dim, a->hidden, dpre, a->w1, false, p->w1, false, rows) < 0)
        return -1;
    cpu.layer_norm_backward(x, rows, a->norm_w, a->stat + 2 * from, dx, a->add,
                            a->dnorm_w ? g->dnorm_w : NULL, a->dnorm_w ? g->dnorm_b : NULL, n, a->dim);
    return 0;
}

static void gather(float *to, const float *from, int64_t n)
{
    if (to)
        cpu.axpby(from, 1, NULL, 0, to, n, true);
}

static int mlp_backward(Backend *be, const MlpArgs *a)
{
    (void)be;
    int64_t chunks = chunk_count(a->rows), size = grads_size(a);
    int nth = omp_get_max_threads(), failed = 0;
    Packed packed;
    if (pack_weights(a, true, &packed) < 0)
        return -1;
#pragma omp parallel num_threads(nth) reduction(| : failed)
    {
        int me = omp_get_thread_num(), team = omp_get_num_threads();
        Grads g = grads_at(a, a->scratch + me * size);
        memset(a->scratch + me * size, 0, (size_t)size * sizeof(float));
        for (int64_t c = chunks * me / team; c < chunks * (me + 1) / team; c++) {
            int64_t from, to;
            cpu_share_rows(a->rows, (int)c, (int)chunks, &from, &to);
            if (to > from && chunk_backward(a, &packed, &g, from, to) < 0)
                failed = 1;
        }
#pragma omp barrier
        /* Each thread gathers a share of every gradient, in the order of the threads. */
        for (int i = 0; i < team; i++) {
            Grads s = grads_at(a, a->scratch + i * size);
            int64_t f, e;
#define GATHER(field, count) \
    cpu_share(count, me, team, &f, &e), gather(a->field ? a->field + f : NULL, s.field + f, e - f)
            GATHER(dw1, a->hidden * a->dim);
            GATHER(dw2, a->hidden * a->out);
            GATHER(db1, a->hidden);
            GATHER(db2, a->out);
            GATHER(dnorm_w, a->dim);
            GATHER(dnorm_b, a->dim);
#undef GATHER
        }
    }
    return failed ? -1 : 0;
}

void cpu_mlp_table(Backend *be)
{
    be->mlp = mlp;
    be->mlp_backward = mlp_backward;
    be->mlp_scratch = mlp_scratch;
}
