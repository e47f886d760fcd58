/* Vision transformer [Dosovitskiy 2021] as DINO has it: class token, learned positions, norms before the
 * branches. Names and shapes are timm's. */
#include "models/backbone.h"
#include "tensor/ops.h"
#include "util/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    Backbone base;
    int grid; /* side of the grid that pos_embed is made for */
    Tensor *cls, *pos, *patch_w, *patch_b, *norm_w, *norm_b;
    Block blocks[];
} Vit;

static Backbone *vit_build(const BackboneSpec *s, Params *params, const char *prefix)
{
    int64_t c = s->dims.dim, p = s->patch, grid = s->image / s->patch;
    Vit *v = calloc(1, sizeof *v + (size_t)s->dims.depth * sizeof *v->blocks);
    if (!v) {
        err_set(ERR_MEMORY, "%s: out of memory", s->arch);
        return NULL;
    }
    v->base = (Backbone){ .family = &vit_family, .spec = *s };
    v->grid = (int)grid;
    Init normal = { INIT_NORMAL, 0.02f };
    /* The patch projection keeps PyTorch's initial values of a convolution: U(-1/sqrt(fan in), ..). */
    Init conv = { INIT_UNIFORM, (float)(1 / sqrt(3.0 * (double)(p * p))) };
    v->cls = params_add(params, normal, 3, (int64_t[]){ 1, 1, c }, "%scls_token", prefix);
    v->pos = params_add(params, normal, 3, (int64_t[]){ 1, grid * grid + 1, c }, "%spos_embed", prefix);
    v->patch_w = params_add(params, conv, 4, (int64_t[]){ c, 3, p, p }, "%spatch_embed.proj.weight", prefix);
    v->patch_b = params_add(params, conv, 1, (int64_t[]){ c }, "%spatch_embed.proj.bias", prefix);
    char name[160];
    for (int i = 0; i < s->dims.depth; i++) {
        snprintf(name, sizeof name, "%sblocks.%d.", prefix, i);
        block_add(&v->blocks[i], params, s->dims.dim, s->dims.heads, name);
    }
    snprintf(name, sizeof name, "%snorm", prefix);
    norm_add(params, c, name, &v->norm_w, &v->norm_b);
    return &v->base;
}

static void vit_free(Backbone *b)
{
    free(b);
}

/* Positions for an image of height x width: as they are for the native square, else resized to the grid of
 * patches with scale (n + 0.1) / G, the rule of DINO's interpolate_pos_encoding. */
static Tensor *positions(Vit *v, Tape *t, int64_t height, int64_t width)
{
    int rows = (int)(height / v->base.spec.patch), cols = (int)(width / v->base.spec.patch);
    if (rows * cols == v->grid * v->grid && height == width)
        return v->pos;
    return op_pos_resize(t, v->pos, 1, rows, cols, 0.1);
}

/* The patches of images of one size, and their positions. */
static int embed(Vit *v, Tape *t, Tensor *x, Tensor **patches, Tensor **pos, BackboneOut *out)
{
    *out = (BackboneOut){ .cls = true };
    if (!x)
        return -1;
    int64_t height = x->shape[2], width = x->shape[3], patch = v->base.spec.patch;
    out->rows = (int)(height / patch);
    out->cols = (int)(width / patch);
    if (!out->rows || !out->cols)
        return err_set(ERR_SHAPE, "%s: an image of %lld x %lld is smaller than a patch of %lld", v->base.spec.arch,
                       (long long)width, (long long)height, (long long)patch);
    *patches = op_patch_embed(t, x, v->patch_w, v->patch_b, (int)patch);
    *pos = positions(v, t, height, width);
    return 0;
}

/* What is asked for of z, the tokens of samples of one size. */
static void deliver(const Vit *v, Tape *t, Tensor *z, bool want_raw, bool want_tokens, BackboneOut *out)
{
    Tensor *cls = z ? tape_view(t, op_slice_tokens(t, z, 0, 1), 2, (int64_t[]){ z->shape[0], z->shape[2] }) : NULL;
    out->image = op_layer_norm(t, cls, v->norm_w, v->norm_b, NORM_EPS);
    if (want_tokens && z)
        out->tokens = op_layer_norm(t, op_slice_tokens(t, z, 1, z->shape[1]), v->norm_w, v->norm_b, NORM_EPS);
    if (want_raw)
        out->raw = z;
}

static int vit_forward(Backbone *b, Tape *t, int n, Tensor *const *x, bool want_raw, bool want_tokens, const Pass *pass,
                       BackboneOut *out)
{
    Vit *v = (Vit *)b;
    Tensor *patches[SAMPLE_SIZES], *pos[SAMPLE_SIZES];
    Samples samples;
    size_t mark = tape_mark(t);
    for (int i = 0; i < n; i++)
        if (embed(v, t, x[i], &patches[i], &pos[i], &out[i]))
            return -1;
    Tensor *z = tape_keep(t, mark, op_tokens(t, n, patches, v->cls, pos, &samples));
    probe_see(pass, t, z, "tokens of %d x %d patches", out->rows, out->cols);
    for (int i = 0; i < b->spec.dims.depth; i++) {
        /* A milestone ends the gradients of what comes after it: the next block's norm must not run back behind it. */
        bool alone = i + 1 == b->spec.dims.depth || (pass && pass->reached);
        if (pass && pass->reached)
            z = tape_milestone(t, z, pass->reached, pass->reached_arg);
        z = tape_keep(t, mark, block_forward(&v->blocks[i], t, z, n > 1 ? &samples : NULL, true, pass, i,
                                             alone ? NULL : &v->blocks[i + 1]));
        probe_see(pass, t, z, "output of backbone.blocks.%d", i);
    }
    for (int i = 0; i < n; i++)
        deliver(v, t, n > 1 ? op_samples(t, z, &samples, i) : z, want_raw, want_tokens, &out[i]);
    return tape_failed(t) ? -1 : 0;
}

const BackboneFamily vit_family = { vit_build, vit_forward, vit_free };
