/* The steps of a training, one after the other, and its checkpoints. */
#include "training.h"

#include "stream/gauges.h"
#include "util/err.h"
#include "util/stop.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

static atomic_bool save_wanted;

void on_save_signal(int signal_number)
{
    (void)signal_number;
    save_wanted = true;
}

int save(Training *t)
{
    if (t->saved == t->at.step || !is_first(t))
        return 0;
    double began = log_seconds();
    t->at.seconds += began - t->started;
    t->started = began;
    t->begun = t->at.step;
    group_hold(t->group, true);
    int rc = saving_write(t->run, t->student, t->teach, &t->at, (int)options.keep);
    group_hold(t->group, false);
    if (rc)
        return -1;
    t->saved = t->at.step;
    json_object *line = journal_line("checkpoint");
    journal_int(line, "step", t->at.step);
    journal_text(line, "digest", t->at.digest);
    journal_real(line, "took_s", log_seconds() - began);
    return journal_write(&t->journal, line);
}

/* Send the next batch up, if it is there already, while the device is at work. */
static int send_ahead(Training *t)
{
    const Batch *next = batches_peek(t->batches);
    return next ? uploads_begin(t->uploads, next->number, next->global, next->local) : 0;
}

/* Teacher and student on one batch. Two processes that compute at once on the same processors hinder each other: there
 * they take turns. The device is waited for in student_update alone, but for the D of several ranks. */
static int learn(Training *t, Batch *batch, const StepRates *r, StudentReport *report, Discrepancy *d)
{
    ViewBatch views;
    TeachViews global = { &views, batch->global, batches_block(t->batches), batch->offset_global };
    const float *q = NULL;
    bool several = group_world(t->group) > 1;
    t->torn = false;
    if (uploads_take(t->uploads, batch->number, batch->global, batch->local, &views) || teach_step(t->teach, &global, r))
        return -1;
    if ((!options.overlap && !(q = teach_targets(t->teach))) || student_forward(t->student, &views, r) ||
        (!q && !(q = teach_targets(t->teach))))
        return -1;
    if (several && (teach_discrepancy(t->teach, d) || ranks_sum(t, d)))
        return -1;
    if (t->watch.look && health_keep(t->watch.health, student_features(t->student)))
        return -1;
    if (student_backward(t->student, q) || send_ahead(t) || student_update(t->student, r, report) ||
        (!several && teach_discrepancy(t->teach, d)))
        return -1;
    t->torn = true;
    if (ranks_summed(t, d) || teach_update(t->teach, r))
        return -1;
    t->torn = false;
    t->watch.seen = t->watch.look ? q : NULL;
    return 0;
}

static int step(Training *t, Batch *batch, StudentReport *report, Discrepancy *d)
{
    StepRates r;
    if (t->at.step == t->begun)
        log_debug("train", "first step begins");
    config_rates(&config, t->at.steps_per_epoch, t->at.step, &r);
    bool ends_epoch = (r.step + 1) % t->at.steps_per_epoch == 0;
    t->watch.look = t->watch.health && health_due(t->watch.health, r.step, ends_epoch);
    if (learn(t, batch, &r, report, d))
        return -1;
    t->at.step++;
    t->at.position = (uint64_t)(t->at.step / t->at.steps_per_epoch) * t->at.records_per_epoch +
                     (uint64_t)(t->at.step % t->at.steps_per_epoch * config.batch_size);
    t->at.images += config.batch_size;
    t->at.epoch.steps++;
    t->at.epoch.loss += report->loss;
    t->at.epoch.d += d->d;
    t->at.epoch.d_role += d->d_role;
    gauge_set(GAUGE_STEP, (uint64_t)t->at.step);
    gauge_set(GAUGE_STEPS, (uint64_t)t->total);
    gauge_add(GAUGE_IMAGES, config.batch_size);
    gauge_set_real(GAUGE_LOSS, report->loss);
    if (t->at.step == t->begun + 1)
        log_debug("train", "first step done");
    if (r.step % options.log_every == 0 && log_step(t, &r, report, d))
        return -1;
    if (watch_step(t, report))
        return -1;
    return ends_epoch ? end_epoch(t, r.epoch) : 0;
}

/* 0: all steps done, or a signal asked to stop; -1. A failure of the stream leaves what can be saved. */
int train_loop(Training *t, bool *savable)
{
    char note[64];
    StudentReport report;
    Discrepancy d;
    *savable = true;
    if (is_first(t))
        stop_notice("finishing the step, then a checkpoint; a second signal stops at once");
    while (t->at.step < t->total && !stop_signal()) {
        Batch *batch = batches_next(t->batches);
        if (!batch) {
            if (stop_signal())
                break;
            if (!batches_ended(t->batches))
                return -1;
            return err_set(ERR_PEER,
                           "the stream ended after step %" PRId64 " of %" PRId64
                           ": hssl-load gives fewer epochs than --epochs %" PRId64,
                           t->at.step, t->total, config.epochs);
        }
        int rc = (int64_t)batch->number != t->at.step
                     ? err_set(ERR_PEER, "the stream gave batch %" PRIu64 " where %" PRId64 " was due",
                               batch->number, t->at.step)
                     : step(t, batch, &report, &d);
        batches_release(t->batches, batch);
        if (rc) { /* where another rank ended, nothing of this step has been done, or all of it but the teacher's part */
            *savable = !t->torn && group_check(t->group) != 0;
            return -1;
        }
        snprintf(note, sizeof note, "step %" PRId64 "  loss %.4f", t->at.step, report.loss);
        if (is_first(t))
            progress_update(&t->progress, t->at.images, note);
        bool due = options.save_every ? t->at.step % options.save_every == 0 : t->at.step % t->at.steps_per_epoch == 0;
        if ((due || save_wanted) && t->at.step < t->total) {
            save_wanted = false;
            if (save(t)) {
                *savable = false;
                return -1;
            }
        }
    }
    return 0;
}
