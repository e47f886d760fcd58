#include "golden_tape.h"

#include "../device.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of results and gradients in BF16, whose steps are 1/256, after some layers, or in TF32; relative to the largest. */
static const double COARSE_ERROR = 0.04;

GoldenRun *golden_begin(Golden *g)
{
    GoldenRun *r = calloc(1, sizeof *r);
    if (!r || !(r->tape = tape_new(test_device()))) {
        golden_fail(g, "no tape: %s", err_text());
        free(r);
        return NULL;
    }
    r->g = g;
    r->be = tape_backend(r->tape);
    if (device_coarse(r->be))
        golden_allow(g, COARSE_ERROR);
    tape_begin(r->tape, true);
    return r;
}

Tensor *golden_leaf_as(GoldenRun *r, const char *name, int ndim, const int64_t *shape)
{
    const GoldenTensor *t = golden_get(r->g, name);
    int64_t count = 1;
    for (int i = 0; t && i < ndim; i++)
        count *= shape[i];
    if (!t)
        return NULL;
    if (strcmp(t->dtype, "F32") || ndim > TENSOR_DIMS || (size_t)count != t->count ||
        r->leaves == GOLDEN_LEAVES) {
        golden_fail(r->g, "%s: no such shape", name);
        return NULL;
    }
    int i = r->leaves++;
    Tensor *x = &r->leaf[i].tensor, *d = &r->leaf[i].grad;
    r->leaf[i].name = t->name;
    *x = (Tensor){ .dtype = DT_F32, .ndim = ndim, .needs_grad = true, .grad = d };
    memcpy(x->shape, shape, (size_t)ndim * sizeof *shape);
    *d = *x;
    d->grad = NULL;
    d->needs_grad = false;
    size_t bytes = t->count * sizeof(float);
    if (!(x->data = r->be->alloc(r->be, bytes)) || !(d->data = r->be->alloc(r->be, bytes)) ||
        r->be->write(r->be, x->data, t->data, bytes) || r->be->zero(r->be, d->data, bytes)) {
        golden_fail(r->g, "%s", err_text());
        return NULL;
    }
    return x;
}

Tensor *golden_leaf(GoldenRun *r, const char *name)
{
    const GoldenTensor *t = golden_get(r->g, name);
    return t ? golden_leaf_as(r, name, t->ndim, t->shape) : NULL;
}

Tensor *golden_leaf_opt(GoldenRun *r, const char *name)
{
    return golden_find(r->g, name) ? golden_leaf(r, name) : NULL;
}

void golden_out(GoldenRun *r, const char *name, Tensor *y)
{
    if (!y || r->outs == GOLDEN_OUTS) {
        golden_fail(r->g, "out.%s: %s", name, y ? "too many results" : err_text());
        return;
    }
    snprintf(r->out[r->outs].name, sizeof r->out[0].name, "%s", name);
    r->out[r->outs++].tensor = y;
}

/* A tensor of the device against the file's. */
static void check_tensor(GoldenRun *r, const char *name, const Tensor *x)
{
    float *got = malloc((size_t)tensor_count(x) * sizeof *got + 1);
    if (!got || tape_read(r->tape, x, got))
        golden_fail(r->g, "%s: %s", name, got ? err_text() : "out of memory");
    else
        golden_check(r->g, name, got);
    free(got);
}

static void check_outs(GoldenRun *r)
{
    for (int i = 0; i < r->outs; i++) {
        char name[96];
        snprintf(name, sizeof name, "out.%s", r->out[i].name);
        const GoldenTensor *t = golden_get(r->g, name);
        Tensor *y = r->out[i].tensor;
        if (t && t->count != (size_t)tensor_count(y))
            golden_fail(r->g, "%s has %lld elements, %zu wanted", name, (long long)tensor_count(y), t->count);
        else if (t)
            check_tensor(r, name, y);
    }
}

static void backward(GoldenRun *r)
{
    Tensor *outs[GOLDEN_OUTS], *gouts[GOLDEN_OUTS];
    int n = 0;
    for (int i = 0; i < r->outs; i++) {
        const GoldenTensor *t = golden_findf(r->g, "in.gout.%s", r->out[i].name);
        Tensor *y = r->out[i].tensor;
        if (!t || t->count != (size_t)tensor_count(y))
            continue;
        Tensor *d = tape_tensor(r->tape, DT_F32, y->ndim, y->shape);
        if (!d || tape_write(r->tape, d, t->data))
            break;
        outs[n] = y;
        gouts[n++] = d;
    }
    if (n && tape_backward_from(r->tape, n, outs, gouts))
        golden_fail(r->g, "backward: %s", err_text());
}

void golden_finish(GoldenRun *r, Params *params, const char *prefix)
{
    char name[256];
    check_outs(r);
    backward(r);
    for (int i = 0; i < r->leaves; i++) {
        snprintf(name, sizeof name, "grad.%s", r->leaf[i].name);
        if (golden_find(r->g, name))
            check_tensor(r, name, &r->leaf[i].grad);
        size_t bytes = tensor_bytes(&r->leaf[i].tensor);
        r->be->release(r->be, r->leaf[i].tensor.data, bytes);
        r->be->release(r->be, r->leaf[i].grad.data, bytes);
    }
    for (size_t i = 0; params && i < params_count(params); i++) {
        const Param *q = params_at(params, i);
        snprintf(name, sizeof name, "grad.param.%s%s", prefix, q->name);
        if (golden_find(r->g, name))
            check_tensor(r, name, q->tensor->grad);
    }
    tape_free(r->tape);
    free(r);
}

bool golden_params(Golden *g, Backend *be, Params *params, const char *prefix)
{
    bool good = true;
    for (size_t i = 0; i < params_count(params); i++) {
        const Param *q = params_at(params, i);
        const GoldenTensor *t = golden_findf(g, "param.%s%s", prefix, q->name);
        bool same = t && t->ndim == q->tensor->ndim && t->count == q->count;
        for (int d = 0; same && d < t->ndim; d++)
            same = t->shape[d] == q->tensor->shape[d];
        if (!same) {
            golden_fail(g, "param.%s%s: %s", prefix, q->name, t ? "has another shape" : "is not in the file");
            good = false;
            continue;
        }
        good = !be->write(be, q->tensor->data, t->data, t->count * sizeof(float)) && good;
    }
    return good;
}
