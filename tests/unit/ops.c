/* Every op against finite differences, over a table of shapes, for each instruction set; results of the
 * wider sets against the base one, twice with the same bits, and with memory poisoned before. */
#include "../tap.h"

#include "tensor/cpu/cpu.h"
#include "tensor/ops.h"
#include "tensor/tape.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 8, MAX = 200000 };

typedef struct {
    int ndim;
    int64_t dim[TENSOR_DIMS];
} Shape;

typedef struct {
    const char *name;
    Tensor *(*run)(Tape *t, Tensor **in, const int *p);
    Shape in[INPUTS]; /* ndim 0 ends the list */
    int p[4];
    double tolerance; /* of the finite differences; 0: 4e-3 */
    float spread;     /* of the inputs; 0: 1 */
} Case;

/* ---- the ops under test */

static float scales[64];

static const float *factors(Tape *t)
{
    return tape_upload(t, scales, sizeof scales);
}

static Tensor *linear(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_linear(t, x[0], x[1], x[2]);
}

static Tensor *linear_gelu(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_linear_gelu(t, x[0], x[1], x[2]);
}

static Tensor *mlp(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_mlp(t, x[0], x[1], x[2], x[3], x[4]);
}

/* p: 0 residual is x, 1 another tensor, 2 none; drop path or not */
static Tensor *mlp_branch(Tape *t, Tensor **x, const int *p)
{
    BranchArgs a = { .norm_w = x[5], .norm_b = x[6], .eps = 1e-6f, .scale = { p[1] ? factors(t) : NULL },
                     .residual = p[0] == 0 ? x[0] : p[0] == 1 ? x[7] : NULL, .lean = p[2] };
    return op_mlp_branch(t, x[0], &a, x[1], x[2], x[3], x[4]);
}

/* As on devices that have no kernel for the whole branch. */
static Tensor *mlp_products(Tape *t, Tensor **x, const int *p)
{
    Backend *be = tape_backend(t);
    int (*whole)(Backend *, const MlpArgs *) = be->mlp;
    be->mlp = NULL;
    Tensor *y = mlp_branch(t, x, p);
    be->mlp = whole;
    return y;
}

static Tensor *attention(Tape *t, Tensor **x, const int *p)
{
    return op_attention(t, x[0], p[0], NULL);
}

static Tensor *attention_branch(Tape *t, Tensor **x, const int *p)
{
    BranchArgs a = { .norm_w = x[5], .norm_b = x[6], .eps = 1e-6f, .scale = { p[1] ? factors(t) : NULL },
                     .residual = x[0] };
    return op_attention_branch(t, x[0], &a, x[1], x[2], x[3], x[4], p[0]);
}

static Tensor *layer_norm(Tape *t, Tensor **x, const int *p)
{
    return op_layer_norm(t, x[0], p[0] ? x[1] : NULL, p[0] ? x[2] : NULL, 1e-6f);
}

static Tensor *l2(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_l2_normalize(t, x[0], 1e-12f);
}

static Tensor *weight_norm(Tape *t, Tensor **x, const int *p)
{
    return op_weight_norm_linear(t, x[0], x[1], p[0] ? x[2] : NULL);
}

static Tensor *gelu(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_gelu(t, x[0]);
}

static Tensor *softmax(Tape *t, Tensor **x, const int *p)
{
    return p[0] ? op_log_softmax(t, x[0]) : op_softmax(t, x[0]);
}

/* x + s y, with x used again so that the shared gradient must be taken apart */
static Tensor *residual(Tape *t, Tensor **x, const int *p)
{
    Tensor *y = op_residual(t, x[0], x[1], p[0] ? factors(t) : NULL);
    return op_mul(t, op_add(t, y, x[0]), op_scale(t, y, 0.5f));
}

static Tensor *sums(Tape *t, Tensor **x, const int *p)
{
    return p[0] ? op_mean(t, x[0]) : op_sum(t, x[0]);
}

