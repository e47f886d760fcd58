/* Three extended box blurs of one plane along x, then three along y. Plain C takes any radius; the vector form takes
 * those below 2, which is all that the recipes draw. */
#include "image/pixels.h"
#include "image/simd/vec.h"

#include <string.h>

enum { PASSES = 3 };

/* ---- plain passes: src has ri + 1 values before and after the n; rows[0 .. 2 ri + 2] are 2 ri + 3 rows in order */

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
    enum { BLOCK = 256 };
    const uint8_t *before = rows[0], *after = rows[2 * ri + 2];
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

static void blur_plain(uint8_t *plane, int w, int h, int ri, uint32_t ww, uint32_t fw, uint8_t *work)
{
    /* along rows: two lines with their ends repeated */
    size_t margin = (size_t)ri + 1, line = (size_t)w + 2 * margin;
    uint8_t *lines[2] = { work + BLUR_ROWS(h, ri), work + BLUR_ROWS(h, ri) + line }, *other = lines[1] + line;
    const uint8_t **rows = (const uint8_t **)work;
    for (int y = 0; y < h; y++) {
        uint8_t *at = plane + (size_t)y * (size_t)w;
        memcpy(lines[0] + margin, at, (size_t)w);
        for (int pass = 0; pass < PASSES; pass++) {
            uint8_t *from = lines[pass & 1], *to = pass == PASSES - 1 ? at : lines[~pass & 1] + margin;
            memset(from, from[margin], margin);
            memset(from + margin + w, from[margin + (size_t)w - 1], margin);
            box_x(from + margin, w, ri, ww, fw, to);
        }
    }

    /* along columns: whole rows at a time, between the plane and its copy */
    uint8_t *from = plane, *to = other;
    for (int pass = 0; pass < PASSES; pass++) {
        for (int y = -(int)margin; y < h + (int)margin; y++)
            rows[y + (int)margin] = from + (size_t)(y < 0 ? 0 : y >= h ? h - 1 : y) * (size_t)w;
        for (int y = 0; y < h; y++)
            box_y(rows + y, w, ri, ww, fw, to + (size_t)y * (size_t)w);
        uint8_t *t = from;
        from = to;
        to = t;
    }
    if (from != plane)
        memcpy(plane, from, (size_t)w * (size_t)h);
}

#if defined(__AVX2__)

/* ---- vectors of 16-bit values. A weight is high * 65536 + low, with low signed: a pair (inside, ends) times the high
 * ones, and what its product with the low ones carries over, is the result with 8 bits behind the point. */

enum { WORDS = VEC_BYTES / 2 };

typedef struct {
    Vec high, low;
} Weights;

static inline Weights weights_of(uint32_t ww, uint32_t fw)
{
    uint32_t high = ((fw + 32768) >> 16) << 16 | (ww + 32768) >> 16;
    return (Weights){ VEC(set1_epi32)((int)high), VEC(set1_epi32)((int)(fw << 16 | (ww & 0xffff))) };
}

static inline Vec weigh(Vec pairs, Weights w)
{
    return VEC(add_epi32)(VEC(madd_epi16)(pairs, w.high), VEC(srai_epi32)(VEC(madd_epi16)(pairs, w.low), 16));
}

static inline Vec box(Vec inside, Vec ends, Weights w)
{
    Vec v = VEC(packus_epi32)(weigh(VEC(unpacklo_epi16)(inside, ends), w), weigh(VEC(unpackhi_epi16)(inside, ends), w));
    return VEC(srli_epi16)(VEC(add_epi16)(v, VEC(set1_epi16)(128)), 8);
}

static inline Vec load_words(const uint8_t *p, int n)
{
    uint8_t part[WORDS] = { 0 };
    if (n < WORDS)
        memcpy(part, p, (size_t)n);
    p = n < WORDS ? part : p;
#if defined(__AVX512BW__)
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
#else
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
#endif
}

static inline void store_words(uint8_t *p, Vec v, int n)
{
    uint8_t part[WORDS], *to = n < WORDS ? part : p;
#if defined(__AVX512BW__)
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi16_epi8(v));
#else
    v = _mm256_permute4x64_epi64(_mm256_packus_epi16(v, v), 0x08);
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(v));
#endif
    if (n < WORDS)
        memcpy(p, part, (size_t)n);
}

/* A pass down the columns: what came last, and the value that the newest one completes. */
typedef struct {
    Vec q[4];
} Pass;

static inline Vec push(Pass *p, Vec v, int ri, Weights w)
{
    Vec out;
    if (ri == 0) {
        out = box(p->q[1], VEC(add_epi16)(p->q[0], v), w);
        p->q[0] = p->q[1];
        p->q[1] = v;
    } else {
        out = box(VEC(add_epi16)(p->q[1], VEC(add_epi16)(p->q[2], p->q[3])), VEC(add_epi16)(p->q[0], v), w);
        for (int i = 0; i < 3; i++)
            p->q[i] = p->q[i + 1];
        p->q[3] = v;
    }
    return out;
}

