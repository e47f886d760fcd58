/* lib/image: every instruction set gives the same bytes, plans stay in bounds, hostile bytes do no harm. */
#include "../tap.h"

#include "image/render.h"
#include "image/scratch.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void noise(uint8_t *p, size_t n, uint64_t seed)
{
    Rng r = rng_make(seed, RNG_TEST, 0, 0);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)rng_u32(&r);
}

/* A smooth picture with some detail, so that a JPEG of it is not all noise. */
static Image drawing(int w, int h)
{
    Image im = { w, h, malloc((size_t)w * (size_t)h * 3 + 64) };
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++)
                im.rgb[(y * w + x) * 3 + c] = (uint8_t)(x * (3 + c) + y * (5 - c) + (x ^ y) % 16);
    return im;
}

/* A turn of the hue as Pillow's source has it, in its mixture of float and double. */
static uint8_t byte_of(double x)
{
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : (int)x);
}

static void turn_hue(uint8_t *r8, uint8_t *g8, uint8_t *b8, int shift)
{
    int r = *r8, g = *g8, b = *b8, max = r > g ? r : g, min = r < g ? r : g;
    uint8_t hh = 0, ss = 0;
    max = max > b ? max : b;
    min = min < b ? min : b;
    if (max != min) {
        float c = (float)(max - min), s = c / (float)max, h;
        float rc = (float)(max - r) / c, gc = (float)(max - g) / c, bc = (float)(max - b) / c;
        h = r == max ? bc - gc : g == max ? (float)(2.0 + (double)rc - (double)bc) : (float)(4.0 + (double)gc - (double)rc);
        h = (float)fmod((double)h / 6.0 + 1.0, 1.0);
        hh = byte_of((double)h * 255.0);
        ss = byte_of((double)s * 255.0);
    }
    hh = (uint8_t)(hh + shift);
    if (ss == 0) {
        *r8 = *g8 = *b8 = (uint8_t)max;
        return;
    }
    double v = max;
    int i = (int)floor((double)hh * 6.0 / 255.0);
    float f = (float)((double)hh * 6.0 / 255.0 - (double)(float)i), fs = (float)((double)ss / 255.0);
    uint8_t p = byte_of(round(v * (1.0 - (double)fs))), q = byte_of(round(v * (1.0 - (double)(fs * f))));
    uint8_t t = byte_of(round(v * (1.0 - (double)fs * (1.0 - (double)f)))), m = (uint8_t)max;
    const uint8_t out[6][3] = { { m, t, p }, { q, m, p }, { p, m, t }, { p, q, m }, { t, p, m }, { m, p, q } };
    *r8 = out[i % 6][0], *g8 = out[i % 6][1], *b8 = out[i % 6][2];
}

/* All colours, and among them all turns. */
static void test_hue(void)
{
    enum { N = 256 * 256 };
    uint8_t *got = malloc(3 * N);
    bool same = true;
    for (int r = 0; r < 256; r++) {
        int shift = (r * 101 + 3) & 255;
        for (int i = 0; i < N; i++) {
            got[i] = (uint8_t)r;
            got[N + i] = (uint8_t)(i >> 8);
            got[2 * N + i] = (uint8_t)i;
        }
        pixels()->hue(got, got + N, got + 2 * N, N, shift);
        for (int i = 0; i < N; i++) {
            uint8_t x = (uint8_t)r, y = (uint8_t)(i >> 8), z = (uint8_t)i;
            turn_hue(&x, &y, &z, shift);
            same = same && got[i] == x && got[N + i] == y && got[2 * N + i] == z;
        }
    }
    ok(same, "the hue of every colour turns as by way of doubles");
    free(got);
}

