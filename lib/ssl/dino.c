/* DINO [Caron 2021]: cross-entropy between the teacher's sharpened, centred distribution of one global view
 * and the student's distribution of every other view. */
#include "ssl/method.h"
#include "tensor/backend.h"
#include "tensor/ops.h"

static Tensor *dino_term(Tape *t, const TrainConfig *c, const LossTerm *in)
{
    return op_dino_loss(t, in->student, in->targets, (int)in->views, (int)in->batch, (float)c->student_temp, in->weight,
                        in->value);
}

static int dino_targets(Tape *t, const float *z, const float *center, double temp, float *q, int64_t rows,
                        int64_t k)
{
    Backend *be = tape_backend(t);
    return be->targets(
        be, &(TargetsArgs){ .rows = rows, .k = k, .logits = z, .center = center, .temp = temp, .q = q });
}

static int dino_center(Tape *t, float *center, const float *z, double momentum, int64_t rows, int64_t k)
{
    Backend *be = tape_backend(t);
    return be->center(
        be, &(CenterArgs){ .rows = rows, .k = k, .logits = z, .center = center, .momentum = momentum });
}

const Method method_dino = { "dino", dino_term, dino_targets, dino_center };
