/* Resampling. Plain C is the specification; the vector forms give the same bytes. */
#include "image/pixels.h"
#include "image/simd/vec.h"

#include <math.h>
#include <string.h>

/* ---- taps */

/* Keys' cubic with a = -0.5, or a triangle; x >= 0. The order of the operations is Pillow's. */
static inline double weight(double x, ImageFilter filter)
{
    const double a = -0.5;
    double near = ((a + 2) * x - (a + 3)) * x * x + 1, far = (((x - 5) * x + 8) * x - 4) * a;
    if (filter == FILTER_BILINEAR)
        return x < 1 ? 1 - x : 0;
    return x < 1 ? near : x < 2 ? far : 0;
}

/* Sixteen outputs side by side; each one's weights are still added in their order. */
static inline void taps_lanes(const Axis *a, ImageFilter filter, int at, Taps *t, double *restrict work)
{
    double scale = (double)a->in / a->out, stretch = scale < 1 ? 1 : scale, inverse = 1.0 / stretch;
    double support = (filter == FILTER_BILINEAR ? 1 : 2) * stretch;
    double center[TAPS_LANES], sum[TAPS_LANES];
    int lo[TAPS_LANES], count[TAPS_LANES], reach = 0;
    for (int l = 0; l < TAPS_LANES; l++) {
        double c = (at + l + 0.5) * scale;
        int from = (int)(c - support + 0.5), to = (int)(c + support + 0.5);
        from = from < 0 ? 0 : from;
        to = to > a->in ? a->in : to;
        center[l] = c;
        lo[l] = from;
        count[l] = to - from;
        sum[l] = 0;
    }
    for (int l = 0; l < TAPS_LANES && at + l < a->out; l++)
        reach = count[l] > reach ? count[l] : reach;
    for (int j = 0; j < reach; j++) {
        double *restrict w = work + (size_t)j * TAPS_LANES;
        for (int l = 0; l < TAPS_LANES; l++) {
            double v = weight(fabs((j + lo[l] - center[l] + 0.5) * inverse), filter);
            v = j < count[l] ? v : 0;
            w[l] = v;
            sum[l] += v;
        }
    }
    for (int l = 0; l < TAPS_LANES; l++)
        sum[l] = sum[l] != 0 ? sum[l] : 1;
    for (int j = 0; j < reach; j++) {
        double *restrict w = work + (size_t)j * TAPS_LANES;
        int32_t k[TAPS_LANES];
        for (int l = 0; l < TAPS_LANES; l++) {
            double x = w[l] / sum[l] * (1 << TAP_BITS);
            k[l] = (int32_t)(x < 0 ? x - 0.5 : x + 0.5);
        }
        memcpy(w, k, sizeof k);
    }
    for (int l = 0; l < TAPS_LANES && at + l < a->out; l++) {
        int i = a->mirrored ? a->out - 1 - at - l : at + l, place = a->offset + lo[l];
        int32_t *to = t->k + (int64_t)i * t->most * 4 + place % 4;
        t->first[i] = place / 4;
        t->n[i] = (place % 4 + count[l] + 3) / 4;
        for (int j = 0; j < count[l]; j++)
            memcpy(to + j, (const char *)(work + (size_t)j * TAPS_LANES) + (size_t)l * sizeof *to, sizeof *to);
    }
}

static void taps(const Axis *a, Taps *t, double *work)
{
    for (int at = 0; at < a->out; at += TAPS_LANES)
        if (a->filter == FILTER_BILINEAR)
            taps_lanes(a, FILTER_BILINEAR, at, t, work);
        else
            taps_lanes(a, FILTER_BICUBIC, at, t, work);
    for (int i = a->out; i < ((a->out + 3) & ~3); i++)
        t->first[i] = t->n[i] = 0;
}

/* ---- tiles */

static void pack_group(const uint8_t *rgb, int64_t stride, int rows, int x, int w, uint8_t *tile, int64_t plane)
{
    for (int y = 0; y < TILE_ROWS; y++) {
        const uint8_t *row = rgb + (y < rows ? y : rows - 1) * stride;
        for (int j = 0; j < 4; j++) {
            const uint8_t *p = row + 3 * (x + j < w ? x + j : w - 1);
            for (int c = 0; c < 3; c++)
                tile[c * plane + y * 4 + j] = p[c];
        }
    }
}

#if defined(__AVX2__)

/* 4 rows x 4 pixels at a time, one colour in each quarter. Reads 4 bytes beyond the 4 pixels. */
static inline void pack_block(const uint8_t *const row[4], uint8_t *tile, int64_t plane)
{
    const __m128i order = _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    __m128i v[4];
    for (int i = 0; i < 4; i++)
        v[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)row[i]), order);
    __m128i rg0 = _mm_unpacklo_epi32(v[0], v[1]), rg1 = _mm_unpacklo_epi32(v[2], v[3]);
    __m128i b0 = _mm_unpackhi_epi32(v[0], v[1]), b1 = _mm_unpackhi_epi32(v[2], v[3]);
    _mm_store_si128((__m128i *)tile, _mm_unpacklo_epi64(rg0, rg1));
    _mm_store_si128((__m128i *)(tile + plane), _mm_unpackhi_epi64(rg0, rg1));
    _mm_store_si128((__m128i *)(tile + 2 * plane), _mm_unpacklo_epi64(b0, b1));
}

