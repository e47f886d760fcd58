#include "image/plan.h"

#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <string.h>

/* Probabilities and strengths of the published recipes; each is the text of its official code. */
static const Recipe recipes[] = {
    { .name = "dino", .globals = 2, .locals = 8, .global_size = 224, .local_size = 96,
      .global_scale = { 0.4, 1 }, .local_scale = { 0.05, 0.4 },
      .brightness = 0.4, .contrast = 0.4, .saturation = 0.2, .hue = 0.1, .blur = { 0.1, 2 },
      .global1 = { FILTER_BICUBIC, false, 0.5, 0.8, 0.2, 1, 0 },
      .global2 = { FILTER_BICUBIC, false, 0.5, 0.8, 0.2, 0.1, 0.2 },
      .local = { FILTER_BICUBIC, false, 0.5, 0.8, 0.2, 0.5, 0 } },
    { .name = "ibot", .globals = 2, .locals = 0, .global_size = 224, .local_size = 96,
      .global_scale = { 0.14, 1 }, .local_scale = { 0.05, 0.25 },
      .brightness = 0.4, .contrast = 0.4, .saturation = 0.2, .hue = 0.1, .blur = { 0.1, 2 },
      .global1 = { FILTER_BICUBIC, false, 0.5, 0.8, 0.2, 1, 0 },
      .global2 = { FILTER_BICUBIC, false, 0.5, 0.8, 0.2, 0.1, 0.2 },
      .local = { FILTER_BICUBIC, false, 0.5, 0.8, 0.2, 0.5, 0 } },
    { .name = "mocov3", .globals = 2, .locals = 0, .global_size = 224, .local_size = 96,
      .global_scale = { 0.08, 1 }, .local_scale = { 0.05, 0.25 },
      .brightness = 0.4, .contrast = 0.4, .saturation = 0.2, .hue = 0.1, .blur = { 0.1, 2 },
      .global1 = { FILTER_BILINEAR, true, 0.5, 0.8, 0.2, 1, 0 },
      .global2 = { FILTER_BILINEAR, true, 0.5, 0.8, 0.2, 0.1, 0.2 },
      .local = { FILTER_BILINEAR, true, 0.5, 0.8, 0.2, 0.5, 0 } },
    { .name = "mae", .globals = 1, .locals = 0, .global_size = 224, .local_size = 96,
      .global_scale = { 0.2, 1 }, .local_scale = { 0.05, 0.25 }, .blur = { 0.1, 2 },
      .global1 = { FILTER_BICUBIC, false, 0.5, 0, 0, 0, 0 },
      .global2 = { FILTER_BICUBIC, false, 0.5, 0, 0, 0, 0 },
      .local = { FILTER_BICUBIC, false, 0.5, 0, 0, 0, 0 } },
};

const Recipe *recipe_find(const char *name)
{
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (!strcmp(recipes[i].name, name))
            return &recipes[i];
    err_set(ERR_USAGE, "%s: no such recipe; there are " RECIPE_NAMES, name);
    return NULL;
}

static bool good_scale(const double s[2])
{
    return s[0] > 0 && s[0] <= s[1] && s[1] <= 1;
}

int recipe_check(const Recipe *r)
{
    if (r->globals < 1 || r->locals < 0 || r->globals + r->locals > PLAN_MAX_VIEWS)
        return err_set(ERR_USAGE, "%d global and %d local views: between 1 and %d in all", r->globals, r->locals,
                       PLAN_MAX_VIEWS);
    if (r->global_size < 1 || r->global_size > PLAN_MAX_SIZE ||
        (r->locals && (r->local_size < 1 || r->local_size > PLAN_MAX_SIZE)))
        return err_set(ERR_USAGE, "views of %d and %d pixels: between 1 and %d", r->global_size, r->local_size,
                       PLAN_MAX_SIZE);
    if (!good_scale(r->global_scale) || (r->locals && !good_scale(r->local_scale)))
        return err_set(ERR_USAGE, "crop scales: two shares of the area, 0 < least <= most <= 1");
    return 0;
}

