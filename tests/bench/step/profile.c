#include "profile.h"

#include "util/err.h"
#include "util/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 512, TRIES = 50 };

/* What a call cannot do without. */
typedef struct {
    char shape[64];
    double flops, bytes;
} Cost;

typedef struct {
    char name[96];
    double seconds, flops, bytes;
    long calls;
} Row;

static Backend inner; /* the table as it was */
static Row rows[MOST_ROWS];
static int used, depth;
static double wait; /* seconds that a call of nothing takes */

static double size_of(DType t)
{
    return (double)dtype_size(t);
}

__attribute__((format(printf, 3, 4))) static Cost cost(double flops, double bytes, const char *shape, ...)
{
    Cost c = { .flops = flops, .bytes = bytes };
    va_list ap;
    va_start(ap, shape);
    vsnprintf(c.shape, sizeof c.shape, shape, ap);
    va_end(ap);
    return c;
}

#define L(x) ((long long)(x))
#define D(x) ((double)(x))

static Cost cost_matmul(const MatmulArgs *a)
{
    double batch = a->batch > 1 ? D(a->batch) : 1, m = D(a->m), n = D(a->n), k = D(a->k);
    return cost(2 * batch * m * n * k,
                batch * (size_of(a->type) * (m * k + k * n) +
                         size_of(a->type_c) * m * n * (1 + a->add + (a->pre || a->gelu_at))),
                "%s%s%s %lldx%lldx%lld", a->ta ? "t" : "n", a->tb ? "t" : "n",
                a->gelu ? "+gelu" : a->gelu_at ? "*gelu'" : "",
                L(a->m), L(a->k), L(a->n));
}
static Cost cost_colsum(const ColsumArgs *a)
{
    return cost(0, D(a->rows * a->cols) * size_of(a->type), "%lldx%lld", L(a->rows), L(a->cols));
}
/* The factor of a loss' gradient, which mostly is 1 and then costs nothing. */
static Cost cost_scale(const PointArgs *a)
{
    return cost(0, 0, "%lld", L(a->n));
}
/* What x is NULL for has one number instead of y. */
static Cost cost_point(const PointArgs *a)
{
    return cost(0, D(a->n) * size_of(a->type) * (1 + a->add + (a->x != NULL) + (a->x && a->y)), "%lld", L(a->n));
}
static Cost cost_residual(const ResidualArgs *a)
{
    return cost(0, D(a->samples * a->stride) * size_of(a->type) * (2 + (a->x != NULL)), "%lldx%lld", L(a->samples),
                L(a->stride));
}
static Cost cost_rows(const RowArgs *a)
{
    double x = size_of(a->type), y = size_of(a->type_y);
    return cost(0,
                D(a->rows * a->cols) *
                    (x * ((a->x != NULL) + (a->dx ? 1 + a->add : 0)) + y * ((a->y != NULL) + (a->dy != NULL))),
                "%lldx%lld", L(a->rows), L(a->cols));
}
static Cost cost_residual_norm(const ResidualNormArgs *a)
{
    Cost sum = cost_residual(&a->sum), norm = cost_rows(&a->norm);
    double once = D(a->norm.rows * a->norm.cols) * size_of(a->norm.type); /* what one writes the other reads */
    norm.bytes += sum.bytes - once;
    return norm;
}
static Cost mlp(const MlpArgs *a, double factor)
{
    double in = D(a->rows * a->dim), hidden = D(a->rows * a->hidden), out = D(a->rows * a->out);
    return cost(factor * 2 * D(a->rows) * D(a->hidden) * D(a->dim + a->out),
                4 * (factor * (in + out) + (a->pre ? hidden : 0) + (a->residual ? out : 0)), "%lldx%lldx%lld",
                L(a->rows), L(a->dim), L(a->hidden));
}
static Cost cost_mlp(const MlpArgs *a)
{
    return mlp(a, a->dy ? 2 : 1);
}
static Cost cost_attention(const AttentionArgs *a)
{
    double n = D(a->batch) * D(a->tokens) * a->heads * a->dim;
    return cost((a->dy ? 2.5 : 1) * 4 * n * D(a->tokens), n * size_of(a->type) * (a->dy ? 8 + 3 * a->add : 4),
                "%lldx%d of %lldx%d", L(a->batch), a->heads, L(a->tokens), a->dim);
}
static Cost cost_conv(const ConvArgs *a)
{
    double in = D(a->batch * a->h * a->w * a->cin), out = D(a->batch * a->ho * a->wo * a->cout), passes = 1;
    double flops = 2 * out * D(a->cin / a->groups) * a->kh * a->kw;
    if (a->dy)
        passes = (a->dx != NULL) + (a->dweight != NULL);
    /* Depthwise ones run beside the units that the ceiling is measured on. */
    return cost(a->groups > 1 ? 0 : passes * flops,
                size_of(a->type) *
                    (a->dy ? passes * out + in * ((a->dx ? 1 + a->add : 0) + (a->dweight != NULL)) : in + out),
                "%lldx%lldx%lldx%lld, %dx%d", L(a->batch), L(a->h), L(a->w), L(a->cin), a->kh, a->kw);
}
static Cost cost_patches(const PatchArgs *a)
{
    return cost(0, 2 * D(a->batch * a->channels * a->h * a->w) * size_of(a->type), "%lldx%lldx%lldx%lld", L(a->batch),
                L(a->channels), L(a->h), L(a->w));
}
static Cost cost_normalize(const NormalizeArgs *a)
{
    return cost(0, 3 * D(a->batch * a->h * a->w) * (1 + size_of(a->type)), "%lldx%lldx%lld", L(a->batch), L(a->h),
                L(a->w));
}
static Cost cost_cast(const CastArgs *a)
{
    return cost(0, D(a->n) * (size_of(a->from) + size_of(a->to) * (1 + a->add)), "%lld", L(a->n));
}
static Cost cost_copy(const CopyArgs *a)
{
    return cost(0, D(a->outer * a->inner * a->n) * size_of(a->type) * (2 + a->add), "%lldx%lldx%lld", L(a->outer),
                L(a->inner), L(a->n));
}
static Cost cost_reduce(const ReduceArgs *a)
{
    return cost(0, D(a->outer * a->reduce * a->n) * size_of(a->type) + D(a->outer * a->n) * size_of(a->type_out),
                "%lldx%lldx%lld", L(a->outer), L(a->reduce), L(a->n));
}
static Cost cost_transpose(const TransposeArgs *a)
{
    return cost(0, D(a->batch * a->a * a->b) * size_of(a->type) * (2 + a->add), "%lldx%lldx%lld", L(a->batch), L(a->a),
                L(a->b));
}
static Cost cost_tokens(const TokensArgs *a)
{
    return cost(0, 2 * D(a->batch * a->tokens * a->dim) * size_of(a->type), "%lldx%lldx%lld", L(a->batch), L(a->tokens),
                L(a->dim));
}
static Cost cost_resize(const ResizeArgs *a)
{
    return cost(0, 4 * D(a->grid * a->grid + a->rows * a->cols) * D(a->dim), "%lldx%lldx%lld", L(a->rows), L(a->cols),
                L(a->dim));
}
static Cost cost_loss(const LossArgs *a)
{
    double targets = !a->target ? 0 : a->views ? 2.0 * a->batch : D(a->rows);
    return cost(0, D(a->k) * (size_of(a->type) * D(a->rows) * (1 + (a->dlogits != NULL)) + 4 * targets), "%lldx%lld",
                L(a->rows), L(a->k));
}
static double parameters(const ParamSpan *spans, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += spans[i].skip ? 0 : D(spans[i].count);
    return sum;
}
static Cost cost_norms(const NormArgs *a)
{
    double n = parameters(a->spans, a->nspans);
    return cost(0, 4 * n, "%.0f in %d", n, a->nspans);
}
static Cost cost_adamw(const AdamwArgs *a)
{
    double n = parameters(a->spans, a->nspans);
    return cost(0, 4 * n * (7 + a->zero_grad), "%.0f in %d", n, a->nspans);
}
static Cost cost_ema(const EmaArgs *a)
{
    return cost(0, 12 * D(a->n), "%lld", L(a->n));
}
static Cost cost_targets(const TargetsArgs *a)
{
    return cost(0, 8 * D(a->rows * a->k), "%lldx%lld", L(a->rows), L(a->k));
}
static Cost cost_center(const CenterArgs *a)
{
    return cost(0, 4 * D(a->rows * a->k), "%lldx%lld", L(a->rows), L(a->k));
}
static Cost cost_discrepancy(const DiscrepancyArgs *a)
{
    return cost(0, 8 * D(a->rows * a->k), "%lldx%lld", L(a->rows), L(a->k));
}

