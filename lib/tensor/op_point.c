/* Elementwise ops and sums. */
#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *x, *y;
    float factor;
} PointNode;

static PointNode *record(Tape *t, int (*backward)(Tape *, Node *, const void *), Tensor *out, Tensor *x,
                         Tensor *y)
{
    PointNode *n = tape_record(t, sizeof *n, backward, out);
    if (n) {
        n->x = x;
        n->y = y;
    }
    return n;
}

/* ---- gelu */

static int gelu_backward(Tape *t, Node *node, const void *dy)
{
    PointNode *n = (PointNode *)node;
    Backend *be = tape_backend(t);
    PointArgs p = { .type = n->x->dtype, .n = tensor_count(n->x), .x = n->x->data, .y = dy };
    p.out = tape_grad(t, n->x, &p.add);
    return p.out ? be->gelu_backward(be, &p) : -1;
}

Tensor *op_gelu(Tape *t, Tensor *x)
{
    if (!x || tape_failed(t))
        return NULL;
    Tensor *out = tape_like(t, x);
    Backend *be = tape_backend(t);
    if (!out)
        return NULL;
    PointArgs p = { .type = x->dtype, .n = tensor_count(x), .x = x->data, .out = out->data };
    if (be->gelu(be, &p) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x) && !record(t, gelu_backward, out, x, NULL))
        return NULL;
    return tape_failed(t) ? NULL : out;
}

/* ---- from one type to another */

static int cast_backward(Tape *t, Node *node, const void *dy)
{
    (void)dy;
    return tape_grad_pass(t, ((PointNode *)node)->x, node->out);
}

Tensor *op_cast(Tape *t, Tensor *x, DType dtype)
{
    if (!x || tape_failed(t) || x->dtype == dtype)
        return x;
    Tensor *out = tape_tensor(t, dtype, x->ndim, x->shape);
    CastArgs c = { .from = x->dtype, .to = dtype, .n = tensor_count(x), .x = x->data, .out = data_of(out) };
    if (!out || tape_backend(t)->cast(tape_backend(t), &c) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x) && !record(t, cast_backward, out, x, NULL))
        return NULL;
    return tape_failed(t) ? NULL : out;
}

/* ---- scale */

static int scale_backward(Tape *t, Node *node, const void *dy)
{
    PointNode *n = (PointNode *)node;
    PointArgs p = { .type = n->x->dtype, .n = tensor_count(n->x), .x = dy, .factor = n->factor };
    p.out = tape_grad(t, n->x, &p.add);
    return p.out ? tape_backend(t)->add(tape_backend(t), &p) : -1;
}

Tensor *op_scale(Tape *t, Tensor *x, float factor)
{
    if (!x || tape_failed(t))
        return NULL;
    Tensor *out = tape_like(t, x);
    if (!out)
        return NULL;
    PointArgs p = { .type = x->dtype, .n = tensor_count(x), .x = x->data, .out = out->data, .factor = factor };
    if (tape_backend(t)->add(tape_backend(t), &p) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x)) {
        PointNode *n = record(t, scale_backward, out, x, NULL);
        if (!n)
            return NULL;
        n->factor = factor;
    }
    return tape_failed(t) ? NULL : out;
}

/* ---- product */

static int mul_backward(Tape *t, Node *node, const void *dy)
{
    PointNode *n = (PointNode *)node;
    Backend *be = tape_backend(t);
    PointArgs p = { .type = n->x->dtype, .n = tensor_count(n->x), .x = dy, .y = n->y->data, .factor = 1 };
    p.out = tape_grad(t, n->x, &p.add);
    if (p.out && be->mul(be, &p) < 0)
        return -1;
    p.y = n->x->data;
    p.out = tape_grad(t, n->y, &p.add);
    if (p.out && be->mul(be, &p) < 0)
        return -1;
    return tape_failed(t) ? -1 : 0;
}

Tensor *op_mul(Tape *t, Tensor *x, Tensor *y)
{
    if (!x || !y || tape_failed(t))
        return NULL;
    if (!tensor_alike(x, y))
        return tape_bad_shape(t, "mul", "both must have one shape and type", x);
    Tensor *out = tape_like(t, x);
    if (!out)
        return NULL;
    PointArgs p = { .type = x->dtype, .n = tensor_count(x), .x = x->data, .y = y->data, .out = out->data, .factor = 1 };
    if (tape_backend(t)->mul(tape_backend(t), &p) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x, y) && !record(t, mul_backward, out, x, y))
        return NULL;
    return tape_failed(t) ? NULL : out;
}

/* ---- sums */

static int sum_backward(Tape *t, Node *node, const void *dy)
{
    PointNode *n = (PointNode *)node;
    PointArgs p = { .type = n->x->dtype, .n = tensor_count(n->x), .y = dy, .factor = n->factor };
    p.out = tape_grad(t, n->x, &p.add);
    return p.out ? tape_backend(t)->add_scalar(tape_backend(t), &p) : -1;
}

static Tensor *sum(Tape *t, Tensor *x, bool mean)
{
    if (!x || tape_failed(t))
        return NULL;
    int64_t count = tensor_count(x);
    float factor = mean && count ? 1.0f / (float)count : 1;
    Tensor *out = tape_tensor(t, DT_F32, 1, (int64_t[]){ 1 });
    if (!out)
        return NULL;
    ReduceArgs r = { .type = x->dtype, .outer = 1, .reduce = count, .n = 1, .x = x->data, .out = out->data,
                     .factor = factor };
    if (tape_backend(t)->reduce(tape_backend(t), &r) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x)) {
        PointNode *n = record(t, sum_backward, out, x, NULL);
        if (!n)
            return NULL;
        n->factor = factor;
    }
    return tape_failed(t) ? NULL : out;
}

Tensor *op_sum(Tape *t, Tensor *x)
{
    return sum(t, x, false);
}

Tensor *op_mean(Tape *t, Tensor *x)
{
    return sum(t, x, true);
}