static Tensor *conv(Tape *t, Tensor **x, const int *p)
{
    return op_conv2d(t, x[0], x[1], x[2], p[0], p[1], p[2]);
}

static Tensor *permute(Tape *t, Tensor **x, const int *p)
{
    return p[0] ? op_nchw_to_nhwc(t, x[0]) : op_nhwc_to_nchw(t, x[0]);
}

static Tensor *patch_embed(Tape *t, Tensor **x, const int *p)
{
    return op_patch_embed(t, x[0], x[1], x[2], p[0]);
}

static Tensor *tokens(Tape *t, Tensor **x, const int *p)
{
    return p[0] ? op_tokens(t, 1, x, x[1], &x[2], NULL) : op_tokens(t, 1, x, NULL, &x[1], NULL);
}

static Tensor *pos_resize(Tape *t, Tensor **x, const int *p)
{
    return op_pos_resize(t, x[0], p[2], p[0], p[1], 0.1);
}

static Tensor *slice(Tape *t, Tensor **x, const int *p)
{
    Tensor *y = op_slice_tokens(t, x[0], p[0], p[1]);
    return op_concat(t, 2, (Tensor *[]){ y, op_scale(t, y, 2) }, p[2]);
}

static Tensor *concat(Tape *t, Tensor **x, const int *p)
{
    return op_concat(t, 3, (Tensor *[]){ x[0], x[1], x[0] }, p[0]);
}

static Tensor *mean_tokens(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_mean_tokens(t, x[0]);
}

/* The targets are x[1] through softmax, without a gradient. */
static Tensor *target(Tape *t, Tensor *x)
{
    bool needs = x->needs_grad;
    x->needs_grad = false;
    Tensor *q = op_softmax(t, x);
    x->needs_grad = needs;
    return q;
}

static Tensor *dino(Tape *t, Tensor **x, const int *p)
{
    return op_dino_loss(t, x[0], target(t, x[1]), p[0], p[1], 0.5f, 0.7f, NULL);
}

/* The gradient takes the place of the logits. */
static Tensor *dino_of_logits(Tape *t, Tensor **x, const int *p)
{
    return op_dino_loss(t, op_logits(t, x[0], x[2], NULL, DT_F32), target(t, x[1]), p[0], p[1], 0.5f, 2, NULL);
}

/* The gradient must outlast what the ops before need on the way back. */
static Tensor *soft_ce_of_mlp(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_soft_cross_entropy(t, op_mlp(t, x[0], x[2], NULL, x[3], NULL), target(t, x[1]), 0.5f);
}

static Tensor *soft_ce(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_soft_cross_entropy(t, x[0], target(t, x[1]), 0.5f);
}

static Tensor *hard_ce(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    int64_t rows = x[0]->shape[0], label[64];
    for (int64_t i = 0; i < rows; i++)
        label[i] = i % 3 == 1 ? 255 : i % x[0]->shape[1];
    Tensor *l = tape_tensor(t, DT_I64, 1, &rows);
    if (l)
        tape_write(t, l, label);
    return op_cross_entropy(t, x[0], l, 255);
}

static Tensor *kl(Tape *t, Tensor **x, const int *p)
{
    (void)p;
    return op_kl(t, x[0], x[1]);
}

#define S(...) { sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t), { __VA_ARGS__ } }

