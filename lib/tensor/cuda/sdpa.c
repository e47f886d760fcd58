/* Attention. In BF16 by cuDNN's fused kernels, on q, k and v where they lie, or by our own (attention.cu,
 * attention_tiles.cu, attention_backward.cu). In F32, which those don't take, and where neither has a kernel for a shape:
 * scores of one head of all samples at a time, by products and softmaxes. */
#include "tensor/cuda/products.h"

#include "util/err.h"
#include "util/log.h"

#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

enum { Q = 1, K, V, O, STATS, SCALE, DO, DQ, DK, DV, ONE, DELTA, WITHIN };

/* ---- fused */

/* [batch, heads, tokens, dim] inside rows of `row` elements. */
static GraphTensor head_tensor(int64_t uid, const AttentionArgs *a, int64_t row)
{
    return (GraphTensor){ .uid = uid, .type = a->type, .dims = 4, .dim = { a->batch, a->heads, a->tokens, a->dim },
                          .stride = { a->tokens * row, a->dim, row, 1 } };
}

static GraphTensor stat_tensor(const AttentionArgs *a)
{
    return (GraphTensor){ .uid = STATS, .type = DT_F32, .dims = 4, .dim = { a->batch, a->heads, a->tokens, 1 },
                          .stride = { a->heads * a->tokens, a->tokens, 1, 1 } };
}

static GraphTensor scalar_tensor(int64_t uid)
{
    return (GraphTensor){ .uid = uid, .type = DT_F32, .dims = 4, .dim = { 1, 1, 1, 1 }, .stride = { 1, 1, 1, 1 },
                          .scalar = true };
}

static int build_forward(Graph *g, const void *arg)
{
    const AttentionArgs *a = arg;
    int64_t c = (int64_t)a->heads * a->dim;
    GraphTensor tq = head_tensor(Q, a, 3 * c), tk = head_tensor(K, a, 3 * c), tv = head_tensor(V, a, 3 * c);
    GraphTensor to = head_tensor(O, a, c), ts = stat_tensor(a), tf = scalar_tensor(SCALE);
    void *q = graph_tensor(g, &tq), *k = graph_tensor(g, &tk), *v = graph_tensor(g, &tv), *o = graph_tensor(g, &to);
    void *stats = a->stat ? graph_tensor(g, &ts) : NULL, *scale = graph_tensor(g, &tf);
    const GraphAttribute operation[] = {
        { CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &q },
        { CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &k },
        { CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v },
        { CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &o },
        { CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &scale },
        { CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &stats },
    };
    if (!q || !k || !v || !o || !scale || (a->stat && !stats))
        return -1;
    return graph_operation(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, a->stat ? 6 : 5, operation);
}

/* The last two dimensions the other way round. */
static GraphTensor turned(GraphTensor t)
{
    int64_t dim = t.dim[2], stride = t.stride[2];
    t.dim[2] = t.dim[3], t.stride[2] = t.stride[3];
    t.dim[3] = dim, t.stride[3] = stride;
    return t;
}

/* What flows within the kernel, [batch, heads, tokens, cols]. */
static GraphTensor within(int64_t uid, const AttentionArgs *a, DType type, int64_t cols)
{
    return (GraphTensor){ .uid = uid, .type = type, .dims = 4, .dim = { a->batch, a->heads, a->tokens, cols }, .within = true,
                          .stride = { a->heads * a->tokens * cols, a->tokens * cols, cols, 1 } };
}

/* cuDNN has an operation for this too, but engines for it on its latest GPUs only. What they all recognise is the formula,
 * operation by operation: with P = exp(scale Q K^T - stat) and delta = rowsum(dY Y), dV = P^T dY, dS = scale P (dY V^T - delta),
 * dK = dS^T Q and dQ = dS K. */
