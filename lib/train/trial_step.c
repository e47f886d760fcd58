/* Steps of student and teacher, one after the other in one process, as two processes take them in turns. */
#include "train/trial.h"

#include "models/backbone.h"
#include "ssl/student.h"
#include "ssl/teacher.h"
#include "tensor/backend.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A first step has so many flops, about; and what a processor does a second, at least and at most. */
static const double SMALL = 2e10, SLOW = 3e10, QUICK = 3e11;
enum { MOST_STEPS = 200, LEAST_STEPS = 3, PRODUCT = 1024, PRODUCTS = 4 };
enum { TEACHER, STUDENT, UPDATE, WHOLE, PARTS };

typedef struct {
    TrainConfig c;
    Workload w;
    Backend *be;
    Student *student;
    Teacher *teacher;
    uint8_t *views;
    size_t view_bytes, q_bytes;
    float *q;
    int64_t step;
} Rig;

typedef struct {
    double median[PARTS];
    double processor; /* processor seconds of all steps over the seconds they took */
} Timing;

static double process_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void rig_close(Rig *r)
{
    if (r->views)
        r->be->release(r->be, r->views, r->view_bytes);
    if (r->q)
        r->be->release(r->be, r->q, r->q_bytes);
    teacher_free(r->teacher);
    student_free(r->student);
}

static int noise(Rig *r)
{
    uint8_t *host = malloc(r->view_bytes);
    if (!host)
        return err_set(ERR_MEMORY, "out of memory: %zu bytes wanted for views", r->view_bytes);
    Rng g = rng_make(1, RNG_TEST, 0, 0);
    for (size_t i = 0; i < r->view_bytes; i++)
        host[i] = (uint8_t)(rng_u32(&g) >> 24);
    int rc = r->be->write(r->be, r->views, host, r->view_bytes) || r->be->sync(r->be) ? -1 : 0;
    free(host);
    return rc;
}

/* Students of several ranks record nothing. */
static int rig_open(Rig *r, int64_t ranks)
{
    const TrainConfig *c = &r->c;
    TrainConfig of_student = *c;
    of_student.graph = c->graph && ranks == 1;
    r->be = backend_open(c->device);
    r->view_bytes = (size_t)(r->w.view_bytes * r->w.batch);
    r->q_bytes = (size_t)(r->w.target_bytes * r->w.batch);
    if (!r->be || !(r->student = student_new(&of_student, NULL)) ||
        !(r->teacher = teacher_new(c, student_flat(r->student))) ||
        !(r->views = r->be->alloc(r->be, r->view_bytes)) || !(r->q = r->be->alloc(r->be, r->q_bytes)) ||
        noise(r))
        return -1;
    return 0;
}

/* The step that hssl-train takes, on b of the images. */
static int take_step(Rig *r, int64_t b, double part[PARTS])
{
    StepRates rates;
    StudentReport report;
    const TrainConfig *c = &r->c;
    Discrepancy d;
    double mark[4];
    ViewBatch v = {.batch = b,
                   .globals = 2,
                   .locals = c->local_crops,
                   .global_size = c->global_size,
                   .local_size = c->local_size,
                   .global = r->views,
                   .local = c->local_crops ? r->views + 2 * b * c->global_size * c->global_size * 3 : NULL};
    config_rates(c, 1000, 1 + r->step++, &rates);
    mark[0] = log_seconds();
    if (teacher_targets(r->teacher, &v, rates.teacher_temp, r->q, &d) || r->be->sync(r->be))
        return -1;
    mark[1] = log_seconds();
    if (student_forward(r->student, &v, &rates) || student_backward(r->student, r->q) || r->be->sync(r->be))
        return -1;
    mark[2] = log_seconds();
    if (student_update(r->student, &rates, &report) ||
        teacher_update(r->teacher, student_flat(r->student), rates.momentum) || r->be->sync(r->be))
        return -1;
    mark[3] = log_seconds();
    for (int i = 0; i < 3; i++)
        part[i] = mark[i + 1] - mark[i];
    part[WHOLE] = mark[3] - mark[0];
    return 0;
}

/* Steps of b images for so many seconds, the first one apart, and the one that a device records. */
static int take_steps(Rig *r, int64_t b, double seconds, const Trial *t, Timing *out)
{
    double time[PARTS][MOST_STEPS], part[PARTS], until = log_seconds() + seconds, wall = 0, own = 0;
    int n = 0;
    *out = (Timing){0};
    if (take_step(r, b, part) || (r->be->record && take_step(r, b, part)))
        return -1;
    own = process_seconds();
    wall = log_seconds();
    while (n < MOST_STEPS &&
           (n < 1 || (n < LEAST_STEPS && log_seconds() < until + seconds) || log_seconds() < until)) {
        if (take_step(r, b, part))
            return -1;
        for (int i = 0; i < PARTS; i++)
            time[i][n] = part[i];
        n++;
        if (t->tick)
            t->tick(t->arg, "training steps");
    }
    out->processor = (process_seconds() - own) / (log_seconds() - wall);
    for (int i = 0; i < PARTS; i++) {
        qsort(time[i], (size_t)n, sizeof time[i][0], by_size);
        out->median[i] = n % 2 ? time[i][n / 2] : (time[i][n / 2 - 1] + time[i][n / 2]) / 2;
    }
    return 0;
}