static void pack(const uint8_t *rgb, int64_t stride, int rows, int w, uint8_t *tiles, int64_t plane)
{
    int whole = w * 3 < 16 ? 0 : (w * 3 - 16) / 12 + 1, groups = (w + 3) / 4;
    for (int y = 0; y < TILE_ROWS; y += 4) {
        const uint8_t *row[4];
        for (int i = 0; i < 4; i++)
            row[i] = rgb + (y + i < rows ? y + i : rows - 1) * stride;
        for (int g = 0; g < whole; g++) {
            pack_block(row, tiles + (int64_t)g * TILE_BYTES + 4 * y, plane);
            for (int i = 0; i < 4; i++)
                row[i] += 12;
        }
    }
    for (int g = whole; g < groups; g++)
        pack_group(rgb, stride, rows, 4 * g, w, tiles + (int64_t)g * TILE_BYTES, plane);
}

/* ---- vectors
 *
 * A word of 4 inputs a b c d is multiplied as the 16-bit pairs (a, c) and (b, d), which a mask and a shift take
 * apart. A tap k = high * 4096 + low: the halves are multiplied apart, so nothing overflows. */
static void fold(int32_t *k, int64_t groups)
{
    for (int64_t i = 0; i < groups; i++, k += 4) {
        int32_t h[4], l[4];
        for (int j = 0; j < 4; j++) {
            h[j] = k[j] >> 12;
            l[j] = k[j] & 4095;
        }
        for (int j = 0; j < 2; j++) {
            k[j] = (int32_t)((uint32_t)h[j + 2] << 16 | (h[j] & 0xffff));
            k[j + 2] = (int32_t)((uint32_t)l[j + 2] << 16 | (uint32_t)l[j]);
        }
    }
}

typedef struct {
    Vec high, low;
} Sum;

static inline Sum sum_start(void)
{
    return (Sum){ VEC_ZERO(), VEC(set1_epi32)(1 << (TAP_BITS - 1)) };
}

static inline Sum sum_add(Sum s, Vec v, const int32_t *k)
{
    Vec even = VEC_AND(v, VEC(set1_epi32)(0x00ff00ff)), odd = VEC(srli_epi16)(v, 8);
    s.high = VEC(add_epi32)(s.high, VEC(madd_epi16)(even, VEC(set1_epi32)(k[0])));
    s.low = VEC(add_epi32)(s.low, VEC(madd_epi16)(even, VEC(set1_epi32)(k[2])));
    s.high = VEC(add_epi32)(s.high, VEC(madd_epi16)(odd, VEC(set1_epi32)(k[1])));
    s.low = VEC(add_epi32)(s.low, VEC(madd_epi16)(odd, VEC(set1_epi32)(k[3])));
    return s;
}

static inline Vec sum_end(Sum s)
{
    return VEC(srai_epi32)(VEC(add_epi32)(VEC(slli_epi32)(s.high, 12), s.low), TAP_BITS);
}

/* The 128-bit lanes: each has the four lanes of its number of what narrow() got. */
static inline void store_lanes(Vec v, uint8_t *to, int64_t stride)
{
#if defined(__AVX512BW__)
    _mm_storeu_si128((__m128i *)to, _mm512_castsi512_si128(v));
    _mm_storeu_si128((__m128i *)(to + stride), _mm512_extracti32x4_epi32(v, 1));
    _mm_storeu_si128((__m128i *)(to + 2 * stride), _mm512_extracti32x4_epi32(v, 2));
    _mm_storeu_si128((__m128i *)(to + 3 * stride), _mm512_extracti32x4_epi32(v, 3));
#else
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *)(to + stride), _mm256_extracti128_si256(v, 1));
#endif
}

/* Four vectors side by side, from narrow()'s order. */
static inline void store_row(Vec v, uint8_t *to)
{
#if defined(__AVX512BW__)
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, v));
#else
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)to, _mm256_permutevar8x32_epi32(v, order));
#endif
}

static inline __attribute__((always_inline)) void resample_groups(const uint8_t *tiles, const int groups, const Taps *t,
                                                                  uint8_t *strips, int64_t strip)
{
    for (int x = 0; x < t->outputs; x += 4)
        for (int half = 0; half < TILE_ROWS / VEC_WORDS; half++) {
            Vec v[4];
            for (int q = 0; q < 4; q++) {
                const int32_t *k = t->k + (int64_t)(x + q) * t->most * 4;
                const uint8_t *p = tiles + (int64_t)t->first[x + q] * TILE_BYTES + half * VEC_BYTES;
                Sum s = sum_start();
                for (int g = 0; g < (groups ? groups : t->n[x + q]); g++, p += TILE_BYTES, k += 4)
                    s = sum_add(s, VEC_LOAD(p), k);
                v[q] = sum_end(s);
            }
            store_lanes(narrow(v), strips + half * (VEC_WORDS / STRIP_ROWS) * strip + 4 * x, strip);
        }
}

