#include "models/aux.h"

#include "tensor/ops.h"
#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One layer of a kind: its parameters, and z [B, N, C] -> [B, N, C] over a grid of rows x cols. */
typedef union {
    Block vit;
    struct {
        Tensor *dw_w, *dw_b, *norm_w, *norm_b, *fc1_w, *fc1_b, *fc2_w, *fc2_b;
    } convnext;
} AuxLayer;

typedef struct {
    AuxKind kind;
    bool takes_cls; /* keeps a class token among its tokens */
    void (*add)(AuxLayer *l, Params *params, const AuxSpec *s, const char *prefix);
    Tensor *(*forward)(const AuxLayer *l, Tape *t, Tensor *z, int rows, int cols, bool shortcut,
                       const Pass *pass, int place);
} AuxImpl;

struct AuxHead {
    AuxSpec spec;
    const AuxImpl *impl;
    Tensor *norm_w, *norm_b;
    AuxLayer layers[];
};

static void vit_add(AuxLayer *l, Params *params, const AuxSpec *s, const char *prefix)
{
    int heads = s->heads;
    if (!heads) {
        heads = s->dim / 64 > 1 ? s->dim / 64 : 1;
        while (s->dim % heads)
            heads--;
    }
    block_add(&l->vit, params, s->dim, heads, prefix);
}

static Tensor *vit_layer(const AuxLayer *l, Tape *t, Tensor *z, int rows, int cols, bool shortcut,
                         const Pass *pass, int place)
{
    (void)rows, (void)cols;
    return block_forward(&l->vit, t, z, NULL, shortcut, pass, place, NULL);
}

static void convnext_add(AuxLayer *l, Params *params, const AuxSpec *s, const char *prefix)
{
    char name[200];
    int64_t c = s->dim;
    snprintf(name, sizeof name, "%sdwconv", prefix);
    l->convnext.dw_w =
        params_add(params, (Init){ INIT_NORMAL, 0.02f }, 4, (int64_t[]){ c, 1, 7, 7 }, "%s.weight", name);
    l->convnext.dw_b = params_add(params, (Init){ INIT_ZERO, 0 }, 1, (int64_t[]){ c }, "%s.bias", name);
    snprintf(name, sizeof name, "%snorm", prefix);
    norm_add(params, c, name, &l->convnext.norm_w, &l->convnext.norm_b);
    snprintf(name, sizeof name, "%spwconv1", prefix);
    linear_add(params, 4 * c, c, name, &l->convnext.fc1_w, &l->convnext.fc1_b);
    snprintf(name, sizeof name, "%spwconv2", prefix);
    linear_add(params, c, 4 * c, name, &l->convnext.fc2_w, &l->convnext.fc2_b);
}

static Tensor *convnext_layer(const AuxLayer *l, Tape *t, Tensor *z, int rows, int cols, bool shortcut,
                              const Pass *pass, int place);

/* A call of convnext_layer that can be repeated. */
typedef struct {
    const AuxLayer *layer;
    int rows, cols, place;
    bool shortcut;
    Pass pass;
} ConvnextCall;

static Tensor *repeat_convnext(Tape *t, Tensor *z, const void *arg)
{
    const ConvnextCall *c = arg;
    return convnext_layer(c->layer, t, z, c->rows, c->cols, c->shortcut, &c->pass, c->place);
}

