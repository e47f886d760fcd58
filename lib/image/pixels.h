/* Private to lib/image: the loops over pixels, one table of them for each instruction set (util/isa.h). Every
 * variant gives the same bytes. Planes are arrays of 8-bit values, one for each colour. */
#ifndef HSSL_PIXELS_H
#define HSSL_PIXELS_H

#include <stdint.h>

#include "util/isa.h"

/* The taps of one resampled axis: output i is the sum of input lo[i] + j times k[i * width + j], j < width, in units
 * of 2^-22. width is a multiple of 4; the taps beyond the filter's reach are 0 and may lie past the input's end by
 * up to 3 places. kh and kl are the same taps as 16-bit halves: k = kh * 4096 + kl. */
typedef struct {
    int outputs, width;
    int *lo, *n; /* n: taps that count */
    int32_t *k;
    int16_t *kh, *kl;
} Taps;

enum { TAP_BITS = 22 };

typedef struct {
    /* Resample `rows` interleaved RGB rows along x. src may be read up to 16 bytes past a row's last tap. */
    void (*resample_x)(const uint8_t *src, int64_t src_stride, int rows, const Taps *t, uint8_t *dst,
                       int64_t dst_stride);
    /* One row of n bytes from the taps rows[0..count) with weights k. */
    void (*resample_y)(const uint8_t *src, int64_t src_stride, int count, const int32_t *k, int n, uint8_t *dst);
    void (*split)(const uint8_t *rgb, int n, uint8_t *r, uint8_t *g, uint8_t *b);
    void (*join)(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb);
    /* y = gray of r, g, b; returns the sum. */
    int64_t (*gray)(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *y);
    /* x = blend(d, x, f) with a plane d, or a constant. */
    void (*blend)(const uint8_t *d, float f, int n, uint8_t *x);
    void (*blend_constant)(uint8_t d, float f, int n, uint8_t *x);
    /* Turn the hue by shift / 256 of the circle, by way of 8-bit HSV. */
    void (*hue)(uint8_t *r, uint8_t *g, uint8_t *b, int n, int shift);
    void (*solarize)(uint8_t *x, int n);
    /* One pass of an extended box blur: dst[i] = (ww * sum_{|d| <= ri} src[i + d] + fw * (src[i - ri - 1] +
     * src[i + ri + 1]) + 2^23) >> 24. src has ri + 1 values before and after the n. */
    void (*box_x)(const uint8_t *src, int n, int ri, uint32_t ww, uint32_t fw, uint8_t *dst);
    /* The same down a column, for a row of n: rows[0..2 ri + 2] are the 2 ri + 3 rows in order. */
    void (*box_y)(const uint8_t *const *rows, int n, int ri, uint32_t ww, uint32_t fw, uint8_t *dst);
} PixelKernels;

ISA_DECLARE(void, pixel_kernels, (PixelKernels *k));
ISA_DECLARE(void, color_kernels, (PixelKernels *k));

/* The best of this processor. */
const PixelKernels *pixels(void);

#endif