static int build_backward(Graph *g, const void *arg)
{
    const AttentionArgs *a = arg;
    enum { PRODUCTS, SUMS, SCORES, SCALED, SHIFTED, P, PT, DP, LESS, TIMES, DS, DST, KT, N };
    int64_t c = (int64_t)a->heads * a->dim, n = a->tokens;
    GraphTensor tq = head_tensor(Q, a, 3 * c), tk = head_tensor(K, a, 3 * c), tv = head_tensor(V, a, 3 * c);
    GraphTensor to = head_tensor(O, a, c), tdo = head_tensor(DO, a, c), ts = stat_tensor(a), tdelta = stat_tensor(a);
    GraphTensor tdq = head_tensor(DQ, a, 3 * c), tdk = head_tensor(DK, a, 3 * c), tdv = head_tensor(DV, a, 3 * c);
    GraphTensor tf = scalar_tensor(SCALE), tone = scalar_tensor(ONE), turned_k = turned(tk), turned_v = turned(tv);
    GraphTensor inner[N];
    void *x[N];
    tdelta.uid = DELTA;
    for (int i = 0; i < N; i++)
        inner[i] = within(WITHIN + i, a, DT_F32, n);
    inner[PRODUCTS] = within(WITHIN + PRODUCTS, a, DT_F32, a->dim);
    inner[SUMS] = within(WITHIN + SUMS, a, DT_F32, 1);
    inner[PT] = turned(within(WITHIN + PT, a, a->type, n));
    inner[DST] = turned(within(WITHIN + DST, a, a->type, n));
    inner[KT] = tk;
    inner[KT].uid = WITHIN + KT;
    inner[KT].within = true;
    for (int i = 0; i < N; i++)
        if (!(x[i] = graph_tensor(g, &inner[i])))
            return -1;
    void *q = graph_tensor(g, &tq), *k = graph_tensor(g, &turned_k), *v = graph_tensor(g, &turned_v), *o = graph_tensor(g, &to);
    void *dy = graph_tensor(g, &tdo), *stat = graph_tensor(g, &ts), *delta = graph_tensor(g, &tdelta);
    void *scale = graph_tensor(g, &tf), *one = graph_tensor(g, &tone);
    void *dq = graph_tensor(g, &tdq), *dk = graph_tensor(g, &tdk), *dv = graph_tensor(g, &tdv);
    if (!scale || !one || !stat || !delta || !o)
        return -1;
    return graph_pointwise(g, CUDNN_POINTWISE_MUL, dy, o, x[PRODUCTS]) || graph_sum(g, x[PRODUCTS], x[SUMS]) ||
                   graph_pointwise(g, CUDNN_POINTWISE_MUL, x[SUMS], one, delta) || graph_matmul(g, q, k, x[SCORES]) ||
                   graph_pointwise(g, CUDNN_POINTWISE_MUL, x[SCORES], scale, x[SCALED]) ||
                   graph_pointwise(g, CUDNN_POINTWISE_SUB, x[SCALED], stat, x[SHIFTED]) ||
                   graph_pointwise(g, CUDNN_POINTWISE_EXP, x[SHIFTED], NULL, x[P]) || graph_reshape(g, x[P], x[PT]) ||
                   graph_matmul(g, x[PT], dy, dv) || graph_matmul(g, dy, v, x[DP]) ||
                   graph_pointwise(g, CUDNN_POINTWISE_SUB, x[DP], delta, x[LESS]) ||
                   graph_pointwise(g, CUDNN_POINTWISE_MUL, x[LESS], x[P], x[TIMES]) ||
                   graph_pointwise(g, CUDNN_POINTWISE_MUL, x[TIMES], scale, x[DS]) || graph_reshape(g, x[DS], x[DST]) ||
                   graph_matmul(g, x[DST], q, dk) || graph_reshape(g, k, x[KT]) || graph_matmul(g, x[DS], x[KT], dq)
               ? -1
               : 0;
}

static GraphKey key_of(const AttentionArgs *a)
{
    return (GraphKey){ { a->type, a->batch, a->tokens, a->heads, a->dim, a->stat != NULL } };
}

/* q, k or v (part 0, 1, 2) of qkv. */
static void *part_of(const AttentionArgs *a, const void *qkv, int part)
{
    return element(qkv, a->type, (int64_t)part * a->heads * a->dim);
}

static int fused(Backend *be, Graph *g, const AttentionArgs *a)
{
    float scale = a->scale;
    return graph_run((CudaDevice *)be, g, a->stat ? 6 : 5, (int64_t[]){ Q, K, V, O, SCALE, STATS },
                     (void *[]){ part_of(a, a->qkv, 0), part_of(a, a->qkv, 1), part_of(a, a->qkv, 2), a->y, &scale,
                                 a->stat });
}

static int fused_backward(Backend *be, Graph *g, const AttentionArgs *a, void *dqkv)
{
    float scale = a->scale, one = 1;
    void *delta = cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(a->batch * a->heads * a->tokens) * sizeof(float));
    if (!delta)
        return -1;
    return graph_run((CudaDevice *)be, g, 12, (int64_t[]){ Q, K, V, O, DO, STATS, SCALE, ONE, DELTA, DQ, DK, DV },
                     (void *[]){ part_of(a, a->qkv, 0), part_of(a, a->qkv, 1), part_of(a, a->qkv, 2), a->y,
                                 (void *)(uintptr_t)a->dy, a->stat, &scale, &one, delta, part_of(a, dqkv, 0),
                                 part_of(a, dqkv, 1), part_of(a, dqkv, 2) });
}

