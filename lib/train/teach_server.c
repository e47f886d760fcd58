/* The teacher's end of the link. Every message is foreign input: sizes are held against the configuration. */
#include "ssl/student.h"
#include "tensor/backend.h"
#include "train/teach.h"
#include "train/teach_notes.h"
#include "util/err.h"
#include "util/log.h"
#include "util/stop.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

typedef struct {
    const TeachServer *io;
    TrainConfig config;
    Teacher *teacher;
    size_t floats; /* of the parameters */
    bool shares, measures;
    ShmBlock *params, *targets, *pixels; /* the trainer's, where shared */
    float *own_params, *own_targets;     /* copies, where not */
    uint8_t *own_pixels;
    float *centers; /* [2][K]: as they stood before the step, for those who watch */
} Session;

static int reply(Session *s, Message *m, int built)
{
    if (!built)
        return link_send(s->io->trainer, m);
    message_clear(m);
    return -1;
}

static ShmBlock *attach(const MsgTensor *t, bool writable)
{
    return shm_attach(t->shared.pid, t->shared.fd, t->shared.size, writable);
}

static void forget(Session *s)
{
    teacher_free(s->teacher);
    s->teacher = NULL;
    shm_free(&s->params);
    shm_free(&s->targets);
    shm_free(&s->pixels);
    free(s->own_params);
    free(s->own_targets);
    free(s->own_pixels);
    free(s->centers);
    s->own_params = s->own_targets = s->centers = NULL;
    s->own_pixels = NULL;
}

static float *floats_alloc(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
    if (!p)
        err_set(ERR_MEMORY, "no memory for %zu floats", n);
    return p;
}

/* ---------------------------------------------------------------- notes */

static int on_start(Session *s, const Message *in)
{
    Message out;
    const char *config = message_text(in, "config", NULL);
    int64_t protocol = message_int(in, "protocol", 0), threads = message_int(in, "threads", 0);
    forget(s);
    if (protocol != TEACH_PROTOCOL)
        return err_set(ERR_DATA, "the trainer speaks protocol %" PRId64 ", this teacher %d", protocol,
                       TEACH_PROTOCOL);
    if (!config || config_from_json(&s->config, config))
        return config ? -1 : err_set(ERR_DATA, "start: no configuration");
    if (s->io->threads > 0)
        threads = s->io->threads;
    if (threads > 0)
        omp_set_num_threads(threads > MAX_THREADS ? MAX_THREADS : (int)threads);
    size_t bytes = student_bytes(&s->config), rows = 2 * (size_t)s->config.batch_size,
           k = (size_t)s->config.out_dim;
    if (!bytes)
        return -1;
    s->floats = bytes / sizeof(float);
    s->measures = teach_measures(&s->config);
    const MsgTensor *params = note_floats(in, "params", s->floats);
    if (!params)
        return -1;
    s->shares = params->medium == MSG_SHARED;
    const float *initial;
    if (s->shares) {
        const MsgTensor *q = note_floats(in, "targets", rows * k);
        if (!q || q->medium != MSG_SHARED || q->shared.offset || params->shared.offset)
            return err_set(ERR_DATA, "start: weights and targets are not shared alike");
        if (!(s->params = attach(params, false)) || !(s->targets = attach(q, true))) {
            int rc = note_begin(&out, "started") || message_set_int(&out, "shared", 0) ||
                     message_set_text(&out, "why", err_text());
            forget(s);
            return reply(s, &out, rc);
        }
        initial = s->params->mem;
    } else {
        if (!(s->own_params = floats_alloc(s->floats)) || !(s->own_targets = floats_alloc(rows * k)))
            return -1;
        memcpy(s->own_params, params->data, bytes);
        initial = s->own_params;
    }
    if (!(s->teacher = teacher_new(&s->config, initial)))
        return -1;
    int rc = note_begin(&out, "started") || message_set_int(&out, "shared", s->shares) ||
             message_set_text(&out, "published", s->io->published ? link_ticket(s->io->published) : "");
    return reply(s, &out, rc);
}

/* The centres of the teacher's live state; base NULL where none is kept. */
static int find_centers(Session *s, float **head, float **base)
{
    StateList l = { 0 };
    *head = *base = NULL;
    int rc = teacher_state(s->teacher, &l);
    for (size_t i = 0; !rc && i < l.count; i++) {
        if (!strcmp(l.items[i].name, "center"))
            *head = l.items[i].data;
        else if (!strcmp(l.items[i].name, "center_base"))
            *base = l.items[i].data;
    }
    state_free(&l);
    return rc ? rc : *head ? 0 : err_set(ERR_ABSENT, "the teacher keeps no centre");
}

