/* Ops that move tokens about: class token and position, slices, concatenation, means, channel order. */
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>
#include <string.h>

/* ---- class token and position */

typedef struct {
    Node node;
    int n;
    Tensor *patches[SAMPLE_SIZES], *pos[SAMPLE_SIZES], *cls;
} TokensNode;

/* Back to the samples of one size, whose tokens' gradient is dy. */
static int tokens_back(Tape *t, Tensor *patches, Tensor *cls, Tensor *pos, DType type, const void *dy)
{
    Backend *be = tape_backend(t);
    int64_t batch = patches->shape[0], tokens = patches->shape[1], dim = patches->shape[2];
    int64_t skip = cls ? 1 : 0, row = (tokens + skip) * dim;
    ReduceArgs p = { .type = type, .outer = 1, .reduce = batch, .n = row, .x = dy, .factor = 1 };
    p.out = tape_grad(t, pos, &p.add);
    if (p.out && be->reduce(be, &p) < 0)
        return -1;
    ReduceArgs c = { .type = type, .outer = 1, .reduce = batch, .n = dim, .factor = 1 };
    c.out = tape_grad(t, cls, &c.add);
    if (c.out) {
        /* The first token of each sample: as a reduction whose rows are dim long and lie `row` apart. */
        CopyArgs first = { .type = type, .outer = batch, .inner = 1, .n = dim, .x = dy, .x_outer = row,
                           .out_outer = dim };
        c.x = first.out = tape_elements(t, type, batch * dim);
        if (!c.x || be->copy(be, &first) < 0 || be->reduce(be, &c) < 0)
            return -1;
    }
    CopyArgs r = { .type = type, .outer = batch, .inner = 1, .n = tokens * dim, .x = element(dy, type, skip * dim),
                   .x_outer = row, .out_outer = tokens * dim };
    r.out = tape_grad(t, patches, &r.add);
    if (r.out && be->copy(be, &r) < 0)
        return -1;
    return tape_failed(t) ? -1 : 0;
}

static int tokens_backward(Tape *t, Node *node, const void *dy)
{
    TokensNode *n = (TokensNode *)node;
    DType type = node->out->dtype;
    for (int i = 0; i < n->n; i++) {
        if (tokens_back(t, n->patches[i], n->cls, n->pos[i], type, dy) < 0)
            return -1;
        dy = element(dy, type, tensor_count(n->patches[i]) + (n->cls ? n->patches[i]->shape[0] * n->patches[i]->shape[2] : 0));
    }
    return 0;
}

static bool tokens_fit(Tape *t, const Tensor *patches, const Tensor *like, const Tensor *cls, const Tensor *pos)
{
    if (patches->ndim != 3 || patches->dtype != like->dtype || patches->shape[2] != like->shape[2])
        tape_bad_shape(t, "tokens", "patches must be [B, N, C], all of one C", patches);
    else if (cls && tensor_count(cls) != patches->shape[2])
        tape_bad_shape(t, "tokens", "the class token must be [1, 1, C]", cls);
    else if (pos && tensor_count(pos) != (patches->shape[1] + (cls ? 1 : 0)) * patches->shape[2])
        tape_bad_shape(t, "tokens", "the position must have a row for each token", pos);
    else if ((cls && cls->dtype != DT_F32) || (pos && pos->dtype != DT_F32))
        tape_bad_shape(t, "tokens", "class token and position must be F32", patches);
    return !tape_failed(t);
}