/* y = z + W2 gelu(W1 LN(dwconv7(z))) [Liu 2022], channels last throughout. */
static Tensor *convnext_layer(const AuxLayer *l, Tape *t, Tensor *z, int rows, int cols, bool shortcut,
                              const Pass *pass, int place)
{
    if (!z)
        return NULL;
    if (pass && pass->recompute) {
        ConvnextCall again = { l, rows, cols, place, shortcut, *pass };
        again.pass.recompute = false;
        return tape_recompute(t, z, repeat_convnext, &again, sizeof again);
    }
    int64_t batch = z->shape[0], n = z->shape[1], c = z->shape[2];
    size_t mark = tape_mark(t);
    BranchArgs mlp = { .norm_w = l->convnext.norm_w, .norm_b = l->convnext.norm_b, .eps = NORM_EPS,
                       .scale = { shortcut ? drop_path_factors(pass, 0, place, 0, batch) : NULL },
                       .residual = shortcut ? z : NULL, .lean = pass && pass->lean };
    Tensor *u = op_conv2d(t, tape_view(t, z, 4, (int64_t[]){ batch, rows, cols, c }), l->convnext.dw_w,
                          l->convnext.dw_b, 1, 3, (int)c);
    u = tape_view(t, u, 3, (int64_t[]){ batch, n, c });
    return tape_keep(t, mark,
                     op_mlp_branch(t, u, &mlp, l->convnext.fc1_w, l->convnext.fc1_b, l->convnext.fc2_w,
                                   l->convnext.fc2_b));
}

static const AuxImpl impls[] = {
    { .kind = { "none" } },
    { { "vit" }, true, vit_add, vit_layer },
    { { "convnext" }, false, convnext_add, convnext_layer },
};

static const AuxImpl *impl_find(const char *name)
{
    for (size_t i = 0; i < sizeof impls / sizeof *impls; i++)
        if (!strcmp(impls[i].kind.name, name))
            return &impls[i];
    err_set(ERR_ABSENT, "%.60s: no such auxiliary head (there are %s)", name, aux_words());
    return NULL;
}

const AuxKind *aux_find(const char *name)
{
    const AuxImpl *impl = impl_find(name);
    return impl ? &impl->kind : NULL;
}

const char *aux_words(void)
{
    return "none|vit|convnext";
}

AuxHead *aux_new(const AuxSpec *spec, Params *params, const char *prefix)
{
    const AuxImpl *impl = impl_find(spec->kind);
    if (!impl)
        return NULL;
    if (!impl->add) {
        err_set(ERR_USAGE, "auxiliary head %s: nothing to build", spec->kind);
        return NULL;
    }
    AuxHead *h = calloc(1, sizeof *h + (size_t)spec->depth * sizeof *h->layers);
    if (!h) {
        err_set(ERR_MEMORY, "auxiliary head: out of memory");
        return NULL;
    }
    h->spec = *spec;
    h->impl = impl;
    char name[160];
    for (int i = 0; i < spec->depth; i++) {
        snprintf(name, sizeof name, "%slayers.%d.", prefix, i);
        impl->add(&h->layers[i], params, spec, name);
    }
    snprintf(name, sizeof name, "%snorm", prefix);
    norm_add(params, spec->dim, name, &h->norm_w, &h->norm_b);
    return h;
}

void aux_free(AuxHead *h)
{
    free(h);
}

int aux_forward(AuxHead *h, Tape *t, const BackboneOut *base, bool want_patches, const Pass *pass,
                AuxOut *out)
{
    *out = (AuxOut){ 0 };
    if (!base->raw)
        return -1;
    Tensor *z = base->raw;
    int64_t batch = z->shape[0], n = (int64_t)base->rows * base->cols, c = z->shape[2];
    bool cls = base->cls && h->impl->takes_cls;
    size_t mark = tape_mark(t);
    if (base->cls && !cls)
        z = op_slice_tokens(t, z, 1, n + 1);
    for (int i = 0; i < h->spec.depth; i++) {
        z = tape_keep(t, mark,
                      h->impl->forward(&h->layers[i], t, z, base->rows, base->cols,
                                       i > 0 || h->spec.first_shortcut, pass, h->spec.first_layer + i));
        probe_see(pass, t, z, "output of aux.layers.%d", i);
    }
    Tensor *image =
        cls ? tape_view(t, op_slice_tokens(t, z, 0, 1), 2, (int64_t[]){ batch, c }) : op_mean_tokens(t, z);
    out->image = op_layer_norm(t, image, h->norm_w, h->norm_b, NORM_EPS);
    if (want_patches)
        out->patches =
            op_layer_norm(t, cls ? op_slice_tokens(t, z, 1, n + 1) : z, h->norm_w, h->norm_b, NORM_EPS);
    return tape_failed(t) ? -1 : 0;
}
