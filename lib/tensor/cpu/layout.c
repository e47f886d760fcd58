/* Kernels that move, reduce and resample. */
#include "tensor/cpu/cpu.h"

#include <string.h>

static int normalize_u8(Backend *be, const NormalizeArgs *a)
{
    (void)be;
    int64_t h = a->h, w = a->w;
    static const float mean[3] = IMAGE_MEAN, deviation[3] = IMAGE_DEVIATION;
    float table[3][256];
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            table[c][v] = ((float)v / 255.0f - mean[c]) / deviation[c];
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->batch * h; i++) {
        const uint8_t *from = a->x + i * w * 3;
        float *to = (float *)a->out + (i / h * 3 * h + i % h) * w;
        for (int64_t j = 0; j < w; j++)
            for (int c = 0; c < 3; c++)
                to[c * h * w + j] = table[c][from[3 * j + c]];
    }
    return 0;
}

static int cast(Backend *be, const CastArgs *a)
{
    return be->add(be, &(PointArgs){ .n = a->n, .x = a->x, .out = a->out, .factor = 1, .add = a->add });
}

static int copy(Backend *be, const CopyArgs *a)
{
    (void)be;
    int64_t rows = a->outer * a->inner;
#pragma omp parallel for schedule(static) if (rows * a->n > CPU_SERIAL)
    for (int64_t i = 0; i < rows; i++) {
        const float *x = (const float *)a->x + i / a->inner * a->x_outer + i % a->inner * a->x_inner;
        float *out = (float *)a->out + i / a->inner * a->out_outer + i % a->inner * a->out_inner;
        if (a->add)
            cpu.axpby(x, 1, NULL, 0, out, a->n, true);
        else
            memcpy(out, x, (size_t)a->n * sizeof(float));
    }
    return 0;
}

/* Sums of many rows go by pieces: first within a piece, then over the pieces, so that rounding stays small.
 */
static int reduce(Backend *be, const ReduceArgs *a)
{
    (void)be;
    const float *all = a->x;
    float *out = a->out;
    if (a->n == 1) {
        for (int64_t o = 0; o < a->outer; o++) {
            float s = (float)(cpu.sum(all + o * a->x_outer, a->reduce) * (double)a->factor);
            out[o] = s + (a->add ? out[o] : 0);
        }
        return 0;
    }
    enum { PIECE = 512 };
    int64_t pieces = (a->n + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) if (a->outer * a->reduce * a->n > CPU_SERIAL)
    for (int64_t i = 0; i < a->outer * pieces; i++) {
        int64_t o = i / pieces, at = i % pieces * PIECE, len = a->n - at < PIECE ? a->n - at : PIECE;
        const float *x = all + o * a->x_outer + at;
        float total[PIECE], part[PIECE];
        memset(total, 0, sizeof total);
        for (int64_t j = 0; j < a->reduce; j += 64) {
            memset(part, 0, sizeof part);
            for (int64_t k = j; k < a->reduce && k < j + 64; k++)
                cpu.axpby(x + k * a->n, 1, NULL, 0, part, len, true);
            cpu.axpby(part, 1, NULL, 0, total, len, true);
        }
        cpu.axpby(total, a->factor, NULL, 0, out + o * a->n + at, len, a->add);
    }
    return 0;
}

static int transpose(Backend *be, const TransposeArgs *a)
{
    (void)be;
    enum { TILE = 16 };
    int64_t strips = (a->a + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) if (a->batch * a->a * a->b > CPU_SERIAL)
    for (int64_t i = 0; i < a->batch * strips; i++) {
        const float *x = (const float *)a->x + i / strips * a->a * a->b;
        float *out = (float *)a->out + i / strips * a->a * a->b;
        int64_t r0 = i % strips * TILE, r1 = r0 + TILE < a->a ? r0 + TILE : a->a;
        for (int64_t c = 0; c < a->b; c++)
            for (int64_t r = r0; r < r1; r++)
                out[c * a->a + r] = x[r * a->b + c] + (a->add ? out[c * a->a + r] : 0);
    }
    return 0;
}

static int tokens(Backend *be, const TokensArgs *a)
{
    (void)be;
    int64_t skip = a->cls ? 1 : 0, n = a->tokens + skip;
    const float *patches = a->patches;
    float *out = a->out;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->batch * n; i++) {
        int64_t b = i / n, j = i % n;
        const float *x = j < skip ? a->cls : patches + (b * a->tokens + j - skip) * a->dim;
        cpu.axpby(x, 1, a->pos ? a->pos + j * a->dim : NULL, 1, out + i * a->dim, a->dim, false);
    }
    return 0;
}

static int resize(Backend *be, const ResizeArgs *a)
{
    (void)be;
    memcpy(a->out, a->x, (size_t)(a->skip * a->dim) * sizeof(float));
    const float *x = a->x + a->skip * a->dim;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->rows * a->cols; i++) {
        int64_t r = i / a->cols, c = i % a->cols;
        float *out = a->out + (a->skip + i) * a->dim;
        memset(out, 0, (size_t)a->dim * sizeof(float));
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < 4; k++)
                cpu.axpby(x + (a->index_r[4 * r + j] * a->grid + a->index_c[4 * c + k]) * a->dim,
                          a->weight_r[4 * r + j] * a->weight_c[4 * c + k], NULL, 0, out, a->dim, true);
    }
    return 0;
}

/* Taps of several outputs meet in one input: one thread, in order. */
static int resize_backward(Backend *be, const ResizeArgs *a)
{
    (void)be;
    cpu.axpby(a->x, 1, NULL, 0, a->out, a->skip * a->dim, true);
    float *out = a->out + a->skip * a->dim;
    for (int64_t i = 0; i < a->rows * a->cols; i++) {
        int64_t r = i / a->cols, c = i % a->cols;
        const float *x = a->x + (a->skip + i) * a->dim;
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < 4; k++)
                cpu.axpby(x, a->weight_r[4 * r + j] * a->weight_c[4 * c + k], NULL, 0,
                          out + (a->index_r[4 * r + j] * a->grid + a->index_c[4 * c + k]) * a->dim, a->dim,
                          true);
    }
    return 0;
}

void cpu_layout_table(Backend *be)
{
    be->normalize_u8 = normalize_u8;
    be->cast = cast;
    be->copy = copy;
    be->reduce = reduce;
    be->transpose = transpose;
    be->tokens = tokens;
    be->resize = resize;
    be->resize_backward = resize_backward;
}