Tensor *op_tokens(Tape *t, int n, Tensor *const *patches, Tensor *cls, Tensor *const *pos, Samples *samples)
{
    Samples s = { .sizes = n };
    bool wants = TAPE_WANTS(t, cls);
    if (n < 1 || n > SAMPLE_SIZES)
        return tape_bad_shape(t, "tokens", "samples must be of one or two sizes", NULL);
    for (int i = 0; i < n; i++) {
        if (!patches[i] || tape_failed(t) || !tokens_fit(t, patches[i], patches[0], cls, pos[i]))
            return NULL;
        s.of[i].count = patches[i]->shape[0];
        s.of[i].tokens = patches[i]->shape[1] + (cls ? 1 : 0);
        wants = TAPE_WANTS(t, patches[i], pos[i]) || wants;
    }
    int64_t dim = patches[0]->shape[2];
    Tensor *y = n == 1 ? tape_tensor(t, patches[0]->dtype, 3, (int64_t[]){ s.of[0].count, s.of[0].tokens, dim })
                       : tape_tensor(t, patches[0]->dtype, 2, (int64_t[]){ samples_rows(&s, n), dim });
    for (int i = 0; y && i < n; i++) {
        TokensArgs a = { .type = y->dtype, .batch = s.of[i].count, .tokens = patches[i]->shape[1], .dim = dim,
                         .patches = patches[i]->data, .cls = data_of(cls), .pos = data_of(pos[i]),
                         .out = element(y->data, y->dtype, samples_rows(&s, i) * dim) };
        if (tape_backend(t)->tokens(tape_backend(t), &a) < 0)
            return tape_fail(t);
    }
    if (y && wants) {
        TokensNode *node = tape_record(t, sizeof *node, tokens_backward, y);
        if (!node)
            return NULL;
        node->n = n;
        node->cls = cls;
        for (int i = 0; i < n; i++) {
            node->patches[i] = patches[i];
            node->pos[i] = pos[i];
        }
    }
    if (samples)
        *samples = s;
    return tape_failed(t) ? NULL : y;
}

/* ---- the samples of one size */

int64_t samples_rows(const Samples *samples, int n)
{
    int64_t rows = 0;
    for (int i = 0; i < n; i++)
        rows += samples->of[i].count * samples->of[i].tokens;
    return rows;
}

typedef struct {
    Node node;
    Tensor *x;
    int64_t row; /* where they begin */
} SamplesNode;

static int samples_backward(Tape *t, Node *node, const void *dy)
{
    SamplesNode *n = (SamplesNode *)node;
    Backend *be = tape_backend(t);
    int64_t dim = tensor_last(n->x), rows = tensor_count(node->out) / (dim ? dim : 1), after = n->row + rows;
    DType type = n->x->dtype;
    CopyArgs c = { .type = type, .outer = 1, .inner = 1, .n = rows * dim, .x = dy };
    char *dx = tape_grad(t, n->x, &c.add);
    if (!dx)
        return -1;
    /* The others have none yet. */
    c.out = element(dx, type, n->row * dim);
    size_t row = (size_t)dim * dtype_size(type);
    if (!c.add && (be->zero(be, dx, (size_t)n->row * row) < 0 ||
                   be->zero(be, dx + (size_t)after * row, (size_t)(tensor_rows(n->x) - after) * row) < 0))
        return -1;
    return be->copy(be, &c);
}

Tensor *op_samples(Tape *t, Tensor *x, const Samples *samples, int i)
{
    if (!x || tape_failed(t))
        return NULL;
    int64_t row = samples_rows(samples, i), shape[] = { samples->of[i].count, samples->of[i].tokens, tensor_last(x) };
    if (x->ndim != 2 || row + shape[0] * shape[1] > tensor_rows(x))
        return tape_bad_shape(t, "samples", "[R, C] must have the rows of its samples", x);
    Tensor *y = tape_wrap(t, x->dtype, 3, shape, element(x->data, x->dtype, row * shape[2]));
    if (y && TAPE_WANTS(t, x)) {
        SamplesNode *n = tape_record(t, sizeof *n, samples_backward, y);
        if (!n)
            return NULL;
        n->x = x;
        n->row = row;
    }
    return tape_failed(t) ? NULL : y;
}

/* ---- position embedding for another grid */

typedef struct {
    Node node;
    Tensor *pos;
    ResizeArgs args;
} ResizeNode;

static int pos_resize_backward(Tape *t, Node *node, const void *dy)
{
    ResizeNode *n = (ResizeNode *)node;
    bool add;
    ResizeArgs a = n->args;
    a.x = dy;
    a.out = tape_grad(t, n->pos, &add);
    Backend *be = tape_backend(t);
    if (!a.out || (!add && be->zero(be, a.out, tensor_bytes(n->pos)) < 0))
        return -1;
    return be->resize_backward(be, &a);
}

