/* hssl-train: the student. Takes batches of views from the pipeline, targets from the teacher, and learns. */
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ssl/config.h"
#include "ssl/student.h"
#include "store/run.h"
#include "stream/batch.h"
#include "stream/gauges.h"
#include "stream/stage.h"
#include "tensor/backend.h"
#include "train/badimages.h"
#include "train/claim.h"
#include "train/device.h"
#include "train/estimate.h"
#include "train/journal.h"
#include "train/saving.h"
#include "train/teach.h"
#include "train/threads.h"
#include "train/uploads.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"

static TrainConfig config;
static struct {
    const char *output, *init_from, *teacher, *teacher_device, *medium, *log;
    DeviceOptions device;
    int64_t threads, save_every, keep, log_every;
    OptAmount max_bad;
    bool force, resume, overlap, print_config;
} o = { .device = DEVICE_DEFAULT, .medium = "auto", .keep = 2, .log_every = 10, .max_bad = { 1000, false } };

static const Opt own_opts[] = {
    OPT_STR("output", 'o', &o.output, "RUN", "write the run to file RUN"),
    OPT_FLAG("force", 'f', &o.force, "replace RUN if it is there"),
    OPT_FLAG("resume", 0, &o.resume, "go on from RUN's last checkpoint, with RUN's settings"),
    OPT_STR("init-from", 0, &o.init_from, "FILE",
            "start the base model from a safetensors file with timm's names"),
    OPT_INT("save-every", 0, &o.save_every, 0, 1e9, "STEPS",
            "checkpoint each so many steps (0: after every epoch)"),
    OPT_INT("keep", 0, &o.keep, 0, 1000000, "N", "checkpoints to keep (0: all)"),
    OPT_INT("log-every", 0, &o.log_every, 1, 1000000, "STEPS", "log each so many steps"),
    OPT_STR("log", 0, &o.log, "FILE", "append the log, JSON lines, to FILE as well (-: standard error)"),
    BAD_OPT(&o.max_bad),
    DEVICE_OPTS(&o.device),
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "compute in N threads (0: one a processor)"),
    OPT_FLAG("recompute", 0, &config.recompute, "keep the outputs of layers only, and compute the rest twice"),
    OPT_STR("teacher", 0, &o.teacher, "TICKET", "use the hssl-teach of this ticket; else one is started"),
    OPT_STR("teacher-device", 0, &o.teacher_device, "cpu|cuda[:N]", "--device of the teacher that is started"),
    OPT_CHOICE("teacher-medium", 0, &o.medium, "auto|ipc|shm|inline",
               "how weights and batches get to the teacher"),
    OPT_FLAG("overlap", 0, &o.overlap, "let teacher and student compute at once (default on GPUs)"),
    OPT_FLAG("print-config", 0, &o.print_config, "print every setting and where it comes from, and exit"),
    OPT_END
};

static Opt opts[CONFIG_OPTIONS + sizeof own_opts / sizeof *own_opts];

static const OptProgram program = {
    "hssl-train", "[OPTION]... -o RUN < VIEWS", "pre-train a model on a stream of views", .opts = opts,
    .examples = "  hssl-load photos.db | hssl-augment | hssl-train -o run.db\n"
                "  hssl-load photos.db | hssl-multicrop --local 10 | hssl-augment -j 8 |\n"
                "      hssl-train --arch vit_small --aux convnext --out-dim 8192 --epochs 100 -o run.db\n"
};

/* Everything of a training in progress. */
typedef struct {
    Run *run;
    int claim; /* descriptor that keeps other trainers off the run */
    Journal journal;
    Batches *batches;
    BadImages bad;
    const BatchShape *shape;
    Backend *be;
    Uploads *uploads;
    Teach *teach;
    Student *student;
    Progression at;
    int64_t total, saved; /* steps; step of the last checkpoint, -1: none */
    int64_t begun;        /* step at which this process started */
    int threads;
    bool failed; /* why was said already: what can't be put away in order is no news */
    double started, images_mark, time_mark, wait_mark; /* for the rate between log lines */
    Progress progress;
} Training;

static volatile sig_atomic_t save_wanted;

static void on_save_signal(int signal_number)
{
    (void)signal_number;
    save_wanted = 1;
}

/* ---------------------------------------------------------------- settings */

static void make_options(void)
{
    int n = config_options(&config, opts, CONFIG_OPTIONS);
    memcpy(opts + n, own_opts, sizeof own_opts);
}

