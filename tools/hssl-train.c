/* hssl-train: the student. Takes batches of views from the pipeline, targets from the teacher, and learns. */
#include "train/training.h"

#include "store/claim.h"
#include "train/threads.h"
#include "util/err.h"
#include "util/opt.h"
#include "util/stop.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TrainConfig config;
TrainOptions options = { .device = DEVICE_DEFAULT, .medium = "auto", .keep = 2, .log_every = 10,
                         .max_bad = { 1000, false } };

static const Opt own_opts[] = {
    OPT_STR("output", 'o', &options.output, "RUN", "write the run to file RUN"),
    OPT_FLAG("force", 'f', &options.force, "replace RUN if it is there"),
    OPT_FLAG("resume", 0, &options.resume, "go on with RUN, or begin it where it is not there"),
    OPT_FLAG("resume-anyway", 0, &options.resume_anyway, "as --resume, also with another stream than before"),
    OPT_STR("continue-from", 0, &options.continue_from, "RUN",
            "start from another run: its weights, moments, centres and settings"),
    OPT_STR("init-from", 0, &options.init_from, "FILE",
            "start the base model from a safetensors file with timm's names"),
    OPT_INT("save-every", 0, &options.save_every, 0, 1e9, "STEPS",
            "checkpoint each so many steps (0: after every epoch)"),
    OPT_INT("keep", 0, &options.keep, 0, 1000000, "N", "checkpoints to keep (0: all)"),
    OPT_INT("log-every", 0, &options.log_every, 1, 1000000, "STEPS", "log each so many steps"),
    OPT_STR("log", 0, &options.log, "FILE", "append the log, JSON lines, to FILE as well (-: standard error)"),
    BAD_OPT(&options.max_bad),
    DEVICE_OPTS(&options.device),
    OPT_INT("threads", 't', &options.threads, 0, 1024, "N", "compute in N threads (0: one a processor)"),
    OPT_FLAG("recompute", 0, &config.recompute, "keep the outputs of layers only, and compute the rest twice"),
    OPT_FLAG("graph", 0, &config.graph, "on a GPU: record the work of a step and repeat it at once"),
    OPT_STR("teacher", 0, &options.teacher, "TICKET", "use the hssl-teach of this ticket; else one is started"),
    OPT_STR("teacher-device", 0, &options.teacher_device, "cpu|cuda[:N]", "--device of the teacher that is started"),
    OPT_CHOICE("teacher-medium", 0, &options.medium, "auto|ipc|shm|inline",
               "how weights and batches get to the teacher"),
    OPT_FLAG("teacher-in-process", 0, &options.teacher_in_process, "start none: compute the teacher in this process"),
    OPT_FLAG("overlap", 0, &options.overlap, "let teacher and student compute at once (default on GPUs)"),
    OPT_FLAG("print-config", 0, &options.print_config, "print every setting and where it comes from, and exit"),
    OPT_END
};

static Opt opts[CONFIG_OPTIONS + sizeof own_opts / sizeof *own_opts];

static const OptProgram program = {
    "hssl-train", "[OPTION]... -o RUN < VIEWS", "pre-train a model on a stream of views", .opts = opts,
    .examples =
        "  hssl-load photos.db | hssl-augment | hssl-train -o run.db\n"
        "  hssl-load cifar.db | hssl-augment | hssl-train --arch vit_nano -o run.db  # on 2 x 32 + 2 x 16\n"
        "  hssl-load photos.db | hssl-multicrop --local 10 | hssl-augment -j 8 |\n"
        "      hssl-train --arch vit_small --aux convnext --out-dim 8192 --epochs 100 -o run.db\n"};

/* ---------------------------------------------------------------- settings */

const char *origin_of(const char *name)
{
    return opt_origin(opts, name);
}

bool was_given(const char *name)
{
    return opt_given(opts, name);
}

static void make_options(void)
{
    int n = config_options(&config, opts, CONFIG_OPTIONS);
    memcpy(opts + n, own_opts, sizeof own_opts);
}

static bool may_differ(const char *name, bool begins)
{
    return begins || !strcmp(name, "epochs");
}

void adopt_settings(const Run *run, bool begins)
{
    TrainConfig stored, asked = config;
    Opt before[CONFIG_OPTIONS], now[CONFIG_OPTIONS + 1];
    char a[512], b[512];
    if (config_from_json(&stored, run_config(run))) {
        err_prefix("%s", run_path(run));
        die();
    }
    int n = config_options(&asked, before, CONFIG_OPTIONS);
    config_options(&stored, now, CONFIG_OPTIONS);
    now[n] = (Opt)OPT_END;
    for (int i = 0; i < n; i++) {
        opt_format(&before[i], a, sizeof a);
        if (!opt_given(opts, now[i].name))
            opt_mark(opts, now[i].name, "run");
        else if (strcmp(a, opt_format(&now[i], b, sizeof b)) && !may_differ(now[i].name, begins))
            opt_usage("--%s %s: %s was begun with %s, and a resumed run keeps its settings; --continue-from "
                      "begins a new one with its weights", now[i].name, a, run_path(run), b);
        else if (opt_set(now, now[i].name, a))
            die();
    }
    stored.device = config.device;
    stored.recompute = config.recompute;
    stored.graph = config.graph;
    if (config_check(&stored))
        opt_usage("%s", err_text());
    config = stored;
}

