/* Kinds of JPEG and PNG beside plain RGB: what they decode to, and that damage to them does no harm. */
#include "../tap.h"

#include "image/image.h"
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

static Bytes jpeg_of(J_COLOR_SPACE space, int components, bool progressive, const uint8_t *rows)
{
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
    if (progressive)
        jpeg_simple_progression(&c);
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

/* Rows of (bits * channels * SIDE) bits; the palette is gray backwards. */
static Bytes png_of(int type, int bits, bool interlaced, const uint8_t *rows)
{
    Bytes b = { 0 };
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png)))
        abort();
    png_set_write_fn(png, &b, append, no_flush);
    png_set_IHDR(png, info, SIDE, SIDE, bits, type, interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
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
        for (int y = 0; y < SIDE; y++)
            png_write_row(png, rows + (size_t)y * stride);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return b;
}

/* All pixels within `slack` of (r, g, b). */
static bool all_are(Bytes b, int red, int green, int blue, int slack)
{
    Image im;
    if (image_decode(b.p, b.n, &im)) {
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

/* Prefixes must not decode, changed bytes must not crash; copies are of their exact size for the sanitizer. */
static void damage(const char *what, Bytes b)
{
    bool refused = true, named = true;
    Image im;
    for (size_t i = 0; i + 2 < b.n; i++) {
        uint8_t *prefix = malloc(i ? i : 1);
        memcpy(prefix, b.p, i);
        refused = refused && image_decode(prefix, i, &im) < 0;
        named = named && err_text()[0];
        free(prefix);
    }
    ok(refused && named, "%s: no prefix decodes, each for a reason", what);
    uint8_t *copy = malloc(b.n);
    for (size_t i = 0; i < b.n; i++)
        for (int bit = 0; bit < 8; bit += 3) {
            memcpy(copy, b.p, b.n);
            copy[i] ^= (uint8_t)(0x81u >> bit | 1u << bit);
            if (!image_decode(copy, b.n, &im))
                image_free(&im);
        }
    free(copy);
    ok(true, "%s: changed bytes do no harm", what);
}

static void test_inks(void)
{
    static uint8_t rows[SIDE * SIDE * 4];
    const uint8_t stored[4] = { 200, 100, 50, 128 }; /* 255 - ink, as Adobe has it */
    for (int i = 0; i < SIDE * SIDE * 4; i++)
        rows[i] = stored[i % 4];
    Bytes b = jpeg_of(JCS_CMYK, 4, false, rows);
    /* 128 - (255 - stored) * 128 / 255 */
    ok(all_are(b, 100, 50, 25, 1), "a CMYK JPEG is taken as inverted inks");
    damage("CMYK JPEG", b);
    free(b.p);
}

static void test_scans(void)
{
    static uint8_t rows[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        rows[i] = (uint8_t)(i * i);
    Bytes b = jpeg_of(JCS_RGB, 3, true, rows);
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
    ok(image_decode(bomb, last + times * scan + 2, &im) < 0 && strstr(err_text(), "scans"),
       "a JPEG of too many scans is refused: %s", err_text());
    free(bomb);

    /* a size beyond the limit in the frame header, whose marker is FF C2: height and width at 5 and 7 */
    for (size_t i = 0; i + 8 < b.n; i++)
        if (b.p[i] == 0xff && b.p[i + 1] == 0xc2) {
            memset(b.p + i + 5, 0xfe, 4);
            break;
        }
    ImageInfo info;
    ok(image_decode(b.p, b.n, &im) < 0 && strstr(err_text(), "pixels") && image_probe(b.p, b.n, &info) < 0,
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
    test_scans();
    test_png_kinds();
    return tap_done();
}
