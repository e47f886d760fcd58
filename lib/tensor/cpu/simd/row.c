/* Loops over rows: norms, softmaxes, attention. */
#include "tensor/cpu/simd/kernels.h"
#include "tensor/cpu/simd/math.h"

#include <math.h>

/* Sums go in 16 lanes that are added up as a tree at the end: few steps, and the same numbers on each
 * instruction set. Compilers make a chain of 16 scalar additions of it when left alone. */
enum { LANES = 16 };
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int32_t Masks __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef float Lanes8 __attribute__((vector_size(32), may_alias));
typedef float Lanes4 __attribute__((vector_size(16), may_alias));
typedef int32_t Masks8 __attribute__((vector_size(32), may_alias));
typedef int32_t Masks4 __attribute__((vector_size(16), may_alias));
/* By lanes, a where a > b, else b. */
#define LARGER(Mask, Float, a, b) ((Float)((((a) > (b)) & (Mask)(a)) | (~((a) > (b)) & (Mask)(b))))

static inline float add_up(const Lanes *v)
{
    Lanes8 e = __builtin_shufflevector(*v, *v, 0, 1, 2, 3, 4, 5, 6, 7) +
               __builtin_shufflevector(*v, *v, 8, 9, 10, 11, 12, 13, 14, 15);
    Lanes4 f = __builtin_shufflevector(e, e, 0, 1, 2, 3) + __builtin_shufflevector(e, e, 4, 5, 6, 7);
    return (f[0] + f[2]) + (f[1] + f[3]);
}

static float row_sum(const float *x, int64_t n)
{
    Lanes s = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        s += *(const Lanes *)(x + i);
    float total = add_up(&s);
    for (; i < n; i++)
        total += x[i];
    return total;
}

static float row_max(const float *x, int64_t n)
{
    float m = -INFINITY;
    int64_t i = 0;
    if (n >= LANES) {
        Lanes v = *(const Lanes *)x;
        for (i = LANES; i + LANES <= n; i += LANES) {
            Lanes w = *(const Lanes *)(x + i);
            v = LARGER(Masks, Lanes, w, v);
        }
        Lanes8 a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
        Lanes8 b = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
        a = LARGER(Masks8, Lanes8, a, b);
        Lanes4 c = __builtin_shufflevector(a, a, 0, 1, 2, 3), d = __builtin_shufflevector(a, a, 4, 5, 6, 7);
        c = LARGER(Masks4, Lanes4, c, d);
        float e = c[0] > c[1] ? c[0] : c[1], f = c[2] > c[3] ? c[2] : c[3];
        m = e > f ? e : f;
    }
    for (; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static float row_dot(const float *x, const float *y, int64_t n)
{
    Lanes s = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        s += *(const Lanes *)(x + i) * *(const Lanes *)(y + i);
    float total = add_up(&s);
    for (; i < n; i++)
        total += x[i] * y[i];
    return total;
}

/* sum of (x - mean)^2 */
static float row_spread(const float *x, float mean, int64_t n)
{
    Lanes s = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        Lanes d = *(const Lanes *)(x + i) - mean;
        s += d * d;
    }
    float total = add_up(&s);
    for (; i < n; i++)
        total += (x[i] - mean) * (x[i] - mean);
    return total;
}

/* ---- layer norm */

static void affine(const float *x, float mean, float rstd, const float *gamma, const float *beta, float *y,
                   int64_t cols)
{
    if (gamma) {
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            y[i] = (x[i] - mean) * rstd * gamma[i] + beta[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            y[i] = (x[i] - mean) * rstd;
    }
}

static void layer_norm(const float *x, const float *gamma, const float *beta, float eps, float *y,
                       float *stat, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        float mean = row_sum(x, cols) / (float)cols;
        float rstd = 1.0f / __builtin_sqrtf(row_spread(x, mean, cols) / (float)cols + eps);
        if (stat) {
            stat[2 * r] = mean;
            stat[2 * r + 1] = rstd;
        }
        affine(x, mean, rstd, gamma, beta, y, cols);
    }
}

static void layer_norm_again(const float *x, const float *gamma, const float *beta, const float *stat,
                             float *y, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++)
        affine(x + r * cols, stat[2 * r], stat[2 * r + 1], gamma, beta, y + r * cols, cols);
}

