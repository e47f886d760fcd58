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
    Room *rooms[] = { &s->rows, &s->tiles, &s->taps_x, &s->taps_y, &s->strips, &s->planes, &s->line };
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

static void scale_plan(ViewPlan *p, const ImageInfo *full, int w, int h)
{
    p->x = (int32_t)((int64_t)p->x * w / full->w);
    p->y = (int32_t)((int64_t)p->y * h / full->h);
    p->w = (int32_t)((int64_t)p->w * w / full->w);
    p->h = (int32_t)((int64_t)p->h * h / full->h);
    p->w = p->w < 1 ? 1 : p->w > w - p->x ? w - p->x : p->w;
    p->h = p->h < 1 ? 1 : p->h > h - p->y ? h - p->y : p->h;
}

/* The row below which no view looks. */
static int64_t lowest(const ViewPlan *plans, int count)
{
    int64_t bottom = count ? 0 : INT32_MAX;
    for (int i = 0; i < count; i++)
        if ((int64_t)plans[i].y + plans[i].h > bottom)
            bottom = (int64_t)plans[i].y + plans[i].h;
    return bottom;
}

/* All of a picture, turned upright. */
static int turned_tiles(Tiles *t, const Image *im, int turn, RenderScratch *s)
{
    int w = im->w, h = im->h;
    image_turned_size(turn, &w, &h);
    if (tiles_reserve(t, w, h, &s->tiles) || !room_get(&s->rows, (size_t)w * TILE_ROWS * 3))
        return -1;
    for (int y = 0; y < h; y += TILE_ROWS) {
        int rows = h - y < TILE_ROWS ? h - y : TILE_ROWS;
        image_turn_rows(im, turn, y, rows, s->rows.p);
        tiles_put(t, y, s->rows.p, (int64_t)w * 3, rows);
    }
    return 0;
}

static int decode(const void *bytes, size_t n, unsigned reading, int scale, int64_t bottom, ImageType type,
                  Tiles *t, RenderScratch *s)
{
    int turn = (int)(reading & IMAGE_TURN);
    Image *im = &s->decoded;
    if (type == IMAGE_JPEG && turn <= 1)
        return jpeg_decode_tiles(bytes, n, scale, bottom, t, &s->tiles, &s->rows);
    if (image_decode_stored(bytes, n, reading, scale, im, &s->decoded_capacity))
        return -1;
    return turn > 1 ? turned_tiles(t, im, turn, s)
                    : tiles_of(t, im, (ImageBox){0, 0, im->w, im->h}, &s->tiles);
}

int render_views(const void *bytes, size_t n, unsigned reading, const ViewPlan *plans, int count, bool fast,
                 uint8_t *const outs[], RenderScratch *s)
{
    ImageInfo full = { 0 };
    Tiles tiles;
    ImageType type;
    if (image_check_reading(reading) || image_sniff(bytes, n, &type))
        return -1;
    int scale = fast && type == IMAGE_JPEG ? fast_scale(plans, count) : 8;
    if (scale < 8 && image_probe(bytes, n, &full))
        return -1;
    image_read_size(&full, reading, &full.w, &full.h);
    if (decode(bytes, n, reading, scale, scale < 8 ? INT32_MAX : lowest(plans, count), type, &tiles, s))
        return -1;
    for (int i = 0; i < count; i++) {
        ViewPlan p = plans[i];
        if (scale < 8) {
            if (plan_check(&p, full.w, full.h))
                return -1;
            scale_plan(&p, &full, tiles.w, tiles.h);
        }
        if (plan_check(&p, tiles.w, tiles.h) || render_tiles(&tiles, p.x, p.y, &p, outs[i], s))
            return -1;
    }
    return 0;
}
