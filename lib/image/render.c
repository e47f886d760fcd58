#include "image/render.h"

#include "image/codec.h"
#include "image/scratch.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

static PixelKernels kernels;

__attribute__((constructor)) static void pick_kernels(void)
{
    ISA_PICK(pixel_kernels)(&kernels);
    ISA_PICK(color_kernels)(&kernels);
}

const PixelKernels *pixels(void)
{
    return &kernels;
}

void *room_get(Room *r, size_t n)
{
    if (n > r->capacity) {
        free(r->p);
        r->capacity = 0;
        if ((r->p = malloc(n)))
            r->capacity = n;
        else
            err_set(ERR_MEMORY, "rendering: %zu bytes: out of memory", n);
    }
    return r->p;
}

void room_free(Room *r)
{
    free(r->p);
    *r = (Room){ 0 };
}

RenderScratch *render_scratch_new(void)
{
    RenderScratch *s = calloc(1, sizeof *s);
    if (!s)
        err_set(ERR_MEMORY, "rendering: out of memory");
    return s;
}

void render_scratch_free(RenderScratch *s)
{
    if (!s)
        return;
    image_free(&s->decoded);
    Room *rooms[] = { &s->taps_x, &s->taps_y, &s->rows, &s->view, &s->planes, &s->line };
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        room_free(rooms[i]);
    free(s);
}

static void flip(uint8_t *plane, int size)
{
    for (int y = 0; y < size; y++) {
        uint8_t *row = plane + (size_t)y * (size_t)size;
        for (int a = 0, b = size - 1; a < b; a++, b--) {
            uint8_t t = row[a];
            row[a] = row[b];
            row[b] = t;
        }
    }
}

/* The image has the margin of image_reserve behind its pixels. */
static int render_reserved(const Image *im, const ViewPlan *p, uint8_t *out, RenderScratch *s)
{
    const PixelKernels *k = pixels();
    if (plan_check(p, im->w, im->h))
        return -1;
    int n = p->size * p->size;
    if (resize_with(im, (ImageBox){ p->x, p->y, p->w, p->h }, p->size, p->size, p->filter, out, s))
        return -1;
    if (!p->flip && !p->jitter && !p->gray && !p->blur && !p->solarize)
        return 0;
    uint8_t *planes = room_get(&s->planes, (size_t)n * 4);
    if (!planes)
        return -1;
    uint8_t *rgb[3] = { planes, planes + n, planes + 2 * (size_t)n };
    k->split(out, n, rgb[0], rgb[1], rgb[2]);
    for (int c = 0; c < 3 && p->flip && !p->flip_last; c++)
        flip(rgb[c], p->size);
    if (p->jitter)
        color_jitter(rgb, n, p->order, p->factor, planes + 3 * (size_t)n, 4);
    if (p->gray)
        color_gray(rgb, n);
    for (int c = 0; c < 3 && p->blur > 0; c++)
        if (blur_plane(rgb[c], p->size, p->size, p->blur, &s->line))
            return -1;
    for (int c = 0; c < 3 && p->solarize; c++)
        k->solarize(rgb[c], n);
    for (int c = 0; c < 3 && p->flip && p->flip_last; c++)
        flip(rgb[c], p->size);
    k->join(rgb[0], rgb[1], rgb[2], n, out);
    return 0;
}

int render_view(const Image *im, const ViewPlan *plan, uint8_t *out, RenderScratch *s)
{
    if (image_reserve(&s->decoded, im->w, im->h, &s->decoded_capacity))
        return -1;
    memcpy(s->decoded.rgb, im->rgb, (size_t)im->w * (size_t)im->h * 3);
    return render_reserved(&s->decoded, plan, out, s);
}

/* The smallest scale (eighths) at which no view has to be enlarged more than it already was. */
static int fast_scale(const ViewPlan *plans, int count)
{
    int scale = 1;
    for (int i = 0; i < count; i++)
        while (scale < 8 && ((int64_t)plans[i].w * scale / 8 < plans[i].size ||
                             (int64_t)plans[i].h * scale / 8 < plans[i].size))
            scale *= 2;
    return scale;
}

static void scale_plan(ViewPlan *p, const ImageInfo *full, const Image *im)
{
    p->x = (int32_t)((int64_t)p->x * im->w / full->w);
    p->y = (int32_t)((int64_t)p->y * im->h / full->h);
    p->w = (int32_t)((int64_t)p->w * im->w / full->w);
    p->h = (int32_t)((int64_t)p->h * im->h / full->h);
    p->w = p->w < 1 ? 1 : p->w > im->w - p->x ? im->w - p->x : p->w;
    p->h = p->h < 1 ? 1 : p->h > im->h - p->y ? im->h - p->y : p->h;
}

int render_views(const void *bytes, size_t n, const ViewPlan *plans, int count, bool fast, uint8_t *const outs[],
                 RenderScratch *s)
{
    ImageInfo full = { 0 };
    int scale = fast ? fast_scale(plans, count) : 8;
    if (scale < 8 && image_probe(bytes, n, &full))
        return -1;
    if (scale < 8 && full.type != IMAGE_JPEG)
        scale = 8;
    if (image_decode_into(bytes, n, scale, &s->decoded, &s->decoded_capacity))
        return -1;
    for (int i = 0; i < count; i++) {
        ViewPlan p = plans[i];
        if (scale < 8) {
            if (plan_check(&p, full.w, full.h))
                return -1;
            scale_plan(&p, &full, &s->decoded);
        }
        if (render_reserved(&s->decoded, &p, outs[i], s))
            return -1;
    }
    return 0;
}