/* *sw = sum of w, *swx = sum of w (x - mean), w = dy gamma. */
static void weighted_sums(const float *x, const float *dy, const float *gamma, float mean, int64_t n,
                          float *sw, float *swx)
{
    Lanes s = { 0 }, q = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        Lanes w = *(const Lanes *)(dy + i);
        if (gamma)
            w *= *(const Lanes *)(gamma + i);
        s += w;
        q += w * (*(const Lanes *)(x + i) - mean);
    }
    float total = add_up(&s), product = add_up(&q);
    for (; i < n; i++) {
        float w = gamma ? dy[i] * gamma[i] : dy[i];
        total += w;
        product += w * (x[i] - mean);
    }
    *sw = total;
    *swx = product;
}

/* With h = (x - mean) rstd and w = dy gamma: dx = rstd (w - mean(w) - h mean(w h)). */
static void layer_norm_backward(const float *x, const float *dy, const float *gamma, const float *stat,
                                float *dx, bool add, float *dgamma, float *dbeta, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, dy += cols) {
        float mean = stat[2 * r], rstd = stat[2 * r + 1], sw = 0, swh = 0;
        if (dgamma) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++) {
                dgamma[i] += dy[i] * ((x[i] - mean) * rstd);
                dbeta[i] += dy[i];
            }
        }
        if (!dx)
            continue;
        weighted_sums(x, dy, gamma, mean, cols, &sw, &swh);
        float a = sw / (float)cols, b = swh * rstd * rstd / (float)cols;
        if (gamma && add) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                dx[i] += rstd * (dy[i] * gamma[i] - a - (x[i] - mean) * b);
        } else if (gamma) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                dx[i] = rstd * (dy[i] * gamma[i] - a - (x[i] - mean) * b);
        } else {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                dx[i] = (add ? dx[i] : 0.0f) + rstd * (dy[i] - a - (x[i] - mean) * b);
        }
        dx += cols;
    }
}

/* ---- x scale / max(|x|, eps) */

static void normalize(const float *x, float eps, const float *scale, float *y, float *norm, int64_t rows,
                      int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        float length = __builtin_sqrtf(row_dot(x, x, cols));
        float f = (scale ? scale[r] : 1.0f) / (length > eps ? length : eps);
        if (norm)
            norm[r] = length;
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            y[i] = x[i] * f;
    }
}

static void normalize_backward(const float *x, const float *dy, float eps, const float *scale,
                               const float *norm, float *dx, bool add, float *dscale, int64_t rows,
                               int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, dy += cols) {
        bool clamped = !(norm[r] > eps);
        float inverse = 1.0f / (clamped ? eps : norm[r]), s = row_dot(x, dy, cols) * inverse;
        if (dscale)
            dscale[r] += s;
        if (!dx)
            continue;
        float f = (scale ? scale[r] : 1.0f) * inverse, b = clamped ? 0.0f : f * s * inverse;
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            dx[i] = (add ? dx[i] : 0.0f) + f * dy[i] - b * x[i];
        dx += cols;
    }
}

/* ---- softmax */

static float exp_row(const float *x, float factor, float shift, float *y, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = exp_poly(x[i] * factor - shift);
    return row_sum(y, n);
}

static void softmax(const float *x, float *y, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        float inverse = 1.0f / exp_row(x, 1, row_max(x, cols), y, cols);
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            y[i] *= inverse;
    }
}

static void softmax_backward(const float *y, const float *dy, float *dx, bool add, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, y += cols, dy += cols, dx += cols) {
        float s = row_dot(y, dy, cols);
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            dx[i] = (add ? dx[i] : 0.0f) + y[i] * (dy[i] - s);
    }
}

