/* The MLP branch of a block. */
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

static Tensor *composed(Tape *t, Tensor *x, const BranchArgs *a, Tensor *w1, Tensor *b1, Tensor *w2,
                        Tensor *b2)
{
    if (a->norm_w)
        x = op_layer_norm(t, x, a->norm_w, a->norm_b, a->eps);
    x = op_linear(t, op_linear_gelu(t, x, w1, b1), w2, b2);
    return op_branch_end(t, x, a);
}

Tensor *op_mlp_branch(Tape *t, Tensor *x, const BranchArgs *a, Tensor *w1, Tensor *b1, Tensor *w2, Tensor *b2)
{
    if (!x || !w1 || !w2 || tape_failed(t))
        return NULL;
    Backend *be = tape_backend(t);
    if (!be->mlp || a->samples.sizes > 1)
        return composed(t, x, a, w1, b1, w2, b2);
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
