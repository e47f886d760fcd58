/* The teacher's end of the link. Every message is foreign input: sizes are held against the configuration. */
#include "ssl/student.h"
#include "tensor/backend.h"
#include "train/device.h"
#include "train/teach.h"
#include "train/teach_notes.h"
#include "train/teach_state.h"
#include "util/err.h"
#include "util/log.h"
#include "util/stop.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

typedef struct {
    const TeachServer *io;
    TrainConfig config;
    Backend *be;
    Teacher *teacher;
    size_t floats; /* of the parameters */
    bool measures;
    bool deferred; /* the centres wait for the means of all ranks */
    Medium medium;
    Area params, targets, means, views; /* the trainer's, or copies of theirs; views over ipc only */
    ShmBlock *pixels;            /* the trainer's batches, where shared on the host */
    bool pixels_pinned;
    uint8_t *own_pixels; /* of one batch, on the device */
    size_t own_bytes;
    float *centers; /* [2][K], host: as they stood before the step, for those who watch */
    float *logits;  /* [2B][K], host */
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

static void forget_pixels(Session *s)
{
    if (s->pixels && s->pixels_pinned)
        s->be->unpin(s->be, s->pixels->mem);
    shm_free(&s->pixels);
    s->pixels_pinned = false;
}

static void forget(Session *s)
{
    teacher_free(s->teacher);
    s->teacher = NULL;
    forget_pixels(s);
    area_close(&s->params);
    area_close(&s->targets);
    area_close(&s->means);
    area_close(&s->views);
    if (s->own_pixels)
        s->be->release(s->be, s->own_pixels, s->own_bytes);
    s->own_pixels = NULL;
    free(s->centers);
    free(s->logits);
    s->centers = s->logits = NULL;
}

static float *floats_alloc(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
    if (!p)
        err_set(ERR_MEMORY, "no memory for %zu floats", n);
    return p;
}

/* ---------------------------------------------------------------- notes */

/* What the trainer wrote, to where the teacher reads it. */
static int take(Session *s, const Message *in, const char *name, Area *a)
{
    if (s->medium == MEDIUM_INLINE) {
        const MsgTensor *p = note_floats(in, name, a->bytes / sizeof(float));
        if (!p || !p->data)
            return p ? err_set(ERR_DATA, "%s: no %s", note_op(in), name) : -1;
        memcpy(a->host, p->data, p->bytes);
    }
    return area_up(a);
}

/* Map what the trainer announced; 1, with an error, where this medium is refused. */
static int find_areas(Session *s, const Message *in, size_t params, size_t targets)
{
    if (medium_find(message_text(in, "medium", ""), &s->medium))
        return -1;
    int64_t views = message_int(in, "views_bytes", 0);
    if (s->medium == MEDIUM_IPC && views <= 0)
        return err_set(ERR_DATA, "start: no views_bytes");
    if (area_open(&s->params, s->be, params, s->medium, in, "params", false) ||
        area_open(&s->targets, s->be, targets, s->medium, in, "targets", true) ||
        (s->deferred && area_open(&s->means, s->be, 2 * (size_t)s->config.out_dim * sizeof(float), s->medium, in, "means",
                                  true)) ||
        (s->medium == MEDIUM_IPC && area_open(&s->views, s->be, (size_t)views, s->medium, in, "views", false)))
        return s->medium == MEDIUM_INLINE || err_code() == ERR_DATA ? -1 : 1;
    return take(s, in, "params", &s->params);
}

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
    s->config.device = s->io->device;
    s->config.graph = s->io->graph;
    if (!(s->be = backend_open(s->io->device)))
        return -1;
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
    s->deferred = message_int(in, "ranks", 1) > 1;
    int rc = find_areas(s, in, bytes, rows * k * sizeof(float));
    if (rc < 0)
        return -1;
    if (rc) {
        rc = note_begin(&out, "started") || message_set_text(&out, "medium", "") ||
             message_set_text(&out, "why", err_text());
        forget(s);
        return reply(s, &out, rc);
    }
    if (!(s->teacher = teacher_new(&s->config, s->params.device)))
        return -1;
    if (s->deferred)
        teacher_defer(s->teacher, s->means.device);
    rc = note_begin(&out, "started") || message_set_text(&out, "medium", medium_name(s->medium)) ||
         message_set_text(&out, "published", s->io->published ? link_ticket(s->io->published) : "");
    return reply(s, &out, rc);
}

static int add_logits(Session *s, Message *m, const char *name, bool head)
{
    int64_t shape[] = { 2 * s->config.batch_size, s->config.out_dim };
    size_t n = (size_t)(shape[0] * shape[1]);
    const float *z = teacher_logits(s->teacher, head);
    if (!z || (!s->logits && !(s->logits = floats_alloc(n))) || s->be->read(s->be, s->logits, z, n * sizeof *z))
        return -1;
    return message_add_copy(m, name, MSG_F32, 2, shape, s->logits);
}

/* Figures at every step, logits and centres now and then; all for those who watch, and they are not waited
 * for. */
