/* hssl-discrepancy: how far the auxiliary head is from the base model, while training runs or afterwards. */
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/run.h"
#include "stream/link.h"
#include "stream/stage.h"
#include "train/badimages.h"
#include "store/claim.h"
#include "train/device.h"
#include "train/journal.h"
#include "train/measure.h"
#include "train/saving.h"
#include "train/threads.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"

enum { POLL_MS = 100, GRACE_MS = 5000, LOOK_MS = 500 };

static struct {
    bool follow, curve, json, check;
    int64_t every, step, batch, threads, wait;
    OptAmount max_bad;
    DeviceOptions device;
} o = { .device = DEVICE_DEFAULT, .every = 10, .step = -1, .batch = 64, .wait = 0, .max_bad = { 100, false } };

static const Opt opts[] = {
    OPT_FLAG("follow", 'f', &o.follow, "watch the training of RUN, which may begin later"),
    OPT_FLAG("curve", 0, &o.curve, "print D of each epoch from RUN's log"),
    OPT_FLAG("json", 0, &o.json, "with --curve: one JSON object a line"),
    OPT_INT("every", 0, &o.every, 1, 1000000, "STEPS", "with --follow: log each so many steps"),
    OPT_INT("wait", 0, &o.wait, 0, 1e9, "SECONDS",
            "with --follow: how long to wait for the training to begin"),
    OPT_FLAG("check", 0, &o.check, "with --follow: compute D anew from the logits that are published"),
    OPT_INT("step", 0, &o.step, -1, 9e15, "N", "with DATASET: checkpoint of step N (-1: the last)"),
    OPT_INT("batch-size", 0, &o.batch, 1, 65536, "N", "with DATASET: images at a time"),
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "with DATASET: threads (0: one a processor)"),
    DEVICE_OPTS(&o.device),
    BAD_OPT(&o.max_bad),
    OPT_END
};

static const OptProgram program = {
    "hssl-discrepancy", "[OPTION]... RUN [DATASET]",
    "measure the discrepancy between base model and auxiliary head", .opts = opts,
    .examples = "  hssl-discrepancy --follow run.db        while hssl-train -o run.db works\n"
                "  hssl-discrepancy --curve run.db\n"
                "  hssl-discrepancy run.db holdout.db      D of the last checkpoint over a dataset\n"
};

/* ---------------------------------------------------------------- over a dataset */

static int say_bad(void *arg, const Record *rec, uint64_t id, const char *why)
{
    return bad_name(arg, 0, rec, id, why);
}

static int over_dataset(const char *run_file, const char *dataset)
{
    TrainConfig c;
    Progression p;
    StepRates r;
    Discrepancy d;
    int64_t used;
    Run *run = run_open(run_file, false);
    if (!run)
        die();
    if (config_from_json(&c, run_config(run))) {
        err_prefix("%s", run_file);
        die();
    }
    if (!teach_measures(&c))
        die_with("%s: %s, so there is no discrepancy", run_file,
                 c.discrepancy ? "trained without an auxiliary head" : "trained with --no-discrepancy");
    threads_use((int)o.threads);
    if (!(c.device = device_name(&o.device, "fp32")))
        die();
    Teacher *t = saving_teacher(run, o.step, &c, &p);
    Dataset *ds = t ? dataset_open(dataset) : NULL;
    if (!ds)
        die();
    config_rates(&c, p.steps_per_epoch, p.step > 0 ? p.step - 1 : 0, &r);
    BadNames bad = { .most = &o.max_bad, .whole = (int64_t)dataset_count(ds) };
    if (measure_dataset(t, &c, r.teacher_temp, ds, (int)o.batch, say_bad, &bad, &used, &d))
        die();
    dataset_close(ds); /* before somebody may be slow to read what is written */
    json_object *line = journal_line("discrepancy");
    journal_text(line, "run", run_file);
    journal_int(line, "step", p.step);
    journal_text(line, "dataset", dataset);
    journal_int(line, "images", used);
    journal_int(line, "bad", bad.count);
    journal_real(line, "d", d.d);
    journal_real(line, "d_role", d.d_role);
    int rc = journal_write(&(Journal){ .file = stdout }, line);
    bad_names_free(&bad);
    teacher_free(t);
    if (rc || run_close(run))
        die();
    return log_status(0);
}

/* ---------------------------------------------------------------- the curve */

