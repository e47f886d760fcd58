/* Planes and box blur. */
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

static void box_x(const uint8_t *restrict src, int n, int ri, uint32_t ww, uint32_t fw, uint8_t *restrict dst)
{
    if (ri == 0) {
        for (int i = 0; i < n; i++)
            dst[i] = (uint8_t)((ww * src[i] + fw * (uint32_t)(src[i - 1] + src[i + 1]) + (1u << 23)) >> 24);
        return;
    }
    if (ri == 1) {
        for (int i = 0; i < n; i++)
            dst[i] = (uint8_t)((ww * (uint32_t)(src[i - 1] + src[i] + src[i + 1]) +
                                fw * (uint32_t)(src[i - 2] + src[i + 2]) + (1u << 23)) >> 24);
        return;
    }
    uint32_t sum = 0;
    for (int d = -ri; d <= ri; d++)
        sum += src[d];
    for (int i = 0; i < n; i++) {
        dst[i] = (uint8_t)((ww * sum + fw * (uint32_t)(src[i - ri - 1] + src[i + ri + 1]) + (1u << 23)) >> 24);
        sum += (uint32_t)src[i + ri + 1] - src[i - ri];
    }
}

static void box_y(const uint8_t *const *rows, int n, int ri, uint32_t ww, uint32_t fw, uint8_t *restrict dst)
{
    const uint8_t *before = rows[0], *after = rows[2 * ri + 2];
    if (ri == 0) {
        const uint8_t *at = rows[1];
        for (int i = 0; i < n; i++)
            dst[i] = (uint8_t)((ww * at[i] + fw * (uint32_t)(before[i] + after[i]) + (1u << 23)) >> 24);
        return;
    }
    enum { BLOCK = 256 };
    uint32_t sum[BLOCK];
    for (int at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? n - at : BLOCK;
        for (int i = 0; i < m; i++)
            sum[i] = rows[1][at + i];
        for (int j = 2; j <= 2 * ri + 1; j++) {
            const uint8_t *row = rows[j] + at;
            for (int i = 0; i < m; i++)
                sum[i] += row[i];
        }
        for (int i = 0; i < m; i++)
            dst[at + i] = (uint8_t)((ww * sum[i] + fw * (uint32_t)(before[at + i] + after[at + i]) + (1u << 23)) >> 24);
    }
}

void ISA_FN(plane_kernels)(PixelKernels *k)
{
    k->split = split;
    k->join = join;
    k->box_x = box_x;
    k->box_y = box_y;
}
