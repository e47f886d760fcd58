/* hssl-train in parts: what is asked of it, a training in progress, and who does what to it. */
#ifndef HSSL_TRAIN_TRAINING_H
#define HSSL_TRAIN_TRAINING_H

#include "dist/group.h"
#include "ssl/config.h"
#include "ssl/student.h"
#include "store/run.h"
#include "stream/batch.h"
#include "train/alarms.h"
#include "train/badimages.h"
#include "train/device.h"
#include "train/health.h"
#include "train/journal.h"
#include "train/provenance.h"
#include "train/saving.h"
#include "train/teach.h"
#include "train/uploads.h"
#include "train/wish.h"
#include "train/workload.h"
#include "util/log.h"

typedef struct {
    const char *output, *init_from, *continue_from, *teacher, *teacher_device, *medium, *log;
    DeviceOptions device;
    int64_t threads, save_every, keep, log_every;
    OptAmount max_bad;
    bool force, resume, resume_anyway, teacher_in_process, overlap, print_config;
} TrainOptions;

/* The command line's; hssl-train.c. */
extern TrainConfig config;
extern TrainOptions options;
/* Where the value of an option comes from, see opt_origin(); whether it was given. */
const char *origin_of(const char *name);
bool was_given(const char *name);
/* Take over a run's settings where none were given. Others than those it has are a mistake, which ends the
 * program, but for a new number of epochs, or where a new run begins with them. */
void adopt_settings(const Run *run, bool begins);

/* Whether it learns, and what it takes: of the first rank. */
typedef struct {
    Health *health;  /* NULL: of another rank */
    Alarms alarms;
    bool look;       /* at this step */
    const float *seen; /* the step's targets where it is looked at, else NULL */
    Workload work;
    double available; /* bytes of memory, before the training took any; 0: unknown */
    bool outlook;    /* it was said */
    double time_mark, wait_mark; /* where the present stretch of waiting and working began */
    int64_t step_mark, begun;
} Watch;

/* Everything of a training in progress. Of several ranks only the first has a run, and speaks. */
typedef struct {
    Group *group;
    Run *run;
    Journal journal;
    Batches *batches;
    BadImages bad;
    const BatchShape *shape;
    Backend *be;
    Uploads *uploads;
    Teach *teach;
    Student *student;
    float *figures; /* see ranks.c */
    Watch watch;
    Progression at;
    bool torn; /* a step has changed the student and not the teacher yet */
    int64_t total, saved; /* steps; step of the last checkpoint, -1: none */
    int64_t begun;        /* step at which this process started */
    int threads;
    bool goes_on;  /* the run was there, and keeps its settings */
    bool resuming; /* from a checkpoint */
    bool warm;     /* begins with the weights of a file or another run */
    Run *old;      /* that other run, or NULL */
    int64_t epochs_before; /* what the run was to have so far; 0: as many */
    Wish wish;             /* what is asked of the stream's views; every rank's is the same */
    Provenance origin;     /* the run's; of the first rank */
    bool origin_known, origin_changed; /* the run had it; it is to be stored */
    size_t changes_before; /* how many of its changes are old */
    bool failed;   /* why was said already: what can't be put away in order is no news */
    double started, images_mark, time_mark, wait_mark; /* for the rate between log lines */
    Progress progress;
} Training;

static inline bool is_first(const Training *t)
{
    return group_rank(t->group) == 0;
}

/* ---- setup.c: each ends the program where it fails */

void open_stream(Training *t);
void set_up(Training *t);
void leave(Training *t);
/* Say what went wrong, leave in order, exit. */
void give_up(Training *t) __attribute__((noreturn));
ViewBatch views_shape(const BatchShape *s);

/* ---- ranks.c; all do nothing where there is one rank only. 0, or -1 */

/* Meet the other ranks. */
int ranks_meet(Training *t);
/* The first rank's settings, and how far its run has got, go to all; *complete: so far that nothing is left to do. */
int ranks_agree(Training *t, bool *complete);
/* The configuration for this rank's part of each batch. */
TrainConfig ranks_part(const Training *t);
/* What the stream must be, and how many images an epoch has for all ranks together. */
int ranks_check_stream(const Training *t, uint64_t *records_per_epoch);
/* The first rank's student and teacher go to all. */
int ranks_share_state(Training *t);
/* Begin to add up the means of the teachers' logits and D; then, when the student has waited for it, put it in place. */
int ranks_sum(Training *t, const Discrepancy *d);
int ranks_summed(Training *t, Discrepancy *d);

/* ---- origin.c: where a run comes from, and whether it goes on from there. 0, or -1 */

/* Of a run that goes on: what it keeps of that. */
int origin_read(Training *t);
/* What the stream's views are to be, as far as a run that goes on, options or the architecture say. */
int origin_wish(Training *t);
/* Say where they are others. */
void origin_compare(const Training *t);
/* Of a run that goes on: what --init-from and --continue-from mean, now that it is known how far it got. */
int origin_start(const Training *t);
/* The run that --continue-from names, and, for a new run, its settings; later its weights, too. */
int origin_open(Training *t);
int origin_load(Training *t);
/* Every rank: the stream is that of the other ranks, and the one that the run was begun with. */
int origin_check(Training *t);
/* Make the run, or put into it what has changed; and tell the log. */
int origin_keep(Training *t);
int origin_log(Training *t);

/* ---- step.c */

/* Step by step. 0: all done, or a signal asked to stop; -1. *savable: what is there is that of whole steps. */
int train_loop(Training *t, bool *savable);
int save(Training *t);
void on_save_signal(int signal_number);

/* ---- watch.c: whether it learns, and what it takes. Those that give an int: 0, or -1; nothing on other
 * ranks */

/* Before anything big is made: count what it takes, and warn where that is more than there is. */
int watch_plan(Training *t);
int watch_begin(Training *t, const TrainConfig *part);
/* A step is done. */
int watch_step(Training *t, const StudentReport *s);
/* What the epoch showed, for its line in the log and, as text, for its message. */
int watch_epoch(Training *t, json_object *line, char *text, size_t size);
/* The last step is done. What is to be said of it behind "done": "" or "; but ...". */
int watch_end(Training *t, char *text, size_t size);

/* ---- report.c: messages, and lines of the log */

void describe(const Training *t);
int log_start(Training *t);
int log_step(Training *t, const StepRates *r, const StudentReport *s, const Discrepancy *d);
int end_epoch(Training *t, int64_t epoch);
/* After the loop: what can be saved is saved; the exit status says how it ended. */
int finish(Training *t, int rc, bool savable);

#endif