#if defined(__x86_64__)
static void test_color_variants(const PixelKernels *a, const PixelKernels *b, const char *isa)
{
    enum { N = 100003 };
    uint8_t *x = malloc(3 * N), *y = malloc(3 * N), *d = malloc(N), *e = malloc(N);
    noise(x, 3 * N, 1);
    memcpy(y, x, 3 * N);
    ok(a->gray(x, x + N, x + 2 * N, N, d) == b->gray(y, y + N, y + 2 * N, N, e) && !memcmp(d, e, N), "gray, %s", isa);
    bool same = true;
    for (float f = -0.5f; f <= 2; f += 0.17f) {
        a->saturate(x, x + N, x + 2 * N, N, f);
        b->saturate(y, y + N, y + 2 * N, N, f);
        a->blend(77, f, N, x + N);
        b->blend(77, f, N, y + N);
        same = same && !memcmp(x, y, 3 * N);
        noise(x, 3 * N, 2);
        memcpy(y, x, 3 * N);
    }
    ok(same, "blend, %s", isa);
    for (int shift = 0; shift < 256; shift += 51) {
        noise(x, 3 * N, (uint64_t)shift);
        for (int i = 0; i < N; i++) /* also near gray, where two colours are equal and differences small */
            for (int c = 1; c < 3 && i % 2; c++)
                x[c * N + i] = (uint8_t)(x[i] + (x[c * N + i] & 7));
        memcpy(y, x, 3 * N);
        a->hue(x, x + N, x + 2 * N, N, shift);
        b->hue(y, y + N, y + 2 * N, N, shift);
        same = same && !memcmp(x, y, 3 * N);
    }
    ok(same, "hue, %s", isa);
    a->solarize(x, N);
    b->solarize(y, N);
    ok(!memcmp(x, y, N), "solarize, %s", isa);
    uint8_t *u = malloc(3 * N), *v = malloc(3 * N);
    a->split(x, N, u, u + N, u + 2 * N);
    b->split(x, N, v, v + N, v + 2 * N);
    b->join(v, v + N, v + 2 * N, N, y);
    same = !memcmp(u, v, 3 * N) && !memcmp(x, y, 3 * N);
    a->join(v, v + N, v + 2 * N, N, y);
    ok(same && !memcmp(x, y, 3 * N), "split and join, %s", isa);
    free(u), free(v);
    free(x), free(y), free(d), free(e);
}

/* Both tables resample the same picture: each with its own form of tiles' taps. */
static void test_resample_variants(const PixelKernels *a, const PixelKernels *b, const char *isa)
{
    enum { W = 203, H = 61, MOST = 120, SIDE = 100, GROUPS = (W + 3) / 4, BANDS = (H + 15) / 16 };
    static const int sizes[][4] = { { 100, 50, 24, 7 }, { 37, 61, 95, 96 }, { 203, 60, 33, 1 }, { 24, 24, 24, 24 }, { 5, 4, 1, 65 } };
    static uint8_t rgb[W * H * 3], tiles[2][BANDS * 3 * GROUPS * TILE_BYTES], out[2][3 * SIDE * SIDE + PIXEL_MARGIN];
    static _Alignas(64) uint8_t strips[2][BANDS * 4 * 128 * 4];
    static double work[MOST * 2 * TAPS_LANES];
    static int32_t k[2][2][SIDE * MOST * 4];
    static int first[2][2][SIDE], n[2][2][SIDE];
    const PixelKernels *pk[2] = { a, b };
    bool packed = true, taps = true, across = true, down = true;
    noise(rgb, sizeof rgb, 4);
    for (int i = 0; i < 2; i++)
        for (int band = 0; band < BANDS; band++)
            pk[i]->pack(rgb + band * 16 * W * 3, W * 3, H - band * 16 < 16 ? H - band * 16 : 16, W,
                        tiles[i] + band * 3 * GROUPS * TILE_BYTES, GROUPS * TILE_BYTES);
    for (int g = 0; g < W / 4; g++) /* the last tiles' columns beyond the picture are anything */
        for (int plane = 0; plane < BANDS * 3; plane++)
            packed = packed && !memcmp(tiles[0] + (plane * GROUPS + g) * TILE_BYTES,
                                       tiles[1] + (plane * GROUPS + g) * TILE_BYTES, TILE_BYTES);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int filter = FILTER_BILINEAR; filter <= FILTER_BICUBIC; filter++) {
            const int *z = sizes[s];
            Axis axes[2] = { { z[0], W - z[0], z[2], (ImageFilter)filter, s & 1 }, { z[1], H - z[1], z[3], (ImageFilter)filter, 0 } };
            Taps t[2][2];
            memset(k, 0, sizeof k);
            memset(out, 0, sizeof out);
            for (int i = 0; i < 2; i++)
                for (int axis = 0; axis < 2; axis++) {
                    t[i][axis] = (Taps){ axes[axis].out, MOST, first[i][axis], n[i][axis], k[i][axis], 0 };
                    pk[i]->taps(&axes[axis], &t[i][axis], work);
                }
            for (int axis = 0; axis < 2; axis++)
                taps = taps && !memcmp(k[0][axis], k[1][axis], sizeof k[0][axis]) &&
                       !memcmp(first[0][axis], first[1][axis], sizeof(int) * (size_t)axes[axis].out) &&
                       !memcmp(n[0][axis], n[1][axis], sizeof(int) * (size_t)axes[axis].out);
            taps_level(&axes[0], &t[1][0]); /* of one table only: the groups it adds change nothing */
            for (int i = 0; i < 2; i++) {
                pk[i]->fold(k[i][0], SIDE * MOST);
                pk[i]->fold(k[i][1], SIDE * MOST);
                for (int c = 0; c < 3; c++) {
                    memset(strips[i], 0, sizeof strips[i]);
                    pk[i]->resample_x(tiles[i] + c * GROUPS * TILE_BYTES, 3 * GROUPS * TILE_BYTES, BANDS, &t[i][0],
                                      strips[i], 512);
                    pk[i]->resample_y(strips[i], 512, &t[i][1], z[2], out[i] + c * z[3] * z[2]);
                }
            }
            for (int row = 0; row < BANDS * 4; row++)
                across = across && !memcmp(strips[0] + row * 512, strips[1] + row * 512, (size_t)z[2] * 4);
            down = down && !memcmp(out[0], out[1], (size_t)(z[2] * z[3] * 3));
        }
    ok(packed, "tiles, %s", isa);
    ok(taps, "taps, %s", isa);
    ok(across, "resample along x, %s", isa);
    ok(down, "resample along y, %s", isa);
}

