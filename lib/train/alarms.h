/* When what is seen of a training is a reason to warn: a judge that remembers. No clock, no output.
 *
 * A warning begins after some windows in a row that call for it, and ends after as many that do not; it is
 * told when it begins, and again only after it has ended. */
#ifndef HSSL_ALARMS_H
#define HSSL_ALARMS_H

#include "train/health.h"

typedef enum { ALARM_UNIFORM, ALARM_ONE_SIDED, ALARM_RANK, ALARM_LOSS, ALARM_STARVED, ALARM_KINDS } AlarmKind;

typedef struct {
    double ln_k;
    double weight; /* of a cross-entropy in the loss */
    double untrained; /* about the loss of a student that knows nothing, against uniform targets */
    int64_t warmup; /* steps in which the learning rate rises */
    int64_t uniform; /* windows in a row, whatever the learning rate */
    double least;    /* loss of a window so far */
    struct {
        int streak;    /* windows in a row that call for a change */
        int64_t since; /* step; -1: it is not on */
    } of[ALARM_KINDS];
} Alarms;

void alarms_init(Alarms *a, const TrainConfig *c, int64_t steps_per_epoch);
/* A training goes on in which the warning of this name has been on since that step. */
void alarms_go_on(Alarms *a, const char *name, int64_t since);
/* A window that ended after `step` steps. Returns a bit, 1 << kind, for each warning that begins or ends. */
unsigned alarms_judge(Alarms *a, int64_t step, const HealthFigures *f);
/* A stretch of steps that took so many seconds, so many of which were spent waiting for views. As
 * alarms_judge. */
unsigned alarms_waits(Alarms *a, int64_t step, double seconds, double waited);
/* The training ends, so a warning that was not sure yet is due. As alarms_judge. */
unsigned alarms_end(Alarms *a, int64_t step);

/* A stretch that alarms_waits can judge takes so many seconds and steps at least. */
enum { ALARM_SECONDS = 20, ALARM_STEPS = 10 };

static inline bool alarm_is_on(const Alarms *a, AlarmKind k)
{
    return a->of[k].since >= 0;
}

const char *alarm_name(AlarmKind k); /* a word, as logs have it: "uniform" */
/* What is the matter, in a few words ("the targets are uniform"), and what helps; "" where nothing is on. */
const char *alarm_says(AlarmKind k);
const char *alarm_remedy(AlarmKind k);

#endif