/* A resumed run keeps its settings: options that say otherwise are a mistake. */
static void adopt_run_settings(Run *run)
{
    TrainConfig stored, asked = config;
    Opt before[CONFIG_OPTIONS], now[CONFIG_OPTIONS];
    char a[512], b[512];
    if (config_from_json(&stored, run_config(run))) {
        err_prefix("%s", o.output);
        die();
    }
    int n = config_options(&asked, before, CONFIG_OPTIONS);
    config_options(&stored, now, CONFIG_OPTIONS);
    for (int i = 0; i < n; i++)
        if (!opt_given(opts, now[i].name))
            opt_mark(opts, now[i].name, "run");
        else if (strcmp(opt_format(&before[i], a, sizeof a), opt_format(&now[i], b, sizeof b)))
            opt_usage("--%s %s: %s was begun with %s, and a resumed run keeps its settings", now[i].name, a,
                      o.output, b);
    stored.device = config.device;
    stored.recompute = config.recompute;
    config = stored;
}

static int print_settings(void)
{
    if (o.resume && o.output) {
        Run *run = run_open(o.output, false);
        if (!run)
            die();
        adopt_run_settings(run);
        if (run_close(run))
            die();
    }
    opt_print_config(opts, stdout);
    return log_close_stdout() ? 1 : 0;
}

/* The stream decides the sizes of the views. */
static int adopt_views(const BatchShape *s, bool resuming)
{
    const struct {
        const char *name;
        int64_t *value, stream;
    } sizes[] = {
        { "global-size", &config.global_size, s->global_size },
        { "local-crops", &config.local_crops, s->locals },
        { "local-size", &config.local_size, s->locals ? s->local_size : config.local_size },
    };
    if (s->globals != 2)
        return err_set(ERR_USAGE, "the stream has %d global views an image; %s takes 2", s->globals,
                       config.method);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (*sizes[i].value == sizes[i].stream)
            continue;
        if (resuming)
            return err_set(ERR_USAGE, "%s was begun with %s %" PRId64 ", the stream has %" PRId64, o.output,
                           sizes[i].name, *sizes[i].value, sizes[i].stream);
        if (opt_given(opts, sizes[i].name))
            return err_set(ERR_USAGE,
                           "--%s %" PRId64 ": the stream has %" PRId64 " (hssl-multicrop decides it)",
                           sizes[i].name, *sizes[i].value, sizes[i].stream);
        *sizes[i].value = sizes[i].stream;
    }
    return config_check(&config);
}

static void describe(const Training *t)
{
    char layers[64] = "", locals[64] = "";
    const BatchShape *s = t->shape;
    size_t bytes = student_bytes(&config);
    MemoryEstimate m = memory_estimate(&config, bytes);
    if (strcmp(config.aux, "none"))
        snprintf(layers, sizeof layers, " + %s of %" PRId64, config.aux, config.aux_depth);
    if (s->locals)
        snprintf(locals, sizeof locals, " + %d x %d", s->locals, s->local_size);
    log_info("%s, %s/%" PRId64 "%s, K %" PRId64 "; %" PRId64 " epochs of %" PRId64 " steps of %" PRId64
             " images, views 2 x %d%s; %s, %d threads",
             config.method, config.arch, config.patch_size, layers, config.out_dim, config.epochs,
             t->at.steps_per_epoch, config.batch_size, s->global_size, locals, config.device, t->threads);
    log_info("lr %.4g = %.4g * %" PRId64
             " / 256; %.3g M parameters; about %.0f MiB of memory, %.0f MiB of it the teacher's",
             config.lr * (double)config.batch_size / 256, config.lr, config.batch_size,
             (double)bytes / sizeof(float) / 1e6, (m.student + m.teacher) / 1048576, m.teacher / 1048576);
}

/* ---------------------------------------------------------------- log */

static int log_start(Training *t)
{
    json_object *line = journal_line("start");
    const Message *w = batches_welcome(t->batches);
    journal_int(line, "step", t->at.step);
    journal_int(line, "steps", t->total);
    journal_int(line, "threads", t->threads);
    journal_text(line, "version", HSSL_VERSION);
    journal_text(line, "device", config.device);
    journal_text(line, "teacher", medium_name(teach_medium(t->teach)));
    journal_text(line, "dataset", message_text(w, "dataset", ""));
    journal_text(line, "recipe", message_text(w, "recipe", ""));
    journal_text(line, "init_from", o.init_from ? o.init_from : "");
    json_object_object_add(line, "config", json_tokener_parse(run_config(t->run)));
    return journal_write(&t->journal, line);
}

static int log_step(Training *t, const StepRates *r, const StudentReport *s, const Discrepancy *d)
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

