#include "image/codec.h"
#include "image/scratch.h"

#include "util/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Places that an output of the axis can reach, at most. */
static int axis_reach(const Axis *a)
{
    double scale = (double)a->in / a->out;
    double support = (a->filter == FILTER_BILINEAR ? 1 : 2) * (scale < 1 ? 1 : scale);
    double reach = ceil(support) * 2 + 1;
    return reach < a->in ? (int)reach : a->in;
}

/* The taps of an axis, in one block of memory. */
static int taps_make(const Axis *a, Taps *t, Room *room)
{
    int reach = axis_reach(a);
    size_t outputs = ((size_t)a->out + 3) & ~(size_t)3;
    t->outputs = a->out;
    t->most = (reach + 6) / 4;
    t->same = 0;
    size_t groups = outputs * (size_t)t->most, work = (size_t)reach * TAPS_LANES * sizeof(double);
    char *block = room_get(room, work + groups * 4 * sizeof *t->k + outputs * 2 * sizeof *t->n);
    if (!block)
        return -1;
    t->k = (int32_t *)(block + work);
    t->first = (int *)(t->k + groups * 4);
    t->n = t->first + outputs;
    memset(t->k, 0, groups * 4 * sizeof *t->k);
    pixels()->taps(a, t, (double *)block);
    pixels()->fold(t->k, (int64_t)groups);
    return 0;
}

void taps_level(const Axis *a, Taps *t)
{
    int groups = (a->offset + a->in + 3) / 4, most = 0;
    for (int i = 0; i < a->out; i++)
        most = t->n[i] > most ? t->n[i] : most;
    for (int i = 0; i < a->out; i++) {
        int back = t->first[i] + most - groups;
        int32_t *k = t->k + (size_t)i * (size_t)t->most * 4;
        if (back > 0) {
            memmove(k + 4 * back, k, (size_t)t->n[i] * 4 * sizeof *k);
            memset(k, 0, (size_t)back * 4 * sizeof *k);
            t->first[i] -= back;
        }
        t->n[i] = most;
    }
    t->same = most;
}

int tiles_reserve(Tiles *t, int w, int h, Room *room)
{
    if (image_check_size(w, h))
        return -1;
    size_t bands = ((size_t)h + TILE_ROWS - 1) / TILE_ROWS;
    t->w = w;
    t->h = h;
    t->plane = (int64_t)((w + 3) / 4) * TILE_BYTES;
    t->p = room_get(room, bands * 3 * (size_t)t->plane);
    return t->p ? 0 : -1;
}

void tiles_put(Tiles *t, int y, const uint8_t *rgb, int64_t stride, int rows)
{
    for (; rows > 0; y += TILE_ROWS, rows -= TILE_ROWS, rgb += TILE_ROWS * stride)
        pixels()->pack(rgb, stride, rows < TILE_ROWS ? rows : TILE_ROWS, t->w, t->p + y / TILE_ROWS * 3 * t->plane,
                       t->plane);
}

int tiles_of(Tiles *t, const Image *im, ImageBox box, Room *room)
{
    int64_t stride = (int64_t)im->w * 3;
    if (box.w < 1 || box.h < 1 || box.x < 0 || box.y < 0 || box.w > im->w - box.x || box.h > im->h - box.y)
        return err_set(ERR_DATA, "box %d,%d %dx%d does not lie in the image of %d x %d", box.x, box.y, box.w, box.h,
                       im->w, im->h);
    if (tiles_reserve(t, box.w, box.h, room))
        return -1;
    tiles_put(t, 0, im->rgb + box.y * stride + (int64_t)box.x * 3, stride, box.h);
    return 0;
}

