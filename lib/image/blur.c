#include "image/scratch.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Gaussian blur as three box blurs of fractional radius in each direction (Gwosdek et al. 2011, "Theoretical
 * foundations of Gaussian convolution by extended box filtering"), with Pillow's float and integer arithmetic. */

enum { PASSES = 3 };

typedef struct {
    int ri;          /* whole part of the box's radius */
    uint32_t ww, fw; /* weight of a whole pixel and of the two at the ends, in units of 2^-24 */
} Box;

static bool box_of(float radius, Box *box)
{
    float s2 = radius * radius / PASSES;
    float length = (float)sqrt(12.0 * (double)s2 + 1.0);
    float l = (float)floor(((double)length - 1.0) / 2.0);
    float a = (2 * l + 1) * (l * (l + 1) - 3 * s2);
    a /= 6 * (s2 - (l + 1) * (l + 1));
    float r = l + a;
    if (r <= 0)
        return false;
    box->ri = (int)r;
    box->ww = (uint32_t)((float)(1 << 24) / (r * 2 + 1));
    box->fw = ((1u << 24) - (uint32_t)(box->ri * 2 + 1) * box->ww) / 2;
    return true;
}

int blur_plane(uint8_t *plane, int w, int h, float radius, Room *room)
{
    const PixelKernels *k = pixels();
    Box box;
    if (!box_of(radius, &box))
        return 0;

    /* along rows: two lines with their ends repeated */
    size_t margin = (size_t)box.ri + 1, line = (size_t)w + 2 * margin;
    size_t area = (size_t)w * (size_t)h, pointers = ((size_t)h + 2 * margin) * sizeof(uint8_t *);
    uint8_t *block = room_get(room, pointers + 2 * line + area);
    if (!block)
        return -1;
    const uint8_t **rows = (const uint8_t **)block;
    uint8_t *lines[2] = { block + pointers, block + pointers + line }, *other = lines[1] + line;
    for (int y = 0; y < h; y++) {
        uint8_t *at = plane + (size_t)y * (size_t)w;
        memcpy(lines[0] + margin, at, (size_t)w);
        for (int pass = 0; pass < PASSES; pass++) {
            uint8_t *from = lines[pass & 1], *to = pass == PASSES - 1 ? at : lines[~pass & 1] + margin;
            memset(from, from[margin], margin);
            memset(from + margin + w, from[margin + (size_t)w - 1], margin);
            k->box_x(from + margin, w, box.ri, box.ww, box.fw, to);
        }
    }

    /* along columns: whole rows at a time, between the plane and its copy */
    uint8_t *from = plane, *to = other;
    for (int pass = 0; pass < PASSES; pass++) {
        for (int y = -(int)margin; y < h + (int)margin; y++)
            rows[y + (int)margin] = from + (size_t)(y < 0 ? 0 : y >= h ? h - 1 : y) * (size_t)w;
        for (int y = 0; y < h; y++)
            k->box_y(rows + y, w, box.ri, box.ww, box.fw, to + (size_t)y * (size_t)w);
        uint8_t *t = from;
        from = to;
        to = t;
    }
    if (from != plane)
        memcpy(plane, from, area);
    return 0;
}
