/* The ops. Each runs at once and, while the tape records, can run backwards. Parameters are F32; results are of the
 * device's real type (F32, or BF16 at reduced precision), those of losses and parameters F32.
 *
 * All take the tape first and return a result in its step arena, or NULL after an error (tensor/tensor.h).
 * Shapes are checked; [..., C] is any number of leading dimensions. An argument marked "or NULL" may be
 * left out. NULL for any other tensor makes the op return NULL quietly: the error was recorded before. */
#ifndef HSSL_OPS_H
#define HSSL_OPS_H

#include "tensor/tensor.h"

/* ---- linear algebra: op_linear.c */

/* y = x w^T + b. x [..., in], w [out, in], b [out] or NULL. */
Tensor *op_linear(Tape *t, Tensor *x, Tensor *w, Tensor *b);
/* The same for one loss, which may put the gradient in its place, and for nothing else that runs backwards. dtype: F32 at any
 * precision of the device, or the device's real type, where half the bytes matter more than the last digits. */
Tensor *op_logits(Tape *t, Tensor *x, Tensor *w, Tensor *b, DType dtype);
/* y = gelu(x w^T + b). Keeps the pre-activation only. */
Tensor *op_linear_gelu(Tape *t, Tensor *x, Tensor *w, Tensor *b);
/* W = g v / |v| by rows. v [K, D]; g [K, 1] or NULL for 1. Make it once a step and share it. [Salimans 2016]
 */
Tensor *op_weight_norm(Tape *t, Tensor *v, Tensor *g);
/* x W^T with that W. */
Tensor *op_weight_norm_linear(Tape *t, Tensor *x, Tensor *v, Tensor *g);

/* ---- transformer pieces: op_mlp.c, op_attention.c */

/* linear(gelu(linear(x, w1, b1)), w2, b2); biases may be NULL. */
Tensor *op_mlp(Tape *t, Tensor *x, Tensor *w1, Tensor *b1, Tensor *w2, Tensor *b2);
/* Whose rows a tensor [R, C] holds: samples of up to SAMPLE_SIZES sizes, those of one size together, each as so many tokens. */
enum { SAMPLE_SIZES = 2 };
typedef struct {
    int sizes; /* 0: the tensor is [B, N, C] and tells by itself */
    struct { int64_t count, tokens; } of[SAMPLE_SIZES];
} Samples;
/* The rows of the first n sizes: where those of size n begin. */
int64_t samples_rows(const Samples *samples, int n);

/* softmax(q k^T / sqrt(d)) v by head, each sample by itself. qkv [B, N, 3C], or [R, 3C] with the samples that it holds (else
 * NULL); the three parts in this order, heads side by side within each part; d = C / heads. -> [B, N, C] or [R, C]. Never
 * holds an N x N matrix. [Vaswani 2017, Eq. 1] */
Tensor *op_attention(Tape *t, Tensor *qkv, int heads, const Samples *samples);

typedef struct {
    Tensor *norm_w, *norm_b; /* layer norm before the branch; both NULL: none */
    float eps;
    Samples samples; /* of x */
    const float *scale[SAMPLE_SIZES]; /* drop path: memory of the device, alive for the step, one factor (0 or 1/keep) for each
                                  sample of a size; NULL for the first: 1 for all */
    bool lean; /* of an MLP keep what lies before gelu alone, and make the rest again on the way back */
    Tensor *residual; /* added to the branch: x itself in most blocks, another tensor of its shape, or NULL */
    Tensor *next_w, *next_b; /* layer norm (and eps) of what comes next: made with the result where that is faster, for
                                op_layer_norm and the next branch to find; or NULL both */
} BranchArgs;

/* Whole residual branches, fused as far as the device can: residual + scale * mlp(norm(x)) and
 * residual + scale * (w_proj attention(w_qkv norm(x) + b_qkv) + b_proj). The same numbers (within rounding)
 * as the single ops, less memory and time. x [B, ..., C] and [B, N, C], or [R, C] with a->samples. */
Tensor *op_mlp_branch(Tape *t, Tensor *x, const BranchArgs *a, Tensor *w1, Tensor *b1, Tensor *w2,
                      Tensor *b2);
Tensor *op_attention_branch(Tape *t, Tensor *x, const BranchArgs *a, Tensor *wqkv, Tensor *bqkv,
                            Tensor *wproj, Tensor *bproj, int heads);

/* ---- norms and elementwise: op_norm.c, op_residual.c, op_point.c */

/* (x - mean) / sqrt(var + eps) * gamma + beta over the last axis; biased variance of the centred values
 * [Ba 2016]. gamma, beta [C] or NULL both. */
Tensor *op_layer_norm(Tape *t, Tensor *x, Tensor *gamma, Tensor *beta, float eps);
/* x / max(|x|, eps) over the last axis. */
Tensor *op_l2_normalize(Tape *t, Tensor *x, float eps);
/* x Phi(x), not its approximation by tanh [Hendrycks 2016]. */
Tensor *op_gelu(Tape *t, Tensor *x);
Tensor *op_softmax(Tape *t, Tensor *x);     /* over the last axis */
Tensor *op_log_softmax(Tape *t, Tensor *x); /* over the last axis */
/* x as F32 or BF16; x itself where it is that already. */
Tensor *op_cast(Tape *t, Tensor *x, DType dtype);
/* x + scale[b] y, b the first axis, of y's type; scale: a factor for each b, or NULL.
 * x NULL: scale[b] y alone, which is drop path by itself [Huang 2016]. */
