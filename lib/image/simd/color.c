/* Colour, value by value as Pillow computes it: the mixture of float and double below is part of the result. */
#include "image/pixels.h"

static int64_t gray(const uint8_t *restrict r, const uint8_t *restrict g, const uint8_t *restrict b, int n,
                    uint8_t *restrict y)
{
    int64_t sum = 0;
    for (int at = 0; at < n; at += 4096) {
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

static void blend(const uint8_t *restrict d, float f, int n, uint8_t *restrict x)
{
    for (int i = 0; i < n; i++)
        x[i] = mix(d[i], x[i], f);
}

static void blend_constant(uint8_t d, float f, int n, uint8_t *restrict x)
{
    for (int i = 0; i < n; i++)
        x[i] = mix(d, x[i], f);
}

static void solarize(uint8_t *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = x[i] < 128 ? x[i] : (uint8_t)(255 - x[i]);
}

/* C's round() of a value that is not negative. */
static inline double round_positive(double x)
{
    double whole = (double)(int)x;
    return whole + (x - whole >= 0.5 ? 1.0 : 0.0);
}

enum { HUE_BLOCK = 128 };

/* RGB to HSV: V is the largest; S and H are 0 where all are equal. h and s come out as ints in 0..255. */
static void to_hsv(const uint8_t *restrict r8, const uint8_t *restrict g8, const uint8_t *restrict b8, int n,
                   int *restrict h_out, int *restrict s_out, int *restrict v_out)
{
    for (int i = 0; i < n; i++) {
        int r = r8[i], g = g8[i], b = b8[i];
        int max = r > g ? r : g, min = r < g ? r : g;
        max = max > b ? max : b;
        min = min < b ? min : b;
        int range = max - min;
        float cr = (float)(range ? range : 1), top = (float)(max ? max : 1);
        float s = cr / top;
        float rc = (float)(max - r) / cr, gc = (float)(max - g) / cr, bc = (float)(max - b) / cr;
        float from_r = bc - gc;
        float from_g = (float)(2.0 + (double)rc - (double)bc);
        float from_b = (float)(4.0 + (double)gc - (double)rc);
        float h = r == max ? from_r : g == max ? from_g : from_b;
        double turn = (double)h / 6.0 + 1.0;      /* in [5/6, 11/6]: fmod(turn, 1) is a subtraction */
        h = (float)(turn >= 1.0 ? turn - 1.0 : turn);
        int hh = (int)((double)h * 255.0), ss = (int)((double)s * 255.0);
        h_out[i] = range ? hh : 0;
        s_out[i] = range ? ss : 0;
        v_out[i] = max;
    }
}

static void from_hsv(const int *restrict hs, const int *restrict ss, const int *restrict vs, int n,
                     uint8_t *restrict r8, uint8_t *restrict g8, uint8_t *restrict b8)
{
    for (int j = 0; j < n; j++) {
        int v = vs[j];
        double sixth = (double)hs[j] * 6.0 / 255.0;
        int i = (int)sixth;
        float f = (float)(sixth - (double)i), fs = (float)((double)ss[j] / 255.0);
        int p = (int)round_positive((double)v * (1.0 - (double)fs));
        int q = (int)round_positive((double)v * (1.0 - (double)(fs * f)));
        int t = (int)round_positive((double)v * (1.0 - (double)fs * (1.0 - (double)f)));
        i = i == 6 ? 0 : i;
        /* one of six sextants, chosen by masks so that the loop has no branch; gray pixels have q = p = t = v */
        int m0 = -(i == 0), m1 = -(i == 1), m2 = -(i == 2), m3 = -(i == 3), m4 = -(i == 4), m5 = -(i == 5);
        r8[j] = (uint8_t)((v & (m0 | m5)) | (q & m1) | (p & (m2 | m3)) | (t & m4));
        g8[j] = (uint8_t)((t & m0) | (v & (m1 | m2)) | (q & m3) | (p & (m4 | m5)));
        b8[j] = (uint8_t)((p & (m0 | m1)) | (t & m2) | (v & (m3 | m4)) | (q & m5));
    }
}

static void hue(uint8_t *r, uint8_t *g, uint8_t *b, int n, int shift)
{
    int h[HUE_BLOCK], s[HUE_BLOCK], v[HUE_BLOCK];
    for (int at = 0; at < n; at += HUE_BLOCK) {
        int m = n - at < HUE_BLOCK ? n - at : HUE_BLOCK;
        to_hsv(r + at, g + at, b + at, m, h, s, v);
        for (int i = 0; i < m; i++)
            h[i] = (h[i] + shift) & 255;
        from_hsv(h, s, v, m, r + at, g + at, b + at);
    }
}

void ISA_FN(color_kernels)(PixelKernels *k)
{
    k->gray = gray;
    k->blend = blend;
    k->blend_constant = blend_constant;
    k->solarize = solarize;
    k->hue = hue;
}