static int end_epoch(Training *t, int64_t epoch)
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
    char d[32] = "";
    if (isfinite(e->d))
        snprintf(d, sizeof d, ", D %.4g", e->d / n);
    log_info("epoch %" PRId64 "/%" PRId64 ": loss %.4f%s, %.4g images/s", epoch + 1, config.epochs,
             e->loss / n, d,
             (double)((t->at.step - t->begun) * config.batch_size) / (log_seconds() - t->started));
    *e = (EpochSums){ 0 };
    return journal_write(&t->journal, line);
}

static int save(Training *t)
{
    if (t->saved == t->at.step)
        return 0;
    double began = log_seconds();
    t->at.seconds += began - t->started;
    t->started = began;
    t->begun = t->at.step;
    if (saving_write(t->run, t->student, t->teach, &t->at, (int)o.keep))
        return -1;
    t->saved = t->at.step;
    json_object *line = journal_line("checkpoint");
    journal_int(line, "step", t->at.step);
    journal_text(line, "digest", t->at.digest);
    journal_real(line, "took_s", log_seconds() - began);
    return journal_write(&t->journal, line);
}

/* ---------------------------------------------------------------- one step */

static ViewBatch views_shape(const BatchShape *s)
{
    return (ViewBatch){ .batch = s->batch_size, .globals = s->globals, .locals = s->locals, .global_size = s->global_size,
                        .local_size = s->local_size };
}

/* Send the next batch up, if it is there already, while the device is at work. */
static int send_ahead(Training *t)
{
    const Batch *next = batches_peek(t->batches);
    return next ? uploads_begin(t->uploads, next->number, next->global, next->local) : 0;
}

/* Teacher and student on one batch. Two processes that compute at once on the same processors hinder each other: there
 * they take turns. The device is waited for in student_update alone. */
static int learn(Training *t, Batch *batch, const StepRates *r, StudentReport *report, Discrepancy *d)
{
    ViewBatch views;
    TeachViews global = { &views, batch->global, batches_block(t->batches), batch->offset_global };
    const float *q = NULL;
    return uploads_take(t->uploads, batch->number, batch->global, batch->local, &views) ||
                   teach_step(t->teach, &global, r) || (!o.overlap && !(q = teach_targets(t->teach, d))) ||
                   student_forward(t->student, &views, r) || (o.overlap && !(q = teach_targets(t->teach, d))) ||
                   student_backward(t->student, q) || send_ahead(t) || student_update(t->student, r, report) ||
                   teach_update(t->teach, r)
               ? -1
               : 0;
}

static int step(Training *t, Batch *batch, StudentReport *report, Discrepancy *d)
{
    StepRates r;
    if (t->at.step == t->begun)
        log_debug("train", "first step begins");
    config_rates(&config, t->at.steps_per_epoch, t->at.step, &r);
    if (learn(t, batch, &r, report, d))
        return -1;
    t->at.step++;
    t->at.position = batch->next;
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
    if (r.step % o.log_every == 0 && log_step(t, &r, report, d))
        return -1;
    return t->at.step % t->at.steps_per_epoch ? 0 : end_epoch(t, r.epoch);
}

/* 0: all steps done, or a signal asked to stop; -1. A failure of the stream leaves what can be saved. */
static int loop(Training *t, bool *savable)
{
    char note[64];
    StudentReport report;
    Discrepancy d;
    *savable = true;
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
        if (rc) {
            *savable = false;
            return -1;
        }
        snprintf(note, sizeof note, "step %" PRId64 "  loss %.4f", t->at.step, report.loss);
        progress_update(&t->progress, t->at.images, note);
        bool due = o.save_every ? t->at.step % o.save_every == 0 : t->at.step % t->at.steps_per_epoch == 0;
        if ((due || save_wanted) && t->at.step < t->total) {
            save_wanted = 0;
            if (save(t)) {
                *savable = false;
                return -1;
            }
        }
    }
    return 0;
}

/* ---------------------------------------------------------------- beginning and end */

static void open_stream(Training *t)
{
    Ticket ticket;
    uint64_t *known = NULL;
    int64_t n = 0;
    t->bad = (BadImages){ .journal = &t->journal, .most = &o.max_bad };
    if (t->run && (n = bad_resume(&t->bad, t->run, &known)) < 0)
        die();
    if (ticket_read(STDIN_FILENO, "views", &ticket)) {
        log_error("%s", err_text());
        exit(stream_status());
    }
    t->batches = batches_open(&ticket, &(BatchesConfig){ .program = "hssl-train",
                                                         .batch_size = config.batch_size,
                                                         .start = t->at.position,
                                                         .life = STDIN_FILENO,
                                                         .bad = bad_take,
                                                         .arg = &t->bad,
                                                         .known = known,
                                                         .n_known = (size_t)n });
    free(known);
    if (!t->batches)
        die();
}

