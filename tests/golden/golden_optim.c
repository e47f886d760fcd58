/* Optimiser, clipping, averaging, schedules. */
#include "golden.h"
#include "nn/adamw.h"
#include "nn/ema.h"
#include "nn/params.h"
#include "nn/schedule.h"
#include "tensor/backend.h"
#include "../device.h"
#include "util/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 64, MAX_VALUES = 4096 };

/* Parameters named as the file's tensors that start with the prefix. */
static Params *params_of(Golden *g, Backend *be, const char *prefix, bool values)
{
    Params *p = params_new();
    size_t n = strlen(prefix);
    const GoldenTensor *t;
    for (size_t i = 0; p && (t = golden_at(g, i)); i++)
        if (!strncmp(t->name, prefix, n) && t->ndim <= TENSOR_DIMS)
            params_add(p, (Init){ INIT_ZERO, 0 }, t->ndim, t->shape, "%s", t->name + n);
    if (!p || params_commit(p, be, NULL, true)) {
        golden_fail(g, "%s", err_text());
        params_free(p);
        return NULL;
    }
    for (size_t i = 0; values && i < params_count(p); i++) {
        const Param *q = params_at(p, i);
        device_set(be, q->tensor->data, golden_findf(g, "%s%s", prefix, q->name)->data, q->count * sizeof(float));
    }
    return p;
}

/* Whether the configuration's list of that object has the number. */
static bool listed(json_object *object, const char *key, int number)
{
    json_object *list;
    if (!object || !json_object_object_get_ex(object, key, &list))
        return false;
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (json_object_get_int(json_object_array_get_idx(list, i)) == number)
            return true;
    return false;
}

static bool undecayed(const Golden *g, const char *name)
{
    json_object *list = json_object_object_get(golden_config(g), "undecayed");
    for (size_t i = 0; list && i < json_object_array_length(list); i++)
        if (!strcmp(json_object_get_string(json_object_array_get_idx(list, i)), name))
            return true;
    return false;
}

static void adamw(Golden *g)
{
    double lr[MAX_STEPS], wd[MAX_STEPS], betas[2] = { 0.9, 0.999 };
    int steps = golden_list(g, "lr", lr, MAX_STEPS);
    if (steps > MAX_STEPS || golden_list(g, "weight_decay", wd, MAX_STEPS) != steps)
        return golden_fail(g, "lr and weight_decay don't go together");
    golden_list(g, "betas", betas, 2);
    json_object *frozen = json_object_object_get(golden_config(g), "frozen");
    Backend *be = backend_open(test_device());
    Params *p = be ? params_of(g, be, "param.", true) : NULL;
    AdamW *o = p ? adamw_new(p, be, betas[0], betas[1], golden_real(g, "eps", 1e-8)) : NULL;
    char name[128];
    if (!o)
        golden_fail(g, "%s", err_text());
    for (size_t i = 0; o && i < params_count(p); i++)
        if (params_at(p, i)->decays == undecayed(g, params_at(p, i)->name))
            golden_fail(g, "%s: its weight decay differs", params_at(p, i)->name);
    for (int s = 1; o && s <= steps; s++) {
        bool freeze = false;
        for (size_t i = 0; i < params_count(p); i++) {
            const Param *q = params_at(p, i);
            snprintf(name, sizeof name, "in.step%d.grad.%s", s, q->name);
            const float *d = golden_f32(g, name);
            bool off = listed(frozen, q->name, s);
            freeze = freeze || off;
            if (off && !q->last_layer)
                golden_fail(g, "%s: frozen, but not a last layer", q->name);
            if (d)
                device_set(be, q->tensor->grad->data, d, q->count * sizeof(float));
        }
        if (adamw_step(o, lr[s - 1], wd[s - 1], 0, freeze))
            golden_fail(g, "step %d: %s", s, err_text());
        for (size_t i = 0; i < params_count(p); i++) {
            snprintf(name, sizeof name, "out.step%d.%s", s, params_at(p, i)->name);
            golden_check(g, name, device_floats(be, params_at(p, i)->tensor->data, params_at(p, i)->count));
        }
    }
    for (size_t i = 0; o && i < params_count(p); i++) {
        snprintf(name, sizeof name, "out.exp_avg.%s", params_at(p, i)->name);
        golden_check(g, name, device_floats(be, adamw_m(o, i), params_at(p, i)->count));
        snprintf(name, sizeof name, "out.exp_avg_sq.%s", params_at(p, i)->name);
        golden_check(g, name, device_floats(be, adamw_v(o, i), params_at(p, i)->count));
    }
    adamw_free(o);
    params_free(p);
    device_done();
}

