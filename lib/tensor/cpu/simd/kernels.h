/* The loops of the CPU backend that are compiled for each instruction set. They work on one thread's share:
 * threads are the callers' business (tensor/cpu/...). Pointers need no alignment; counts may be 0. */
#ifndef HSSL_CPU_KERNELS_H
#define HSSL_CPU_KERNELS_H

#include "util/isa.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    /* ---- matrix products with a packed right-hand side (gemm.c) */
    int gemm_panel; /* columns of a panel */
    int64_t (*gemm_packed_size)(int64_t n, int64_t k);
    /* panels [from, to) of b, [k,n] or with tb [n,k], of ceil(n / gemm_panel) */
    void (*gemm_pack)(const float *b, int64_t ldb, bool tb, int64_t n, int64_t k, int64_t from, int64_t to,
                      float *packed);
    /* c[m,n] = a[m,k] b (+ c); transposed: a is stored [k,m] */
    void (*gemm_product)(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, bool transposed,
                         const float *packed, bool add, float *c, int64_t ldc);

    /* ---- elementwise (point.c) */
    void (*gelu)(const float *x, float *y, int64_t n);
    /* dx = dy gelu'(x) (+ dx) */
    void (*gelu_backward)(const float *x, const float *dy, float *dx, int64_t n, bool add);
    /* y = gelu(x) and d = dy gelu'(x) in one pass; d may be dy */
    void (*gelu_both)(const float *x, const float *dy, float *y, float *d, int64_t n);
    /* rows of x + bias: into pre (or NULL), gelu of it into y; y and pre may be x. bias may be NULL */
    void (*bias_gelu)(const float *x, const float *bias, float *pre, float *y, int64_t rows, int64_t cols);
    /* out = a x + b y (+ out); y may be NULL */
    void (*axpby)(const float *x, float a, const float *y, float b, float *out, int64_t n, bool add);
    void (*mul)(const float *x, const float *y, float factor, float *out, int64_t n, bool add);
    void (*fill)(float value, float *out, int64_t n, bool add);
    /* y[r] = x[r] + factor (y[r] + bias); x and bias may be NULL. ldx, ldy: elements between rows */
    void (*bias_residual)(float *y, const float *bias, float factor, const float *x, int64_t rows,
                          int64_t cols);
    /* out[c] += sum over rows */
    void (*colsum)(const float *x, int64_t rows, int64_t cols, float *out);
    double (*sum)(const float *x, int64_t n);
    double (*sum_squares)(const float *x, int64_t n);
    bool (*all_finite)(const float *x, int64_t n);

    /* ---- rows (row.c); stat holds mean, 1/std for each row, or is NULL */
    void (*layer_norm)(const float *x, const float *gamma, const float *beta, float eps, float *y,
                       float *stat, int64_t rows, int64_t cols);
    /* dgamma, dbeta are added to, or NULL both; dx may be dy */
    void (*layer_norm_backward)(const float *x, const float *dy, const float *gamma, const float *stat,
                                float *dx, bool add, float *dgamma, float *dbeta, int64_t rows, int64_t cols);
    /* y = (x - mean) rstd gamma + beta from stat */
    void (*layer_norm_again)(const float *x, const float *gamma, const float *beta, const float *stat,
                             float *y, int64_t rows, int64_t cols);
    /* y = x scale[r] / max(|x|, eps); norm [rows] or NULL; scale [rows] or NULL */
    void (*normalize)(const float *x, float eps, const float *scale, float *y, float *norm, int64_t rows,
                      int64_t cols);
    void (*normalize_backward)(const float *x, const float *dy, float eps, const float *scale,
                               const float *norm, float *dx, bool add, float *dscale, int64_t rows,
                               int64_t cols);
    void (*softmax)(const float *x, float *y, int64_t rows, int64_t cols);
    void (*softmax_backward)(const float *y, const float *dy, float *dx, bool add, int64_t rows,
                             int64_t cols);
    void (*log_softmax)(const float *x, float *y, int64_t rows, int64_t cols);
    void (*log_softmax_backward)(const float *y, const float *dy, float *dx, bool add, int64_t rows,
                                 int64_t cols);
    /* log sum exp(factor x) */
    float (*log_sum_exp)(const float *x, float factor, int64_t n);
    /* y = exp(factor (x - center) - lse), center may be NULL */
    void (*exp_shifted)(const float *x, const float *center, float factor, float lse, float *y, int64_t n);
    double (*dot)(const float *x, const float *y, int64_t n);
    /* d = a exp(factor x - lse) - b q - c r; q, r may be NULL, d may be x */
    void (*soft_gradient)(const float *x, float factor, float lse, float a, const float *q, float b,
                          const float *r, float c, float *d, int64_t n);

    /* ---- attention (row.c): s holds products q k, row stride ld; in place. Rows have room up to a multiple
     * of 16, which is written as well */
    /* s = exp(scale s - max) by rows, sum[r] = 1 / row sum, lse[r] (or NULL) = log of the sum of exp(scale s)
     */
    void (*attention_softmax)(float *s, int64_t ld, float scale, int64_t rows, int64_t cols, float *inverse,
                              float *lse);
    /* s: products; d: gradient of the probabilities. p = exp(scale s - lse) into s, ds = p (d - delta) scale
     * into d */
    void (*attention_backward)(float *s, float *d, int64_t ld, float scale, int64_t rows, int64_t cols,
                               const float *lse, const float *delta);
    void (*scale_rows)(float *x, int64_t ld, const float *factor, int64_t rows, int64_t cols);

    /* ---- depthwise convolution, channels last (depthwise.c); w [kh kw, channels] */
    /* Stride 1, one sample, channels [c0, c0 + 16). scratch: 16 ((h + 2 pad_y) (width + 2 pad_x) + kh kw)
     * floats */
    void (*depthwise_plane)(const float *x, const float *w, const float *bias, float *y, int64_t h,
                            int64_t width, int64_t channels, int64_t c0, int64_t ho, int64_t wo, int kh,
                            int kw, int pad_y, int pad_x, bool add, float *scratch);
    /* dw[kh kw, channels] += there. scratch: 16 ((h + 2 pad_y) (width + 2 pad_x) + ho wo) floats */
    void (*depthwise_plane_weights)(const float *x, const float *dy, float *dw, int64_t h, int64_t width,
                                    int64_t channels, int64_t c0, int64_t ho, int64_t wo, int kh, int kw,
                                    int pad_y, int pad_x, float *scratch);
    /* Any stride. */
    void (*depthwise_row)(const float *x, const float *w, const float *bias, float *y, int64_t h,
                          int64_t width, int64_t channels, int64_t wo, int kh, int kw, int stride, int pad,
                          int64_t oy, bool add);
    /* dw[kh kw, channels] += over one sample */
    void (*depthwise_weights)(const float *x, const float *dy, float *dw, int64_t h, int64_t width,
                              int64_t channels, int64_t ho, int64_t wo, int kh, int kw, int stride, int pad);

    /* ---- optimiser (point.c) */
    void (*adamw)(float *p, float *g, float *m, float *v, int64_t n, float clip, float shrink, double beta1,
                  double beta2, float step, float root, float eps, bool zero_grad);
} CpuKernels;

ISA_DECLARE(void, cpu_gemm_kernels, (CpuKernels *k));
ISA_DECLARE(void, cpu_point_kernels, (CpuKernels *k));
ISA_DECLARE(void, cpu_row_kernels, (CpuKernels *k));
ISA_DECLARE(void, cpu_depthwise_kernels, (CpuKernels *k));

#endif
