/* Attention: a thread takes a sample's head, and of long sequences a block of query rows at a time. */
#include "tensor/cpu/cpu.h"

#include <string.h>

enum { BLOCK = 256 };

static int head_forward(const AttentionArgs *a, int64_t sample, int head)
{
    int64_t n = a->tokens, d = a->dim, c = a->heads * d, ld = 3 * c;
    const float *q = a->qkv + sample * n * ld + head * d, *k = q + c, *v = k + c;
    float *y = a->y + sample * n * c + head * d, *stat = a->stat ? a->stat + (sample * a->heads + head) * n : NULL;
    int64_t block = n < BLOCK ? n : BLOCK;
    float *s = cpu_scratch(SCRATCH_A, block * n), *inverse = cpu_scratch(SCRATCH_B, block);
    if (!s || !inverse)
        return -1;
    for (int64_t i = 0; i < n; i += block) {
        int64_t rows = n - i < block ? n - i : block;
        if (cpu_gemm(false, true, rows, n, d, q + i * ld, ld, k, ld, 0, s, n) < 0)
            return -1;
        cpu.attention_softmax(s, n, a->scale, rows, n, inverse, stat ? stat + i : NULL);
        if (cpu_gemm(false, false, rows, d, n, s, n, v, ld, 0, y + i * c, c) < 0)
            return -1;
        cpu.scale_rows(y + i * c, c, inverse, rows, d);
    }
    return 0;
}

static int attention(Backend *be, const AttentionArgs *a)
{
    (void)be;
    int failed = 0;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t i = 0; i < a->batch * a->heads; i++)
        if (head_forward(a, i / a->heads, (int)(i % a->heads)) < 0)
            failed = 1;
    return failed ? -1 : 0;
}

/* The probabilities are made again from the stored denominators. With P = softmax(S), dP = dY V^T and
 * delta = rowsum(dY Y): dS = P (dP - delta) scale; dV += P^T dY, dQ = dS K, dK += dS^T Q [Dao 2022, Alg. 4]. */
static int head_backward(const AttentionArgs *a, int64_t sample, int head)
{
    int64_t n = a->tokens, d = a->dim, c = a->heads * d, ld = 3 * c;
    int64_t at = sample * n * ld + head * d;
    const float *q = a->qkv + at, *k = q + c, *v = k + c;
    float *dq = a->dqkv + at, *dk = dq + c, *dv = dk + c;
    const float *y = a->y + sample * n * c + head * d, *dy = a->dy + sample * n * c + head * d;
    const float *stat = a->stat + (sample * a->heads + head) * n;
    int64_t block = n < BLOCK ? n : BLOCK;
    float *s = cpu_scratch(SCRATCH_A, block * n), *ds = cpu_scratch(SCRATCH_B, block * n);
    float *delta = cpu_scratch(SCRATCH_C, block);
    if (!s || !ds || !delta)
        return -1;
    float beta = a->add ? 1 : 0;
    for (int64_t i = 0; i < n; i += block) {
        int64_t rows = n - i < block ? n - i : block;
        float later = i ? 1 : beta;
        for (int64_t r = 0; r < rows; r++)
            delta[r] = (float)cpu.dot(dy + (i + r) * c, y + (i + r) * c, d);
        if (cpu_gemm(false, true, rows, n, d, q + i * ld, ld, k, ld, 0, s, n) < 0 ||
            cpu_gemm(false, true, rows, n, d, dy + i * c, c, v, ld, 0, ds, n) < 0)
            return -1;
        cpu.attention_backward(s, ds, n, a->scale, rows, n, stat + i, delta);
        if (cpu_gemm(true, false, n, d, rows, s, n, dy + i * c, c, later, dv, ld) < 0 ||
            cpu_gemm(false, false, rows, d, n, ds, n, k, ld, beta, dq + i * ld, ld) < 0 ||
            cpu_gemm(true, false, n, d, rows, ds, n, q + i * ld, ld, later, dk, ld) < 0)
            return -1;
    }
    return 0;
}

static int attention_backward(Backend *be, const AttentionArgs *a)
{
    (void)be;
    int failed = 0;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t i = 0; i < a->batch * a->heads; i++)
        if (head_backward(a, i / a->heads, (int)(i % a->heads)) < 0)
            failed = 1;
    return failed ? -1 : 0;
}

void cpu_attention_table(Backend *be)
{
    be->attention = attention;
    be->attention_backward = attention_backward;
}
