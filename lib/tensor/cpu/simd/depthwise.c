/* Depthwise convolution over channels-last samples. Blocks of channels stay in registers or the first cache
 * while the kernel's taps go over them. */
#include "tensor/cpu/simd/kernels.h"

enum { BLOCK = 64 };

static void depthwise_row(const float *x, const float *w, const float *bias, float *y, int64_t h, int64_t width,
                          int64_t channels, int64_t wo, int kh, int kw, int stride, int pad, int64_t oy, bool add)
{
    for (int64_t ox = 0; ox < wo; ox++)
        for (int64_t c0 = 0; c0 < channels; c0 += BLOCK) {
            int64_t n = channels - c0 < BLOCK ? channels - c0 : BLOCK;
            float acc[BLOCK] = { 0 };
            if (bias)
                for (int64_t c = 0; c < n; c++)
                    acc[c] = bias[c0 + c];
            for (int ky = 0; ky < kh; ky++) {
                int64_t iy = oy * stride + ky - pad;
                if (iy < 0 || iy >= h)
                    continue;
                for (int kx = 0; kx < kw; kx++) {
                    int64_t ix = ox * stride + kx - pad;
                    if (ix < 0 || ix >= width)
                        continue;
                    const float *a = x + (iy * width + ix) * channels + c0, *b = w + (ky * kw + kx) * channels + c0;
                    if (n == BLOCK) {
#pragma omp simd
                        for (int c = 0; c < BLOCK; c++)
                            acc[c] += a[c] * b[c];
                    } else {
#pragma omp simd
                        for (int64_t c = 0; c < n; c++)
                            acc[c] += a[c] * b[c];
                    }
                }
            }
            float *out = y + ox * channels + c0;
#pragma omp simd
            for (int64_t c = 0; c < n; c++)
                out[c] = (add ? out[c] : 0.0f) + acc[c];
        }
}

static void depthwise_weights(const float *x, const float *dy, float *dw, int64_t h, int64_t width, int64_t channels,
                              int64_t ho, int64_t wo, int kh, int kw, int stride, int pad)
{
    for (int64_t c0 = 0; c0 < channels; c0 += BLOCK) {
        int64_t n = channels - c0 < BLOCK ? channels - c0 : BLOCK;
        for (int ky = 0; ky < kh; ky++)
            for (int kx = 0; kx < kw; kx++) {
                float acc[BLOCK] = { 0 };
                for (int64_t oy = 0; oy < ho; oy++) {
                    int64_t iy = oy * stride + ky - pad;
                    if (iy < 0 || iy >= h)
                        continue;
                    for (int64_t ox = 0; ox < wo; ox++) {
                        int64_t ix = ox * stride + kx - pad;
                        if (ix < 0 || ix >= width)
                            continue;
                        const float *a = x + (iy * width + ix) * channels + c0, *b = dy + (oy * wo + ox) * channels + c0;
                        if (n == BLOCK) {
#pragma omp simd
                            for (int c = 0; c < BLOCK; c++)
                                acc[c] += a[c] * b[c];
                        } else {
#pragma omp simd
                            for (int64_t c = 0; c < n; c++)
                                acc[c] += a[c] * b[c];
                        }
                    }
                }
                float *out = dw + (ky * kw + kx) * channels + c0;
#pragma omp simd
                for (int64_t c = 0; c < n; c++)
                    out[c] += acc[c];
            }
    }
}

void ISA_FN(cpu_depthwise_kernels)(CpuKernels *k)
{
    k->depthwise_row = depthwise_row;
    k->depthwise_weights = depthwise_weights;
}
