/* The trainer's end of the link to the teacher. */
#include "ssl/student.h"
#include "train/teach.h"
#include "train/teach_notes.h"
#include "train/teach_state.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { END_PATIENCE_MS = 3000, ANSWER_PATIENCE_MS = 60000 };

struct Teach {
    Backend *be;
    Medium medium; /* the best there may be; after teach_start what was agreed on */
    pid_t pid;
    int life_out, life_in; /* the child's standard input and output */
    char line[TICKET_MAX_LINE];
    Link *link;
    Area params, targets, means;
    int ranks;
    const char *views; /* device memory of the views, or NULL */
    int64_t rows, k;
    bool measures;
    int64_t step; /* asked for */
    Discrepancy d; /* of that step */
    char *published;
    bool in_process;
    Teacher *teacher; /* in this process */
};

/* ---------------------------------------------------------------- the process */

static int beside(const char *name, char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    if (n <= 0)
        return err_system("/proc/self/exe");
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash + 1 - path) + strlen(name) >= size)
        return err_set(ERR_SYSTEM, "%s: no directory to look for %s in", path, name);
    memcpy(slash + 1, name, strlen(name) + 1);
    return 0;
}

static int start_process(Teach *t, const TeachConfig *c)
{
    char path[4096], parent[32];
    int in[2], out[2];
    if (c->program)
        snprintf(path, sizeof path, "%s", c->program);
    else if (beside("hssl-teach", path, sizeof path))
        return -1;
    if (pipe2(in, O_CLOEXEC))
        return err_system("pipe");
    if (pipe2(out, O_CLOEXEC)) {
        close(in[0]);
        close(in[1]);
        return err_system("pipe");
    }
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    char child_of[] = "--child-of", device[] = "--device", precision[] = "--precision", varies[] = "--no-deterministic",
         plain[] = "--no-graph";
    char *argv[10] = { path };
    int argc = 1;
    if (c->device) {
        argv[argc++] = device;
        argv[argc++] = (char *)(uintptr_t)c->device;
    }
    if (c->precision) {
        argv[argc++] = precision;
        argv[argc++] = (char *)(uintptr_t)c->precision;
    }
    if (c->varies)
        argv[argc++] = varies;
    if (c->plain)
        argv[argc++] = plain;
    argv[argc++] = child_of;
    argv[argc++] = parent;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    int rc = posix_spawn(&t->pid, path, &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(in[0]);
    close(out[1]);
    t->life_out = in[1];
    t->life_in = out[0];
    if (!rc)
        return 0;
    t->pid = 0;
    errno = rc;
    return err_system("%s", path);
}

/* What became of the child, in words, if it has ended. */
static bool obituary(Teach *t, char *buf, size_t size)
{
    int status;
    for (int ms = 0; t->pid && ms < 200; ms += 5) {
        if (waitpid(t->pid, &status, WNOHANG) == t->pid) {
            if (WIFSIGNALED(status))
                snprintf(buf, size, "was killed by signal %d", WTERMSIG(status));
            else
                snprintf(buf, size, "ended with status %d", WEXITSTATUS(status));
            t->pid = 0;
            return true;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    return false;
}

Teach *teach_open(const TeachConfig *c)
{
    Teach *t = calloc(1, sizeof *t);
    if (!t) {
        err_set(ERR_MEMORY, "teacher: out of memory");
        return NULL;
    }
    t->life_in = t->life_out = -1;
    t->be = c->be;
    t->medium = c->best;
    t->ranks = c->ranks > 1 ? c->ranks : 1;
    t->step = -1;
    t->in_process = c->in_process;
    if (t->in_process)
        t->medium = MEDIUM_INLINE; /* no memory needs to be shared */
    else if (c->ticket)
        snprintf(t->line, sizeof t->line, "%s", c->ticket);
    else if (start_process(t, c))
        teach_close(&t);
    return t;
}

float *teach_memory(Teach *t, size_t bytes)
{
    return area_new(&t->params, t->be, bytes, t->medium > MEDIUM_INLINE) ? NULL : t->params.device;
}

/* ---------------------------------------------------------------- messages */

static int failed(Teach *t)
{
    char how[64];
    if (err_code() == ERR_PEER && obituary(t, how, sizeof how))
        return err_set(ERR_PEER, "the teacher %s", how);
    return err_prefix("teacher");
}

/* Wait for a note of this name. */
static int await(Teach *t, const char *op, Message *m, int patience_ms)
{
    int rc = link_recv(t->link, m, patience_ms);
    if (rc < 0)
        return failed(t);
    if (!rc)
        return err_set(ERR_PEER, "the teacher has not answered for %d s: is it there, and without a trainer?",
                       patience_ms / 1000);
    if (!strcmp(note_op(m), op))
        return 0;
    if (m->type == MSG_FAIL)
        err_set(ERR_PEER, "teacher: %s", m->text ? m->text : "failed");
    else
        err_set(ERR_PEER, "teacher: answered \"%s\" where \"%s\" was due", note_op(m), op);
    message_clear(m);
    return -1;
}

/* The bytes of an area, where they travel inside the message. */
static int add_contents(Message *m, const char *name, const Area *a)
{
    return message_add_copy(m, name, MSG_F32, 1, (int64_t[]){ (int64_t)(a->bytes / sizeof(float)) }, a->host);
}

static int take_contents(const Message *m, const char *name, Area *a)
{
    const MsgTensor *x = note_floats(m, name, a->bytes / sizeof(float));
    if (!x || !x->data)
        return x ? err_set(ERR_DATA, "%s: no tensor %s", note_op(m), name) : -1;
    memcpy(a->host, x->data, x->bytes);
    return 0;
}

static int post(Teach *t, Message *m, int built)
{
    if (!built)
        return link_send(t->link, m) ? failed(t) : 0;
    message_clear(m);
    return -1;
}

static int connect_teacher(Teach *t)
{
    Ticket ticket;
    if (t->pid) {
        if (ticket_read(t->life_in, TEACH_KIND, &ticket)) {
            char how[64];
            if (err_code() != ERR_STOP)
                err_set(ERR_PEER, "the teacher did not start: %s",
                        obituary(t, how, sizeof how) ? how : "no ticket");
            return -1;
        }
    } else if (ticket_parse(t->line, strlen(t->line), &ticket)) {
        return err_set(ERR_USAGE, "--teacher: %s: it takes the line that hssl-teach prints", err_text());
    } else if (!ticket_kind_in(ticket.kind, TEACH_KIND)) {
        return err_set(ERR_USAGE, "--teacher: a ticket of kind %s, not one of hssl-teach", ticket.kind);
    } else if (!strncmp(ticket.endpoint, "ipc://", 6) && access(ticket.endpoint + 6, F_OK)) {
        return err_set(ERR_PEER,
                       "--teacher: nobody is there any more: start hssl-teach, and give its ticket");
    }
    if (!(t->link = link_connect(&ticket)))
        return -1;
    if (t->pid)
        link_watch(t->link, t->life_in);
    return 0;
}

/* Everything that the teacher needs to map is announced; 1 where this medium is not to be had here. */
static int send_start(Teach *t, Medium medium, const char *config, int threads, size_t views_bytes)
{
    Message m;
    Area views = { .be = t->be, .device = (void *)(uintptr_t)t->views, .bytes = views_bytes };
    if (area_prepare(&t->params, medium) || area_prepare(&t->targets, medium) ||
        (t->ranks > 1 && area_prepare(&t->means, medium)))
        return medium == MEDIUM_INLINE ? -1 : 1;
    if (area_down(&t->params))
        return -1;
    int rc = note_begin(&m, "start") || message_set_int(&m, "protocol", TEACH_PROTOCOL) ||
             message_set_text(&m, "config", config) || message_set_int(&m, "threads", threads) ||
             message_set_text(&m, "medium", medium_name(medium)) || area_announce(&t->params, medium, &m, "params") ||
             area_announce(&t->targets, medium, &m, "targets") || message_set_int(&m, "ranks", t->ranks) ||
             (t->ranks > 1 && area_announce(&t->means, medium, &m, "means")) ||
             (medium == MEDIUM_INLINE && add_contents(&m, "params", &t->params)) ||
             (medium == MEDIUM_IPC && (message_set_int(&m, "views_bytes", (int64_t)views_bytes) ||
                                       area_announce(&views, medium, &m, "views")));
    if (rc && medium > MEDIUM_INLINE) {
        message_clear(&m);
        return 1;
    }
    return post(t, &m, rc);
}

bool teach_measures(const TrainConfig *c)
{
    return c->discrepancy && strcmp(c->aux, "none") != 0;
}

/* Down from the best medium, until one is there at both ends. */
static int agree(Teach *t, const char *config, int threads, size_t views_bytes, Message *answer)
{
    for (;; t->medium--) {
        bool last = t->medium == MEDIUM_INLINE;
        int rc = send_start(t, t->medium, config, threads, views_bytes);
        char why[256];
        snprintf(why, sizeof why, "%s", err_text());
        if (rc < 0 || (!rc && await(t, "started", answer, ANSWER_PATIENCE_MS)))
            return -1;
        if (!rc && !strcmp(message_text(answer, "medium", ""), medium_name(t->medium)))
            return 0;
        if (!rc) {
            snprintf(why, sizeof why, "%s", message_text(answer, "why", "no reason given"));
            message_clear(answer);
        }
        if (last)
            return err_set(ERR_PEER, "teacher: no medium for weights and batches: %s", why);
        log_info("weights and batches cannot go to the teacher by %s (%s)", medium_name(t->medium), why);
    }
}

static int start_here(Teach *t, const TrainConfig *c)
{
    if (!(t->teacher = teacher_new(c, t->params.device)))
        return -1;
    if (t->ranks > 1)
        teacher_defer(t->teacher, t->means.device);
    return t->be->sync(t->be);
}

int teach_start(Teach *t, const TrainConfig *c, int threads, void *views, size_t views_bytes)
{
    Message m;
    t->rows = 2 * c->batch_size;
    t->k = c->out_dim;
    t->measures = teach_measures(c);
    t->views = views;
    if (t->medium == MEDIUM_IPC && (!t->be->lend || !views))
        t->medium = MEDIUM_SHM;
    if (area_new(&t->targets, t->be, (size_t)t->rows * (size_t)t->k * sizeof(float), t->medium > MEDIUM_INLINE) ||
        (t->ranks > 1 && area_new(&t->means, t->be, 2 * (size_t)t->k * sizeof(float), t->medium > MEDIUM_INLINE)))
        return -1;
    if (t->in_process)
        return start_here(t, c);
    if (connect_teacher(t))
        return -1;
    char *config = config_to_json(c);
    int rc = config ? agree(t, config, threads, views_bytes, &m) : -1;
    free(config);
    if (rc)
        return -1;
    link_stops(t->link, false); /* from here on a step is finished after a signal */
    t->published = strdup(message_text(&m, "published", ""));
    message_clear(&m);
    return t->published ? 0 : err_set(ERR_MEMORY, "teacher: out of memory");
}

const char *teach_published(const Teach *t)
{
    return t->published ? t->published : "";
}

const char *teach_medium(const Teach *t)
{
    return t->in_process ? "in-process" : medium_name(t->medium);
}

pid_t teach_pid(const Teach *t)
{
    return t->pid;
}

int teach_step(Teach *t, const TeachViews *in, const StepRates *r)
{
    Message m;
    const ViewBatch *v = in->views;
    if (t->teacher)
        return teacher_begin(t->teacher, v, r->teacher_temp, t->targets.device);
    int64_t shape[] = { v->globals, v->batch, v->global_size, v->global_size, 3 };
    int rc = note_begin(&m, "step") || message_set_int(&m, "step", r->step) ||
             message_set_int(&m, "epoch", r->epoch) || message_set_real(&m, "temp", r->teacher_temp);
    if (!rc && t->medium == MEDIUM_IPC)
        rc = message_set_int(&m, "views_at", (const char *)v->global - t->views);
    else if (!rc && t->medium == MEDIUM_SHM && in->block)
        rc = message_add_shared(&m, "global", MSG_U8, 5, shape, in->block, in->offset);
    else if (!rc)
        rc = message_add_copy(&m, "global", MSG_U8, 5, shape, in->host);
    t->step = r->step;
    return post(t, &m, rc);
}

const float *teach_targets(Teach *t)
{
    Message m;
    if (t->teacher)
        return t->targets.device;
    if (await(t, "targets", &m, -1))
        return NULL;
    bool good = true;
    if (message_int(&m, "step", -1) != t->step) {
        err_set(ERR_PEER, "teacher: targets of another step");
        good = false;
    } else if (t->medium == MEDIUM_INLINE) {
        good = !take_contents(&m, "targets", &t->targets) && (t->ranks == 1 || !take_contents(&m, "means", &t->means));
    }
    t->d = (Discrepancy){ message_real(&m, "d", NAN), message_real(&m, "d_role", NAN) };
    message_clear(&m);
    return good && !area_up(&t->targets) && (t->ranks == 1 || !area_up(&t->means)) ? t->targets.device : NULL;
}

int teach_discrepancy(Teach *t, Discrepancy *d)
{
    if (t->teacher)
        return teacher_discrepancy(t->teacher, d);
    *d = t->d;
    return 0;
}

float *teach_means(Teach *t, int64_t *n)
{
    *n = (int64_t)(t->means.bytes / sizeof(float));
    return t->means.device;
}

int teach_update(Teach *t, const StepRates *r)
{
    Message m;
    if (t->teacher)
        return (t->ranks > 1 && teacher_center(t->teacher, t->means.device)) ||
                       teacher_update(t->teacher, t->params.device, r->momentum)
                   ? -1
                   : 0;
    if (area_down(&t->params) || (t->ranks > 1 && area_down(&t->means)))
        return -1;
    int rc = note_begin(&m, "update") || message_set_int(&m, "step", r->step) ||
             message_set_real(&m, "momentum", r->momentum) ||
             (t->medium == MEDIUM_INLINE && add_contents(&m, "params", &t->params)) ||
             (t->medium == MEDIUM_INLINE && t->ranks > 1 && add_contents(&m, "means", &t->means));
    return post(t, &m, rc);
}

/* ---------------------------------------------------------------- state */

int teach_state_open(Teach *t, TeachState *s)
{
    size_t k = (size_t)t->k, params = t->params.bytes / sizeof(float), floats = params + (t->measures ? 2 * k : k);
    size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
    *s = (TeachState){ .floats = floats };
    s->block = t->medium > MEDIUM_INLINE ? shm_create(bytes) : NULL;
    s->params = s->block ? s->block->mem : aligned_alloc(64, bytes);
    if (!s->params)
        return err_set(ERR_MEMORY, "no memory for %zu bytes", bytes);
    if (!s->block)
        memset(s->params, 0, bytes);
    s->center = s->params + params;
    if (t->measures)
        s->center_base = s->center + k;
    return 0;
}

/* In place, or inside the message. */
static int add_state(Message *m, const TeachState *s, bool contents)
{
    int64_t shape[] = { (int64_t)s->floats };
    if (s->block)
        return message_add_shared(m, "state", MSG_F32, 1, shape, s->block, 0);
    return contents ? message_add_copy(m, "state", MSG_F32, 1, shape, s->params) : 0;
}

void teach_state_close(TeachState *s)
{
    if (!s->block)
        free(s->params);
    shm_free(&s->block);
    *s = (TeachState){ 0 };
}

int teach_save(Teach *t, TeachState *s)
{
    Message m;
    const MsgTensor *got;
    if (t->teacher)
        return teach_move_state(t->teacher, t->k, s->params, false);
    if (post(t, &m, note_begin(&m, "save") || add_state(&m, s, false)) ||
        await(t, "saved", &m, -1))
        return -1;
    int rc = 0;
    if (!s->block) {
        got = note_floats(&m, "state", s->floats);
        if (got && got->data)
            memcpy(s->params, got->data, got->bytes);
        else
            rc = -1;
    }
    message_clear(&m);
    return rc;
}

int teach_load(Teach *t, const TeachState *s)
{
    Message m;
    if (t->teacher)
        return teach_move_state(t->teacher, t->k, s->params, true);
    if (post(t, &m, note_begin(&m, "load") || add_state(&m, s, true)) ||
        await(t, "loaded", &m, -1))
        return -1;
    message_clear(&m);
    return 0;
}

static void close_life(Teach *t)
{
    if (t->life_out >= 0)
        close(t->life_out);
    t->life_out = -1;
}

static void end_process(Teach *t)
{
    int status;
    for (int ms = 0; ms < END_PATIENCE_MS; ms += 2) {
        pid_t pid = waitpid(t->pid, &status, WNOHANG);
        if (pid == t->pid || (pid < 0 && errno == ECHILD)) {
            t->pid = 0;
            return;
        }
        /* It has not heard the bye: cut its life line, whose end must not overtake that. */
        if (ms == END_PATIENCE_MS / 2)
            close_life(t);
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
    kill(t->pid, SIGKILL);
    while (waitpid(t->pid, &status, 0) < 0 && errno == EINTR)
        ;
    t->pid = 0;
}

/* The trainer's memory is free to go once the teacher maps it no more. What else it still had to say may come before. */
static void await_bye(Teach *t)
{
    double until = log_seconds() + END_PATIENCE_MS / 1000.0;
    bool over = false;
    for (Message m; !over && link_recv(t->link, &m, (int)fmax(0, 1000 * (until - log_seconds()))) > 0; message_clear(&m))
        over = m.type == MSG_FAIL || !strcmp(note_op(&m), "bye");
}

void teach_close(Teach **teach)
{
    Teach *t = *teach;
    if (!t)
        return;
    if (t->link) {
        Message m;
        bool said = !note_begin(&m, "bye") && !link_send(t->link, &m);
        if (said && t->published && t->medium == MEDIUM_IPC)
            await_bye(t);
        link_close(&t->link);
    } else {
        close_life(t);
    }
    if (t->pid)
        end_process(t);
    close_life(t);
    if (t->life_in >= 0)
        close(t->life_in);
    teacher_free(t->teacher);
    area_close(&t->params);
    area_close(&t->targets);
    area_close(&t->means);
    free(t->published);
    free(t);
    *teach = NULL;
}
