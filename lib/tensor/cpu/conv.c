/* Convolutions, channels last. Dense ones are products of gathered patches with the weights, a few output
 * rows at a time; depthwise ones have loops of their own (simd/depthwise.c). */
#include "tensor/cpu/cpu.h"

#include <string.h>

/* ---- weights: [cout, cin, kh, kw] <-> [cout, kh kw cin], and depthwise [c, 1, kh, kw] <-> [kh kw, c] */

static int64_t taps(const ConvArgs *a)
{
    return (int64_t)a->kh * a->kw;
}

static void weights_in(const ConvArgs *a, float *to, bool flip)
{
    int64_t k = taps(a), cin = a->cin / a->groups;
    if (a->groups > 1) {
        for (int64_t c = 0; c < a->cin; c++)
            for (int64_t i = 0; i < k; i++)
                to[(flip ? k - 1 - i : i) * a->cin + c] = floats(a->weight, 0)[c * k + i];
        return;
    }
    for (int64_t o = 0; o < a->cout; o++)
        for (int64_t c = 0; c < cin; c++)
            for (int64_t i = 0; i < k; i++)
                to[(o * k + i) * cin + c] = floats(a->weight, 0)[(o * cin + c) * k + i];
}

static void weights_out(const ConvArgs *a, const float *from, float *to)
{
    int64_t k = taps(a), cin = a->cin / a->groups;
    if (a->groups > 1) {
        for (int64_t c = 0; c < a->cin; c++)
            for (int64_t i = 0; i < k; i++)
                to[c * k + i] += from[i * a->cin + c];
        return;
    }
    for (int64_t o = 0; o < a->cout; o++)
        for (int64_t c = 0; c < cin; c++)
            for (int64_t i = 0; i < k; i++)
                to[(o * cin + c) * k + i] += from[(o * k + i) * cin + c];
}

/* ---- dense */

/* Output row (sample, oy): its wo patches as rows of kh kw cin. */
static void gather(const ConvArgs *a, int64_t sample, int64_t oy, float *out)
{
    size_t piece = (size_t)a->cin * sizeof(float);
    for (int64_t ox = 0; ox < a->wo; ox++)
        for (int ky = 0; ky < a->kh; ky++)
            for (int kx = 0; kx < a->kw; kx++, out += a->cin) {
                int64_t iy = oy * a->stride + ky - a->pad, ix = ox * a->stride + kx - a->pad;
                if (iy < 0 || iy >= a->h || ix < 0 || ix >= a->w)
                    memset(out, 0, piece);
                else
                    memcpy(out, floats(a->x, ((sample * a->h + iy) * a->w + ix) * a->cin), piece);
            }
}

static void scatter(const ConvArgs *a, int64_t sample, int64_t oy, const float *from)
{
    for (int64_t ox = 0; ox < a->wo; ox++)
        for (int ky = 0; ky < a->kh; ky++)
            for (int kx = 0; kx < a->kw; kx++, from += a->cin) {
                int64_t iy = oy * a->stride + ky - a->pad, ix = ox * a->stride + kx - a->pad;
                if (iy >= 0 && iy < a->h && ix >= 0 && ix < a->w)
                    cpu.axpby(from, 1, NULL, 0, floats(a->dx, ((sample * a->h + iy) * a->w + ix) * a->cin), a->cin,
                              true);
            }
}

static int dense(const ConvArgs *a, const float *w)
{
    int64_t depth = taps(a) * a->cin;
    int failed = 0;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t i = 0; i < a->batch * a->ho; i++) {
        float *rows = cpu_scratch(SCRATCH_A, a->wo * depth), *y = floats(a->y, i * a->wo * a->cout);
        if (!rows) {
            failed = 1;
            continue;
        }
        gather(a, i / a->ho, i % a->ho, rows);
        if (cpu_gemm(false, true, a->wo, a->cout, depth, rows, depth, w, depth, 0, y, a->cout) < 0)
            failed = 1;
        if (a->bias)
            cpu.bias_residual(y, a->bias, 1, NULL, a->wo, a->cout);
    }
    return failed ? -1 : 0;
}

