/* Whether a training learns, and what it takes: what the first rank sees of that, and says. */
#include "training.h"

#include "stream/gauges.h"
#include "tensor/backend.h"
#include "train/outlook.h"
#include "util/err.h"
#include "util/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Steps behind the first, which makes everything ready, or seconds of them, that tell how long a step takes.
 */
enum { MEASURED_STEPS = 4, MEASURED_SECONDS = 20 };

/* ---------------------------------------------------------------- what it takes */

static Outlook outlook_of(const Training *t)
{
    return (Outlook){ .memory = t->watch.work.memory.all, .available = t->watch.available,
                      .steps = (double)(t->total - t->at.step),
                      .epochs = (double)(t->total - t->at.step) / (double)t->at.steps_per_epoch,
                      .threads = t->threads, .gpu = !t->be->mapped };
}

int watch_plan(Training *t)
{
    Watch *w = &t->watch;
    size_t left, all;
    char memory[32], there[32];
    if (workload_count(&config, group_world(t->group), &w->work))
        return -1;
    if (!t->be->memory)
        w->available = memory_available();
    else if (!t->be->memory(t->be, &left, &all))
        w->available = (double)left;
    Outlook o = outlook_of(t);
    if (outlook_swaps(&o))
        log_warn("about %s of memory are wanted, %s are available%s: a smaller --batch-size, smaller or "
                 "fewer views, "
                 "a smaller --arch or --recompute need less",
                 text_bytes(o.memory, memory, sizeof memory), text_bytes(o.available, there, sizeof there),
                 o.gpu ? " on the GPU" : ", so the machine will swap");
    return 0;
}

static int say_outlook(Training *t, double seconds, int64_t steps)
{
    char text[320];
    SmallerTraining small = { 0 };
    Outlook o = outlook_of(t);
    o.step_s = seconds / (double)steps;
    t->watch.outlook = true;
    if (outlook_excessive(&o) && outlook_smaller(&config, &t->watch.work, &o, &small))
        return -1;
    outlook_text(&o, &small, text, sizeof text);
    log_info("%s", text);
    json_object *line = journal_line("outlook");
    journal_int(line, "step", t->at.step);
    journal_real(line, "memory_bytes", o.memory);
    if (o.available > 0)
        journal_real(line, "available_bytes", o.available);
    journal_real(line, "step_s", o.step_s);
    journal_real(line, "hours", outlook_hours(&o));
    journal_text(line, "text", text);
    return journal_write(&t->journal, line);
}

/* ---------------------------------------------------------------- warnings */

/* Epochs count from 1 in what people read. */
static int64_t epoch_of(const Training *t, int64_t step)
{
    return step > 0 ? (step - 1) / t->at.steps_per_epoch + 1 : 1;
}

static void publish(const Training *t)
{
    char text[256] = "";
    const Alarms *a = &t->watch.alarms;
    for (int k = 0; k < ALARM_KINDS && !*text; k++)
        if (alarm_is_on(a, (AlarmKind)k) && k != ALARM_STARVED) /* who looks at gauges sees that itself */
            snprintf(text, sizeof text, "since step %" PRId64 " %s: %s", a->of[k].since,
                     alarm_says((AlarmKind)k), alarm_remedy((AlarmKind)k));
    gauges_name(GAUGE_WARNING, text);
}

/* f: what the last window showed, or NULL. */
static int tell(Training *t, AlarmKind k, const HealthFigures *f)
{
    bool on = alarm_is_on(&t->watch.alarms, k);
    int64_t epoch = epoch_of(t, t->at.step);
    json_object *line = journal_line("warning");
    journal_int(line, "step", t->at.step);
    journal_int(line, "epoch", epoch - 1);
    journal_text(line, "what", alarm_name(k));
    journal_text(line, "state", on ? "begins" : "ends");
    journal_text(line, "text", alarm_says(k));
    journal_text(line, "remedy", alarm_remedy(k));
    if (!on) {
        log_info("step %" PRId64 ", epoch %" PRId64 ": it is no longer so that %s", t->at.step, epoch,
                 alarm_says(k));
    } else {
        char figures[160] = "";
        if (f)
            snprintf(figures, sizeof figures,
                     " (loss %.4g, ln K %.4g; entropy %.3f, of the mean %.3f; rank %.3g of %" PRId64 ")",
                     f->loss, t->watch.alarms.ln_k, f->entropy, f->mean_entropy, f->rank, f->dim);
        log_warn("step %" PRId64 ", epoch %" PRId64 ": %s%s; %s", t->at.step, epoch, alarm_says(k), figures,
                 alarm_remedy(k));
    }
    publish(t);
    return journal_write(&t->journal, line);
}