int resize_tiles(const Tiles *from, ImageBox box, int w, int h, ImageFilter filter, bool mirrored,
                 uint8_t *const planes[3], RenderScratch *s)
{
    /* Where a size does not change Pillow skips the pass: then the taps are single ones of weight 1, which keep
     * every value. */
    const PixelKernels *k = pixels();
    int first = box.y / TILE_ROWS, last = (box.y + box.h - 1) / TILE_ROWS;
    Axis across = { box.w, box.x, w, filter, mirrored };
    Axis down = { box.h, box.y - first * TILE_ROWS, h, filter, 0 };
    int64_t strip = ((int64_t)w + PIXEL_MARGIN - 1) / PIXEL_MARGIN * PIXEL_MARGIN * STRIP_ROWS;
    Taps x, y;
    uint8_t *strips = room_get(&s->strips, (size_t)(last - first + 1) * (TILE_ROWS / STRIP_ROWS) * (size_t)strip);
    if (!strips || taps_make(&across, &x, &s->taps_x) || taps_make(&down, &y, &s->taps_y))
        return -1;
    taps_level(&across, &x);
    for (int c = 0; c < 3; c++) {
        k->resample_x(from->p + (first * 3 + c) * from->plane, 3 * from->plane, last - first + 1, &x, strips, strip);
        k->resample_y(strips, strip, &y, w, planes[c]);
    }
    return 0;
}

uint8_t *planes_reserve(int n, int count, uint8_t *planes[], Room *room)
{
    size_t plane = (size_t)n + PIXEL_MARGIN;
    uint8_t *block = room_get(room, plane * (size_t)count);
    for (int i = 0; block && i < count; i++)
        planes[i] = block + (size_t)i * plane;
    return block;
}

int image_resize(const Image *im, ImageBox box, int w, int h, ImageFilter filter, uint8_t *out)
{
    if (w < 1 || h < 1 || (int64_t)w * h > IMAGE_MAX_PIXELS)
        return err_set(ERR_DATA, "resizing to %d x %d pixels: more than %d, or none", w, h, IMAGE_MAX_PIXELS);
    RenderScratch *s = render_scratch_new();
    Tiles tiles;
    uint8_t *planes[3];
    int rc = -1;
    if (s && !tiles_of(&tiles, im, box, &s->tiles) && planes_reserve(w * h, 3, planes, &s->planes) &&
        !resize_tiles(&tiles, (ImageBox){ 0, 0, box.w, box.h }, w, h, filter, false, planes, s)) {
        pixels()->join(planes[0], planes[1], planes[2], w * h, out);
        rc = 0;
    }
    render_scratch_free(s);
    return rc;
}

int image_eval_view_filter(const Image *im, int resize, int crop, ImageFilter filter, uint8_t *out)
{
    ImageBox whole = { 0, 0, im->w, im->h };
    if (resize == 0)
        return image_resize(im, whole, crop, crop, filter, out);
    if (crop < 1 || resize < crop)
        return err_set(ERR_USAGE, "evaluation view: crop of %d from a short side of %d", crop, resize);
    int shorter = im->w < im->h ? im->w : im->h, longer = im->w < im->h ? im->h : im->w;
    int64_t length = (int64_t)resize * longer / shorter;
    if (length * resize > IMAGE_MAX_PIXELS)
        return err_set(ERR_DATA, "%d x %d pixels: too long and thin to evaluate", im->w, im->h);
    int w = im->w < im->h ? resize : (int)length, h = im->w < im->h ? (int)length : resize;
    Image big = { w, h, malloc((size_t)w * (size_t)h * 3) };
    if (!big.rgb)
        return err_set(ERR_MEMORY, "image of %d x %d pixels: out of memory", w, h);
    int rc = image_resize(im, whole, w, h, filter, big.rgb);
    int top = (int)rint((h - crop) / 2.0), left = (int)rint((w - crop) / 2.0);
    for (int y = 0; !rc && y < crop; y++)
        memcpy(out + (size_t)y * (size_t)crop * 3, big.rgb + ((size_t)(top + y) * (size_t)w + (size_t)left) * 3,
               (size_t)crop * 3);
    free(big.rgb);
    return rc;
}

int image_eval_view(const Image *im, int resize, int crop, uint8_t *out)
{
    return image_eval_view_filter(im, resize, crop, FILTER_BICUBIC, out);
}
