#include "image/codec.h"
#include "image/scratch.h"

#include "util/err.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

/* libjpeg's error manager with a way back. */
typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf back;
    bool ended; /* the data did, before the end marker */
    bool lacks; /* bits of some block were not there */
    char text[JMSG_LENGTH_MAX];
} ErrorManager;

static void error_exit(j_common_ptr info)
{
    ErrorManager *e = (ErrorManager *)info->err;
    info->err->format_message(info, e->text);
    longjmp(e->back, 1);
}

/* Warnings are tolerated, as Pillow does, but for data that end while pixels are missing. libjpeg reads
 * ahead, so that the end alone tells nothing; it is the second of these warnings that says that bits were
 * wanted and not there. */
static void note_message(j_common_ptr info, int level)
{
    ErrorManager *e = (ErrorManager *)info->err;
    if (level >= 0)
        return;
    e->ended |= info->err->msg_code == JWRN_JPEG_EOF;
    e->lacks |= info->err->msg_code == JWRN_HIT_MARKER;
    if (e->ended && e->lacks)
        error_exit(info);
}

/* Scans that never came are met by no warning: go back with an error if the data ended before all of them. */
static void want_all_scans(j_decompress_ptr d)
{
    ErrorManager *e = (ErrorManager *)d->err;
    bool all = !d->arith_code; /* whose decoder takes zeros for what is missing, and keeps quiet */
    for (int c = 0; c < d->num_components; c++) {
        all = all && d->comp_info[c].quant_table; /* set by the first scan of the component */
        for (int k = 0; d->progressive_mode && k < DCTSIZE2; k++)
            all = all && d->coef_bits[c][k] == 0; /* known to the last bit */
    }
    if (e->ended && !all)
        error_exit((j_common_ptr)d);
}

static void count_scans(j_common_ptr info)
{
    j_decompress_ptr d = (j_decompress_ptr)info;
    int64_t pixels = (int64_t)d->image_width * d->image_height;
    if (d->input_scan_number > IMAGE_MAX_SCANS || d->input_scan_number * pixels > IMAGE_MAX_SCAN_PIXELS) {
        ErrorManager *e = (ErrorManager *)info->err;
        snprintf(e->text, sizeof e->text, "more than %d scans", d->input_scan_number - 1);
        longjmp(e->back, 1);
    }
}

static void error_manager_init(ErrorManager *e)
{
    jpeg_std_error(&e->base);
    e->base.error_exit = error_exit;
    e->base.emit_message = note_message;
    e->ended = e->lacks = false;
    e->text[0] = 0;
}

static int jpeg_fail(const ErrorManager *e, size_t n)
{
    if (e->base.msg_code == JERR_OUT_OF_MEMORY)
        return err_set(ERR_MEMORY, "JPEG: %s", e->text);
    if (e->ended)
        return err_set(ERR_DATA, "JPEG truncated at byte %zu", n);
    return err_set(ERR_DATA, "JPEG: %s", e->text);
}

int jpeg_probe(const uint8_t *bytes, size_t n, ImageInfo *info)
{
    struct jpeg_decompress_struct d;
    ErrorManager e;
    error_manager_init(&e);
    d.err = &e.base;
    if (setjmp(e.back)) {
        jpeg_destroy_decompress(&d);
        return jpeg_fail(&e, n);
    }
    jpeg_create_decompress(&d);
    jpeg_mem_src(&d, bytes, n);
    jpeg_read_header(&d, TRUE);
    *info = (ImageInfo){ .type = IMAGE_JPEG, .w = (int)d.image_width, .h = (int)d.image_height,
                         .bits = d.data_precision };
    jpeg_destroy_decompress(&d);
    return 0;
}

