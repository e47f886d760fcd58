#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *x, *w, *b;
    float *pre; /* with gelu */
} LinearNode;

static int linear_backward(Tape *t, Node *node, const float *dy)
{
    LinearNode *n = (LinearNode *)node;
    Backend *be = tape_backend(t);
    int64_t rows = tensor_rows(n->x), in = n->w->shape[1], out = n->w->shape[0];
    if (n->pre) {
        float *dpre = tape_floats(t, rows * out);
        PointArgs p = { .n = rows * out, .x = n->pre, .y = dy, .out = dpre };
        if (!dpre || be->gelu_backward(be, &p) < 0)
            return -1;
        dy = dpre;
    }
    bool add;
    float *dw = tape_grad(t, n->w, &add);
    if (dw) {
        MatmulArgs m = {.m = out,
                        .n = in,
                        .k = rows,
                        .a = dy,
                        .lda = out,
                        .ta = true,
                        .b = n->x->data,
                        .ldb = in,
                        .c = dw,
                        .ldc = in,
                        .add = add};
        if (be->matmul(be, &m) < 0)
            return -1;
    }
    float *db = tape_grad(t, n->b, &add);
    if (db) {
        ColsumArgs s = { .rows = rows, .cols = out, .x = dy, .out = db, .add = add };
        if (be->colsum(be, &s) < 0)
            return -1;
    }
    float *dx = tape_grad(t, n->x, &add);
    if (dx) {
        MatmulArgs m = {.m = rows,
                        .n = in,
                        .k = out,
                        .a = dy,
                        .lda = out,
                        .b = n->w->data,
                        .ldb = in,
                        .c = dx,
                        .ldc = in,
                        .add = add};
        if (be->matmul(be, &m) < 0)
            return -1;
    }
    return tape_failed(t) ? -1 : 0;
}

static Tensor *linear(Tape *t, Tensor *x, Tensor *w, Tensor *b, bool gelu)
{
    if (!x || !w || tape_failed(t))
        return NULL;
    if (w->ndim != 2)
        return tape_bad_shape(t, "linear", "the weight must be [out, in]", w);
    int64_t rows = tensor_rows(x), in = w->shape[1], out = w->shape[0];
    if (x->ndim < 1 || tensor_last(x) != in)
        return tape_bad_shape(t, "linear", "the input's last dimension must be the weight's", x);
    if (b && tensor_count(b) != out)
        return tape_bad_shape(t, "linear", "the bias must have the weight's rows", b);
    int64_t shape[TENSOR_DIMS];
    for (int i = 0; i < x->ndim; i++)
        shape[i] = x->shape[i];
    shape[x->ndim - 1] = out;
    bool wants = TAPE_WANTS(t, x, w, b);
    Tensor *y = tape_tensor(t, DT_F32, x->ndim, shape);
    if (!y)
        return NULL;
    float *pre = gelu && wants ? tape_floats(t, rows * out) : NULL;
    if (gelu && wants && !pre)
        return NULL;
    Backend *be = tape_backend(t);
    MatmulArgs m = {.m = rows,
                    .n = out,
                    .k = in,
                    .a = x->data,
                    .lda = in,
                    .b = w->data,
                    .ldb = in,
                    .tb = true,
                    .c = y->data,
                    .ldc = out,
                    .bias = f32(b),
                    .pre = pre};
    PointArgs p = { .n = rows * out, .x = y->data, .out = y->data };
    if (be->matmul(be, &m) < 0 || (gelu && !pre && be->gelu(be, &p) < 0))
        return tape_fail(t);
    if (wants) {
        LinearNode *n = tape_record(t, sizeof *n, linear_backward, y);
        if (!n)
            return NULL;
        n->x = x;
        n->w = w;
        n->b = b;
        n->pre = pre;
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_linear(Tape *t, Tensor *x, Tensor *w, Tensor *b)
{
    return linear(t, x, w, b, false);
}

Tensor *op_linear_gelu(Tape *t, Tensor *x, Tensor *w, Tensor *b)
{
    return linear(t, x, w, b, true);
}

typedef struct {
    Node node;
    Tensor *v, *g;
    float *norm;
} WeightNormNode;

static int weight_norm_backward(Tape *t, Node *node, const float *dy)
{
    WeightNormNode *n = (WeightNormNode *)node;
    Backend *be = tape_backend(t);
    bool add;
    float *dg = tape_grad_added(t, n->g);
    float *dv = tape_grad(t, n->v, &add);
    RowArgs r = {.rows = n->v->shape[0],
                 .cols = n->v->shape[1],
                 .x = n->v->data,
                 .dy = dy,
                 .dx = dv,
                 .add = add,
                 .gamma = f32(n->g),
                 .stat = n->norm,
                 .dgamma = dg};
    return be->weight_norm_backward(be, &r) < 0 || tape_failed(t) ? -1 : 0;
}

Tensor *op_weight_norm(Tape *t, Tensor *v, Tensor *g)
{
    if (!v || tape_failed(t))
        return NULL;
    if (v->ndim != 2)
        return tape_bad_shape(t, "weight_norm", "v must be [K, D]", v);
    if (g && tensor_count(g) != v->shape[0])
        return tape_bad_shape(t, "weight_norm", "g must have one number for each row of v", g);
    Tensor *y = tape_like(t, v);
    float *norm = y ? tape_floats(t, v->shape[0]) : NULL;
    if (!norm)
        return NULL;
    Backend *be = tape_backend(t);
    RowArgs r = {
        .rows = v->shape[0], .cols = v->shape[1], .x = v->data, .y = y->data, .gamma = f32(g), .stat = norm};
    if (be->weight_norm(be, &r) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, v, g)) {
        WeightNormNode *n = tape_record(t, sizeof *n, weight_norm_backward, y);
        if (!n)
            return NULL;
        n->v = v;
        n->g = g;
        n->norm = norm;
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_weight_norm_linear(Tape *t, Tensor *x, Tensor *v, Tensor *g)
{
    return op_linear(t, x, op_weight_norm(t, v, g), NULL);
}
