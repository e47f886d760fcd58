/* Golden checks of single layers: each case is the op between its inputs and its outputs. */
#include "golden.h"
#include "golden_tape.h"

#include "tensor/ops.h"
#include "tensor/tape.h"
#include "util/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void run_linear(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tensor *x = golden_leaf(r, "in.x"), *w = golden_leaf(r, "param.weight"),
           *b = golden_leaf_opt(r, "param.bias");
    golden_out(r, "y", op_linear(r->tape, x, w, b));
    golden_finish(r, NULL, "");
}

static void run_gelu(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    golden_out(r, "y", op_gelu(r->tape, golden_leaf(r, "in.x")));
    golden_finish(r, NULL, "");
}

static void run_mlp(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tensor *x = golden_leaf(r, "in.x"), *w1 = golden_leaf(r, "param.fc1.weight"),
           *b1 = golden_leaf(r, "param.fc1.bias");
    Tensor *w2 = golden_leaf(r, "param.fc2.weight"), *b2 = golden_leaf(r, "param.fc2.bias");
    golden_out(r, "y", op_mlp(r->tape, x, w1, b1, w2, b2));
    golden_finish(r, NULL, "");
}

static void run_attention(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tape *t = r->tape;
    Tensor *x = golden_leaf(r, "in.x"), *wq = golden_leaf(r, "param.qkv.weight"),
           *bq = golden_leaf(r, "param.qkv.bias");
    Tensor *wp = golden_leaf(r, "param.proj.weight"), *bp = golden_leaf(r, "param.proj.bias");
    golden_excuse(g, "out.attn", "the probabilities are never stored");
    Tensor *y = op_attention(t, op_linear(t, x, wq, bq), golden_int(g, "heads", 1), NULL);
    golden_out(r, "y", op_linear(t, y, wp, bp));
    golden_finish(r, NULL, "");
}

static void run_conv(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tape *t = r->tape;
    Tensor *x = golden_leaf(r, "in.x"), *w = golden_leaf(r, "param.weight"),
           *b = golden_leaf_opt(r, "param.bias");
    bool depthwise = golden_has(g, "groups");
    Tensor *y = op_conv2d(t, op_nchw_to_nhwc(t, x), w, b, golden_int(g, "stride", 1), golden_int(g, "pad", 0),
                          x && depthwise ? (int)x->shape[1] : 1);
    golden_out(r, "y", op_nhwc_to_nchw(t, y));
    golden_finish(r, NULL, "");
}

static void run_patch_embed(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tensor *x = golden_leaf(r, "in.x"), *w = golden_leaf(r, "param.proj.weight"),
           *b = golden_leaf(r, "param.proj.bias");
    golden_out(r, "y", op_patch_embed(r->tape, x, w, b, golden_int(g, "patch", 16)));
    golden_finish(r, NULL, "");
}

static void run_layer_norm(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tensor *x = golden_leaf(r, "in.x"), *w = golden_leaf(r, "param.weight"),
           *b = golden_leaf(r, "param.bias");
    golden_out(r, "y", op_layer_norm(r->tape, x, w, b, (float)golden_real(g, "eps", 1e-6)));
    golden_finish(r, NULL, "");
}

/* The outputs are the rows named by in.rows, so the op runs on these and the gradient of the others is zero.
 */
static void run_l2(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tape *t = r->tape;
    const GoldenTensor *rows = golden_get(g, "in.rows");
    Tensor *x = golden_leaf(r, "in.x"), *parts[64];
    int n = rows && rows->count <= 64 ? (int)rows->count : 0;
    Tensor *y = op_l2_normalize(t, x, (float)golden_real(g, "eps", 1e-12));
    Tensor *grid = y ? tape_view(t, y, 3, (int64_t[]){ 1, y->shape[0], y->shape[1] }) : NULL;
    for (int i = 0; i < n; i++) {
        int64_t at = ((const int64_t *)rows->data)[i];
        parts[i] = op_slice_tokens(t, grid, at, at + 1);
    }
    Tensor *picked = n ? op_concat(t, n, parts, 1) : NULL;
    golden_out(r, "y", picked ? tape_view(t, picked, 2, (int64_t[]){ n, y->shape[1] }) : NULL);
    golden_finish(r, NULL, "");
}

static void run_weight_norm(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tensor *x = golden_leaf(r, "in.x"), *v = golden_leaf(r, "param.weight_v"),
           *m = golden_leaf(r, "param.weight_g");
    golden_out(r, "y", op_weight_norm_linear(r->tape, x, v, m));
    golden_finish(r, NULL, "");
}

