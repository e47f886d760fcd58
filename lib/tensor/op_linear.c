#include "tensor/linear.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

int linear_gradients(Tape *t, const Linear *l, int64_t rows, const void *dy, DType type)
{
    Backend *be = tape_backend(t);
    int64_t in = l->w->shape[1], out = l->w->shape[0];
    DType real = be->real;
    ColsumArgs s = { .type = type, .rows = rows, .cols = out, .x = dy };
    s.out = tape_grad(t, l->b, &s.add);
    const void *d = tape_real(t, dy, type, rows * out);
    MatmulArgs w = { .type = real, .type_c = l->w->dtype, .m = out, .n = in, .k = rows, .a = d, .lda = out,
                     .ta = true, .b = l->x_operand, .ldb = in, .ldc = in };
    w.c = tape_grad(t, l->w, &w.add);
    if (w.c && type == real) {
        w.sum = s.out;
        w.add_sum = s.add;
    } else if (s.out && be->colsum(be, &s) < 0) {
        return -1;
    }
    if (d && w.c && be->matmul(be, &w) < 0)
        return -1;
    MatmulArgs x = { .type = real, .m = rows, .n = in, .k = out, .a = d, .lda = out, .b = l->w_operand, .ldb = in,
                     .ldc = in };
    x.c = tape_grad(t, l->x, &x.add);
    x.type_c = l->x ? l->x->dtype : real;
    if (d && x.c && be->matmul(be, &x) < 0)
        return -1;
    return tape_failed(t) ? -1 : 0;
}

typedef struct {
    Node node;
    Linear linear;
    void *pre; /* with gelu */
} LinearNode;

static int linear_backward(Tape *t, Node *node, const void *dy)
{
    LinearNode *n = (LinearNode *)node;
    Backend *be = tape_backend(t);
    DType type = node->out->dtype;
    if (n->pre) {
        PointArgs p = { .type = type, .n = tensor_count(node->out), .x = n->pre, .y = dy };
        p.out = tape_elements(t, type, p.n);
        if (!p.out || be->gelu_backward(be, &p) < 0)
            return -1;
        dy = p.out;
    }
    return linear_gradients(t, &n->linear, tensor_rows(node->out), dy, type);
}

static Tensor *linear(Tape *t, Tensor *x, Tensor *w, Tensor *b, bool gelu, DType type)
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
    Tensor *y = tape_tensor(t, type, x->ndim, shape);
    if (!y)
        return NULL;
    Backend *be = tape_backend(t);
    MatmulArgs m = { .type = be->real, .type_c = type, .m = rows, .n = out, .k = in, .lda = in, .ldb = in, .tb = true,
                     .c = y->data, .ldc = out, .bias = data_of(b), .gelu = gelu };
    if (gelu && wants && !(m.pre = tape_elements(t, type, rows * out)))
        return NULL;
    if (!(m.a = tape_operand(t, x)) || !(m.b = tape_operand(t, w)))
        return NULL;
    if (be->matmul(be, &m) < 0)
        return tape_fail(t);
    if (wants) {
        LinearNode *n = tape_record(t, sizeof *n, linear_backward, y);
        if (!n)
            return NULL;
        *n = (LinearNode){ n->node, { x, w, b, m.a, m.b }, m.pre };
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_linear(Tape *t, Tensor *x, Tensor *w, Tensor *b)
{
    return linear(t, x, w, b, false, tape_backend(t)->real);
}

Tensor *op_linear_gelu(Tape *t, Tensor *x, Tensor *w, Tensor *b)
{
    return linear(t, x, w, b, true, tape_backend(t)->real);
}

Tensor *op_logits(Tape *t, Tensor *x, Tensor *w, Tensor *b, DType dtype)
{
    Tensor *y = linear(t, x, w, b, false, dtype);
    if (y)
        tape_set_spent(y);
    return y;
}

typedef struct {
    Node node;
    Tensor *v, *g;
    float *norm;
} WeightNormNode;

static int weight_norm_backward(Tape *t, Node *node, const void *dy)
{
    WeightNormNode *n = (WeightNormNode *)node;
    Backend *be = tape_backend(t);
    RowArgs r = { .type = DT_F32, .type_y = node->out->dtype, .rows = n->v->shape[0], .cols = n->v->shape[1],
                  .x = n->v->data, .dy = dy, .gamma = data_of(n->g), .stat = n->norm };
    r.dgamma = tape_grad_added(t, n->g);
    r.dx = tape_grad(t, n->v, &r.add);
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
    Backend *be = tape_backend(t);
    Tensor *y = tape_tensor(t, be->real, 2, v->shape);
    float *norm = y ? tape_floats(t, v->shape[0]) : NULL;
    if (!norm)
        return NULL;
    RowArgs r = { .type = DT_F32, .type_y = be->real, .rows = v->shape[0], .cols = v->shape[1], .x = v->data,
                  .y = y->data, .gamma = data_of(g), .stat = norm };
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
    return op_logits(t, x, op_weight_norm(t, v, g), NULL, DT_F32);
}
