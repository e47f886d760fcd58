/* The trainer's end of the link to the teacher. */
#include "ssl/student.h"
#include "train/teach.h"
#include "train/teach_notes.h"
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

/* Floats that the teacher may map, or of this process alone. */
typedef struct {
    ShmBlock *block;
    float *mem;
    size_t floats;
} Floats;

struct Teach {
    bool wants_sharing, shares;
    pid_t pid;
    int life_out, life_in; /* the child's standard input and output */
    char line[TICKET_MAX_LINE];
    Link *link;
    Floats params, targets;
    int64_t rows, k;
    bool measures;
    int64_t step; /* asked for */
    char *published;
};

static int floats_new(Floats *f, size_t floats, bool share)
{
    size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
    f->floats = floats;
    f->block = share ? shm_create(bytes) : NULL;
    f->mem = f->block ? f->block->mem : aligned_alloc(64, bytes);
    if (!f->mem)
        return err_set(ERR_MEMORY, "no memory for %zu bytes", bytes);
    if (!f->block)
        memset(f->mem, 0, bytes);
    return 0;
}

static void floats_free(Floats *f)
{
    if (!f->block)
        free(f->mem);
    shm_free(&f->block);
    *f = (Floats){ 0 };
}

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

static int start_process(Teach *t, const char *program)
{
    char path[4096], parent[32];
    int in[2], out[2];
    if (program)
        snprintf(path, sizeof path, "%s", program);
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
    char option[] = "--child-of";
    char *argv[] = { path, option, parent, NULL };
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
    t->wants_sharing = !c->inline_only;
    t->step = -1;
    if (c->ticket)
        snprintf(t->line, sizeof t->line, "%s", c->ticket);
    else if (start_process(t, c->program))
        teach_close(&t);
    return t;
}

float *teach_memory(Teach *t, size_t bytes)
{
    return floats_new(&t->params, bytes / sizeof(float), t->wants_sharing) ? NULL : t->params.mem;
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

static int add_floats(Teach *t, Message *m, const char *name, const Floats *f, bool contents)
{
    int64_t shape[] = { (int64_t)f->floats };
    if (t->shares && f->block)
        return message_add_shared(m, name, MSG_F32, 1, shape, f->block, 0);
    return contents ? message_add_copy(m, name, MSG_F32, 1, shape, f->mem) : 0;
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

static int send_start(Teach *t, const char *config, int threads)
{
    Message m;
    int rc = note_begin(&m, "start") || message_set_int(&m, "protocol", TEACH_PROTOCOL) ||
             message_set_text(&m, "config", config) || message_set_int(&m, "threads", threads) ||
             add_floats(t, &m, "params", &t->params, true) ||
             add_floats(t, &m, "targets", &t->targets, false);
    return post(t, &m, rc);
}

bool teach_measures(const TrainConfig *c)
{
    return c->discrepancy && strcmp(c->aux, "none") != 0;
}

int teach_start(Teach *t, const TrainConfig *c, int threads)
{
    Message m;
    t->rows = 2 * c->batch_size;
    t->k = c->out_dim;
    t->measures = teach_measures(c);
    if (floats_new(&t->targets, (size_t)t->rows * (size_t)t->k, t->wants_sharing) || connect_teacher(t))
        return -1;
    char *config = config_to_json(c);
    if (!config)
        return -1;
    t->shares = t->params.block && t->targets.block;
    int rc = send_start(t, config, threads) || await(t, "started", &m, ANSWER_PATIENCE_MS);
    if (!rc && t->shares && !message_int(&m, "shared", 0)) {
        log_info("the teacher cannot map this process's memory (%s): weights and batches are sent",
                 message_text(&m, "why", "no reason given"));
        message_clear(&m);
        t->shares = false;
        rc = send_start(t, config, threads) || await(t, "started", &m, ANSWER_PATIENCE_MS);
    }
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

bool teach_shares(const Teach *t)
{
    return t->shares;
}

pid_t teach_pid(const Teach *t)
{
    return t->pid;
}

int teach_step(Teach *t, const ViewBatch *v, const ShmBlock *block, size_t offset, const StepRates *r)
{
    Message m;
    int64_t shape[] = { v->globals, v->batch, v->global_size, v->global_size, 3 };
    int rc = note_begin(&m, "step") || message_set_int(&m, "step", r->step) ||
             message_set_int(&m, "epoch", r->epoch) || message_set_real(&m, "temp", r->teacher_temp);
    if (!rc && t->shares && block)
        rc = message_add_shared(&m, "global", MSG_U8, 5, shape, block, offset);
    else if (!rc)
        rc = message_add_copy(&m, "global", MSG_U8, 5, shape, v->global);
    t->step = r->step;
    return post(t, &m, rc);
}

const float *teach_targets(Teach *t, Discrepancy *d)
{
    Message m;
    const MsgTensor *q;
    if (await(t, "targets", &m, -1))
        return NULL;
    bool good = true;
    if (message_int(&m, "step", -1) != t->step) {
        err_set(ERR_PEER, "teacher: targets of another step");
        good = false;
    } else if (!t->shares && (good = (q = note_floats(&m, "targets", t->targets.floats)) && q->data)) {
        memcpy(t->targets.mem, q->data, q->bytes);
    }
    *d = (Discrepancy){ message_real(&m, "d", NAN), message_real(&m, "d_role", NAN) };
    message_clear(&m);
    return good ? t->targets.mem : NULL;
}

int teach_update(Teach *t, const StepRates *r)
{
    Message m;
    int rc = note_begin(&m, "update") || message_set_int(&m, "step", r->step) ||
             message_set_real(&m, "momentum", r->momentum);
    if (!rc && !t->shares)
        rc = add_floats(t, &m, "params", &t->params, true);
    return post(t, &m, rc);
}

int teach_state_open(Teach *t, TeachState *s)
{
    Floats f;
    size_t k = (size_t)t->k;
    *s = (TeachState){ 0 };
    if (floats_new(&f, t->params.floats + (t->measures ? 2 * k : k), t->shares))
        return -1;
    *s = (TeachState){
        .params = f.mem, .center = f.mem + t->params.floats, .floats = f.floats, .block = f.block
    };
    if (t->measures)
        s->center_base = s->center + k;
    return 0;
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
    Floats f = { s->block, s->params, s->floats };
    if (post(t, &m, note_begin(&m, "save") || add_floats(t, &m, "state", &f, false)) ||
        await(t, "saved", &m, -1))
        return -1;
    int rc = 0;
    if (!(t->shares && s->block)) {
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
    Floats f = { s->block, s->params, s->floats };
    if (post(t, &m, note_begin(&m, "load") || add_floats(t, &m, "state", &f, true)) ||
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

void teach_close(Teach **teach)
{
    Teach *t = *teach;
    if (!t)
        return;
    if (t->link) {
        Message m;
        if (!note_begin(&m, "bye"))
            link_send(t->link, &m);
        link_close(&t->link);
    } else {
        close_life(t);
    }
    if (t->pid)
        end_process(t);
    close_life(t);
    if (t->life_in >= 0)
        close(t->life_in);
    floats_free(&t->params);
    floats_free(&t->targets);
    free(t->published);
    free(t);
    *teach = NULL;
}
