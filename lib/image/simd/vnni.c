/* Loops for AVX-512 processors with VNNI, four products of bytes a step, and VBMI, tables of bytes. */
#include "image/pixels.h"

#if defined(__AVX512BW__)
#include <immintrin.h>

#define VNNI __attribute__((target("avx512vnni,avx512vbmi")))

/* A tap as three signed digits, k = d2 * 65536 + d1 * 256 + d0; a group becomes one word of four digits each. */
VNNI static void fold(int32_t *k, int64_t groups)
{
    /* byte 0, 1 or 2 of each of a group's four words, for four groups */
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, -1, -1, -1, -1));
    const __m512i carry0 = _mm512_set1_epi32(0x80), carry1 = _mm512_set1_epi32(0x8000);
    for (int64_t i = 0; i < groups; i += 4, k += 16) {
        /* a digit of 128 or more counts as negative, so the next one takes a carry */
        __m512i v = _mm512_loadu_si512(k);
        v = _mm512_add_epi32(v, _mm512_slli_epi32(_mm512_and_si512(v, carry0), 1));
        v = _mm512_add_epi32(v, _mm512_slli_epi32(_mm512_and_si512(v, carry1), 1));
        _mm512_storeu_si512(k, _mm512_shuffle_epi8(v, order));
    }
}

typedef struct {
    __m512i d0, d1, d2;
} Sum;

VNNI static inline Sum sum_start(void)
{
    return (Sum){ _mm512_set1_epi32(1 << (TAP_BITS - 1)), _mm512_setzero_si512(), _mm512_setzero_si512() };
}

VNNI static inline Sum sum_add(Sum s, __m512i v, __m512i k0, __m512i k1, __m512i k2)
{
    return (Sum){ _mm512_dpbusd_epi32(s.d0, v, k0), _mm512_dpbusd_epi32(s.d1, v, k1),
                  _mm512_dpbusd_epi32(s.d2, v, k2) };
}

VNNI static inline __m512i sum_end(Sum s)
{
    __m512i high = _mm512_add_epi32(_mm512_slli_epi32(s.d2, 8), s.d1);
    return _mm512_srai_epi32(_mm512_add_epi32(_mm512_slli_epi32(high, 8), s.d0), TAP_BITS);
}

VNNI static inline __m512i to_bytes(__m512i a, __m512i b, __m512i c, __m512i d)
{
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}

/* One band or two: the taps are fetched once for both. groups: what t->same says. */
VNNI static inline __attribute__((always_inline)) void
resample_bands(const uint8_t *tiles, int64_t band, const int bands, const int groups, const Taps *t, uint8_t *strips,
               int64_t strip)
{
    for (int x = 0; x < t->outputs; x += 4) {
        __m512i v[2][4];
        for (int q = 0; q < 4; q++) {
            const int32_t *k = t->k + (int64_t)(x + q) * t->most * 4;
            const uint8_t *p = tiles + (int64_t)t->first[x + q] * TILE_BYTES;
            Sum s[2] = { sum_start(), sum_start() };
            for (int g = 0; g < (groups ? groups : t->n[x + q]); g++, p += TILE_BYTES, k += 4) {
                __m512i k0 = _mm512_set1_epi32(k[0]), k1 = _mm512_set1_epi32(k[1]), k2 = _mm512_set1_epi32(k[2]);
                for (int b = 0; b < bands; b++)
                    s[b] = sum_add(s[b], _mm512_loadu_si512(p + b * band), k0, k1, k2);
            }
            for (int b = 0; b < bands; b++)
                v[b][q] = sum_end(s[b]);
        }
        for (int b = 0; b < bands; b++) {
            __m512i bytes = to_bytes(v[b][0], v[b][1], v[b][2], v[b][3]);
            uint8_t *to = strips + 4 * (x + b * strip);
            _mm_storeu_si128((__m128i *)to, _mm512_castsi512_si128(bytes));
            _mm_storeu_si128((__m128i *)(to + strip), _mm512_extracti32x4_epi32(bytes, 1));
            _mm_storeu_si128((__m128i *)(to + 2 * strip), _mm512_extracti32x4_epi32(bytes, 2));
            _mm_storeu_si128((__m128i *)(to + 3 * strip), _mm512_extracti32x4_epi32(bytes, 3));
        }
    }
}

