/* Projection head, losses, discrepancy, and whole training steps. */
#include "../device.h"
#include "golden_tape.h"
#include "models/aux.h"
#include "ssl/head.h"
#include "ssl/method.h"
#include "ssl/student.h"
#include "ssl/teacher.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void dino_head(Golden *g)
{
    HeadMlp mlp;
    HeadLast last;
    int64_t bottleneck = golden_int(g, "bottleneck", 0);
    bool fixed = json_object_get_boolean(json_object_object_get(golden_config(g), "norm_last_layer"));
    GoldenRun *r = golden_begin(g);
    Params *params = params_new();
    if (!r || !params)
        return golden_fail(g, "%s", err_text());
    head_mlp_add(&mlp, params, golden_int(g, "dim", 0), golden_int(g, "hidden", 0), bottleneck, "head.");
    head_last_add(&last, params, bottleneck, golden_int(g, "K", 0), fixed, "head.");
    if (params_commit(params, tape_backend(r->tape), NULL, true))
        golden_fail(g, "%s", err_text());
    else if (golden_params(g, r->be, params, ""))
        golden_out(r, "logits",
                   head_forward(&mlp, r->tape, golden_leaf(r, "in.x"), head_last_weight(&last, r->tape), DT_F32));
    golden_finish(r, params, "");
    params_free(params);
}

/* One term of the DINO loss on its own tape: its value, and d(weight * value)/dlogits in grad where that
 * isn't NULL. */
static bool dino_term(Golden *g, Tape *t, const float *logits, const float *q, int views, int batch, int k,
                      double temp, float weight, float *value, float *grad)
{
    TrainConfig c = { .student_temp = temp };
    Tensor d = { .dtype = DT_F32, .ndim = 2, .shape = { views * batch, k }, .data = grad };
    Tensor x = { .dtype = DT_F32,
                 .ndim = 2,
                 .shape = { views * batch, k },
                 .data = (float *)(uintptr_t)logits,
                 .grad = grad ? &d : NULL,
                 .needs_grad = grad != NULL };
    tape_begin(t, true);
    LossTerm in = { .student = &x,
                    .targets = tape_wrap(t, DT_F32, 2, (int64_t[]){ 2 * batch, k }, (void *)(uintptr_t)q),
                    .views = views,
                    .batch = batch,
                    .weight = weight };
    Tensor *alone = tape_tensor(t, DT_F32, 1, (int64_t[]){ 1 });
    in.value = alone ? alone->data : NULL;
    Tensor *loss = method_dino.term(t, &c, &in);
    if (!loss || tape_read(t, alone, value) || (grad && tape_backward(t, loss))) {
        golden_fail(g, "%s", err_text());
        return false;
    }
    return true;
}

static void dino_loss(Golden *g)
{
    int k = golden_int(g, "K", 0), batch = golden_int(g, "batch", 0), views = golden_int(g, "views", 0);
    double temps[16], epochs[16];
    int steps = golden_list(g, "epoch", epochs, 16);
    const float *start = golden_f32(g, "in.center0");
    Tape *t = tape_new(test_device());
    Backend *be = t ? tape_backend(t) : NULL;
    size_t nq = (size_t)(2 * batch * k), nx = (size_t)(views * batch * k), row = (size_t)k;
    float *center = NULL, *q = NULL, *grad = NULL;
    if (!start || !t || steps > 16 || golden_list(g, "teacher_temp_at", temps, 16) != steps) {
        golden_fail(g, "not a DINO loss");
        steps = 0;
    } else {
        center = device_put(be, start, row * sizeof *center);
        q = device_put(be, NULL, nq * sizeof *q);
        grad = device_put(be, NULL, nx * sizeof *grad);
    }
    for (int s = 1; s <= steps; s++) {
        char name[64];
        snprintf(name, sizeof name, "in.student%d", s);
        const float *student = golden_f32(g, name);
        snprintf(name, sizeof name, "in.teacher%d", s);
        const float *teacher = golden_f32(g, name);
        float loss;
        TrainConfig c;
        StepRates rates;
        config_init(&c);
        c.warmup_teacher_temp = golden_real(g, "warmup_teacher_temp", 0);
        c.teacher_temp = golden_real(g, "teacher_temp", 0);
        c.warmup_teacher_temp_epochs = golden_int(g, "warmup_epochs", 0);
        c.epochs = golden_int(g, "epochs", 0);
        config_rates(&c, 1, (int64_t)epochs[s - 1], &rates);
        if (!student || !teacher)
            break;
        student = device_put(be, student, nx * sizeof *student);
        teacher = device_put(be, teacher, nq * sizeof *teacher);
        if (be->zero(be, grad, nx * sizeof *grad))
            golden_fail(g, "step %d: %s", s, err_text());
        tape_begin(t, false);
        if (method_dino.targets(t, teacher, center, rates.teacher_temp, q, 2 * batch, k) ||
            !dino_term(g, t, student, q, views, batch, k, golden_real(g, "student_temp", 0), 1, &loss,
                       grad) ||
            method_dino.center(t, center, teacher, golden_real(g, "center_momentum", 0), 2 * batch, k)) {
            golden_fail(g, "step %d: %s", s, err_text());
            break;
        }
        snprintf(name, sizeof name, "out.loss%d", s);
        golden_check_scalar(g, name, loss);
        snprintf(name, sizeof name, "out.center%d", s);
        golden_check(g, name, device_floats(be, center, row));
        snprintf(name, sizeof name, "grad.in.student%d", s);
        golden_check(g, name, device_floats(be, grad, nx));
    }
    device_done();
    tape_free(t);
}

