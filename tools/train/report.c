/* What hssl-train says: on standard error, and in the run's log. */
#include "training.h"

#include "stream/stage.h"
#include "util/err.h"
#include "util/stop.h"
#include "util/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void describe(const Training *t)
{
    char layers[64] = "", locals[64] = "";
    const BatchShape *s = t->shape;
    const Workload *w = &t->watch.work;
    char all[32], teacher[32];
    if (strcmp(config.aux, "none"))
        snprintf(layers, sizeof layers, " + %s of %" PRId64, config.aux, config.aux_depth);
    if (s->locals)
        snprintf(locals, sizeof locals, " + %d x %d", s->locals, s->local_size);
    log_info("%s, %s/%" PRId64 "%s, K %" PRId64 "; %" PRId64 " epochs of %" PRId64 " steps of %" PRId64
             " images, views 2 x %d%s; %s, %d threads",
             config.method, config.arch, config.patch_size, layers, config.out_dim, config.epochs,
             t->at.steps_per_epoch, config.batch_size, s->global_size, locals, config.device, t->threads);
    log_info("lr %.4g = %.4g * %" PRId64
             " / 256; %.3g M parameters; about %s of memory, %s of it the teacher's",
             config.lr * (double)config.batch_size / 256, config.lr, config.batch_size, w->parameters / 1e6,
             text_bytes(w->memory.all, all, sizeof all),
             text_bytes(w->memory.teacher + w->memory.teacher_step, teacher, sizeof teacher));
}

/* ---------------------------------------------------------------- log */

int log_start(Training *t)
{
    json_object *line = journal_line("start");
    const Message *w = batches_welcome(t->batches);
    journal_int(line, "step", t->at.step);
    journal_int(line, "steps", t->total);
    journal_int(line, "threads", t->threads);
    journal_text(line, "version", HSSL_VERSION);
    journal_text(line, "device", config.device);
    journal_text(line, "teacher", teach_medium(t->teach));
    journal_text(line, "dataset", message_text(w, "dataset", ""));
    journal_text(line, "dataset_digest", message_text(w, "dataset_digest", ""));
    journal_text(line, "recipe", message_text(w, "recipe", ""));
    journal_text(line, "init_from", options.init_from ? options.init_from : "");
    journal_text(line, "continue_from", options.continue_from ? options.continue_from : "");
    json_object_object_add(line, "config", json_tokener_parse(run_config(t->run)));
    return journal_write(&t->journal, line);
}

int log_step(Training *t, const StepRates *r, const StudentReport *s, const Discrepancy *d)
{
    double now = log_seconds(), waited = batches_waited(t->batches);
    json_object *line = journal_line("step");
    journal_int(line, "step", r->step);
    journal_int(line, "epoch", r->epoch);
    journal_int(line, "images", t->at.images);
    journal_real(line, "loss", s->loss);
    if (strcmp(config.aux, "none")) {
        journal_real(line, "loss_base", s->term_base);
        journal_real(line, "loss_aux", s->term_head);
    }
    journal_real(line, "d", d->d);
    journal_real(line, "d_role", d->d_role);
    journal_real(line, "lr", r->lr);
    journal_real(line, "weight_decay", r->weight_decay);
    journal_real(line, "momentum", r->momentum);
    journal_real(line, "teacher_temp", r->teacher_temp);
    journal_real(line, "grad_norm", s->grad_norm);
    journal_real(line, "images_per_s", ((double)t->at.images - t->images_mark) / (now - t->time_mark));
    journal_real(line, "waited_s", waited - t->wait_mark);
    t->images_mark = (double)t->at.images;
    t->time_mark = now;
    t->wait_mark = waited;
    return journal_write(&t->journal, line);
}

int end_epoch(Training *t, int64_t epoch)
{
    EpochSums *e = &t->at.epoch;
    double n = (double)e->steps;
    json_object *line = journal_line("epoch");
    journal_int(line, "epoch", epoch);
    journal_int(line, "step", t->at.step);
    journal_int(line, "steps", e->steps);
    journal_real(line, "loss", e->loss / n);
    journal_real(line, "d", e->d / n);
    journal_real(line, "d_role", e->d_role / n);
    journal_int(line, "bad", batches_bad(t->batches));
    char d[32] = "", health[160] = "";
    if (isfinite(e->d))
        snprintf(d, sizeof d, ", D %.4g", e->d / n);
    if (watch_epoch(t, line, health, sizeof health))
        return -1;
    if (is_first(t))
        log_info("epoch %" PRId64 "/%" PRId64 ": loss %.4f%s%s, %.4g images/s", epoch + 1, config.epochs,
             e->loss / n, health, d,
             (double)((t->at.step - t->begun) * config.batch_size) / (log_seconds() - t->started));
    *e = (EpochSums){ 0 };
    return journal_write(&t->journal, line);
}

/* After the loop: what can be saved is saved, and the exit status says how it ended. */
int finish(Training *t, int rc, bool savable)
{
    if (is_first(t))
        progress_end(&t->progress);
    bool math = rc && err_code() == ERR_MATH; /* which comes again, for the same bits do */
    bool other = group_check(t->group) != 0; /* another rank ended: it was said which */
    if (other)
        rc = err_code() == ERR_STOP ? 0 : -1;
    int status = rc ? stream_status() : 0;
    if (other)
        status = rc ? 1 : status;
    else if (rc && err_code() == ERR_STOP)
        rc = 0;
    else if (rc)
        log_error("%s%s", err_text(), memory_remedy());
    if (!rc && stop_signal())
        status = stop_status();
    if (!other && (rc || stop_signal()))
        group_end(t->group, rc ? err_text() : NULL);
    if (!is_first(t))
        return status;
    if (savable && save(t)) {
        log_error("%s", err_text());
        savable = false;
        status = 1;
    }
    t->failed = rc || status == 1;
    char but[256] = "";
    if (watch_end(t, but, sizeof but) && !t->failed)
        log_warn("%s", err_text());
    json_object *line = journal_line("end");
    bool done = t->at.step == t->total && !status;
    journal_text(line, "reason", done ? "done" : stop_signal() ? "signal" : "error");
    journal_int(line, "step", t->at.step);
    journal_text(line, "digest", savable ? t->at.digest : "");
    journal_int(line, "bad", batches_bad(t->batches));
    if (journal_write(&t->journal, line) && !t->failed)
        log_warn("%s", err_text());
    if (batches_bad(t->batches))
        log_info("%" PRId64 " bad image%s%s: hssl-info --bad %s lists them", batches_bad(t->batches),
                 batches_bad(t->batches) == 1 ? "" : "s",
                 t->failed                      ? ""
                 : batches_bad(t->batches) == 1 ? " was replaced"
                                                : " were replaced",
                 options.output);
    if (done)
        log_info("done: %" PRId64 " steps, %" PRId64 " images; digest %s; %s%s", t->at.step, t->at.images,
                 t->at.digest, options.output, but);
    else if (t->saved >= 0 && math)
        log_info("%s holds a checkpoint of step %" PRId64 " of %" PRId64
                 ": --resume would end there again; --continue-from %s "
                 "with a lower --lr begins a new run with its weights%s",
                 options.output, t->saved, t->total, options.output, but);
    else if (t->saved >= 0)
        log_info("%s holds a checkpoint of step %" PRId64 " of %" PRId64 ": --resume goes on from there%s",
                 options.output, t->saved, t->total, but);
    else
        log_info("%s holds no checkpoint", options.output);
    return status;
}
