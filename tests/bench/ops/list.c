#include "list.h"

#include "tensor/ops.h"

static Tensor *linear(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_linear(t, x[0], x[1], x[2]);
}
static Tensor *linear_gelu(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_linear_gelu(t, x[0], x[1], x[2]);
}
static Tensor *logits(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_logits(t, x[0], x[1], NULL, tape_backend(t)->real);
}
static Tensor *mlp_branch(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    BranchArgs a = { .norm_w = x[5], .norm_b = x[6], .eps = 1e-6f, .residual = x[0] };
    return op_mlp_branch(t, x[0], &a, x[1], x[2], x[3], x[4]);
}
static Tensor *attention(Tape *t, Tensor **x, const int64_t *p)
{
    return op_attention(t, x[0], (int)p[0], NULL);
}
static Tensor *attention_branch(Tape *t, Tensor **x, const int64_t *p)
{
    BranchArgs a = { .norm_w = x[5], .norm_b = x[6], .eps = 1e-6f, .residual = x[0] };
    return op_attention_branch(t, x[0], &a, x[1], x[2], x[3], x[4], (int)p[0]);
}
static Tensor *layer_norm(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_layer_norm(t, x[0], x[1], x[2], 1e-6f);
}
static Tensor *gelu(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_gelu(t, x[0]);
}
static Tensor *softmax(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_softmax(t, x[0]);
}
static Tensor *residual(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_residual(t, x[0], x[1], NULL);
}
static Tensor *residual_norm(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    BranchArgs a = { .residual = x[0], .next_w = x[2], .next_b = x[3], .eps = 1e-6f };
    Tensor *sum = op_branch_end(t, x[1], &a);
    return op_layer_norm(t, sum, x[2], x[3], a.eps);
}
static Tensor *depthwise(Tape *t, Tensor **x, const int64_t *p)
{
    return op_conv2d(t, x[0], x[1], x[2], 1, 3, (int)p[0]);
}
static Tensor *patch_embed(Tape *t, Tensor **x, const int64_t *p)
{
    x[0]->needs_grad = false;
    return op_patch_embed(t, x[0], x[1], x[2], (int)p[0]);
}
static Tensor *weight_norm(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_weight_norm(t, x[0], NULL);
}
static Tensor *dino_loss(Tape *t, Tensor **x, const int64_t *p)
{
    return op_dino_loss(t, x[0], x[1], (int)p[0], (int)p[1], 0.1f, 1, NULL);
}

#define D(...) { sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t), { __VA_ARGS__ } }
#define M(x) ((double)(x) / 1e6)
/* A block's branches for rows tokens of width c. */
#define MLP(name, b, n, c) \
    { name, mlp_branch, 1, { D(b, n, c), D(4 * c, c), D(4 * c), D(c, 4 * c), D(c), D(c), D(c) }, \
      { 0 }, 16.0 * b * n * c * c, { 0 }, 2 }
#define ATTENTION_BRANCH(name, b, n, c, h) \
    { name, attention_branch, 1, { D(b, n, c), D(3 * c, c), D(3 * c), D(c, c), D(c), D(c), D(c) }, { h }, \
      8.0 * b * n * c * c + 4.0 * b * n * n * c, { 0 }, 2 }
#define LINEAR(name, r, i, k) { name, linear, 1, { D(r, i), D(k, i), D(k) }, { 0 }, 2.0 * r * i * k, { 0 }, 2 }