/* The numbers of groups in use have a loop without end tests. */
static void resample_band(const uint8_t *tiles, const Taps *t, uint8_t *strips, int64_t strip)
{
    switch (t->same) {
    case 2:
        resample_groups(tiles, 2, t, strips, strip);
        break;
    case 3:
        resample_groups(tiles, 3, t, strips, strip);
        break;
    case 4:
        resample_groups(tiles, 4, t, strips, strip);
        break;
    default:
        resample_groups(tiles, 0, t, strips, strip);
    }
}

static void resample_row(const uint8_t *strips, int64_t strip, const Taps *t, int y, int n, uint8_t *dst)
{
    const uint8_t *from = strips + t->first[y] * strip;
    const int32_t *k = t->k + (int64_t)y * t->most * 4;
    for (int x = 0; x < n; x += 4 * VEC_WORDS) {
        Sum s[4] = { sum_start(), sum_start(), sum_start(), sum_start() };
        for (int g = 0; g < t->n[y]; g++)
            for (int q = 0; q < 4; q++)
                s[q] = sum_add(s[q], VEC_LOAD(from + g * strip + 4 * (x + q * VEC_WORDS)), k + 4 * g);
        Vec v[4] = { sum_end(s[0]), sum_end(s[1]), sum_end(s[2]), sum_end(s[3]) };
        store_row(narrow(v), dst + x);
    }
}

#else

static void pack(const uint8_t *rgb, int64_t stride, int rows, int w, uint8_t *tiles, int64_t plane)
{
    for (int x = 0; x < w; x += 4)
        pack_group(rgb, stride, rows, x, w, tiles + (int64_t)x / 4 * TILE_BYTES, plane);
}

static void fold(int32_t *k, int64_t groups)
{
    (void)k;
    (void)groups;
}

static inline uint8_t clamp_fixed(int32_t acc)
{
    int32_t v = acc >> TAP_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void resample_band(const uint8_t *restrict tiles, const Taps *t, uint8_t *restrict strips, int64_t strip)
{
    for (int x = 0; x < t->outputs; x++) {
        const int32_t *k = t->k + (int64_t)x * t->most * 4;
        const uint8_t *p = tiles + (int64_t)t->first[x] * TILE_BYTES;
        int32_t acc[TILE_ROWS];
        for (int i = 0; i < TILE_ROWS; i++)
            acc[i] = 1 << (TAP_BITS - 1);
        for (int g = 0; g < t->n[x]; g++, p += TILE_BYTES, k += 4)
            for (int i = 0; i < TILE_ROWS; i++)
                acc[i] += p[4 * i] * k[0] + p[4 * i + 1] * k[1] + p[4 * i + 2] * k[2] + p[4 * i + 3] * k[3];
        for (int i = 0; i < TILE_ROWS; i++)
            strips[i / STRIP_ROWS * strip + 4 * x + i % STRIP_ROWS] = clamp_fixed(acc[i]);
    }
}

static void resample_row(const uint8_t *restrict strips, int64_t strip, const Taps *t, int y, int n,
                         uint8_t *restrict dst)
{
    enum { BLOCK = 64 };
    for (int at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? n - at : BLOCK;
        const int32_t *k = t->k + (int64_t)y * t->most * 4;
        const uint8_t *p = strips + t->first[y] * strip + 4 * at;
        int32_t acc[BLOCK];
        for (int i = 0; i < m; i++)
            acc[i] = 1 << (TAP_BITS - 1);
        for (int g = 0; g < t->n[y]; g++, p += strip, k += 4)
            for (int i = 0; i < m; i++)
                acc[i] += p[4 * i] * k[0] + p[4 * i + 1] * k[1] + p[4 * i + 2] * k[2] + p[4 * i + 3] * k[3];
        for (int i = 0; i < m; i++)
            dst[at + i] = clamp_fixed(acc[i]);
    }
}

#endif

static void resample_x(const uint8_t *tiles, int64_t band, int bands, const Taps *t, uint8_t *strips, int64_t strip)
{
    for (int b = 0; b < bands; b++)
        resample_band(tiles + b * band, t, strips + b * (TILE_ROWS / STRIP_ROWS) * strip, strip);
}

static void resample_y(const uint8_t *strips, int64_t strip, const Taps *t, int n, uint8_t *plane)
{
    for (int y = 0; y < t->outputs; y++)
        resample_row(strips, strip, t, y, n, plane + (int64_t)y * n);
}

void ISA_FN(resample_kernels)(PixelKernels *k)
{
    k->pack = pack;
    k->taps = taps;
    k->fold = fold;
    k->resample_x = resample_x;
    k->resample_y = resample_y;
}
