#include "train/workload.h"

#include "ssl/student.h"
#include "ssl/teacher.h"
#include "tensor/backend.h"
#include "tensor/dry.h"
#include "util/err.h"

#include <string.h>

/* Numbers that a plan of a view has in a message (train/planning.h), 8 bytes each. */
enum { PLAN_NUMBERS = 20 };

static const char *dry_device(const char *device)
{
    if (!strcmp(device, "cpu"))
        return "dry,fp32";
    return strstr(device, "fp32") ? "dry,gpu" : strstr(device, "tf32") ? "dry,tf32" : "dry,bf16";
}

/* Flops of the student's forward pass on the global views alone: what lies behind them on the way back. */
static int forward_only(Student *s, ViewBatch v, const StepRates *r, double *flops)
{
    v.locals = 0;
    dry_reset();
    if (student_forward(s, &v, r))
        return -1;
    *flops = dry_flops();
    return 0;
}

static int count_step(const TrainConfig *c, Student *s, Teacher *t, ViewBatch *v, float *q, Workload *w)
{
    StepRates r;
    StudentReport report;
    double globals, share, n = (double)v->batch;
    config_rates(c, 1000, 1, &r);
    if (forward_only(s, *v, &r, &globals))
        return -1;
    dry_reset();
    if (teacher_targets(t, v, r.teacher_temp, q, NULL))
        return -1;
    w->teacher = dry_flops() / n;
    dry_reset();
    if (student_forward(s, v, &r))
        return -1;
    w->forward = dry_flops() / n;
    dry_reset();
    if (student_finish(s, q, &r, &report) || teacher_update(t, student_flat(s), r.momentum))
        return -1;
    w->backward = dry_flops() / n;
    /* In one pass each block's gradients are whole when it has been run back. */
    share = student_packs(c, backend_open(c->device)) ? 1 : w->forward > 0 ? globals / n / w->forward : 0;
    w->covered = w->backward * (share < 1 ? share : 1);
    w->memory.step = (double)student_step_bytes(s);
    w->memory.teacher_step = (double)teacher_step_bytes(t);
    return 0;
}

int workload_count(const TrainConfig *config, int64_t ranks, Workload *out)
{
    TrainConfig c = *config;
    if (c.batch_size % ranks)
        return err_set(ERR_USAGE, "--batch-size %lld: not a multiple of %lld ranks", (long long)c.batch_size,
                       (long long)ranks);
    if (config_check(&c))
        return -1;
    c.batch_size /= ranks;
    c.device = dry_device(config->device);
    double global = 2 * (double)(c.global_size * c.global_size),
           local = (double)(c.local_crops * c.local_size * c.local_size), k = (double)c.out_dim,
           weights = (double)student_bytes(&c);
    *out = (Workload){.batch = (double)c.batch_size,
                      .parameters = weights / sizeof(float),
                      .view_pixels = global + local,
                      .view_bytes = 3 * (global + local),
                      .weight_bytes = weights,
                      .target_bytes = 2 * k * sizeof(float),
                      .plan_bytes = (double)(2 + c.local_crops) * PLAN_NUMBERS * sizeof(double)};
    Backend *be = backend_open(c.device);
    size_t pixels = (size_t)(out->view_bytes * out->batch),
           targets = (size_t)(out->target_bytes * out->batch);
    Student *s = be && weights > 0 ? student_new(&c, NULL) : NULL;
    Teacher *t = s ? teacher_new(&c, student_flat(s)) : NULL;
    uint8_t *views = t ? be->alloc(be, pixels) : NULL;
    float *q = views ? be->alloc(be, targets) : NULL;
    ViewBatch v = {.batch = c.batch_size,
                   .globals = 2,
                   .locals = c.local_crops,
                   .global_size = c.global_size,
                   .local_size = c.local_size,
                   .global = views,
                   .local = c.local_crops ? views + (size_t)(3 * global * out->batch) : NULL};
    int rc = q ? count_step(&c, s, t, &v, q, out) : -1;
    WorkloadMemory *m = &out->memory;
    m->weights = m->gradients = weights;
    m->moments = 2 * weights;
    m->teacher = weights + k * sizeof(float) * (strcmp(c.aux, "none") && c.discrepancy ? 2 : 1);
    m->targets = (double)targets;
    m->views = (double)pixels;
    m->all = m->weights + m->gradients + m->moments + m->step + m->teacher + m->teacher_step + m->targets +
             m->views;
    if (views)
        be->release(be, views, pixels);
    if (q)
        be->release(be, q, targets);
    teacher_free(t);
    student_free(s);
    return rc;
}