static float log_sum_exp(const float *x, float factor, int64_t n)
{
    float m = row_max(x, n) * factor, s = 0;
    /* Pieces, so that long rows lose no precision. */
    double total = 0;
    for (int64_t at = 0; at < n; at += 4096) {
        int64_t end = n - at < 4096 ? n : at + 4096;
        s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t i = at; i < end; i++)
            s += exp_poly(x[i] * factor - m);
        total += (double)s;
    }
    return m + (float)log(total);
}

static void log_softmax(const float *x, float *y, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        float l = log_sum_exp(x, 1, cols);
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            y[i] = x[i] - l;
    }
}

static void log_softmax_backward(const float *y, const float *dy, float *dx, bool add, int64_t rows,
                                 int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, y += cols, dy += cols, dx += cols) {
        float s = row_sum(dy, cols);
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            dx[i] = (add ? dx[i] : 0.0f) + dy[i] - exp_poly(y[i]) * s;
    }
}

static void exp_shifted(const float *x, const float *center, float factor, float lse, float *y, int64_t n)
{
    if (center) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = exp_poly((x[i] - center[i]) * factor - lse);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = exp_poly(x[i] * factor - lse);
    }
}

static double dot(const float *x, const float *y, int64_t n)
{
    double total = 0;
    for (int64_t at = 0; at < n; at += 4096)
        total += (double)row_dot(x + at, y + at, n - at < 4096 ? n - at : 4096);
    return total;
}

static void soft_gradient(const float *x, float factor, float lse, float a, const float *q, float b,
                          const float *r, float c, float *d, int64_t n)
{
    if (q && r) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = a * exp_poly(x[i] * factor - lse) - b * q[i] - c * r[i];
    } else if (q) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = a * exp_poly(x[i] * factor - lse) - b * q[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = a * exp_poly(x[i] * factor - lse);
    }
}

/* ---- attention */

/* Rows are padded to a multiple of 16, so that no loop has a rest; what lies past cols counts for nothing. */
static int64_t full(int64_t cols)
{
    return (cols + 15) / 16 * 16;
}

static void attention_softmax(float *s, int64_t ld, float scale, int64_t rows, int64_t cols, float *inverse,
                              float *lse)
{
    int64_t n = full(cols);
    for (int64_t r = 0; r < rows; r++, s += ld) {
        for (int64_t i = cols; i < n; i++)
            s[i] = -INFINITY;
        float m = row_max(s, n) * scale, total = exp_row(s, scale, m, s, n / 16 * 16);
        inverse[r] = 1.0f / total;
        if (lse)
            lse[r] = m + logf(total);
    }
}

static void attention_backward(float *s, float *d, int64_t ld, float scale, int64_t rows, int64_t cols,
                               const float *lse, const float *delta)
{
    int64_t n = full(cols);
    for (int64_t r = 0; r < rows; r++, s += ld, d += ld) {
        float l = lse[r], e = delta[r];
        for (int64_t i = cols; i < n; i++)
            s[i] = d[i] = 0;
#pragma omp simd
        for (int64_t i = 0; i < n / 16 * 16; i++) {
            float p = exp_poly(s[i] * scale - l);
            s[i] = p;
            d[i] = p * (d[i] - e) * scale;
        }
    }
}

static void scale_rows(float *x, int64_t ld, const float *factor, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += ld) {
        float f = factor[r];
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            x[i] *= f;
    }
}

void ISA_FN(cpu_row_kernels)(CpuKernels *k)
{
    k->layer_norm = layer_norm;
    k->layer_norm_again = layer_norm_again;
    k->layer_norm_backward = layer_norm_backward;
    k->normalize = normalize;
    k->normalize_backward = normalize_backward;
    k->softmax = softmax;
    k->softmax_backward = softmax_backward;
    k->log_softmax = log_softmax;
    k->log_softmax_backward = log_softmax_backward;
    k->log_sum_exp = log_sum_exp;
    k->exp_shifted = exp_shifted;
    k->dot = dot;
    k->soft_gradient = soft_gradient;
    k->attention_softmax = attention_softmax;
    k->attention_backward = attention_backward;
    k->scale_rows = scale_rows;
}
