/* Vectors of 64 or 32 bytes under one set of names, for the loops over pixels; nothing where there is neither. */
#ifndef HSSL_VEC_H
#define HSSL_VEC_H

#if defined(__AVX2__)
#include <immintrin.h>
#include <stdint.h>

#if defined(__AVX512BW__)
typedef __m512i Vec;
typedef __m512 VecF;
typedef __mmask64 Choice; /* one for each byte */
#define VEC(op) _mm512_##op
#define VEC_LOAD(p) _mm512_loadu_si512(p)
#define VEC_STORE(p, v) _mm512_storeu_si512(p, v)
#define VEC_AND(a, b) _mm512_and_si512(a, b)
#define VEC_XOR(a, b) _mm512_xor_si512(a, b)
#define VEC_ZERO() _mm512_setzero_si512()
#define VEC_EQUAL8(a, b) _mm512_cmpeq_epi8_mask(a, b)
#define VEC_CHOOSE8(c, yes, no) _mm512_mask_blend_epi8(c, no, yes)
#else
typedef __m256i Vec;
typedef __m256 VecF;
typedef __m256i Choice;
#define VEC(op) _mm256_##op
#define VEC_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define VEC_STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define VEC_AND(a, b) _mm256_and_si256(a, b)
#define VEC_XOR(a, b) _mm256_xor_si256(a, b)
#define VEC_ZERO() _mm256_setzero_si256()
#define VEC_EQUAL8(a, b) _mm256_cmpeq_epi8(a, b)
#define VEC_CHOOSE8(c, yes, no) _mm256_blendv_epi8(no, yes, c)
#endif

enum { VEC_BYTES = sizeof(Vec), VEC_WORDS = sizeof(Vec) / 4 };

/* Bytes as 32-bit values in four vectors, and back with saturation. The order in w is that of the instructions,
 * within 128-bit lanes, and narrow() undoes it. */
static inline void widen(Vec v, Vec w[4])
{
    Vec low = VEC(unpacklo_epi8)(v, VEC_ZERO()), high = VEC(unpackhi_epi8)(v, VEC_ZERO());
    w[0] = VEC(unpacklo_epi16)(low, VEC_ZERO());
    w[1] = VEC(unpackhi_epi16)(low, VEC_ZERO());
    w[2] = VEC(unpacklo_epi16)(high, VEC_ZERO());
    w[3] = VEC(unpackhi_epi16)(high, VEC_ZERO());
}

static inline Vec narrow(const Vec w[4])
{
    return VEC(packus_epi16)(VEC(packs_epi32)(w[0], w[1]), VEC(packs_epi32)(w[2], w[3]));
}

#endif
#endif
