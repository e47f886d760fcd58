/* hssl-augment: decodes images and renders their planned views, in threads. Stateless: which thread or
 * process renders a record, and when, does not show in its pixels. */
#include "image/render.h"
#include "stream/stage.h"
#include "train/planning.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MAX_JOBS = 1024, HOLD = 64, HOLD_A_JOB = 4 };

static struct {
    PlanningOptions plan;
    int64_t jobs;
    bool fast;
} o = { .plan = PLANNING_DEFAULTS, .jobs = 1 };

static const Opt opts[] = {
    OPT_INT("jobs", 'j', &o.jobs, 0, MAX_JOBS, "N", "render in N threads (0: one a processor)"),
    OPT_FLAG("fast", 'f', &o.fast, "let the decoder scale down where every view shrinks the image"),
    PLANNING_OPTS(&o.plan),
    OPT_END
};

static const OptProgram program = {
    "hssl-augment", "[OPTION]... < RECORDS|PLANS > VIEWS", "decode images and render their views",
    .opts = opts,
    .examples = "  hssl-load photos.db | hssl-augment -j8 | hssl-train -o run.db\n"
                "  hssl-load photos.db | hssl-augment | hssl-tap --sheet views.png --count 8 --exit\n"
};

typedef struct Job {
    Message m;
    struct Job *next;
    bool fatal; /* not this image's fault */
    char why[256];
} Job;

typedef struct {
    Job *first, **last;
} Queue;

static struct {
    pthread_mutex_t guard;
    pthread_cond_t more;
    Queue todo, done;
    bool closing;
    int done_event; /* eventfd: something is done */
    pthread_t thread[MAX_JOBS];
    int threads;
    Recipe recipe;
    bool planned; /* the records bring their plans */
    ViewCounts counts;
} pool = { .guard = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

static void push(Queue *q, Job *j)
{
    j->next = NULL;
    *q->last = j;
    q->last = &j->next;
}

static Job *pop(Queue *q)
{
    Job *j = q->first;
    if (j && !(q->first = j->next))
        q->last = &q->first;
    return j;
}

/* ---------------------------------------------------------------- rendering */

static int add_tensor(Message *out, const char *name, int views, int side, uint8_t **outs)
{
    const int64_t shape[] = { views, side, side, 3 };
    uint8_t *px = views ? message_add(out, name, MSG_U8, 4, shape) : NULL;
    if (views && !px)
        return -1;
    for (int v = 0; v < views; v++)
        outs[v] = px + (size_t)v * (size_t)side * (size_t)side * 3;
    return 0;
}

static int copy_identity(Message *to, const Message *from)
{
    message_init(to, MSG_DATA);
    to->seq = from->seq;
    to->epoch = from->epoch;
    to->id = from->id;
    to->label = from->label;
    to->width = from->width;
    to->height = from->height;
    return from->name ? message_set_name(to, from->name) : 0;
}

static int render(const Message *m, Message *out, RenderScratch *scratch)
{
    const ViewCounts *c = &pool.counts;
    const MsgTensor *image = message_tensor(m, "image");
    ViewPlan plans[PLAN_MAX_VIEWS];
    uint8_t *outs[PLAN_MAX_VIEWS];

    if (!image || !image->data || image->dtype != MSG_U8 || image->ndim != 1)
        return err_set(ERR_DATA, "the record brings no image");
    if (pool.planned) {
        if (planning_read(m, c, plans))
            return -1;
    } else {
        if (!m->width || !m->height || m->width > INT32_MAX || m->height > INT32_MAX)
            return err_set(ERR_DATA, "no width and height: import it again");
        planning_views(m, &pool.recipe, o.plan.seed, plans);
    }
    if (add_tensor(out, "global", c->globals, c->global_size, outs) ||
        add_tensor(out, "local", c->locals, c->local_size, outs + c->globals))
        return -1;
    return render_views(image->data, image->bytes, plans, c->globals + c->locals, o.fast, outs, scratch);
}

static void do_job(Job *j, RenderScratch *scratch)
{
    Message out;
    if (j->m.bad)
        return; /* said upstream */
    int rc = copy_identity(&out, &j->m);
    if (!rc && render(&j->m, &out, scratch)) {
        snprintf(j->why, sizeof j->why, "%s", err_text());
        rc = err_code() == ERR_MEMORY ? -1 : message_set_bad(&j->m, j->why);
        if (!rc) { /* goes on as it came, with the encoded image for whoever wants to look into it */
            message_clear(&out);
            return;
        }
    }
    if (rc) {
        j->fatal = true;
        snprintf(j->why, sizeof j->why, "%s", err_text());
    }
    message_clear(&j->m);
    j->m = out;
}

static void *work(void *arg)
{
    RenderScratch *scratch = render_scratch_new();
    const uint64_t one = 1;
    (void)arg;
    pthread_mutex_lock(&pool.guard);
    for (;;) {
        Job *j;
        while (!(j = pop(&pool.todo)) && !pool.closing)
            pthread_cond_wait(&pool.more, &pool.guard);
        if (!j)
            break;
        pthread_mutex_unlock(&pool.guard);
        if (scratch) {
            do_job(j, scratch);
        } else {
            j->fatal = true;
            snprintf(j->why, sizeof j->why, "no memory to render in");
        }
        pthread_mutex_lock(&pool.guard);
        bool first = !pool.done.first;
        push(&pool.done, j);
        if (first && write(pool.done_event, &one, sizeof one) < 0) {
            /* it is readable already */
        }
    }
    pthread_mutex_unlock(&pool.guard);
    render_scratch_free(scratch);
    return NULL;
}

static int processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < MAX_JOBS ? n : MAX_JOBS;
}