/* Four inks, inverted as Adobe writes them, to RGB in place of the row's first three quarters. */
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, int w)
{
    for (int x = 0; x < w; x++, cmyk += 4, rgb += 3) {
        int nk = cmyk[3]; /* 255 - k, where k = 255 - stored */
        for (int c = 0; c < 3; c++) {
            int t = (255 - cmyk[c]) * nk + 128;
            int v = nk - (((t >> 8) + t) >> 8);
            rgb[c] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

/* Read the header and choose the output. True if it comes as four inks. */
static bool begin(j_decompress_ptr d, const uint8_t *bytes, size_t n, int scale)
{
    jpeg_mem_src(d, bytes, n);
    jpeg_read_header(d, TRUE);
    bool cmyk = d->jpeg_color_space == JCS_CMYK || d->jpeg_color_space == JCS_YCCK;
    d->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    d->dct_method = JDCT_ISLOW;
    d->scale_num = (unsigned)scale;
    d->scale_denom = 8;
    jpeg_calc_output_dimensions(d);
    return cmyk;
}

int jpeg_decode(const uint8_t *bytes, size_t n, int scale, Image *im, size_t *capacity)
{
    struct jpeg_decompress_struct d;
    struct jpeg_progress_mgr progress = { .progress_monitor = count_scans };
    ErrorManager e;
    uint8_t *volatile inks = NULL;

    error_manager_init(&e);
    d.err = &e.base;
    if (setjmp(e.back)) {
        jpeg_destroy_decompress(&d);
        free(inks);
        return jpeg_fail(&e, n);
    }
    jpeg_create_decompress(&d);
    d.progress = &progress;
    bool cmyk = begin(&d, bytes, n, scale);
    if (image_reserve(im, (int)d.output_width, (int)d.output_height, capacity)) {
        jpeg_destroy_decompress(&d);
        return -1;
    }
    jpeg_start_decompress(&d);
    want_all_scans(&d); /* of several all were read by now; the only one is, when its rows are */
    if (cmyk && !(inks = malloc((size_t)im->w * 4))) {
        jpeg_destroy_decompress(&d);
        return err_set(ERR_MEMORY, "image of %d x %d pixels: out of memory", im->w, im->h);
    }
    while (d.output_scanline < d.output_height) {
        uint8_t *row = im->rgb + (size_t)d.output_scanline * (size_t)im->w * 3;
        JSAMPROW line = cmyk ? inks : row;
        jpeg_read_scanlines(&d, &line, 1);
        if (cmyk)
            cmyk_to_rgb(inks, row, im->w);
    }
    want_all_scans(&d);
    jpeg_destroy_decompress(&d);
    free(inks);
    return 0;
}

/* The next rows to `rows`, at most TILE_ROWS; returns how many. */
static int next_rows(j_decompress_ptr d, bool cmyk, uint8_t *rows, size_t stride)
{
    JSAMPROW lines[TILE_ROWS];
    int have = 0;
    for (int i = 0; i < TILE_ROWS; i++)
        lines[i] = rows + (size_t)(cmyk ? TILE_ROWS : i) * stride;
    while (have < TILE_ROWS && d->output_scanline < d->output_height) {
        int got = (int)jpeg_read_scanlines(d, lines + have, cmyk ? 1 : (JDIMENSION)(TILE_ROWS - have));
        if (cmyk)
            cmyk_to_rgb(lines[0], rows + (size_t)have * stride, (int)d->output_width);
        have += got;
    }
    return have;
}

int jpeg_decode_tiles(const uint8_t *bytes, size_t n, int scale, int64_t bottom, Tiles *t, Room *room, Room *rows)
{
    struct jpeg_decompress_struct d;
    struct jpeg_progress_mgr progress = { .progress_monitor = count_scans };
    ErrorManager e;

    error_manager_init(&e);
    d.err = &e.base;
    if (setjmp(e.back)) {
        jpeg_destroy_decompress(&d);
        return jpeg_fail(&e, n);
    }
    /* A new one each time: what a kept one still holds of earlier pictures' tables costs more. */
    jpeg_create_decompress(&d);
    d.progress = &progress;
    bool cmyk = begin(&d, bytes, n, scale);
    size_t stride = (size_t)d.output_width * 3;
    int rc = -1;
    if (!tiles_reserve(t, (int)d.output_width, (int)d.output_height, room) &&
        room_get(rows, TILE_ROWS * stride + (size_t)d.output_width * 4)) {
        jpeg_start_decompress(&d);
        want_all_scans(&d);
        /* Below `bottom` nothing is wanted. That the picture is whole is known only at its end: if its end is not
         * where it should be, go and see. */
        bool ends = n >= 4 && bytes[n - 2] == 0xff && bytes[n - 1] == JPEG_EOI;
        int64_t to = ends && bottom < t->h ? bottom : t->h;
        for (int y = 0; y < to; y += TILE_ROWS)
            tiles_put(t, y, rows->p, (int64_t)stride, next_rows(&d, cmyk, rows->p, stride));
        want_all_scans(&d);
        rc = 0;
    }
    jpeg_destroy_decompress(&d);
    return rc;
}

int image_encode_jpeg(const Image *im, int quality, void **bytes, size_t *n)
{
    struct jpeg_compress_struct c;
    ErrorManager e;
    unsigned char *out = NULL;
    unsigned long size = 0;

    error_manager_init(&e);
    c.err = &e.base;
    if (im->w < 1 || im->h < 1 || im->w > JPEG_MAX_DIMENSION || im->h > JPEG_MAX_DIMENSION)
        return err_set(ERR_DATA, "encoding a JPEG of %d x %d: at most %ld a side", im->w, im->h, JPEG_MAX_DIMENSION);
    if (setjmp(e.back)) {
        /* Out of memory, the only cause left: whether libjpeg has freed what `out` shows can't be known, so leave
         * it. */
        jpeg_destroy_compress(&c);
        return err_set(ERR_MEMORY, "encoding a JPEG of %d x %d: %s", im->w, im->h, e.text);
    }
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out, &size);
    c.image_width = (JDIMENSION)im->w;
    c.image_height = (JDIMENSION)im->h;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, quality, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = im->rgb + (size_t)c.next_scanline * (size_t)im->w * 3;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    *bytes = out;
    *n = size;
    return 0;
}
