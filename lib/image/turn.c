/* Which side of a picture is up: what EXIF data say of it, and rows of the picture turned upright. */
#include "image/codec.h"

#include <string.h>

static uint32_t number(const uint8_t *p, int bytes, bool big)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[big ? i : bytes - 1 - i];
    return v;
}

/* EXIF data are a TIFF file, of which only the first directory matters: its byte order, "II*\0" or "MM\0*",
 * where the directory is, and there a count of entries of 12 bytes: tag, type, count, value. */
int exif_orientation(const uint8_t *p, size_t n)
{
    enum { HEAD = 8, ENTRY = 12, TAG = 0x0112, SHORT = 3, LONG = 4 };
    static const char prefix[6] = "Exif\0";
    while (n >= sizeof prefix && !memcmp(p, prefix, sizeof prefix)) {
        p += sizeof prefix;
        n -= sizeof prefix;
    }
    if (n < HEAD || (memcmp(p, "II*\0", 4) && memcmp(p, "MM\0*", 4)))
        return 1;
    bool big = *p == 'M';
    size_t at = number(p + 4, 4, big);
    if (at > n - 2)
        return 1;
    uint32_t entries = number(p + at, 2, big);
    for (at += 2; entries && n - at >= ENTRY; entries--, at += ENTRY) {
        const uint8_t *e = p + at;
        uint32_t type = number(e + 2, 2, big);
        if (number(e, 2, big) != TAG)
            continue;
        uint32_t v = number(e + 8, type == LONG ? 4 : 2, big);
        bool known = (type == SHORT || type == LONG) && number(e + 4, 4, big) == 1 && v >= 1 && v <= 8;
        return known ? (int)v : 1;
    }
    return 1;
}

/* The first APP1 segment with EXIF data says it; others of that number are XMP's, or go on where the first
 * one ended. */
static int jpeg_orientation(const uint8_t *p, size_t n)
{
    enum { SOI = 0xd8, RST0 = 0xd0, EOI = 0xd9, SOS = 0xda, APP1 = 0xe1, TEM = 1 };
    size_t at = 2;
    for (;;) {
        while (at < n && p[at] != 0xff) /* libjpeg passes over what is no marker, too */
            at++;
        while (at < n && p[at] == 0xff)
            at++;
        if (at >= n)
            return 1;
        int marker = p[at++];
        if (marker == SOS || marker == EOI)
            return 1;
        if (marker <= TEM || (marker >= RST0 && marker <= SOI))
            continue; /* without a segment */
        if (n - at < 2)
            return 1;
        size_t length = number(p + at, 2, true);
        if (length < 2 || length > n - at)
            return 1;
        if (marker == APP1 && length >= 8 && !memcmp(p + at + 2, "Exif\0", 6))
            return exif_orientation(p + at + 2, length - 2);
        at += length;
    }
}

/* The chunk eXIf, which may stand before or behind the pixels. */
static int png_orientation(const uint8_t *p, size_t n)
{
    enum { SIGNATURE = 8, AROUND = 12 }; /* length, type, checksum */
    for (size_t at = SIGNATURE; at <= n && n - at >= AROUND;) {
        size_t length = number(p + at, 4, true);
        if (length > n - at - AROUND)
            return 1;
        if (!memcmp(p + at + 4, "eXIf", 4))
            return exif_orientation(p + at + 8, length);
        at += AROUND + length;
    }
    return 1;
}

int image_orientation(const uint8_t *p, size_t n, ImageType type)
{
    return type == IMAGE_JPEG ? jpeg_orientation(p, n) : png_orientation(p, n);
}

void image_turned_size(int turn, int *w, int *h)
{
    if (turn >= 5) {
        int t = *w;
        *w = *h;
        *h = t;
    }
}

void image_turn_rows(const Image *from, int turn, int y, int rows, uint8_t *to)
{
    /* Pixel x, y of the upright picture is one of the stored one: x and y change places from orientation 5
     * on; then columns, rows or both are counted from their ends. */
    int64_t stride = (int64_t)from->w * 3;
    bool columns = turn == 2 || turn == 3 || turn == 7 || turn == 8;
    bool lines = turn == 3 || turn == 4 || turn == 6 || turn == 7;
    int64_t column = columns ? -3 : 3, line = lines ? -stride : stride;
    const uint8_t *first = from->rgb + (columns ? stride - 3 : 0) + (lines ? (from->h - 1) * stride : 0);
    int w = from->w, h = from->h;
    image_turned_size(turn, &w, &h);
    int64_t right = turn >= 5 ? line : column, down = turn >= 5 ? column : line;
    for (int x = 0; x < w; x++)
        for (int r = 0; r < rows; r++)
            memcpy(to + ((size_t)r * (size_t)w + (size_t)x) * 3, first + x * right + (y + r) * down, 3);
}