/* ---- by products */

/* One head of all samples; x, y: [batch, tokens, ...] at these row lengths, scores [batch, tokens, tokens]. */
static MatmulArgs product(const AttentionArgs *a, DType type_c, int64_t m, int64_t n, int64_t k)
{
    return (MatmulArgs){ .type = a->type, .type_c = type_c, .m = m, .n = n, .k = k, .batch = a->batch };
}

static void operand(const void **x, int64_t *ld, int64_t *stride, const void *memory, int64_t row, int64_t tokens)
{
    *x = memory;
    *ld = row;
    *stride = row * tokens;
}

typedef struct {
    float *p, *dp; /* scores in F32; then their gradient */
    void *real;    /* a copy of the operands' type */
    int64_t n;     /* elements of each */
} Scores;

static int take_scores(Backend *be, const AttentionArgs *a, Scores *s)
{
    s->n = a->batch * a->tokens * a->tokens;
    s->p = cuda_scratch(be, CUDA_SCRATCH_SCORES, 3 * (size_t)s->n * sizeof(float));
    s->dp = s->p + s->n;
    s->real = s->p + 2 * s->n;
    return s->p ? 0 : -1;
}

/* The scores as an operand. */
static const void *as_operand(Backend *be, const AttentionArgs *a, const Scores *s, const float *x)
{
    CastArgs c = { .from = DT_F32, .to = a->type, .n = s->n, .x = x, .out = s->real };
    return a->type == DT_F32 ? (const void *)x : be->cast(be, &c) ? NULL : s->real;
}

/* p = softmax(scale q k^T) of one head; stat may be NULL. */
static int probabilities(Backend *be, const AttentionArgs *a, int head, const Scores *s, float *stat)
{
    int64_t n = a->tokens, row = 3 * (int64_t)a->heads * a->dim;
    MatmulArgs m = product(a, DT_F32, n, n, a->dim);
    operand(&m.a, &m.lda, &m.stride_a, element(part_of(a, a->qkv, 0), a->type, (int64_t)head * a->dim), row, n);
    operand(&m.b, &m.ldb, &m.stride_b, element(part_of(a, a->qkv, 1), a->type, (int64_t)head * a->dim), row, n);
    m.tb = true;
    m.c = s->p;
    m.ldc = n;
    m.stride_c = n * n;
    return be->matmul(be, &m) || cuda_scaled_softmax(be, a, head, s->p, stat) ? -1 : 0;
}

static int composed(Backend *be, const AttentionArgs *a)
{
    Scores s;
    int64_t n = a->tokens, c = (int64_t)a->heads * a->dim;
    if (take_scores(be, a, &s))
        return -1;
    for (int h = 0; h < a->heads; h++) {
        MatmulArgs m = product(a, a->type, n, a->dim, n);
        if (probabilities(be, a, h, &s, a->stat) || !(m.a = as_operand(be, a, &s, s.p)))
            return -1;
        m.lda = n;
        m.stride_a = n * n;
        operand(&m.b, &m.ldb, &m.stride_b, element(part_of(a, a->qkv, 2), a->type, (int64_t)h * a->dim), 3 * c, n);
        m.c = element(a->y, a->type, (int64_t)h * a->dim);
        m.ldc = c;
        m.stride_c = n * c;
        if (be->matmul(be, &m))
            return -1;
    }
    return 0;
}

/* With P = softmax(S), dP = dY V^T and delta = rowsum(dY Y) = rowsum(P dP): dS = P (dP - delta) scale; dV = P^T dY,
 * dQ = dS K, dK = dS^T Q [Dao 2022, Alg. 4]. */
