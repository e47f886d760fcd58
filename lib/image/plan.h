/* Crop plans: what every view of an image is to look like, decided before any pixel is touched.
 *
 * A plan is a pure function of (recipe, seed, epoch, image, view, size of the image): it comes out the same in
 * whatever process draws it. */
#ifndef HSSL_PLAN_H
#define HSSL_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "image/image.h"

enum { PLAN_MAX_VIEWS = 64, PLAN_MAX_SIZE = 4096 };

/* The four parts of a colour jitter. */
enum { JITTER_BRIGHTNESS, JITTER_CONTRAST, JITTER_SATURATION, JITTER_HUE };

/* One view. Operations run in this order: crop and resize, flip, jitter, gray, blur, solarize; with flip_last the
 * flip comes at the end. */
typedef struct {
    int32_t x, y, w, h; /* box in the image */
    int32_t size;       /* pixels a side of the view */
    uint8_t filter;     /* ImageFilter */
    uint8_t flip, flip_last, jitter, gray, solarize; /* 0 or 1 */
    uint8_t order[4];   /* of the jitter's parts: a permutation of 0..3 */
    float factor[4];    /* by part: brightness, contrast, saturation; hue as a fraction of the circle */
    float blur;         /* standard deviation in pixels; 0: none */
} ViewPlan;

/* What a kind of view may look like. */
typedef struct {
    ImageFilter filter;
    bool flip_last;
    double flip, jitter, gray, blur, solarize; /* probabilities */
} ViewRecipe;

typedef struct {
    const char *name;
    int globals, locals;
    int global_size, local_size;
    double global_scale[2], local_scale[2]; /* share of the image's area */
    double brightness, contrast, saturation, hue; /* strengths of the jitter */
    double blur[2];                               /* range of the radius */
    ViewRecipe global1, global2, local;           /* first global view, further ones, local ones */
} Recipe;

/* "dino", "ibot" [Caron 2021; Zhou 2022], "mocov3" [Chen 2021], "mae" [He 2022] with their published settings: copy
 * one and change it. NULL with ERR_USAGE. */
const Recipe *recipe_find(const char *name);
/* "dino|ibot|mocov3|mae", for an option table. */
#define RECIPE_NAMES "dino|ibot|mocov3|mae"
/* 0, or -1 with ERR_USAGE that names what is out of range. */
int recipe_check(const Recipe *r);

/* Plan all views of one image of w x h pixels: globals, then locals; out has room for them. id < 2^40. */
void plan_views(const Recipe *r, uint64_t seed, uint64_t epoch, uint64_t id, int w, int h, ViewPlan *out);

/* 0 if the plan can be rendered from an image of w x h pixels, else -1 with ERR_DATA that names the field. */
int plan_check(const ViewPlan *p, int w, int h);

/* The box of a RandomResizedCrop from uniform draws in [0, 1): three pairs of them a try. Exposed for its test. */
ImageBox plan_crop(const double scale[2], int w, int h, double (*uniform)(void *), void *arg);

#endif