/* Samples are dealt out to threads whole, so that no two write the same gradient. */
static int dense_backward(const ConvArgs *a, const float *w, float *dw, int me, int team)
{
    int64_t depth = taps(a) * a->cin, from, to;
    float *rows = cpu_scratch(SCRATCH_A, a->wo * depth);
    if (!rows)
        return -1;
    cpu_share(a->batch, me, team, &from, &to);
    for (int64_t s = from; s < to; s++) {
        if (a->dx && !a->add)
            memset(floats(a->dx, s * a->h * a->w * a->cin), 0, (size_t)(a->h * a->w * a->cin) * sizeof(float));
        for (int64_t oy = 0; oy < a->ho; oy++) {
            const float *dy = floats(a->dy, (s * a->ho + oy) * a->wo * a->cout);
            if (a->dweight) {
                gather(a, s, oy, rows);
                if (cpu_gemm(true, false, a->cout, depth, a->wo, dy, a->cout, rows, depth, 1, dw, depth) < 0)
                    return -1;
            }
            if (a->dx) {
                if (cpu_gemm(false, false, a->wo, depth, a->cout, dy, a->cout, w, depth, 0, rows, depth) < 0)
                    return -1;
                scatter(a, s, oy, rows);
            }
        }
    }
    return 0;
}

/* ---- depthwise */

static void depthwise_dx_any_stride(const ConvArgs *a, const float *w, int64_t s)
{
    float *dx = floats(a->dx, s * a->h * a->w * a->cin);
    if (!a->add)
        memset(dx, 0, (size_t)(a->h * a->w * a->cin) * sizeof(float));
    for (int64_t oy = 0; oy < a->ho; oy++)
        for (int64_t ox = 0; ox < a->wo; ox++)
            for (int ky = 0; ky < a->kh; ky++)
                for (int kx = 0; kx < a->kw; kx++) {
                    int64_t iy = oy * a->stride + ky - a->pad, ix = ox * a->stride + kx - a->pad;
                    if (iy >= 0 && iy < a->h && ix >= 0 && ix < a->w)
                        cpu.mul(floats(a->dy, ((s * a->ho + oy) * a->wo + ox) * a->cin),
                                w + (ky * a->kw + kx) * a->cin, 1, dx + (iy * a->w + ix) * a->cin, a->cin,
                                true);
                }
}

/* Groups of 16 channels, of which a thread takes one sample's at a time. */
static int64_t groups(const ConvArgs *a)
{
    return (a->cin + 15) / 16;
}

static float *plane_scratch(const ConvArgs *a)
{
    int64_t in = (a->h + 2 * a->pad) * (a->w + 2 * a->pad), out = (a->ho + 2 * a->kh) * (a->wo + 2 * a->kw);
    return cpu_scratch(SCRATCH_A, 16 * ((in > out ? in : out) + taps(a) + a->ho * a->wo));
}

static int depthwise(const ConvArgs *a, const float *w)
{
    int failed = 0;
    if (a->stride > 1) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < a->batch * a->ho; i++)
            cpu.depthwise_row(floats(a->x, i / a->ho * a->h * a->w * a->cin), w, a->bias, floats(a->y, i * a->wo * a->cout),
                              a->h, a->w, a->cin, a->wo, a->kh, a->kw, a->stride, a->pad, i % a->ho, false);
        return 0;
    }
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t i = 0; i < a->batch * groups(a); i++) {
        int64_t s = i / groups(a), c0 = i % groups(a) * 16;
        float *scratch = plane_scratch(a);
        if (!scratch)
            failed = 1;
        else
            cpu.depthwise_plane(floats(a->x, s * a->h * a->w * a->cin), w, a->bias,
                                floats(a->y, s * a->ho * a->wo * a->cin), a->h, a->w, a->cin, c0, a->ho, a->wo,
                                a->kh, a->kw, a->pad, a->pad, false, scratch);
    }
    return failed ? -1 : 0;
}

/* One thread's samples. With stride 1 the data gradient is a convolution of dy with the flipped kernel. */
static int depthwise_backward(const ConvArgs *a, const float *w, const float *flipped, float *dw, int me,
                              int team)
{
    int64_t from, to, in = a->h * a->w * a->cin, out = a->ho * a->wo * a->cout;
    float *scratch = plane_scratch(a);
    if (!scratch)
        return -1;
    bool plane = a->stride == 1 && a->pad < a->kh && a->pad < a->kw;
    cpu_share(a->batch, me, team, &from, &to);
    for (int64_t s = from; s < to; s++) {
        if (a->dx && !plane)
            depthwise_dx_any_stride(a, w, s);
        if (a->dweight && !plane)
            cpu.depthwise_weights(floats(a->x, s * in), floats(a->dy, s * out), dw, a->h, a->w, a->cin, a->ho, a->wo, a->kh,
                                  a->kw, a->stride, a->pad);
        for (int64_t c0 = 0; plane && c0 < a->cin; c0 += 16) {
            if (a->dx)
                cpu.depthwise_plane(floats(a->dy, s * out), flipped, NULL, floats(a->dx, s * in), a->ho, a->wo, a->cin, c0,
                                    a->h, a->w, a->kh, a->kw, a->kh - 1 - a->pad, a->kw - 1 - a->pad, a->add,
                                    scratch);
            if (a->dweight)
                cpu.depthwise_plane_weights(floats(a->x, s * in), floats(a->dy, s * out), dw, a->h, a->w, a->cin, c0, a->ho,
                                            a->wo, a->kh, a->kw, a->pad, a->pad, scratch);
        }
    }
    return 0;
}