static const Case cases[] = {
    { "linear 1", linear, { S(1, 1), S(1, 1), S(1) }, .p = { 0 } },
    { "linear odd", linear, { S(3, 5, 7), S(11, 7), S(11) }, .p = { 0 } },
    { "linear wide", linear, { S(2, 65, 33), S(70, 33), S(70) }, .p = { 0 } },
    { "linear long", linear, { S(700, 19), S(17, 19), S(17) }, .p = { 0 } },
    { "linear packed, deep", linear, { S(400, 201), S(17, 201), S(17) }, .p = { 0 } },
    { "linear empty", linear, { S(0, 5, 7), S(11, 7), S(11) }, .p = { 0 } },
    { "linear gelu", linear_gelu, { S(5, 13), S(19, 13), S(19) }, .p = { 0 } },
    { "linear gelu long", linear_gelu, { S(600, 13), S(19, 13), S(19) }, .p = { 0 } },
    { "mlp", mlp, { S(3, 7, 5), S(20, 5), S(20), S(5, 20), S(5) }, .p = { 0 } },
    { "mlp branch", mlp_branch, { S(3, 7, 16), S(64, 16), S(64), S(16, 64), S(16), S(16), S(16) },
      .p = { 0, 0 } },
    { "mlp branch dropped", mlp_branch, { S(4, 5, 17), S(33, 17), S(33), S(17, 33), S(17), S(17), S(17) },
      .p = { 0, 1 } },
    { "mlp branch long", mlp_branch, { S(5, 61, 9), S(33, 9), S(33), S(9, 33), S(9), S(9), S(9) },
      .p = { 0, 1 } },
    { "mlp branch packed", mlp_branch, { S(7, 61, 9), S(33, 9), S(33), S(9, 33), S(9), S(9), S(9) },
      .p = { 0, 1 } },
    { "mlp branch other residual", mlp_branch,
      { S(2, 7, 9), S(20, 9), S(20), S(9, 20), S(9), S(9), S(9), S(2, 7, 9) }, .p = { 1, 1 } },
    { "mlp branch no residual", mlp_branch, { S(2, 3, 9), S(20, 9), S(20), S(9, 20), S(9), S(9), S(9) },
      .p = { 2, 0 } },
    { "mlp branch empty", mlp_branch, { S(0, 3, 9), S(20, 9), S(20), S(9, 20), S(9), S(9), S(9) },
      .p = { 0, 0 } },
    { "mlp by products", mlp_products, { S(4, 5, 17), S(33, 17), S(33), S(17, 33), S(17), S(17), S(17) },
      .p = { 0, 1 } },
    { "mlp by products, lean", mlp_products, { S(4, 5, 17), S(33, 17), S(33), S(17, 33), S(17), S(17), S(17) },
      .p = { 0, 1, 1 } },
    { "mlp by products, packed", mlp_products, { S(7, 61, 9), S(33, 9), S(33), S(9, 33), S(9), S(9), S(9) },
      .p = { 0, 0 } },
    { "mlp by products, other residual", mlp_products,
      { S(2, 3, 9), S(20, 9), S(20), S(9, 20), S(9), S(9), S(9), S(2, 3, 9) }, .p = { 1, 0 } },
    { "mlp by products, empty", mlp_products, { S(0, 3, 9), S(20, 9), S(20), S(9, 20), S(9), S(9), S(9) }, .p = { 0 } },
    { "attention 1", attention, { S(1, 1, 3) }, .p = { 1 } },
    { "attention", attention, { S(2, 11, 72) }, .p = { 3 } },
    { "attention 37", attention, { S(2, 37, 192) }, .p = { 1 } },
    { "attention 65", attention, { S(1, 65, 384) }, .p = { 2 } },
    { "attention 300", attention, { S(1, 300, 24) }, .p = { 2 } },
    { "attention empty", attention, { S(0, 11, 72) }, .p = { 3 } },
    { "attention branch", attention_branch, { S(3, 9, 16), S(48, 16), S(48), S(16, 16), S(16), S(16), S(16) },
      .p = { 2, 0 }, .spread = 0.3f },
    { "attention branch dropped", attention_branch,
      { S(3, 9, 8), S(24, 8), S(24), S(8, 8), S(8), S(8), S(8) },
      .p = { 1, 1 }, .spread = 0.3f },
    { "layer norm", layer_norm, { S(3, 5, 19), S(19), S(19) }, .p = { 1 } },
    { "layer norm 64", layer_norm, { S(70, 64), S(64), S(64) }, .p = { 1 } },
    { "layer norm plain", layer_norm, { S(7, 33) }, .p = { 0 } },
    { "layer norm empty", layer_norm, { S(0, 33), S(33), S(33) }, .p = { 1 } },
    { "l2 normalize", l2, { S(5, 11) }, .p = { 0 } },
    { "l2 normalize 64", l2, { S(33, 64) }, .p = { 0 } },
    { "weight norm", weight_norm, { S(5, 12), S(17, 12), S(17, 1) }, .p = { 1 } },
    { "weight norm, g fixed", weight_norm, { S(3, 32), S(40, 32) }, .p = { 0 } },
    { "gelu", gelu, { S(107) }, .p = { 0 }, .spread = 2 },
    { "gelu 1", gelu, { S(1) }, .p = { 0 } },
    { "gelu empty", gelu, { S(0, 3) }, .p = { 0 } },
    { "softmax", softmax, { S(4, 13) }, .p = { 0 } },
    { "softmax 1", softmax, { S(3, 1) }, .p = { 0 } },
    { "log softmax", softmax, { S(3, 67) }, .p = { 1 } },
    { "residual", residual, { S(3, 4, 5), S(3, 4, 5) }, .p = { 0 } },
    { "residual dropped", residual, { S(4, 3, 17), S(4, 3, 17) }, .p = { 1 } },
    { "sum", sums, { S(3, 33) }, .p = { 0 } },
    { "mean", sums, { S(129) }, .p = { 1 } },
    { "mean empty", sums, { S(0, 3) }, .p = { 1 } },
    { "conv 1x1", conv, { S(2, 4, 3, 5), S(8, 5, 1, 1), S(8) }, .p = { 1, 0, 1 } },
    { "conv 3x3 stride 2", conv, { S(2, 7, 6, 5), S(9, 5, 3, 3), S(9) }, .p = { 2, 1, 1 } },
    { "conv 7x7 stride 4", conv, { S(1, 17, 12, 3), S(4, 3, 7, 7), S(4) }, .p = { 4, 2, 1 } },
    { "conv empty", conv, { S(0, 7, 6, 5), S(9, 5, 3, 3), S(9) }, .p = { 2, 1, 1 } },
    { "depthwise 7x7", conv, { S(2, 6, 5, 9), S(9, 1, 7, 7), S(9) }, .p = { 1, 3, 9 } },
    { "depthwise 7x7 on 14x14", conv, { S(2, 14, 14, 35), S(35, 1, 7, 7), S(35) }, .p = { 1, 3, 35 } },
    { "depthwise 7x7 on 8x8", conv, { S(3, 8, 8, 80), S(80, 1, 7, 7), S(80) }, .p = { 1, 3, 80 } },
    { "depthwise 7x7 on 3x2", conv, { S(2, 3, 2, 16), S(16, 1, 7, 7), S(16) }, .p = { 1, 3, 16 } },
    { "depthwise 3x3 stride 2", conv, { S(2, 7, 6, 5), S(5, 1, 3, 3), S(5) }, .p = { 2, 1, 5 } },
    { "depthwise empty", conv, { S(0, 6, 5, 9), S(9, 1, 7, 7), S(9) }, .p = { 1, 3, 9 } },
    { "nchw to nhwc", permute, { S(2, 3, 5, 7) }, .p = { 1 } },
    { "nhwc to nchw", permute, { S(2, 5, 7, 19) }, .p = { 0 } },
    { "patch embed", patch_embed, { S(2, 3, 12, 20), S(10, 3, 4, 4), S(10) }, .p = { 4 } },
    { "patch embed, rest", patch_embed, { S(1, 3, 9, 11), S(6, 3, 4, 4), S(6) }, .p = { 4 } },
    { "tokens", tokens, { S(3, 4, 17), S(1, 1, 17), S(1, 5, 17) }, .p = { 1 } },
    { "tokens, no class", tokens, { S(3, 4, 5), S(1, 4, 5) }, .p = { 0 } },
    { "tokens empty", tokens, { S(0, 4, 5), S(1, 1, 5), S(1, 5, 5) }, .p = { 1 } },
    { "pos resize down", pos_resize, { S(1, 37, 5) }, .p = { 3, 4, 1 } },
    { "pos resize up", pos_resize, { S(1, 9, 17) }, .p = { 5, 4, 0 } },
    { "slice and concat", slice, { S(3, 6, 5) }, .p = { 1, 5, 1 } },
    { "slice first", slice, { S(3, 6, 5) }, .p = { 0, 1, 2 } },
    { "concat 0", concat, { S(3, 5), S(2, 5) }, .p = { 0 } },
    { "concat last", concat, { S(3, 2, 5), S(3, 2, 4) }, .p = { -1 } },
    { "mean of tokens", mean_tokens, { S(3, 7, 19) }, .p = { 0 } },
    { "mean of tokens, wide", mean_tokens, { S(2, 100, 600) }, .p = { 0 } },
    { "dino loss", dino, { S(15, 23), S(6, 23) }, .p = { 5, 3 } },
    { "dino loss, two views", dino, { S(4, 130), S(4, 130) }, .p = { 2, 2 } },
    { "dino loss, many classes", dino, { S(4, 4100), S(4, 4100) }, .p = { 2, 2 }, .tolerance = 2e-2 },
    { "dino loss, 1 sample", dino, { S(3, 1), S(2, 1) }, .p = { 3, 1 } },
    { "dino loss of logits", dino_of_logits, { S(9, 7), S(6, 40), S(40, 7) }, .p = { 3, 3 } },
    { "soft cross-entropy", soft_ce, { S(5, 37), S(5, 37) }, .p = { 0 } },
    { "soft cross-entropy of an mlp", soft_ce_of_mlp, { S(70, 16), S(70, 16), S(40, 16), S(16, 40) }, .p = { 0 } },
    { "cross-entropy", hard_ce, { S(5, 9) }, .p = { 0 } },
    { "kl", kl, { S(5, 19), S(5, 19) }, .p = { 0 } },
    { "kl, many classes", kl, { S(3, 4100), S(3, 4100) }, .p = { 0 }, .tolerance = 2e-2 },
};