Tensor *op_residual(Tape *t, Tensor *x, Tensor *y, const float *scale);
/* The end of a branch, y: a->residual + a->scale y, and the norm a->next_w of it. */
Tensor *op_branch_end(Tape *t, Tensor *y, const BranchArgs *a);
/* Elementwise, x and y of one shape. */
Tensor *op_add(Tape *t, Tensor *x, Tensor *y);
Tensor *op_mul(Tape *t, Tensor *x, Tensor *y);
Tensor *op_scale(Tape *t, Tensor *x, float factor);
Tensor *op_sum(Tape *t, Tensor *x);  /* -> [1] */
Tensor *op_mean(Tape *t, Tensor *x); /* -> [1] */

/* ---- convolution and layout: op_conv.c, op_shape.c */

/* x [B, H, W, Cin] (channels last), w [Cout, Cin / groups, kh, kw] as PyTorch holds it, b [Cout] or NULL;
 * groups is 1, or Cin = Cout (depthwise). -> [B, Ho, Wo, Cout], Ho = (H + 2 pad - kh) / stride + 1. */
Tensor *op_conv2d(Tape *t, Tensor *x, Tensor *w, Tensor *b, int stride, int pad, int groups);
Tensor *op_nchw_to_nhwc(Tape *t, Tensor *x);
Tensor *op_nhwc_to_nchw(Tape *t, Tensor *x);
/* images [B, 3, H, W], w [C, 3, p, p], b [C] or NULL -> [B, N, C], N = (H / p) (W / p), row by row; what is
 * left over of H and W is not seen. [Dosovitskiy 2021, Eq. 1] */
Tensor *op_patch_embed(Tape *t, Tensor *images, Tensor *w, Tensor *b, int patch);
/* u8 [B, H, W, 3] -> f32 [B, 3, H, W], (x / 255 - mean) / std with ImageNet's mean and deviation. Not
 * differentiable. */
Tensor *op_image_normalize(Tape *t, const Tensor *x);
/* The class token in front of each sample's patches, plus position, for samples of n <= SAMPLE_SIZES sizes: patches[i]
 * [B, N, C], one behind the other; cls [1, 1, C] or NULL; pos[i] [1, N (+ 1 with cls), C] or NULL. -> [B, N (+ 1), C] where n is 1, else
 * [R, C]; *samples (or NULL) tells whose rows. [Dosovitskiy 2021, Eq. 1] */
Tensor *op_tokens(Tape *t, int n, Tensor *const *patches, Tensor *cls, Tensor *const *pos, Samples *samples);
/* The samples of one size, i, out of x [R, C] -> [B, N, C], in place. */
Tensor *op_samples(Tape *t, Tensor *x, const Samples *samples, int i);
/* Position embedding for another grid: pos [1, skip + G G, C] -> [1, skip + rows cols, C]; skip leading rows
 * (class tokens, 0 or 1) pass through. Bicubic, a = -0.75, half-pixel centres, clamped, no antialiasing,
 * source u = (j + 0.5) / s - 0.5, where s = (rows + offset) / G. offset 0.1 is the rule of DINO and iBOT
 * (interpolate_pos_encoding), 0 the plain resize. Always resamples: the caller skips it for the native grid.
 */
Tensor *op_pos_resize(Tape *t, Tensor *pos, int skip, int rows, int cols, double offset);
/* x [B, N, C] -> [B, to - from, C]. */
Tensor *op_slice_tokens(Tape *t, Tensor *x, int64_t from, int64_t to);
/* Along one axis (< 0 counts from the end); all other dimensions agree. */
Tensor *op_concat(Tape *t, int n, Tensor *const *xs, int axis);
/* x [B, N, C] -> [B, C]. */
Tensor *op_mean_tokens(Tape *t, Tensor *x);

/* ---- losses: op_loss.c; logits F32 or the device's real type, targets F32; all -> [1]; targets get no gradient */

/* DINO over V views, the first two global: student [V B, K] logits, view-major; q [2 B, K] teacher
 * probabilities. weight times the mean over the 2 (V - 1) pairs (i, v), v != i, of mean over b of -sum_k q_i[k]
 * log_softmax(s_v / temp)[k]; the mean itself goes to *value, memory of the device, unless that is NULL. [Caron 2021, Eq. 3] */
Tensor *op_dino_loss(Tape *t, Tensor *student, const Tensor *q, int views, int batch, float temp, float weight, float *value);
/* mean over rows of -sum_k target[k] log_softmax(logits / temp)[k]; both [R, K]. */
Tensor *op_soft_cross_entropy(Tape *t, Tensor *logits, const Tensor *target, float temp);
/* mean over rows of -log_softmax(logits)[label]; label I64 [R]; rows whose label is ignore add nothing but
 * count. */
Tensor *op_cross_entropy(Tape *t, Tensor *logits, const Tensor *label, int64_t ignore);
/* mean over rows of KL(softmax(target) || softmax(logits)), natural logarithm; both [R, K] logits. */
Tensor *op_kl(Tape *t, Tensor *logits, const Tensor *target);

#endif
