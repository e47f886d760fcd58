#include "image/plan.h"
#include "image/scratch.h"

#include <math.h>
#include <string.h>

static void blend_all(uint8_t *planes[3], int n, uint8_t constant, float f)
{
    for (int c = 0; c < 3; c++)
        pixels()->blend(constant, f, n, planes[c]);
}

void color_jitter(uint8_t *planes[3], int n, const uint8_t order[4], const float factor[4], uint8_t *gray,
                  int parts)
{
    const PixelKernels *k = pixels();
    for (int i = 0; i < parts; i++) {
        float f = factor[order[i]];
        /* A blend of factor 1 is the picture itself: no rounding. */
        if (f == 1 && order[i] != JITTER_HUE)
            continue;
        switch (order[i]) {
        case JITTER_BRIGHTNESS:
            blend_all(planes, n, 0, f);
            break;
        case JITTER_CONTRAST: {
            double mean = (double)k->gray(planes[0], planes[1], planes[2], n, gray) / n;
            blend_all(planes, n, (uint8_t)(int)(mean + 0.5), f);
            break;
        }
        case JITTER_SATURATION:
            k->saturate(planes[0], planes[1], planes[2], n, f);
            break;
        default: /* hue: runs even for a turn of 0, which is not the identity */
            k->hue(planes[0], planes[1], planes[2], n, (int)((double)f * 255) & 255);
        }
    }
}

void color_gray(uint8_t *planes[3], int n)
{
    pixels()->gray(planes[0], planes[1], planes[2], n, planes[0]);
    memcpy(planes[1], planes[0], (size_t)n);
    memcpy(planes[2], planes[0], (size_t)n);
}
