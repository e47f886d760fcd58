/* Checkpoints of a training: student, optimiser and teacher, all in one transaction, and back. */
#ifndef HSSL_SAVING_H
#define HSSL_SAVING_H

#include "ssl/student.h"
#include "store/run.h"
#include "train/teach.h"

/* Sums over the steps of the epoch that is under way, so that a resumed run gives the same means. */
typedef struct {
    int64_t steps;
    double loss, d, d_role;
} EpochSums;

/* Where a training stands after `step` steps: what a checkpoint's meta holds besides. */
typedef struct {
    int64_t step;
    uint64_t position;          /* sequence number of the next record */
    uint64_t records_per_epoch; /* N */
    int64_t steps_per_epoch;    /* S */
    int64_t images;             /* seen so far */
    int64_t threads;
    double seconds;             /* of training so far */
    EpochSums epoch;
    char digest[17]; /* XXH3-64 of the student's and the teacher's parameters; filled by saving_write */
} Progression;

/* Fetch the teacher's state and write a checkpoint. Refuses (ERR_MATH) to write parameters that are not
 * finite. keep: see run_save(). */
int saving_write(Run *run, Student *s, Teach *t, Progression *p, int keep);

/* What the last checkpoint's meta says. 0, 1 when the run has no checkpoint yet, -1. */
int saving_peek(Run *run, Progression *p);
/* Put the last checkpoint back into student and teacher (started already): of this training, or of another
 * whose model has the same parts. Checks the digest. A tensor that does not fit or is left over is named
 * (ERR_SHAPE, ERR_ABSENT). */
int saving_read(Run *run, Student *s, Teach *t, Progression *p);

/* The teacher of a checkpoint (step -1: the last), with its centres; c: the run's configuration. NULL on
 * failure. */
Teacher *saving_teacher(Run *run, int64_t step, const TrainConfig *c, Progression *p);

#endif