/* ---- the frame */

typedef struct {
    Tensor x[INPUTS], g[INPUTS];
    int n;
} Inputs;

static void make_inputs(const Case *c, Inputs *in)
{
    memset(in, 0, sizeof *in);
    for (; in->n < INPUTS && c->in[in->n].ndim; in->n++) {
        Tensor *x = &in->x[in->n], *g = &in->g[in->n];
        x->ndim = c->in[in->n].ndim;
        memcpy(x->shape, c->in[in->n].dim, sizeof x->shape);
        *g = *x;
        x->needs_grad = true;
        x->grad = g;
        int64_t count = tensor_count(x);
        x->data = calloc((size_t)count + 1, sizeof(float));
        g->data = calloc((size_t)count + 1, sizeof(float));
        Rng r = rng_make(1, RNG_TEST, rng_hash(c->name), (uint32_t)in->n);
        for (int64_t i = 0; i < count; i++)
            ((float *)x->data)[i] = (c->spread > 0 ? c->spread : 1) * rng_normal(&r);
    }
}

static void free_inputs(Inputs *in)
{
    for (int i = 0; i < in->n; i++) {
        free(in->x[i].data);
        free(in->g[i].data);
    }
}

/* Leave NaN in the memory that the next step will use. */
static void poison(Tape *t)
{
    static float nan_row[4096];
    tape_begin(t, false);
    for (int i = 0; i < 4096; i++)
        nan_row[i] = NAN;
    for (int i = 0; i < 256; i++) {
        Tensor *x = tape_tensor(t, DT_F32, 1, (int64_t[]){ i % 2 ? 4096 : 16 });
        if (x)
            tape_write(t, x, nan_row);
    }
}

