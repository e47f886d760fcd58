/* AdamW [Loshchilov 2019, Alg. 2] over a set of parameters, with clipping of each tensor's gradient by its own norm.
 *
 *     p <- p - lr wd p
 *     m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
 *     p <- p - lr / (1 - b1^k) m / (sqrt(v) / sqrt(1 - b2^k) + eps)
 *
 * k counts the steps of each parameter. wd is 0 for biases and 1-D tensors. A parameter that is frozen in a
 * step is left alone wholly: no decay, no moments, no count. */
#ifndef HSSL_NN_ADAMW_H
#define HSSL_NN_ADAMW_H

#include "nn/params.h"

typedef struct AdamW AdamW;

/* params must be committed with gradients and outlive the optimiser. NULL with an error. */
AdamW *adamw_new(Params *params, Backend *be, double beta1, double beta2, double eps);
void adamw_free(AdamW *o);

/* One step, in three calls of which only the last waits for the device.
 *
 * First the norms of the gradients, kept for the clipping and as a gate: where a norm, or *loss (device memory, or
 * NULL), is not finite, the step that follows changes nothing. 0, or -1. */
int adamw_norms(AdamW *o, const float *loss);
/* The update. clip <= 0: none; else a gradient whose norm is above clip is scaled by clip / (norm + 1e-6).
 * freeze_last: leave the last layers of projections. Zeroes all gradients. Without norms there is neither clipping nor
 * gate. 0, or -1. */
int adamw_step(AdamW *o, double lr, double weight_decay, double clip, bool freeze_last);
/* Wait for what became of it: *largest norm, *worst (index of the first one that isn't finite, or -1). Parameters that
 * don't train are not looked at. 0; 1 where the gate kept everything as it was; -1 with an error. */
int adamw_settle(AdamW *o, double *largest, int *worst);
double adamw_norm(const AdamW *o, size_t i); /* of parameter i, after adamw_settle */

float *adamw_m(AdamW *o, size_t i); /* moments of parameter i, shaped like it */
float *adamw_v(AdamW *o, size_t i);
int64_t *adamw_steps(AdamW *o); /* one count a parameter */

#endif
