/* The teacher: an exponential moving average of the student that gives the targets.
 *
 * It runs without drop path and without gradient, on the two global views only. */
#ifndef HSSL_SSL_TEACHER_H
#define HSSL_SSL_TEACHER_H

#include "ssl/views.h"
#include "ssl/config.h"
#include "ssl/network.h"
#include "ssl/state.h"

typedef struct Teacher Teacher;

/* Means over the rows, natural logarithm. D = KL(base || head), both sharpened and centred as the teacher's
 * targets are, each with its own centre [HSSL, Eq. 5]; D_role takes the base as the loss sees it,
 * softmax(u_b / student_temp) without centre. */
typedef struct {
    double d, d_role;
} Discrepancy;

/* student: the flat parameters to start from (student_flat, memory of the teacher's device), or NULL to start from c->seed's initial values,
 * which are the student's too. */
Teacher *teacher_new(const TrainConfig *c, const float *student);
void teacher_free(Teacher *t);

/* Targets q [2B, K] = softmax((z - c) / temp) [Caron 2021, Eq. 1], computed with the centre as it stood; the
 * centres then take this batch in [Caron 2021, Eq. 4]. d: NULL, or where D goes (NaN where the configuration
 * has no auxiliary head or discrepancy is off). 0 or -1. */
int teacher_targets(Teacher *t, const ViewBatch *views, double temp, float *q, Discrepancy *d);
/* The same in two parts, for a teacher whose device has other work in between: the first does not wait for it, D comes
 * with the second, which waits. */
int teacher_begin(Teacher *t, const ViewBatch *views, double temp, float *q);
int teacher_discrepancy(Teacher *t, Discrepancy *d);

/* One of several teachers on parts of one batch: the centres don't take in what teacher_targets computes, whose means over
 * rows go to means, [2][K] of the device, the head's (or only) logits first, instead; teacher_center takes them in when
 * they are those of the whole batch. */
void teacher_defer(Teacher *t, float *means);
int teacher_center(Teacher *t, const float *means);

/* D over n images [n][size][size][3], memory of the host, one view each, for the centres as they stand; nothing changes. 0
 * or -1. */
int teacher_measure(Teacher *t, const uint8_t *images, int64_t n, int64_t size, double temp, Discrepancy *d);

/* The logits [2B, K] of the last teacher_targets(), of the head or of the base, until the next call of a
 * teacher_ function; NULL where they are not computed. Device memory. */
const float *teacher_logits(const Teacher *t, bool head);

/* teacher <- m * teacher + (1 - m) * student, over the flat parameters. */
int teacher_update(Teacher *t, const float *student, double m);

/* As student_step_bytes. */
size_t teacher_step_bytes(const Teacher *t);

Network *teacher_network(Teacher *t);

/* The state: teacher.*, center [1, K] and, where D is computed, center_base [1, K]. */
int teacher_state(Teacher *t, StateList *l);

#endif
