/* Ops over the last axis: layer norm, L2 norm, softmax. */
#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *x, *y, *gamma, *beta;
    float *stat;
    float eps;
    int (*kernel)(Backend *, const RowArgs *);
} RowNode;

static int row_backward(Tape *t, Node *node, const void *dy)
{
    RowNode *n = (RowNode *)node;
    RowArgs r = { .type = n->x->dtype, .type_y = n->y->dtype, .rows = tensor_rows(n->y), .cols = tensor_last(n->y),
                  .x = n->x->data, .y = n->y->data, .dy = dy, .eps = n->eps, .gamma = data_of(n->gamma),
                  .beta = data_of(n->beta), .stat = n->stat };
    r.dgamma = tape_grad_added(t, n->gamma);
    r.dbeta = tape_grad_added(t, n->beta);
    r.dx = tape_grad(t, n->x, &r.add);
    if (tape_failed(t))
        return -1;
    return n->kernel(tape_backend(t), &r);
}

static Tensor *row_op(Tape *t, Tensor *x, Tensor *gamma, Tensor *beta, float eps, int stats,
                      int (*forward)(Backend *, const RowArgs *), int (*backward)(Backend *, const RowArgs *))
{
    bool wants = TAPE_WANTS(t, x, gamma, beta);
    Tensor *y = tape_like(t, x);
    float *stat = wants && stats && y ? tape_floats(t, stats * tensor_rows(x)) : NULL;
    if (!y || (wants && stats && !stat))
        return NULL;
    RowArgs r = { .type = x->dtype, .type_y = y->dtype, .rows = tensor_rows(x), .cols = tensor_last(x), .x = x->data,
                  .y = y->data, .eps = eps, .gamma = data_of(gamma), .beta = data_of(beta), .stat = stat };
    if (forward(tape_backend(t), &r) < 0)
        return tape_fail(t);
    if (wants) {
        RowNode *n = tape_record(t, sizeof *n, row_backward, y);
        if (!n)
            return NULL;
        n->x = x;
        n->y = y;
        n->gamma = gamma;
        n->beta = beta;
        n->stat = stat;
        n->eps = eps;
        n->kernel = backward;
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_layer_norm(Tape *t, Tensor *x, Tensor *gamma, Tensor *beta, float eps)
{
    if (!x || tape_failed(t))
        return NULL;
    int64_t c = tensor_last(x);
    if (!gamma != !beta || (gamma && (tensor_count(gamma) != c || tensor_count(beta) != c)))
        return tape_bad_shape(t, "layer_norm", "gamma and beta must have the last dimension's size", gamma);
    Tensor *ahead = tape_normed(x, gamma);
    if (ahead)
        return ahead;
    Backend *be = tape_backend(t);
    return row_op(t, x, gamma, beta, eps, 2, be->layer_norm, be->layer_norm_backward);
}

Tensor *op_l2_normalize(Tape *t, Tensor *x, float eps)
{
    if (!x || tape_failed(t))
        return NULL;
    Backend *be = tape_backend(t);
    return row_op(t, x, NULL, NULL, eps, 1, be->l2_normalize, be->l2_normalize_backward);
}

Tensor *op_softmax(Tape *t, Tensor *x)
{
    if (!x || tape_failed(t))
        return NULL;
    Backend *be = tape_backend(t);
    return row_op(t, x, NULL, NULL, 0, 0, be->softmax, be->softmax_backward);
}

Tensor *op_log_softmax(Tape *t, Tensor *x)
{
    if (!x || tape_failed(t))
        return NULL;
    Backend *be = tape_backend(t);
    return row_op(t, x, NULL, NULL, 0, 0, be->log_softmax, be->log_softmax_backward);
}
