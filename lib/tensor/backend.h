/* The table of kernels that a device offers. Ops know their device by this table alone.
 *
 * Every kernel takes the backend and a struct of named arguments, works on device memory, and returns 0, or
 * -1 with an error. Work is ordered as issued; only read and sync wait for it. Matrices are row-major with the
 * leading dimension in elements. Counts of zero are allowed everywhere and do nothing (reductions then give 0).
 * Where an output has an `add` flag beside it, the kernel adds to what is there when it is set, else it sets.
 * Results are the same bits from run to run with equal thread counts.
 *
 * Types: `float *` is F32 on every device: parameters, their gradients, statistics, targets, losses. `void *` holds
 * elements of the `type` beside it: what flows between layers, its gradients, and weights as operands of
 * products. It is the device's own choice (`real`): F32, or BF16 with all sums and functions still made in F32. */
#ifndef HSSL_BACKEND_H
#define HSSL_BACKEND_H

#include "tensor/tensor.h"

/* c[m,n] = op(a) op(b) (+ c) (+ bias over n), for each of `batch` (0 counts as 1) at the given strides. */
typedef struct {
    DType type, type_c; /* of a and b; of c, pre and gelu_at */
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
    bool ta, tb; /* a is stored [k,m], b is stored [n,k] */
    bool add;
    const float *bias; /* [n] or NULL */
    bool gelu;           /* c is gelu of the product (+ bias); without add and batch, as the next two */
    void *pre;           /* with gelu: NULL, or where the product (+ bias) itself is stored, too (ldc) */
    const void *gelu_at; /* NULL, or x [m,n] (ldc): c is the product times gelu'(x); without bias and gelu */
    float *sum;          /* NULL, or [m]: the sums of op(a)'s rows, added where add_sum is set: with ta and a [k,m] without
                            gaps, the gradient of the bias beside that of the weight */
    bool add_sum;
    int64_t batch, stride_a, stride_b, stride_c;
} MatmulArgs;

/* Column sums: out[c] = sum over rows. */
typedef struct {
    DType type; /* of x */
    int64_t rows, cols;
    const void *x;
    float *out;
    bool add;
} ColsumArgs;

/* out = x op y; see the entries. */
typedef struct {
    DType type;
    int64_t n;
    const void *x, *y;
    void *out;
    float factor;
    bool add;
} PointArgs;

/* out[s, i] = x[s, i] + scale[s] y[s, i], i < stride; x or scale may be NULL (0 and 1). out may be x or y. */
typedef struct {
    DType type;
    int64_t samples, stride;
    const void *x, *y;
    const float *scale;
    void *out;
} ResidualArgs;

/* Row-wise ops over [rows, cols]. Fields beyond x, y as the entry says. */
typedef struct {
    DType type, type_y; /* of x and dx; of y and dy */
    int64_t rows, cols;
    const void *x;
    void *y;
    const void *dy;
    void *dx;
    bool add; /* of dx */
    float eps;
    const float *gamma, *beta; /* layer norm; gamma [rows] in weight norm */
    float *stat;               /* layer norm: mean, 1/std [rows,2]; l2, weight norm: norm [rows]; or NULL */
    float *dgamma, *dbeta;     /* always added to; or NULL */
} RowArgs;

/* A residual and the layer norm of it at once: norm.x is sum.out. The backward is that of the norm, and then the residual
 * sum.out = sum.scale norm.dx, with sum.y norm.dx and sum.x NULL. */
typedef struct {
    ResidualArgs sum;
    RowArgs norm;
} ResidualNormArgs;

/* residual + scale * linear(gelu(linear(norm(x)))) in one go, in F32. */
typedef struct {
    int64_t rows, dim, hidden, out;
    const float *x, *norm_w, *norm_b; /* norm_w NULL: no norm */
    float eps;
    const float *w1, *b1, *w2, *b2; /* [hidden,dim], [out,hidden]; biases may be NULL */
    const float *residual;          /* [rows,out] or NULL */
    const float *scale;             /* a factor for each rows_per_scale rows, or NULL */
    int64_t rows_per_scale;
    float *y;
    float *pre;  /* [rows,hidden] before gelu; NULL in inference */
    float *stat; /* [rows,2] mean, 1/std; NULL in inference or without norm */
    /* backward: dx may be the memory of dy; the weight gradients, each may be NULL, are added to */
    const float *dy;
    float *dx; /* or NULL */
    bool add;  /* of dx */
    float *dnorm_w, *dnorm_b, *dw1, *db1, *dw2, *db2;
    float *scratch; /* backward: what mlp_scratch asks for */
} MlpArgs;

