/* Residuals, and the layer norms that read them. */
#include "tensor/ops.h"
#include "tensor/tape.h"

/* What drop path leaves of a branch: a factor for each sample, or for none of them. */
typedef struct {
    Samples samples;
    const float *scale[SAMPLE_SIZES];
} Scale;

typedef struct {
    Node node;
    Tensor *x, *y;
    Scale scale;
    bool scaled; /* y's gradient was written with the norm's */
} ResidualNode;

/* Parts of y's rows by which its kernels are called: all of them, or those of each size where they are scaled. */
typedef struct {
    int64_t row;
    ResidualArgs args; /* without x, y, out */
} Part;

static int parts_of(const Tensor *y, const Scale *scale, Part part[SAMPLE_SIZES])
{
    int64_t first = tensor_dim(y, 0);
    int n = scale->scale[0] ? scale->samples.sizes : 0;
    for (int i = 0; i < n; i++)
        part[i] = (Part){ samples_rows(&scale->samples, i),
                          { .type = y->dtype, .samples = scale->samples.of[i].count,
                            .stride = scale->samples.of[i].tokens * tensor_last(y), .scale = scale->scale[i] } };
    if (!n)
        part[0] = (Part){ 0, { .type = y->dtype, .samples = first, .stride = first ? tensor_count(y) / first : 0,
                               .scale = scale->scale[0] } };
    return n ? n : 1;
}

/* Row `row` of an array, or NULL of none. */
static void *row_of(const void *x, const Tensor *y, int64_t row)
{
    return x ? element(x, y->dtype, row * tensor_last(y)) : NULL;
}

static ResidualArgs args_of(const Part *p, const Tensor *like, const void *x, const void *y, void *out)
{
    ResidualArgs a = p->args;
    a.x = row_of(x, like, p->row);
    a.y = row_of(y, like, p->row);
    a.out = row_of(out, like, p->row);
    return a;
}

/* out = x + scale y, each shaped as `like`. */
static int residual(Backend *be, const Tensor *like, const Scale *scale, const void *x, const void *y, void *out)
{
    Part part[SAMPLE_SIZES];
    int n = parts_of(like, scale, part);
    for (int i = 0; i < n; i++) {
        ResidualArgs a = args_of(&part[i], like, x, y, out);
        if (be->residual(be, &a) < 0)
            return -1;
    }
    return 0;
}

static int residual_backward(Tape *t, Node *node, const void *dy)
{
    ResidualNode *n = (ResidualNode *)node;
    if (n->x && tape_grad_pass(t, n->x, node->out) < 0)
        return -1;
    if (n->scaled)
        return 0;
    if (!n->scale.scale[0])
        return tape_grad_pass(t, n->y, node->out);
    bool add;
    void *out = tape_grad(t, n->y, &add);
    if (!out)
        return tape_failed(t) ? -1 : 0;
    return residual(tape_backend(t), n->y, &n->scale, add ? out : NULL, dy, out);
}

/* x (or NULL) and y, fit to be added up: false after an error. */
static bool agree(Tape *t, Tensor **x, Tensor *y, const Scale *scale)
{
    if (!y || tape_failed(t) || (*x && !(*x = op_cast(t, *x, y->dtype))))
        return false;
    if (*x && !tensor_alike(*x, y))
        tape_bad_shape(t, "residual", "both must have one shape", *x);
    const Samples *s = &scale->samples;
    if (s->sizes && (s->sizes > SAMPLE_SIZES || samples_rows(s, s->sizes) != tensor_rows(y)))
        tape_bad_shape(t, "residual", "the branch must have the rows of its samples", y);
    return !tape_failed(t);
}

static ResidualNode *record(Tape *t, Tensor *out, Tensor *x, Tensor *y, const Scale *scale)
{
    ResidualNode *n = tape_record(t, sizeof *n, residual_backward, out);
    if (n) {
        n->x = x;
        n->y = y;
        n->scale = *scale;
    }
    return n;
}

static Tensor *sum(Tape *t, Tensor *x, Tensor *y, const Scale *scale)
{
    if (!agree(t, &x, y, scale))
        return NULL;
    Tensor *out = tape_like(t, y);
    if (!out)
        return NULL;
    if (residual(tape_backend(t), y, scale, data_of(x), y->data, out->data) < 0)
        return tape_fail(t);
    if (TAPE_WANTS(t, x, y) && !record(t, out, x, y, scale))
        return NULL;
    return tape_failed(t) ? NULL : out;
}

Tensor *op_residual(Tape *t, Tensor *x, Tensor *y, const float *scale)
{
    return sum(t, x, y, &(Scale){ .scale = { scale } });
}

