/* Depthwise convolution over channels-last samples.
 *
 * With stride 1, 16 channels of a sample are copied into a plane with its margin of zeros, which fits the
 * first cache; outputs and taps then need no tests at borders and stay in registers. Other strides take plain
 * loops. */
#include "tensor/cpu/simd/kernels.h"

#include <string.h>

enum { LANES = 16 };
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* [h + 2 pad_y][w + 2 pad_x][16] from channels [c0, c0 + n) of x. */
static void margin(const float *x, int64_t h, int64_t w, int64_t channels, int64_t c0, int64_t n, int pad_y,
                   int pad_x, float *plane)
{
    int64_t wide = w + 2 * pad_x;
    memset(plane, 0, (size_t)((h + 2 * pad_y) * wide * LANES) * sizeof *plane);
    for (int64_t y = 0; y < h; y++)
        for (int64_t i = 0; i < w; i++)
            memcpy(plane + ((y + pad_y) * wide + i + pad_x) * LANES, x + (y * w + i) * channels + c0,
                   (size_t)n * sizeof *plane);
}

/* `count` neighbouring outputs, a constant at each call. */
static inline __attribute__((always_inline)) void outputs(int count, const float *plane, int64_t wide,
                                                          const float *taps, int kh, int kw,
                                                          const Lanes *start, Lanes *out)
{
    Lanes sum[8];
    UNROLL
    for (int j = 0; j < count; j++)
        sum[j] = *start;
    for (int ky = 0; ky < kh; ky++)
        for (int kx = 0; kx < kw; kx++) {
            Lanes tap = *(const Lanes *)(taps + (ky * kw + kx) * LANES);
            const float *x = plane + (ky * wide + kx) * LANES;
            UNROLL
            for (int j = 0; j < count; j++)
                sum[j] += tap * *(const Lanes *)(x + j * LANES);
        }
    UNROLL
    for (int j = 0; j < count; j++)
        out[j] = sum[j];
}

static void put(const Lanes *sum, int64_t count, float *y, int64_t channels, int64_t n, bool add)
{
    for (int64_t j = 0; j < count; j++, y += channels) {
        if (n == LANES) {
            Lanes v = sum[j];
            if (add)
                v += *(const Lanes *)y;
            *(Lanes *)y = v;
            continue;
        }
        for (int64_t c = 0; c < n; c++)
            y[c] = (add ? y[c] : 0.0f) + sum[j][c];
    }
}

static void depthwise_plane(const float *x, const float *w, const float *bias, float *y, int64_t h,
                            int64_t width, int64_t channels, int64_t c0, int64_t ho, int64_t wo, int kh,
                            int kw, int pad_y, int pad_x, bool add, float *scratch)
{
    int64_t n = channels - c0 < LANES ? channels - c0 : LANES, wide = width + 2 * pad_x;
    float *taps = scratch, *plane = scratch + (int64_t)kh * kw * LANES;
    Lanes start = { 0 }, sum[8];
    for (int64_t i = 0; i < (int64_t)kh * kw; i++)
        for (int64_t c = 0; c < LANES; c++)
            taps[i * LANES + c] = c < n ? w[i * channels + c0 + c] : 0.0f;
    for (int64_t c = 0; bias && c < n; c++)
        start[c] = bias[c0 + c];
    margin(x, h, width, channels, c0, n, pad_y, pad_x, plane);
    for (int64_t oy = 0; oy < ho; oy++)
        for (int64_t ox = 0, count; ox < wo; ox += count) {
            const float *at = plane + (oy * wide + ox) * LANES;
            count = wo - ox >= 14 || wo - ox == 7 ? 7 : wo - ox >= 8 ? 8 : wo - ox >= 4 ? 4 : 1;
            switch (count) {
            case 8: outputs(8, at, wide, taps, kh, kw, &start, sum); break;
            case 7: outputs(7, at, wide, taps, kh, kw, &start, sum); break;
            case 4: outputs(4, at, wide, taps, kh, kw, &start, sum); break;
            default: outputs(1, at, wide, taps, kh, kw, &start, sum); break;
            }
            put(sum, count, y + (oy * wo + ox) * channels + c0, channels, n, add);
        }
}

/* dw[kh kw][c0 .. c0 + 16) += sum over outputs of dy x: 7 taps of a row at a time. */
static void depthwise_plane_weights(const float *x, const float *dy, float *dw, int64_t h, int64_t width,
                                    int64_t channels, int64_t c0, int64_t ho, int64_t wo, int kh, int kw,
                                    int pad_y, int pad_x, float *scratch)
{
    int64_t n = channels - c0 < LANES ? channels - c0 : LANES, wide = width + 2 * pad_x;
    float *grad = scratch, *plane = scratch + ho * wo * LANES;
    margin(x, h, width, channels, c0, n, pad_y, pad_x, plane);
    margin(dy, ho, wo, channels, c0, n, 0, 0, grad);
    for (int ky = 0; ky < kh; ky++)
        for (int k0 = 0, count; k0 < kw; k0 += count) {
            Lanes sum[7] = { 0 };
            count = kw - k0 >= 7 ? 7 : 1;
            for (int64_t oy = 0; oy < ho; oy++) {
                const float *a = plane + ((oy + ky) * wide + k0) * LANES, *g = grad + oy * wo * LANES;
                if (count == 7) {
                    for (int64_t ox = 0; ox < wo; ox++, a += LANES, g += LANES)
                        UNROLL
                        for (int j = 0; j < 7; j++)
                            sum[j] += *(const Lanes *)g * *(const Lanes *)(a + j * LANES);
                } else {
                    for (int64_t ox = 0; ox < wo; ox++, a += LANES, g += LANES)
                        sum[0] += *(const Lanes *)g * *(const Lanes *)a;
                }
            }
            put(sum, count, dw + (int64_t)(ky * kw + k0) * channels + c0, channels, n, true);
        }
}

enum { BLOCK = 64 };

/* acc[c] += a[c] b[c] for c < n <= BLOCK. */
static inline void multiply_add(float *acc, const float *a, const float *b, int64_t n)
{
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

static void depthwise_row(const float *x, const float *w, const float *bias, float *y, int64_t h,
                          int64_t width, int64_t channels, int64_t wo, int kh, int kw, int stride, int pad,
                          int64_t oy, bool add)
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
                    multiply_add(acc, x + (iy * width + ix) * channels + c0, w + (ky * kw + kx) * channels + c0, n);
                }
            }
            float *out = y + ox * channels + c0;
#pragma omp simd
            for (int64_t c = 0; c < n; c++)
                out[c] = (add ? out[c] : 0.0f) + acc[c];
        }
}

static void depthwise_weights(const float *x, const float *dy, float *dw, int64_t h, int64_t width,
                              int64_t channels, int64_t ho, int64_t wo, int kh, int kw, int stride, int pad)
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
                        multiply_add(acc, x + (iy * width + ix) * channels + c0,
                                     dy + (oy * wo + ox) * channels + c0, n);
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
    k->depthwise_plane = depthwise_plane;
    k->depthwise_plane_weights = depthwise_plane_weights;
    k->depthwise_row = depthwise_row;
    k->depthwise_weights = depthwise_weights;
}