static void note(const char *entry, const Cost *c, double seconds)
{
    char name[sizeof rows->name];
    snprintf(name, sizeof name, "%s %s", entry, c->shape);
    int i = 0;
    while (i < used && strcmp(rows[i].name, name))
        i++;
    if (i == MOST_ROWS)
        return;
    if (i == used)
        memcpy(rows[used++].name, name, sizeof name);
    rows[i].calls++;
    rows[i].flops += c->flops;
    rows[i].bytes += c->bytes;
    rows[i].seconds += seconds > wait ? seconds - wait : 0;
}

/* Every entry that computes, and how the costs of its arguments are counted. */
#define ENTRIES(X)                                                                                                    \
    X(matmul, MatmulArgs, matmul) X(colsum, ColsumArgs, colsum) X(residual_norm, ResidualNormArgs, residual_norm)     \
    X(residual_norm_backward, ResidualNormArgs, residual_norm) X(mlp, MlpArgs, mlp) X(mlp_backward, MlpArgs, mlp)     \
    X(attention, AttentionArgs, attention) X(attention_backward, AttentionArgs, attention) X(conv, ConvArgs, conv)    \
    X(conv_backward, ConvArgs, conv) X(patches, PatchArgs, patches) X(patches_backward, PatchArgs, patches)           \
    X(normalize_u8, NormalizeArgs, normalize) X(cast, CastArgs, cast) X(copy, CopyArgs, copy)                         \
    X(reduce, ReduceArgs, reduce) X(transpose, TransposeArgs, transpose) X(tokens, TokensArgs, tokens)                \
    X(resize, ResizeArgs, resize) X(resize_backward, ResizeArgs, resize) X(add, PointArgs, point)                     \
    X(mul, PointArgs, point) X(gelu, PointArgs, point) X(gelu_backward, PointArgs, point)                             \
    X(add_scalar, PointArgs, point) X(scale, PointArgs, scale) X(residual, ResidualArgs, residual)                    \
    X(layer_norm, RowArgs, rows) X(layer_norm_backward, RowArgs, rows) X(l2_normalize, RowArgs, rows)                 \
    X(l2_normalize_backward, RowArgs, rows) X(weight_norm, RowArgs, rows) X(weight_norm_backward, RowArgs, rows)      \
    X(softmax, RowArgs, rows) X(softmax_backward, RowArgs, rows) X(log_softmax, RowArgs, rows)                        \
    X(log_softmax_backward, RowArgs, rows) X(dino_loss, LossArgs, loss) X(soft_ce, LossArgs, loss)                    \
    X(hard_ce, LossArgs, loss) X(kl, LossArgs, loss) X(norms, NormArgs, norms) X(adamw, AdamwArgs, adamw)             \
    X(ema, EmaArgs, ema) X(targets, TargetsArgs, targets) X(center, CenterArgs, center)                               \
    X(discrepancy, DiscrepancyArgs, discrepancy)

