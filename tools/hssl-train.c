/* hssl-train: the student. Takes batches of views from the pipeline, targets from the teacher, and learns. */
#include "train/training.h"

#include "store/claim.h"
#include "train/threads.h"
#include "util/err.h"
#include "util/opt.h"
#include "util/stop.h"

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
    OPT_FLAG("resume", 0, &options.resume, "go on from RUN's last checkpoint, with RUN's settings"),
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
    .examples = "  hssl-load photos.db | hssl-augment | hssl-train -o run.db\n"
                "  hssl-load photos.db | hssl-multicrop --local 10 | hssl-augment -j 8 |\n"
                "      hssl-train --arch vit_small --aux convnext --out-dim 8192 --epochs 100 -o run.db\n"
};

/* ---------------------------------------------------------------- settings */

bool was_given(const char *name)
{
    return opt_given(opts, name);
}

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
        err_prefix("%s", options.output);
        die();
    }
    int n = config_options(&asked, before, CONFIG_OPTIONS);
    config_options(&stored, now, CONFIG_OPTIONS);
    for (int i = 0; i < n; i++)
        if (!opt_given(opts, now[i].name))
            opt_mark(opts, now[i].name, "run");
        else if (strcmp(opt_format(&before[i], a, sizeof a), opt_format(&now[i], b, sizeof b)))
            opt_usage("--%s %s: %s was begun with %s, and a resumed run keeps its settings", now[i].name, a,
                      options.output, b);
    stored.device = config.device;
    stored.recompute = config.recompute;
    stored.graph = config.graph;
    config = stored;
}

static int print_settings(void)
{
    if (options.resume && options.output) {
        Run *run = run_open(options.output, false);
        if (!run)
            die();
        adopt_run_settings(run);
        if (run_close(run))
            die();
    }
    opt_print_config(opts, stdout);
    return log_close_stdout() ? 1 : 0;
}

/* The run that goes on, or room for a new one. */
static void find_run(Training *t, bool *complete)
{
    if (!options.resume) {
        if (!options.force && !access(options.output, F_OK) && !claim_held(options.output))
            err_set(ERR_EXISTS, "%s is there already: --force replaces it, --resume goes on with it", options.output);
        else if (!claim_check_free(options.output))
            return;
        give_up(t);
    }
    if (!(t->run = run_open(options.output, true)) || run_claim(t->run))
        give_up(t);
    adopt_run_settings(t->run);
    int rc = saving_peek(t->run, &t->at);
    if (rc < 0)
        give_up(t);
    t->resuming = !rc;
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
    if (options.print_config) {
        free(original);
        return print_settings();
    }
    if (!options.output)
        opt_usage("no run to write: -o RUN");
    if (options.resume && options.force)
        opt_usage("--resume and --force exclude each other");
    if (options.resume && options.init_from)
        opt_usage("--resume and --init-from exclude each other");
    if (options.teacher_in_process && (options.teacher || options.teacher_device || opt_given(opts, "teacher-medium")))
        opt_usage("--teacher-in-process starts no other: --teacher, --teacher-device and --teacher-medium exclude it");
    if (config_check(&config))
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
    if (is_first(&t))
        find_run(&t, &complete);
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

    /* A run remembers its settings, not the file it began with: keep that as the checkpoint of step 0. */
    int rc = options.init_from && save(&t) ? -1 : train_loop(&t, &savable);
    int status = finish(&t, rc, savable);
    leave(&t);
    return status;
}
