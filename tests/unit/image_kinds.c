/* Kinds of JPEG and PNG beside plain RGB: what they decode to, and that damage to them does no harm. */
#include "../tap.h"

#include "image/codec.h"
#include "image/render.h"
#include "util/err.h"

#include <stdio.h> /* jpeglib.h wants it before itself */

#include <jpeglib.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint8_t *p;
    size_t n;
} Bytes;

enum { SIDE = 21 };

/* ---- JPEG */

enum { PROGRESSIVE = 1, RESTARTS = 2, APART = 4, ARITHMETIC = 8 }; /* APART: a scan for each component */

static Bytes jpeg_of(J_COLOR_SPACE space, int components, unsigned how, const uint8_t *rows)
{
    static const jpeg_scan_info apart[] = {
        {1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr e;
    unsigned char *p = NULL;
    unsigned long n = 0;
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &p, &n);
    c.image_width = c.image_height = SIDE;
    c.input_components = components;
    c.in_color_space = space;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 100, TRUE);
    if (how & PROGRESSIVE)
        jpeg_simple_progression(&c);
    if (how & APART) {
        c.scan_info = apart;
        c.num_scans = components;
    }
    c.restart_interval = how & RESTARTS ? 1 : 0;
    c.arith_code = !!(how & ARITHMETIC);
    jpeg_start_compress(&c, TRUE);
    for (int y = 0; y < SIDE; y++) {
        JSAMPROW row = (JSAMPROW)(rows + y * SIDE * components);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return (Bytes){ p, n };
}

/* ---- PNG */

static void append(png_structp png, png_bytep from, size_t n)
{
    Bytes *b = png_get_io_ptr(png);
    b->p = realloc(b->p, b->n + n);
    memcpy(b->p + b->n, from, n);
    b->n += n;
}

static void no_flush(png_structp png)
{
    (void)png;
}

/* Rows of (bits * channels * w) bits; the palette is gray backwards. */
static Bytes png_sized(int type, int bits, bool interlaced, int w, int h, const uint8_t *rows)
{
    Bytes b = { 0 };
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png)))
        abort();
    png_set_write_fn(png, &b, append, no_flush);
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, bits, type,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_color palette[256];
        png_byte alpha[256];
        for (int i = 0; i < 1 << bits; i++) {
            palette[i] = (png_color){ (png_byte)(255 - i), (png_byte)(255 - i), (png_byte)(255 - i) };
            alpha[i] = (png_byte)i;
        }
        png_set_PLTE(png, info, palette, 1 << bits);
        png_set_tRNS(png, info, alpha, 1 << bits, NULL);
    }
    png_write_info(png, info);
    int passes = png_set_interlace_handling(png);
    size_t stride = png_get_rowbytes(png, info);
    for (; passes > 0; passes--)
        for (int y = 0; y < h; y++)
            png_write_row(png, rows + (size_t)y * stride);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return b;
}

static Bytes png_of(int type, int bits, bool interlaced, const uint8_t *rows)
{
    return png_sized(type, bits, interlaced, SIDE, SIDE, rows);
}

static bool same(const Image *a, const Image *b)
{
    return a->w == b->w && a->h == b->h && !memcmp(a->rgb, b->rgb, (size_t)a->w * (size_t)a->h * 3);
}

/* All pixels within `slack` of (r, g, b). */
static bool all_are(Bytes b, int red, int green, int blue, int slack)
{
    Image im;
    if (image_decode(b.p, b.n, 0, &im)) {
        diag("%s", err_text());
        return false;
    }
    const int want[3] = { red, green, blue };
    bool good = im.w == SIDE && im.h == SIDE;
    for (int i = 0; good && i < SIDE * SIDE * 3; i++)
        if (abs(im.rgb[i] - want[i % 3]) > slack) {
            diag("pixel %d, colour %d: %d, not %d", i / 3, i % 3, im.rgb[i], want[i % 3]);
            good = false;
        }
    image_free(&im);
    return good;
}

/* Whether its upper rows can be rendered. */
static bool renders(const uint8_t *bytes, size_t n)
{
    uint8_t view[SIDE * SIDE * 3], *outs[] = { view };
    ViewPlan top = { .w = SIDE, .h = 3, .size = SIDE };
    RenderScratch *s = render_scratch_new();
    bool good = s && !render_views(bytes, n, 0, &top, 1, false, outs, s);
    render_scratch_free(s);
    return good;
}

/* The first n bytes, as a block of their exact size for the sanitizer: 1 where they give the whole picture, 0
 * where they are refused as truncated, -1 for anything else. */
