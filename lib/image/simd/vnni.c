/* Loops for AVX-512 processors with VNNI: four products of bytes a step. */
#include "image/pixels.h"

#if defined(__AVX512BW__)
#include <immintrin.h>
#include <string.h>

#define VNNI __attribute__((target("avx512vnni,avx512vbmi")))

/* A tap as three signed digits, k = d2 * 65536 + d1 * 256 + d0; a group becomes one word of four digits each. */
static void fold(int32_t *k, int64_t groups)
{
    for (int64_t i = 0; i < groups; i++, k += 4) {
        int8_t d[3][4];
        for (int j = 0; j < 4; j++) {
            int32_t rest = k[j];
            d[0][j] = (int8_t)rest;
            rest = (rest - d[0][j]) >> 8;
            d[1][j] = (int8_t)rest;
            d[2][j] = (int8_t)((rest - d[1][j]) >> 8);
        }
        memcpy(k, d, sizeof d);
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

VNNI static void resample_x(const uint8_t *tiles, const Taps *t, uint8_t *strips, int64_t strip)
{
    for (int x = 0; x < t->outputs; x += 4) {
        __m512i v[4];
        for (int q = 0; q < 4; q++) {
            const int32_t *k = t->k + (int64_t)(x + q) * t->most * 4;
            const uint8_t *p = tiles + (int64_t)t->first[x + q] * TILE_BYTES;
            Sum s = sum_start();
            for (int g = 0; g < t->n[x + q]; g++, p += TILE_BYTES, k += 4)
                s = sum_add(s, _mm512_loadu_si512(p), _mm512_set1_epi32(k[0]), _mm512_set1_epi32(k[1]),
                            _mm512_set1_epi32(k[2]));
            v[q] = sum_end(s);
        }
        __m512i bytes = to_bytes(v[0], v[1], v[2], v[3]);
        uint8_t *to = strips + 4 * x;
        _mm_storeu_si128((__m128i *)to, _mm512_castsi512_si128(bytes));
        _mm_storeu_si128((__m128i *)(to + strip), _mm512_extracti32x4_epi32(bytes, 1));
        _mm_storeu_si128((__m128i *)(to + 2 * strip), _mm512_extracti32x4_epi32(bytes, 2));
        _mm_storeu_si128((__m128i *)(to + 3 * strip), _mm512_extracti32x4_epi32(bytes, 3));
    }
}

VNNI static void resample_y(const uint8_t *strips, int64_t strip, const Taps *t, int y, int n, uint8_t *dst)
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

void ISA_FN(vnni_kernels)(PixelKernels *k)
{
    if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512vbmi"))
        return;
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