/* softmax(scale q k^T) v for each sample and head. qkv [batch, tokens, 3 heads dim]. */
typedef struct {
    DType type;
    int64_t batch, tokens;
    int heads, dim; /* dim of a head */
    float scale;
    const void *qkv;
    void *y;     /* [batch, tokens, heads dim] */
    float *stat; /* [batch, heads, tokens]: log of the softmax's denominator; NULL in inference */
    const void *dy;
    void *dqkv;
    bool add;
} AttentionArgs;

/* Channels last; weights as PyTorch: [cout, cin / groups, kh, kw]; groups 1 or cin. */
typedef struct {
    DType type;
    int64_t batch, h, w, cin, cout, ho, wo;
    int kh, kw, stride, pad, groups;
    const void *x, *weight;
    const float *bias;
    void *y;
    const void *dy;
    void *dx; /* or NULL */
    bool add; /* of dx */
    float *dweight, *dbias; /* added to; or NULL */
} ConvArgs;

/* Non-overlapping patches: image [batch,channels,h,w] <-> rows [batch * (h/p) * (w/p), channels p p]. */
typedef struct {
    DType type;
    int64_t batch, channels, h, w;
    int patch;
    const void *image;
    void *rows; /* written by patches, read by patches_backward */
    void *dimage;
    bool add;
} PatchArgs;

/* Pixels [batch,h,w,3] -> [batch,3,h,w] of `type`: (x / 255 - mean) / std with ImageNet's mean and deviation. */
#define IMAGE_MEAN { 0.485, 0.456, 0.406 }
#define IMAGE_DEVIATION { 0.229, 0.224, 0.225 }
typedef struct {
    DType type;
    int64_t batch, h, w;
    const uint8_t *x;
    void *out;
} NormalizeArgs;

/* n elements from one type to another (which may be the same). */
typedef struct {
    DType from, to;
    int64_t n;
    const void *x;
    void *out;
    bool add;
} CastArgs;

/* out[i][j][:] = x[i][j][:] for i < outer, j < inner, n elements each, at these element strides. With
 * x_stride of 0 it broadcasts; add: adds. */
typedef struct {
    DType type;
    int64_t outer, inner, n;
    const void *x;
    void *out;
    int64_t x_outer, x_inner, out_outer, out_inner;
    bool add;
} CopyArgs;

/* out[i, n] = factor * sum over j < reduce of x[i, j, n] (+ out). */
typedef struct {
    DType type, type_out; /* of x; of out */
    int64_t outer, reduce, n;
    const void *x;
    int64_t x_outer; /* elements between x[i] and x[i + 1] */
    void *out;
    float factor;
    bool add;
} ReduceArgs;

/* [batch, a, b] -> [batch, b, a]. */
typedef struct {
    DType type;
    int64_t batch, a, b;
    const void *x;
    void *out;
    bool add;
} TransposeArgs;

/* Tokens: out[b, skip + i] = patches[b, i] + pos[skip + i], out[b, 0] = cls + pos[0]; skip is 1 with cls,
 * else 0. */
typedef struct {
    DType type; /* of patches and out */
    int64_t batch, tokens, dim; /* tokens: patches of a sample */
    const void *patches;
    const float *cls, *pos;
    void *out;
} TokensArgs;

/* Bicubic: out[skip + r * cols + c] = sum over 4 x 4 taps; a kernel table of the op's making (device). */
typedef struct {
    int64_t grid, rows, cols, dim, skip;
    const float *x;
    float *out;
    const float *weight_r, *weight_c;  /* [rows,4], [cols,4] */
    const int32_t *index_r, *index_c; /* [rows,4], [cols,4] in [0, grid) */
} ResizeArgs;

/* Losses over classes, value and gradient in one go: what a row was read for stays at hand for its gradient. */
typedef struct {
    DType type;      /* of logits and dlogits */
    int64_t rows, k; /* dino: rows = views * batch */
    int views, batch;
    const void *logits;
    const float *target; /* dino: [2 batch, k]; soft: [rows, k]; kl: logits [rows, k] */
    const int64_t *label;
    int64_t ignore;
    float temp;
    float weight;  /* of the loss in what is learned */
    float *loss;   /* [1]: weight times the loss */
    float *value;  /* [1]: the loss by itself; or NULL */
    void *dlogits; /* the gradient of *loss; it may take the place of the logits; or NULL */
} LossArgs;

/* A piece of a flat parameter buffer. */
typedef struct {
    int64_t offset, count; /* elements */
    float decay;           /* factor on the weight decay: 0 or 1 */
    int64_t step;          /* this parameter's step count k, from 1 */
    bool skip;             /* no gradient this step: nothing changes (but the gradient is zeroed if asked) */
} ParamSpan;

/* norm[i] = |g of span i|. spans are host memory here and below, read before the call returns. */
typedef struct {
    const float *g;
    const ParamSpan *spans;
    int nspans;
    float *norm; /* [nspans], device */
} NormArgs;

