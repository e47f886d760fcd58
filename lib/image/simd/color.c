/* Colour, value by value as Pillow computes it: its roundings are part of the result. Every operation has a loop in
 * plain C, which says what it does and takes what is left over by vectors. */
#include "image/pixels.h"
#include "image/simd/vec.h"

/* ---- plain loops, from place `from` on */

static int64_t gray_from(const uint8_t *restrict r, const uint8_t *restrict g, const uint8_t *restrict b, int from,
                         int n, uint8_t *restrict y)
{
    int64_t sum = 0;
    for (int at = from; at < n; at += 4096) {
        int end = n - at < 4096 ? n : at + 4096;
        uint32_t part = 0;
        for (int i = at; i < end; i++) {
            uint32_t v = (19595u * r[i] + 38470u * g[i] + 7471u * b[i] + 32768u) >> 16;
            y[i] = (uint8_t)v;
            part += v;
        }
        sum += part;
    }
    return sum;
}

/* d + f (x - d) in float; truncated, and for f outside [0, 1] clamped first. Clamping never changes a value of an
 * f inside, so one loop serves both. */
static inline uint8_t mix(int d, int x, float f)
{
    float v = (float)d + f * (float)(x - d);
    v = v < 0 ? 0 : v;
    v = v > 255 ? 255 : v;
    return (uint8_t)(int)v;
}

static void blend_from(uint8_t d, float f, int from, int n, uint8_t *restrict x)
{
    for (int i = from; i < n; i++)
        x[i] = mix(d, x[i], f);
}

static void saturate_from(uint8_t *restrict r, uint8_t *restrict g, uint8_t *restrict b, int from, int n, float f)
{
    for (int i = from; i < n; i++) {
        int d = (int)((19595u * r[i] + 38470u * g[i] + 7471u * b[i] + 32768u) >> 16);
        r[i] = mix(d, r[i], f);
        g[i] = mix(d, g[i], f);
        b[i] = mix(d, b[i], f);
    }
}

/* x / 6, rounded as a division is. */
static inline float sixth(float x)
{
#if defined(__FMA__)
    float q = x * (1.0f / 6);
    return __builtin_fmaf(__builtin_fmaf(-6, q, x), 1.0f / 6, q);
#else
    return x / 6;
#endif
}

/* Pillow goes from RGB to 8-bit HSV and back in a mixture of float and double. Here is the same in float and
 * integers alone: the test compares all colours with the original, and all of HSV.
 *
 * There: V = max, S = int(255 (max - min) / max), H = int(255 frac(h / 6 + 1)), where h is bc - gc, 2 + rc - bc or
 * 4 + gc - rc for red, green or blue as the largest, and rc = (max - r) / (max - min), gc, bc alike. The one of the
 * smallest colour is 1 and that of the largest 0, so h is a whole number plus or minus that of the middle colour.
 *
 * Back: with f = frac(6 H / 255), V (1 - S/255), V (1 - f S/255) and V (1 - (1 - f) S/255), rounded; f is a multiple
 * of 1/85, and no value comes near a half. */
static void hue_from(uint8_t *restrict r8, uint8_t *restrict g8, uint8_t *restrict b8, int from, int n, int shift)
{
    for (int i = from; i < n; i++) {
        int r = r8[i], g = g8[i], b = b8[i];
        int high = r > g ? r : g, low = r < g ? r : g;
        int max = high > b ? high : b, min = low < b ? low : b;
        int range = max - min, middle = r + g + b - max - min;
        float z = (float)(max - middle) / (float)(range ? range : 1);
        /* choices by masks of all bits, so that no branch is left */
        int r_max = -(r == max), g_max = -(g == max) & ~r_max, b_max = ~(r_max | g_max);
        int b_min = -(b == min), g_min = -(g == min);
        int whole = ((-1 + (2 & b_min)) & r_max) | ((3 - (2 & b_min)) & g_max) | ((3 + (2 & g_min)) & b_max);
        int minus = (b_min & r_max) | (~b_min & g_max) | (g_min & b_max);
        float h = (float)whole + (float)(1 + 2 * minus) * z, turn = sixth(h);
        turn = turn + (h < 0 ? 1.0f : 0.0f);
        int hh = (int)(turn * 255) & -(range != 0);
        int s = (int)((float)(range * 255) / (float)(max ? max : 1));

        int twice = 2 * ((hh + shift) & 255), sector = twice * 772 >> 16, part = twice - sector * 85;
        float vs = (float)(max * s);
        int p = max - (int)(vs * 85 * (1.0f / 21675) + 0.5f);
        int q = max - (int)(vs * (float)part * (1.0f / 21675) + 0.5f);
        int t = max - (int)(vs * (float)(85 - part) * (1.0f / 21675) + 0.5f);
        /* (V,t,p) (q,V,p) (p,V,t) (p,q,V) (t,p,V) (V,p,q); gray pixels have p = q = t = V. Sector 6 is 0. */
        int odd = -(sector & 1), other = (q & odd) | (t & ~odd);
        int m0 = -(sector == 0) | -(sector == 6), m1 = -(sector == 1), m2 = -(sector == 2), m3 = -(sector == 3);
        int m4 = -(sector == 4), m5 = -(sector == 5);
        r8[i] = (uint8_t)((max & (m0 | m5)) | (other & (m1 | m4)) | (p & (m2 | m3)));
        g8[i] = (uint8_t)((max & (m1 | m2)) | (other & (m0 | m3)) | (p & (m4 | m5)));
        b8[i] = (uint8_t)((max & (m3 | m4)) | (other & (m2 | m5)) | (p & (m0 | m1)));
    }
}

