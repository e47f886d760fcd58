/* The student: forward on all views, loss against the teacher's targets, backward, clip, AdamW.
 *
 * Student and teacher share nothing but the bytes of the batch, the targets, and the student's flat
 * parameters, which the teacher reads: two processes can stand in for two objects.
 *
 *     student_forward(s, views, &rates)              // while the teacher works on the same views
 *     student_finish(s, q, &rates, &report)          // loss, gradients, update
 *     teacher_update(t, student_flat(s), rates.momentum) */
#ifndef HSSL_SSL_STUDENT_H
#define HSSL_SSL_STUDENT_H

#include "dist/group.h"
#include "ssl/views.h"
#include "ssl/config.h"
#include "ssl/network.h"
#include "ssl/state.h"

typedef struct Student Student;

typedef struct {
    double loss;
    double term_base, term_head; /* l(t, s^b) and l(t, s^h); without auxiliary head term_base is the loss,
                                    term_head 0 */
    double grad_norm;            /* largest norm of a tensor's gradient before clipping */
} StudentReport;

/* memory: NULL, or student_bytes bytes of the device for the flat parameters (which another process may see too), set to
 * the initial values here. */
Student *student_new(const TrainConfig *c, void *memory);
size_t student_bytes(const TrainConfig *c);
/* Whether views of both sizes go through the model in one pass. */
bool student_packs(const TrainConfig *c, const Backend *be);
void student_free(Student *s);

/* From now on this student is one of several on parts of one batch: gradients and figures are those of the whole batch,
 * drop path is drawn for it, and all students stay the same. c->batch_size is the part's. The group outlives the student. */
void student_join(Student *s, Group *g);

/* The forward pass; the activations are held until student_backward or the next student_forward, and so must
 * the views. 0 or -1. */
int student_forward(Student *s, const ViewBatch *views, const StepRates *rates);

/* Loss and gradients, then the update; student_finish does both. Only student_update waits for the device, at its end
 * (and in a group for the sums, before anything changes).
 * Between the two the gradients can be looked at (student_network, params_at).
 *
 * q: targets [2B, K], memory of the device. A loss or gradient that is not finite: student_update gives -1 with ERR_MATH,
 * the text names the first tensor that is not (parameters, then activations in order, then gradients); parameters and
 * moments are then those of before the step. */
int student_backward(Student *s, const float *q);
int student_update(Student *s, const StepRates *rates, StudentReport *report);
int student_finish(Student *s, const float *q, const StepRates *rates, StudentReport *report);

/* Image vectors that the base model made of the views, [V*B, C], the global views first: of the device,
 * between student_forward and student_backward. */
const Tensor *student_features(const Student *s);

/* Between two steps: lend the memory of the activations to others until the next step. */
void student_rest(Student *s);

/* Bytes of the device that steps have taken for activations and their gradients, at most so far. */
size_t student_step_bytes(const Student *s);

const float *student_flat(const Student *s); /* the parameters, student_bytes of the device */
Network *student_network(Student *s);

/* The state: student.*, adamw.m.*, adamw.v.*, adamw.steps (I64, one count a parameter). */
int student_state(Student *s, StateList *l);

#endif