static void run_softmax(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tensor *x = golden_leaf(r, "in.x");
    golden_out(r, "softmax", op_softmax(r->tape, x));
    golden_out(r, "log_softmax", op_log_softmax(r->tape, x));
    golden_finish(r, NULL, "");
}

/* One draw a sample; the factor is floor(keep + u) / keep. */
static void run_drop_path(Golden *g)
{
    const GoldenTensor *draws = golden_get(g, "in.u");
    const float *u = golden_f32(g, "in.u");
    GoldenRun *r = u ? golden_begin(g) : NULL;
    if (!r)
        return;
    float scale[256], keep = 1 - (float)golden_real(g, "rate", 0);
    for (size_t i = 0; i < draws->count && i < 256; i++)
        scale[i] = floorf(keep + u[i]) / keep;
    golden_out(r, "y", op_residual(r->tape, NULL, golden_leaf(r, "in.x"), tape_upload(r->tape, scale, sizeof scale)));
    golden_finish(r, NULL, "");
}

static void run_pos_embed(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tape *t = r->tape;
    Tensor *pos = golden_leaf(r, "in.pos_embed");
    int64_t native = golden_int(g, "native_grid", 0);
    const GoldenTensor *each;
    for (size_t i = 0; (each = golden_at(g, i)); i++) {
        int rows, cols;
        if (sscanf(each->name, "out.explicit_%dx%d", &rows, &cols) == 2) {
            Tensor *y = op_pos_resize(t, pos, 1, rows, cols, 0);
            golden_out(r, each->name + 4, op_slice_tokens(t, y, 1, 1 + (int64_t)rows * cols));
        } else if (sscanf(each->name, "out.%dx%d", &rows, &cols) == 2) {
            bool same = rows == native && cols == native;
            golden_out(r, each->name + 4, same ? pos : op_pos_resize(t, pos, 1, rows, cols, 0.1));
        }
    }
    golden_finish(r, NULL, "");
}

static Tensor *constant(GoldenRun *r, const char *name, DType dtype)
{
    const GoldenTensor *c = golden_get(r->g, name);
    Tensor *x = c ? tape_tensor(r->tape, dtype, c->ndim, c->shape) : NULL;
    if (x)
        tape_write(r->tape, x, c->data);
    return x;
}

static void run_losses(Golden *g)
{
    GoldenRun *r = golden_begin(g);
    if (!r)
        return;
    Tape *t = r->tape;
    golden_excuse(g, "*smooth_l1*", "no smooth L1 loss here");
    golden_excuse(g, "*bce*", "no binary cross-entropy here");
    golden_out(r, "soft_ce",
               op_soft_cross_entropy(t, golden_leaf(r, "in.soft_ce_logits"),
                                     constant(r, "in.soft_ce_target", DT_F32), 1));
    golden_out(r, "ce",
               op_cross_entropy(t, golden_leaf(r, "in.ce_logits"), constant(r, "in.ce_label", DT_I64), -1));
    golden_out(r, "ce_ignore",
               op_cross_entropy(t, golden_leaf(r, "in.ce_ignore_logits"),
                                constant(r, "in.ce_ignore_label", DT_I64), 255));
    golden_out(r, "kl", op_kl(t, golden_leaf(r, "in.kl_logits"), constant(r, "in.kl_target_logits", DT_F32)));
    golden_finish(r, NULL, "");
}

static const GoldenCase cases[] = {
    { "layer_linear", run_linear },
    { "layer_gelu", run_gelu },
    { "layer_mlp", run_mlp },
    { "layer_attention", run_attention },
    { "layer_conv1x1*", run_conv },
    { "layer_conv2x2*", run_conv },
    { "layer_conv3x3*", run_conv },
    { "layer_conv7x7*", run_conv },
    { "layer_dwconv*", run_conv },
    { "layer_patch_embed", run_patch_embed },
    { "layer_layernorm*", run_layer_norm },
    { "layer_l2_normalize", run_l2 },
    { "layer_weight_norm_linear", run_weight_norm },
    { "layer_softmax", run_softmax },
    { "layer_drop_path", run_drop_path },
    { "layer_pos_embed_bicubic", run_pos_embed },
    { "layer_losses", run_losses },
    { NULL, NULL },
};
GOLDEN_REGISTER(cases)
