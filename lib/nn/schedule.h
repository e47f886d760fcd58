/* Schedules: pure functions of the step, so that resuming needs nothing but the step. */
#ifndef HSSL_NN_SCHEDULE_H
#define HSSL_NN_SCHEDULE_H

#include <stdint.h>

/* Linear from 0 to base over `warmup` steps (both ends included; a single one is 0), then a half cosine from base
 * towards final over the rest of `total` steps; final itself is not reached. With s steps since the warm-up, of S:
 *
 *     final + (base - final) (1 + cos(pi s / S)) / 2            [Loshchilov 2017, Eq. 5]
 *
 * As the released DINO code. step in [0, total). */
double schedule_cosine(double base, double final, int64_t warmup, int64_t total, int64_t step);

/* Linear from start to final over `warmup` epochs (final at epoch warmup - 1), then final. The teacher's
 * temperature [Caron 2021, appendix]. warmup 1 gives start at epoch 0. */
double schedule_ramp(double start, double final, int64_t warmup, int64_t epoch);

#endif