static int tell_all(Training *t, unsigned changed, const HealthFigures *f)
{
    for (int k = 0; k < ALARM_KINDS; k++)
        if (changed & 1u << k && tell(t, (AlarmKind)k, f))
            return -1;
    return 0;
}

/* ---------------------------------------------------------------- step by step */

static void mark(Training *t)
{
    t->watch.time_mark = log_seconds();
    t->watch.wait_mark = batches_waited(t->batches);
    t->watch.step_mark = t->at.step;
}

/* Warnings that are on where a run goes on stay so until they end. */
static int take_warnings(Training *t)
{
    JournalWarning w[JOURNAL_WARNINGS];
    int n = t->goes_on ? journal_warnings(t->run, w) : 0;
    for (int i = 0; i < n; i++)
        if (w[i].step <= t->at.step)
            alarms_go_on(&t->watch.alarms, w[i].what, w[i].step);
    if (n > 0)
        publish(t);
    return n < 0 ? -1 : 0;
}

int watch_begin(Training *t, const TrainConfig *part)
{
    t->watch.begun = t->at.step;
    alarms_init(&t->watch.alarms, &config, t->at.steps_per_epoch);
    if (take_warnings(t))
        return -1;
    t->watch.health = health_new(t->be, part, 2 * part->batch_size, t->total);
    return t->watch.health ? 0 : -1;
}

/* What the clock says. */
static int watch_time(Training *t)
{
    Watch *w = &t->watch;
    double seconds = log_seconds() - w->time_mark;
    int64_t steps = t->at.step - w->step_mark;
    if (t->at.step == w->begun + 1) {
        mark(t);
        return 0;
    }
    if (!w->outlook && (steps >= MEASURED_STEPS || seconds >= MEASURED_SECONDS) &&
        say_outlook(t, seconds, steps))
        return -1;
    if (steps < ALARM_STEPS || seconds < ALARM_SECONDS)
        return 0;
    unsigned changed =
        alarms_waits(&w->alarms, t->at.step, seconds, batches_waited(t->batches) - w->wait_mark);
    mark(t);
    return tell_all(t, changed, NULL);
}

static void add_figures(const Training *t, const HealthFigures *f, json_object *line)
{
    journal_real(line, "ln_k", t->watch.alarms.ln_k);
    journal_real(line, "entropy", f->entropy);
    journal_real(line, "mean_entropy", f->mean_entropy);
    journal_real(line, "rank", f->rank);
}

int watch_step(Training *t, const StudentReport *s)
{
    HealthFigures f;
    Watch *w = &t->watch;
    if (!w->health)
        return 0;
    if (watch_time(t) || health_step(w->health, s->loss, w->seen))
        return -1;
    int full = health_window(w->health, &f);
    if (full <= 0)
        return full;
    json_object *line = journal_line("health");
    journal_int(line, "step", t->at.step);
    journal_int(line, "steps", f.steps);
    add_figures(t, &f, line);
    return journal_write(&t->journal, line) || tell_all(t, alarms_judge(&w->alarms, t->at.step, &f), &f) ? -1
                                                                                                         : 0;
}

int watch_epoch(Training *t, json_object *line, char *text, size_t size)
{
    HealthFigures f;
    if (!t->watch.health)
        return 0;
    if (health_epoch(t->watch.health, &f))
        return -1;
    add_figures(t, &f, line);
    snprintf(text, size, " (ln K %.4g), entropy %.3f (of the mean %.3f), rank %.3g of %" PRId64,
             t->watch.alarms.ln_k, f.entropy, f.mean_entropy, f.rank, f.dim);
    return 0;
}

int watch_end(Training *t, char *text, size_t size)
{
    Watch *w = &t->watch;
    *text = 0;
    if (!w->health)
        return 0;
    if (t->at.step == t->total && tell_all(t, alarms_end(&w->alarms, t->at.step), NULL))
        return -1;
    for (int k = 0; k < ALARM_KINDS && !*text; k++)
        if (alarm_is_on(&w->alarms, (AlarmKind)k))
            snprintf(text, size, "; but %s, since epoch %" PRId64 ": see hssl-info --curve",
                     alarm_says((AlarmKind)k), epoch_of(t, w->alarms.of[k].since));
    return 0;
}