static void leave(Training *t)
{
    teach_close(&t->teach);
    uploads_free(t->uploads);
    batches_close(&t->batches);
    student_free(t->student);
    if (t->run) {
        if ((run_set(t->run, "teacher_ticket", NULL) || run_set(t->run, "trainer_pid", NULL)) && !t->failed)
            log_warn("%s", err_text());
        if (run_close(t->run) && !t->failed)
            log_warn("%s", err_text());
    }
    if (t->journal.file && t->journal.file != stderr)
        fclose(t->journal.file);
}

/* Two trainers of one run would each write checkpoints that the other knows nothing of. */
static int claim(Training *t)
{
    if ((t->claim = claim_take(o.output)) >= 0)
        return 0;
    char *pid = err_code() == ERR_EXISTS ? run_get(t->run, "trainer_pid") : NULL;
    if (pid)
        err_set(ERR_EXISTS, "%s: process %s trains it", o.output, pid);
    free(pid);
    return -1;
}

/* Errors while things are set up: say so, leave in order. */
static void give_up(Training *t)
{
    int status = stream_status();
    if (err_code() != ERR_STOP)
        log_error("%s", err_text());
    t->failed = true;
    leave(t);
    exit(status);
}

/* A teacher of its own gets this program's device, unless it has got one of its own. */
static void open_teacher(Training *t)
{
    TeachConfig c = { .ticket = o.teacher, .be = t->be, .best = MEDIUM_IPC, .device = o.device.device,
                      .precision = o.device.precision };
    if (o.teacher_device) {
        c.device = o.teacher_device;
        if (!strcmp(c.device, "cpu"))
            c.precision = "auto";
    }
    if (!strcmp(o.medium, "auto") || !medium_find(o.medium, &c.best))
        t->teach = teach_open(&c);
}

static void set_up(Training *t, bool resuming)
{
    char pid[32];
    open_teacher(t);
    if (!t->teach || !(t->shape = batches_shape(t->batches)) || adopt_views(t->shape, t->run != NULL))
        give_up(t);
    t->at.steps_per_epoch = (int64_t)t->shape->batches_per_epoch;
    if (t->at.records_per_epoch && t->at.records_per_epoch != t->shape->records_per_epoch) {
        err_set(ERR_USAGE, "%s was trained on %" PRIu64 " images an epoch, the stream has %" PRIu64, o.output,
                t->at.records_per_epoch, t->shape->records_per_epoch);
        give_up(t);
    }
    t->at.records_per_epoch = t->shape->records_per_epoch;
    t->total = config.epochs * t->at.steps_per_epoch;
    describe(t);

    size_t bytes = student_bytes(&config);
    float *memory = bytes ? teach_memory(t->teach, bytes) : NULL;
    if (!memory || !(t->student = student_new(&config, memory)))
        give_up(t);
    if (o.init_from && !resuming) {
        int rest = saving_init_from(o.init_from, t->student);
        if (rest < 0)
            give_up(t);
        log_info("base model from %s%s", o.init_from, rest ? " (which holds other tensors too)" : "");
    }
    ViewBatch views = views_shape(t->shape);
    if (!(t->uploads = uploads_new(t->be, &views, batches_block(t->batches))))
        give_up(t);
    void *memory_of_views = uploads_memory(t->uploads, &bytes);
    if (teach_start(t->teach, &config, t->threads, memory_of_views, bytes))
        give_up(t);
    /* Not before everything else is there: a start that fails leaves no run, and an old one as it was. */
    if (!t->run) {
        char *text = config_to_json(&config);
        if (!text || !(t->run = run_create(o.output, text, o.force)) || claim(t))
            give_up(t);
        free(text);
    }
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if ((resuming && saving_read(t->run, t->student, t->teach, &t->at)) ||
        run_set(t->run, "trainer_pid", pid) || run_set(t->run, "teacher_ticket", teach_published(t->teach)))
        give_up(t);
    t->journal.run = t->run;
    if (bad_begin(&t->bad, batches_welcome(t->batches)))
        give_up(t);
    if (o.log && !(t->journal.file = strcmp(o.log, "-") ? fopen(o.log, "a") : stderr)) {
        err_system("--log %s", o.log);
        give_up(t);
    }
    if (log_start(t))
        give_up(t);
}