static void test_blur_variants(const PixelKernels *a, const PixelKernels *b, const char *isa)
{
    static const int sizes[][2] = { { 224, 9 }, { 96, 96 }, { 77, 31 }, { 33, 1 }, { 1, 40 }, { 2, 2 }, { 5, 3 } };
    static uint8_t x[96 * 96], y[96 * 96];
    static _Alignas(64) uint8_t work[BLUR_WORK(224, 96, 4)];
    bool same = true;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int ri = 0; ri < 5; ri++) {
            uint32_t ww = (uint32_t)((1 << 24) / (2 * ri + 1.3)), fw = ((1u << 24) - (uint32_t)(2 * ri + 1) * ww) / 2;
            noise(x, sizeof x, s);
            memcpy(y, x, sizeof x);
            a->blur(x, sizes[s][0], sizes[s][1], ri, ww, fw, work);
            b->blur(y, sizes[s][0], sizes[s][1], ri, ww, fw, work);
            same = same && !memcmp(x, y, sizeof x);
        }
    ok(same, "box blur, %s", isa);
}

static void test_variants(void)
{
    static const struct {
        Isa isa;
        int vnni;
        const char *name;
    } variants[] = { { ISA_AVX2, 0, "avx2" }, { ISA_AVX512, 0, "avx512" }, { ISA_AVX512, 1, "avx512 with vnni" } };
    PixelKernels base = { 0 }, other = { 0 };
    pixels_for(ISA_BASE, 0, &base);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
        if (isa_best() >= variants[i].isa) {
            pixels_for(variants[i].isa, variants[i].vnni, &other);
            test_color_variants(&base, &other, variants[i].name);
            test_resample_variants(&base, &other, variants[i].name);
            test_blur_variants(&base, &other, variants[i].name);
        }
}
#else
static void test_variants(void)
{
}
#endif

static void test_plans(void)
{
    static const int sizes[][2] = { { 1, 1 }, { 1, 500 }, { 500, 1 }, { 32, 32 }, { 500, 375 }, { 3, 7 } };
    const char *names[] = { "dino", "ibot", "mocov3", "mae" };
    bool good = true, same = true;
    for (size_t n = 0; n < 4; n++)
        for (size_t s = 0; s < 6; s++)
            for (uint64_t id = 0; id < 50; id++) {
                const Recipe *r = recipe_find(names[n]);
                ViewPlan a[PLAN_MAX_VIEWS] = { 0 }, b[PLAN_MAX_VIEWS] = { 0 };
                plan_views(r, 1, 2, id, sizes[s][0], sizes[s][1], a);
                plan_views(r, 1, 2, id, sizes[s][0], sizes[s][1], b);
                for (int v = 0; v < r->globals + r->locals; v++)
                    good = good && !plan_check(&a[v], sizes[s][0], sizes[s][1]);
                same = same && !memcmp(a, b, sizeof a);
            }
    ok(good, "plans of all recipes fit images of all shapes");
    ok(same, "a plan is a function of its key");
    ok(!recipe_find("nosuch") && strstr(err_text(), "dino|ibot"), "an unknown recipe is named, with the known ones");
    ViewPlan p = { .w = 5, .h = 5, .x = 1, .size = 4 };
    ok(plan_check(&p, 5, 5) && plan_check(&(ViewPlan){ .w = 5, .h = 5, .size = 1 << 20 }, 5, 5), "bad plans are refused");
}

