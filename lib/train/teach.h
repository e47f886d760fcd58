/* The protocol between a trainer and its teacher, two processes joined by a link; see hssl-stream(7).
 *
 *     trainer -> teacher  start    config, threads, medium; params, targets    -> started (or fail)
 *                         step     step, temp; global                          -> targets: d, d_role
 *                         update   step, momentum; params, means where inline
 *                         save     tensor state                                -> saved
 *                         load     tensor state                                -> loaded
 *                         bye
 *
 * The tensors lie in memory that the trainer owns and shares (train/area.h): the student's weights and the batch are read
 * in place, the targets written in place, on a GPU too. Where the teacher cannot map them they travel inside the
 * messages. The bits are the same either way. The two agree on the best medium that both have.
 *
 * A teacher can also be part of the trainer (TeachConfig.in_process): no messages then, one device, nobody else who can
 * look at its logits; and again the same bits.
 *
 * The trainer must not change the student's weights between teach_update() and the answer to the teach_step()
 * or teach_save() that follows, and must keep the batch until the targets are there.
 *
 * Functions that return int give 0, or -1 with an error: ERR_PEER when the teacher is gone or says something else than
 * is due, ERR_DATA for a spoilt message, ERR_STOP for a signal. */
#ifndef HSSL_TEACH_H
#define HSSL_TEACH_H

#include "ssl/config.h"
#include "ssl/teacher.h"
#include "ssl/views.h"
#include "stream/link.h"
#include "stream/shm.h"
#include "train/area.h"

#include <sys/types.h>

/* ---------------------------------------------------------------- the trainer's end */

typedef struct Teach Teach;

typedef struct {
    const char *program; /* path of hssl-teach; NULL: the one beside this program */
    const char *ticket;  /* a teacher that runs already, its ticket's line; NULL: start program */
    /* for a teacher that is started: its own --device, --precision, --deterministic; device NULL: none given */
    const char *device, *precision;
    bool varies, plain;  /* plain: --no-graph */
    bool in_process;     /* none of those: the teacher is in this process */
    Backend *be;         /* where the student is */
    Medium best;         /* try this one first, then those below */
    int ranks;           /* how many trainers, each with a teacher, share a batch; 0 counts as 1 */
} TeachConfig;

/* Start or connect to the teacher. Returns at once: the teacher gets ready meanwhile. */
Teach *teach_open(const TeachConfig *c);

/* Memory of the device for the student's flat parameters, shared with the teacher where that is possible; it lives as
 * long as t. bytes: student_bytes(). NULL on failure. */
float *teach_memory(Teach *t, size_t bytes);

/* Hand over the configuration and the student's initial weights, in teach_memory(), and wait for the
 * teacher's word that it has a copy. views: memory of the device, `bytes` of it, where the views of all steps will lie;
 * NULL where the device works on the host's memory. */
int teach_start(Teach *t, const TrainConfig *c, int threads, void *views, size_t bytes);
/* Ticket of what the teacher publishes, after teach_start(); "" where it does not. */
const char *teach_published(const Teach *t);
/* How weights, batches and targets get from one to the other: "ipc", "shm", "inline" or "in-process". */
const char *teach_medium(const Teach *t);
/* The teacher's process if it is a child of this one, else 0. */
pid_t teach_pid(const Teach *t);

/* The global views of a step: on the device, and the same bytes on the host, `offset` bytes into block, or anywhere when
 * block is NULL. */
typedef struct {
    const ViewBatch *views;
    const uint8_t *host;
    const ShmBlock *block;
    size_t offset;
} TeachViews;

/* Ask for the targets of step. */
int teach_step(Teach *t, const TeachViews *v, const StepRates *r);
/* They are there, or will be before what this process issues to the device from here on: [2B, K] on the device, good until
 * the next teach_step(). */
const float *teach_targets(Teach *t);
/* D of that step, after teach_targets(); NaN where there is none. In one process it waits for the device. */
int teach_discrepancy(Teach *t, Discrepancy *d);
/* Of several ranks: the means over rows of this teacher's logits, `n` floats of the device, after teach_targets(). To be
 * replaced by those of the whole batch until teach_update(), which the centres then take in. */
float *teach_means(Teach *t, int64_t *n);
/* The student has new weights: fold them in. Does not wait. */
int teach_update(Teach *t, const StepRates *r);

/* The teacher's own state, on its way to or from a checkpoint: parameters as flat as the student's and the
 * centres [K]; center_base is NULL where the configuration measures no discrepancy. */
typedef struct {
    float *params, *center, *center_base;
    size_t floats; /* params, center and center_base lie one behind the other */
    ShmBlock *block;
} TeachState;
bool teach_measures(const TrainConfig *c);
int teach_state_open(Teach *t, TeachState *s);
void teach_state_close(TeachState *s);
int teach_save(Teach *t, TeachState *s);       /* fill s from the teacher */
int teach_load(Teach *t, const TeachState *s); /* set the teacher from s */

/* Say bye, and wait for a child to end. */
void teach_close(Teach **t);

/* ---------------------------------------------------------------- the teacher's end */

typedef struct {
    Link *trainer;   /* link_listen() */
    Link *published; /* link_publish(), or NULL */
    const char *device; /* where the teacher computes, for backend_open */
    bool graph;         /* TrainConfig.graph */
    int threads;     /* 0: as the trainer says */
    int64_t every;   /* the logits are published each so many steps, the figures at every step */
} TeachServer;

/* Serve one trainer until it leaves: 0. -1 with ERR_PEER when it died, ERR_STOP when a signal came while no
 * trainer was there. */
int teach_serve(const TeachServer *s);

#endif
