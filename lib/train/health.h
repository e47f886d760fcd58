/* Whether a training learns, seen without labels: the entropy of the teacher's targets, how many directions
 * the base model's features take, and the loss beside ln K.
 *
 * Now and then a look is taken at some rows of a step's targets and features; ten looks make a window, which
 * is judged. In a group each rank sees its own part of the batch.
 *
 *     if (health_due(h, step, ends_epoch))
 *         health_keep(h, student_features(s));        between forward and backward
 *     ...
 *     health_step(h, loss, q);                        each step; q is read where a look is due
 *     while (health_window(h, &figures)) ...          a window is full */
#ifndef HSSL_HEALTH_H
#define HSSL_HEALTH_H

#include "ssl/config.h"
#include "tensor/backend.h"
#include "tensor/tensor.h"

typedef struct Health Health;

/* NaN: not known. Entropies in nats. */
typedef struct {
    int64_t steps, looks;
    double loss;         /* mean over the steps */
    double entropy;      /* of the teacher's targets, the mean over samples */
    double mean_entropy; /* of the mean target: 0 where all mass is on one prototype */
    double rank;         /* of the features, spectrum.h */
    int64_t dim;         /* of each */
} HealthFigures;

enum { HEALTH_LOOKS = 10, /* that make a window */
       HEALTH_EVERY = 10, /* steps from look to look, at most */
       HEALTH_ROWS = 256, /* of features, the last ones */
       HEALTH_FLOATS = 1 << 17 /* of targets a look, about */ };

/* rows: of targets, [rows, K], and at least so many of features; steps: of the whole training. NULL:
 * ERR_MEMORY. */
Health *health_new(Backend *be, const TrainConfig *c, int64_t rows, int64_t steps);
void health_free(Health *h);

/* Whether a look is due in this step: of a short training each, and in the last one of each epoch. */
bool health_due(const Health *h, int64_t step, bool ends_epoch);
/* Put some of the features aside, [.., C] of the device, for the look that is due. 0, or -1. */
int health_keep(Health *h, const Tensor *features);
/* A step is done. q: its targets, of the device, where health_keep was called, else NULL. 0, or -1. */
int health_step(Health *h, double loss, const float *q);

/* Whether a window is full, which begins anew; what it showed. -1: ERR_MEMORY. */
int health_window(Health *h, HealthFigures *out);
/* What the epoch showed, which begins anew; its rank is that of the last features. 0, or -1. */
int health_epoch(Health *h, HealthFigures *out);

#endif