static bool is_there(const char *path)
{
    return !access(path, F_OK) || errno != ENOENT;
}

static int print_settings(void)
{
    bool goes_on = options.resume && options.output && is_there(options.output);
    const char *path = goes_on ? options.output : options.continue_from;
    if (path) {
        Run *run = run_open(path, false);
        if (!run)
            die();
        adopt_settings(run, !goes_on);
        if (run_close(run))
            die();
    }
    opt_print_config(opts, stdout);
    return log_status(0);
}

/* Room for a new run; and what it begins with, where that is another one. */
static void find_room(Training *t)
{
    if (!options.force && is_there(options.output) && !claim_held(options.output))
        err_set(ERR_EXISTS, "%s is there already: --force replaces it, --resume goes on with it",
                options.output);
    else if (!claim_check_free(options.output) &&
             (options.continue_from ? !origin_open(t) : !config_check(&config)))
        return;
    give_up(t);
}

/* How many epochs it is to have is the one setting of a run that may change. */
static void settle_epochs(Training *t, int64_t stored)
{
    int64_t s = t->at.steps_per_epoch;
    if (config.epochs * s < t->at.step) {
        err_set(ERR_USAGE,
                "--epochs %" PRId64 ": %s has done %" PRId64 " steps, %" PRId64 " an epoch: at least %"
                PRId64, config.epochs, options.output, t->at.step, s, (t->at.step + s - 1) / s);
        give_up(t);
    }
    t->epochs_before = config.epochs != stored ? stored : 0;
}

/* The run that goes on, or room for a new one. */
static void find_run(Training *t, bool *complete)
{
    TrainConfig stored;
    t->goes_on = options.resume && is_there(options.output);
    if (!t->goes_on) {
        if (options.resume)
            log_info("%s is not there yet: it begins", options.output);
        find_room(t);
        t->warm = options.init_from || options.continue_from;
        return;
    }
    if (!(t->run = run_open(options.output, true)) || run_claim(t->run) || origin_read(t))
        give_up(t);
    adopt_settings(t->run, false);
    int rc = saving_peek(t->run, &t->at);
    t->resuming = !rc;
    if (rc < 0 || config_from_json(&stored, run_config(t->run)) || origin_start(t))
        give_up(t);
    t->warm = options.init_from || options.continue_from;
    if (options.continue_from && origin_open(t))
        give_up(t);
    settle_epochs(t, stored.epochs);
    if (!t->resuming)
        return;
    t->saved = t->at.step;
    *complete = t->at.step >= config.epochs * t->at.steps_per_epoch;
    if (*complete)
        log_info("%s is complete: %" PRId64 " steps, digest %s", options.output, t->at.step, t->at.digest);
    else if (t->at.threads != t->threads)
        log_warn("%s was trained with %" PRId64 " threads, now %d: the last bits may differ", options.output,
                 t->at.threads, t->threads);
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
    options.resume |= options.resume_anyway;
    if (options.log && !strcmp(options.log, "-"))
        log_as_json();
    if (options.print_config) {
        free(original);
        return print_settings();
    }
    if (!options.output)
        opt_usage("no run to write: -o RUN");
    if (options.resume && options.force)
        opt_usage("--resume and --force exclude each other");
    if (options.init_from && options.continue_from)
        opt_usage("--init-from and --continue-from exclude each other");
    if (options.teacher_in_process && (options.teacher || options.teacher_device || opt_given(opts, "teacher-medium")))
        opt_usage("--teacher-in-process starts no other: --teacher, --teacher-device and --teacher-medium exclude it");
    if (!options.resume && !options.continue_from && config_check(&config)) /* else a run's come first */
        opt_usage("%s", err_text());
    if (original)
        threads_settle(original);
    free(original);
    stop_hear(SIGUSR1, on_save_signal);
    stop_hear(SIGUSR2, on_save_signal);
    if (stop_install())
        die();
    t.threads = threads_use((int)options.threads);
    if (ranks_meet(&t))
        die();
    if (!opt_given(opts, "overlap"))
        options.overlap = !t.be->mapped;

    bool complete = false, savable = false;
    if (is_first(&t)) {
        find_run(&t, &complete);
        if (origin_wish(&t))
            give_up(&t);
    }
    if (ranks_agree(&t, &complete))
        give_up(&t);
    if (complete) {
        leave(&t);
        return 0;
    }
    open_stream(&t);
    set_up(&t);
    t.at.threads = t.threads;
    t.begun = t.at.step;
    t.started = t.time_mark = log_seconds();
    t.images_mark = (double)t.at.images;
    if (is_first(&t))
        progress_start(&t.progress, "images", "images", t.at.images, t.total * config.batch_size);

    /* What it began with may be gone when it goes on: it keeps that as the checkpoint of step 0. */
    int rc = t.warm && save(&t) ? -1 : train_loop(&t, &savable);
    int status = finish(&t, rc, savable);
    leave(&t);
    return status;
}
