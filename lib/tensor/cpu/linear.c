/* Matrix products, bias and GELU on the rows while they are in the cache. Products of many rows with a weight
 * go through a copy of the weight packed once (simd/gemm.c), all others to oneDNN. */
#include "tensor/cpu/cpu.h"

#include "util/err.h"

#include <dnnl.h>
#include <string.h>

int cpu_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
             int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m <= 0 || n <= 0)
        return 0;
    if (k <= 0) {
        for (int64_t i = 0; beta == 0 && i < m; i++)
            memset(c + i * ldc, 0, (size_t)n * sizeof *c);
        return 0;
    }
    dnnl_status_t s = dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1, a, lda, b, ldb, beta, c, ldc);
    if (s != dnnl_success)
        return err_set(s == dnnl_out_of_memory ? ERR_MEMORY : ERR_SHAPE,
                       "oneDNN's matrix product failed (%d)", (int)s);
    return 0;
}

const float *cpu_pack(int slot, const float *b, int64_t ldb, bool tb, int64_t n, int64_t k)
{
    float *packed = cpu_scratch(slot, cpu.gemm_packed_size(n, k));
    if (!packed)
        return NULL;
    int64_t panels = (n + cpu.gemm_panel - 1) / cpu.gemm_panel;
#pragma omp parallel for schedule(static) if (n * k > CPU_SERIAL)
    for (int64_t p = 0; p < panels; p++)
        cpu.gemm_pack(b, ldb, tb, n, k, p, p + 1, packed);
    return packed;
}

/* What is done to rows of the product while they are in the cache. */
static void epilogue(const MatmulArgs *m, int64_t from, int64_t to)
{
    for (int64_t i = from * m->ldc; i < to * m->ldc; i += m->ldc) {
        float *row = floats(m->c, i);
        if (m->gelu_at)
            cpu.gelu_backward(floats(m->gelu_at, i), row, row, m->n, false);
        else if (m->gelu)
            cpu.bias_gelu(row, m->bias, floats(m->pre, i), row, 1, m->n);
        else if (m->bias)
            cpu.bias_residual(row, m->bias, 1, NULL, 1, m->n);
    }
}

/* Rows a thread takes at a time: the result's part stays in the second cache between product and epilogue. */
enum { CHUNK = 192 };

static int product(const MatmulArgs *m, const float *a, const float *b, float *c)
{
    int64_t chunks = (m->m + CHUNK - 1) / CHUNK;
    if (m->ta || chunks < omp_get_max_threads()) {
        if (cpu_gemm(m->ta, m->tb, m->m, m->n, m->k, a, m->lda, b, m->ldb, m->add, c, m->ldc) < 0)
            return -1;
        if (m->bias || m->gelu || m->gelu_at) {
#pragma omp parallel for schedule(static) if (m->m * m->n > CPU_SERIAL)
            for (int64_t i = 0; i < m->m; i++)
                epilogue(m, i, i + 1);
        }
        return 0;
    }
    int failed = 0;
    const float *packed = NULL;
    if (m->m >= CPU_PACK_ROWS && !(packed = cpu_pack(SCRATCH_PACK1, b, m->ldb, m->tb, m->n, m->k)))
        return -1;
    /* Equal shares, so that no thread waits for another's last chunk. */
    int64_t nth = omp_get_max_threads(), pieces = (chunks + nth - 1) / nth * nth;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t p = 0; p < pieces; p++) {
        int64_t from, to;
        cpu_share_rows(m->m, (int)p, (int)pieces, &from, &to);
        float *rows = c + from * m->ldc;
        if (packed)
            cpu.gemm_product(to - from, m->n, m->k, a + from * m->lda, m->lda, false, packed, m->add, rows,
                             m->ldc);
        else if (cpu_gemm(false, m->tb, to - from, m->n, m->k, a + from * m->lda, m->lda, b, m->ldb, m->add,
                          rows, m->ldc) < 0)
            failed = 1;
        epilogue(m, from, to);
    }
    return failed ? -1 : 0;
}

static int colsum(Backend *be, const ColsumArgs *s)
{
    (void)be;
    const float *x = s->x;
    if (!s->add)
        memset(s->out, 0, (size_t)s->cols * sizeof *s->out);
    int nth = s->rows * s->cols > CPU_SERIAL ? omp_get_max_threads() : 1;
    float *partial = cpu_scratch(SCRATCH_PARTIAL, nth * s->cols);
    if (!partial)
        return -1;
    memset(partial, 0, (size_t)(nth * s->cols) * sizeof *partial);
#pragma omp parallel for schedule(static) num_threads(nth)
    for (int i = 0; i < nth; i++) {
        int64_t from, to;
        cpu_share(s->rows, i, nth, &from, &to);
        cpu.colsum(x + from * s->cols, to - from, s->cols, partial + i * s->cols);
    }
    for (int i = 0; i < nth; i++)
        cpu.axpby(partial + i * s->cols, 1, NULL, 0, s->out, s->cols, true);
    return 0;
}

static int matmul(Backend *be, const MatmulArgs *m)
{
    ColsumArgs sum = { .type = DT_F32, .rows = m->k, .cols = m->m, .x = m->a, .out = m->sum, .add = m->add_sum };
    if (m->sum && colsum(be, &sum) < 0)
        return -1;
    const float *a = m->a, *b = m->b;
    float *to = m->c;
    if (m->batch <= 1)
        return product(m, a, b, to);
    int failed = 0;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t i = 0; i < m->batch; i++) {
        float *c = to + i * m->stride_c;
        if (cpu_gemm(m->ta, m->tb, m->m, m->n, m->k, a + i * m->stride_a, m->lda, b + i * m->stride_b, m->ldb,
                     m->add, c, m->ldc) < 0)
            failed = 1;
        for (int64_t r = 0; m->bias && r < m->m; r++)
            cpu.bias_residual(c + r * m->ldc, m->bias, 1, NULL, 1, m->n);
    }
    return failed ? -1 : 0;
}

void cpu_linear_table(Backend *be)
{
    be->matmul = matmul;
    be->colsum = colsum;
}