static void direction(const Case *c, const char *what, int index, float *d, int64_t n)
{
    Rng r = rng_make(2, RNG_TEST, rng_hash(c->name) ^ rng_hash(what), (uint32_t)index);
    for (int64_t i = 0; i < n; i++)
        d[i] = rng_normal(&r);
}

/* How the inputs come: parameters, whose gradients are added to, or results of another op, whose gradients are
 * set by the first that gets there. */
static bool behind_an_op;

/* sum of out * gout in double; the output itself into `keep` when asked. */
static double value(Tape *t, const Case *c, Inputs *in, bool record, float *keep, int64_t *count, float *gout)
{
    Tensor *x[INPUTS] = { 0 };
    poison(t);
    tape_begin(t, record);
    for (int i = 0; i < in->n; i++)
        x[i] = behind_an_op ? op_scale(t, &in->x[i], 1) : &in->x[i];
    Tensor *y = c->run(t, x, c->p);
    if (!y)
        return NAN;
    int64_t n = tensor_count(y);
    if (count)
        *count = n;
    if (keep)
        memcpy(keep, y->data, (size_t)n * sizeof *keep);
    direction(c, "gout", 0, gout, n);
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)((float *)y->data)[i] * (double)gout[i];
    if (record) {
        Tensor *g = tape_wrap(t, DT_F32, y->ndim, y->shape, gout);
        if (tape_backward_from(t, 1, &y, &g) < 0)
            return NAN;
    }
    return s;
}

