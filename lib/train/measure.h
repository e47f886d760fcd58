/* The discrepancy D between a teacher's base model and its auxiliary head [HSSL, Eq. 5], outside of a
 * training. */
#ifndef HSSL_MEASURE_H
#define HSSL_MEASURE_H

#include "ssl/teacher.h"
#include "train/evalviews.h"

/* Over all images of a dataset that can be used, one view each, as train/evalviews.h has it. bad hears of the
 * others, with arg. used: how many were measured. 0, or -1 (also ERR_DATA when there was none). */
int measure_dataset(Teacher *t, const TrainConfig *c, double temp, Dataset *ds, int batch, EvalBad *bad,
                    void *arg, int64_t *used, Discrepancy *out);

/* From logits [rows, k] and centres [k] as a teacher publishes them, in double precision. */
Discrepancy measure_logits(const float *base, const float *head, const float *center_base,
                           const float *center_head, int64_t rows, int64_t k, double temp,
                           double student_temp);

#endif
