/* Loops over rows: norms, softmaxes, attention. */
#include "tensor/cpu/simd/kernels.h"
#include "tensor/cpu/simd/math.h"

#include <math.h>

static float row_sum(const float *x, int64_t n)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += x[i];
    return s;
}

static float row_max(const float *x, int64_t n)
{
    float m = -INFINITY;
#ifndef __clang__ /* it doesn't vectorise a maximum that a NaN could enter, and warns of it */
#pragma omp simd reduction(max : m)
#endif
    for (int64_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static float row_dot(const float *x, const float *y, int64_t n)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += x[i] * y[i];
    return s;
}

/* ---- layer norm */

static void affine(const float *x, float mean, float rstd, const float *gamma, const float *beta, float *y, int64_t cols)
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

static void layer_norm(const float *x, const float *gamma, const float *beta, float eps, float *y, float *stat,
                       int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        float mean = row_sum(x, cols) / (float)cols, s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < cols; i++)
            s += (x[i] - mean) * (x[i] - mean);
        float rstd = 1.0f / __builtin_sqrtf(s / (float)cols + eps);
        if (stat) {
            stat[2 * r] = mean;
            stat[2 * r + 1] = rstd;
        }
        affine(x, mean, rstd, gamma, beta, y, cols);
    }
}

static void layer_norm_again(const float *x, const float *gamma, const float *beta, const float *stat, float *y,
                             int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++)
        affine(x + r * cols, stat[2 * r], stat[2 * r + 1], gamma, beta, y + r * cols, cols);
}

/* With h = (x - mean) rstd and w = dy gamma: dx = rstd (w - mean(w) - h mean(w h)). */
static void layer_norm_backward(const float *x, const float *dy, const float *gamma, const float *stat, float *dx,
                                bool add, float *dgamma, float *dbeta, int64_t rows, int64_t cols)
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
        if (gamma) {
#pragma omp simd reduction(+ : sw, swh)
            for (int64_t i = 0; i < cols; i++) {
                float w = dy[i] * gamma[i];
                sw += w;
                swh += w * (x[i] - mean);
            }
        } else {
#pragma omp simd reduction(+ : sw, swh)
            for (int64_t i = 0; i < cols; i++) {
                sw += dy[i];
                swh += dy[i] * (x[i] - mean);
            }
        }
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

static void normalize(const float *x, float eps, const float *scale, float *y, float *norm, int64_t rows, int64_t cols)
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

static void normalize_backward(const float *x, const float *dy, float eps, const float *scale, const float *norm,
                               float *dx, bool add, float *dscale, int64_t rows, int64_t cols)
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
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) {
        float e = exp_poly(x[i] * factor - shift);
        y[i] = e;
        s += e;
    }
    return s;
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

static void log_softmax_backward(const float *y, const float *dy, float *dx, bool add, int64_t rows, int64_t cols)
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

static void soft_gradient(const float *x, float factor, float lse, float a, const float *q, float b, const float *r,
                          float c, float *d, int64_t n, bool add)
{
    if (q && r) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = (add ? d[i] : 0.0f) + a * exp_poly(x[i] * factor - lse) - b * q[i] - c * r[i];
    } else if (q) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = (add ? d[i] : 0.0f) + a * exp_poly(x[i] * factor - lse) - b * q[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = (add ? d[i] : 0.0f) + a * exp_poly(x[i] * factor - lse);
    }
}

/* ---- attention */

/* Rows are padded to a multiple of 16, so that no loop has a rest; what lies past cols counts for nothing. */
static int64_t full(int64_t cols)
{
    return (cols + 15) / 16 * 16;
}

static void attention_softmax(float *s, int64_t ld, float scale, int64_t rows, int64_t cols, float *inverse, float *lse)
{
    int64_t n = full(cols);
    for (int64_t r = 0; r < rows; r++, s += ld) {
        for (int64_t i = cols; i < n; i++)
            s[i] = -INFINITY;
        float m = -INFINITY, total = 0;
#pragma omp simd reduction(max : m)
        for (int64_t i = 0; i < n / 16 * 16; i++)
            m = s[i] > m ? s[i] : m;
        m *= scale;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < n / 16 * 16; i++) {
            float e = exp_poly(s[i] * scale - m);
            s[i] = e;
            total += e;
        }
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
