/* Short trials of what a training does, on this machine: the rates of a Machine, from the library's own code
 * on real records and the real model. */
#ifndef HSSL_TRIAL_H
#define HSSL_TRIAL_H

#include "image/plan.h"
#include "ssl/config.h"
#include "store/dataset.h"
#include "train/forecast.h"

/* Called now and then while a trial goes on; may be NULL. */
typedef void TrialTick(void *arg, const char *what);

typedef struct {
    double seconds; /* that a trial may take, about */
    TrialTick *tick;
    void *arg;
} Trial;

/* Processors and memory of this host, and how fast one copies. 0, or -1. */
int trial_host(Machine *m);

/* Decode records from all over the dataset and render their views, one after the other: d is set to the
 * dataset's figures, m->decode and m->render to what one processor did, in its own time. ds NULL: pictures
 * are drawn of about d->image_pixels, and d stays. 0, or -1 (ERR_DATA where no image can be used). */
int trial_render(Dataset *ds, const Recipe *r, bool fast, const Trial *t, ForecastData *d, Machine *m);

/* Steps of student and teacher on noise, on c->device: peak, student, teacher, update, overhead, busy, `of`.
 * Where steps of a rank's batch would take too long or too much memory, the batch is smaller, then the base
 * model less deep: flops a second are what is measured. 0, or -1. */
int trial_step(const TrainConfig *c, int64_t ranks, int threads, const Trial *t, Machine *m);

#endif
