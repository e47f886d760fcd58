/* Exponential moving average of a flat array of parameters: teacher <- m teacher + (1 - m) student [He 2020,
 * Eq. 2; Caron 2021, section 3.1]. */
#ifndef HSSL_NN_EMA_H
#define HSSL_NN_EMA_H

#include "tensor/tensor.h"

/* n floats each, memory of the device. 0, or -1. */
int ema_update(Backend *be, float *teacher, const float *student, size_t n, double m);

#endif