/* The numbers of groups in use have a loop without end tests. */
VNNI static inline __attribute__((always_inline)) void
resample_some(const uint8_t *tiles, int64_t band, const int bands, const Taps *t, uint8_t *strips, int64_t strip)
{
    switch (t->same) {
    case 2:
        resample_bands(tiles, band, bands, 2, t, strips, strip);
        break;
    case 3:
        resample_bands(tiles, band, bands, 3, t, strips, strip);
        break;
    case 4:
        resample_bands(tiles, band, bands, 4, t, strips, strip);
        break;
    case 5:
        resample_bands(tiles, band, bands, 5, t, strips, strip);
        break;
    default:
        resample_bands(tiles, band, bands, 0, t, strips, strip);
    }
}

VNNI static void resample_x(const uint8_t *tiles, int64_t band, int bands, const Taps *t, uint8_t *strips, int64_t strip)
{
    int b = 0;
    for (; b + 2 <= bands; b += 2)
        resample_some(tiles + b * band, band, 2, t, strips + 4 * b * strip, strip);
    if (b < bands)
        resample_some(tiles + b * band, band, 1, t, strips + 4 * b * strip, strip);
}

VNNI static void resample_row(const uint8_t *strips, int64_t strip, const Taps *t, int y, int n, uint8_t *dst)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const uint8_t *from = strips + t->first[y] * strip;
    const int32_t *k = t->k + (int64_t)y * t->most * 4;
    int x = 0;
    for (; x + 32 < n; x += 64) {
        Sum s[4] = { sum_start(), sum_start(), sum_start(), sum_start() };
        for (int g = 0; g < t->n[y]; g++) {
            __m512i k0 = _mm512_set1_epi32(k[4 * g]), k1 = _mm512_set1_epi32(k[4 * g + 1]);
            __m512i k2 = _mm512_set1_epi32(k[4 * g + 2]);
            for (int q = 0; q < 4; q++)
                s[q] = sum_add(s[q], _mm512_loadu_si512(from + g * strip + 4 * (x + 16 * q)), k0, k1, k2);
        }
        __m512i v = to_bytes(sum_end(s[0]), sum_end(s[1]), sum_end(s[2]), sum_end(s[3]));
        _mm512_storeu_si512(dst + x, _mm512_permutexvar_epi32(order, v));
    }
    if (x < n) { /* at most 32 are left */
        Sum s[2] = { sum_start(), sum_start() };
        for (int g = 0; g < t->n[y]; g++) {
            __m512i k0 = _mm512_set1_epi32(k[4 * g]), k1 = _mm512_set1_epi32(k[4 * g + 1]);
            __m512i k2 = _mm512_set1_epi32(k[4 * g + 2]);
            for (int q = 0; q < 2; q++)
                s[q] = sum_add(s[q], _mm512_loadu_si512(from + g * strip + 4 * (x + 16 * q)), k0, k1, k2);
        }
        __m512i a = sum_end(s[0]), b = sum_end(s[1]), v = to_bytes(a, b, a, b);
        _mm256_storeu_si256((__m256i *)(dst + x), _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, v)));
    }
}

VNNI static void resample_y(const uint8_t *strips, int64_t strip, const Taps *t, int n, uint8_t *plane)
{
    for (int y = 0; y < t->outputs; y++)
        resample_row(strips, strip, t, y, n, plane + (int64_t)y * n);
}

/* The other table's blend, for making tables and for what is left over. */
static void (*blend_values)(uint8_t d, float f, int n, uint8_t *x);

/* All 256 results, looked up. */
VNNI static void blend(uint8_t d, float f, int n, uint8_t *x)
{
    uint8_t table[256];
    for (int i = 0; i < 256; i++)
        table[i] = (uint8_t)i;
    blend_values(d, f, 256, table);
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    int i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i v = _mm512_loadu_si512(x + i);
        __m512i below = _mm512_permutex2var_epi8(t0, v, t1), above = _mm512_permutex2var_epi8(t2, v, t3);
        _mm512_storeu_si512(x + i, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), below, above));
    }
    blend_values(d, f, n - i, x + i);
}

void ISA_FN(vnni_kernels)(PixelKernels *k)
{
    if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512vbmi"))
        return;
    blend_values = k->blend;
    k->blend = blend;
    k->fold = fold;
    k->resample_x = resample_x;
    k->resample_y = resample_y;
}

#else

void ISA_FN(vnni_kernels)(PixelKernels *k)
{
    (void)k;
}

#endif