static void solarize(uint8_t *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = x[i] < 128 ? x[i] : (uint8_t)(255 - x[i]);
}

#if defined(__AVX2__)

/* ---- vectors; what they do in float has the same roundings as above, in the same order */

/* Gray of the pixels as widen() orders them. The weight of green is halved to fit 16 bits, and taken twice. */
static inline void gray_words(Vec r, Vec g, Vec b, Vec y[4])
{
    const Vec zero = VEC_ZERO(), half = VEC(set1_epi32)(32768);
    const Vec with_red = VEC(set1_epi32)(19235 << 16 | 19595), with_blue = VEC(set1_epi32)(19235 << 16 | 7471);
    Vec rg[2] = { VEC(unpacklo_epi8)(r, g), VEC(unpackhi_epi8)(r, g) };
    Vec bg[2] = { VEC(unpacklo_epi8)(b, g), VEC(unpackhi_epi8)(b, g) };
    for (int i = 0; i < 2; i++) {
        Vec low = VEC(add_epi32)(VEC(madd_epi16)(VEC(unpacklo_epi8)(rg[i], zero), with_red),
                                 VEC(madd_epi16)(VEC(unpacklo_epi8)(bg[i], zero), with_blue));
        Vec high = VEC(add_epi32)(VEC(madd_epi16)(VEC(unpackhi_epi8)(rg[i], zero), with_red),
                                  VEC(madd_epi16)(VEC(unpackhi_epi8)(bg[i], zero), with_blue));
        y[2 * i] = VEC(srli_epi32)(VEC(add_epi32)(low, half), 16);
        y[2 * i + 1] = VEC(srli_epi32)(VEC(add_epi32)(high, half), 16);
    }
}

static int64_t gray(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *y)
{
    int64_t lanes[VEC_BYTES / 8], sum = 0;
    Vec total = VEC_ZERO();
    int i = 0;
    for (; i + VEC_BYTES <= n; i += VEC_BYTES) {
        Vec w[4];
        gray_words(VEC_LOAD(r + i), VEC_LOAD(g + i), VEC_LOAD(b + i), w);
        Vec v = narrow(w);
        total = VEC(add_epi64)(total, VEC(sad_epu8)(v, VEC_ZERO()));
        VEC_STORE(y + i, v);
    }
    VEC_STORE(lanes, total);
    for (int l = 0; l < VEC_BYTES / 8; l++)
        sum += lanes[l];
    return sum + gray_from(r, g, b, i, n, y);
}

static inline Vec mix_words(Vec d, VecF df, Vec x, VecF f)
{
    return VEC(cvttps_epi32)(VEC(add_ps)(df, VEC(mul_ps)(f, VEC(cvtepi32_ps)(VEC(sub_epi32)(x, d)))));
}

static void blend(uint8_t d, float f, int n, uint8_t *x)
{
    const Vec dv = VEC(set1_epi32)(d);
    const VecF df = VEC(set1_ps)((float)d), fv = VEC(set1_ps)(f);
    int i = 0;
    for (; i + VEC_BYTES <= n; i += VEC_BYTES) {
        Vec w[4];
        widen(VEC_LOAD(x + i), w);
        for (int q = 0; q < 4; q++)
            w[q] = mix_words(dv, df, w[q], fv);
        VEC_STORE(x + i, narrow(w));
    }
    blend_from(d, f, i, n, x);
}

