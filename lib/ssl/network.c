#include "ssl/network.h"

#include "models/aux.h"
#include "models/backbone.h"
#include "ssl/head.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

static const char BACKBONE[] = "backbone.";

struct Network {
    Backend *be;
    Params *params;
    Backbone *backbone;
    AuxHead *aux;
    bool heads, aux_mlp, aux_last; /* which projections are there; the auxiliary one's own parts */
    HeadMlp mlp_base, mlp_aux;
    HeadLast last_base, last_own;
    int dim, layers;
    float drop_path;
    size_t operands; /* so many floats of the parameters, the first, are mostly operands of products */
};

void network_free(Network *n)
{
    if (!n)
        return;
    backbone_free(n->backbone);
    aux_free(n->aux);
    params_free(n->params);
    free(n);
}

/* All of it but the memory of the parameters. */
static Network *build(const TrainConfig *c, int parts)
{
    Network *n = calloc(1, sizeof *n);
    if (!n) {
        err_set(ERR_MEMORY, "network: out of memory");
        return NULL;
    }
    BackboneSpec base = {
        .arch = c->arch,
        .dims = backbone_dims(c->arch, (int)c->dim, (int)c->depth, (int)c->heads),
        .patch = (int)c->patch_size,
        .image = (int)c->global_size,
    };
    bool has_aux = strcmp(c->aux, "none") != 0;
    n->dim = base.dims.dim;
    n->layers = base.dims.depth + (has_aux ? (int)c->aux_depth : 0);
    n->drop_path = (float)c->drop_path;
    if (!(n->params = params_new()) || !(n->backbone = backbone_new(&base, n->params, BACKBONE)))
        goto fail;
    if (has_aux && parts & NETWORK_AUX) {
        AuxSpec spec = { .kind = c->aux, .dim = n->dim, .depth = (int)c->aux_depth,
                         .first_shortcut = c->aux_first_shortcut, .first_layer = base.dims.depth };
        if (!(n->aux = aux_new(&spec, n->params, "aux.")))
            goto fail;
    }
    if (parts & NETWORK_HEADS) {
        n->heads = true;
        n->aux_mlp = n->aux && strcmp(c->share_proj, "all");
        n->aux_last = n->aux && !strcmp(c->share_proj, "none");
        head_mlp_add(&n->mlp_base, n->params, n->dim, c->head_hidden, c->head_bottleneck, "head.");
        head_last_add(&n->last_base, n->params, c->head_bottleneck, c->out_dim, c->norm_last_layer, "head.");
        if (n->aux_mlp)
            head_mlp_add(&n->mlp_aux, n->params, n->dim, c->head_hidden, c->head_bottleneck, "head_aux.");
        if (n->aux_last)
            head_last_add(&n->last_own, n->params, c->head_bottleneck, c->out_dim, c->norm_last_layer,
                          "head_aux.");
    }
    return n;
fail:
    network_free(n);
    return NULL;
}

/* A last layer's weight is an operand only after its norm was taken. */
static size_t before_last_layer(Params *params)
{
    for (size_t i = 0; i < params_count(params); i++)
        if (params_at(params, i)->last_layer)
            return params_at(params, i)->offset;
    return params_bytes(params) / sizeof(float);
}

Network *network_new(const TrainConfig *c, int parts, bool trains, void *memory)
{
    if (config_check(c))
        return NULL;
    Backend *be = backend_open(c->device);
    Network *n = be ? build(c, parts) : NULL;
    if (n) {
        n->be = be;
        n->operands = before_last_layer(n->params);
    }
    if (n && (params_commit(n->params, be, memory, trains) ||
              (!memory && params_init(n->params, (uint64_t)c->seed)))) {
        network_free(n);
        return NULL;
    }
    return n;
}

size_t network_bytes(const TrainConfig *c, int parts)
{
    if (config_check(c))
        return 0;
    Network *n = build(c, parts);
    size_t bytes = n ? params_bytes(n->params) : 0;
    network_free(n);
    return bytes;
}

Params *network_params(Network *n)
{
    return n->params;
}

Backend *network_backend(Network *n)
{
    return n->be;
}

int network_dim(const Network *n)
{
    return n->dim;
}

bool network_has_aux(const Network *n)
{
    return n->aux != NULL;
}

int64_t network_draws(const Network *n)
{
    return n->drop_path > 0 && n->layers > 1 ? n->layers * BRANCHES : 0;
}

void network_draw(const Network *n, const DropPath *d, int64_t batch, float *factors)
{
    DropPath own = *d;
    own.rate = n->drop_path;
    own.layers = n->layers;
    drop_path_draw(&own, batch, factors);
}

