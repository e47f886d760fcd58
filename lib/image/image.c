#include "image/image.h"

#include "image/codec.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

void image_free(Image *im)
{
    free(im->rgb);
    *im = (Image){ 0 };
}

int image_check_size(int w, int h)
{
    if (w < 1 || h < 1 || (int64_t)w * h > IMAGE_MAX_PIXELS)
        return err_set(ERR_DATA, "%d x %d pixels: more than %d, or none", w, h, IMAGE_MAX_PIXELS);
    return 0;
}

int image_reserve(Image *im, int w, int h, size_t *capacity)
{
    if (image_check_size(w, h))
        return -1;
    size_t need = (size_t)w * (size_t)h * 3;
    if (need > *capacity) {
        free(im->rgb);
        *capacity = 0;
        if (!(im->rgb = calloc(1, need)))
            return err_set(ERR_MEMORY, "image of %d x %d pixels: out of memory", w, h);
        *capacity = need;
    }
    im->w = w;
    im->h = h;
    return 0;
}

int image_sniff(const void *bytes, size_t n, ImageType *type)
{
    if (n == 0)
        return err_set(ERR_DATA, "empty: 0 bytes");
    if (n >= 3 && !memcmp(bytes, "\xff\xd8\xff", 3))
        *type = IMAGE_JPEG;
    else if (n >= 8 && !memcmp(bytes, "\x89PNG\r\n\x1a\n", 8))
        *type = IMAGE_PNG;
    else
        return err_set(ERR_DATA, "neither JPEG nor PNG");
    return 0;
}

int image_probe(const void *bytes, size_t n, ImageInfo *info)
{
    ImageType type;
    if (image_sniff(bytes, n, &type))
        return -1;
    int rc = type == IMAGE_JPEG ? jpeg_probe(bytes, n, info) : png_probe(bytes, n, info);
    if (!rc)
        info->orientation = image_orientation(bytes, n, type);
    if (!rc && (int64_t)info->w * info->h > IMAGE_MAX_PIXELS)
        return err_set(ERR_DATA, "%d x %d pixels: more than %d", info->w, info->h, IMAGE_MAX_PIXELS);
    return rc;
}

unsigned image_reading(const ImageInfo *info, bool turn, bool scale)
{
    return (turn && info->orientation > 1 ? (unsigned)info->orientation : 0) |
           (scale && info->bits == 16 ? IMAGE_SCALED : 0);
}

void image_read_size(const ImageInfo *info, unsigned reading, int *w, int *h)
{
    *w = info->w;
    *h = info->h;
    image_turned_size((int)(reading & IMAGE_TURN), w, h);
}

int image_check_reading(unsigned reading)
{
    if (reading & ~(unsigned)(IMAGE_TURN | IMAGE_SCALED) || (reading & IMAGE_TURN) > 8)
        return err_set(ERR_DATA,
                       "it is to be read in a way (%u) that this program does not know: use a newer one",
                       reading);
    return 0;
}

int image_decode_stored(const void *bytes, size_t n, unsigned reading, int scale, Image *im, size_t *capacity)
{
    ImageType type;
    if (image_check_reading(reading) || image_sniff(bytes, n, &type))
        return -1;
    return type == IMAGE_JPEG ? jpeg_decode(bytes, n, scale, im, capacity)
                              : png_decode(bytes, n, reading & IMAGE_SCALED, im, capacity);
}

int image_decode_into(const void *bytes, size_t n, unsigned reading, int scale, Image *im, size_t *capacity)
{
    int turn = (int)(reading & IMAGE_TURN);
    if (turn <= 1)
        return image_decode_stored(bytes, n, reading, scale, im, capacity);
    Image stored = { 0 };
    size_t room = 0;
    int rc = image_decode_stored(bytes, n, reading, scale, &stored, &room);
    int w = stored.w, h = stored.h;
    image_turned_size(turn, &w, &h);
    rc = rc || image_reserve(im, w, h, capacity) ? -1 : 0;
    for (int y = 0; !rc && y < h; y += TILE_ROWS) {
        int rows = h - y < TILE_ROWS ? h - y : TILE_ROWS;
        image_turn_rows(&stored, turn, y, rows, im->rgb + (size_t)y * (size_t)w * 3);
    }
    image_free(&stored);
    return rc;
}

int image_decode(const void *bytes, size_t n, unsigned reading, Image *im)
{
    size_t capacity = 0;
    *im = (Image){ 0 };
    if (image_decode_into(bytes, n, reading, 8, im, &capacity) == 0)
        return 0;
    image_free(im);
    return -1;
}