/* ---- entries */

static int conv(Backend *be, const ConvArgs *a)
{
    (void)be;
    float *w = cpu_scratch(SCRATCH_WEIGHT, a->cout * taps(a) * (a->cin / a->groups));
    if (!w)
        return -1;
    weights_in(a, w, false);
    return a->groups == 1 ? dense(a, w) : depthwise(a, w);
}

static int conv_backward(Backend *be, const ConvArgs *a)
{
    int64_t size = a->cout * taps(a) * (a->cin / a->groups);
    int nth = omp_get_max_threads(), failed = 0;
    float *w = cpu_scratch(SCRATCH_WEIGHT, 2 * size), *partial = cpu_scratch(SCRATCH_PARTIAL, nth * size);
    if (!w || !partial)
        return -1;
    weights_in(a, w, false);
    if (a->groups > 1)
        weights_in(a, w + size, true);
    memset(partial, 0, (size_t)(nth * size) * sizeof(float));
#pragma omp parallel for schedule(static) num_threads(nth) reduction(| : failed)
    for (int i = 0; i < nth; i++)
        if ((a->groups > 1 ? depthwise_backward(a, w, w + size, partial + i * size, i, nth)
                           : dense_backward(a, w, partial + i * size, i, nth)) < 0)
            failed = 1;
    for (int i = 0; a->dweight && i < nth; i++)
        weights_out(a, partial + i * size, a->dweight);
    if (failed || !a->dbias)
        return failed ? -1 : 0;
    ColsumArgs s = {
        .rows = a->batch * a->ho * a->wo, .cols = a->cout, .x = a->dy, .out = a->dbias, .add = true};
    return be->colsum(be, &s);
}

/* ---- patches */

/* Where row y of channel c begins in the i-th row of patches, counted through the samples. */
static int64_t image_row(const PatchArgs *a, int64_t i, int64_t c, int64_t y)
{
    int64_t rows = a->h / a->patch;
    return ((i / rows * a->channels + c) * a->h + i % rows * a->patch + y) * a->w;
}

static int patches(Backend *be, const PatchArgs *a)
{
    (void)be;
    int64_t rows = a->h / a->patch, cols = a->w / a->patch, p = a->patch, in = a->channels * p * p;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->batch * rows; i++)
        for (int64_t c = 0; c < a->channels; c++)
            for (int64_t y = 0; y < p; y++) {
                const float *line = floats(a->image, image_row(a, i, c, y));
                for (int64_t x = 0; x < cols; x++)
                    memcpy(floats(a->rows, (i * cols + x) * in + (c * p + y) * p), line + x * p,
                           (size_t)p * sizeof(float));
            }
    return 0;
}

static int patches_backward(Backend *be, const PatchArgs *a)
{
    int64_t rows = a->h / a->patch, cols = a->w / a->patch, p = a->patch, in = a->channels * p * p;
    if (!a->add)
        be->zero(be, a->dimage, (size_t)(a->batch * a->channels * a->h * a->w) * sizeof(float));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->batch * rows; i++)
        for (int64_t c = 0; c < a->channels; c++)
            for (int64_t y = 0; y < p; y++) {
                float *line = floats(a->dimage, image_row(a, i, c, y));
                for (int64_t x = 0; x < cols; x++)
                    cpu.axpby(floats(a->rows, (i * cols + x) * in + (c * p + y) * p), 1, NULL, 0, line + x * p,
                              p, true);
            }
    return 0;
}

void cpu_conv_table(Backend *be)
{
    be->conv = conv;
    be->conv_backward = conv_backward;
    be->patches = patches;
    be->patches_backward = patches_backward;
}