/* All three passes over WORDS columns at a time; a row is complete 3 (ri + 1) rows after it was read. Rows before
 * the first and after the last are the first and last ones of each pass. */
static inline __attribute__((always_inline)) void columns(uint8_t *plane, int w, int h, int n, int ri, Weights weights)
{
    enum { LAST = 3 };
    const int delay = ri + 1, last = ri == 0 ? 1 : LAST;
    Pass a, b, c;
    Vec v = load_words(plane, n);
    for (int i = 0; i < 4; i++)
        a.q[i] = b.q[i] = c.q[i] = v;
    for (int t = 1; t < h + 3 * delay; t++) {
        v = push(&a, t < h ? load_words(plane + (int64_t)t * w, n) : a.q[last], ri, weights);
        if (t < 2 * delay) {
            if (t == delay)
                for (int i = 0; i < 4; i++)
                    b.q[i] = v;
            else if (t > delay)
                push(&b, v, ri, weights);
            continue;
        }
        v = push(&b, t < h + delay ? v : b.q[last], ri, weights);
        if (t == 2 * delay) {
            for (int i = 0; i < 4; i++)
                c.q[i] = v;
            continue;
        }
        v = push(&c, t < h + 2 * delay ? v : c.q[last], ri, weights);
        if (t >= 3 * delay)
            store_words(plane + (int64_t)(t - 3 * delay) * w, v, n);
    }
}

/* All three passes over ROWS rows at a time, so that what a pass reads was not written just before. */
enum { ROWS = 8, ENDS = 2 };

static inline void repeat_ends(uint16_t *line, int w)
{
    for (int i = 1; i <= ENDS; i++) {
        line[-i] = line[0];
        line[w - 1 + i] = line[w - 1];
    }
}

static inline __attribute__((always_inline)) Vec box_line(const uint16_t *p, int ri, Weights w)
{
    Vec middle = VEC_LOAD(p), before = VEC_LOAD(p - 1), after = VEC_LOAD(p + 1);
    if (ri == 0)
        return box(middle, VEC(add_epi16)(before, after), w);
    return box(VEC(add_epi16)(middle, VEC(add_epi16)(before, after)),
               VEC(add_epi16)(VEC_LOAD(p - 2), VEC_LOAD(p + 2)), w);
}

static inline __attribute__((always_inline)) void rows_of(uint8_t *plane, int w, int h, int ri, Weights weights,
                                                          uint16_t *work, int64_t line)
{
    uint16_t *first = work + WORDS, *second = first + ROWS * line;
    for (int at = 0; at < h; at += ROWS) {
        int rows = h - at < ROWS ? h - at : ROWS;
        uint8_t *p = plane + (int64_t)at * w;
        for (int y = 0; y < rows; y++) {
            for (int x = 0; x < w; x += WORDS)
                VEC_STORE(first + y * line + x, load_words(p + (int64_t)y * w + x, w - x));
            repeat_ends(first + y * line, w);
        }
        for (int pass = 0; pass < PASSES - 1; pass++) {
            const uint16_t *from = pass ? second : first;
            uint16_t *to = pass ? first : second;
            for (int y = 0; y < rows; y++) {
                for (int x = 0; x < w; x += WORDS)
                    VEC_STORE(to + y * line + x, box_line(from + y * line + x, ri, weights));
                repeat_ends(to + y * line, w);
            }
        }
        for (int y = 0; y < rows; y++)
            for (int x = 0; x < w; x += WORDS)
                store_words(p + (int64_t)y * w + x, box_line(first + y * line + x, ri, weights), w - x);
    }
}

static void blur(uint8_t *plane, int w, int h, int ri, uint32_t ww, uint32_t fw, uint8_t *work)
{
    Weights weights = weights_of(ww, fw);
    /* a line: its words in whole vectors, and a vector's room for its ends */
    int64_t line = ((int64_t)w + WORDS - 1) / WORDS * WORDS + WORDS;
    if (ri > 1) {
        blur_plain(plane, w, h, ri, ww, fw, work);
    } else if (ri == 0) {
        rows_of(plane, w, h, 0, weights, (uint16_t *)work, line);
        for (int x = 0; x < w; x += WORDS)
            columns(plane + x, w, h, w - x, 0, weights);
    } else {
        rows_of(plane, w, h, 1, weights, (uint16_t *)work, line);
        for (int x = 0; x < w; x += WORDS)
            columns(plane + x, w, h, w - x, 1, weights);
    }
}

#else

static void blur(uint8_t *plane, int w, int h, int ri, uint32_t ww, uint32_t fw, uint8_t *work)
{
    blur_plain(plane, w, h, ri, ww, fw, work);
}

#endif

void ISA_FN(blur_kernels)(PixelKernels *k)
{
    k->blur = blur;
}
