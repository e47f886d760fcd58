/* Crop plans in streams: the options that choose a recipe, what a stream says of its views, plans in
 * messages. hssl-multicrop and hssl-augment plan with this same code, so that either gives the same views. */
#ifndef HSSL_PLANNING_H
#define HSSL_PLANNING_H

#include "image/plan.h"
#include "stream/message.h"
#include "util/opt.h"

typedef struct {
    const char *recipe;
    int64_t seed, locals, global_size, local_size; /* -1, 0, 0: as the recipe has it */
    double global_scale[2], local_scale[2];        /* 0,0: as the recipe has it */
    double blur_scale;                             /* factor on the radii */
} PlanningOptions;

#define PLANNING_DEFAULTS { .recipe = "dino", .locals = -1, .blur_scale = 1 }
#define PLANNING_OPTS(p) \
    OPT_CHOICE("recipe", 'r', &(p)->recipe, RECIPE_NAMES, "whose views, but for what hssl-train wishes"), \
    OPT_INT("seed", 's', &(p)->seed, 0, 9e15, "N", "key of all random draws"), \
    OPT_INT("local", 'l', &(p)->locals, -1, PLAN_MAX_VIEWS - 2, "N", \
            "local views an image (-1: the recipe's)"), \
    OPT_INT("local-crops-number", 0, &(p)->locals, -1, PLAN_MAX_VIEWS - 2, "N", "the same as --local"), \
    OPT_INT("global-size", 0, &(p)->global_size, 0, PLAN_MAX_SIZE, "PX", \
            "side of a global view (0: the recipe's)"), \
    OPT_INT("local-size", 0, &(p)->local_size, 0, PLAN_MAX_SIZE, "PX", \
            "side of a local view (0: the recipe's)"), \
    OPT_PAIR("global-crops-scale", 0, (p)->global_scale, 0, 1, "LO,HI", \
             "share of the area of a global view (0,0: the recipe's)"), \
    OPT_PAIR("local-crops-scale", 0, (p)->local_scale, 0, 1, "LO,HI", \
             "share of the area of a local view (0,0: the recipe's)"), \
    OPT_REAL("blur-scale", 0, &(p)->blur_scale, 0, 64, "S", \
             "factor on the blur's radii (0: no blur), for small views")

/* Which of them belong together. */
typedef enum {
    VIEWS_OTHER,
    VIEWS_SIZE,   /* --global-size, --local-size */
    VIEWS_NUMBER, /* --local */
    VIEWS_LOOK    /* --recipe, shares of the area, blur */
} ViewsGroup;
ViewsGroup planning_group(const char *option);
/* Whether an option of a group was given. */
bool planning_given(const Opt *opts, ViewsGroup group);
/* Whether shares of the area and blur may be other ones than the recipe's where they were not given: neither
 * a recipe was, nor sizes, which they suit. */
bool planning_look_open(const Opt *opts);

/* The recipe that the options ask for. 0, or -1 with ERR_USAGE. */
int planning_recipe(const PlanningOptions *p, Recipe *out);

/* What a welcome says of the views. */
typedef struct {
    int globals, locals, global_size, local_size;
} ViewCounts;

/* Put it into a welcome, and all else that decides how the views look: program, which plans, its options, and
 * the recipe that planning_recipe() made of them. The facts are listed in hssl-stream(7). 0, or -1. */
int planning_describe(Message *welcome, const char *program, const PlanningOptions *p, const Recipe *r);
/* Read it from a welcome. -1 with ERR_DATA when it is missing or out of range. */
int planning_counts(const Message *welcome, ViewCounts *out);

/* Plan a record by its epoch, id, width and height. plans: room for all views. */
void planning_views(const Message *record, const Recipe *r, int64_t seed, ViewPlan *plans);
/* Put n plans into a record, ERR_SHAPE where they are too many; and read them back, checked against the counts and the
 * image's size, ERR_DATA where they do not fit. 0, or -1. */
int planning_attach(Message *record, const ViewPlan *plans, int n);
int planning_read(const Message *record, const ViewCounts *counts, ViewPlan *plans);

#endif