/* Cubic convolution with a = -0.75 [Keys 1981]. */
static float cubic(float d)
{
    const float a = -0.75f;
    d = fabsf(d);
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/* The step 1/s is made in double and used in float, as PyTorch does when it is given a scale factor. */
static void taps(int64_t grid, int64_t out, double offset, float *weight, int32_t *index)
{
    float step = (float)(1.0 / (((double)out + offset) / (double)grid));
    for (int64_t j = 0; j < out; j++) {
        float u = ((float)j + 0.5f) * step - 0.5f, base = floorf(u), f = u - base;
        for (int k = 0; k < 4; k++) {
            int64_t i = (int64_t)base + k - 1;
            weight[4 * j + k] = cubic(f - (float)(k - 1));
            index[4 * j + k] = (int32_t)(i < 0 ? 0 : i >= grid ? grid - 1 : i);
        }
    }
}

Tensor *op_pos_resize(Tape *t, Tensor *pos, int skip, int rows, int cols, double offset)
{
    if (!pos || tape_failed(t))
        return NULL;
    if (pos->ndim != 3 || pos->shape[0] != 1 || skip < 0 || skip > 1 || rows < 1 || cols < 1 || rows > 4096 ||
        cols > 4096)
        return tape_bad_shape(t, "pos_resize", "the position must be [1, skip + G * G, C]", pos);
    int64_t patches = pos->shape[1] - skip, grid = (int64_t)llround(sqrt((double)patches));
    if (patches < 1 || grid * grid != patches)
        return tape_bad_shape(t, "pos_resize", "the patches must make a square grid", pos);
    int64_t dim = pos->shape[2], shape[3] = { 1, skip + (int64_t)rows * cols, dim };
    size_t nr = 4 * (size_t)rows, nc = 4 * (size_t)cols;
    float *weight = tape_host(t, (nr + nc) * sizeof *weight);
    int32_t *index = tape_host(t, (nr + nc) * sizeof *index);
    Tensor *y = tape_tensor(t, DT_F32, 3, shape);
    if (!weight || !index || !y)
        return NULL;
    taps(grid, rows, offset, weight, index);
    taps(grid, cols, offset, weight + nr, index + nr);
    float *w = tape_upload(t, weight, (nr + nc) * sizeof *weight);
    int32_t *i = tape_upload(t, index, (nr + nc) * sizeof *index);
    if (!w || !i)
        return NULL;
    ResizeArgs a = { .grid = grid, .rows = rows, .cols = cols, .dim = dim, .skip = skip, .x = pos->data,
                     .out = y->data, .weight_r = w, .weight_c = w + nr, .index_r = i, .index_c = i + nr };
    if (tape_backend(t)->resize(tape_backend(t), &a) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, pos)) {
        ResizeNode *n = tape_record(t, sizeof *n, pos_resize_backward, y);
        if (!n)
            return NULL;
        n->pos = pos;
        n->args = a;
    }
    return tape_failed(t) ? NULL : y;
}

/* ---- slice and concatenation: strided copies between [outer, len, n] and [outer, total, n] */

typedef struct {
    Node node;
    int n;
    Tensor **parts;
    int64_t outer, total, inner, from; /* from: where the first part begins in the whole */
    bool split;                        /* the part is the result and the whole the input */
} JoinNode;

static int join_backward(Tape *t, Node *node, const void *dy)
{
    JoinNode *n = (JoinNode *)node;
    Backend *be = tape_backend(t);
    DType type = node->out->dtype;
    bool add;
    if (n->split) {
        Tensor *x = n->parts[0];
        int64_t len = node->out->shape[1];
        void *dx = tape_grad(t, x, &add);
        if (!dx || (!add && be->zero(be, dx, tensor_bytes(x)) < 0))
            return -1;
        CopyArgs c = { .type = type, .outer = n->outer, .inner = 1, .n = len * n->inner, .x = dy,
                       .x_outer = len * n->inner, .out = element(dx, type, n->from * n->inner),
                       .out_outer = n->total * n->inner, .add = true };
        return be->copy(be, &c);
    }
    for (int64_t i = 0, at = 0; i < n->n; i++) {
        int64_t len = n->outer && n->inner ? tensor_count(n->parts[i]) / (n->outer * n->inner) : 0;
        CopyArgs c = { .type = type, .outer = n->outer, .inner = 1, .n = len * n->inner,
                       .x = element(dy, type, at * n->inner), .x_outer = n->total * n->inner,
                       .out_outer = len * n->inner };
        c.out = tape_grad(t, n->parts[i], &c.add);
        if (c.out && be->copy(be, &c) < 0)
            return -1;
        at += len;
    }
    return tape_failed(t) ? -1 : 0;
}

