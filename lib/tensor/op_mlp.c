/* The MLP branch of a block. */
#include "tensor/linear.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *x, *residual, *norm_w, *norm_b, *w1, *b1, *w2, *b2;
    MlpArgs args;
} MlpNode;

static int mlp_backward(Tape *t, Node *node, const void *dy)
{
    MlpNode *n = (MlpNode *)node;
    Backend *be = tape_backend(t);
    MlpArgs a = n->args;
    a.dy = dy;
    if (tape_grad_pass(t, n->residual, node->out) < 0)
        return -1;
    a.dnorm_w = tape_grad_added(t, n->norm_w);
    a.dnorm_b = tape_grad_added(t, n->norm_b);
    a.dw1 = tape_grad_added(t, n->w1);
    a.db1 = tape_grad_added(t, n->b1);
    a.dw2 = tape_grad_added(t, n->w2);
    a.db2 = tape_grad_added(t, n->b2);
    a.dx = tape_grad_own(t, n->x, node->out, &a.add);
    a.scratch = tape_floats(t, (int64_t)be->mlp_scratch(be, &a));
    return tape_failed(t) ? -1 : be->mlp_backward(be, &a);
}

/* ---- put together from products */

typedef struct {
    Node node;
    Linear first, second; /* second.x is no tensor: the gradient of gelu's result goes through gelu before it is stored */
    bool inner;           /* what lies before gelu wants gradients */
    bool lean;            /* gelu's result was given up */
    const void *pre;
} PairNode;

static int pair_backward(Tape *t, Node *node, const void *dy)
{
    PairNode *n = (PairNode *)node;
    Backend *be = tape_backend(t);
    int64_t rows = tensor_rows(node->out), hidden = n->first.w->shape[0], out = n->second.w->shape[0];
    size_t mark = tape_mark(t);
    if (n->lean) {
        PointArgs again = { .type = be->real, .n = rows * hidden, .x = n->pre };
        n->second.x_operand = again.out = tape_elements(t, be->real, rows * hidden);
        if (!again.out || be->gelu(be, &again) < 0)
            return -1;
    }
    if (linear_gradients(t, &n->second, rows, dy, be->real) < 0)
        return -1;
    if (!n->inner)
        return 0;
    tape_release(t, mark);
    MatmulArgs m = { .type = be->real, .type_c = be->real, .m = rows, .n = hidden, .k = out, .a = dy, .lda = out,
                     .b = n->second.w_operand, .ldb = hidden, .ldc = hidden, .gelu_at = n->pre };
    m.c = tape_elements(t, be->real, rows * hidden);
    if (!m.c || be->matmul(be, &m) < 0)
        return -1;
    return linear_gradients(t, &n->first, rows, m.c, be->real);
}

/* linear(gelu(linear(x))) of shapes that were checked. Where nobody goes back to it, gelu's result comes last and is given up. */
static Tensor *pair(Tape *t, Tensor *x, Tensor *w1, Tensor *b1, Tensor *w2, Tensor *b2, bool lean, const int64_t *shape)
{
    Backend *be = tape_backend(t);
    int64_t rows = tensor_rows(x), dim = w1->shape[1], hidden = w1->shape[0], out = w2->shape[0];
    bool inner = TAPE_WANTS(t, x, w1, b1), wants = TAPE_WANTS(t, x, w1, b1, w2, b2);
    MatmulArgs m1 = { .type = be->real, .type_c = be->real, .m = rows, .n = hidden, .k = dim, .lda = dim, .ldb = dim,
                      .tb = true, .ldc = hidden, .bias = data_of(b1), .gelu = true };
    MatmulArgs m2 = { .type = be->real, .type_c = be->real, .m = rows, .n = out, .k = hidden, .lda = hidden,
                      .ldb = hidden, .tb = true, .ldc = out, .bias = data_of(b2) };
    lean = lean && inner;
    Tensor *y = tape_tensor(t, be->real, x->ndim, shape);
    m2.c = data_of(y);
    if (!y || (inner && !(m1.pre = tape_elements(t, be->real, rows * hidden))) || !(m1.a = tape_operand(t, x)) ||
        !(m1.b = tape_operand(t, w1)) || !(m2.b = tape_operand(t, w2)))
        return tape_fail(t);
    size_t mark = tape_mark(t);
    if (!(m2.a = m1.c = tape_elements(t, be->real, rows * hidden)) || be->matmul(be, &m1) < 0 || be->matmul(be, &m2) < 0)
        return tape_fail(t);
    if (lean || !wants)
        tape_release(t, mark);
    if (wants) {
        PairNode *n = tape_record(t, sizeof *n, pair_backward, y);
        if (!n)
            return NULL;
        *n = (PairNode){ n->node, { x, w1, b1, m1.a, m1.b }, { NULL, w2, b2, m2.a, m2.b }, inner, lean, m1.pre };
    }
    return tape_failed(t) ? NULL : y;
}

