/* Parameters, optimiser, schedules. */
#include "../tap.h"
#include "nn/adamw.h"
#include "nn/ema.h"
#include "nn/params.h"
#include "nn/schedule.h"
#include "tensor/backend.h"
#include "util/err.h"

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static Params *make(Backend *be, void *memory, bool grads)
{
    Params *p = params_new();
    params_add(p, (Init){ INIT_NORMAL, 0.02f }, 2, (int64_t[]){ 301, 307 }, "blocks.%d.weight", 0);
    params_add(p, (Init){ INIT_ZERO, 0 }, 1, (int64_t[]){ 5 }, "blocks.0.bias");
    params_add(p, (Init){ INIT_ONE, 0 }, 1, (int64_t[]){ 7 }, "norm.weight");
    params_add(p, (Init){ INIT_ONE, 0 }, 2, (int64_t[]){ 3, 1 }, "head.last_layer.weight_g");
    params_fix(p);
    params_add(p, (Init){ INIT_UNIFORM, 0.25f }, 2, (int64_t[]){ 300, 300 }, "head.last_layer.weight_v");
    return params_commit(p, be, memory, grads) ? NULL : p;
}

static void test_layout(Backend *be)
{
    Params *p = make(be, NULL, true);
    bool aligned = true, inside = true, unshared = true;
    for (size_t i = 0; i < params_count(p); i++) {
        const Param *q = params_at(p, i);
        aligned = aligned && (uintptr_t)q->tensor->data % 64 == 0;
        inside = inside && (float *)q->tensor->data == params_flat(p) + q->offset &&
                 (q->offset + q->count) * sizeof(float) <= params_bytes(p);
        if (i)
            unshared = unshared && q->offset >= params_at(p, i - 1)->offset + params_at(p, i - 1)->count;
    }
    ok(aligned && inside && unshared, "tensors lie aligned, in order, apart, in one buffer");
    ok(params_find(p, "blocks.0.weight") && !params_find(p, "blocks.1.weight"), "found by name");
    ok(params_find(p, "blocks.0.weight")->decays && !params_find(p, "blocks.0.bias")->decays &&
           !params_find(p, "norm.weight")->decays && params_find(p, "head.last_layer.weight_v")->decays,
       "biases and 1-D tensors don't decay");
    ok(params_find(p, "head.last_layer.weight_v")->last_layer && !params_find(p, "norm.weight")->last_layer,
       "last layers are known by name");
    ok(!params_find(p, "head.last_layer.weight_g")->tensor->needs_grad &&
           params_find(p, "head.last_layer.weight_v")->tensor->needs_grad,
       "a fixed tensor takes no gradient");
    params_free(p);
}

static void test_init(Backend *be)
{
    Params *a = make(be, NULL, false), *b = make(be, NULL, false);
    params_init(a, 7);
    omp_set_num_threads(1);
    params_init(b, 7);
    omp_set_num_threads(2);
    ok(!memcmp(params_flat(a), params_flat(b), params_bytes(a)),
       "initial values don't depend on the threads");
    const Param *w = params_find(a, "blocks.0.weight");
    const float *x = w->tensor->data;
    double sum = 0, square = 0;
    for (size_t i = 0; i < w->count; i++) {
        sum += x[i];
        square += (double)x[i] * x[i];
    }
    double n = (double)w->count;
    ok(fabs(sum / n) < 0.02 * 4 / sqrt(n) && fabs(sqrt(square / n) / 0.02 - 1) < 4 / sqrt(2 * n),
       "normal values have the deviation asked for");
    const Param *v = params_find(a, "head.last_layer.weight_v");
    float lo = 1, hi = -1;
    for (size_t i = 0; i < v->count; i++) {
        lo = fminf(lo, ((float *)v->tensor->data)[i]);
        hi = fmaxf(hi, ((float *)v->tensor->data)[i]);
    }
    ok(lo >= -0.25f && hi < 0.25f && lo < -0.249f && hi > 0.249f, "uniform values fill their range");
    params_init(b, 8);
    ok(memcmp(params_flat(a), params_flat(b), params_bytes(a)) != 0, "another seed, other values");
    params_free(a);
    params_free(b);
}