static void saturate(uint8_t *r, uint8_t *g, uint8_t *b, int n, float f)
{
    uint8_t *const planes[3] = { r, g, b };
    const VecF fv = VEC(set1_ps)(f);
    int i = 0;
    for (; i + VEC_BYTES <= n; i += VEC_BYTES) {
        Vec y[4], w[4];
        VecF yf[4];
        gray_words(VEC_LOAD(r + i), VEC_LOAD(g + i), VEC_LOAD(b + i), y);
        for (int q = 0; q < 4; q++)
            yf[q] = VEC(cvtepi32_ps)(y[q]);
        for (int c = 0; c < 3; c++) {
            widen(VEC_LOAD(planes[c] + i), w);
            for (int q = 0; q < 4; q++)
                w[q] = mix_words(y[q], yf[q], w[q], fv);
            VEC_STORE(planes[c] + i, narrow(w));
        }
    }
    saturate_from(r, g, b, i, n, f);
}

/* What `whole` and the sign can be: by the largest colour and the smallest one. */
enum { RED_GREEN, RED_BLUE, GREEN_RED, GREEN_BLUE, BLUE_RED, BLUE_GREEN };

static inline VecF lookup(const float table[16], Vec index)
{
#if defined(__AVX512BW__)
    return _mm512_permutexvar_ps(index, _mm512_loadu_ps(table));
#else
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
#endif
}

static inline VecF add_one_to_negative(VecF turn, VecF h)
{
    const VecF one = VEC(set1_ps)(1);
#if defined(__AVX512BW__)
    return _mm512_mask_add_ps(turn, _mm512_cmp_ps_mask(h, _mm512_setzero_ps(), _CMP_LT_OQ), turn, one);
#else
    return _mm256_add_ps(turn, _mm256_and_ps(_mm256_cmp_ps(h, _mm256_setzero_ps(), _CMP_LT_OQ), one));
#endif
}

/* x - round(v / 21675), as words. */
static inline Vec less(VecF v)
{
    return VEC(cvttps_epi32)(VEC(fmadd_ps)(v, VEC(set1_ps)(1.0f / 21675), VEC(set1_ps)(0.5f)));
}

