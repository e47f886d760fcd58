/* Exact GELU in the epilogue of a product, which cuBLASLt lacks, by graphs of cuDNN's: in BF16, with the bias and all sums
 * and functions in F32.
 *     c = gelu(a b + bias), and pre = a b + bias where it is wanted
 *     c = (a b) gelu'(x)
 * cuDNN compiles such a kernel at its first use, which takes about half a second, so only large results are worth one; and
 * only where HSSL_GELU asks for it, as long as no figures say that it pays. */
#include "tensor/cuda/products.h"

#include "util/err.h"
#include "util/log.h"

#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

enum { A = 1, B, BIAS, PRODUCT, PRE, C };
enum { LARGE = 4 << 20 }; /* elements */

/* [1, rows, cols] at these strides. */
static GraphTensor matrix(int64_t uid, DType type, int64_t rows, int64_t cols, int64_t down, int64_t across)
{
    return (GraphTensor){ .uid = uid, .type = type, .dims = 3, .dim = { 1, rows, cols },
                          .stride = { down > across ? rows * down : cols * across, down, across } };
}

/* Of the result's shape: in memory as the result is, or within the kernel. */
static void *result(Graph *g, const MatmulArgs *m, int64_t uid, bool stored)
{
    GraphTensor t = stored ? matrix(uid, m->type_c, m->m, m->n, m->ldc, 1) : matrix(uid, DT_F32, m->m, m->n, m->n, 1);
    t.within = !stored;
    return graph_tensor(g, &t);
}

static int add_product(Graph *g, const MatmulArgs *m, void *c)
{
    GraphTensor ta = matrix(A, m->type, m->m, m->k, m->lda, 1);
    GraphTensor tb = m->tb ? matrix(B, m->type, m->k, m->n, 1, m->ldb) : matrix(B, m->type, m->k, m->n, m->ldb, 1);
    void *a = graph_tensor(g, &ta), *b = graph_tensor(g, &tb);
    return graph_matmul(g, a, b, c);
}

static int build_forward(Graph *g, const void *arg)
{
    const MatmulArgs *m = arg;
    GraphTensor tbias = matrix(BIAS, DT_F32, 1, m->n, m->n, 1);
    void *pre = result(g, m, PRE, m->pre), *c = result(g, m, C, true);
    void *bias = m->bias ? graph_tensor(g, &tbias) : NULL, *sum = m->bias ? result(g, m, PRODUCT, false) : pre;
    if (add_product(g, m, sum) || (m->bias && (!bias || graph_pointwise(g, CUDNN_POINTWISE_ADD, sum, bias, pre))))
        return -1;
    return graph_pointwise(g, CUDNN_POINTWISE_GELU_FWD, pre, NULL, c);
}

static int build_backward(Graph *g, const void *arg)
{
    const MatmulArgs *m = arg;
    void *x = result(g, m, PRE, true), *c = result(g, m, C, true), *dy = result(g, m, PRODUCT, false);
    return add_product(g, m, dy) ? -1 : graph_pointwise_backward(g, CUDNN_POINTWISE_GELU_BWD, dy, x, c);
}

/* HSSL_GELU=cudnn[:N]: for results of at least N elements. */
static int64_t least_elements(void)
{
    const char *wish = getenv("HSSL_GELU");
    if (!wish || strncmp(wish, "cudnn", 5) || (wish[5] && wish[5] != ':'))
        return INT64_MAX;
    return wish[5] ? strtoll(wish + 6, NULL, 10) : LARGE;
}

/* cuDNN's kernels take rows and addresses that are multiples of 16 bytes. */
static bool suits(const MatmulArgs *m)
{
    int64_t sides = m->n | m->k | m->lda | m->ldb | m->ldc;
    uintptr_t places = (uintptr_t)m->a | (uintptr_t)m->b | (uintptr_t)m->c | (uintptr_t)m->bias | (uintptr_t)m->pre |
                       (uintptr_t)m->gelu_at;
    return m->type == DT_BF16 && m->type_c == DT_BF16 && m->k && !m->ta && !m->add && !m->sum && m->batch <= 1 &&
           sides % 8 == 0 && places % 16 == 0 && m->m * m->n >= least_elements();
}

int cuda_fused_gelu(Backend *be, const MatmulArgs *m)
{
    if (!suits(m))
        return 1;
    CudaDevice *d = (CudaDevice *)be;
    GraphKey key = { { m->m, m->n, m->k, m->lda, m->ldb, m->ldc, m->tb, m->bias != NULL, m->pre != NULL } };
    Graph *g = graph_find(d, &key, m->gelu_at ? build_backward : build_forward, m);
    if (!g) {
        log_debug("cuda", "gelu of %lld x %lld by a kernel of its own: %s", (long long)m->m, (long long)m->n, err_text());
        err_clear();
        return 1;
    }
    int64_t uids[5] = { A, B, C };
    const void *memory[5] = { m->a, m->b, m->c };
    int n = 3;
    if (m->bias) {
        uids[n] = BIAS;
        memory[n++] = m->bias;
    }
    if (m->pre || m->gelu_at) {
        uids[n] = PRE;
        memory[n++] = m->pre ? m->pre : m->gelu_at;
    }
    return graph_run(d, g, n, uids, (void *const *)memory);
}