static Tensor *composed(Tape *t, Tensor *x, const BranchArgs *a, Tensor *w1, Tensor *b1, Tensor *w2, Tensor *b2,
                        const int64_t *shape)
{
    if (a->norm_w && !(x = op_layer_norm(t, x, a->norm_w, a->norm_b, a->eps)))
        return NULL;
    return op_branch_end(t, pair(t, x, w1, b1, w2, b2, a->lean, shape), a);
}

/* ---- the op */

Tensor *op_mlp_branch(Tape *t, Tensor *x, const BranchArgs *a, Tensor *w1, Tensor *b1, Tensor *w2, Tensor *b2)
{
    if (!x || !w1 || !w2 || tape_failed(t))
        return NULL;
    Backend *be = tape_backend(t);
    if (w1->ndim != 2 || w2->ndim != 2 || w2->shape[1] != w1->shape[0])
        return tape_bad_shape(t, "mlp", "the weights must be [hidden, in] and [out, hidden]", w2);
    int64_t dim = w1->shape[1], hidden = w1->shape[0], out = w2->shape[0], rows = tensor_rows(x);
    if (x->ndim < 1 || tensor_last(x) != dim)
        return tape_bad_shape(t, "mlp", "the input's last dimension must be the weight's", x);
    if ((b1 && tensor_count(b1) != hidden) || (b2 && tensor_count(b2) != out))
        return tape_bad_shape(t, "mlp", "the biases must have the weights' rows", b1);
    if (!a->norm_w != !a->norm_b ||
        (a->norm_w && (tensor_count(a->norm_w) != dim || tensor_count(a->norm_b) != dim)))
        return tape_bad_shape(t, "mlp", "the norm must have the input's last dimension", a->norm_w);
    if (a->residual && (tensor_rows(a->residual) != rows || tensor_last(a->residual) != out))
        return tape_bad_shape(t, "mlp", "the residual must have the output's shape", a->residual);
    int64_t shape[TENSOR_DIMS], samples = tensor_dim(x, 0);
    for (int i = 0; i < x->ndim; i++)
        shape[i] = x->shape[i];
    shape[x->ndim - 1] = out;
    if (!be->mlp || a->samples.sizes)
        return composed(t, x, a, w1, b1, w2, b2, shape);
    bool wants = TAPE_WANTS(t, x, w1, b1, w2, b2, a->norm_w, a->norm_b, a->residual);
    Tensor *y = tape_tensor(t, DT_F32, x->ndim, shape);
    if (!y)
        return NULL;
    MlpArgs m = {.rows = rows,
                 .dim = dim,
                 .hidden = hidden,
                 .out = out,
                 .x = x->data,
                 .norm_w = data_of(a->norm_w),
                 .norm_b = data_of(a->norm_b),
                 .eps = a->eps,
                 .w1 = w1->data,
                 .w2 = w2->data,
                 .b1 = data_of(b1),
                 .b2 = data_of(b2),
                 .residual = data_of(a->residual),
                 .scale = a->scale[0],
                 .y = y->data,
                 .rows_per_scale = samples && x->ndim > 1 ? rows / samples : 1};
    if (wants &&
        (!(m.pre = tape_floats(t, rows * hidden)) || (a->norm_w && !(m.stat = tape_floats(t, 2 * rows)))))
        return NULL;
    if (be->mlp(be, &m) < 0)
        return tape_fail(t);
    if (wants) {
        MlpNode *n = tape_record(t, sizeof *n, mlp_backward, y);
        if (!n)
            return NULL;
        *n = (MlpNode){ n->node, x, a->residual, a->norm_w, a->norm_b, w1, b1, w2, b2, m };
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_mlp(Tape *t, Tensor *x, Tensor *w1, Tensor *b1, Tensor *w2, Tensor *b2)
{
    return op_mlp_branch(t, x, &(BranchArgs){ 0 }, w1, b1, w2, b2);
}