Tensor *op_slice_tokens(Tape *t, Tensor *x, int64_t from, int64_t to)
{
    if (!x || tape_failed(t))
        return NULL;
    if (x->ndim != 3 || from < 0 || to < from || to > x->shape[1])
        return tape_bad_shape(t, "slice_tokens", "the range must lie in [B, N, C]", x);
    int64_t shape[3] = { x->shape[0], to - from, x->shape[2] };
    Tensor *y = tape_tensor(t, x->dtype, 3, shape);
    if (!y)
        return NULL;
    int64_t inner = x->shape[2], total = x->shape[1];
    CopyArgs c = { .type = x->dtype, .outer = shape[0], .inner = 1, .n = shape[1] * inner,
                   .x = element(x->data, x->dtype, from * inner), .x_outer = total * inner, .out = y->data,
                   .out_outer = shape[1] * inner };
    if (tape_backend(t)->copy(tape_backend(t), &c) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x)) {
        JoinNode *n = tape_record(t, sizeof *n, join_backward, y);
        Tensor **parts = n ? tape_host(t, sizeof *parts) : NULL;
        if (!parts)
            return NULL;
        parts[0] = x;
        *n = (JoinNode){ n->node, 1, parts, shape[0], total, inner, from, true };
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_concat(Tape *t, int n, Tensor *const *xs, int axis)
{
    if (tape_failed(t))
        return NULL;
    for (int i = 0; i < n; i++)
        if (!xs[i])
            return NULL;
    if (n < 1)
        return tape_bad_shape(t, "concat", "there must be something", NULL);
    int nd = xs[0]->ndim;
    if (axis < 0)
        axis += nd;
    if (axis < 0 || axis >= nd)
        return tape_bad_shape(t, "concat", "the axis must exist", xs[0]);
    int64_t shape[TENSOR_DIMS], outer = 1, inner = 1;
    memcpy(shape, xs[0]->shape, sizeof shape);
    for (int d = 0; d < nd; d++)
        *(d < axis ? &outer : &inner) *= d == axis ? 1 : shape[d];
    for (int i = 1; i < n; i++) {
        bool same = xs[i]->ndim == nd && xs[i]->dtype == xs[0]->dtype;
        for (int d = 0; same && d < nd; d++)
            same = d == axis || xs[i]->shape[d] == shape[d];
        if (!same)
            return tape_bad_shape(t, "concat", "all but the axis must agree", xs[i]);
        shape[axis] += xs[i]->shape[axis];
    }
    Tensor *y = tape_tensor(t, xs[0]->dtype, nd, shape);
    if (!y)
        return NULL;
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        int64_t len = xs[i]->shape[axis];
        CopyArgs c = { .type = y->dtype, .outer = outer, .inner = 1, .n = len * inner, .x = xs[i]->data,
                       .x_outer = len * inner, .out = element(y->data, y->dtype, at * inner),
                       .out_outer = shape[axis] * inner };
        if (tape_backend(t)->copy(tape_backend(t), &c) < 0)
            return tape_fail(t);
        at += len;
    }
    if (tape_wants(t, n, xs)) {
        JoinNode *node = tape_record(t, sizeof *node, join_backward, y);
        Tensor **parts = node ? tape_host(t, (size_t)n * sizeof *parts) : NULL;
        if (!parts)
            return NULL;
        memcpy(parts, xs, (size_t)n * sizeof *parts);
        *node = (JoinNode){ node->node, n, parts, outer, shape[axis], inner, 0, false };
    }
    return tape_failed(t) ? NULL : y;
}

