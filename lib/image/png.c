#include "image/codec.h"

#include "util/err.h"

#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where libpng reads and writes. */
typedef struct {
    const uint8_t *bytes;
    size_t n, at;
    uint8_t *out;
    size_t capacity;
    Image *im; /* to be decoded to, and its capacity */
    size_t *room;
    bool began, end;       /* the head was read; so was the end chunk */
    bool scale;            /* 16 bits to 8 */
    bool interlaced, clip; /* clip: rows are gray of 16 bits */
    bool truncated, no_memory, refused;
    char text[128];
} PngState;

/* A lack of memory is no fault of the image. */
static void *allocate(png_structp png, png_alloc_size_t n)
{
    void *p = malloc(n);
    if (!p)
        ((PngState *)png_get_mem_ptr(png))->no_memory = true;
    return p;
}

static void release(png_structp png, void *p)
{
    (void)png;
    free(p);
}

static void on_error(png_structp png, png_const_charp text)
{
    PngState *s = png_get_error_ptr(png);
    snprintf(s->text, sizeof s->text, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void read_bytes(png_structp png, png_bytep to, size_t size)
{
    PngState *s = png_get_io_ptr(png);
    if (size > s->n - s->at) {
        s->truncated = true;
        png_error(png, "truncated");
    }
    memcpy(to, s->bytes + s->at, size);
    s->at += size;
}

static int png_fail(const PngState *s)
{
    if (s->truncated)
        return err_set(ERR_DATA, "PNG truncated at byte %zu", s->n);
    return err_set(s->no_memory ? ERR_MEMORY : ERR_DATA, "PNG: %s",
                   *s->text ? s->text : "damaged: pixels are missing");
}

static png_structp reader_new(PngState *s, png_infop *info)
{
    png_structp png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, s, on_error, on_warning, s, allocate, release);
    *info = png ? png_create_info_struct(png) : NULL;
    if (!*info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return NULL;
    }
    if (setjmp(png_jmpbuf(png))) { /* to keep a list of chunks takes memory, too */
        png_destroy_read_struct(&png, info, NULL);
        return NULL;
    }
    png_set_user_limits(png, 1 << 20, 1 << 20);
    png_set_chunk_malloc_max(png, 16 << 20);
    /* What is no pixel is passed over unread: compressed texts and profiles may unfold to gigabytes. */
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    return png;
}

int png_probe(const uint8_t *bytes, size_t n, ImageInfo *info)
{
    PngState s = { .bytes = bytes, .n = n };
    png_infop head;
    png_structp png = reader_new(&s, &head);
    if (!png)
        return err_set(ERR_MEMORY, "PNG: out of memory");
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &head, NULL);
        return png_fail(&s);
    }
    png_set_read_fn(png, &s, read_bytes);
    png_read_info(png, head);
    *info = (ImageInfo){ .type = IMAGE_PNG, .w = (int)png_get_image_width(png, head),
                         .h = (int)png_get_image_height(png, head), .bits = png_get_bit_depth(png, head),
                         .alpha = png_get_color_type(png, head) & PNG_COLOR_MASK_ALPHA ||
                                  png_get_valid(png, head, PNG_INFO_tRNS) };
    png_destroy_read_struct(&png, &head, NULL);
    return 0;
}

/* A row of big-endian 16-bit grays, in place; from the right, since it grows. Pillow holds such a picture in its
 * mode I;16 and clips at 255 on the way to RGB, where every other 16-bit picture loses its low byte. */
static void deep_gray_to_rgb(uint8_t *row, int w)
{
    for (int x = w - 1; x >= 0; x--) {
        uint8_t v = row[2 * x] ? 255 : row[2 * x + 1];
        row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = v;
    }
}

/* ---- libpng tells of what it has as the bytes come in: so, at their end, it is known whether pixels are
 * missing. */

