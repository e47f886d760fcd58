/* Resampling, planes and box blur. Plain C is the specification; the vector forms give the same bytes. */
#include "image/pixels.h"

#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

static inline uint8_t clamp_fixed(int32_t acc)
{
    int32_t v = acc >> TAP_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void resample_row(const uint8_t *src, const Taps *t, uint8_t *dst)
{
    for (int x = 0; x < t->outputs; x++, dst += 3) {
        const uint8_t *p = src + 3 * t->lo[x];
        const int32_t *k = t->k + (int64_t)x * t->width;
        int32_t r = 1 << (TAP_BITS - 1), g = r, b = r;
        for (int j = 0; j < t->n[x]; j++, p += 3) {
            r += p[0] * k[j];
            g += p[1] * k[j];
            b += p[2] * k[j];
        }
        dst[0] = clamp_fixed(r);
        dst[1] = clamp_fixed(g);
        dst[2] = clamp_fixed(b);
    }
}

#if defined(__AVX2__)

/* Four rows (or two) at once, one in each 128-bit lane: bytes of two neighbouring pixels become the 16-bit pairs
 * r0 r1 g0 g1 b0 b1 . . that multiply-add wants. A tap's halves are multiplied apart, so nothing overflows. */
#if defined(__AVX512BW__)
enum { LANES = 4 };
typedef __m512i Vec;
#define VEC(op) _mm512_##op
#define VEC_SHUFFLES(a) _mm512_broadcast_i32x4(a)
static inline Vec load_rows(const uint8_t *p, int64_t stride)
{
    Vec v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 2 * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 3 * stride)), 3);
}
#define PACK(v, i) _mm512_extracti32x4_epi32(v, i)
#else
enum { LANES = 2 };
typedef __m256i Vec;
#define VEC(op) _mm256_##op
#define VEC_SHUFFLES(a) _mm256_broadcastsi128_si256(a)
static inline Vec load_rows(const uint8_t *p, int64_t stride)
{
    Vec v = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
    return _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)(p + stride)), 1);
}
#define PACK(v, i) _mm256_extracti128_si256(v, i)
#endif

static inline int32_t tap_pair(const int16_t *k)
{
    int32_t pair;
    memcpy(&pair, k, sizeof pair);
    return pair;
}

static inline void store_pixel(__m128i v, uint8_t *dst)
{
    uint32_t word = (uint32_t)_mm_cvtsi128_si32(v);
    memcpy(dst, &word, 2);
    dst[2] = (uint8_t)(word >> 16);
}