/* RandomResizedCrop of torchvision: ten tries, then the middle. */
ImageBox plan_crop(const double scale[2], int w, int h, double (*uniform)(void *), void *arg)
{
    const double log_lo = logf(3.0f / 4), log_hi = logf(4.0f / 3);
    double area = (double)w * h;
    for (int i = 0; i < 10; i++) {
        double target = area * (scale[0] + (scale[1] - scale[0]) * uniform(arg));
        double aspect = exp(log_lo + (log_hi - log_lo) * uniform(arg));
        double bw = rint(sqrt(target * aspect)), bh = rint(sqrt(target / aspect)); /* half to even */
        if (bw > 0 && bw <= w && bh > 0 && bh <= h) {
            int y = (int)(uniform(arg) * (h - bh + 1)), x = (int)(uniform(arg) * (w - bw + 1));
            return (ImageBox){ x, y, (int)bw, (int)bh };
        }
    }
    double ratio = (double)w / h;
    int bw = w, bh = h;
    if (ratio < 3.0 / 4)
        bh = (int)rint(w / (3.0 / 4));
    else if (ratio > 4.0 / 3)
        bw = (int)rint(h * (4.0 / 3));
    return (ImageBox){ (w - bw) / 2, (h - bh) / 2, bw, bh };
}

static double draw(void *rng)
{
    return rng_uniform53(rng);
}

static float draw_between(Rng *r, double lo, double hi)
{
    return (float)(lo + (hi - lo) * rng_uniform53(r));
}

static double least(double strength)
{
    return strength < 1 ? 1 - strength : 0;
}

static void plan_view(const Recipe *r, const ViewRecipe *v, const double scale[2], int size, Rng *rng, int w, int h,
                      ViewPlan *p)
{
    ImageBox box = plan_crop(scale, w, h, draw, rng);
    *p = (ViewPlan){ .x = box.x, .y = box.y, .w = box.w, .h = box.h, .size = size, .filter = (uint8_t)v->filter,
                     .flip_last = v->flip_last, .order = { 0, 1, 2, 3 } };
    p->flip = rng_uniform(rng) < v->flip;
    p->jitter = rng_uniform(rng) < v->jitter;
    if (p->jitter) {
        for (uint32_t i = 3; i > 0; i--) {
            uint32_t j = rng_below(rng, i + 1);
            uint8_t t = p->order[i];
            p->order[i] = p->order[j];
            p->order[j] = t;
        }
        p->factor[JITTER_BRIGHTNESS] = draw_between(rng, least(r->brightness), 1 + r->brightness);
        p->factor[JITTER_CONTRAST] = draw_between(rng, least(r->contrast), 1 + r->contrast);
        p->factor[JITTER_SATURATION] = draw_between(rng, least(r->saturation), 1 + r->saturation);
        p->factor[JITTER_HUE] = draw_between(rng, -r->hue, r->hue);
    }
    p->gray = rng_uniform(rng) < v->gray;
    if (rng_uniform(rng) < v->blur)
        p->blur = draw_between(rng, r->blur[0], r->blur[1]);
    p->solarize = rng_uniform(rng) < v->solarize;
}

void plan_views(const Recipe *r, uint64_t seed, uint64_t epoch, uint64_t id, int w, int h, ViewPlan *out)
{
    for (int i = 0; i < r->globals + r->locals; i++) {
        bool global = i < r->globals;
        Rng rng = rng_make(seed, RNG_VIEW, epoch << 40 ^ id, (uint32_t)i);
        plan_view(r, i == 0 ? &r->global1 : global ? &r->global2 : &r->local,
                  global ? r->global_scale : r->local_scale, global ? r->global_size : r->local_size, &rng, w, h,
                  &out[i]);
    }
}

int plan_check(const ViewPlan *p, int w, int h)
{
    if (p->size < 1 || p->size > PLAN_MAX_SIZE)
        return err_set(ERR_DATA, "plan: size %d: between 1 and %d", p->size, PLAN_MAX_SIZE);
    if (p->w < 1 || p->h < 1 || p->x < 0 || p->y < 0 || p->w > w || p->h > h || p->x > w - p->w || p->y > h - p->h)
        return err_set(ERR_DATA, "plan: box %d,%d %dx%d leaves the image of %d x %d", p->x, p->y, p->w, p->h, w, h);
    if (p->filter > FILTER_BICUBIC)
        return err_set(ERR_DATA, "plan: filter %d is unknown", p->filter);
    unsigned seen = 0;
    for (int i = 0; i < 4; i++) {
        seen |= p->order[i] < 4 ? 1u << p->order[i] : 0;
        if (p->jitter && !(fabsf(p->factor[i]) <= 100))
            return err_set(ERR_DATA, "plan: factor %g is out of range", (double)p->factor[i]);
    }
    if (p->jitter && (seen != 15 || fabsf(p->factor[JITTER_HUE]) > 1))
        return err_set(ERR_DATA, "plan: the jitter's order or hue is out of range");
    if (!(p->blur >= 0 && p->blur <= 256))
        return err_set(ERR_DATA, "plan: blur %g is out of range", (double)p->blur);
    return 0;
}