static void hue(uint8_t *rp, uint8_t *gp, uint8_t *bp, int n, int shift)
{
    static const float wholes[16] = { -1, 1, 3, 1, 3, 5 }, signs[16] = { 1, -1, -1, 1, 1, -1 };
    const VecF v6 = VEC(set1_ps)(6), by6 = VEC(set1_ps)(1.0f / 6), v255 = VEC(set1_ps)(255);
    const Vec turn16 = VEC(set1_epi16)((short)shift), low8 = VEC(set1_epi16)(255), per = VEC(set1_epi16)(772);
    const Vec v85 = VEC(set1_epi16)(85), one16 = VEC(set1_epi16)(1), one8 = VEC(set1_epi8)(1);
    int i = 0;
    for (; i + VEC_BYTES <= n; i += VEC_BYTES) {
        Vec r = VEC_LOAD(rp + i), g = VEC_LOAD(gp + i), b = VEC_LOAD(bp + i);
        Vec high = VEC(max_epu8)(r, g), low = VEC(min_epu8)(r, g);
        Vec max = VEC(max_epu8)(high, b), min = VEC(min_epu8)(low, b);
        Vec middle = VEC(max_epu8)(low, VEC(min_epu8)(high, b));
        Choice r_max = VEC_EQUAL8(r, max), g_max = VEC_EQUAL8(g, max), b_min = VEC_EQUAL8(b, min);
        Choice g_min = VEC_EQUAL8(g, min);
        Vec red = VEC_CHOOSE8(b_min, VEC(set1_epi8)(RED_BLUE), VEC(set1_epi8)(RED_GREEN));
        Vec green = VEC_CHOOSE8(b_min, VEC(set1_epi8)(GREEN_BLUE), VEC(set1_epi8)(GREEN_RED));
        Vec blue = VEC_CHOOSE8(g_min, VEC(set1_epi8)(BLUE_GREEN), VEC(set1_epi8)(BLUE_RED));
        Vec kind = VEC_CHOOSE8(r_max, red, VEC_CHOOSE8(g_max, green, blue)), range = VEC(sub_epi8)(max, min);
        Vec kinds[4], ranges[4], divisors[4], zs[4], maxs[4], tops[4], hs[4];
        VecF vs[4];
        widen(kind, kinds);
        widen(range, ranges);
        widen(VEC(max_epu8)(range, one8), divisors);
        widen(VEC(sub_epi8)(max, middle), zs);
        widen(max, maxs);
        widen(VEC(max_epu8)(max, one8), tops);
        for (int q = 0; q < 4; q++) {
            VecF z = VEC(div_ps)(VEC(cvtepi32_ps)(zs[q]), VEC(cvtepi32_ps)(divisors[q]));
            VecF h = VEC(fmadd_ps)(lookup(signs, kinds[q]), z, lookup(wholes, kinds[q])), turn = VEC(mul_ps)(h, by6);
            turn = VEC(fmadd_ps)(VEC(fnmadd_ps)(v6, turn, h), by6, turn);
            hs[q] = VEC(cvttps_epi32)(VEC(mul_ps)(add_one_to_negative(turn, h), v255));
            /* where range is 0 so is s, and hs without effect */
            VecF s = VEC(div_ps)(VEC(mul_ps)(VEC(cvtepi32_ps)(ranges[q]), v255), VEC(cvtepi32_ps)(tops[q]));
            vs[q] = VEC(mul_ps)(VEC(cvtepi32_ps)(maxs[q]), VEC(cvtepi32_ps)(VEC(cvttps_epi32)(s)));
        }
        Vec sectors[2], parts[2], others[4], ps[4];
        for (int j = 0; j < 2; j++) {
            Vec h = VEC(packs_epi32)(hs[2 * j], hs[2 * j + 1]);
            h = VEC_AND(VEC(add_epi16)(h, turn16), low8);
            Vec twice = VEC(add_epi16)(h, h);
            sectors[j] = VEC(mulhi_epu16)(twice, per);
            Vec part = VEC(sub_epi16)(twice, VEC(mullo_epi16)(sectors[j], v85));
            /* 85 - part in even sectors: (part ^ -1) + 86 */
            Vec even = VEC(sub_epi16)(VEC_AND(sectors[j], one16), one16);
            parts[j] = VEC(add_epi16)(VEC_XOR(part, even), VEC_AND(even, VEC(set1_epi16)(86)));
            others[2 * j] = VEC(unpacklo_epi16)(parts[j], VEC_ZERO());
            others[2 * j + 1] = VEC(unpackhi_epi16)(parts[j], VEC_ZERO());
        }
        for (int q = 0; q < 4; q++) {
            others[q] = less(VEC(mul_ps)(vs[q], VEC(cvtepi32_ps)(others[q])));
            ps[q] = less(VEC(mul_ps)(vs[q], VEC(set1_ps)(85)));
        }
        Vec other = VEC(sub_epi8)(max, narrow(others)), p = VEC(sub_epi8)(max, narrow(ps));
        Vec sector = VEC(packus_epi16)(sectors[0], sectors[1]);
        Choice s0 = VEC_EQUAL8(sector, VEC_ZERO()) | VEC_EQUAL8(sector, VEC(set1_epi8)(6));
        Choice s1 = VEC_EQUAL8(sector, one8), s2 = VEC_EQUAL8(sector, VEC(set1_epi8)(2));
        Choice s3 = VEC_EQUAL8(sector, VEC(set1_epi8)(3)), s4 = VEC_EQUAL8(sector, VEC(set1_epi8)(4));
        Choice s5 = VEC_EQUAL8(sector, VEC(set1_epi8)(5));
        VEC_STORE(rp + i, VEC_CHOOSE8(s0 | s5, max, VEC_CHOOSE8(s1 | s4, other, p)));
        VEC_STORE(gp + i, VEC_CHOOSE8(s1 | s2, max, VEC_CHOOSE8(s0 | s3, other, p)));
        VEC_STORE(bp + i, VEC_CHOOSE8(s3 | s4, max, VEC_CHOOSE8(s2 | s5, other, p)));
    }
    hue_from(rp, gp, bp, i, n, shift);
}

#else

static int64_t gray(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *y)
{
    return gray_from(r, g, b, 0, n, y);
}

static void blend(uint8_t d, float f, int n, uint8_t *x)
{
    blend_from(d, f, 0, n, x);
}

static void saturate(uint8_t *r, uint8_t *g, uint8_t *b, int n, float f)
{
    saturate_from(r, g, b, 0, n, f);
}

static void hue(uint8_t *r, uint8_t *g, uint8_t *b, int n, int shift)
{
    hue_from(r, g, b, 0, n, shift);
}

#endif

void ISA_FN(color_kernels)(PixelKernels *k)
{
    k->gray = gray;
    k->blend = blend;
    k->saturate = saturate;
    k->solarize = solarize;
    k->hue = hue;
}
