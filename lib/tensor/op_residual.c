/* Residuals, and the layer norms that read them. */
#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *x, *y;
    const float *scale;
    bool scaled; /* y's gradient was written with the norm's */
} ResidualNode;

static ResidualArgs residual_args(const Tensor *y, const float *scale)
{
    int64_t samples = tensor_dim(y, 0);
    return (ResidualArgs){ .type = y->dtype, .samples = samples, .stride = samples ? tensor_count(y) / samples : 0,
                           .y = y->data, .scale = scale };
}

static int residual_backward(Tape *t, Node *node, const void *dy)
{
    ResidualNode *n = (ResidualNode *)node;
    if (n->x && tape_grad_pass(t, n->x, node->out) < 0)
        return -1;
    if (n->scaled)
        return 0;
    if (!n->scale)
        return tape_grad_pass(t, n->y, node->out);
    ResidualArgs r = residual_args(n->y, n->scale);
    bool add;
    r.y = dy;
    r.out = tape_grad(t, n->y, &add);
    if (!r.out)
        return tape_failed(t) ? -1 : 0;
    r.x = add ? r.out : NULL;
    return tape_backend(t)->residual(tape_backend(t), &r);
}

/* x (or NULL) and y, fit to be added up: false after an error. */
static bool agree(Tape *t, Tensor **x, Tensor *y)
{
    if (!y || tape_failed(t) || (*x && !(*x = op_cast(t, *x, y->dtype))))
        return false;
    if (*x && !tensor_alike(*x, y))
        tape_bad_shape(t, "residual", "both must have one shape", *x);
    return !tape_failed(t);
}

static ResidualNode *record(Tape *t, Tensor *out, Tensor *x, Tensor *y, const float *scale)
{
    ResidualNode *n = tape_record(t, sizeof *n, residual_backward, out);
    if (n) {
        n->x = x;
        n->y = y;
        n->scale = scale;
    }
    return n;
}

Tensor *op_residual(Tape *t, Tensor *x, Tensor *y, const float *scale)
{
    if (!agree(t, &x, y))
        return NULL;
    Tensor *out = tape_like(t, y);
    if (!out)
        return NULL;
    ResidualArgs r = residual_args(y, scale);
    r.x = data_of(x);
    r.out = out->data;
    if (tape_backend(t)->residual(tape_backend(t), &r) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x, y) && !record(t, out, x, y, scale))
        return NULL;
    return tape_failed(t) ? NULL : out;
}

Tensor *op_add(Tape *t, Tensor *x, Tensor *y)
{
    return x ? op_residual(t, x, y, NULL) : NULL;
}

/* ---- with the norm of the sum */

typedef struct {
    Node node;
    ResidualNode *residual; /* recorded before, so it runs after this; NULL: its inputs want no gradient */
    Tensor *sum, *gamma, *beta;
    RowArgs args;
} NormNode;

static int norm_backward(Tape *t, Node *node, const void *dy)
{
    NormNode *n = (NormNode *)node;
    Backend *be = tape_backend(t);
    ResidualNormArgs a = { .norm = n->args };
    a.norm.dy = dy;
    a.norm.dgamma = tape_grad_added(t, n->gamma);
    a.norm.dbeta = tape_grad_added(t, n->beta);
    a.norm.dx = tape_grad(t, n->sum, &a.norm.add);
    if (tape_failed(t))
        return -1;
    /* All that reads the sum was recorded after it: its gradient is whole now, and so is what drop path leaves of it. */
    Tensor *y = n->residual && n->residual->scale ? n->residual->y : NULL;
    bool there;
    a.sum = y ? residual_args(y, n->residual->scale) : a.sum;
    a.sum.y = a.norm.dx;
    a.sum.out = tape_grad(t, y, &there);
    if (!a.sum.out || there)
        return tape_failed(t) ? -1 : be->layer_norm_backward(be, &a.norm);
    n->residual->scaled = true;
    return be->residual_norm_backward(be, &a);
}

static Tensor *residual_norm(Tape *t, Tensor *y, const BranchArgs *a)
{
    Tensor *x = a->residual, *gamma = a->next_w, *beta = a->next_b;
    if (!agree(t, &x, y))
        return NULL;
    if (!beta || tensor_count(gamma) != tensor_last(y) || tensor_count(beta) != tensor_last(y))
        return tape_bad_shape(t, "residual", "the next norm must have the last dimension's size", gamma);
    bool adds = TAPE_WANTS(t, x, y), wants = TAPE_WANTS(t, x, y, gamma, beta);
    Tensor *sum = tape_like(t, y), *normed = tape_like(t, y);
    float *stat = wants && normed ? tape_floats(t, 2 * tensor_rows(y)) : NULL;
    if (!sum || !normed || (wants && !stat))
        return NULL;
    ResidualNormArgs r = { .sum = residual_args(y, a->scale),
                           .norm = { .type = y->dtype, .type_y = y->dtype, .rows = tensor_rows(y), .cols = tensor_last(y),
                                     .x = sum->data, .y = normed->data, .eps = a->eps, .gamma = gamma->data,
                                     .beta = beta->data, .stat = stat } };
    r.sum.x = data_of(x);
    r.sum.out = sum->data;
    if (tape_backend(t)->residual_norm(tape_backend(t), &r) < 0)
        return tape_fail(t);
    ResidualNode *residual = adds ? record(t, sum, x, y, a->scale) : NULL;
    if (wants && !tape_failed(t)) {
        NormNode *n = tape_record(t, sizeof *n, norm_backward, normed);
        if (!n)
            return NULL;
        *n = (NormNode){ n->node, residual, sum, gamma, beta, r.norm };
    }
    tape_norm_ahead(sum, gamma, normed);
    return tape_failed(t) ? NULL : sum;
}

Tensor *op_branch_end(Tape *t, Tensor *y, const BranchArgs *a)
{
    if (!a->residual && !a->scale)
        return y;
    return a->next_w && tape_backend(t)->residual_norm ? residual_norm(t, y, a) : op_residual(t, a->residual, y, a->scale);
}