/* Eq. 2 in DINO form. The patch terms are iBOT's. The file's gradients are of the sum with the patch terms,
 * which don't depend on the class logits, so those of the class logits are those of the DINO part. */
static void hssl_loss(Golden *g)
{
    int k = golden_int(g, "K", 0), batch = golden_int(g, "batch", 0), views = golden_int(g, "views", 0);
    double temp = golden_real(g, "student_temp", 0);
    const float *base = golden_f32(g, "in.base_cls"), *head = golden_f32(g, "in.head_cls");
    const float *teacher = golden_f32(g, "in.teacher_cls"), *start = golden_f32(g, "in.center");
    Tape *t = tape_new(test_device());
    Backend *be = t ? tape_backend(t) : NULL;
    size_t nq = (size_t)(2 * batch * k) * sizeof(float), nx = (size_t)(views * batch * k), row = (size_t)k;
    float value[2];
    if (base && head && teacher && start && t) {
        float *q = device_put(be, NULL, nq), *center = device_put(be, start, row * sizeof *center);
        float *grad[2] = { device_put(be, NULL, nx * sizeof(float)), device_put(be, NULL, nx * sizeof(float)) };
        base = device_put(be, base, nx * sizeof *base);
        head = device_put(be, head, nx * sizeof *head);
        teacher = device_put(be, teacher, nq);
        tape_begin(t, false);
        if (method_dino.targets(t, teacher, center, golden_real(g, "teacher_temp", 0), q, 2 * batch, k) ||
            !dino_term(g, t, base, q, views, batch, k, temp, 0.5f, &value[0], grad[0]) ||
            !dino_term(g, t, head, q, views, batch, k, temp, 0.5f, &value[1], grad[1]) ||
            method_dino.center(t, center, teacher, golden_real(g, "center_momentum", 0), 2 * batch, k))
            golden_fail(g, "%s", err_text());
        golden_check_scalar(g, "out.cls_base", value[0]);
        golden_check_scalar(g, "out.cls_head", value[1]);
        golden_check_scalar(g, "out.loss_dino", 0.5 * ((double)value[0] + value[1]));
        golden_check(g, "grad.in.base_cls", device_floats(be, grad[0], nx));
        golden_check(g, "grad.in.head_cls", device_floats(be, grad[1], nx));
        golden_check(g, "out.center", device_floats(be, center, row));
    }
    golden_excuse(g, "out.patch_*", "patch terms belong to iBOT, which is not built");
    golden_excuse(g, "out.loss_ibot", "iBOT is not built");
    golden_excuse(g, "out.center2", "iBOT is not built");
    golden_excuse(g, "grad.in.*_patch", "iBOT is not built");
    device_done();
    tape_free(t);
}

static void discrepancy(Golden *g)
{
    int rows = golden_int(g, "rows", 0), k = golden_int(g, "K", 0);
    Backend *be = backend_open(test_device());
    DiscrepancyArgs a = {
        .k = k, .temp = golden_real(g, "tau", 0), .student_temp = golden_real(g, "student_temp", 0.1),
        .base = golden_f32(g, "in.base"), .head = golden_f32(g, "in.head"),
        .center_base = golden_f32(g, "in.center_base"), .center_head = golden_f32(g, "in.center_head"),
    };
    float *value = NULL, *each[2] = { calloc((size_t)rows, sizeof(float)), calloc((size_t)rows, sizeof(float)) };
    if (!be || !a.base || !a.head || !a.center_base || !a.center_head)
        golden_fail(g, "not a discrepancy");
    else {
        size_t n = (size_t)rows * (size_t)k * sizeof(float), row = (size_t)k * sizeof(float);
        a.base = device_put(be, a.base, n);
        a.head = device_put(be, a.head, n);
        a.center_base = device_put(be, a.center_base, row);
        a.center_head = device_put(be, a.center_head, row);
        DiscrepancyArgs all = a;
        all.rows = rows;
        all.out = device_put(be, NULL, 2 * sizeof(float));
        if (be->discrepancy(be, &all))
            golden_fail(g, "%s", err_text());
        value = device_floats(be, all.out, 2);
        golden_check_scalar(g, "out.D", value[0]);
        golden_check_scalar(g, "out.D_role", value[1]);
        for (int i = 0; i < rows; i++) { /* one row at a time gives the rows' figures */
            DiscrepancyArgs one = a;
            one.rows = 1;
            one.base += (size_t)i * (size_t)k;
            one.head += (size_t)i * (size_t)k;
            one.out = all.out;
            if (be->discrepancy(be, &one))
                golden_fail(g, "row %d: %s", i, err_text());
            value = device_floats(be, all.out, 2);
            each[0][i] = value[0];
            each[1][i] = value[1];
        }
        golden_check(g, "out.D_rows", each[0]);
        golden_check(g, "out.D_role_rows", each[1]);
    }
    golden_excuse(g, "grad.in.*", "D is measured, never trained on: no backward");
    free(each[0]);
    free(each[1]);
    device_done();
}