static int composed_backward(Backend *be, const AttentionArgs *a)
{
    Scores s;
    int64_t n = a->tokens, c = (int64_t)a->heads * a->dim;
    if (take_scores(be, a, &s))
        return -1;
    for (int h = 0; h < a->heads; h++) {
        int64_t at = (int64_t)h * a->dim;
        const void *x[3];
        void *dx[3];
        for (int i = 0; i < 3; i++) {
            x[i] = element(part_of(a, a->qkv, i), a->type, at);
            dx[i] = element(part_of(a, a->dqkv, i), a->type, at);
        }
        const void *dy = element(a->dy, a->type, at);
        MatmulArgs dv = product(a, a->type, n, a->dim, n), dp = product(a, DT_F32, n, n, a->dim);
        MatmulArgs dq = product(a, a->type, n, a->dim, n), dk = product(a, a->type, n, a->dim, n);
        if (probabilities(be, a, h, &s, NULL) || !(dv.a = as_operand(be, a, &s, s.p)))
            return -1;
        dv.lda = n, dv.stride_a = n * n, dv.ta = true;
        operand(&dv.b, &dv.ldb, &dv.stride_b, dy, c, n);
        dv.c = dx[2], dv.ldc = 3 * c, dv.stride_c = n * 3 * c, dv.add = a->add;
        operand(&dp.a, &dp.lda, &dp.stride_a, dy, c, n);
        operand(&dp.b, &dp.ldb, &dp.stride_b, x[2], 3 * c, n);
        dp.tb = true, dp.c = s.dp, dp.ldc = n, dp.stride_c = n * n;
        if (be->matmul(be, &dv) || be->matmul(be, &dp) || cuda_scaled_softmax_backward(be, a, s.p, s.dp))
            return -1;
        if (!(dq.a = dk.a = as_operand(be, a, &s, s.dp)))
            return -1;
        dq.lda = dk.lda = n, dq.stride_a = dk.stride_a = n * n, dk.ta = true;
        operand(&dq.b, &dq.ldb, &dq.stride_b, x[1], 3 * c, n);
        operand(&dk.b, &dk.ldb, &dk.stride_b, x[0], 3 * c, n);
        dq.c = dx[0], dq.ldc = 3 * c, dq.stride_c = n * 3 * c, dq.add = a->add;
        dk.c = dx[1], dk.ldc = 3 * c, dk.stride_c = n * 3 * c, dk.add = a->add;
        if (be->matmul(be, &dq) || be->matmul(be, &dk))
            return -1;
    }
    return 0;
}

/* ---- the table */

static bool empty(const AttentionArgs *a)
{
    return !a->batch || !a->tokens || !a->heads || !a->dim;
}

static bool wished(const char *what)
{
    const char *wish = getenv("HSSL_ATTENTION");
    return wish && !strcmp(wish, what);
}

/* Our own kernels do few tokens, cuDNN's more; HSSL_ATTENTION=own and =cudnn give all to one of them, to compare. */
static bool own_first(Backend *be, const AttentionArgs *a)
{
    return !wished("cudnn") && (cuda_few_tokens(a) || wished("own")) && cuda_own_suits(be, a);
}

static Graph *fused_graph(Backend *be, const AttentionArgs *a, GraphBuild *build)
{
    GraphKey key = key_of(a);
    Graph *g = a->type == DT_BF16 ? graph_find((CudaDevice *)be, &key, build, a) : NULL;
    if (!g) {
        if (a->type == DT_BF16)
            log_debug("cuda", "attention of %lld tokens, heads of %d, by %s: %s", (long long)a->tokens, a->dim,
                      cuda_own_suits(be, a) ? "own kernels" : "products", err_text());
        err_clear();
    }
    return g;
}

/* Where cuDNN has none, and ours don't suit, products remain. */
static int attention(Backend *be, const AttentionArgs *a)
{
    if (empty(a))
        return 0;
    Graph *g = own_first(be, a) ? NULL : fused_graph(be, a, build_forward);
    if (g)
        return fused(be, g, a);
    if (!cuda_own_suits(be, a))
        return composed(be, a);
    return cuda_few_tokens(a) ? cuda_few_attention(be, a) : cuda_tiled_attention(be, a);
}

static int attention_backward(Backend *be, const AttentionArgs *a)
{
    if (empty(a))
        return 0;
    Graph *g = own_first(be, a) ? NULL : fused_graph(be, a, build_backward);
    if (!g)
        return cuda_own_suits(be, a) ? cuda_own_attention_backward(be, a) : composed_backward(be, a);
    if (!a->add)
        return fused_backward(be, g, a, a->dqkv);
    CastArgs sum = { .from = a->type, .to = a->type, .n = 3 * a->batch * a->tokens * a->heads * a->dim, .add = true };
    sum.x = cuda_scratch(be, CUDA_SCRATCH_SCORES, (size_t)sum.n * dtype_size(a->type));
    sum.out = a->dqkv;
    return !sum.x || fused_backward(be, g, a, (void *)(uintptr_t)sum.x) || be->cast(be, &sum) ? -1 : 0;
}

void cuda_attention_table(Backend *be)
{
    be->attention = attention;
    be->attention_backward = attention_backward;
}