/* ---- mean of the tokens, channel order */

typedef struct {
    Node node;
    Tensor *x;
    int64_t a, b; /* transposed dimensions */
} ShapeNode;

static int mean_tokens_backward(Tape *t, Node *node, const void *dy)
{
    Tensor *x = ((ShapeNode *)node)->x;
    Backend *be = tape_backend(t);
    int64_t batch = x->shape[0], tokens = x->shape[1], dim = x->shape[2];
    DType type = x->dtype;
    PointArgs p = { .type = type, .n = batch * dim, .x = dy, .factor = 1.0f / (float)tokens };
    CopyArgs c = { .type = type, .outer = batch, .inner = tokens, .n = dim, .x_outer = dim, .x_inner = 0,
                   .out_outer = tokens * dim, .out_inner = dim };
    c.out = tape_grad(t, x, &c.add);
    c.x = p.out = tape_elements(t, type, batch * dim);
    return c.out && c.x && be->add(be, &p) == 0 ? be->copy(be, &c) : -1;
}

Tensor *op_mean_tokens(Tape *t, Tensor *x)
{
    if (!x || tape_failed(t))
        return NULL;
    if (x->ndim != 3 || x->shape[1] < 1)
        return tape_bad_shape(t, "mean_tokens", "the input must be [B, N, C] with N > 0", x);
    Tensor *y = tape_tensor(t, x->dtype, 2, (int64_t[]){ x->shape[0], x->shape[2] });
    if (!y)
        return NULL;
    ReduceArgs r = {.type = x->dtype,
                    .type_out = x->dtype,
                    .outer = x->shape[0],
                    .reduce = x->shape[1],
                    .n = x->shape[2],
                    .x = x->data,
                    .x_outer = x->shape[1] * x->shape[2],
                    .out = y->data,
                    .factor = 1.0f / (float)x->shape[1]};
    if (tape_backend(t)->reduce(tape_backend(t), &r) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x)) {
        ShapeNode *n = tape_record(t, sizeof *n, mean_tokens_backward, y);
        if (!n)
            return NULL;
        n->x = x;
    }
    return tape_failed(t) ? NULL : y;
}

static int transpose_backward(Tape *t, Node *node, const void *dy)
{
    ShapeNode *n = (ShapeNode *)node;
    TransposeArgs a = { .type = n->x->dtype, .batch = n->x->shape[0], .a = n->b, .b = n->a, .x = dy };
    a.out = tape_grad(t, n->x, &a.add);
    return a.out ? tape_backend(t)->transpose(tape_backend(t), &a) : -1;
}

static Tensor *reorder(Tape *t, Tensor *x, bool to_last)
{
    if (!x || tape_failed(t))
        return NULL;
    if (x->ndim != 4)
        return tape_bad_shape(t, "permute", "the input must have 4 dimensions", x);
    const int64_t *s = x->shape;
    int64_t nhwc[4] = { s[0], s[2], s[3], s[1] }, nchw[4] = { s[0], s[3], s[1], s[2] };
    Tensor *y = tape_tensor(t, x->dtype, 4, to_last ? nhwc : nchw);
    if (!y)
        return NULL;
    TransposeArgs a = { .type = x->dtype, .batch = s[0], .a = to_last ? s[1] : s[1] * s[2], .b = to_last ? s[2] * s[3] : s[3],
                        .x = x->data, .out = y->data };
    if (tape_backend(t)->transpose(tape_backend(t), &a) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x)) {
        ShapeNode *n = tape_record(t, sizeof *n, transpose_backward, y);
        if (!n)
            return NULL;
        n->x = x;
        n->a = a.a;
        n->b = a.b;
    }
    return tape_failed(t) ? NULL : y;
}

Tensor *op_nchw_to_nhwc(Tape *t, Tensor *x)
{
    return reorder(t, x, true);
}

Tensor *op_nhwc_to_nchw(Tape *t, Tensor *x)
{
    return reorder(t, x, false);
}
