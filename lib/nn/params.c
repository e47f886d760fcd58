#include "nn/params.h"

#include "tensor/backend.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_FLOATS = 16 };

typedef struct {
    Param param;
    Tensor tensor, grad;
} Entry;

struct Params {
    Entry **entries;
    size_t count, room, floats;
    float *data, *grads;
    Backend *be;
    bool own, failed;
};

Params *params_new(void)
{
    Params *p = calloc(1, sizeof *p);
    if (!p)
        err_set(ERR_MEMORY, "parameters: out of memory");
    return p;
}

void params_free(Params *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++) {
        free(p->entries[i]->param.name);
        free(p->entries[i]);
    }
    free(p->entries);
    if (p->own && p->data)
        p->be->release(p->be, p->data, params_bytes(p));
    if (p->grads)
        p->be->release(p->be, p->grads, params_bytes(p));
    free(p);
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

Tensor *params_add(Params *p, Init init, int ndim, const int64_t *shape, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    if (p->count == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        Entry **grown = realloc(p->entries, room * sizeof *grown);
        if (!grown)
            goto memory;
        p->entries = grown;
        p->room = room;
    }
    Entry *e = calloc(1, sizeof *e);
    if (!e || !(e->param.name = strdup(name))) {
        free(e);
        goto memory;
    }
    size_t n = 1;
    e->tensor.dtype = DT_F32;
    e->tensor.ndim = ndim;
    for (int i = 0; i < ndim; i++) {
        e->tensor.shape[i] = shape[i];
        n *= (size_t)shape[i];
    }
    e->param.tensor = &e->tensor;
    e->param.init = init;
    e->param.offset = p->floats;
    e->param.count = n;
    e->param.decays = ndim > 1 && !ends_with(name, ".bias");
    e->param.last_layer = strstr(name, "last_layer") != NULL;
    e->param.trains = true;
    p->entries[p->count++] = e;
    p->floats += (n + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
    return &e->tensor;
memory:
    p->failed = true;
    err_set(ERR_MEMORY, "parameter %s: out of memory", name);
    return NULL;
}

void params_fix(Params *p)
{
    if (p->count)
        p->entries[p->count - 1]->param.trains = false;
}

size_t params_bytes(const Params *p)
{
    return p->floats * sizeof(float);
}

static float *zeroed(Backend *be, size_t bytes)
{
    float *m = be->alloc(be, bytes);
    if (m && be->zero(be, m, bytes)) {
        be->release(be, m, bytes);
        m = NULL;
    }
    return m;
}

int params_commit(Params *p, Backend *be, void *memory, bool grads)
{
    if (p->failed)
        return -1;
    p->be = be;
    p->own = !memory;
    p->data = memory ? memory : zeroed(be, params_bytes(p));
    if (!p->data)
        return err_prefix("parameters");
    p->grads = grads ? zeroed(be, params_bytes(p)) : NULL;
    if (grads && !p->grads)
        return err_prefix("gradients of parameters");
    for (size_t i = 0; i < p->count; i++) {
        Entry *e = p->entries[i];
        e->tensor.data = p->data + e->param.offset;
        if (!grads || !e->param.trains)
            continue;
        e->grad = e->tensor;
        e->grad.data = p->grads + e->param.offset;
        e->tensor.grad = &e->grad;
        e->tensor.needs_grad = true;
    }
    return 0;
}

/* Two uniform values in [0, 1) to two normal ones, cut off at +-2 (Box-Muller). */
static void normals(float v[2], float scale)
{
    float length = scale * sqrtf(-2 * logf(1 - v[0])), angle = 2 * (float)M_PI * v[1];
    v[0] = fmaxf(-2, fminf(2, length * cosf(angle)));
    v[1] = fmaxf(-2, fminf(2, length * sinf(angle)));
}

static void init_one(const Param *q, uint64_t seed, float *x)
{
    int64_t n = (int64_t)q->count;
    float scale = q->init.scale;
    Rng base = rng_make(seed, RNG_INIT, rng_hash(q->name), 0);
    switch (q->init.kind) {
    case INIT_ZERO:
    case INIT_ONE:
        for (int64_t i = 0; i < n; i++)
            x[i] = q->init.kind == INIT_ONE;
        break;
    case INIT_UNIFORM:
    case INIT_NORMAL:
#pragma omp parallel for schedule(static) if (n > 65536)
        for (int64_t i = 0; i < n; i += 4) {
            uint32_t words[4];
            float v[4];
            rng_four(&base, (uint32_t)(i / 4), words);
            for (int j = 0; j < 4; j++) /* [0, 1), 24 bits */
                v[j] = (float)(words[j] >> 8) * 0x1p-24f;
            if (q->init.kind == INIT_NORMAL) {
                normals(v, scale);
                normals(v + 2, scale);
            }
            for (int j = 0; j < 4 && i + j < n; j++)
                x[i + j] = q->init.kind == INIT_NORMAL ? v[j] : (2 * v[j] - 1) * scale;
        }
        break;
    }
}

int params_init(Params *p, uint64_t seed)
{
    size_t most = 1;
    if (p->be->dry)
        return 0;
    for (size_t i = 0; i < p->count; i++)
        if (p->entries[i]->param.count > most)
            most = p->entries[i]->param.count;
    float *host = malloc(most * sizeof *host);
    if (!host)
        return err_set(ERR_MEMORY, "initial values: no memory for %zu bytes", most * sizeof *host);
    int rc = 0;
    for (size_t i = 0; i < p->count && !rc; i++) {
        const Param *q = &p->entries[i]->param;
        init_one(q, seed, host);
        rc = p->be->write(p->be, q->tensor->data, host, q->count * sizeof *host);
    }
    free(host);
    return rc;
}

size_t params_count(const Params *p)
{
    return p->count;
}

Param *params_at(Params *p, size_t i)
{
    return &p->entries[i]->param;
}

Param *params_find(Params *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++)
        if (!strcmp(p->entries[i]->param.name, name))
            return &p->entries[i]->param;
    return NULL;
}

float *params_flat(Params *p)
{
    return p->data;
}

float *params_flat_grad(Params *p)
{
    return p->grads;
}

int params_zero_grad(Params *p)
{
    return p->grads ? p->be->zero(p->be, p->grads, params_bytes(p)) : 0;
}
