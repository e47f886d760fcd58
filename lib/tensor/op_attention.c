/* Multi-head softmax attention. */
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>

typedef struct {
    Node node;
    Tensor *qkv;
    AttentionArgs args;
} AttentionNode;

static int attention_backward(Tape *t, Node *node, const void *dy)
{
    AttentionNode *n = (AttentionNode *)node;
    AttentionArgs a = n->args;
    a.dy = dy;
    a.dqkv = tape_grad(t, n->qkv, &a.add);
    return a.dqkv ? tape_backend(t)->attention_backward(tape_backend(t), &a) : -1;
}

Tensor *op_attention(Tape *t, Tensor *qkv, int heads)
{
    if (!qkv || tape_failed(t))
        return NULL;
    if (qkv->ndim != 3 || heads < 1 || qkv->shape[2] % (3 * (int64_t)heads))
        return tape_bad_shape(t, "attention", "the input must be [B, N, 3 * heads * d]", qkv);
    int64_t c = qkv->shape[2] / 3;
    AttentionArgs a = {.type = qkv->dtype,
                       .batch = qkv->shape[0],
                       .tokens = qkv->shape[1],
                       .heads = heads,
                       .dim = (int)(c / heads),
                       .qkv = qkv->data};
    a.scale = 1.0f / sqrtf((float)a.dim);
    bool wants = TAPE_WANTS(t, qkv);
    Tensor *y = tape_tensor(t, qkv->dtype, 3, (int64_t[]){ a.batch, a.tokens, c });
    if (!y)
        return NULL;
    a.y = y->data;
    if (wants && !(a.stat = tape_floats(t, a.batch * heads * a.tokens)))
        return NULL;
    if (tape_backend(t)->attention(tape_backend(t), &a) < 0)
        return tape_fail(t);
    if (wants) {
        AttentionNode *n = tape_record(t, sizeof *n, attention_backward, y);
        if (!n)
            return NULL;
        n->qkv = qkv;
        n->args = a;
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_attention_branch(Tape *t, Tensor *x, const BranchArgs *a, Tensor *wqkv, Tensor *bqkv,
                            Tensor *wproj, Tensor *bproj, int heads)
{
    Tensor *y = a->norm_w ? op_layer_norm(t, x, a->norm_w, a->norm_b, a->eps) : x;
    y = op_linear(t, op_attention(t, op_linear(t, y, wqkv, bqkv), heads), wproj, bproj);
    return op_branch_end(t, y, a);
}
