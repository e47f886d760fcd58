/* hssl-augment: renders the planned views of images. This process touches no pixel: it hands records to workers,
 * processes of their own, on this host or elsewhere, and passes on what they render. */
#include "stream/crew.h"
#include "stream/stage.h"
#include "stream/worker.h"
#include "train/planning.h"
#include "train/rendering.h"
#include "train/wish.h"
#include "util/err.h"
#include "util/idset.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/output.h"
#include "util/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_JOBS = 200, HOLD = 2048 };

static struct {
    PlanningOptions plan;
    int64_t jobs;
    bool fast;
    const char *join, *ticket;
    double patience;
    StreamOptions stream;
} o = { .plan = PLANNING_DEFAULTS, .jobs = 1, .patience = 60, .stream.medium = "auto", .stream.memory = STREAM_MEMORY };

static const char *listen; /* for workers; the views stay on this host */

static const Opt opts[] = {
    OPT_INT("jobs", 'j', &o.jobs, 0, MAX_JOBS, "N", "render in N processes (0: one a processor)"),
    OPT_FLAG("fast", 'f', &o.fast, "let the decoder scale down where every view shrinks the image"),
    OPT_STR("join", 0, &o.join, "TICKET", "help the hssl-augment of this ticket file (-: standard input)"),
    OPT_STR("ticket", 't', &o.ticket, "FILE", "write the ticket for --join to FILE"),
    OPT_STR("listen", 0, &listen, "[HOST:]PORT",
            "let workers of other hosts join (0: any port; no HOST: this machine only)"),
    OPT_FLAG("stay", 0, &o.stream.stay, "stay when the consumer leaves, for the next one"),
    STREAM_MEMORY_OPT(&o.stream),
    OPT_CHOICE("medium", 0, &o.stream.medium, "auto|shm|inline", "how pixels travel on this host"),
    OPT_REAL("patience", 0, &o.patience, 0, 1e6, "SECONDS", "with --join: look for a lost pipeline for so long"),
    PLANNING_OPTS(&o.plan),
    OPT_END
};

static const OptProgram program = {
    "hssl-augment", "[OPTION]... < RECORDS|PLANS > VIEWS", "decode images and render their views", .opts = opts,
    .examples = "  hssl-load photos.db | hssl-augment -j8 | hssl-train -o run.db\n"
                "  hssl-load photos.db | hssl-augment -t work.ticket | hssl-train -o run.db\n"
                "  hssl-augment -j4 --join work.ticket        # another shell, while it runs\n"
};

static int processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < MAX_JOBS ? n : MAX_JOBS;
}

static const char *const worker_command[] = { "hssl-augment", "--join", "-", "--jobs", "1", NULL };

/* ---------------------------------------------------------------- a worker */

static int render_all(Worker *w)
{
    WorkerTask t;
    HubResult results[HUB_MAX_RESULTS];
    const Message *facts = worker_welcome(w);
    Rendering *r = facts ? rendering_new(facts) : NULL;
    int rc = facts || err_code() ? -1 : 0; /* without a word: there is no work any more */
    if (r && !worker_results(w, rendering_results(rendering_counts(r), results), results))
        while ((rc = worker_next(w, &t)) == 1) {
            int bad = rendering_do(r, &t.record, t.out);
            if ((bad && err_code() != ERR_DATA) || worker_answer(w, &t, bad ? err_text() : NULL)) {
                worker_fail(w, err_text());
                message_clear(&t.record);
                message_clear(&t.answer);
                rc = -1;
                break;
            }
        }
    rendering_free(&r);
    return rc;
}

static int work(const Ticket *t)
{
    Worker *w = worker_open(t, &(WorkerConfig){ .program = program.name, .medium = o.stream.medium, .life = STDIN_FILENO,
                                                .patience = o.patience });
    int rc = w ? render_all(w) : -1;
    worker_close(&w);
    return rc;
}

/* Several workers, each a process. Those that are killed are replaced; when one has ended, so has the work. */
static int employ(const Ticket *t, int n)
{
    char line[TICKET_MAX_LINE];
    pid_t pid;
    int status, worst = 0;
    Crew *c = ticket_format(t, line, sizeof line) < 0 ? NULL : crew_start(line, worker_command, n);
    if (!c)
        return -1;
    while (!stop_signal() && !crew_failed(c)) {
        struct pollfd p[] = { { .fd = crew_fd(c), .events = POLLIN }, { .fd = stop_fd(), .events = POLLIN } };
        while (crew_reap(c, &pid, &status))
            if (WIFEXITED(status)) {
                crew_dismiss(c);
                worst |= WEXITSTATUS(status);
            }
        int wait = crew_patience(c);
        if (!crew_running(c) && wait < 0)
            break;
        poll(p, 2, wait);
    }
    bool failed = crew_failed(c);
    crew_stop(&c);
    if (stop_signal())
        return err_set(ERR_STOP, "stopped by a signal");
    return failed || worst ? -1 : 0;
}

static int join(void)
{
    Ticket t;
    int n = o.jobs ? (int)o.jobs : processors(), fd = STDIN_FILENO;
    bool named = strcmp(o.join, "-");
    if (named && (fd = open(o.join, O_RDONLY | O_CLOEXEC)) < 0) {
        err_system("%s", o.join);
        die();
    }
    int rc = ticket_read(fd, "work", &t);
    if (named)
        close(fd);
    if (!rc)
        rc = n > 1 ? employ(&t, n) : work(&t);
    if (!rc)
        return 0;
    int status = stream_status();
    if (err_code() != ERR_STOP && err_code() != ERR_NONE)
        log_error("%s", err_text());
    return status;
}