static void sparkline(const EpochMeans *e, int64_t n, double low, double high)
{
    static const char *const bars[] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    int64_t width = n < 72 ? n : 72;
    for (int64_t i = 0; i < width; i++) {
        double x = e[i * n / width].d, at = high > low ? (x - low) / (high - low) : 0;
        fputs(isfinite(x) ? bars[(int)(at * 7.999)] : " ", stdout);
    }
    putchar('\n');
}

static int curve(const char *run_file)
{
    EpochMeans *e;
    Run *run = run_open(run_file, false);
    int64_t n = run ? journal_epochs(run, &e) : -1, last = -1, peak = -1, first = -1;
    if (n < 0)
        die();
    double low = INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(e[i].d))
            continue;
        first = first < 0 ? i : first;
        last = i;
        peak = peak < 0 || e[i].d > e[peak].d ? i : peak;
        low = fmin(low, e[i].d);
    }
    if (first < 0)
        die_with("%s: its log has no discrepancy of a whole epoch", run_file);
    for (int64_t i = 0; i < n; i++) {
        if (o.json) {
            json_object *line = json_object_new_object();
            journal_int(line, "epoch", e[i].epoch);
            journal_int(line, "steps", e[i].steps);
            journal_real(line, "loss", e[i].loss);
            journal_real(line, "d", e[i].d);
            journal_real(line, "d_role", e[i].d_role);
            if (journal_write(&(Journal){ .file = stdout }, line))
                die();
        } else {
            printf("%s%5" PRId64 "  loss %8.4f  D %.6f  D_role %.6f\n", i ? "" : "epoch\n", e[i].epoch + 1,
                   e[i].loss, e[i].d, e[i].d_role);
        }
    }
    if (!o.json) {
        sparkline(e, n, low, e[peak].d);
        printf("D: start %.6f, peak %.6f (epoch %" PRId64 "), end %.6f\n", e[first].d, e[peak].d,
               e[peak].epoch + 1, e[last].d);
    }
    free(e);
    if (run_close(run))
        die();
    return log_status(0);
}

/* ---------------------------------------------------------------- live */

typedef struct {
    Run *run;
    Journal journals[2]; /* the run, standard output */
    int64_t epoch, steps;
    double d, d_role;
} Watch;

static void write_line(Watch *w, json_object *line)
{
    if (journal_write(&w->journals[0], json_object_get(line)) || journal_write(&w->journals[1], line))
        die();
}

static void end_epoch(Watch *w)
{
    if (!w->steps)
        return;
    json_object *line = journal_line("discrepancy_epoch");
    journal_int(line, "epoch", w->epoch);
    journal_int(line, "steps", w->steps);
    journal_real(line, "d", w->d / (double)w->steps);
    journal_real(line, "d_role", w->d_role / (double)w->steps);
    write_line(w, line);
    w->steps = 0;
    w->d = w->d_role = 0;
}

/* A tensor of floats, copied to aligned memory; NULL when it is not there or of another size. */
static float *take(const Message *m, const char *name, int64_t rows, int64_t k)
{
    const MsgTensor *t = message_tensor(m, name);
    if (!t || !t->data || t->dtype != MSG_F32 || t->bytes != (size_t)(rows * k) * sizeof(float))
        return NULL;
    float *copy = malloc(t->bytes ? t->bytes : 1);
    return copy ? memcpy(copy, t->data, t->bytes) : NULL;
}

static void add_check(json_object *line, const Message *m)
{
    const MsgTensor *head = message_tensor(m, "head");
    if (!head || head->ndim != 2 || head->shape[0] < 1 || head->shape[1] < 1)
        return;
    int64_t rows = head->shape[0], k = head->shape[1];
    float *base = take(m, "base", rows, k), *h = take(m, "head", rows, k), *cb = take(m, "center_base", 1, k),
          *ch = take(m, "center_head", 1, k);
    double temp = message_real(m, "temp", 0), student_temp = message_real(m, "student_temp", 0);
    if (base && h && cb && ch && temp > 0 && student_temp > 0) {
        Discrepancy d = measure_logits(base, h, cb, ch, rows, k, temp, student_temp);
        journal_real(line, "d_check", d.d);
        journal_real(line, "d_role_check", d.d_role);
    }
    free(base);
    free(h);
    free(cb);
    free(ch);
}