/* Clipping happens inside the optimiser's pass. With beta1 = 0 the first moment is the gradient it used. */
static void clip(Golden *g)
{
    Backend *be = backend_open(test_device());
    Params *p = be ? params_of(g, be, "in.grad.", false) : NULL;
    AdamW *o = p ? adamw_new(p, be, 0, 0.999, 1e-8) : NULL;
    char name[128];
    float norms[MAX_STEPS];
    double largest;
    int worst;
    if (!o)
        golden_fail(g, "%s", err_text());
    for (size_t i = 0; o && i < params_count(p); i++) {
        const Param *q = params_at(p, i);
        device_set(be, q->tensor->grad->data, golden_findf(g, "in.grad.%s", q->name)->data, q->count * sizeof(float));
    }
    if (o && (adamw_norms(o, NULL) || adamw_step(o, 0, 0, golden_real(g, "clip", 0), false) ||
              adamw_settle(o, &largest, &worst)))
        golden_fail(g, "%s", err_text());
    for (size_t i = 0; o && i < params_count(p); i++) {
        snprintf(name, sizeof name, "out.grad.%s", params_at(p, i)->name);
        golden_check(g, name, device_floats(be, adamw_m(o, i), params_at(p, i)->count));
    }
    json_object *order = json_object_object_get(golden_config(g), "norms_of");
    size_t n = order ? json_object_array_length(order) : 0;
    for (size_t i = 0; o && i < n && i < MAX_STEPS; i++) {
        const char *who = json_object_get_string(json_object_array_get_idx(order, i));
        for (size_t j = 0; j < params_count(p); j++)
            if (!strcmp(params_at(p, j)->name, who))
                norms[i] = (float)adamw_norm(o, j);
    }
    if (o && n <= MAX_STEPS)
        golden_check(g, "out.norms", norms);
    adamw_free(o);
    params_free(p);
    device_done();
}

static void ema(Golden *g)
{
    double m[MAX_STEPS];
    int steps = golden_list(g, "momentum", m, MAX_STEPS);
    const GoldenTensor *start = golden_get(g, "in.teacher");
    Backend *be = backend_open(test_device());
    if (!start || !be || steps > MAX_STEPS)
        return golden_fail(g, "no start");
    size_t bytes = start->count * sizeof(float);
    float *teacher = device_put(be, start->data, bytes);
    for (int s = 1; s <= steps; s++) {
        char name[64];
        snprintf(name, sizeof name, "in.student%d", s);
        const float *student = golden_f32(g, name);
        if (!student || ema_update(be, teacher, device_put(be, student, bytes), start->count, m[s - 1]))
            golden_fail(g, "step %d: %s", s, err_text());
        snprintf(name, sizeof name, "out.step%d", s);
        golden_check(g, name, device_floats(be, teacher, start->count));
    }
    device_done();
}

static void schedules(Golden *g)
{
    int64_t epochs = golden_int(g, "epochs", 0), per = golden_int(g, "steps_per_epoch", 0),
            total = epochs * per;
    int64_t warm = golden_int(g, "warmup_epochs", 0) * per,
            ramp = golden_int(g, "warmup_teacher_temp_epochs", 0);
    double lr = golden_real(g, "lr", 0), min_lr = golden_real(g, "min_lr", 0);
    double wd[2] = { 0 }, m[2] = { 0 }, temp[2] = { 0 };
    float v[MAX_VALUES];
    if (golden_list(g, "weight_decay", wd, 2) != 2 || golden_list(g, "momentum", m, 2) != 2 ||
        golden_list(g, "teacher_temp", temp, 2) != 2 || total > MAX_VALUES || total < 1)
        return golden_fail(g, "not a schedule");
    for (int64_t t = 0; t < total; t++)
        v[t] = (float)schedule_cosine(lr, min_lr, warm, total, t);
    golden_check(g, "out.lr", v);
    for (int64_t t = 0; t < total; t++)
        v[t] = (float)schedule_cosine(wd[0], wd[1], 0, total, t);
    golden_check(g, "out.weight_decay", v);
    for (int64_t t = 0; t < total; t++)
        v[t] = (float)schedule_cosine(m[0], m[1], 0, total, t);
    golden_check(g, "out.momentum", v);
    for (int64_t e = 0; e < epochs; e++)
        v[e] = (float)schedule_ramp(temp[0], temp[1], ramp, e);
    golden_check(g, "out.teacher_temp", v);
    /* One step an epoch and one epoch of warm-up: the first value is 0. */
    const GoldenTensor *one = golden_find(g, "out.lr_warmup1");
    for (int64_t t = 0; one && t < (int64_t)one->count && t < MAX_VALUES; t++)
        v[t] = (float)schedule_cosine(lr, min_lr, 1, (int64_t)one->count, t);
    if (one && one->count <= MAX_VALUES)
        golden_check(g, "out.lr_warmup1", v);
    golden_excuse(g, "out.*_moco", "MoCo v3 is not built");
    golden_excuse(g, "out.*_mae", "MAE is not built");
}

static const GoldenCase cases[] = {
    { "optim_adamw", adamw },
    { "optim_clip", clip },
    { "optim_ema", ema },
    { "optim_schedules", schedules },
    { NULL, NULL },
};
GOLDEN_REGISTER(cases)
