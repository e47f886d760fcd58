#include "nn/adamw.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <math.h>
#include <stdlib.h>

struct AdamW {
    Params *params;
    Backend *be;
    double beta1, beta2, eps;
    float *m, *v; /* laid out as the parameters */
    float *norm, *host_norm; /* [n + 1]: a norm each, and the gate: their sum, and the loss */
    int64_t *steps;
    ParamSpan *spans;
    bool gated; /* the norms of this step are there */
};

AdamW *adamw_new(Params *params, Backend *be, double beta1, double beta2, double eps)
{
    size_t n = params_count(params), bytes = params_bytes(params);
    AdamW *o = calloc(1, sizeof *o);
    if (!o) {
        err_set(ERR_MEMORY, "optimiser: out of memory");
        return NULL;
    }
    *o = (AdamW){ .params = params, .be = be, .beta1 = beta1, .beta2 = beta2, .eps = eps };
    o->steps = calloc(n, sizeof *o->steps);
    o->spans = calloc(n, sizeof *o->spans);
    o->host_norm = calloc(n + 1, sizeof *o->host_norm);
    if (!o->steps || !o->spans || !o->host_norm) {
        err_set(ERR_MEMORY, "optimiser: out of memory");
        goto fail;
    }
    if (!(o->m = be->alloc(be, bytes)) || !(o->v = be->alloc(be, bytes)) ||
        !(o->norm = be->alloc(be, (n + 1) * sizeof *o->norm)) || be->zero(be, o->m, bytes) ||
        be->zero(be, o->v, bytes)) {
        err_prefix("optimiser");
        goto fail;
    }
    for (size_t i = 0; i < n; i++) {
        const Param *q = params_at(params, i);
        o->spans[i] =
            (ParamSpan){ .offset = (int64_t)q->offset, .count = (int64_t)q->count, .decay = q->decays };
    }
    return o;
fail:
    adamw_free(o);
    return NULL;
}

void adamw_free(AdamW *o)
{
    if (!o)
        return;
    size_t bytes = params_bytes(o->params);
    if (o->m)
        o->be->release(o->be, o->m, bytes);
    if (o->v)
        o->be->release(o->be, o->v, bytes);
    if (o->norm)
        o->be->release(o->be, o->norm, (params_count(o->params) + 1) * sizeof *o->norm);
    free(o->steps);
    free(o->spans);
    free(o->host_norm);
    free(o);
}

int adamw_norms(AdamW *o, const float *loss)
{
    size_t n = params_count(o->params);
    float *gate = o->norm + n;
    NormArgs norms = { .g = params_flat_grad(o->params), .spans = o->spans, .nspans = (int)n, .norm = o->norm };
    ReduceArgs sum = { .outer = 1, .reduce = (int64_t)n, .n = 1, .x = o->norm, .x_outer = (int64_t)n, .out = gate,
                       .factor = 1 };
    PointArgs add = { .n = 1, .x = gate, .y = loss, .out = gate, .factor = 1 };
    o->gated = true;
    return o->be->norms(o->be, &norms) || o->be->reduce(o->be, &sum) || (loss && o->be->add(o->be, &add)) ? -1 : 0;
}

double adamw_norm(const AdamW *o, size_t i)
{
    return o->host_norm[i];
}

int adamw_step(AdamW *o, double lr, double weight_decay, double clip, bool freeze_last)
{
    size_t n = params_count(o->params);
    for (size_t i = 0; i < n; i++) {
        const Param *q = params_at(o->params, i);
        o->spans[i].skip = !q->trains || (freeze_last && q->last_layer);
        o->steps[i] += !o->spans[i].skip;
        o->spans[i].step = o->steps[i];
    }
    AdamwArgs a = {
        .p = params_flat(o->params), .g = params_flat_grad(o->params), .m = o->m, .v = o->v,
        .spans = o->spans, .nspans = (int)n,
        .lr = lr, .weight_decay = weight_decay, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps,
        .norm = o->gated ? o->norm : NULL, .clip = clip, .zero_grad = true, .gate = o->gated ? o->norm + n : NULL,
    };
    return o->be->adamw(o->be, &a);
}

int adamw_settle(AdamW *o, double *largest, int *worst)
{
    size_t n = params_count(o->params);
    if (o->be->read(o->be, o->host_norm, o->norm, (n + 1) * sizeof *o->norm))
        return -1;
    o->gated = false;
    *largest = 0;
    *worst = -1;
    for (size_t i = 0; i < n; i++) {
        if (!params_at(o->params, i)->trains)
            continue;
        if (!isfinite(o->host_norm[i]) && *worst < 0)
            *worst = (int)i;
        *largest = fmax(*largest, o->host_norm[i]);
    }
    if (isfinite(o->host_norm[n]))
        return 0;
    for (size_t i = 0; i < n; i++)
        o->steps[i] -= !o->spans[i].skip;
    return 1;
}

float *adamw_m(AdamW *o, size_t i)
{
    return o->m + params_at(o->params, i)->offset;
}

float *adamw_v(AdamW *o, size_t i)
{
    return o->v + params_at(o->params, i)->offset;
}

int64_t *adamw_steps(AdamW *o)
{
    return o->steps;
}