static void see_step(Watch *w, const Message *m)
{
    int64_t step = message_int(m, "step", -1), epoch = message_int(m, "epoch", -1);
    double d = message_real(m, "d", NAN), d_role = message_real(m, "d_role", NAN);
    if (step < 0 || epoch < 0 || !isfinite(d) || !isfinite(d_role))
        return;
    if (epoch != w->epoch)
        end_epoch(w);
    w->epoch = epoch;
    w->steps++;
    w->d += d;
    w->d_role += d_role;
    if (step % o.every)
        return;
    json_object *line = journal_line("discrepancy");
    journal_int(line, "step", step);
    journal_int(line, "epoch", epoch);
    journal_real(line, "d", d);
    journal_real(line, "d_role", d_role);
    if (o.check)
        add_check(line, m);
    write_line(w, line);
}

static bool nap(void)
{
    struct pollfd p = { .fd = stop_fd(), .events = POLLIN };
    poll(&p, 1, POLL_MS);
    return !stop_signal();
}

/* Wait until a training of the run is under way. 1: the run with its ticket; 0: the run is there, but nobody
 * trains it (any more), not even after a moment; -1. */
static int await_training(const char *run_file, Watch *w, Ticket *ticket)
{
    for (int64_t ms = 0; nap(); ms += POLL_MS) {
        bool lives = false;
        w->run = run_open(run_file, true);
        if (!w->run && err_code() != ERR_ABSENT && ms > GRACE_MS)
            return -1;
        if (w->run) {
            lives = claim_held(run_file);
            char *line = lives ? run_get(w->run, "teacher_ticket") : NULL;
            int rc = !line ? 0
                     : *line ? ticket_parse(line, strlen(line), ticket)
                             : err_set(ERR_ABSENT, "it is trained with --teacher-in-process, which publishes nothing; "
                                                   "hssl-info --log has its D");
            if (line) {
                free(line);
                return rc ? err_prefix("%s: the live teacher", run_file) : 1;
            }
            if (run_close(w->run))
                return -1;
            w->run = NULL;
            if (!lives && !o.wait && ms > GRACE_MS)
                return 0;
        }
        if (o.wait && ms > o.wait * 1000)
            return err_set(ERR_PEER, "%s: no training has begun", run_file);
    }
    return err_set(ERR_STOP, "stopped by a signal");
}

static int watch(Watch *w, const Ticket *ticket)
{
    Message m;
    bool ended = false;
    Link *l = link_subscribe(ticket);
    int rc = l ? 0 : -1;
    while (!ended && rc >= 0 && (rc = link_recv(l, &m, LOOK_MS)) >= 0) {
        if (rc == 0) {
            if (!claim_held(run_path(w->run)))
                rc = err_set(ERR_PEER, "%s: the trainer has gone without an end", run_path(w->run));
            continue;
        }
        const char *op = m.type == MSG_NOTE ? message_text(&m, "op", "") : "";
        if (!strcmp(op, "step"))
            see_step(w, &m);
        ended = !strcmp(op, "end");
        if (ended && !message_int(&m, "complete", 0))
            rc = err_set(ERR_PEER, "%s: the training broke off", run_path(w->run));
        message_clear(&m);
    }
    end_epoch(w);
    link_close(&l);
    return rc < 0 ? -1 : 0;
}

static int follow(const char *run_file)
{
    Watch w = { .epoch = -1 };
    Ticket ticket;
    if (stop_install())
        die();
    int rc = await_training(run_file, &w, &ticket);
    if (rc == 1) {
        TrainConfig c;
        if (config_from_json(&c, run_config(w.run)) || !teach_measures(&c))
            die_with(
                "%s: trained without an auxiliary head (or with --no-discrepancy): there is no discrepancy",
                run_file);
        w.journals[0].run = w.run;
        w.journals[1].file = stdout;
        rc = watch(&w, &ticket);
    } else if (!rc) {
        log_info("%s: no training is under way", run_file);
    }
    int status = rc < 0 ? stream_status() : 0;
    if (rc < 0 && err_code() != ERR_STOP)
        log_error("%s", err_text());
    if (w.run && run_close(w.run)) {
        log_error("%s", err_text());
        status = 1;
    }
    return log_status(status);
}

int main(int argc, char **argv)
{
    threads_settle(argv);
    int n = opt_parse(&program, argc, argv), modes = o.follow + o.curve;
    if (n < 1)
        opt_usage("which run?");
    if (modes > 1)
        opt_usage("--follow and --curve exclude each other");
    if (n != (modes ? 1 : 2))
        opt_usage(modes ? "%s: unexpected operand" : "%s: give a DATASET too, or --follow or --curve",
                  argv[n]);
    if (o.follow)
        return follow(argv[1]);
    return o.curve ? curve(argv[1]) : over_dataset(argv[1], argv[2]);
}
