/* Elementwise loops, sums, and the optimiser. */
#include "tensor/cpu/simd/kernels.h"
#include "tensor/cpu/simd/math.h"

#include <string.h>

static void gelu(const float *x, float *y, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = gelu_value(x[i]);
}

static void gelu_backward(const float *x, const float *dy, float *dx, int64_t n, bool add)
{
    float value;
    if (add) {
#pragma omp simd private(value)
        for (int64_t i = 0; i < n; i++)
            dx[i] += dy[i] * gelu_slope(x[i], &value);
    } else {
#pragma omp simd private(value)
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] * gelu_slope(x[i], &value);
    }
}

static void gelu_both(const float *x, const float *dy, float *y, float *d, int64_t n)
{
    float value;
#pragma omp simd private(value)
    for (int64_t i = 0; i < n; i++) {
        float slope = gelu_slope(x[i], &value);
        y[i] = value;
        d[i] = dy[i] * slope;
    }
}

static void bias_gelu(const float *x, const float *bias, float *pre, float *y, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        if (bias && pre) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++) {
                float h = x[i] + bias[i];
                pre[i] = h;
                y[i] = gelu_value(h);
            }
        } else if (bias) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                y[i] = gelu_value(x[i] + bias[i]);
        } else {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++) {
                float h = x[i];
                if (pre)
                    pre[i] = h;
                y[i] = gelu_value(h);
            }
        }
        if (pre)
            pre += cols;
    }
}

static void axpby(const float *x, float a, const float *y, float b, float *out, int64_t n, bool add)
{
    if (add && y) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] += a * x[i] + b * y[i];
    } else if (add) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] += a * x[i];
    } else if (y) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = a * x[i] + b * y[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = a * x[i];
    }
}

static void mul(const float *x, const float *y, float factor, float *out, int64_t n, bool add)
{
    if (add) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] += factor * (x[i] * y[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = factor * (x[i] * y[i]);
    }
}

static void fill(float value, float *out, int64_t n, bool add)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = (add ? out[i] : 0.0f) + value;
}

static void bias_residual(float *y, const float *bias, float factor, const float *x, int64_t rows,
                          int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, y += cols) {
        if (bias && x) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                y[i] = x[i] + factor * (y[i] + bias[i]);
        } else if (bias) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                y[i] = factor * (y[i] + bias[i]);
        } else if (x) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                y[i] = x[i] + factor * y[i];
        } else if (factor != 1) {
#pragma omp simd
            for (int64_t i = 0; i < cols; i++)
                y[i] *= factor;
        }
        if (x)
            x += cols;
    }
}

static void colsum(const float *x, int64_t rows, int64_t cols, float *out)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4, x += 4 * cols) {
        const float *a = x, *b = x + cols, *c = b + cols, *d = c + cols;
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            out[i] += (a[i] + b[i]) + (c[i] + d[i]);
    }
    for (; r < rows; r++, x += cols) {
#pragma omp simd
        for (int64_t i = 0; i < cols; i++)
            out[i] += x[i];
    }
}

static double sum(const float *x, int64_t n)
{
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i];
    return s;
}

static double sum_squares(const float *x, int64_t n)
{
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * (double)x[i];
    return s;
}

/* An exponent of all ones is an infinity or a NaN. */
static bool all_finite(const float *x, int64_t n)
{
    uint32_t worst = 0;
#pragma omp simd reduction(max : worst)
    for (int64_t i = 0; i < n; i++) {
        uint32_t e;
        memcpy(&e, x + i, sizeof e);
        e &= 0x7f800000u;
        worst = e > worst ? e : worst;
    }
    return worst < 0x7f800000u;
}

/* shrink is 1 - lr wd, step lr / (1 - beta1^k), root 1 / sqrt(1 - beta2^k). */
static void adamw(float *p, float *g, float *m, float *v, int64_t n, float clip, float shrink, double b1,
                  double b2, float step, float root, float eps, bool zero_grad)
{
    /* 1 - beta2 is small: taken in float it would be off by 1e-5 of itself. */
    float beta1 = (float)b1, beta2 = (float)b2, a = (float)(1 - b1), b = (float)(1 - b2);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * clip;
        float mi = beta1 * m[i] + a * d, vi = beta2 * v[i] + b * d * d;
        m[i] = mi;
        v[i] = vi;
        p[i] = p[i] * shrink - step * mi / (__builtin_sqrtf(vi) * root + eps);
        g[i] = zero_grad ? 0.0f : d;
    }
}

void ISA_FN(cpu_point_kernels)(CpuKernels *k)
{
    k->gelu = gelu;
    k->gelu_backward = gelu_backward;
    k->gelu_both = gelu_both;
    k->bias_gelu = bias_gelu;
    k->axpby = axpby;
    k->mul = mul;
    k->fill = fill;
    k->bias_residual = bias_residual;
    k->colsum = colsum;
    k->sum = sum;
    k->sum_squares = sum_squares;
    k->all_finite = all_finite;
    k->adamw = adamw;
}