static void test_adamw(Backend *be)
{
    Params *p = make(be, NULL, true);
    params_init(p, 1);
    AdamW *o = adamw_new(p, be, 0.9, 0.999, 1e-8);
    float *before = malloc(params_bytes(p));
    memcpy(before, params_flat(p), params_bytes(p));
    Param *v = params_find(p, "head.last_layer.weight_v"), *w = params_find(p, "blocks.0.weight");
    Param *fixed = params_find(p, "head.last_layer.weight_g");
    for (size_t i = 0; i < params_bytes(p) / sizeof(float); i++)
        params_flat_grad(p)[i] = 1e-3f;
    double largest;
    int worst;
    adamw_norms(o, NULL);
    adamw_step(o, 0.01, 0.1, 0, true);
    ok(!adamw_settle(o, &largest, &worst) && worst < 0 && fabs(largest - 1e-3 * sqrt((double)w->count)) < 1e-6, "the largest norm");
    ok(!memcmp(v->tensor->data, before + v->offset, v->count * sizeof(float)) && adamw_steps(o)[4] == 0,
       "a frozen last layer stays, moments and count too");
    ok(!memcmp(fixed->tensor->data, before + fixed->offset, fixed->count * sizeof(float)),
       "a fixed tensor stays");
    ok(adamw_steps(o)[0] == 1 && ((float *)w->tensor->data)[5] != before[w->offset + 5], "the others move");
    float *d = v->tensor->grad->data;
    ok(d[0] == 0 && ((float *)w->tensor->grad->data)[0] == 0, "gradients are zeroed, frozen ones too");
    memcpy(before, params_flat(p), params_bytes(p));
    params_flat_grad(p)[w->offset + 9] = NAN;
    adamw_norms(o, NULL);
    adamw_step(o, 0.01, 0.1, 1, false);
    ok(adamw_settle(o, &largest, &worst) == 1 && worst == 0, "a gradient that is not a number is noticed");
    ok(!memcmp(before, params_flat(p), params_bytes(p)) && adamw_steps(o)[0] == 1 && adamw_steps(o)[4] == 0,
       "and the step undone");
    ok(params_flat_grad(p)[w->offset + 9] == 0, "its gradients are zeroed all the same");
    float loss = INFINITY;
    params_flat_grad(p)[w->offset] = 1;
    adamw_norms(o, &loss);
    adamw_step(o, 0.01, 0.1, 1, false);
    ok(adamw_settle(o, &largest, &worst) == 1 && worst < 0 && !memcmp(before, params_flat(p), params_bytes(p)),
       "so it is where the loss is not finite");
    adamw_free(o);
    params_free(p);
    free(before);
}

static void test_schedule(void)
{
    /* ImageNet-1K, 8 x 32 images a step, 100 epochs, 10 of warm-up. */
    int64_t per = 5004, total = 100 * per, warm = 10 * per;
    static const struct {
        int64_t t;
        double lr;
    } anchors[] = {
        { 0, 0 }, { 25020, 3.750075e-4 }, { 50039, 7.5e-4 }, { 50040, 7.5e-4 }, { 275220, 3.76e-4 }
    };
    for (int i = 0; i < 5; i++)
        ok(fabs(schedule_cosine(7.5e-4, 2e-6, warm, total, anchors[i].t) - anchors[i].lr) < 1e-10,
           "learning rate at step %lld", (long long)anchors[i].t);
    double last = schedule_cosine(7.5e-4, 2e-6, warm, total, total - 1);
    ok(last > 2e-6 && last < 2.001e-6, "the end is not quite reached");
    ok(fabs(schedule_cosine(0.04, 0.4, 0, total, total / 2) - 0.22) < 1e-12, "weight decay half way");
    ok(fabs(schedule_ramp(0.04, 0.07, 50, 25) - 0.0553061) < 1e-7, "temperature in its warm-up");
    ok(schedule_ramp(0.04, 0.07, 50, 49) == 0.07 && schedule_ramp(0.04, 0.07, 0, 0) == 0.07 &&
           schedule_ramp(0.04, 0.07, 1, 0) == 0.04,
       "temperature at its ends");
    ok(schedule_cosine(1, 0, 1, 10, 0) == 0 && schedule_cosine(1, 0, 10, 10, 12) == 1,
       "warm-ups of one step and of all");
}

int main(void)
{
    Backend *be = backend_open(test_device());
    if (!ok(be != NULL, "cpu"))
        return tap_done();
    test_layout(be);
    test_init(be);
    test_adamw(be);
    test_schedule();
    return tap_done();
}
