/* Convolutions, patches, and pixels to numbers. */
#include "tensor/ops.h"
#include "tensor/tape.h"

typedef struct {
    Node node;
    Tensor *x, *w, *b;
    ConvArgs args;
} ConvNode;

static int conv_backward(Tape *t, Node *node, const void *dy)
{
    ConvNode *n = (ConvNode *)node;
    ConvArgs a = n->args;
    a.dy = dy;
    a.dweight = tape_grad_added(t, n->w);
    a.dbias = tape_grad_added(t, n->b);
    a.dx = tape_grad(t, n->x, &a.add);
    return tape_failed(t) ? -1 : tape_backend(t)->conv_backward(tape_backend(t), &a);
}

Tensor *op_conv2d(Tape *t, Tensor *x, Tensor *w, Tensor *b, int stride, int pad, int groups)
{
    if (!x || !w || tape_failed(t))
        return NULL;
    if (x->ndim != 4)
        return tape_bad_shape(t, "conv2d", "the input must be [B, H, W, C]", x);
    int64_t cin = x->shape[3];
    if (w->ndim != 4 || stride < 1 || pad < 0 || groups < 1 ||
        (groups > 1 && (groups != cin || w->shape[0] != cin)) || w->shape[1] * groups != cin ||
        w->shape[2] < 1 || w->shape[3] < 1 || w->shape[2] > 64 || w->shape[3] > 64)
        return tape_bad_shape(t, "conv2d",
                              "the weight must be [Cout, Cin / groups, kh, kw], groups 1 or Cin = Cout", w);
    if (b && tensor_count(b) != w->shape[0])
        return tape_bad_shape(t, "conv2d", "the bias must be [Cout]", b);
    int64_t h = x->shape[1] + 2 * pad - w->shape[2], wd = x->shape[2] + 2 * pad - w->shape[3];
    if (h < 0 || wd < 0)
        return tape_bad_shape(t, "conv2d", "the padded input must hold the kernel", x);
    DType real = tape_backend(t)->real;
    if (!(x = op_cast(t, x, real)))
        return NULL;
    ConvArgs a = {.type = real,
                  .batch = x->shape[0],
                  .h = x->shape[1],
                  .w = x->shape[2],
                  .cin = cin,
                  .cout = w->shape[0],
                  .ho = h / stride + 1,
                  .wo = wd / stride + 1,
                  .kh = (int)w->shape[2],
                  .kw = (int)w->shape[3],
                  .stride = stride,
                  .pad = pad,
                  .groups = groups,
                  .x = x->data,
                  .bias = data_of(b)};
    Tensor *y = tape_tensor(t, real, 4, (int64_t[]){ a.batch, a.ho, a.wo, a.cout });
    if (!y || !(a.weight = tape_operand(t, w)))
        return NULL;
    a.y = y->data;
    if (tape_backend(t)->conv(tape_backend(t), &a) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x, w, b)) {
        ConvNode *n = tape_record(t, sizeof *n, conv_backward, y);
        if (!n)
            return NULL;
        n->x = x;
        n->w = w;
        n->b = b;
        n->args = a;
    }
    return tape_failed(t) ? NULL : y;
}

/* ---- patches: rows of the patch matrix times the projection */

typedef struct {
    Node node;
    Tensor *images;
    PatchArgs args;
} PatchNode;

static int patches_backward(Tape *t, Node *node, const void *dy)
{
    PatchNode *n = (PatchNode *)node;
    PatchArgs a = n->args;
    a.rows = (void *)(uintptr_t)dy;
    a.dimage = tape_grad(t, n->images, &a.add);
    return a.dimage ? tape_backend(t)->patches_backward(tape_backend(t), &a) : -1;
}

Tensor *op_patch_embed(Tape *t, Tensor *images, Tensor *w, Tensor *b, int patch)
{
    if (!images || !w || tape_failed(t))
        return NULL;
    if (images->ndim != 4 || patch < 1 || images->shape[2] < patch || images->shape[3] < patch)
        return tape_bad_shape(t, "patch_embed", "the images must be [B, C, H, W], no smaller than a patch",
                              images);
    if (w->ndim != 4 || w->shape[1] != images->shape[1] || w->shape[2] != patch || w->shape[3] != patch)
        return tape_bad_shape(t, "patch_embed", "the weight must be [C, channels, patch, patch]", w);
    PatchArgs a = { .type = images->dtype, .batch = images->shape[0], .channels = images->shape[1], .h = images->shape[2],
                    .w = images->shape[3], .patch = patch, .image = images->data };
    int64_t n = (a.h / patch) * (a.w / patch), in = a.channels * patch * patch;
    Tensor *rows = tape_tensor(t, images->dtype, 3, (int64_t[]){ a.batch, n, in });
    if (!rows)
        return NULL;
    a.rows = rows->data;
    if (tape_backend(t)->patches(tape_backend(t), &a) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, images)) {
        PatchNode *node = tape_record(t, sizeof *node, patches_backward, rows);
        if (!node)
            return NULL;
        node->images = images;
        node->args = a;
    }
    return op_linear(t, rows, tape_view(t, w, 2, (int64_t[]){ w->shape[0], in }), b);
}

Tensor *op_image_normalize(Tape *t, const Tensor *x)
{
    if (!x || tape_failed(t))
        return NULL;
    if (x->dtype != DT_U8 || x->ndim != 4 || x->shape[3] != 3)
        return tape_bad_shape(t, "image_normalize", "the images must be U8 [B, H, W, 3]", x);
    Backend *be = tape_backend(t);
    NormalizeArgs a = { .type = be->real, .batch = x->shape[0], .h = x->shape[1], .w = x->shape[2], .x = x->data };
    Tensor *y = tape_tensor(t, a.type, 4, (int64_t[]){ a.batch, 3, a.h, a.w });
    if (!y)
        return NULL;
    a.out = y->data;
    return be->normalize_u8(be, &a) < 0 ? tape_fail(t) : y;
}