/* ---------------------------------------------------------------- whole steps */

enum { MAX_STEPS = 16 };

/* The key part of a qkv bias has no gradient in exact arithmetic, and AdamW makes steps of its rounding
 * noise. */
static bool key_bias(size_t i, size_t count)
{
    return i >= count / 3 && i < count / 3 * 2;
}

static void check_params(Golden *g, Backend *be, Params *params, const char *prefix)
{
    for (size_t i = 0; i < params_count(params); i++) {
        const Param *q = params_at(params, i);
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, q->name);
        if (golden_find(g, name))
            golden_check_except(g, name, device_floats(be, q->tensor->data, q->count),
                                strstr(q->name, "qkv.bias") ? key_bias : NULL);
    }
}

static void check_grads(Golden *g, Backend *be, Params *params, const char *prefix)
{
    for (size_t i = 0; i < params_count(params); i++) {
        const Param *q = params_at(params, i);
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, q->name);
        if (golden_find(g, name) && q->tensor->grad)
            golden_check(g, name, device_floats(be, q->tensor->grad->data, q->count));
    }
}

static void step_config(const Golden *g, TrainConfig *c)
{
    double betas[2] = { 0.9, 0.999 };
    config_init(c);
    c->device = test_device();
    golden_list(g, "betas", betas, 2);
    c->arch = "vit_tiny";
    c->patch_size = golden_int(g, "patch", 4);
    c->global_size = golden_int(g, "img", 24);
    c->local_size = golden_int(g, "local", 12);
    c->local_crops = 0;
    c->dim = golden_int(g, "dim", 0);
    c->depth = golden_int(g, "depth", 0);
    c->heads = golden_int(g, "heads", 0);
    c->drop_path = 0;
    c->aux = golden_text(g, "aux", "none");
    c->aux_depth = golden_int(g, "aux_depth", 1);
    c->share_proj = golden_text(g, "share_proj", "last");
    c->out_dim = golden_int(g, "K", 0);
    c->head_hidden = golden_int(g, "hidden", 0);
    c->head_bottleneck = golden_int(g, "bottleneck", 0);
    c->student_temp = golden_real(g, "student_temp", 0.1);
    c->center_momentum = golden_real(g, "center_momentum", 0.9);
    c->batch_size = golden_int(g, "batch", 0);
    c->beta1 = betas[0];
    c->beta2 = betas[1];
    c->adam_eps = golden_real(g, "eps", 1e-8);
    c->clip_grad = golden_real(g, "clip_grad", 0);
}

/* The views of a step, globals then locals, each group one behind the other. */
static bool step_views(Golden *g, const TrainConfig *c, int step, ViewBatch *v, float **memory)
{
    size_t each[2] = { (size_t)(3 * c->batch_size * c->global_size * c->global_size),
                       (size_t)(3 * c->batch_size * c->local_size * c->local_size) };
    int views = 0;
    while (golden_findf(g, "in.step%d.view%d", step, views))
        views++;
    if (views < 2)
        return golden_fail(g, "step %d has no views", step), false;
    float *m = *memory = malloc((2 * each[0] + (size_t)(views - 2) * each[1]) * sizeof *m);
    *v = (ViewBatch){ .batch = c->batch_size,
                      .globals = 2,
                      .locals = views - 2,
                      .global_size = c->global_size,
                      .local_size = c->local_size,
                      .global_f32 = m,
                      .local_f32 = m + 2 * each[0] };
    for (int i = 0; i < views; i++) {
        const GoldenTensor *t = golden_findf(g, "in.step%d.view%d", step, i);
        size_t n = each[i >= 2];
        if (t->count != n)
            return golden_fail(g, "%s has another size", t->name), false;
        memcpy(m, t->data, n * sizeof *m);
        m += n;
    }
    return true;
}