/* Decoupled weight decay [Loshchilov 2019] as PyTorch's AdamW; the clip factor clip / (norm + 1e-6), where
 * below 1, is applied to g on the way. g is zeroed in the same pass when zero_grad is set. Where *gate is not finite,
 * nothing else happens: so a step whose loss or gradients are not is undone before the host hears of it. */
typedef struct {
    float *p, *g, *m, *v;
    const ParamSpan *spans;
    int nspans;
    double lr, weight_decay, beta1, beta2, eps;
    const float *norm; /* from norms; or NULL */
    double clip;       /* <= 0: none */
    bool zero_grad;
    const float *gate; /* [1], or NULL: go */
} AdamwArgs;

/* teacher = m teacher + (1 - m) student. */
typedef struct {
    int64_t n;
    float *teacher;
    const float *student;
    double momentum;
} EmaArgs;

/* q = softmax((logits - center) / temp) by rows [Caron 2021, Eq. 1]; center NULL for none. */
typedef struct {
    int64_t rows, k;
    const float *logits, *center;
    double temp;
    float *q;
} TargetsArgs;

/* center = momentum center + (1 - momentum) mean over rows of logits [Caron 2021, Eq. 4]. */
typedef struct {
    int64_t rows, k;
    const float *logits;
    float *center;
    double momentum;
} CenterArgs;

/* Means over rows of KL(b || a), a = softmax((head - center_head) / temp), once with b = softmax((base -
 * center_base) / temp): out[0], once with b = softmax(base / student_temp): out[1]. Centers may be NULL. */
typedef struct {
    int64_t rows, k;
    const float *base, *head, *center_base, *center_head;
    double temp, student_temp;
    float *out; /* [2] */
} DiscrepancyArgs;

/* Names memory of a device for another process of this host. */
typedef struct {
    unsigned char bytes[64];
} BackendHandle;

enum { BACKEND_TICKET = 128 };

struct Backend {
    const char *name;
    bool mapped;  /* the host reads and writes memory of the device in place, as soon as sync has returned */
    DType real;   /* of what flows between layers: DT_F32, DT_BF16 */
    size_t chunk; /* bytes the step arena asks for at a time, at least */
    bool dry;     /* nothing is computed, and contents don't matter (tensor/dry.h) */

    /* Memory. alloc is aligned to 64 bytes at least; NULL with an error. */
    void *(*alloc)(Backend *, size_t bytes);
    void (*release)(Backend *, void *p, size_t bytes);
    void (*rest)(Backend *, void *p, size_t bytes); /* the contents may be lost: others may use the memory */
    int (*write)(Backend *, void *device, const void *host, size_t bytes);
    int (*read)(Backend *, void *host, const void *device, size_t bytes);
    int (*move)(Backend *, void *to, const void *from, size_t bytes); /* device to device, may overlap */
    int (*zero)(Backend *, void *device, size_t bytes);
    int (*sync)(Backend *);
    int (*memory)(Backend *, size_t *left, size_t *all); /* bytes, of everybody's; NULL where it is the host's */
    void (*close)(Backend *);

    /* Host memory that the device copies at full speed, and beside its work: what write and read start on it is done
     * only after sync. Optional: a failure is no error. */
    void (*pin)(Backend *, void *host, size_t bytes);
    void (*unpin)(Backend *, void *host);
    /* Copy up beside the work that was issued so far and that is issued from here on; uploaded waits, on the host, until
     * all such copies are there. device and host must not be used otherwise meanwhile. */
    int (*upload)(Backend *, void *device, const void *host, size_t bytes);
    int (*uploaded)(Backend *);

    /* Memory from alloc, lent to other processes of this host: NULL where the device cannot. `lend` names it, `borrow` maps
     * what another process lent (NULL with ERR_PEER where that is refused), `give_back` unmaps it. */
    int (*lend)(Backend *, const void *p, BackendHandle *out);
    void *(*borrow)(Backend *, const BackendHandle *handle, size_t bytes);
    void (*give_back)(Backend *, void *p, size_t bytes);

    /* Devices of several processes that add up; NULL where the device does not do so by itself. One process makes a
     * ticket, BACKEND_TICKET bytes, with which all join. `sum` begins to add x up in place, after the work issued so far
     * and beside what is issued from here on; after `summed` what is issued sees the sums. `abandon` ends all waits for
     * sums, from any thread. */
    int (*ticket)(Backend *, void *bytes);
    int (*join)(Backend *, const void *bytes, int rank, int world);
    int (*sum)(Backend *, float *x, int64_t n);
    int (*summed)(Backend *);
    void (*abandon)(Backend *);
    void (*leave)(Backend *);