static void publish(Session *s, int64_t step, int64_t epoch, double temp, const Discrepancy *d, bool whole)
{
    Message m;
    int64_t k = s->config.out_dim, center[] = { k };
    int rc = note_begin(&m, "step") || message_set_int(&m, "step", step) ||
             message_set_int(&m, "epoch", epoch) || message_set_real(&m, "temp", temp) ||
             message_set_real(&m, "student_temp", s->config.student_temp);
    if (!rc && s->measures)
        rc = message_set_real(&m, "d", d->d) || message_set_real(&m, "d_role", d->d_role);
    if (!rc && whole)
        rc = add_logits(s, &m, "head", true) || add_logits(s, &m, "base", false) ||
             message_add_copy(&m, "center_head", MSG_F32, 1, center, s->centers) ||
             message_add_copy(&m, "center_base", MSG_F32, 1, center, s->centers + k);
    if (rc)
        message_clear(&m);
    else
        link_send(s->io->published, &m);
}

/* Pixels on the host, to the device. */
static int put_pixels(Session *s, const void *host, size_t bytes, ViewBatch *v)
{
    if (!s->own_pixels && !(s->own_pixels = s->be->alloc(s->be, s->own_bytes = bytes)))
        return -1;
    v->global = s->own_pixels;
    return s->be->write(s->be, s->own_pixels, host, bytes);
}

static int take_pixels(Session *s, const Message *in, ViewBatch *v)
{
    const MsgTensor *g = message_tensor(in, "global");
    const TrainConfig *c = &s->config;
    *v = (ViewBatch){ .batch = c->batch_size, .globals = 2, .global_size = c->global_size };
    if (s->medium == MEDIUM_IPC) {
        int64_t at = message_int(in, "views_at", -1), bytes = 2 * c->batch_size * c->global_size * c->global_size * 3;
        if (at < 0 || at > (int64_t)s->views.bytes - bytes)
            return err_set(ERR_DATA, "step: views_at lies outside of the views' memory");
        v->global = (const uint8_t *)s->views.device + at;
        return 0;
    }
    if (!g || g->dtype != MSG_U8 || g->ndim != 5 || g->shape[0] != 2 || g->shape[1] != c->batch_size ||
        g->shape[2] != c->global_size || g->shape[3] != c->global_size || g->shape[4] != 3)
        return err_set(ERR_DATA, "step: tensor global is not u8[2,%" PRId64 ",%" PRId64 ",%" PRId64 ",3]",
                       c->batch_size, c->global_size, c->global_size);
    if (g->medium != MSG_SHARED)
        return put_pixels(s, g->data, g->bytes, v);
    if (s->pixels && (s->pixels->pid != g->shared.pid || s->pixels->size != g->shared.size))
        forget_pixels(s);
    if (!s->pixels) {
        if (!(s->pixels = attach(g, false)))
            return -1;
        s->be->pin(s->be, s->pixels->mem, s->pixels->size);
        s->pixels_pinned = true;
    }
    const uint8_t *host = (const uint8_t *)s->pixels->mem + g->shared.offset;
    if (!s->be->mapped)
        return put_pixels(s, host, g->bytes, v);
    v->global = host;
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
        if ((!s->centers && !(s->centers = floats_alloc(2 * k))) || teach_centers(s->teacher, &head, &base))
            return -1;
        if (s->be->read(s->be, s->centers, head, k * sizeof(float)) ||
            s->be->read(s->be, s->centers + k, base ? base : head, k * sizeof(float)))
            return -1;
    }
    if (teacher_targets(s->teacher, &v, temp, s->targets.device, &d) || area_down(&s->targets) ||
        (s->deferred && area_down(&s->means)))
        return -1;
    int rc = note_begin(&out, "targets") || message_set_int(&out, "step", step);
    if (!rc && s->measures && isfinite(d.d) && isfinite(d.d_role))
        rc = message_set_real(&out, "d", d.d) || message_set_real(&out, "d_role", d.d_role);
    if (!rc && s->medium == MEDIUM_INLINE)
        rc = message_add_copy(&out, "targets", MSG_F32, 1, shape, s->targets.host) ||
             (s->deferred && message_add_copy(&out, "means", MSG_F32, 1, (int64_t[]){ 2 * (int64_t)k }, s->means.host));
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
    return take(s, in, "params", &s->params) ||
                   (s->deferred && (take(s, in, "means", &s->means) || teacher_center(s->teacher, s->means.device))) ||
                   teacher_update(s->teacher, s->params.device, m)
               ? -1
               : 0;
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
    int rc = teach_move_state(s->teacher, s->config.out_dim, state, load);
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
    char why[640];
    snprintf(why, sizeof why, "%s%s", err_text(), memory_remedy());
    if (message_set_reason(&fail, why))
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
        if (bye && s.medium == MEDIUM_IPC) { /* the trainer frees its memory when nobody maps it any more */
            Message done;
            forget(&s);
            reply(&s, &done, note_begin(&done, "bye"));
        }
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
