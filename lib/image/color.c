#include "image/plan.h"
#include "image/scratch.h"

#include <math.h>
#include <string.h>

/* A blend of factor 1 is the picture itself; 0 the other one: no rounding in between. */
static void blend_all(uint8_t *planes[3], int n, const uint8_t *other, uint8_t constant, float f)
{
    const PixelKernels *k = pixels();
    if (f == 1)
        return;
    for (int c = 0; c < 3; c++)
        if (other)
            k->blend(other, f, n, planes[c]);
        else
            k->blend_constant(constant, f, n, planes[c]);
}

void color_jitter(uint8_t *planes[3], int n, const uint8_t order[4], const float factor[4], uint8_t *gray,
                  int parts)
{
    const PixelKernels *k = pixels();
    for (int i = 0; i < parts; i++) {
        float f = factor[order[i]];
        switch (order[i]) {
        case JITTER_BRIGHTNESS:
            blend_all(planes, n, NULL, 0, f);
            break;
        case JITTER_CONTRAST: {
            double mean = (double)k->gray(planes[0], planes[1], planes[2], n, gray) / n;
            blend_all(planes, n, NULL, (uint8_t)(int)(mean + 0.5), f);
            break;
        }
        case JITTER_SATURATION:
            k->gray(planes[0], planes[1], planes[2], n, gray);
            blend_all(planes, n, gray, 0, f);
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