    /* Work that repeats: what is issued after `record` is kept instead of done, up to `recorded`, which hands it over (or
     * drops it: NULL). `repeat` issues it anew, on the same memory with the same arguments: 0, -1 with an error, or 1 where
     * memory that it used is gone, so that it must be recorded again. Meanwhile nothing can be allocated, read or waited for, and
     * `write` writes at once and is not kept. NULL where the device would gain nothing. */
    int (*record)(Backend *);
    int (*recorded)(Backend *, void **recording);
    int (*repeat)(Backend *, void *recording);
    void (*forget)(Backend *, void *recording);

    /* Linear algebra. */
    int (*matmul)(Backend *, const MatmulArgs *);
    int (*colsum)(Backend *, const ColsumArgs *);

    /* Several in one; NULL where the device gains nothing: the op is then put together from the others. */
    int (*residual_norm)(Backend *, const ResidualNormArgs *);
    int (*residual_norm_backward)(Backend *, const ResidualNormArgs *);
    int (*mlp)(Backend *, const MlpArgs *);
    int (*mlp_backward)(Backend *, const MlpArgs *);
    size_t (*mlp_scratch)(Backend *, const MlpArgs *); /* floats for the backward */
    int (*attention)(Backend *, const AttentionArgs *);
    int (*attention_backward)(Backend *, const AttentionArgs *);

    /* Convolution and layout. */
    int (*conv)(Backend *, const ConvArgs *);
    int (*conv_backward)(Backend *, const ConvArgs *);
    int (*patches)(Backend *, const PatchArgs *);
    int (*patches_backward)(Backend *, const PatchArgs *);
    int (*normalize_u8)(Backend *, const NormalizeArgs *);
    int (*cast)(Backend *, const CastArgs *);
    int (*copy)(Backend *, const CopyArgs *);
    int (*reduce)(Backend *, const ReduceArgs *);
    int (*transpose)(Backend *, const TransposeArgs *);
    int (*tokens)(Backend *, const TokensArgs *);
    int (*resize)(Backend *, const ResizeArgs *);
    int (*resize_backward)(Backend *, const ResizeArgs *); /* x is the output's gradient, out is added to */

    /* Elementwise. */
    int (*add)(Backend *, const PointArgs *);    /* x + factor y (y NULL: factor x) (+ out) */
    int (*mul)(Backend *, const PointArgs *);    /* factor x y (+ out) */
    int (*gelu)(Backend *, const PointArgs *);   /* gelu(x) */
    int (*gelu_backward)(Backend *, const PointArgs *); /* y gelu'(x) (+ out), y the incoming gradient */
    int (*add_scalar)(Backend *, const PointArgs *);    /* factor y[0] in each of n (+ out) */
    int (*scale)(Backend *, const PointArgs *);         /* out *= y[0], y F32; reads and writes nothing where that is 1 */
    int (*residual)(Backend *, const ResidualArgs *);

    /* By rows. The backwards read x (softmaxes: y) and stat. */
    int (*layer_norm)(Backend *, const RowArgs *);
    int (*layer_norm_backward)(Backend *, const RowArgs *);
    int (*l2_normalize)(Backend *, const RowArgs *);
    int (*l2_normalize_backward)(Backend *, const RowArgs *);
    int (*weight_norm)(Backend *, const RowArgs *);          /* gamma NULL: 1 */
    int (*weight_norm_backward)(Backend *, const RowArgs *); /* dgamma [rows] */
    int (*softmax)(Backend *, const RowArgs *);
    int (*softmax_backward)(Backend *, const RowArgs *);
    int (*log_softmax)(Backend *, const RowArgs *);
    int (*log_softmax_backward)(Backend *, const RowArgs *);

    /* Losses. */
    int (*dino_loss)(Backend *, const LossArgs *);
    int (*soft_ce)(Backend *, const LossArgs *);
    int (*hard_ce)(Backend *, const LossArgs *);
    int (*kl)(Backend *, const LossArgs *);

    /* Without gradients: optimiser, teacher, probes. */
    int (*norms)(Backend *, const NormArgs *);
    int (*adamw)(Backend *, const AdamwArgs *);
    int (*ema)(Backend *, const EmaArgs *);
    int (*targets)(Backend *, const TargetsArgs *);
    int (*center)(Backend *, const CenterArgs *);
    int (*discrepancy)(Backend *, const DiscrepancyArgs *);
    int (*all_finite)(Backend *, DType type, const void *x, int64_t n, bool *finite); /* waits for the device */
};

/* The backend of a name, made on first use and shared by all tapes of the process; NULL with an error. */
Backend *backend_open(const char *device);

Backend *backend_cpu(void);
Backend *backend_dry(const char *kind); /* see tensor/dry.h */

#endif