static const OpBench processor[] = {
    LINEAR("linear a qkv 8320x192x576", 8320, 192, 576),
    LINEAR("linear b qkv 3152x384x1152", 3152, 384, 1152),
    LINEAR("linear last 128x256x8192", 128, 256, 8192),
    MLP("mlp branch a 8320x192", 128, 65, 192),
    MLP("mlp branch b 3152x384", 16, 197, 384),
    MLP("mlp branch b local 592x384", 16, 37, 384),
    { "attention a 384 x 65", attention, 1, { D(128, 65, 576) }, { 3 }, 4.0 * 128 * 65 * 65 * 192, { 0 }, 2 },
    { "attention b 96 x 197", attention, 1, { D(16, 197, 1152) }, { 6 }, 4.0 * 16 * 197 * 197 * 384, { 0 }, 2 },
    { "attention b local 96 x 37", attention, 1, { D(16, 37, 1152) },
      { 6 }, 4.0 * 16 * 37 * 37 * 384, { 0 }, 2 },
    ATTENTION_BRANCH("attention branch a", 128, 65, 192, 3),
    ATTENTION_BRANCH("attention branch b", 16, 197, 384, 6),
    { "depthwise a 128x8x8x192", depthwise, 1, { D(128, 8, 8, 192), D(192, 1, 7, 7), D(192) },
      { 192 }, 98.0 * 128 * 64 * 192, { 0 }, 2 },
    { "depthwise b 16x14x14x384", depthwise, 1, { D(16, 14, 14, 384), D(384, 1, 7, 7), D(384) },
      { 384 }, 98.0 * 16 * 196 * 384, { 0 }, 2 },
    { "patch embed b", patch_embed, 1, { D(16, 3, 224, 224), D(384, 3, 16, 16), D(384) },
      { 16 }, 2.0 * 16 * 196 * 768 * 384, { 0 }, 1 },
    { "layer norm 8320x192", layer_norm, 1, { D(8320, 192), D(192), D(192) },
      { 0 }, 0, { M(2 * 8320 * 192), M(3 * 8320 * 192) }, 0 },
    { "layer norm 3152x384", layer_norm, 1, { D(3152, 384), D(384), D(384) },
      { 0 }, 0, { M(2 * 3152 * 384), M(3 * 3152 * 384) }, 0 },
    { "gelu 8320x768", gelu, 1, { D(8320, 768) }, { 0 }, 0, { M(2 * 8320 * 768), M(3 * 8320 * 768) }, 0 },
    { "softmax 24960x65", softmax, 1, { D(24960, 65) }, { 0 }, 0, { M(2 * 24960 * 65), M(3 * 24960 * 65) }, 0 },
    { "residual 8320x192", residual, 2, { D(8320, 192), D(8320, 192) }, { 0 }, 0, { M(3 * 8320 * 192), 0 }, 0 },
    { "weight norm 8192x256", weight_norm, 0, { D(8192, 256) },
      { 0 }, 0, { M(2 * 8192 * 256), M(3 * 8192 * 256) }, 0 },
    { "dino loss 128x8192", dino_loss, 0, { D(128, 8192), D(128, 8192) },
      { 2, 64 }, 0, { M(2 * 128 * 8192), M(3 * 128 * 8192) }, 0 },
    { 0 }
};

/* S: vit_small, 2 views of 224 pixels, 128 images; L: the same, 10 local views, 64 images; B: vit_base, 64 images. */
static const OpBench gpu[] = {
    LINEAR("linear S qkv 50432x384x1152", 50432, 384, 1152),
    LINEAR("linear S proj 50432x384x384", 50432, 384, 384),
    { "linear gelu S fc1 50432x384x1536", linear_gelu, 1, { D(50432, 384), D(1536, 384), D(1536) }, { 0 },
      2.0 * 50432 * 384 * 1536, { 0 }, 2 },
    LINEAR("linear S fc2 50432x1536x384", 50432, 1536, 384),
    LINEAR("linear L qkv 23680x384x1152", 23680, 384, 1152),
    LINEAR("linear B qkv 25216x768x2304", 25216, 768, 2304),
    { "linear gelu B fc1 25216x768x3072", linear_gelu, 1, { D(25216, 768), D(3072, 768), D(3072) }, { 0 },
      2.0 * 25216 * 768 * 3072, { 0 }, 2 },
    LINEAR("linear B fc2 25216x3072x768", 25216, 3072, 768),
    LINEAR("linear head 256x2048x2048", 256, 2048, 2048),
    { "logits 256x256x65536", logits, 1, { D(256, 256), D(65536, 256) }, { 0 }, 2.0 * 256 * 256 * 65536, { 0 }, 2 },
    MLP("mlp branch S 50432x384", 256, 197, 384),
    MLP("mlp branch L 23680x384", 640, 37, 384),
    MLP("mlp branch B 25216x768", 128, 197, 768),
    { "attention S 1536 x 197", attention, 1, { D(256, 197, 1152) }, { 6 }, 4.0 * 256 * 197 * 197 * 384, { 0 }, 2.5 },
    { "attention L 3840 x 37", attention, 1, { D(640, 37, 1152) }, { 6 }, 4.0 * 640 * 37 * 37 * 384, { 0 }, 2.5 },
    { "attention B 1536 x 197", attention, 1, { D(128, 197, 2304) }, { 12 }, 4.0 * 128 * 197 * 197 * 768, { 0 }, 2.5 },
    { "attention 32 px 1536 x 65", attention, 1, { D(512, 65, 576) }, { 3 }, 4.0 * 512 * 65 * 65 * 192, { 0 }, 2.5 },
    ATTENTION_BRANCH("attention branch S", 256, 197, 384, 6),
    ATTENTION_BRANCH("attention branch L", 640, 37, 384, 6),
    ATTENTION_BRANCH("attention branch B", 128, 197, 768, 12),
    { "depthwise S 256x14x14x384", depthwise, 1, { D(256, 14, 14, 384), D(384, 1, 7, 7), D(384) }, { 384 }, 0,
      { M(2 * 256 * 196 * 384), M(5.0 * 256 * 196 * 384) }, 0 },
    { "depthwise B 128x14x14x768", depthwise, 1, { D(128, 14, 14, 768), D(768, 1, 7, 7), D(768) }, { 768 }, 0,
      { M(2 * 128 * 196 * 768), M(5.0 * 128 * 196 * 768) }, 0 },
    { "patch embed S", patch_embed, 1, { D(256, 3, 224, 224), D(384, 3, 16, 16), D(384) }, { 16 },
      2.0 * 256 * 196 * 768 * 384, { 0 }, 1 },
    { "layer norm S 50432x384", layer_norm, 1, { D(50432, 384), D(384), D(384) }, { 0 }, 0,
      { M(2 * 50432 * 384), M(3 * 50432 * 384) }, 0 },
    { "gelu S 50432x1536", gelu, 1, { D(50432, 1536) }, { 0 }, 0, { M(2.0 * 50432 * 1536), M(3.0 * 50432 * 1536) }, 0 },
    { "residual S 50432x384", residual, 2, { D(50432, 384), D(50432, 384) }, { 0 }, 0, { M(3 * 50432 * 384), 0 }, 0 },
    { "residual, layer norm S 50432x384", residual_norm, 2, { D(50432, 384), D(50432, 384), D(384), D(384) }, { 0 }, 0,
      { M(4 * 50432 * 384), M(3 * 50432 * 384) }, 0 },
    { "weight norm 65536x256", weight_norm, 0, { D(65536, 256) }, { 0 }, 0, { M(2 * 65536 * 256), M(3 * 65536 * 256) }, 0 },
    { "dino loss 256x65536", dino_loss, 0, { D(256, 65536), D(256, 65536) }, { 2, 128 }, 0,
      { M(2 * 256 * 65536), M(3 * 256 * 65536) }, 0 },
    { 0 }
};

