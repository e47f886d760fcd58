#include "tensor/dry.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <string.h>
#include <sys/mman.h>

static double flops;

void dry_reset(void)
{
    flops = 0;
}

double dry_flops(void)
{
    return flops;
}

/* ---- memory: addresses without anything behind them */

static void *dry_alloc(Backend *be, size_t bytes)
{
    (void)be;
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        err_set(ERR_MEMORY, "no room for the addresses of %zu bytes", bytes);
        return NULL;
    }
    return p;
}

static void dry_release(Backend *be, void *p, size_t bytes)
{
    (void)be;
    munmap(p, bytes ? bytes : 1);
}

static void dry_rest(Backend *be, void *p, size_t bytes)
{
    (void)be, (void)p, (void)bytes;
}

static int dry_write(Backend *be, void *device, const void *host, size_t bytes)
{
    (void)be, (void)device, (void)host, (void)bytes;
    return 0;
}

static int dry_read(Backend *be, void *host, const void *device, size_t bytes)
{
    (void)be, (void)device;
    memset(host, 0, bytes);
    return 0;
}

static int dry_move(Backend *be, void *to, const void *from, size_t bytes)
{
    (void)be, (void)to, (void)from, (void)bytes;
    return 0;
}

static int dry_zero(Backend *be, void *device, size_t bytes)
{
    (void)be, (void)device, (void)bytes;
    return 0;
}

static int dry_sync(Backend *be)
{
    (void)be;
    return 0;
}

static void dry_close(Backend *be)
{
    (void)be;
}

static void dry_pin(Backend *be, void *host, size_t bytes)
{
    (void)be, (void)host, (void)bytes;
}

static void dry_unpin(Backend *be, void *host)
{
    (void)be, (void)host;
}

/* ---- what is counted */

static int count(double n)
{
    flops += n;
    return 0;
}

static int dry_matmul(Backend *be, const MatmulArgs *a)
{
    (void)be;
    return count(2.0 * (double)(a->batch ? a->batch : 1) * (double)a->m * (double)a->n * (double)a->k);
}

static double mlp_flops(const MlpArgs *a)
{
    return 2.0 * (double)a->rows * (double)a->hidden * (double)(a->dim + a->out);
}

static int dry_mlp(Backend *be, const MlpArgs *a)
{
    (void)be;
    return count(mlp_flops(a));
}

static int dry_mlp_backward(Backend *be, const MlpArgs *a)
{
    (void)be;
    return count(2 * mlp_flops(a));
}

/* The processor's own, so that memory comes out the same. */
static size_t dry_mlp_scratch(Backend *be, const MlpArgs *a)
{
    (void)be;
    return backend_cpu()->mlp_scratch(backend_cpu(), a);
}

static double attention_flops(const AttentionArgs *a)
{
    return 4.0 * (double)a->batch * a->heads * (double)a->tokens * (double)a->tokens * a->dim;
}

static int dry_attention(Backend *be, const AttentionArgs *a)
{
    (void)be;
    return count(attention_flops(a));
}

static int dry_attention_backward(Backend *be, const AttentionArgs *a)
{
    (void)be;
    return count(2 * attention_flops(a));
}

static double conv_flops(const ConvArgs *a)
{
    return 2.0 * (double)(a->batch * a->ho * a->wo) * (double)a->cout * (double)(a->cin / a->groups) * a->kh *
           a->kw;
}

static int dry_conv(Backend *be, const ConvArgs *a)
{
    (void)be;
    return count(conv_flops(a));
}

static int dry_conv_backward(Backend *be, const ConvArgs *a)
{
    (void)be;
    return count((a->dx ? 1 : 0) * conv_flops(a) + (a->dweight ? 1 : 0) * conv_flops(a));
}

/* ---- what is not */

#define NOTHING(name, Args)                                                                                  \
    static int name(Backend *be, const Args *a)                                                              \
    {                                                                                                        \
        (void)be, (void)a;                                                                                   \
        return 0;                                                                                            \
    }