static int first_bytes(Bytes b, size_t n, const Image *whole)
{
    uint8_t *prefix = malloc(n ? n : 1);
    Image im;
    int rc = -1;
    memcpy(prefix, b.p, n);
    if (image_decode(prefix, n, 0, &im)) {
        rc = err_code() == ERR_DATA && (n < 9 || strstr(err_text(), "truncated at byte")) ? 0 : -1;
    } else {
        rc = same(&im, whole) ? 1 : -1;
        image_free(&im);
    }
    if (renders(prefix, n) != (rc == 1))
        rc = -1;
    if (rc < 0)
        diag("%zu of %zu bytes: %s", n, b.n, err_text());
    free(prefix);
    return rc;
}

/* Prefixes decode where no pixel is missing, and those that do are the longer ones; changed bytes must not
 * crash. Returns the bytes that are enough. */
static size_t damage(const char *what, Bytes b)
{
    Image im, whole;
    size_t enough = 0, strange = 0;
    ok(!image_decode(b.p, b.n, 0, &whole), "%s: decodes", what);
    for (size_t i = 0; i <= b.n; i++) {
        int got = first_bytes(b, i, &whole);
        strange += got < 0 || (got == 0 && enough);
        enough = enough || got <= 0 ? enough : i;
    }
    ok(!strange && enough && enough < b.n,
       "%s: %zu of %zu bytes hold all pixels, and with fewer it is truncated", what, enough, b.n);
    image_free(&whole);
    uint8_t *copy = malloc(b.n);
    for (size_t i = 0; i < b.n; i++)
        for (int bit = 0; bit < 8; bit += 3) {
            memcpy(copy, b.p, b.n);
            copy[i] ^= (uint8_t)(0x81u >> bit | 1u << bit);
            if (!image_decode(copy, b.n, 0, &im))
                image_free(&im);
        }
    free(copy);
    ok(true, "%s: changed bytes do no harm", what);
    return enough;
}

static void test_inks(void)
{
    static uint8_t rows[SIDE * SIDE * 4];
    const uint8_t stored[4] = { 200, 100, 50, 128 }; /* 255 - ink, as Adobe has it */
    for (int i = 0; i < SIDE * SIDE * 4; i++)
        rows[i] = stored[i % 4];
    Bytes b = jpeg_of(JCS_CMYK, 4, 0, rows);
    /* 128 - (255 - stored) * 128 / 255 */
    ok(all_are(b, 100, 50, 25, 1), "a CMYK JPEG is taken as inverted inks");
    damage("CMYK JPEG", b);
    free(b.p);
}

/* Data that end early, and data with more behind them. */
static void test_ends(void)
{
    static uint8_t rows[SIDE * SIDE * 3];
    static const struct {
        const char *name;
        unsigned how;
    } kinds[] = { { "JPEG", 0 }, { "JPEG with restarts", RESTARTS }, { "JPEG, a scan a colour", APART },
                  { "progressive JPEG with restarts", PROGRESSIVE | RESTARTS } };
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        rows[i] = (uint8_t)(i * i >> 2);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        Bytes b = jpeg_of(JCS_RGB, 3, kinds[i].how, rows);
        ok(damage(kinds[i].name, b) == b.n - 2, "%s: nothing is missing without the end marker",
           kinds[i].name);
        free(b.p);
    }
    Bytes b = jpeg_of(JCS_RGB, 3, ARITHMETIC, rows);
    Image whole, im;
    ok(!image_decode(b.p, b.n, 0, &whole) && !first_bytes(b, b.n - 2, &whole),
       "an arithmetic JPEG needs its end marker: its decoder does not tell what is missing");
    b.p = realloc(b.p, b.n + 100);
    memset(b.p + b.n, 0x55, 100);
    ok(!image_decode(b.p, b.n + 100, 0, &im) && same(&im, &whole),
       "bytes behind a JPEG's end are passed over");
    image_free(&im);
    image_free(&whole);
    free(b.p);

    for (int interlaced = 0; interlaced < 2; interlaced++) {
        enum {
            END = 12,
            SUMS = 8,
            CODE = 2
        }; /* end chunk; checksums of the data and the chunk; end of the last block */
        b = png_of(PNG_COLOR_TYPE_RGB, 8, interlaced, rows);
        size_t enough = damage(interlaced ? "interlaced PNG" : "PNG", b);
        ok(enough + END + SUMS <= b.n && enough + END + SUMS + CODE >= b.n,
           "a PNG lacks no pixel without end chunk and checksums");
        ok(!image_decode(b.p, b.n, 0, &whole), "whole");
        memset(b.p + b.n - END, 0x55, END);
        ok(!image_decode(b.p, b.n, 0, &im) && same(&im, &whole),
           "bytes in place of the end chunk are passed over");
        image_free(&im);
        image_free(&whole);
        b.p[b.n - END - 1] ^= 1;
        ok(image_decode(b.p, b.n, 0, &im) < 0 && strstr(err_text(), "CRC"), "a wrong checksum is not: %s",
           err_text());
        free(b.p);
    }
}