/* Figures at every step, logits and centres now and then; all for those who watch, and they are not waited
 * for. */
static void publish(Session *s, int64_t step, int64_t epoch, double temp, const Discrepancy *d, bool whole)
{
    Message m;
    int64_t rows = 2 * s->config.batch_size, k = s->config.out_dim, logits[] = { rows, k }, center[] = { k };
    int rc = note_begin(&m, "step") || message_set_int(&m, "step", step) ||
             message_set_int(&m, "epoch", epoch) || message_set_real(&m, "temp", temp) ||
             message_set_real(&m, "student_temp", s->config.student_temp);
    if (!rc && s->measures)
        rc = message_set_real(&m, "d", d->d) || message_set_real(&m, "d_role", d->d_role);
    const float *head = teacher_logits(s->teacher, true), *base = teacher_logits(s->teacher, false);
    if (!rc && whole && s->measures && head && base)
        rc = message_add_copy(&m, "head", MSG_F32, 2, logits, head) ||
             message_add_copy(&m, "base", MSG_F32, 2, logits, base) ||
             message_add_copy(&m, "center_head", MSG_F32, 1, center, s->centers) ||
             message_add_copy(&m, "center_base", MSG_F32, 1, center, s->centers + k);
    if (rc)
        message_clear(&m);
    else
        link_send(s->io->published, &m);
}

static int take_pixels(Session *s, const Message *in, ViewBatch *v)
{
    const MsgTensor *g = message_tensor(in, "global");
    const TrainConfig *c = &s->config;
    if (!g || g->dtype != MSG_U8 || g->ndim != 5 || g->shape[0] != 2 || g->shape[1] != c->batch_size ||
        g->shape[2] != c->global_size || g->shape[3] != c->global_size || g->shape[4] != 3)
        return err_set(ERR_DATA, "step: tensor global is not u8[2,%" PRId64 ",%" PRId64 ",%" PRId64 ",3]",
                       c->batch_size, c->global_size, c->global_size);
    *v = (ViewBatch){ .batch = c->batch_size, .globals = 2, .global_size = c->global_size };
    if (g->medium == MSG_SHARED) {
        if (s->pixels && (s->pixels->pid != g->shared.pid || s->pixels->size != g->shared.size))
            shm_free(&s->pixels);
        if (!s->pixels && !(s->pixels = attach(g, false)))
            return -1;
        v->global = (const uint8_t *)s->pixels->mem + g->shared.offset;
        return 0;
    }
    if (!s->own_pixels && !(s->own_pixels = malloc(g->bytes)))
        return err_set(ERR_MEMORY, "no memory for %zu bytes of pixels", g->bytes);
    memcpy(s->own_pixels, g->data, g->bytes);
    v->global = s->own_pixels;
    return 0;
}

static int on_step(Session *s, const Message *in)
{
    Message out;
    ViewBatch v;
    Discrepancy d;
    int64_t step = message_int(in, "step", -1), epoch = message_int(in, "epoch", -1);
    double temp = message_real(in, "temp", 0);
    size_t k = (size_t)s->config.out_dim;
    int64_t shape[] = { 2 * s->config.batch_size * s->config.out_dim };
    if (step < 0 || epoch < 0 || !(temp > 0))
        return err_set(ERR_DATA, "step: no proper step, epoch and temperature");
    if (take_pixels(s, in, &v))
        return -1;
    bool watched = s->io->published && link_listeners(s->io->published) > 0;
    bool whole = watched && s->measures && s->io->every > 0 && step % s->io->every == 0;
    if (whole) {
        float *head, *base;
        if ((!s->centers && !(s->centers = floats_alloc(2 * k))) || find_centers(s, &head, &base))
            return -1;
        memcpy(s->centers, head, k * sizeof(float));
        memcpy(s->centers + k, base ? base : head, k * sizeof(float));
    }
    float *q = s->shares ? s->targets->mem : s->own_targets;
    if (teacher_targets(s->teacher, &v, temp, q, &d))
        return -1;
    int rc = note_begin(&out, "targets") || message_set_int(&out, "step", step);
    if (!rc && s->measures && isfinite(d.d) && isfinite(d.d_role))
        rc = message_set_real(&out, "d", d.d) || message_set_real(&out, "d_role", d.d_role);
    if (!rc && !s->shares)
        rc = message_add_copy(&out, "targets", MSG_F32, 1, shape, q);
    if (reply(s, &out, rc))
        return -1;
    if (watched)
        publish(s, step, epoch, temp, &d, whole);
    return 0;
}