static int start_threads(void)
{
    sigset_t all, before;
    int n = o.jobs ? (int)o.jobs : processors();
    pool.todo.last = &pool.todo.first;
    pool.done.last = &pool.done.first;
    if ((pool.done_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return err_system("eventfd");
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (pool.threads < n && !pthread_create(&pool.thread[pool.threads], NULL, work, NULL))
        pool.threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool.threads ? 0 : err_set(ERR_SYSTEM, "cannot start a thread");
}

static void stop_threads(Job *held)
{
    pthread_mutex_lock(&pool.guard);
    pool.closing = true;
    for (Job *j; (j = pop(&pool.todo));) {
        message_clear(&j->m);
        free(j);
    }
    pthread_cond_broadcast(&pool.more);
    pthread_mutex_unlock(&pool.guard);
    for (int i = 0; i < pool.threads; i++)
        pthread_join(pool.thread[i], NULL);
    for (Job *j = held ? held : pop(&pool.done); j; j = pop(&pool.done)) {
        message_clear(&j->m);
        free(j);
    }
}

/* ---------------------------------------------------------------- the stream */

/* Each bad image is named once, however many epochs meet it. */
static struct {
    uint64_t *id;
    size_t n, room;
} named;

static void name_bad(const Message *m)
{
    for (size_t i = 0; i < named.n; i++)
        if (named.id[i] == m->id)
            return;
    if (named.n == named.room) {
        size_t room = named.room ? 2 * named.room : 64;
        uint64_t *bigger = realloc(named.id, room * sizeof *bigger);
        if (!bigger)
            return;
        named.id = bigger;
        named.room = room;
    }
    named.id[named.n++] = m->id;
    log_warn("img %llu (%s): %s", (unsigned long long)m->id, m->name ? m->name : "?", m->bad);
}

static int enqueue(Message *m)
{
    Job *j = calloc(1, sizeof *j);
    if (!j) {
        message_clear(m);
        return err_set(ERR_MEMORY, "out of memory");
    }
    j->m = *m;
    message_init(m, MSG_NONE);
    pthread_mutex_lock(&pool.guard);
    push(&pool.todo, j);
    pthread_cond_signal(&pool.more);
    pthread_mutex_unlock(&pool.guard);
    return 0;
}

static Job *next_done(void)
{
    pthread_mutex_lock(&pool.guard);
    Job *j = pop(&pool.done);
    pthread_mutex_unlock(&pool.guard);
    return j;
}

/* Send what is rendered while the consumer asks for it. *held: a job it did not ask for yet. */
static int send_done(Stage *st, Job **held, uint64_t *inside)
{
    while (*held || (*held = next_done())) {
        Job *j = *held;
        if (j->fatal)
            return err_set(ERR_MEMORY, "%s", j->why);
        if (!source_ready(st->out, j->m.seq))
            return 0;
        if (j->m.bad)
            name_bad(&j->m);
        if (source_send(st->out, &j->m))
            return -1;
        free(j);
        *held = NULL;
        --*inside;
    }
    return 0;
}

static int run(Stage *st, uint64_t hold, Job **held)
{
    uint64_t inside = 0, count;
    bool ended = false;
    while (!st->left) {
        Message m;
        int rc = 0;
        while (!ended && inside < hold && (rc = sink_next(st->in, &m, 0)) == 1) {
            if (enqueue(&m))
                return -1;
            inside++;
        }
        if (rc < 0 && !sink_ended(st->in))
            return -1;
        ended = ended || rc < 0;
        if (send_done(st, held, &inside))
            return -1;
        if (ended && !inside)
            return stage_end(st, sink_last(st->in));
        st->full = ended || inside >= hold;
        if (stage_wait(st, *held ? -1 : pool.done_event, -1) < 0)
            return -1;
        if (read(pool.done_event, &count, sizeof count) < 0) {
            /* nothing was done meanwhile */
        }
    }
    return 0;
}

static int welcome(Stage *st)
{
    Message w;
    const Message *up = sink_welcome(st->in);
    int rc = 0;
    message_init(&w, MSG_WELCOME);
    pool.planned = !strcmp(message_text(up, "kind", ""), "plans") || message_fact(up, "globals");
    if (!pool.planned)
        rc = planning_describe(&w, &pool.recipe, o.plan.seed);
    else
        for (const Opt *p = opts; p->type; p++)
            if (p->value != &o.jobs && p->value != &o.fast && opt_given(opts, p->name))
                log_warn("--%s has no effect: the records come planned; give it to hssl-multicrop", p->name);
    if (rc || message_set_int(&w, "fast", o.fast) || message_copy_facts(&w, up) ||
        planning_counts(&w, &pool.counts)) {
        message_clear(&w);
        return -1;
    }
    return source_welcome(st->out, &w);
}

int main(int argc, char **argv)
{
    Stage st;
    Job *held = NULL;
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: takes no operands", argv[1]);
    if (planning_recipe(&o.plan, &pool.recipe))
        opt_usage("%s", err_text());
    if (stop_install())
        die();
    uint64_t hold = HOLD + HOLD_A_JOB * (uint64_t)(o.jobs ? o.jobs : processors());
    int rc = stage_open(&st, program.name, "records|plans", "views", hold, false, NULL);
    if (rc > 0)
        rc = welcome(&st) || start_threads() ? -1 : run(&st, hold, &held);
    if (rc < 0) {
        rc = stream_status();
        stage_fail(&st, program.name);
        if (err_code() != ERR_STOP)
            log_error("%s", err_text());
    }
    stop_threads(held);
    if (named.n)
        log_info("%zu bad image%s", named.n, named.n == 1 ? "" : "s");
    free(named.id);
    stage_close(&st);
    return rc;
}