NOTHING(no_colsum, ColsumArgs)
NOTHING(no_patches, PatchArgs)
NOTHING(no_normalize, NormalizeArgs)
NOTHING(no_cast, CastArgs)
NOTHING(no_copy, CopyArgs)
NOTHING(no_reduce, ReduceArgs)
NOTHING(no_transpose, TransposeArgs)
NOTHING(no_tokens, TokensArgs)
NOTHING(no_resize, ResizeArgs)
NOTHING(no_point, PointArgs)
NOTHING(no_residual, ResidualArgs)
NOTHING(no_residual_norm, ResidualNormArgs)
NOTHING(no_rows, RowArgs)
NOTHING(no_loss, LossArgs)
NOTHING(no_norms, NormArgs)
NOTHING(no_adamw, AdamwArgs)
NOTHING(no_ema, EmaArgs)
NOTHING(no_targets, TargetsArgs)
NOTHING(no_center, CenterArgs)
NOTHING(no_discrepancy, DiscrepancyArgs)

static int all_is_finite(Backend *be, DType type, const void *x, int64_t n, bool *finite)
{
    (void)be, (void)type, (void)x, (void)n;
    *finite = true;
    return 0;
}

static const Backend gpu = {
    .name = "dry",
    .dry = true,
    .real = DT_F32,
    .chunk = (size_t)1 << 36,
    .alloc = dry_alloc,
    .release = dry_release,
    .rest = dry_rest,
    .write = dry_write,
    .read = dry_read,
    .move = dry_move,
    .zero = dry_zero,
    .sync = dry_sync,
    .close = dry_close,
    .pin = dry_pin,
    .unpin = dry_unpin,
    .upload = dry_write,
    .uploaded = dry_sync,
    .matmul = dry_matmul,
    .colsum = no_colsum,
    .residual_norm = no_residual_norm,
    .residual_norm_backward = no_residual_norm,
    .attention = dry_attention,
    .attention_backward = dry_attention_backward,
    .conv = dry_conv,
    .conv_backward = dry_conv_backward,
    .patches = no_patches,
    .patches_backward = no_patches,
    .normalize_u8 = no_normalize,
    .cast = no_cast,
    .copy = no_copy,
    .reduce = no_reduce,
    .transpose = no_transpose,
    .tokens = no_tokens,
    .resize = no_resize,
    .resize_backward = no_resize,
    .add = no_point,
    .mul = no_point,
    .gelu = no_point,
    .gelu_backward = no_point,
    .add_scalar = no_point,
    .scale = no_point,
    .residual = no_residual,
    .layer_norm = no_rows,
    .layer_norm_backward = no_rows,
    .l2_normalize = no_rows,
    .l2_normalize_backward = no_rows,
    .weight_norm = no_rows,
    .weight_norm_backward = no_rows,
    .softmax = no_rows,
    .softmax_backward = no_rows,
    .log_softmax = no_rows,
    .log_softmax_backward = no_rows,
    .dino_loss = no_loss,
    .soft_ce = no_loss,
    .hard_ce = no_loss,
    .kl = no_loss,
    .norms = no_norms,
    .adamw = no_adamw,
    .ema = no_ema,
    .targets = no_targets,
    .center = no_center,
    .discrepancy = no_discrepancy,
    .all_finite = all_is_finite,
};

Backend *backend_dry(const char *kind)
{
    static Backend processor, single, half;
    Backend *be = NULL;
    if (!strcmp(kind, "fp32")) {
        be = &processor;
        *be = gpu;
        be->residual_norm = be->residual_norm_backward = NULL;
        be->mlp = dry_mlp;
        be->mlp_backward = dry_mlp_backward;
        be->mlp_scratch = dry_mlp_scratch;
    } else if (!strcmp(kind, "gpu") || !strcmp(kind, "tf32")) {
        be = &single;
        *be = gpu;
    } else if (!strcmp(kind, "bf16")) {
        be = &half;
        *be = gpu;
        be->real = DT_BF16;
    } else {
        err_set(ERR_USAGE, "dry,%s: there are fp32, gpu, tf32, bf16", kind);
    }
    return be;
}