/* All prefixes but of the last `tail` bytes, and single damaged bytes: no crash; such prefixes never decode.
 */
static void test_hostile(const char *what, const void *bytes, size_t n, size_t tail)
{
    uint8_t *copy = malloc(n);
    bool refused = true;
    Image im;
    for (size_t i = 0; i + tail < n; i += n > 2000 ? 7 : 1) {
        uint8_t *prefix = malloc(i ? i : 1); /* of its exact size, so that a sanitizer sees a read past its end */
        memcpy(prefix, bytes, i);
        refused = refused && image_decode(prefix, i, 0, &im) < 0;
        free(prefix);
    }
    ok(refused, "%s: no prefix without all pixels decodes", what);
    int decoded = 0;
    for (size_t i = 0; i < n; i += n > 2000 ? 5 : 1) {
        ImageInfo info;
        memcpy(copy, bytes, n);
        copy[i] ^= (uint8_t)(1u << i % 8 | 0x80);
        image_probe(copy, n, &info);
        if (!image_decode(copy, n, 0, &im)) {
            decoded++;
            image_free(&im);
        }
    }
    ok(true, "%s: damaged bytes do no harm (%d of %zu still decode)", what, decoded, n);
    free(copy);
}

static void test_codecs(void)
{
    Image im = drawing(45, 33), back;
    void *bytes;
    size_t n;
    ImageInfo info;
    ok(!image_encode_png(&im, &bytes, &n) && !image_probe(bytes, n, &info) && info.w == 45 && info.h == 33 &&
           info.type == IMAGE_PNG, "a PNG tells its size");
    ok(!image_decode(bytes, n, 0, &back) && !memcmp(back.rgb, im.rgb, 45 * 33 * 3),
       "a PNG comes back as it was");
    image_free(&back);
    test_hostile("PNG", bytes, n, 12 + 4 + 4 + 2); /* end chunk, checksums of chunk and data, end code */
    free(bytes);
    ok(!image_encode_jpeg(&im, 90, &bytes, &n) && !image_probe(bytes, n, &info) && info.type == IMAGE_JPEG &&
           info.w == 45, "a JPEG tells its size");
    test_hostile("JPEG", bytes, n, 2);

    uint8_t *whole = malloc(16 * 16 * 3), *fast = malloc(16 * 16 * 3), *outs[1] = { whole };
    ViewPlan p = { .w = 45, .h = 33, .size = 16, .filter = FILTER_BICUBIC, .flip = 1, .blur = 1.5f };
    RenderScratch *s = render_scratch_new();
    ViewPlan top = p;
    Image decoded;
    top.x = 3;
    top.w = 41;
    top.h = 9;
    ok(!image_decode(bytes, n, 0, &decoded) && !render_view(&decoded, &top, fast, s) &&
           !render_views(bytes, n, 0, &top, 1, false, outs, s) && !memcmp(whole, fast, 16 * 16 * 3),
       "a view of the upper rows is the same from a whole picture and from bytes");
    image_free(&decoded);
    ok(render_views(bytes, n - 40, 0, &top, 1, false, outs, s) < 0 && strstr(err_text(), "truncated"),
       "a picture without its end is refused, even where no view needs the end");
    int rc = render_views(bytes, n, 0, &p, 1, false, outs, s);
    outs[0] = fast;
    rc |= render_views(bytes, n, 0, &p, 1, true, outs, s);
    int far = 0;
    for (int i = 0; i < 16 * 16 * 3; i++)
        far += abs(whole[i] - fast[i]) > 60;
    ok(!rc && far < 40, "a fast view resembles the exact one");
    ViewPlan vast = { .w = INT32_MAX, .h = INT32_MAX, .size = 4096, .filter = FILTER_BICUBIC };
    ok(render_views(bytes, n, 0, &vast, 1, true, outs, s) < 0 && err_code() == ERR_DATA,
       "a vast plan is refused, fast too");
    ok(!image_eval_view(&im, 20, 16, whole) && !image_eval_view(&im, 0, 16, whole), "evaluation views");
    ok(image_eval_view(&im, 10, 16, whole) < 0, "a crop larger than the picture is refused");
    render_scratch_free(s);
    free(whole), free(fast), free(bytes);
    ok(image_decode("", 0, 0, &back) < 0 && strstr(err_text(), "empty"), "an empty file is called empty");
    ok(image_decode("hello, world", 12, 0, &back) < 0 && strstr(err_text(), "neither"), "text is no picture");
    image_free(&im);
}

int main(void)
{
    test_hue();
    test_variants();
    test_plans();
    test_codecs();
    return tap_done();
}