static void resample_lanes(const uint8_t *src, int64_t src_stride, const Taps *t, uint8_t *dst, int64_t dst_stride)
{
    const Vec first = VEC_SHUFFLES(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const Vec second = VEC_SHUFFLES(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    for (int x = 0; x < t->outputs; x++, dst += 3) {
        const uint8_t *p = src + 3 * t->lo[x];
        const int16_t *kh = t->kh + (int64_t)x * t->width, *kl = t->kl + (int64_t)x * t->width;
        Vec high = VEC(set1_epi32)(0), low = VEC(set1_epi32)(1 << (TAP_BITS - 1));
        for (int j = 0; j < t->n[x]; j += 4, p += 12) {
            Vec bytes = load_rows(p, src_stride);
            Vec a = VEC(shuffle_epi8)(bytes, first), b = VEC(shuffle_epi8)(bytes, second);
            high = VEC(add_epi32)(high, VEC(madd_epi16)(a, VEC(set1_epi32)(tap_pair(kh + j))));
            low = VEC(add_epi32)(low, VEC(madd_epi16)(a, VEC(set1_epi32)(tap_pair(kl + j))));
            high = VEC(add_epi32)(high, VEC(madd_epi16)(b, VEC(set1_epi32)(tap_pair(kh + j + 2))));
            low = VEC(add_epi32)(low, VEC(madd_epi16)(b, VEC(set1_epi32)(tap_pair(kl + j + 2))));
        }
        Vec v = VEC(srai_epi32)(VEC(add_epi32)(VEC(slli_epi32)(high, 12), low), TAP_BITS);
        v = VEC(packs_epi32)(v, v);
        v = VEC(packus_epi16)(v, v); /* both saturate within each lane */
        store_pixel(PACK(v, 0), dst);
        store_pixel(PACK(v, 1), dst + dst_stride);
        if (LANES == 4) {
            store_pixel(PACK(v, LANES - 2), dst + 2 * dst_stride);
            store_pixel(PACK(v, LANES - 1), dst + 3 * dst_stride);
        }
    }
}

#else
enum { LANES = 1 };
static void resample_lanes(const uint8_t *src, int64_t src_stride, const Taps *t, uint8_t *dst, int64_t dst_stride)
{
    (void)src_stride;
    (void)dst_stride;
    resample_row(src, t, dst);
}
#endif

static void resample_x(const uint8_t *src, int64_t src_stride, int rows, const Taps *t, uint8_t *dst,
                       int64_t dst_stride)
{
    int y = 0;
    for (; y + LANES <= rows; y += LANES)
        resample_lanes(src + y * src_stride, src_stride, t, dst + y * dst_stride, dst_stride);
    for (; y < rows; y++)
        resample_row(src + y * src_stride, t, dst + y * dst_stride);
}

static void resample_y(const uint8_t *restrict src, int64_t src_stride, int count, const int32_t *restrict k, int n,
                       uint8_t *restrict dst)
{
    enum { BLOCK = 256 };
    int32_t acc[BLOCK];
    for (int at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? n - at : BLOCK;
        for (int i = 0; i < m; i++)
            acc[i] = 1 << (TAP_BITS - 1);
        for (int j = 0; j < count; j++) {
            const uint8_t *row = src + j * src_stride + at;
            const int32_t kj = k[j];
            for (int i = 0; i < m; i++)
                acc[i] += row[i] * kj;
        }
        for (int i = 0; i < m; i++)
            dst[at + i] = clamp_fixed(acc[i]);
    }
}

static void split(const uint8_t *restrict rgb, int n, uint8_t *restrict r, uint8_t *restrict g, uint8_t *restrict b)
{
    for (int i = 0; i < n; i++) {
        r[i] = rgb[3 * i];
        g[i] = rgb[3 * i + 1];
        b[i] = rgb[3 * i + 2];
    }
}

static void join(const uint8_t *restrict r, const uint8_t *restrict g, const uint8_t *restrict b, int n,
                 uint8_t *restrict rgb)
{
    for (int i = 0; i < n; i++) {
        rgb[3 * i] = r[i];
        rgb[3 * i + 1] = g[i];
        rgb[3 * i + 2] = b[i];
    }
}

static void box_x(const uint8_t *restrict src, int n, int ri, uint32_t ww, uint32_t fw, uint8_t *restrict dst)
{
    if (ri == 0) {
        for (int i = 0; i < n; i++)
            dst[i] = (uint8_t)((ww * src[i] + fw * (uint32_t)(src[i - 1] + src[i + 1]) + (1u << 23)) >> 24);
        return;
    }
    if (ri == 1) {
        for (int i = 0; i < n; i++)
            dst[i] = (uint8_t)((ww * (uint32_t)(src[i - 1] + src[i] + src[i + 1]) +
                                fw * (uint32_t)(src[i - 2] + src[i + 2]) + (1u << 23)) >> 24);
        return;
    }
    uint32_t sum = 0;
    for (int d = -ri; d <= ri; d++)
        sum += src[d];
    for (int i = 0; i < n; i++) {
        dst[i] = (uint8_t)((ww * sum + fw * (uint32_t)(src[i - ri - 1] + src[i + ri + 1]) + (1u << 23)) >> 24);
        sum += (uint32_t)src[i + ri + 1] - src[i - ri];
    }
}

static void box_y(const uint8_t *const *rows, int n, int ri, uint32_t ww, uint32_t fw, uint8_t *restrict dst)
{
    const uint8_t *before = rows[0], *after = rows[2 * ri + 2];
    if (ri == 0) {
        const uint8_t *at = rows[1];
        for (int i = 0; i < n; i++)
            dst[i] = (uint8_t)((ww * at[i] + fw * (uint32_t)(before[i] + after[i]) + (1u << 23)) >> 24);
        return;
    }
    enum { BLOCK = 256 };
    uint32_t sum[BLOCK];
    for (int at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? n - at : BLOCK;
        for (int i = 0; i < m; i++)
            sum[i] = rows[1][at + i];
        for (int j = 2; j <= 2 * ri + 1; j++) {
            const uint8_t *row = rows[j] + at;
            for (int i = 0; i < m; i++)
                sum[i] += row[i];
        }
        for (int i = 0; i < m; i++)
            dst[at + i] = (uint8_t)((ww * sum[i] + fw * (uint32_t)(before[at + i] + after[at + i]) + (1u << 23)) >> 24);
    }
}

void ISA_FN(pixel_kernels)(PixelKernels *k)
{
    k->resample_x = resample_x;
    k->resample_y = resample_y;
    k->split = split;
    k->join = join;
    k->box_x = box_x;
    k->box_y = box_y;
}