/* Gradients of all inputs along a direction each, against (f(x + h d) - f(x - h d)) / 2h. */
static bool differences(Tape *t, const Case *c, Inputs *in, float *gout)
{
    static float d[MAX], saved[MAX];
    bool good = true;
    for (int i = 0; i < in->n; i++) {
        int64_t n = tensor_count(&in->x[i]);
        float *x = in->x[i].data, *g = in->g[i].data;
        direction(c, "direction", i, d, n);
        memcpy(saved, x, (size_t)n * sizeof *x);
        double want = 0, size = 0, norm = 0, side[2];
        for (int64_t k = 0; k < n; k++) {
            want += (double)g[k] * (double)d[k];
            size += (double)g[k] * (double)g[k];
            norm += (double)d[k] * (double)d[k];
        }
        bool constant = size == 0;
        if (constant && !n)
            continue;
        float h = 0.02f / (float)sqrt(norm / (double)(n ? n : 1)) / (n > 64 ? sqrtf((float)n / 64) : 1);
        for (int s = 0; s < 2; s++) {
            for (int64_t k = 0; k < n; k++)
                x[k] = saved[k] + (s ? h : -h) * d[k];
            side[s] = value(t, c, in, false, NULL, NULL, gout);
        }
        memcpy(x, saved, (size_t)n * sizeof *x);
        /* Targets take no gradient. */
        if (constant && i == 1 && strstr(c->name, "loss"))
            continue;
        if (constant && i == 1 && (strstr(c->name, "entropy") || !strncmp(c->name, "kl", 2)))
            continue;
        double got = (side[1] - side[0]) / (2 * (double)h), error = fabs(got - want) / (sqrt(size) + 1e-3);
        if (!(error <= (c->tolerance > 0 ? c->tolerance : 4e-3))) {
            diag("%s: input %d: gradient along a direction %.6g, differences %.6g", c->name, i, want, got);
            good = false;
        }
    }
    return good;
}

typedef struct {
    float *out, *grad[INPUTS];
    int64_t n;
} Kept;

static bool close_to(const float *a, const float *b, int64_t n)
{
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i]))
            return false;
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        scale = fmax(scale, fabs((double)b[i]));
    }
    return worst <= 1e-5 * scale + 1e-7;
}