/* Flops a second of one large product, the best of several. */
static double peak_of(Backend *be)
{
    int64_t n = be->mapped ? PRODUCT : 8 * PRODUCT;
    size_t bytes = (size_t)(n * n) * dtype_size(be->real);
    void *x = be->alloc(be, bytes), *y = be->alloc(be, bytes);
    double best = 0;
    MatmulArgs a = {.type = be->real,
                    .type_c = be->real,
                    .m = n,
                    .n = n,
                    .k = n,
                    .a = x,
                    .lda = n,
                    .b = x,
                    .ldb = n,
                    .tb = true,
                    .c = y,
                    .ldc = n};
    bool good = x && y && !be->zero(be, x, bytes) && !be->sync(be);
    for (int i = 0; good && i < PRODUCTS; i++) {
        double began = log_seconds();
        good = !be->matmul(be, &a) && !be->sync(be);
        best = fmax(best, 2.0 * (double)(n * n * n) / (log_seconds() - began));
    }
    if (x)
        be->release(be, x, bytes);
    if (y)
        be->release(be, y, bytes);
    return good ? best : 0;
}

static double flops_of(const Workload *w)
{
    return w->forward + w->backward + w->teacher;
}

/* The largest batch of at most so many flops and bytes, or one image and the deepest model of so many flops
 * for it. */
static int choose(Rig *r, int64_t ranks, double flops, double one, double bytes)
{
    TrainConfig *c = &r->c;
    BackboneDims dims = backbone_dims(c->arch, (int)c->dim, (int)c->depth, (int)c->heads);
    if (c->batch_size % ranks)
        return err_set(ERR_USAGE, "--batch-size %lld: not a multiple of %lld ranks", (long long)c->batch_size,
                       (long long)ranks);
    c->batch_size /= ranks;
    for (;;) {
        if (workload_count(c, 1, &r->w))
            return -1;
        double over = flops_of(&r->w) * r->w.batch / (c->batch_size > 1 ? flops : one);
        if (over <= 1 && r->w.memory.all <= bytes)
            return 0;
        if (c->batch_size > 1) {
            c->batch_size = over > 2 ? (int64_t)fmax(1, (double)c->batch_size / over) : c->batch_size / 2;
        } else if (dims.depth > 2 && (over > 1 || r->w.memory.all > bytes)) {
            c->depth = dims.depth = (dims.depth + 1) / 2;
        } else if (r->w.memory.all > bytes) {
            return err_set(ERR_MEMORY,
                           "%s: a step of one image takes %.0f MB: --machine FILE plans without a trial",
                           c->arch, r->w.memory.all / 1e6);
        } else {
            return 0;
        }
    }
}

static void describe(const Rig *r, int threads, Machine *m)
{
    char head[32] = "", depth[32] = "", how[32] = "";
    if (strcmp(r->c.aux, "none"))
        snprintf(head, sizeof head, " + %s", r->c.aux);
    if (r->c.depth)
        snprintf(depth, sizeof depth, " of depth %lld", (long long)r->c.depth);
    if (!m->gpu)
        snprintf(how, sizeof how, ", %d threads", threads);
    snprintf(m->of, sizeof m->of, "%s/%lld%s%s, batch %.0f%s", r->c.arch, (long long)r->c.patch_size, depth,
             head, r->w.batch, how);
}

int trial_step(const TrainConfig *c, int64_t ranks, int threads, const Trial *t, Machine *m)
{
    Rig r = {.c = *c};
    Timing small, whole;
    m->gpu = strcmp(c->device, "cpu") != 0;
    size_t left, all;
    Backend *be = backend_open(c->device);
    if (be && be->memory && !be->memory(be, &left, &all))
        m->device_memory = (double)all;
    /* A few steps must fit into the time; a GPU is quick enough for any. */
    double flops = m->gpu ? INFINITY : t->seconds / (LEAST_STEPS + 1) * threads;
    if (choose(&r, ranks, flops * QUICK, flops * SLOW, m->gpu ? INFINITY : 0.7 * m->memory) || rig_open(&r, ranks)) {
        rig_close(&r);
        return -1;
    }
    int64_t most = (int64_t)r.w.batch, b = (int64_t)fmin((double)most, fmax(1, SMALL / flops_of(&r.w)));
    int rc = 0;
    if (b < most) {
        rc = take_steps(&r, b, 0, t, &small);
        double a_step = rc ? 0 : small.median[WHOLE] / (double)b; /* an image's */
        b = (int64_t)fmin((double)most, fmax((double)b, t->seconds / (LEAST_STEPS + 1) / a_step));
    }
    double used = 0.8 * t->seconds;
    if (!rc && m->gpu && most >= 8)
        rc = take_steps(&r, most / 4, used / 4, t, &small);
    if (!rc)
        rc = take_steps(&r, b, used, t, &whole);
    if (!rc) {
        double n = (double)b, student = (r.w.forward + r.w.backward) * n;
        m->overhead = 0;
        if (m->gpu && most >= 8) /* what is left at no batch */
            m->overhead = fmax(0, small.median[STUDENT] - (whole.median[STUDENT] - small.median[STUDENT]) /
                                                              (n - (double)(most / 4)) * (double)(most / 4));
        m->student = student / (whole.median[STUDENT] - m->overhead);
        m->teacher = r.w.teacher * n / whole.median[TEACHER];
        m->update = FORECAST_UPDATE_PASSES * r.w.weight_bytes / whole.median[UPDATE];
        m->busy = m->gpu ? fmax(1, whole.processor) : fmin(threads, m->cores);
        m->peak = peak_of(r.be);
        machine_fill(m);
        r.w.batch = n;
        describe(&r, threads, m);
    }
    rig_close(&r);
    return rc;
}
