/* Decoding and rendering on one core: images/s of the whole stage, and the time of each part and operation
 * beside its floor.
 *
 *   build/bench/augment DIR [GLOBAL_SIZE LOCALS LOCAL_SIZE]     every JPEG or PNG below DIR, at most 1000
 *   build/bench/augment --draw DIR N SIZE                       put N drawn JPEGs of SIZE pixels a side there
 *
 * Recipe of DINO (2 x 224 + 10 x 96 by default). All times are processor time of the one thread, the best of
 * several passes: what else the machine does matters little. The floor of an operation is the time to copy as
 * many bytes within the first cache as it reads and writes; resampling reads an input once for each output
 * that it counts for. That of decoding is libjpeg's time for the whole picture. Prints a table, then one JSON
 * line. */
#include "image/render.h"
#include "image/scratch.h"
#include "image/synth.h"
#include "util/err.h"
#include "util/log.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 1000, PASSES = 4 };

static struct {
    void *bytes;
    size_t n;
    int w, h;
} files[MOST];
static int count;

static int add_file(const char *path, const struct stat *st, int type)
{
    if (type != FTW_F || count == MOST || st->st_size == 0)
        return 0;
    FILE *f = fopen(path, "rb");
    void *bytes = malloc((size_t)st->st_size);
    ImageInfo info;
    if (f && bytes && fread(bytes, 1, (size_t)st->st_size, f) == (size_t)st->st_size &&
        !image_probe(bytes, (size_t)st->st_size, &info)) {
        files[count].bytes = bytes;
        files[count].n = (size_t)st->st_size;
        files[count].w = info.w;
        files[count++].h = info.h;
    } else {
        free(bytes);
    }
    if (f)
        fclose(f);
    return 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a table of kernels that measure themselves */

enum { PACK, TAPS, ACROSS, DOWN, BRIGHT, SATURATE, HUE, GRAY, BLUR, SOLARIZE, JOIN, OPS };
static const char *const op_names[OPS] = {"pack into tiles",
                                          "taps",
                                          "resample along x",
                                          "resample along y",
                                          "brightness, contrast",
                                          "saturation",
                                          "hue",
                                          "gray, its mean",
                                          "blur",
                                          "solarize",
                                          "interleave"};
static struct {
    double seconds, bytes;
} ops[OPS];
static const PixelKernels *real;
static double clock_cost;

static void note(int op, double start, double bytes)
{
    ops[op].seconds += now() - start - clock_cost;
    ops[op].bytes += bytes;
}

static void timed_pack(const uint8_t *rgb, int64_t stride, int rows, int w, uint8_t *tiles, int64_t plane)
{
    double start = now();
    real->pack(rgb, stride, rows, w, tiles, plane);
    note(PACK, start, (double)rows * w * 3 + (double)plane * 3);
}

static void timed_taps(const Axis *a, Taps *t, double *work)
{
    double start = now();
    real->taps(a, t, work);
    note(TAPS, start, (double)t->outputs * t->most * 16);
}

static void timed_fold(int32_t *k, int64_t groups)
{
    double start = now();
    real->fold(k, groups);
    note(TAPS, start, (double)groups * 32);
}

static double groups_of(const Taps *t)
{
    double sum = 0;
    for (int i = 0; i < t->outputs; i++)
        sum += t->n[i];
    return sum;
}

static void timed_x(const uint8_t *tiles, int64_t band, int bands, const Taps *t, uint8_t *strips,
                    int64_t strip)
{
    double start = now();
    real->resample_x(tiles, band, bands, t, strips, strip);
    note(ACROSS, start, bands * (groups_of(t) * TILE_BYTES + (double)t->outputs * TILE_ROWS));
}

static void timed_y(const uint8_t *strips, int64_t strip, const Taps *t, int n, uint8_t *plane)
{
    double start = now();
    real->resample_y(strips, strip, t, n, plane);
    note(DOWN, start, n * (groups_of(t) * STRIP_ROWS + t->outputs));
}

static void timed_join(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *rgb)
{
    double start = now();
    real->join(r, g, b, n, rgb);
    note(JOIN, start, 6.0 * n);
}

static int64_t timed_gray(const uint8_t *r, const uint8_t *g, const uint8_t *b, int n, uint8_t *y)
{
    double start = now();
    int64_t sum = real->gray(r, g, b, n, y);
    note(GRAY, start, 4.0 * n);
    return sum;
}

static void timed_blend(uint8_t d, float f, int n, uint8_t *x)
{
    double start = now();
    real->blend(d, f, n, x);
    note(BRIGHT, start, 2.0 * n);
}

static void timed_saturate(uint8_t *r, uint8_t *g, uint8_t *b, int n, float f)
{
    double start = now();
    real->saturate(r, g, b, n, f);
    note(SATURATE, start, 6.0 * n);
}

static void timed_hue(uint8_t *r, uint8_t *g, uint8_t *b, int n, int shift)
{
    double start = now();
    real->hue(r, g, b, n, shift);
    note(HUE, start, 6.0 * n);
}

static void timed_solarize(uint8_t *x, int n)
{
    double start = now();
    real->solarize(x, n);
    note(SOLARIZE, start, 2.0 * n);
}

static void timed_blur(uint8_t *plane, int w, int h, int ri, uint32_t ww, uint32_t fw, uint8_t *work)
{
    double start = now();
    real->blur(plane, w, h, ri, ww, fw, work);
    note(BLUR, start, 12.0 * w * h); /* six passes */
}

static const PixelKernels timed = {
    .pack = timed_pack,
    .taps = timed_taps,
    .fold = timed_fold,
    .resample_x = timed_x,
    .resample_y = timed_y,
    .join = timed_join,
    .gray = timed_gray,
    .blend = timed_blend,
    .saturate = timed_saturate,
    .hue = timed_hue,
    .solarize = timed_solarize,
    .blur = timed_blur,
};

/* Seconds to copy a byte, counted when read and when written. */
static double copy_cost(void)
{
    enum { N = 12 << 10, TIMES = 2000 };
    static uint8_t a[N], b[N];
    double best = 1;
    for (int pass = 0; pass < 20; pass++) {
        double start = now();
        for (int i = 0; i < TIMES; i++) {
            memcpy(a, b, N);
            __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
        }
        double t = (now() - start) / (2.0 * N * TIMES);
        best = t < best ? t : best;
    }
    return best;
}

/* ---- the stage */

typedef enum { WHOLE, DECODE, LIBJPEG } Part;

/* Seconds for all images, the best of the passes. */
static double run(const Recipe *r, Part part, int passes)
{
    RenderScratch *s = render_scratch_new();
    int views = r->globals + r->locals;
    uint8_t *outs[PLAN_MAX_VIEWS];
    ViewPlan plans[PLAN_MAX_VIEWS];
    Image whole = { 0 };
    size_t capacity = 0;
    for (int v = 0; v < views; v++)
        outs[v] = malloc((size_t)PLAN_MAX_SIZE * PLAN_MAX_SIZE / 16);
    double best = 1e30;
    for (int pass = 0; pass < passes; pass++) {
        double start = now();
        for (int i = 0; i < count; i++) {
            int rc;
            plan_views(r, 1, (uint64_t)pass, (uint64_t)i, files[i].w, files[i].h, plans);
            if (part == LIBJPEG)
                rc = image_decode_into(files[i].bytes, files[i].n, 0, 8, &whole, &capacity);
            else
                rc = render_views(files[i].bytes, files[i].n, 0, plans, part == DECODE ? 0 : views, false,
                                  outs, s);
            if (rc)
                die();
        }
        double t = now() - start;
        best = t < best ? t : best;
    }
    for (int v = 0; v < views; v++)
        free(outs[v]);
    image_free(&whole);
    render_scratch_free(s);
    return best;
}

static void line(const char *name, double seconds, double bytes, double floor)
{
    double n = count;
    printf("%-24s %9.4f ms", name, 1e3 * seconds / n);
    if (bytes > 0)
        printf(" %9.3f MB %7.1f GB/s", 1e-6 * bytes / n, 1e-9 * bytes / seconds);
    else
        printf(" %12s %12s", "", "");
    printf("   floor %8.4f ms  x %.1f\n", 1e3 * floor / n, seconds / floor);
}

static int draw(const char *dir, int n, int size)
{
    Synth *synth = synth_new(0, 10, size);
    Image im = { size, size, malloc((size_t)size * (size_t)size * 3) };
    for (int i = 0; i < n; i++) {
        char path[4096];
        void *bytes;
        size_t length;
        snprintf(path, sizeof path, "%s/%06d.jpg", dir, i);
        if (!synth || !im.rgb || synth_draw(synth, 0, (uint64_t)i, im.rgb) ||
            image_encode_jpeg(&im, 90, &bytes, &length))
            die();
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(bytes, 1, length, f) != length || fclose(f))
            die_with("%s: can't be written", path);
        free(bytes);
    }
    image_free(&im);
    synth_free(synth);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "--draw"))
        return draw(argv[2], atoi(argv[3]), atoi(argv[4]));
    if (argc < 2)
        die_with("usage: augment DIR [GLOBAL_SIZE LOCALS LOCAL_SIZE] | --draw DIR N SIZE");
    ftw(argv[1], add_file, 32);
    if (!count)
        die_with("%s: no JPEG or PNG below it", argv[1]);
    Recipe r = *recipe_find("dino");
    r.global_size = argc > 2 ? atoi(argv[2]) : 224;
    r.locals = argc > 3 ? atoi(argv[3]) : 10;
    r.local_size = argc > 4 ? atoi(argv[4]) : 96;
    if (recipe_check(&r) || r.global_size > 1024 || r.local_size > 1024)
        die();
    double load[1] = { 0 };
    getloadavg(load, 1);
    printf("%d images, 2 x %d + %d x %d, one core, %s, load %.1f\n", count, r.global_size, r.locals,
           r.local_size, isa_name(isa_best()), load[0]);

    double libjpeg = run(&r, LIBJPEG, PASSES), decode = run(&r, DECODE, PASSES),
           whole = run(&r, WHOLE, PASSES + 1);
    for (int again = 0; again < 2; again++) { /* the three near in time, the best of each */
        double t[3] = { run(&r, LIBJPEG, 2), run(&r, DECODE, 2), run(&r, WHOLE, 2) };
        libjpeg = t[0] < libjpeg ? t[0] : libjpeg;
        decode = t[1] < decode ? t[1] : decode;
        whole = t[2] < whole ? t[2] : whole;
    }
    double encoded = 0, pixels_of = 0, cost = copy_cost();
    for (int i = 0; i < count; i++) {
        encoded += (double)files[i].n;
        pixels_of += 3.0 * files[i].w * files[i].h;
    }

    /* once more, with the clock in every operation */
    clock_cost = 1;
    for (int batch = 0; batch < 50; batch++) {
        double start = now(), each;
        for (int i = 0; i < 499; i++)
            now();
        each = (now() - start) / 500;
        clock_cost = each < clock_cost ? each : clock_cost;
    }
    real = pixels();
    pixels_use(&timed);
    run(&r, WHOLE, PASSES);
    pixels_use(NULL);

    line("whole stage", whole, 0, libjpeg);
    line("decode into tiles", decode, encoded + pixels_of, libjpeg);
    line("libjpeg alone", libjpeg, encoded + pixels_of, libjpeg);
    for (int op = 0; op < OPS; op++)
        if (ops[op].bytes > 0)
            line(op_names[op], ops[op].seconds / PASSES, ops[op].bytes / PASSES,
                 ops[op].bytes / PASSES * cost);
    printf("{\"bench\":\"augment\",\"views\":\"2x%d+%dx%d\",\"images\":%d,\"images_per_s\":%.1f,\"views_per_"
           "s\":%.1f,"
           "\"decode_images_per_s\":%.1f,\"isa\":\"%s\",\"load\":%.1f}\n",
           r.global_size, r.locals, r.local_size, count, count / whole, count * (2 + r.locals) / whole,
           count / libjpeg, isa_name(isa_best()), load[0]);
    return 0;
}