/* After the loop: what can be saved is saved, and the exit status says how it ended. */
static int finish(Training *t, int rc, bool savable)
{
    int status = rc ? stream_status() : 0;
    ErrCode why = rc ? err_code() : ERR_NONE;
    progress_end(&t->progress);
    if (rc && why == ERR_PEER) { /* after Ctrl-C the producers may be gone before the signal is seen here */
        struct pollfd p = { .fd = stop_fd(), .events = POLLIN };
        char text[512];
        snprintf(text, sizeof text, "%s", err_text());
        if (poll(&p, 1, 200) > 0)
            rc = 0;
        else
            log_error("%s", text);
    } else if (rc) {
        log_error("%s", err_text());
    }
    if (!rc && stop_signal())
        status = stop_status();
    if (savable && save(t)) {
        log_error("%s", err_text());
        savable = false;
        status = 1;
    }
    t->failed = rc || status == 1;
    json_object *line = journal_line("end");
    bool done = t->at.step == t->total && !status;
    journal_text(line, "reason", done ? "done" : stop_signal() ? "signal" : "error");
    journal_int(line, "step", t->at.step);
    journal_text(line, "digest", savable ? t->at.digest : "");
    journal_int(line, "bad", batches_bad(t->batches));
    if (journal_write(&t->journal, line) && !t->failed)
        log_warn("%s", err_text());
    if (batches_bad(t->batches))
        log_info("%" PRId64 " bad image%s replaced: hssl-info --bad %s lists them", batches_bad(t->batches),
                 batches_bad(t->batches) == 1 ? " was" : "s were", o.output);
    if (done)
        log_info("done: %" PRId64 " steps, %" PRId64 " images; digest %s; %s", t->at.step, t->at.images,
                 t->at.digest, o.output);
    else if (t->saved >= 0)
        log_info("%s holds a checkpoint of step %" PRId64 " of %" PRId64 ": --resume goes on from there",
                 o.output, t->saved, t->total);
    else
        log_info("%s holds no checkpoint", o.output);
    return status;
}

int main(int argc, char **argv)
{
    Training t = { .saved = -1 };
    config_init(&config);
    make_options();
    char **original = calloc((size_t)argc + 1, sizeof *original); /* opt_parse moves operands */
    if (original)
        memcpy(original, argv, (size_t)argc * sizeof *original);
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: unexpected operand", argv[1]);
    config_preset(&config, opts);
    if (o.print_config) {
        free(original);
        return print_settings();
    }
    if (!o.output)
        opt_usage("no run to write: -o RUN");
    if (o.resume && o.force)
        opt_usage("--resume and --force exclude each other");
    if (o.resume && o.init_from)
        opt_usage("--resume and --init-from exclude each other");
    if (config_check(&config))
        opt_usage("%s", err_text());
    if (original)
        threads_settle(original);
    free(original);
    if (stop_install())
        die();
    signal(SIGUSR1, on_save_signal);
    signal(SIGUSR2, on_save_signal);
    t.threads = threads_use((int)o.threads);
    if (!(config.device = device_name(&o.device, "bf16")) || !(t.be = backend_open(config.device)))
        die();
    if (!opt_given(opts, "overlap"))
        o.overlap = !t.be->mapped;

    bool resuming = false;
    if (o.resume) {
        if (!(t.run = run_open(o.output, true)))
            die();
        if (claim(&t))
            die();
        adopt_run_settings(t.run);
        int rc = saving_peek(t.run, &t.at);
        if (rc < 0)
            die();
        resuming = !rc;
        if (resuming)
            t.saved = t.at.step;
        if (resuming && t.at.step >= config.epochs * t.at.steps_per_epoch) {
            log_info("%s is complete: %" PRId64 " steps, digest %s", o.output, t.at.step, t.at.digest);
            return run_close(t.run) ? 1 : 0;
        }
        if (resuming && t.at.threads != t.threads)
            log_warn("%s was trained with %" PRId64 " threads, now %d: the last bits may differ", o.output,
                     t.at.threads, t.threads);
    } else if (claim_held(o.output)) {
        die_with("%s: another process trains it: stop that first, or name another run", o.output);
    } else if (!o.force && !access(o.output, F_OK)) {
        die_with("%s is there already: --force replaces it, --resume goes on with it", o.output);
    }
    open_stream(&t);
    set_up(&t, resuming);
    t.at.threads = t.threads;
    t.begun = t.at.step;
    t.started = t.time_mark = log_seconds();
    t.images_mark = (double)t.at.images;
    progress_start(&t.progress, "images", "images", t.at.images, t.total * config.batch_size);

    bool savable = false;
    /* A run remembers its settings, not the file it began with: keep that as the checkpoint of step 0. */
    int rc = o.init_from && save(&t) ? -1 : loop(&t, &savable);
    int status = finish(&t, rc, savable);
    leave(&t);
    return status;
}