/* ---------------------------------------------------------------- the hub */

static IdSet named;

/* Each bad image is named once, however many epochs meet it. */
static void name_bad(const Message *m)
{
    if (idset_add(&named, m->id) > 0)
        log_warn("img %llu (%s): %s", (unsigned long long)m->id, m->name ? m->name : "?", m->bad);
}

static Recipe recipe;
static bool planned; /* the records bring their plans */

static WishRoles roles(void)
{
    return (WishRoles){ .plans = !planned, .renders = true };
}

static void compare(const Stage *st)
{
    wish_compare(source_wish(st->out), source_described(st->out), roles());
}

static int plan(Message *m)
{
    ViewPlan plans[PLAN_MAX_VIEWS];
    if (m->bad || planned)
        return 0;
    if (!m->width || !m->height || m->width > INT32_MAX || m->height > INT32_MAX)
        return message_set_bad(m, "no width and height: import it again");
    planning_views(m, &recipe, o.plan.seed, plans);
    return planning_attach(m, plans, recipe.globals + recipe.locals);
}

/* Send what is rendered while the consumer asks for it. *held: a result it did not ask for yet. */
static int send_done(Stage *st, Message *held)
{
    while (held->type || hub_take(st->hub, held)) {
        if (!source_ready(st->out, held->seq))
            return 0;
        if (held->bad)
            name_bad(held);
        if (source_send(st->out, held))
            return -1;
    }
    return 0;
}

static int run(Stage *st, Message *held)
{
    bool ended = false;
    while (!st->left) {
        Message m;
        int rc = 0;
        while (!ended && hub_room(st->hub) && (rc = sink_next(st->in, &m, 0)) == 1)
            if (plan(&m) || hub_put(st->hub, &m)) {
                message_clear(&m);
                return -1;
            }
        if (rc < 0 && !sink_ended(st->in))
            return -1;
        ended = ended || rc < 0;
        if (send_done(st, held))
            return -1;
        bool all = ended && !held->type && hub_idle(st->hub);
        st->full = ended || !hub_room(st->hub);
        if ((all ? stage_end(st, sink_last(st->in)) : stage_wait(st, -1, -1)) < 0)
            return -1;
        if (st->restarted) {
            message_clear(held);
            ended = st->restarted = false;
            compare(st);
        }
    }
    return 0;
}

static int open_hub(Stage *st)
{
    ViewCounts counts;
    Message w;
    HubConfig hub = { .program = program.name, .listen = listen, .medium = o.stream.medium,
                      .memory = o.stream.memory };
    const Message *up = sink_welcome(st->in);
    int rc = 0;
    message_init(&w, MSG_WELCOME);
    planned = !strcmp(message_text(up, "kind", ""), "plans") || message_fact(up, "globals");
    if (wish_take(source_wish(st->out), opts, roles(), &o.plan, &recipe))
        log_warn("%s", err_text());
    if (!planned)
        rc = planning_describe(&w, program.name, &o.plan, &recipe) || wish_answer(&w, opts);
    else
        for (const Opt *p = (const Opt[]){ PLANNING_OPTS(&o.plan), OPT_END }; p->type; p++)
            if (opt_given(opts, p->name))
                log_warn("--%s has no effect: the records come planned; give it to hssl-multicrop", p->name);
    if (rc || message_set_int(&w, "fast", o.fast) || message_set_int(&w, "jobs", o.jobs) ||
        message_copy_facts(&w, up) || planning_counts(&w, &counts))
        goto fail;
    Message facts;
    if (message_copy(&facts, &w))
        goto fail;
    hub.results = rendering_results(&counts, hub.result);
    if (!(st->hub = hub_open(&hub)) || hub_welcome(st->hub, &facts)) {
        message_clear(&facts);
        goto fail;
    }
    const char *line = hub_ticket(st->hub);
    /* For readers that wait for the file; readable by its owner only: it opens the door. */
    if ((o.ticket && output_file(o.ticket, OUTPUT_PRIVATE, line, strlen(line))) ||
        hub_employ(st->hub, worker_command, o.jobs ? (int)o.jobs : processors()))
        goto fail;
    if (source_welcome(st->out, &w))
        return -1;
    compare(st);
    return 0;
fail:
    message_clear(&w);
    return -1;
}

static void say_counts(const Stage *st)
{
    HubCounts c = hub_counts(st->hub);
    if (c.lost || c.restarts)
        log_info("%ld worker%s lost, %ld started anew; %ld records handed out again, %ld answers dropped", c.lost,
                 c.lost == 1 ? "" : "s", c.restarts, c.again, c.duplicates);
    if (named.count)
        log_info("%zu bad image%s", named.count, named.count == 1 ? "" : "s");
}

int main(int argc, char **argv)
{
    Stage st = { 0 };
    Message held = { 0 };
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: takes no operands", argv[1]);
    if (stop_install())
        die();
    if (o.join)
        return join();
    if (planning_recipe(&o.plan, &recipe))
        opt_usage("%s", err_text());
    int rc = stage_open(&st, program.name, "records|plans", "views", HOLD, false, &o.stream);
    if (rc > 0)
        rc = open_hub(&st) ? -1 : run(&st, &held);
    if (rc < 0) {
        rc = stream_status();
        stage_fail(&st, program.name);
        if (err_code() != ERR_STOP)
            log_error("%s", err_text());
    }
    if (st.hub) {
        struct stat ticket;
        say_counts(&st);
        if (o.ticket && !lstat(o.ticket, &ticket) && S_ISREG(ticket.st_mode))
            unlink(o.ticket);
    }
    message_clear(&held);
    idset_free(&named);
    stage_close(&st);
    return rc;
}