static void test_case(Tape *t, const Case *c, Isa isa, Kept *base)
{
    static float out[MAX], again[MAX], gout[MAX];
    Inputs in;
    make_inputs(c, &in);
    int64_t n = 0;
    double f = value(t, c, &in, true, out, &n, gout);
    bool good = isfinite(f);
    if (!good)
        diag("%s", tape_failed(t) ? err_text() : "not finite");
    /* Inference gives the same numbers. */
    double quiet = value(t, c, &in, false, again, NULL, gout);
    good = good && isfinite(quiet) && close_to(again, out, n);
    bool same = true;
    if (good && differences(t, c, &in, gout)) {
        float *first[INPUTS], *indirect[INPUTS];
        for (int i = 0; i < in.n; i++) {
            size_t bytes = (size_t)tensor_count(&in.x[i]) * sizeof(float);
            first[i] = malloc(bytes + 1);
            memcpy(first[i], in.g[i].data, bytes);
            memset(in.g[i].data, 0, bytes);
        }
        behind_an_op = true;
        value(t, c, &in, true, again, NULL, gout);
        behind_an_op = false;
        for (int i = 0; i < in.n; i++) {
            size_t bytes = (size_t)tensor_count(&in.x[i]) * sizeof(float);
            indirect[i] = malloc(bytes + 1);
            memcpy(indirect[i], in.g[i].data, bytes);
            memset(in.g[i].data, 0, bytes);
        }
        value(t, c, &in, true, again, NULL, gout);
        same = !memcmp(out, again, (size_t)n * sizeof *out);
        for (int i = 0; i < in.n; i++) {
            int64_t count = tensor_count(&in.x[i]);
            if (!close_to(indirect[i], first[i], count)) {
                diag("%s: gradient %d is another behind an op", c->name, i);
                good = false;
            }
            free(indirect[i]);
            same = same && !memcmp(first[i], in.g[i].data, (size_t)count * sizeof(float));
            if (isa == ISA_BASE)
                base->grad[i] = first[i];
            else {
                if (base->grad[i] && !close_to(first[i], base->grad[i], count)) {
                    diag("%s: gradient %d differs from the base set's", c->name, i);
                    good = false;
                }
                free(first[i]);
            }
        }
    } else
        good = false;
    if (isa == ISA_BASE) {
        base->out = malloc((size_t)n * sizeof(float) + 1);
        memcpy(base->out, out, (size_t)n * sizeof(float));
        base->n = n;
    } else if (base->out && (base->n != n || !close_to(out, base->out, n))) {
        diag("%s: result differs from the base set's", c->name);
        good = false;
    }
    ok(good && same, "%s, %s%s", c->name, isa_name(isa), same ? "" : " (bits differ from run to run)");
    free_inputs(&in);
}

int main(void)
{
    enum { CASES = sizeof cases / sizeof *cases };
    static Kept base[CASES];
    for (int i = 0; i < 64; i++)
        scales[i] = i % 3 == 1 ? 0.0f : 1.25f;
    Isa best = strcmp(test_device(), "cpu") ? ISA_BASE : isa_best(); /* others have none of the sets */
    omp_set_num_threads(2);
    Tape *t = tape_new(test_device());
    if (!ok(t != NULL, "a tape on the CPU"))
        return tap_done();
    for (int isa = ISA_BASE; isa <= (int)best; isa++) {
        setenv("HSSL_ISA", isa_name((Isa)isa), 1);
        ISA_PICK(cpu_gemm_kernels)(&cpu);
        ISA_PICK(cpu_point_kernels)(&cpu);
        ISA_PICK(cpu_row_kernels)(&cpu);
        ISA_PICK(cpu_depthwise_kernels)(&cpu);
        for (int i = 0; i < CASES; i++)
            test_case(t, &cases[i], (Isa)isa, &base[i]);
    }
    for (int i = 0; i < CASES; i++) {
        free(base[i].out);
        for (int k = 0; k < INPUTS; k++)
            free(base[i].grad[k]);
    }
    tape_free(t);
    return tap_done();
}
