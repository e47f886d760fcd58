#include "image/scratch.h"

#include <math.h>
#include <stdbool.h>

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
    Box box;
    if (!box_of(radius, &box))
        return 0;
    uint8_t *work = room_get(room, BLUR_WORK(w, h, box.ri));
    if (!work)
        return -1;
    pixels()->blur(plane, w, h, box.ri, box.ww, box.fw, work);
    return 0;
}
