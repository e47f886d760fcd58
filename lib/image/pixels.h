/* Private to lib/image: the loops over pixels, one table of them for each instruction set (util/isa.h). Every
 * variant gives the same bytes. Planes are arrays of 8-bit values, one for each colour.
 *
 * The source of a resampling lies in tiles, and so do the rows between its two passes:
 *
 *   tile     64 bytes: 16 rows of 4 pixels, one colour, rows one after the other. A picture is a list of bands
 *            of 16 rows; a band is three lists of tiles, one a colour. So the 4 inputs of a group of taps are one
 *            32-bit word, and the 16 words of a tile are 16 rows to which the same taps apply.
 *   strip    4 rows of an intermediate picture, one colour: for each column the 4 values as one 32-bit word. */
#ifndef HSSL_PIXELS_H
#define HSSL_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "util/isa.h"

enum {
    TILE_ROWS = 16,
    TILE_BYTES = 64,
    STRIP_ROWS = 4,
    /* Vector stores may run so far past the end of a row of a plane: into the next row, which is written later,
     * or this margin that every plane has behind it. Strips may be read so far past their last column. */
    PIXEL_MARGIN = 64,
};

enum { TAP_BITS = 22 };

/* The taps of one resampled axis, in groups of 4 neighbouring inputs that begin at a multiple of 4: output i is the
 * sum over groups g < n[i] and j < 4 of input (first[i] + g) * 4 + j times tap j of group i * most + g, in units of
 * 2^-TAP_BITS. Inputs before and after the filter's reach have taps of 0. A group is four 32-bit words: k[0..3] as
 * taps() makes them, then whatever fold() made of them for the loops of its own table. `outputs` are followed by
 * up to 3 more of no groups, so that loops may take four at a time. */
typedef struct {
    int outputs, most;
    int *first, *n;
    int32_t *k;
    int same; /* groups of every output, or 0 where they differ */
} Taps;

/* How an axis is to be resampled: `in` places from place `offset` on, to `out`. */
typedef struct {
    int in, offset, out;
    ImageFilter filter;
    int mirrored; /* the last output first */
} Axis;

typedef struct {
    /* Up to 16 rows of w interleaved pixels into a band of tiles, `plane` bytes from one colour to the next. Rows
     * beyond them repeat the last one. */
    void (*pack)(const uint8_t *rgb, int64_t stride, int rows, int w, uint8_t *tiles, int64_t plane);
    /* Pillow's precompute_coeffs, rounded to TAP_BITS, in t (room for them is there; t->k is all zeros).
     * work: TAPS_LANES doubles for each of the `reach` places that an output can have. */
    void (*taps)(const Axis *a, Taps *t, double *work);
    void (*fold)(int32_t *k, int64_t groups); /* a multiple of 4 */
    /* Resample `bands` bands of tiles of one colour along x, `band` bytes from one to the next, into four strips each,
     * `strip` bytes from one to the next. */
    void (*resample_x)(const uint8_t *tiles, int64_t band, int bands, const Taps *t, uint8_t *strips, int64_t strip);
    /* All outputs of t from strips of one colour, the first of which holds rows 0..3, to rows of n bytes. */
    void (*resample_y)(const uint8_t *strips, int64_t strip, const Taps *t, int n, uint8_t *plane);

    void (*split)(const uint8_t *rgb, int n, uint8_t *r, uint8_t *g, uint8_t *b);
    void (*join)(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb);
    /* y = gray of r, g, b; returns the sum. */
    int64_t (*gray)(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *y);
    /* x = blend(d, x, f) with a constant d; the three planes with their gray as d. */
    void (*blend)(uint8_t d, float f, int n, uint8_t *x);
    void (*saturate)(uint8_t *r, uint8_t *g, uint8_t *b, int n, float f);
    /* Turn the hue by shift / 256 of the circle, by way of 8-bit HSV. */
    void (*hue)(uint8_t *r, uint8_t *g, uint8_t *b, int n, int shift);
    void (*solarize)(uint8_t *x, int n);
    /* Three extended box blurs along x, then three along y, each rounded to 8 bits: out[i] = (ww * sum_{|d| <= ri}
     * in[i + d] + fw * (in[i - ri - 1] + in[i + ri + 1]) + 2^23) >> 24, with the ends repeated. work: BLUR_WORK bytes
     * at a multiple of 64. */
    void (*blur)(uint8_t *plane, int w, int h, int ri, uint32_t ww, uint32_t fw, uint8_t *work);
} PixelKernels;

enum { TAPS_LANES = 16 };

/* Row pointers; then two lines and a plane, or 16 lines of 16-bit values. */
#define BLUR_ROWS(h, ri) (((size_t)(h) + 2 * (size_t)(ri) + 2) * sizeof(uint8_t *))
#define BLUR_WORK(w, h, ri) \
    (BLUR_ROWS(h, ri) + 2 * ((size_t)(w) + 2 * (size_t)(ri) + 2) + (size_t)(w) * (size_t)(h) + 32 * ((size_t)(w) + 128))

ISA_DECLARE(void, resample_kernels, (PixelKernels *k));
ISA_DECLARE(void, plane_kernels, (PixelKernels *k));
ISA_DECLARE(void, color_kernels, (PixelKernels *k));
ISA_DECLARE(void, blur_kernels, (PixelKernels *k));
/* Loops for what AVX-512 processors have beyond the instruction set avx512; elsewhere it changes nothing. */
ISA_DECLARE(void, vnni_kernels, (PixelKernels *k));

/* The table of an instruction set that this processor has; vnni: with the loops for its extensions, if it has
 * them too. */
void pixels_for(Isa isa, int vnni, PixelKernels *k);

/* The best of this processor. */
const PixelKernels *pixels(void);
/* Another table in its place, for a benchmark that looks at each operation; NULL: the best again. */
void pixels_use(const PixelKernels *k);

#endif