#define TIMED(entry, Args, costs)                                  \
    static int timed_##entry(Backend *be, const Args *a)           \
    {                                                              \
        if (depth)                                                 \
            return inner.entry(be, a);                             \
        Cost c = cost_##costs(a);                                  \
        if (be->sync(be))                                          \
            return -1;                                             \
        double start = log_seconds();                              \
        depth++;                                                   \
        int rc = inner.entry(be, a) < 0 || be->sync(be) ? -1 : 0;  \
        depth--;                                                   \
        note(#entry, &c, log_seconds() - start);                   \
        return rc;                                                 \
    }
ENTRIES(TIMED)

#define PUT(entry, Args, costs)            \
    if (inner.entry)                       \
        be->entry = timed_##entry;

int profile_begin(Backend *be)
{
    float *x = be->alloc(be, sizeof *x);
    if (!x || be->zero(be, x, sizeof *x) || be->sync(be))
        return -1;
    wait = 1;
    for (int i = 0; i < TRIES; i++) {
        double start = log_seconds();
        if (be->add(be, &(PointArgs){ .n = 1, .x = x, .out = x, .factor = 1 }) || be->sync(be))
            return -1;
        double took = log_seconds() - start;
        wait = took < wait ? took : wait;
    }
    be->release(be, x, sizeof *x);
    inner = *be;
    ENTRIES(PUT)
    return 0;
}

void profile_reset(void)
{
    used = 0;
    memset(rows, 0, sizeof rows);
}

static int by_seconds(const void *a, const void *b)
{
    double x = ((const Row *)a)->seconds, y = ((const Row *)b)->seconds;
    return (x < y) - (x > y);
}

void profile_print(int64_t steps, const Ceilings *most)
{
    double all = 0; /* of the kernels: the step has waits as well */
    qsort(rows, (size_t)used, sizeof *rows, by_seconds);
    for (const Row *r = rows; r < rows + used; r++)
        all += r->seconds;
    for (const Row *r = rows; r < rows + used; r++) {
        double by_flops = most->flops > 0 ? r->flops / most->flops : 0, by_bytes = r->bytes / most->bytes;
        double floor = by_flops > by_bytes ? by_flops : by_bytes, n = (double)steps;
        printf("{\"bench\":\"kernel\",\"kernel\":\"%s\",\"calls\":%.4g,\"ms\":%.4g,\"of_kernels\":%.4f,"
               "\"bound\":\"%s\",\"of_ceiling\":%.3f}\n",
               r->name, (double)r->calls / n, 1e3 * r->seconds / n, r->seconds / all,
               by_flops > by_bytes ? "flops" : "bytes", r->seconds > 0 ? floor / r->seconds : 0);
    }
}
