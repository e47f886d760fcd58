#include "train/forecast.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* How often the bytes of a record are moved in each program that it goes through, in terms of `copy`: fitted
 * to what the programs were seen to take for records of 1 and of 100 kB. */
static const double LOAD_PASSES = 2.5, MULTICROP_PASSES = 4, AUGMENT_PASSES = 6.5;
/* Programs that share processors with a step, whose threads wait for each other, hold it up by so much of
 * their own time. */
static const double SHARED = 1.25;
/* Below this part of its time, what others take from the trainer does not make them the bound. */
static const double LITTLE = 0.1;
/* Gradients are added up in pieces of so many bytes at least (lib/ssl/student.c): the last can hide behind
 * nothing. */
static const double BUCKET = 8 << 20;
/* What programs hold beside tensors, and records on their way at most (stream/options.h; each stage's HOLD).
 */
static const double PROGRAM = 25e6, HELD_BYTES = 128 << 20, HELD = 2048;
enum { SLOTS = 3 }; /* batches of views in the trainer */

const char *forecast_stage_name(ForecastStage s)
{
    static const char *const names[STAGES] = {"hssl-load", "hssl-multicrop", "hssl-augment", "workers",
                                              "upload",    "hssl-train",     "processors"};
    return names[s];
}

double forecast_ring(double n, double bytes, double bandwidth, double latency)
{
    return n > 1 ? 2 * (n - 1) / n * bytes / bandwidth + 2 * (n - 1) * latency : 0;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

static void stages_before(const Workload *w, const ForecastData *d, const Machine *m, double jobs,
                          Forecast *f)
{
    double record = d->record_bytes / m->copy;
    f->stage[STAGE_LOAD].seconds = m->message + LOAD_PASSES * record;
    f->stage[STAGE_MULTICROP].seconds = 2 * m->message + MULTICROP_PASSES * record;
    f->stage[STAGE_AUGMENT].seconds = 2 * m->message + AUGMENT_PASSES * record;
    f->stage[STAGE_WORKERS].seconds = m->message + d->image_pixels / m->decode + w->view_pixels / m->render;
    for (int i = STAGE_LOAD; i <= STAGE_AUGMENT; i++)
        f->stage[i].rate = 1 / f->stage[i].seconds;
    f->stage[STAGE_WORKERS].rate = least(jobs, f->rank_cores) / f->stage[STAGE_WORKERS].seconds;
    f->receive_s = m->message + w->view_bytes / m->copy;
    if (m->upload > 0)
        f->stage[STAGE_UPLOAD] = (StageForecast){w->view_bytes / m->upload, m->upload / w->view_bytes};
}

static void step_of(const Workload *w, const ForecastRun *r, const Machine *m, Forecast *f)
{
    double b = w->batch, last = least(1, BUCKET / w->weight_bytes);
    f->student_s = m->overhead + b * (w->forward + w->backward) / m->student;
    f->teacher_s = b * w->teacher / m->teacher;
    f->update_s = FORECAST_UPDATE_PASSES * w->weight_bytes / m->update;
    f->allreduce_s = forecast_ring(r->ranks, w->weight_bytes,
                                   f->hosts > 1 ? least(m->link, m->network) : m->link, m->latency);
    f->hidden_s = least(f->allreduce_s * (1 - last), m->overlap * b * w->covered / m->student);
    f->step_s = f->student_s + f->teacher_s + f->update_s + f->allreduce_s - f->hidden_s;
    f->stage[STAGE_TRAIN] = (StageForecast){f->step_s, b / f->step_s};
}

static void memory_of(const Workload *w, const ForecastData *d, const ForecastRun *r, const Machine *m,
                      double jobs, Forecast *f)
{
    double records = 2 * least(HELD_BYTES, HELD * d->record_bytes),
           views = least(HELD_BYTES, HELD * w->view_bytes),
           rank = records + views + SLOTS * w->memory.views + (5 + jobs) * PROGRAM;
    (void)r;
    f->device_need = m->gpu ? w->memory.all : 0;
    f->device_have = m->gpu ? m->device_memory : 0;
    f->host_need = f->per_host * (rank + (m->gpu ? 0 : w->memory.all - w->memory.views));
    f->host_have = m->memory;
    f->fits =
        f->host_need <= f->host_have && (!m->gpu || !m->device_memory || f->device_need <= f->device_have);
}

/* Workers that the rest of a rank could take; where a GPU waits for processors, how many of these it would
 * have to have. */
static void workers_wanted(const Machine *m, Forecast *f)
{
    double rest = INFINITY;
    if (f->bound != STAGE_WORKERS && !(f->bound == STAGE_PROCESSORS && m->gpu))
        return;
    for (int i = 0; i < STAGES; i++)
        if (i != STAGE_WORKERS && i != (int)f->bound && f->stage[i].rate > 0)
            rest = least(rest, f->stage[i].rate);
    f->wanted = ceil(rest * f->stage[STAGE_WORKERS].seconds - 1e-9);
    f->spare = rest * f->stage[STAGE_PROCESSORS].seconds;
}

void forecast(const Workload *w, const ForecastData *d, const ForecastRun *r, const Machine *m, Forecast *f)
{
    *f = (Forecast){0};
    f->per_host = r->per_host > 0 ? r->per_host : least(r->ranks, m->devices);
    f->per_host = least(f->per_host, r->ranks);
    f->hosts = ceil(r->ranks / f->per_host);
    f->rank_cores = m->cores / f->per_host;
    double jobs = r->jobs > 0 ? r->jobs : f->rank_cores;
    stages_before(w, d, m, jobs, f);
    step_of(w, r, m, f);
    double others = f->receive_s;
    for (int i = STAGE_LOAD; i <= STAGE_WORKERS; i++)
        others += f->stage[i].seconds;
    double all = SHARED * others + m->busy * (f->student_s + f->teacher_s + f->update_s) / w->batch;
    f->stage[STAGE_PROCESSORS] = (StageForecast){all, f->rank_cores / all};
    f->bound = STAGE_TRAIN;
    for (int i = 0; i < STAGES; i++)
        if (f->stage[i].rate > 0 && f->stage[i].rate < f->stage[f->bound].rate)
            f->bound = (ForecastStage)i;
    f->rank_rate = f->stage[f->bound].rate;
    if (f->bound == STAGE_PROCESSORS && f->rank_rate > (1 - LITTLE) * f->stage[STAGE_TRAIN].rate)
        f->bound = STAGE_TRAIN;
    f->rate = f->rank_rate * r->ranks;
    f->steps = r->epochs * floor(d->images / (w->batch * r->ranks));
    f->hours = f->steps * w->batch * r->ranks / f->rate / 3600;
    f->flops_rate = f->rank_rate * (w->forward + w->backward + w->teacher);
    workers_wanted(m, f);
    memory_of(w, d, r, m, jobs, f);
    double steps_rate = f->rank_rate / w->batch;
    f->records_hop = f->rank_rate * d->record_bytes;
    f->views_hop = f->rank_rate * w->view_bytes;
    f->weights_hop = steps_rate * w->weight_bytes;
    f->targets_hop = f->rank_rate * w->target_bytes;
    f->gradients_hop = steps_rate * 2 * (r->ranks - 1) / r->ranks * w->weight_bytes;
}

/* ---- what would help */

static void advise_trainer(const Forecast *f, char *text, size_t size)
{
    double sums = f->allreduce_s - f->hidden_s;
    if (sums > 0.15 * f->step_s)
        snprintf(text, size,
                 "hssl-train bounds it: %.0f %% of a step waits for sums over ranks; a larger --batch-size, "
                 "fewer ranks or a faster network would help",
                 100 * sums / f->step_s);
    else if (f->update_s > 0.25 * f->step_s)
        snprintf(text, size,
                 "hssl-train bounds it: %.0f %% of a step is the update of the weights; a larger "
                 "--batch-size would help",
                 100 * f->update_s / f->step_s);
    else
        snprintf(text, size,
                 "hssl-train bounds it, %.0f %% of a step the teacher's: fewer or smaller views, a faster "
                 "device or more ranks would help",
                 100 * f->teacher_s / f->step_s);
}

void forecast_advice(const Forecast *f, const ForecastRun *r, const Machine *m, char *text, int bytes)
{
    size_t size = (size_t)bytes;
    const char *of = r->ranks > 1 ? " a rank" : "";
    double train = f->stage[STAGE_TRAIN].rate;
    if (f->bound == STAGE_TRAIN)
        advise_trainer(f, text, size);
    else if (f->bound == STAGE_WORKERS)
        snprintf(text, size, "the workers of hssl-augment bound it: -j%.0f would keep the rest busy",
                 f->wanted);
    else if (f->bound == STAGE_PROCESSORS && m->gpu)
        snprintf(text, size,
                 "the processors bound it: the trainer wants %.3g%s, %.0f of them for workers, and there are "
                 "%.3g; hssl-augment --join on other hosts, fewer views or --fast would help",
                 ceil(f->spare), of, f->wanted, f->rank_cores);
    else if (f->bound == STAGE_PROCESSORS)
        snprintf(text, size,
                 "the processors bound it: the other programs take %.0f %% of them from the trainer; "
                 "hssl-augment --join on another host would help",
                 100 * (1 - f->rank_rate / train));
    else
        snprintf(text, size,
                 "%s bounds it, at %.4g images/s%s: more ranks, each with a pipeline of its own, would help",
                 forecast_stage_name(f->bound), f->stage[f->bound].rate, of);
}
