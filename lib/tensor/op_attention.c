/* Multi-head softmax attention. */
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>
#include <string.h>

typedef struct {
    Node node;
    Tensor *qkv;
    int sizes;
    AttentionArgs args[SAMPLE_SIZES];
} AttentionNode;

static int attention_backward(Tape *t, Node *node, const void *dy)
{
    AttentionNode *n = (AttentionNode *)node;
    bool add;
    int64_t row = 0;
    void *dqkv = tape_grad(t, n->qkv, &add);
    for (int i = 0; dqkv && i < n->sizes; i++) {
        AttentionArgs a = n->args[i];
        int64_t c = (int64_t)a.heads * a.dim;
        a.dy = element(dy, a.type, row * c);
        a.dqkv = element(dqkv, a.type, row * 3 * c);
        a.add = add;
        if (tape_backend(t)->attention_backward(tape_backend(t), &a) < 0)
            return -1;
        row += a.batch * a.tokens;
    }
    return dqkv ? 0 : -1;
}

/* Whose rows x holds: those of `samples`, unless they are told by x itself. False where that does not fit. */
static bool samples_of(const Tensor *x, const Samples *samples, Samples *out)
{
    *out = samples ? *samples : (Samples){ 0 };
    if (!out->sizes && x->ndim == 3)
        *out = (Samples){ 1, { { x->shape[0], x->shape[1] } } };
    return out->sizes > 0 && out->sizes <= SAMPLE_SIZES && samples_rows(out, out->sizes) == tensor_rows(x);
}

Tensor *op_attention(Tape *t, Tensor *qkv, int heads, const Samples *samples)
{
    Samples s;
    if (!qkv || tape_failed(t))
        return NULL;
    if (qkv->ndim < 2 || heads < 1 || tensor_last(qkv) % (3 * (int64_t)heads) || !samples_of(qkv, samples, &s))
        return tape_bad_shape(t, "attention", "the input must be [B, N, 3 * heads * d], or have the rows of its samples", qkv);
    int64_t c = tensor_last(qkv) / 3, shape[TENSOR_DIMS], row = 0;
    for (int i = 0; i < qkv->ndim; i++)
        shape[i] = qkv->shape[i];
    shape[qkv->ndim - 1] = c;
    bool wants = TAPE_WANTS(t, qkv);
    Tensor *y = tape_tensor(t, qkv->dtype, qkv->ndim, shape);
    if (!y)
        return NULL;
    AttentionArgs args[SAMPLE_SIZES] = { 0 };
    for (int i = 0; i < s.sizes; i++) {
        AttentionArgs *a = &args[i];
        *a = (AttentionArgs){ .type = qkv->dtype, .batch = s.of[i].count, .tokens = s.of[i].tokens, .heads = heads,
                              .dim = (int)(c / heads), .qkv = element(qkv->data, qkv->dtype, row * 3 * c),
                              .y = element(y->data, y->dtype, row * c) };
        a->scale = 1.0f / sqrtf((float)a->dim);
        row += a->batch * a->tokens;
        if (wants && !(a->stat = tape_floats(t, a->batch * heads * a->tokens)))
            return NULL;
        if (tape_backend(t)->attention(tape_backend(t), a) < 0)
            return tape_fail(t);
    }
    if (wants) {
        AttentionNode *n = tape_record(t, sizeof *n, attention_backward, y);
        if (!n)
            return NULL;
        n->qkv = qkv;
        n->sizes = s.sizes;
        memcpy(n->args, args, sizeof n->args);
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_attention_branch(Tape *t, Tensor *x, const BranchArgs *a, Tensor *wqkv, Tensor *bqkv,
                            Tensor *wproj, Tensor *bproj, int heads)
{
    Tensor *y = a->norm_w ? op_layer_norm(t, x, a->norm_w, a->norm_b, a->eps) : x;
    y = op_linear(t, op_attention(t, op_linear(t, y, wqkv, bqkv), heads, &a->samples), wproj, bproj);
    return op_branch_end(t, y, a);
}