Tensor *op_add(Tape *t, Tensor *x, Tensor *y)
{
    return x ? op_residual(t, x, y, NULL) : NULL;
}

/* ---- with the norm of the sum */

typedef struct {
    Node node;
    ResidualNode *residual; /* recorded before, so it runs after this; NULL: its inputs want no gradient */
    Tensor *sum, *gamma, *beta;
    RowArgs args;
} NormNode;

/* The norm's arguments for the rows of a part. */
static RowArgs rows_of(const RowArgs *all, const Part *p, const Tensor *like)
{
    RowArgs a = *all;
    a.rows = p->args.stride ? p->args.samples * p->args.stride / a.cols : 0;
    a.x = row_of(a.x, like, p->row);
    a.y = row_of(a.y, like, p->row);
    a.dy = row_of(a.dy, like, p->row);
    a.dx = row_of(a.dx, like, p->row);
    a.stat = a.stat ? a.stat + 2 * p->row : NULL;
    return a;
}

static int norm_backward(Tape *t, Node *node, const void *dy)
{
    NormNode *n = (NormNode *)node;
    Backend *be = tape_backend(t);
    RowArgs norm = n->args;
    norm.dy = dy;
    norm.dgamma = tape_grad_added(t, n->gamma);
    norm.dbeta = tape_grad_added(t, n->beta);
    norm.dx = tape_grad(t, n->sum, &norm.add);
    if (tape_failed(t))
        return -1;
    /* All that reads the sum was recorded after it: its gradient is whole now, and so is what drop path leaves of it. */
    Tensor *y = n->residual && n->residual->scale.scale[0] ? n->residual->y : NULL;
    bool there;
    void *out = tape_grad(t, y, &there);
    if (!out || there)
        return tape_failed(t) ? -1 : be->layer_norm_backward(be, &norm);
    Part part[SAMPLE_SIZES];
    int parts = parts_of(y, &n->residual->scale, part);
    for (int i = 0; i < parts; i++) {
        ResidualNormArgs a = { .norm = rows_of(&norm, &part[i], y), .sum = args_of(&part[i], y, NULL, norm.dx, out) };
        if (be->residual_norm_backward(be, &a) < 0)
            return -1;
    }
    n->residual->scaled = true;
    return 0;
}

static Tensor *residual_norm(Tape *t, Tensor *y, const BranchArgs *a, const Scale *scale)
{
    Tensor *x = a->residual, *gamma = a->next_w, *beta = a->next_b;
    Backend *be = tape_backend(t);
    if (!agree(t, &x, y, scale))
        return NULL;
    if (!beta || tensor_count(gamma) != tensor_last(y) || tensor_count(beta) != tensor_last(y))
        return tape_bad_shape(t, "residual", "the next norm must have the last dimension's size", gamma);
    bool adds = TAPE_WANTS(t, x, y), wants = TAPE_WANTS(t, x, y, gamma, beta);
    Tensor *out = tape_like(t, y), *normed = tape_like(t, y);
    float *stat = wants && normed ? tape_floats(t, 2 * tensor_rows(y)) : NULL;
    if (!out || !normed || (wants && !stat))
        return NULL;
    RowArgs norm = { .type = y->dtype, .type_y = y->dtype, .rows = tensor_rows(y), .cols = tensor_last(y), .x = out->data,
                     .y = normed->data, .eps = a->eps, .gamma = gamma->data, .beta = beta->data, .stat = stat };
    Part part[SAMPLE_SIZES];
    int parts = parts_of(y, scale, part);
    for (int i = 0; i < parts; i++) {
        ResidualNormArgs r = { .sum = args_of(&part[i], y, data_of(x), y->data, out->data),
                               .norm = rows_of(&norm, &part[i], y) };
        if (be->residual_norm(be, &r) < 0)
            return tape_fail(t);
    }
    ResidualNode *residual = adds ? record(t, out, x, y, scale) : NULL;
    if (wants && !tape_failed(t)) {
        NormNode *n = tape_record(t, sizeof *n, norm_backward, normed);
        if (!n)
            return NULL;
        *n = (NormNode){ n->node, residual, out, gamma, beta, norm };
    }
    tape_norm_ahead(out, gamma, normed);
    return tape_failed(t) ? NULL : out;
}

Tensor *op_branch_end(Tape *t, Tensor *y, const BranchArgs *a)
{
    Scale scale = { .samples = a->samples };
    for (int i = 0; i < SAMPLE_SIZES; i++)
        scale.scale[i] = a->scale[i];
    if (!a->residual && !a->scale[0])
        return y;
    return a->next_w && tape_backend(t)->residual_norm ? residual_norm(t, y, a, &scale) : sum(t, a->residual, y, &scale);
}
