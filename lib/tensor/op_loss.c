/* Losses: each is one kernel, which makes the gradient on the way. */
#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *logits;
    void *gradient; /* for a gradient of 1 of the loss */
} LossNode;

static int loss_backward(Tape *t, Node *node, const void *dy)
{
    LossNode *n = (LossNode *)node;
    Backend *be = tape_backend(t);
    PointArgs s = { .type = n->logits->dtype, .n = tensor_count(n->logits), .y = dy, .out = n->gradient };
    return be->scale(be, &s) < 0 ? -1 : tape_grad_give(t, n->logits, n->gradient);
}

static Tensor *loss(Tape *t, Tensor *logits, LossArgs *a, int (*kernel)(Backend *, const LossArgs *))
{
    if (logits->dtype != DT_F32 && logits->dtype != tape_backend(t)->real)
        return tape_bad_shape(t, "loss", "the logits must be of the device's real type, or F32", logits);
    bool wants = TAPE_WANTS(t, logits);
    Tensor *out = tape_tensor(t, DT_F32, 1, (int64_t[]){ 1 });
    a->type = logits->dtype;
    a->rows = tensor_rows(logits);
    a->k = tensor_last(logits);
    a->logits = logits->data;
    if (wants)
        a->dlogits = tape_spent(logits) ? logits->data : tape_elements(t, a->type, tensor_count(logits));
    if (!out || (wants && !a->dlogits))
        return NULL;
    a->loss = out->data;
    if (kernel(tape_backend(t), a) < 0)
        return tape_fail(t);
    if (wants) {
        LossNode *n = tape_record(t, sizeof *n, loss_backward, out);
        if (!n)
            return NULL;
        n->logits = logits;
        n->gradient = a->dlogits;
    }
    return tape_failed(t) ? NULL : out;
}

Tensor *op_dino_loss(Tape *t, Tensor *student, const Tensor *q, int views, int batch, float temp, float weight, float *value)
{
    if (!student || !q || tape_failed(t))
        return NULL;
    if (views < 2 || batch < 0 || tensor_rows(student) != (int64_t)views * batch)
        return tape_bad_shape(t, "dino_loss",
                              "the student's logits must be [views * batch, K], views at least 2", student);
    if (tensor_rows(q) != 2 * (int64_t)batch || tensor_last(q) != tensor_last(student))
        return tape_bad_shape(t, "dino_loss", "the targets must be [2 * batch, K]", q);
    Backend *be = tape_backend(t);
    LossArgs a = { .views = views, .batch = batch, .target = q->data, .temp = temp, .weight = weight, .value = value };
    return loss(t, student, &a, be->dino_loss);
}

Tensor *op_soft_cross_entropy(Tape *t, Tensor *logits, const Tensor *target, float temp)
{
    if (!logits || !target || tape_failed(t))
        return NULL;
    if (tensor_count(target) != tensor_count(logits) || tensor_last(target) != tensor_last(logits))
        return tape_bad_shape(t, "soft_cross_entropy", "the targets must have the logits' shape", target);
    Backend *be = tape_backend(t);
    LossArgs a = { .target = target->data, .temp = temp, .weight = 1 };
    return loss(t, logits, &a, be->soft_ce);
}

Tensor *op_cross_entropy(Tape *t, Tensor *logits, const Tensor *label, int64_t ignore)
{
    if (!logits || !label || tape_failed(t))
        return NULL;
    if (label->dtype != DT_I64 || tensor_count(label) != tensor_rows(logits))
        return tape_bad_shape(t, "cross_entropy", "there must be one I64 label for each row of logits",
                              label);
    Backend *be = tape_backend(t);
    LossArgs a = { .label = label->data, .ignore = ignore, .temp = 1, .weight = 1 };
    return loss(t, logits, &a, be->hard_ce);
}

Tensor *op_kl(Tape *t, Tensor *logits, const Tensor *target)
{
    if (!logits || !target || tape_failed(t))
        return NULL;
    if (tensor_count(target) != tensor_count(logits) || tensor_last(target) != tensor_last(logits))
        return tape_bad_shape(t, "kl", "the targets must have the logits' shape", target);
    Backend *be = tape_backend(t);
    LossArgs a = { .target = target->data, .temp = 1, .weight = 1 };
    return loss(t, logits, &a, be->kl);
}
