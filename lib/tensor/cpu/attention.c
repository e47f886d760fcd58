/* Attention: a thread takes a sample's head, and of long sequences a block of query rows at a time. */
#include "tensor/cpu/cpu.h"

#include <string.h>

enum { BLOCK = 256 };

/* Rows of the score block are a multiple of 16 long. */
static int64_t padded(int64_t n)
{
    return (n + 15) / 16 * 16;
}

/* Products here are small: their right-hand sides are packed into the thread's own scratch, side by side. */
static void pack(const float *b, int64_t ldb, bool tb, int64_t n, int64_t k, float *to)
{
    cpu.gemm_pack(b, ldb, tb, n, k, 0, (n + cpu.gemm_panel - 1) / cpu.gemm_panel, to);
}

/* Ask for rows that are read a little later: they lie too far apart for the processor to guess. */
static void fetch(const float *x, int64_t ld, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j += 16)
            __builtin_prefetch(x + i * ld + j);
}

/* b^T for b [n,k], with columns of zeros up to a multiple of 16. */
static void pack_padded(const float *b, int64_t ldb, int64_t n, int64_t k, float *to)
{
    pack(b, ldb, true, n, k, to);
    int64_t done = cpu.gemm_packed_size(n, k), all = cpu.gemm_packed_size(padded(n), k);
    memset(to + done, 0, (size_t)(all - done) * sizeof *to);
}

static int head_forward(const AttentionArgs *a, int64_t sample, int head)
{
    int64_t n = a->tokens, d = a->dim, c = a->heads * d, ld = 3 * c, wide = padded(n);
    const float *q = (const float *)a->qkv + sample * n * ld + head * d, *k = q + c, *v = k + c;
    float *y = (float *)a->y + sample * n * c + head * d,
          *stat = a->stat ? a->stat + (sample * a->heads + head) * n : NULL;
    int64_t block = n < BLOCK ? n : BLOCK, ksize = cpu.gemm_packed_size(wide, d),
            vsize = cpu.gemm_packed_size(d, n);
    float *s = cpu_scratch(SCRATCH_A, block * wide), *inverse = cpu_scratch(SCRATCH_B, block);
    float *kp = cpu_scratch(SCRATCH_C, ksize + vsize), *vp = kp + ksize;
    if (!s || !inverse || !kp)
        return -1;
    fetch(k, ld, n, d);
    fetch(v, ld, n, d);
    fetch(q, ld, block, d);
    pack_padded(k, ld, n, d, kp);
    pack(v, ld, false, d, n, vp);
    for (int64_t i = 0; i < n; i += block) {
        int64_t rows = n - i < block ? n - i : block;
        cpu.gemm_product(rows, wide, d, q + i * ld, ld, false, kp, false, s, wide);
        cpu.attention_softmax(s, wide, a->scale, rows, n, inverse, stat ? stat + i : NULL);
        cpu.gemm_product(rows, d, n, s, wide, false, vp, false, y + i * c, c);
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
 * delta = rowsum(dY Y): dS = P (dP - delta) scale; dV += P^T dY, dQ = dS K, dK += dS^T Q [Dao 2022, Alg. 4].
 */
static int head_backward(const AttentionArgs *a, int64_t sample, int head)
{
    int64_t n = a->tokens, d = a->dim, c = a->heads * d, ld = 3 * c, wide = padded(n);
    int64_t at = sample * n * ld + head * d;
    const float *q = (const float *)a->qkv + at, *k = q + c, *v = k + c;
    float *dq = (float *)a->dqkv + at, *dk = dq + c, *dv = dk + c;
    const float *y = (const float *)a->y + sample * n * c + head * d;
    const float *dy = (const float *)a->dy + sample * n * c + head * d;
    const float *stat = a->stat + (sample * a->heads + head) * n;
    int64_t block = n < BLOCK ? n : BLOCK, across = cpu.gemm_packed_size(wide, d),
            along = cpu.gemm_packed_size(d, n);
    float *s = cpu_scratch(SCRATCH_A, block * wide), *ds = cpu_scratch(SCRATCH_B, block * wide);
    float *delta = cpu_scratch(SCRATCH_D, block), *kt = cpu_scratch(SCRATCH_C, 2 * across + 2 * along);
    float *vt = kt + across, *kp = vt + across, *piece = kp + along;
    if (!s || !ds || !delta || !kt)
        return -1;
    fetch(k, ld, n, d);
    fetch(v, ld, n, d);
    fetch(q, ld, block, d);
    fetch(dy, c, block, d);
    fetch(y, c, block, d);
    pack_padded(k, ld, n, d, kt);
    pack_padded(v, ld, n, d, vt);
    pack(k, ld, false, d, n, kp);
    for (int64_t i = 0; i < n; i += block) {
        int64_t rows = n - i < block ? n - i : block;
        bool later = i > 0 || a->add;
        for (int64_t r = 0; r < rows; r++)
            delta[r] = (float)cpu.dot(dy + (i + r) * c, y + (i + r) * c, d);
        cpu.gemm_product(rows, wide, d, q + i * ld, ld, false, kt, false, s, wide);
        cpu.gemm_product(rows, wide, d, dy + i * c, c, false, vt, false, ds, wide);
        cpu.attention_backward(s, ds, wide, a->scale, rows, n, stat + i, delta);
        cpu.gemm_product(rows, d, n, ds, wide, false, kp, a->add, dq + i * ld, ld);
        pack(dy + i * c, c, false, d, rows, piece);
        cpu.gemm_product(n, d, rows, s, wide, true, piece, later, dv, ld);
        pack(q + i * ld, ld, false, d, rows, piece);
        cpu.gemm_product(n, d, rows, ds, wide, true, piece, later, dk, ld);
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