static void on_head(png_structp png, png_infop info)
{
    PngState *s = png_get_progressive_ptr(png);
    int w = (int)png_get_image_width(png, info), h = (int)png_get_image_height(png, info);
    bool deep = png_get_bit_depth(png, info) == 16;
    if (image_reserve(s->im, w, h, s->room)) {
        s->refused = true;
        png_error(png, "size");
    }
    s->clip = deep && !s->scale && png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY;
    if (!s->clip) {
        if (s->scale)
            png_set_scale_16(png); /* (v * 255 + 32767) / 65535 */
        else
            png_set_strip_16(png);
        png_set_palette_to_rgb(png);
        png_set_expand_gray_1_2_4_to_8(png);
        png_set_gray_to_rgb(png);
        png_set_strip_alpha(png);
    }
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != (size_t)w * (s->clip ? 2 : 3))
        png_error(png, "rows are not 8-bit RGB");
    s->interlaced = png_get_interlace_type(png, info) != PNG_INTERLACE_NONE;
    s->began = true;
}

static void on_row(png_structp png, png_bytep row, png_uint_32 y, int pass)
{
    PngState *s = png_get_progressive_ptr(png);
    (void)pass;
    if (row)
        png_progressive_combine_row(png, s->im->rgb + (size_t)y * (size_t)s->im->w * 3, row);
}

static void on_end(png_structp png, png_infop info)
{
    PngState *s = png_get_progressive_ptr(png);
    (void)info;
    s->end = true;
}

/* Whether every row has come. */
static bool has_pixels(png_structp png, const PngState *s)
{
    enum { PASSES = 7 };
    return s->began && (s->interlaced ? png_get_current_pass_number(png) == PASSES
                                      : png_get_current_row_number(png) == (png_uint_32)s->im->h);
}

/* Read all there is. What is wrong behind the pixels' data is of no concern. */
static bool read_all(png_structp png, png_infop info, PngState *s)
{
    enum { IDAT = 0x49444154 };
    if (setjmp(png_jmpbuf(png)))
        return has_pixels(png, s) && png_get_io_chunk_type(png) != IDAT;
    png_set_progressive_read_fn(png, s, on_head, on_row, on_end);
    png_process_data(png, info, (png_bytep)s->bytes, s->n);
    s->truncated = !s->end;
    return has_pixels(png, s);
}

int png_decode(const uint8_t *bytes, size_t n, bool scale, Image *im, size_t *capacity)
{
    PngState s = { .bytes = bytes, .n = n, .scale = scale, .im = im, .room = capacity };
    png_infop info;
    png_structp png = reader_new(&s, &info);
    if (!png)
        return err_set(ERR_MEMORY, "PNG: out of memory");
    bool good = read_all(png, info, &s);
    png_destroy_read_struct(&png, &info, NULL);
    if (!good)
        return s.refused ? -1 : png_fail(&s);
    for (int y = 0; s.clip && y < im->h; y++)
        deep_gray_to_rgb(im->rgb + (size_t)y * (size_t)im->w * 3, im->w);
    return 0;
}

static void write_bytes(png_structp png, png_bytep from, size_t size)
{
    PngState *s = png_get_io_ptr(png);
    if (size > s->capacity - s->n) {
        size_t more = s->capacity * 2 + size;
        uint8_t *p = realloc(s->out, more);
        if (!p)
            png_error(png, "out of memory");
        s->out = p;
        s->capacity = more;
    }
    memcpy(s->out + s->n, from, size);
    s->n += size;
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

int image_encode_png(const Image *im, void **bytes, size_t *n)
{
    PngState s = { .capacity = 0 };
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return err_set(ERR_MEMORY, "PNG: out of memory");
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        free(s.out);
        return err_set(ERR_DATA, "encoding a PNG of %d x %d: %s", im->w, im->h, s.text);
    }
    png_set_write_fn(png, &s, write_bytes, flush_bytes);
    png_set_IHDR(png, info, (png_uint_32)im->w, (png_uint_32)im->h, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < im->h; y++)
        png_write_row(png, im->rgb + (size_t)y * (size_t)im->w * 3);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    *bytes = s.out;
    *n = s.n;
    return 0;
}
