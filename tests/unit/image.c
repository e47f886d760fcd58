/* lib/image: every instruction set gives the same bytes, plans stay in bounds, hostile bytes do no harm. */
#include "../tap.h"

#include "image/render.h"
#include "image/scratch.h"
#include "util/err.h"
#include "util/rng.h"

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
        a->blend(d, f, N, x);
        b->blend(d, f, N, y);
        a->blend_constant(77, f, N, x + N);
        b->blend_constant(77, f, N, y + N);
        same = same && !memcmp(x, y, 2 * N);
        noise(x, 2 * N, 2);
        memcpy(y, x, 2 * N);
    }
    ok(same, "blend, %s", isa);
    for (int shift = 0; shift < 256; shift += 51) {
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

static void test_geometry_variants(const PixelKernels *a, const PixelKernels *b, const char *isa)
{
    enum { W = 300, ROWS = 13, OUT = 37, WIDTH = 24 };
    static uint8_t src[W * ROWS * 3 + 64], x[OUT * ROWS * 3], y[OUT * ROWS * 3];
    static int32_t k[OUT * WIDTH];
    static int16_t kh[OUT * WIDTH], kl[OUT * WIDTH];
    int lo[OUT], n[OUT];
    Rng r = rng_make(3, RNG_TEST, 0, 0);
    noise(src, sizeof src, 4);
    for (int i = 0; i < OUT; i++) {
        n[i] = 1 + (int)rng_below(&r, WIDTH - 1);
        lo[i] = (int)rng_below(&r, W - (uint32_t)n[i] + 1);
        for (int j = 0; j < n[i]; j++) {
            k[i * WIDTH + j] = (int32_t)rng_below(&r, 1 << 18) - (1 << 16);
            kh[i * WIDTH + j] = (int16_t)(k[i * WIDTH + j] >> 12);
            kl[i * WIDTH + j] = (int16_t)(k[i * WIDTH + j] & 4095);
        }
    }
    Taps t = { OUT, WIDTH, lo, n, k, kh, kl };
    a->resample_x(src, W * 3, ROWS, &t, x, OUT * 3);
    b->resample_x(src, W * 3, ROWS, &t, y, OUT * 3);
    ok(!memcmp(x, y, sizeof x), "resample along x, %s", isa);
    a->resample_y(src, W * 3, ROWS, k, OUT * ROWS * 3 < W * 3 ? OUT * ROWS * 3 : W * 3, x);
    b->resample_y(src, W * 3, ROWS, k, OUT * ROWS * 3 < W * 3 ? OUT * ROWS * 3 : W * 3, y);
    ok(!memcmp(x, y, sizeof x), "resample along y, %s", isa);
    bool same = true;
    for (int ri = 0; ri < 5; ri++) {
        const uint8_t *rows[ROWS];
        for (int i = 0; i < ROWS; i++)
            rows[i] = src + i * W;
        a->box_x(src + 10, 500, ri, 3000000, 900000, x);
        b->box_x(src + 10, 500, ri, 3000000, 900000, y);
        same = same && !memcmp(x, y, 500);
        a->box_y(rows, 290, ri, 3000000, 900000, x);
        b->box_y(rows, 290, ri, 3000000, 900000, y);
        same = same && !memcmp(x, y, 290);
    }
    ok(same, "box blur, %s", isa);
}

static void test_variants(void)
{
    PixelKernels base = { 0 }, other = { 0 };
    pixel_kernels_base(&base);
    color_kernels_base(&base);
    if (isa_best() >= ISA_AVX2) {
        pixel_kernels_avx2(&other);
        color_kernels_avx2(&other);
        test_color_variants(&base, &other, "avx2");
        test_geometry_variants(&base, &other, "avx2");
    }
    if (isa_best() >= ISA_AVX512) {
        pixel_kernels_avx512(&other);
        color_kernels_avx512(&other);
        test_color_variants(&base, &other, "avx512");
        test_geometry_variants(&base, &other, "avx512");
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

/* All prefixes, and single damaged bytes: no crash; prefixes never decode. */
static void test_hostile(const char *what, const void *bytes, size_t n)
{
    uint8_t *copy = malloc(n);
    bool refused = true;
    Image im;
    for (size_t i = 0; i + 2 < n; i += n > 2000 ? 7 : 1) {
        uint8_t *prefix = malloc(i ? i : 1); /* of its exact size, so that a sanitizer sees a read past its end */
        memcpy(prefix, bytes, i);
        refused = refused && image_decode(prefix, i, &im) < 0;
        free(prefix);
    }
    ok(refused, "%s: no prefix decodes", what);
    int decoded = 0;
    for (size_t i = 0; i < n; i += n > 2000 ? 5 : 1) {
        ImageInfo info;
        memcpy(copy, bytes, n);
        copy[i] ^= (uint8_t)(1u << i % 8 | 0x80);
        image_probe(copy, n, &info);
        if (!image_decode(copy, n, &im)) {
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
    ok(!image_decode(bytes, n, &back) && !memcmp(back.rgb, im.rgb, 45 * 33 * 3), "a PNG comes back as it was");
    image_free(&back);
    test_hostile("PNG", bytes, n);
    free(bytes);
    ok(!image_encode_jpeg(&im, 90, &bytes, &n) && !image_probe(bytes, n, &info) && info.type == IMAGE_JPEG &&
           info.w == 45, "a JPEG tells its size");
    test_hostile("JPEG", bytes, n);

    uint8_t *whole = malloc(16 * 16 * 3), *fast = malloc(16 * 16 * 3), *outs[1] = { whole };
    ViewPlan p = { .w = 45, .h = 33, .size = 16, .filter = FILTER_BICUBIC, .flip = 1, .blur = 1.5f };
    RenderScratch *s = render_scratch_new();
    int rc = render_views(bytes, n, &p, 1, false, outs, s);
    outs[0] = fast;
    rc |= render_views(bytes, n, &p, 1, true, outs, s);
    int far = 0;
    for (int i = 0; i < 16 * 16 * 3; i++)
        far += abs(whole[i] - fast[i]) > 60;
    ok(!rc && far < 40, "a fast view resembles the exact one");
    ViewPlan vast = { .w = INT32_MAX, .h = INT32_MAX, .size = 4096, .filter = FILTER_BICUBIC };
    ok(render_views(bytes, n, &vast, 1, true, outs, s) < 0 && err_code() == ERR_DATA, "a vast plan is refused, fast too");
    ok(!image_eval_view(&im, 20, 16, whole) && !image_eval_view(&im, 0, 16, whole), "evaluation views");
    ok(image_eval_view(&im, 10, 16, whole) < 0, "a crop larger than the picture is refused");
    render_scratch_free(s);
    free(whole), free(fast), free(bytes);
    ok(image_decode("", 0, &back) < 0 && strstr(err_text(), "empty"), "an empty file is called empty");
    ok(image_decode("hello, world", 12, &back) < 0 && strstr(err_text(), "neither"), "text is no picture");
    image_free(&im);
}

int main(void)
{
    test_variants();
    test_plans();
    test_codecs();
    return tap_done();
}