/* ---- outside of the tape: p[0] is a count, or rows and columns */

static int adamw(Backend *be, float **x, const int64_t *p)
{
    ParamSpan all = { .count = p[0], .decay = 1, .step = 10 };
    NormArgs norms = { .g = x[1], .spans = &all, .nspans = 1, .norm = x[4] };
    AdamwArgs a = { .p = x[0], .g = x[1], .m = x[2], .v = x[3], .spans = &all, .nspans = 1, .lr = 1e-3, .weight_decay = 0.04,
                    .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .norm = x[4], .clip = 3, .zero_grad = true };
    return be->norms(be, &norms) || be->adamw(be, &a) ? -1 : 0;
}
static int ema(Backend *be, float **x, const int64_t *p)
{
    return be->ema(be, &(EmaArgs){ .n = p[0], .teacher = x[0], .student = x[1], .momentum = 0.996 });
}
static int targets(Backend *be, float **x, const int64_t *p)
{
    return be->targets(be, &(TargetsArgs){ .rows = p[0], .k = p[1], .logits = x[0], .center = x[1], .temp = 0.04, .q = x[2] });
}
static int center(Backend *be, float **x, const int64_t *p)
{
    return be->center(be, &(CenterArgs){ .rows = p[0], .k = p[1], .logits = x[0], .center = x[1], .momentum = 0.9 });
}
static int discrepancy(Backend *be, float **x, const int64_t *p)
{
    return be->discrepancy(be, &(DiscrepancyArgs){ .rows = p[0], .k = p[1], .base = x[0], .head = x[1], .temp = 0.04,
                                                   .student_temp = 0.1, .out = x[2] });
}
static int normalize(Backend *be, float **x, const int64_t *p)
{
    return be->normalize_u8(be, &(NormalizeArgs){ .type = be->real, .batch = p[0], .h = p[1], .w = p[1],
                                               .x = (const uint8_t *)x[0], .out = x[1] });
}

#define KERNELS(params, rows, k, batch) \
    { "norms and adamw", adamw, { M(params), M(params), M(params), M(params), 0.001 }, { params }, M(36.0 * params) }, \
    { "ema", ema, { M(params), M(params) }, { params }, M(12.0 * params) }, \
    { "targets " #rows "x" #k, targets, { M(rows * k), M(k), M(rows * k) }, { rows, k }, M(8.0 * rows * k) }, \
    { "centre " #rows "x" #k, center, { M(rows * k), M(k) }, { rows, k }, M(4.0 * rows * k) }, \
    { "discrepancy " #rows "x" #k, discrepancy, { M(rows * k), M(rows * k), 0.001 }, { rows, k }, M(8.0 * rows * k) }, \
    { "normalize " #batch "x224x224", normalize, { M(batch * 50176), M(3.0 * batch * 50176) }, { batch, 224 }, \
      M(3.0 * batch * 50176 * 3) /* bytes in, BF16 out */ }

static const KernelBench processor_kernels[] = { KERNELS(10000000, 32, 8192, 16), { 0 } };
static const KernelBench gpu_kernels[] = { KERNELS(50000000, 256, 65536, 256), { 0 } };

const OpBench *bench_ops(bool on_gpu)
{
    return on_gpu ? gpu : processor;
}

const KernelBench *bench_kernels(bool on_gpu)
{
    return on_gpu ? gpu_kernels : processor_kernels;
}