static void test_scans(void)
{
    static uint8_t rows[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        rows[i] = (uint8_t)(i * i);
    Bytes b = jpeg_of(JCS_RGB, 3, PROGRESSIVE, rows);
    damage("progressive JPEG", b);

    /* the last scan over and over */
    size_t last = 0;
    for (size_t i = 0; i + 1 < b.n; i++)
        if (b.p[i] == 0xff && b.p[i + 1] == 0xda)
            last = i;
    size_t scan = b.n - 2 - last, times = IMAGE_MAX_SCANS + 10;
    uint8_t *bomb = malloc(last + scan * times + 2);
    memcpy(bomb, b.p, last);
    for (size_t i = 0; i < times; i++)
        memcpy(bomb + last + i * scan, b.p + last, scan);
    memcpy(bomb + last + times * scan, "\xff\xd9", 2);
    Image im;
    ok(image_decode(bomb, last + times * scan + 2, 0, &im) < 0 && strstr(err_text(), "scans"),
       "a JPEG of too many scans is refused: %s", err_text());
    free(bomb);

    /* a size beyond the limit in the frame header, whose marker is FF C2: height and width at 5 and 7 */
    for (size_t i = 0; i + 8 < b.n; i++)
        if (b.p[i] == 0xff && b.p[i + 1] == 0xc2) {
            memset(b.p + i + 5, 0xfe, 4);
            break;
        }
    ImageInfo info;
    ok(image_decode(b.p, b.n, 0, &im) < 0 && strstr(err_text(), "pixels") && image_probe(b.p, b.n, &info) < 0,
       "a JPEG of too many pixels is refused: %s", err_text());
    free(b.p);
}

static void test_png_kinds(void)
{
    static uint8_t rows[SIDE * SIDE * 8];
    for (int interlaced = 0; interlaced < 2; interlaced++) {
        const char *how = interlaced ? "interlaced" : "plain";
        for (int bits = 1; bits <= 8; bits *= 2) {
            memset(rows, 0xff, sizeof rows);
            Bytes b = png_of(PNG_COLOR_TYPE_GRAY, bits, interlaced, rows);
            ok(all_are(b, 255, 255, 255, 0), "PNG, gray of %d bits, %s", bits, how);
            free(b.p);
            int v = 255 - ((1 << bits) - 1);
            b = png_of(PNG_COLOR_TYPE_PALETTE, bits, interlaced, rows);
            ok(all_are(b, v, v, v, 0), "PNG, palette of %d bits with alpha, %s", bits, how);
            if (bits == 4)
                damage("palette PNG", b);
            free(b.p);
        }
        for (int i = 0; i < SIDE * SIDE * 4; i++) { /* 16 bits: 0x1122, 0x3344, 0x5566, 0x7788 */
            rows[2 * i] = (uint8_t)(0x11 + 0x22 * (i % 4));
            rows[2 * i + 1] = (uint8_t)(0x22 + 0x22 * (i % 4));
        }
        Bytes b = png_of(PNG_COLOR_TYPE_RGB_ALPHA, 16, interlaced, rows);
        ok(all_are(b, 0x11, 0x33, 0x55, 0), "PNG, colour and alpha of 16 bits, %s", how);
        free(b.p);
        for (int i = 0; i < SIDE * SIDE; i++) {
            rows[2 * i] = 0;
            rows[2 * i + 1] = 77;
        }
        b = png_of(PNG_COLOR_TYPE_GRAY, 16, interlaced, rows);
        ok(all_are(b, 77, 77, 77, 0), "PNG, gray of 16 bits, small values, %s", how);
        damage("16-bit gray PNG", b);
        free(b.p);
        memset(rows, 0x40, sizeof rows);
        b = png_of(PNG_COLOR_TYPE_GRAY, 16, interlaced, rows);
        ok(all_are(b, 255, 255, 255, 0), "PNG, gray of 16 bits, large values are clipped, %s", how);
        free(b.p);
        b = png_of(PNG_COLOR_TYPE_GRAY_ALPHA, 8, interlaced, rows);
        ok(all_are(b, 0x40, 0x40, 0x40, 0), "PNG, gray with alpha, %s", how);
        free(b.p);
    }
}

/* ---- which side is up */

/* EXIF data: entries of 12 bytes, each as two 32-bit words and the value. */
typedef struct {
    uint32_t tag_type, count, value;
} Entry;

static void put_number(uint8_t *to, size_t *n, uint32_t value, int bytes, bool big)
{
    for (int i = 0; i < bytes; i++)
        to[(*n)++] = (uint8_t)(value >> 8 * (big ? bytes - 1 - i : i));
}

/* n entries, of which `entries` are announced, in a directory at `at`; returns the bytes of it all. */
static size_t exif_of(uint8_t *to, bool big, uint32_t at, uint16_t entries, const Entry *e, int n)
{
    size_t used = 4;
    memcpy(to, big ? "MM\0*" : "II*\0", 4);
    put_number(to, &used, at, 4, big);
    while (used < at)
        to[used++] = 0;
    put_number(to, &used, entries, 2, big);
    for (int i = 0; i < n; i++) {
        bool wide = (e[i].tag_type & 0xffff) == 4;
        put_number(to, &used, e[i].tag_type >> 16, 2, big);
        put_number(to, &used, e[i].tag_type & 0xffff, 2, big);
        put_number(to, &used, e[i].count, 4, big);
        put_number(to, &used, e[i].value, wide ? 4 : 2, big);
        put_number(to, &used, 0, wide ? 0 : 2, big);
    }
    return used;
}

static void test_exif(void)
{
    enum { SHORT = 0x01120003, LONG = 0x01120004, BYTE = 0x01120001, OTHER = 0x01000003 };
    static const struct {
        const char *name;
        uint32_t at;
        uint16_t entries;
        Entry e[2];
        int want;
    } cases[] = {
        { "a 16-bit number", 8, 1, { { SHORT, 1, 6 } }, 6 },
        { "a 32-bit number", 8, 1, { { LONG, 1, 8 } }, 8 },
        { "behind another entry", 8, 2, { { OTHER, 1, 3 }, { SHORT, 1, 5 } }, 5 },
        { "the first of two", 8, 2, { { SHORT, 1, 2 }, { SHORT, 1, 7 } }, 2 },
        { "the directory further on", 40, 1, { { SHORT, 1, 4 } }, 4 },
        { "more entries than there are", 8, 65535, { { OTHER, 1, 3 }, { SHORT, 1, 3 } }, 3 },
        { "0", 8, 1, { { SHORT, 1, 0 } }, 1 },
        { "9", 8, 1, { { SHORT, 1, 9 } }, 1 },
        { "65535", 8, 1, { { SHORT, 1, 65535 } }, 1 },
        { "6 and 65536 more", 8, 1, { { LONG, 1, 65542 } }, 1 },
        { "another type", 8, 1, { { BYTE, 1, 6 } }, 1 },
        { "two values", 8, 1, { { SHORT, 2, 6 } }, 1 },
        { "a directory that ends before it", 8, 1, { { OTHER, 1, 3 }, { SHORT, 1, 6 } }, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int big = 0; big < 2; big++) {
            uint8_t data[128];
            size_t n =
                exif_of(data, big, cases[i].at, cases[i].entries, cases[i].e, cases[i].e[1].tag_type ? 2 : 1);
            int got = exif_orientation(data, n);
            ok(got == cases[i].want, "orientation: %s, %s endian: %d", cases[i].name, big ? "big" : "little",
               got);
            bool bounded = true;
            for (size_t k = 0; k <= n; k++) { /* of their exact size, for the sanitizer */
                uint8_t *part = malloc(k ? k : 1);
                memcpy(part, data, k);
                got = exif_orientation(part, k);
                bounded = bounded && (got == 1 || got == cases[i].want);
                free(part);
            }
            ok(bounded, "and cut off anywhere it is that or none");
        }
    uint8_t data[128];
    exif_of(data, true, 8, 1, &(Entry){ SHORT, 1, 6 }, 1);
    for (uint32_t at = 0xfffffff0; at; at++) {
        for (int b = 0; b < 4; b++)
            data[4 + b] = (uint8_t)(at >> (24 - 8 * b));
        if (exif_orientation(data, 22) != 1)
            ok(false, "a directory at %u", at);
    }
    ok(exif_orientation((const uint8_t *)"Exif\0\0", 6) == 1 &&
           exif_orientation((const uint8_t *)"II*\0\10\0\0\0", 8) == 1,
       "a head alone says nothing");
}

static void test_readings(void)
{
    static uint8_t rows[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        rows[i] = (uint8_t)(i * 7);
    Bytes b = png_sized(PNG_COLOR_TYPE_RGB, 8, false, SIDE, 5, rows);
    Image im = { 0 };
    int w, h;
    static const unsigned unknown[] = { 9, 15, IMAGE_SCALED | 9, 32, 38, 0xffff };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        ok(image_decode(b.p, b.n, unknown[i], &im) < 0 && err_code() == ERR_DATA &&
               strstr(err_text(), "newer"),
           "a reading that is not known: %s", err_text());
    ok(!image_decode(b.p, b.n, 6, &im) && im.w == 5 && im.h == SIDE,
       "a picture is turned as it is told to be");
    image_free(&im);
    image_read_size(&(ImageInfo){ .w = 3, .h = 2 }, 5, &w, &h);
    ok(w == 2 && h == 3, "its sides change places");
    ok(image_reading(&(ImageInfo){ .orientation = 6, .bits = 16 }, false, false) == 0 &&
           image_reading(&(ImageInfo){ .orientation = 6, .bits = 16 }, true, true) == (6 | IMAGE_SCALED) &&
           image_reading(&(ImageInfo){ .orientation = 1, .bits = 8 }, true, true) == 0,
       "a reading is what the rule means for an image");
    free(b.p);

    /* As one part of it that is asked for, at less than its size. */
    enum { SMALL = 5, WIDE = 48, HIGH = 24 };
    static uint8_t pixels[WIDE * HIGH * 3];
    uint8_t exact[SMALL * SMALL * 3], fast[SMALL * SMALL * 3], *outs[1] = { exact };
    RenderScratch *s = render_scratch_new();
    void *jpeg = NULL;
    for (int i = 0; i < WIDE * HIGH * 3; i++)
        pixels[i] = (uint8_t)(i / 3 % WIDE * 3 + i / 3 / WIDE * 2 + 20 * (i % 3));
    ok(!image_encode_jpeg(&(Image){.w = WIDE, .h = HIGH, .rgb = pixels}, 95, &jpeg, &b.n),
       "a picture that is no square");
    b.p = jpeg;
    for (unsigned turn = 2; turn <= 8; turn++) {
        int far = 0;
        image_read_size(&(ImageInfo){ .w = WIDE, .h = HIGH }, turn, &w, &h);
        ViewPlan p = { .x = 8, .w = w - 8, .h = h, .size = SMALL };
        outs[0] = exact;
        int rc = render_views(b.p, b.n, turn, &p, 1, false, outs, s);
        outs[0] = fast;
        rc |= render_views(b.p, b.n, turn, &p, 1, true, outs, s);
        for (int i = 0; i < SMALL * SMALL * 3; i++)
            far = abs(exact[i] - fast[i]) > far ? abs(exact[i] - fast[i]) : far;
        ok(!rc && far < 10, "turned by %u, a fast view resembles the exact one: %d apart", turn, far);
    }
    render_scratch_free(s);
    free(b.p);
}

/* Passes of small interlaced pictures may be empty. */
static void test_small_pngs(void)
{
    uint8_t rows[10 * 10 * 3];
    bool good = true;
    for (size_t i = 0; i < sizeof rows; i++)
        rows[i] = (uint8_t)(i * 37);
    for (int w = 1; w <= 10; w++)
        for (int h = 1; h <= 10; h++) {
            Bytes b = png_sized(PNG_COLOR_TYPE_RGB, 8, true, w, h, rows);
            Image im = { 0 };
            good = good && !image_decode(b.p, b.n, 0, &im) && im.w == w && im.h == h &&
                   !memcmp(im.rgb, rows, (size_t)(w * h * 3));
            image_free(&im);
            good = good && image_decode(b.p, b.n - 12 - 8 - 3, 0, &im) < 0;
            if (!good)
                diag("%d x %d", w, h);
            free(b.p);
        }
    ok(good, "interlaced PNGs of 1 to 10 pixels a side");
}

static void test_encoding_limits(void)
{
    Image im = { 70000, 1, calloc(70000, 3) };
    void *bytes;
    size_t n;
    ok(image_encode_jpeg(&im, 90, &bytes, &n) < 0 && strstr(err_text(), "70000"), "a JPEG can't be 70000 wide: %s",
       err_text());
    ok(!image_encode_png(&im, &bytes, &n), "a PNG can");
    free(bytes);
    image_free(&im);
}

int main(void)
{
    test_encoding_limits();
    test_inks();
    test_ends();
    test_scans();
    test_png_kinds();
    test_small_pngs();
    test_exif();
    test_readings();
    return tap_done();
}