static int on_update(Session *s, const Message *in)
{
    double m = message_real(in, "momentum", -1);
    if (!(m >= 0 && m <= 1))
        return err_set(ERR_DATA, "update: no proper momentum");
    if (!s->shares) {
        const MsgTensor *p = note_floats(in, "params", s->floats);
        if (!p || !p->data)
            return p ? err_set(ERR_DATA, "update: no weights") : -1;
        memcpy(s->own_params, p->data, p->bytes);
    }
    return teacher_update(s->teacher, s->shares ? s->params->mem : s->own_params, m);
}

/* Copy the state to, or with load from, one array: parameters, centre, base centre. */
static int move_state(Session *s, float *state, bool load)
{
    size_t k = (size_t)s->config.out_dim * sizeof(float);
    Params *params = network_params(teacher_network(s->teacher));
    float *part[3] = { params_flat(params) };
    size_t bytes[3] = { params_bytes(params), k, k };
    if (find_centers(s, &part[1], &part[2]))
        return -1;
    for (int i = 0; i < 3; i++) {
        if (!part[i])
            continue;
        if (load)
            memcpy(part[i], state, bytes[i]);
        else
            memcpy(state, part[i], bytes[i]);
        state += bytes[i] / sizeof(float);
    }
    return 0;
}

static int on_state(Session *s, const Message *in, bool load)
{
    Message out;
    size_t k = (size_t)s->config.out_dim, floats = s->floats + (s->measures ? 2 * k : k);
    int64_t shape[] = { (int64_t)floats };
    const MsgTensor *t = message_tensor(in, "state");
    if ((load || t) && !(t = note_floats(in, "state", floats)))
        return -1;
    ShmBlock *block = NULL;
    float *own = NULL, *state;
    if (t && t->medium == MSG_SHARED) {
        if (t->shared.offset)
            return err_set(ERR_DATA, "state: not at the beginning of its block");
        if (!(block = attach(t, true)))
            return -1;
        state = block->mem;
    } else {
        if (!(state = own = floats_alloc(floats)))
            return -1;
        if (load)
            memcpy(own, t->data, t->bytes);
    }
    int rc = move_state(s, state, load);
    if (!rc) {
        rc = note_begin(&out, load ? "loaded" : "saved") ||
             (own && !load && message_add_copy(&out, "state", MSG_F32, 1, shape, own));
        rc = reply(s, &out, rc);
    }
    shm_free(&block);
    free(own);
    return rc;
}

static int handle(Session *s, const Message *m)
{
    const char *op = note_op(m);
    if (!strcmp(op, "start"))
        return on_start(s, m);
    if (!s->teacher)
        return err_set(ERR_DATA, "\"%s\" before start", op);
    if (!strcmp(op, "step"))
        return on_step(s, m);
    if (!strcmp(op, "update"))
        return on_update(s, m);
    if (!strcmp(op, "save") || !strcmp(op, "load"))
        return on_state(s, m, !strcmp(op, "load"));
    return err_set(ERR_DATA, "no such message: \"%s\"", op);
}

/* Tell the trainer why, keeping the error. */
static void refuse(Session *s)
{
    Message fail;
    message_init(&fail, MSG_FAIL);
    if (message_set_reason(&fail, err_text()))
        message_clear(&fail);
    else
        link_send(s->io->trainer, &fail);
}

int teach_serve(const TeachServer *io)
{
    Session s = { .io = io };
    Message m;
    int rc;
    while ((rc = link_recv(io->trainer, &m, -1)) == 1) {
        bool bye = !strcmp(note_op(&m), "bye");
        if (!bye && (rc = handle(&s, &m)) < 0)
            refuse(&s);
        message_clear(&m);
        if (bye || rc < 0) {
            rc = bye ? 0 : -1;
            break;
        }
        /* The trainer finishes its step and saves after a signal that both of us got: stay until it leaves.
         */
        if (s.teacher)
            link_stops(io->trainer, false);
    }
    if (io->published) {
        Message end;
        if (!note_begin(&end, "end") && !message_set_int(&end, "complete", rc == 0))
            link_send(io->published, &end);
    }
    forget(&s);
    return rc;
}
