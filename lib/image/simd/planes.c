/* Interleaved pixels to planes and back. */
#include "image/pixels.h"

static void split(const uint8_t *restrict rgb, int n, uint8_t *restrict r, uint8_t *restrict g, uint8_t *restrict b)
{
    for (int i = 0; i < n; i++) {
        r[i] = rgb[3 * i];
        g[i] = rgb[3 * i + 1];
        b[i] = rgb[3 * i + 2];
    }
}

static void join(const uint8_t *restrict r, const uint8_t *restrict g, const uint8_t *restrict b, int n,
                 uint8_t *restrict rgb)
{
    for (int i = 0; i < n; i++) {
        rgb[3 * i] = r[i];
        rgb[3 * i + 1] = g[i];
        rgb[3 * i + 2] = b[i];
    }
}

void ISA_FN(plane_kernels)(PixelKernels *k)
{
    k->split = split;
    k->join = join;
}
