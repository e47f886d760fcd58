/* Losses: each is one fused kernel forward and one backward. */
#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *logits;
    LossArgs args;
    int (*kernel)(Backend *, const LossArgs *);
} LossNode;

static int loss_backward(Tape *t, Node *node, const void *dy)
{
    LossNode *n = (LossNode *)node;
    n->args.gout = dy;
    n->args.dlogits = tape_grad(t, n->logits, &n->args.add);
    return n->args.dlogits ? n->kernel(tape_backend(t), &n->args) : -1;
}

static Tensor *loss(Tape *t, Tensor *logits, LossArgs *a, int (*forward)(Backend *, const LossArgs *),
                    int (*backward)(Backend *, const LossArgs *))
{
    if (logits->dtype != DT_F32)
        return tape_bad_shape(t, "loss", "the logits must be F32", logits);
    Tensor *out = tape_tensor(t, DT_F32, 1, (int64_t[]){ 1 });
    a->rows = tensor_rows(logits);
    a->k = tensor_last(logits);
    a->logits = logits->data;
    a->stat = out ? tape_floats(t, a->rows) : NULL;
    if (!a->stat)
        return NULL;
    a->loss = out->data;
    if (forward(tape_backend(t), a) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, logits)) {
        LossNode *n = tape_record(t, sizeof *n, loss_backward, out);
        if (!n)
            return NULL;
        n->logits = logits;
        n->args = *a;
        n->kernel = backward;
    }
    return tape_failed(t) ? NULL : out;
}

Tensor *op_dino_loss(Tape *t, Tensor *student, const Tensor *q, int views, int batch, float temp)
{
    if (!student || !q || tape_failed(t))
        return NULL;
    if (views < 2 || batch < 0 || tensor_rows(student) != (int64_t)views * batch)
        return tape_bad_shape(t, "dino_loss",
                              "the student's logits must be [views * batch, K], views at least 2", student);
    if (tensor_rows(q) != 2 * (int64_t)batch || tensor_last(q) != tensor_last(student))
        return tape_bad_shape(t, "dino_loss", "the targets must be [2 * batch, K]", q);
    Backend *be = tape_backend(t);
    LossArgs a = { .views = views, .batch = batch, .target = q->data, .temp = temp };
    return loss(t, student, &a, be->dino_loss, be->dino_loss_backward);
}

Tensor *op_soft_cross_entropy(Tape *t, Tensor *logits, const Tensor *target, float temp)
{
    if (!logits || !target || tape_failed(t))
        return NULL;
    if (tensor_count(target) != tensor_count(logits) || tensor_last(target) != tensor_last(logits))
        return tape_bad_shape(t, "soft_cross_entropy", "the targets must have the logits' shape", target);
    Backend *be = tape_backend(t);
    LossArgs a = { .target = target->data, .temp = temp };
    return loss(t, logits, &a, be->soft_ce, be->soft_ce_backward);
}

Tensor *op_cross_entropy(Tape *t, Tensor *logits, const Tensor *label, int64_t ignore)
{
    if (!logits || !label || tape_failed(t))
        return NULL;
    if (label->dtype != DT_I64 || tensor_count(label) != tensor_rows(logits))
        return tape_bad_shape(t, "cross_entropy", "there must be one I64 label for each row of logits",
                              label);
    Backend *be = tape_backend(t);
    LossArgs a = { .label = label->data, .ignore = ignore, .temp = 1 };
    return loss(t, logits, &a, be->hard_ce, be->hard_ce_backward);
}

Tensor *op_kl(Tape *t, Tensor *logits, const Tensor *target)
{
    if (!logits || !target || tape_failed(t))
        return NULL;
    if (tensor_count(target) != tensor_count(logits) || tensor_last(target) != tensor_last(logits))
        return tape_bad_shape(t, "kl", "the targets must have the logits' shape", target);
    Backend *be = tape_backend(t);
    LossArgs a = { .target = target->data, .temp = 1 };
    return loss(t, logits, &a, be->kl, be->kl_backward);
}
