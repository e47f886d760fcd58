#include "image/render.h"

#include "image/codec.h"
#include "image/scratch.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

void *room_get(Room *r, size_t n)
{
    if (n > r->capacity) {
        free(r->p);
        r->capacity = 0;
        if ((r->p = aligned_alloc(64, (n + 63) & ~(size_t)63)))
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
    Room *rooms[] = { &s->tiles, &s->taps_x, &s->taps_y, &s->strips, &s->planes, &s->line };
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        room_free(rooms[i]);
    free(s);
}

/* The plan's box lies in the tiles, its corner at x, y of theirs. */
static int render_tiles(const Tiles *from, int x, int y, const ViewPlan *p, uint8_t *out, RenderScratch *s)
{
    const PixelKernels *k = pixels();
    int n = p->size * p->size;
    uint8_t *planes[4];
    if (!planes_reserve(n, 4, planes, &s->planes))
        return -1;
    /* Exchanging left and right first or last is the same: nothing in between tells one side from the other. */
    if (resize_tiles(from, (ImageBox){ x, y, p->w, p->h }, p->size, p->size, p->filter, p->flip, planes, s))
        return -1;
    if (p->jitter)
        color_jitter(planes, n, p->order, p->factor, planes[3], 4);
    /* what follows does the same to all three planes, so a gray view needs but one */
    int colors = p->gray ? 1 : 3;
    if (p->gray)
        k->gray(planes[0], planes[1], planes[2], n, planes[0]);
    for (int c = 0; c < colors && p->blur > 0; c++)
        if (blur_plane(planes[c], p->size, p->size, p->blur, &s->line))
            return -1;
    for (int c = 0; c < colors && p->solarize; c++)
        k->solarize(planes[c], n);
    if (p->gray)
        planes[1] = planes[2] = planes[0];
    k->join(planes[0], planes[1], planes[2], n, out);
    return 0;
}

int render_view(const Image *im, const ViewPlan *plan, uint8_t *out, RenderScratch *s)
{
    Tiles tiles;
    if (plan_check(plan, im->w, im->h) ||
        tiles_of(&tiles, im, (ImageBox){ plan->x, plan->y, plan->w, plan->h }, &s->tiles))
        return -1;
    return render_tiles(&tiles, 0, 0, plan, out, s);
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
    Tiles tiles;
    if (tiles_of(&tiles, &s->decoded, (ImageBox){ 0, 0, s->decoded.w, s->decoded.h }, &s->tiles))
        return -1;
    for (int i = 0; i < count; i++) {
        ViewPlan p = plans[i];
        if (scale < 8) {
            if (plan_check(&p, full.w, full.h))
                return -1;
            scale_plan(&p, &full, &s->decoded);
        }
        if (plan_check(&p, s->decoded.w, s->decoded.h) || render_tiles(&tiles, p.x, p.y, &p, outs[i], s))
            return -1;
    }
    return 0;
}