/* The auxiliary head's image vector of images of one size. */
static int head_images(Network *n, Tape *t, const BackboneOut *base, const Pass *pass, NetworkOut *out)
{
    AuxOut head;
    if (aux_forward(n->aux, t, base, false, pass, &head))
        return -1;
    probe_see(pass, t, head.image, "image vectors of the auxiliary head");
    out->aux = head.image;
    return 0;
}

/* Keep the image vectors alone, base and head as one tensor, and give up all else. */
static int keep_images(Tape *t, size_t mark, NetworkOut *out)
{
    if (!out->aux)
        return (out->base = tape_keep(t, mark, out->base)) ? 0 : -1;
    int64_t b = out->base->shape[0], dim = out->base->shape[1], shape[] = { b, dim };
    Tensor *both = tape_keep(t, mark, op_concat(t, 2, (Tensor *[]){ out->base, out->aux }, 0));
    if (!both)
        return -1;
    out->base = tape_wrap(t, both->dtype, 2, shape, both->data);
    out->aux = tape_wrap(t, both->dtype, 2, shape, element(both->data, both->dtype, b * dim));
    return tape_failed(t) ? -1 : 0;
}

int network_images(Network *n, Tape *t, int sizes, Tensor *const *x, bool want_aux, const NetworkPass *how, NetworkOut *out)
{
    if (want_aux && !n->aux)
        return err_set(ERR_ABSENT, "this network has no auxiliary head");
    Pass pass = { 0 };
    if (how)
        pass = (Pass){ .recompute = how->recompute, .reached = how->reached, .reached_arg = how->reached_arg,
                       .probe = how->probe };
    size_t mark = tape_mark(t);
    Tensor *images[SAMPLE_SIZES];
    BackboneOut base[SAMPLE_SIZES];
    tape_operands(t, params_flat(n->params), n->operands);
    for (int i = 0; i < sizes; i++) {
        out[i] = (NetworkOut){ 0 };
        pass.factors[i] = how ? how->factors[i] : NULL;
        images[i] = x[i] && x[i]->dtype == DT_U8 ? op_image_normalize(t, x[i]) : x[i];
        if (!images[i])
            return -1;
        probe_see(&pass, t, images[i], "views");
    }
    if (backbone_forward(n->backbone, t, sizes, images, want_aux, false, &pass, base))
        return -1;
    for (int i = 0; i < sizes; i++) {
        Pass own = pass_of_size(&pass, i);
        own.lean = true; /* by count a third of its layers' memory, for a twentieth of their time */
        out[i].base = base[i].image;
        probe_see(&pass, t, base[i].image, "image vectors of the base");
        if (want_aux && head_images(n, t, &base[i], &own, &out[i]))
            return -1;
    }
    return tape_recording(t) || sizes > 1 ? 0 : keep_images(t, mark, out);
}

int network_logits(Network *n, Tape *t, int which, NetworkOut *out)
{
    if (!n->heads)
        return err_set(ERR_USAGE, "this network was built without projection heads");
    bool base = which & NETWORK_BASE_LOGITS, aux = which & NETWORK_AUX_LOGITS;
    DType dtype = tape_recording(t) ? tape_backend(t)->real : DT_F32;
    Tensor *w = base || !n->aux_last ? head_last_weight(&n->last_base, t) : NULL;
    if (base)
        out->base_logits = head_forward(&n->mlp_base, t, out->base, w, dtype);
    if (aux) {
        Tensor *own = n->aux_last ? head_last_weight(&n->last_own, t) : w;
        out->aux_logits = head_forward(n->aux_mlp ? &n->mlp_aux : &n->mlp_base, t, out->aux, own, dtype);
    }
    return tape_failed(t) ? -1 : 0;
}

Tensor *network_features(Network *n, Tape *t, Tensor *x, bool aux)
{
    NetworkOut out = { 0 };
    if (network_images(n, t, 1, &x, aux, NULL, &out))
        return NULL;
    return aux ? out.aux : out.base;
}

static int add_params(Network *n, const char *prefix, const char *only, StateList *l)
{
    size_t skip = only ? strlen(only) : 0;
    for (size_t i = 0; i < params_count(n->params); i++) {
        const Param *q = params_at(n->params, i);
        if (only && strncmp(q->name, only, skip))
            continue;
        if (state_add(l, n->be, prefix, q->name + skip, STATE_F32, q->tensor->ndim, q->tensor->shape,
                      q->tensor->data))
            return -1;
    }
    return 0;
}

int network_state(Network *n, const char *prefix, StateList *l)
{
    return add_params(n, prefix, NULL, l);
}

int network_backbone_state(Network *n, const char *prefix, StateList *l)
{
    return add_params(n, prefix, BACKBONE, l);
}

int network_load(Network *n, const char *prefix, StateLookup lookup, void *arg)
{
    StateList l = { 0 };
    int rc = network_state(n, prefix, &l);
    if (!rc)
        rc = state_load(&l, lookup, arg);
    state_free(&l);
    return rc;
}