static void one_step(Golden *g, const TrainConfig *c, Student *s, Teacher *t, int k, const StepRates *r)
{
    Params *params = network_params(student_network(s));
    Backend *be = network_backend(student_network(s));
    size_t nq = (size_t)(2 * c->batch_size * c->out_dim) * sizeof(float);
    float *pixels = NULL, *q = device_put(be, NULL, nq);
    ViewBatch views;
    StudentReport report;
    Discrepancy d;
    char name[64];
    if (!step_views(g, c, k, &views, &pixels))
        goto out;
    size_t side = (size_t)c->global_size, small = (size_t)c->local_size;
    views.global_f32 = device_put(be, views.global_f32, 6 * (size_t)c->batch_size * side * side * sizeof(float));
    views.local_f32 = device_put(be, views.local_f32, (size_t)(views.locals * c->batch_size) * 3 * small * small * sizeof(float));
    if (teacher_targets(t, &views, r->teacher_temp, q, &d) || student_forward(s, &views, r) ||
        student_backward(s, q)) {
        golden_fail(g, "step %d: %s", k, err_text());
        goto out;
    }
    snprintf(name, sizeof name, "grad.step%d.param.", k);
    check_grads(g, be, params, name);
    if (student_update(s, r, &report) || teacher_update(t, student_flat(s), r->momentum)) {
        golden_fail(g, "step %d: %s", k, err_text());
        goto out;
    }
    snprintf(name, sizeof name, "out.step%d.loss", k);
    golden_check_scalar(g, name, report.loss);
    if (golden_findf(g, "out.step%d.term_base", k)) {
        snprintf(name, sizeof name, "out.step%d.term_base", k);
        golden_check_scalar(g, name, report.term_base);
        snprintf(name, sizeof name, "out.step%d.term_head", k);
        golden_check_scalar(g, name, report.term_head);
    }
    StateList state = { 0 };
    if (teacher_state(t, &state) || state_fetch(&state))
        golden_fail(g, "%s", err_text());
    for (size_t i = 0; i < state.count; i++)
        if (!strcmp(state.items[i].name, "center")) {
            snprintf(name, sizeof name, "out.step%d.center", k);
            golden_check(g, name, state.items[i].host);
        }
    state_free(&state);
    snprintf(name, sizeof name, "out.step%d.student.", k);
    check_params(g, be, params, name);
    snprintf(name, sizeof name, "out.step%d.teacher.", k);
    check_params(g, be, network_params(teacher_network(t)), name);
out:
    free(pixels);
    device_done();
}

static void whole_steps(Golden *g)
{
    TrainConfig c;
    double lr[MAX_STEPS], wd[MAX_STEPS], m[MAX_STEPS], epoch[MAX_STEPS], temp[MAX_STEPS];
    step_config(g, &c);
    int n = golden_list(g, "lr", lr, MAX_STEPS);
    if (n < 1 || n > MAX_STEPS || golden_list(g, "weight_decay", wd, MAX_STEPS) != n ||
        golden_list(g, "teacher_momentum", m, MAX_STEPS) != n ||
        golden_list(g, "epoch", epoch, MAX_STEPS) != n ||
        golden_list(g, "teacher_temp", temp, MAX_STEPS) != n)
        return golden_fail(g, "its schedules don't go together");
    if (golden_real(g, "aux_ln_eps", 1e-6) != 1e-6)
        return golden_fail(g, "another epsilon in the head");
    Student *s = student_new(&c, NULL);
    Teacher *t = NULL;
    if (s) {
        if (device_coarse(network_backend(student_network(s))))
            golden_allow(g, 0.05); /* gradients through all layers */
        golden_params(g, network_backend(student_network(s)), network_params(student_network(s)), "");
        t = teacher_new(&c, student_flat(s));
    }
    if (!t)
        golden_fail(g, "%s", err_text());
    for (int i = 0; t && i < n; i++) {
        StepRates r = { .step = i,
                        .epoch = (int64_t)epoch[i],
                        .lr = lr[i],
                        .weight_decay = wd[i],
                        .momentum = m[i],
                        .teacher_temp = temp[i],
                        .freeze_last = epoch[i] < golden_int(g, "freeze_last_layer", 0) };
        one_step(g, &c, s, t, i + 1, &r);
    }
    student_free(s);
    teacher_free(t);
}

static const GoldenCase cases[] = {
    { "ssl_dino_head", dino_head },
    { "ssl_dino_loss", dino_loss },
    { "ssl_hssl_loss_eq2", hssl_loss },
    { "ssl_discrepancy", discrepancy },
    { "step_dino", whole_steps },
    { "step_hssl_dino", whole_steps },
    { NULL, NULL },
};
GOLDEN_REGISTER(cases)
