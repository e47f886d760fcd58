#include "train/planning.h"

#include "util/err.h"
#include "util/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NUMBERS = 20 };

static const struct {
    const char *option;
    ViewsGroup group;
} groups[] = {
    { "global-size", VIEWS_SIZE },        { "local-size", VIEWS_SIZE },
    { "local", VIEWS_NUMBER },            { "local-crops-number", VIEWS_NUMBER },
    { "recipe", VIEWS_LOOK },             { "global-crops-scale", VIEWS_LOOK },
    { "local-crops-scale", VIEWS_LOOK },  { "blur-scale", VIEWS_LOOK },
};
enum { GROUPED = sizeof groups / sizeof *groups };

ViewsGroup planning_group(const char *option)
{
    for (int i = 0; i < GROUPED; i++)
        if (!strcmp(groups[i].option, option))
            return groups[i].group;
    return VIEWS_OTHER;
}

bool planning_given(const Opt *opts, ViewsGroup group)
{
    for (int i = 0; i < GROUPED; i++)
        if (groups[i].group == group && opt_given(opts, groups[i].option))
            return true;
    return false;
}

bool planning_look_open(const Opt *opts)
{
    return !planning_given(opts, VIEWS_SIZE) && !opt_given(opts, "recipe");
}

int planning_recipe(const PlanningOptions *p, Recipe *out)
{
    const Recipe *r = recipe_find(p->recipe);
    if (!r)
        return -1;
    *out = *r;
    if (p->locals >= 0)
        out->locals = (int)p->locals;
    if (p->global_size)
        out->global_size = (int)p->global_size;
    if (p->local_size)
        out->local_size = (int)p->local_size;
    if (p->global_scale[1] > 0)
        for (int i = 0; i < 2; i++)
            out->global_scale[i] = p->global_scale[i];
    if (p->local_scale[1] > 0)
        for (int i = 0; i < 2; i++)
            out->local_scale[i] = p->local_scale[i];
    for (int i = 0; i < 2; i++)
        out->blur[i] *= p->blur_scale;
    return recipe_check(out);
}

/* As the option takes it. */
static int set_scale(Message *w, const char *key, const double scale[2])
{
    char least[32], most[32], text[sizeof least + sizeof most];
    snprintf(text, sizeof text, "%s,%s", text_real(scale[0], least, sizeof least),
             text_real(scale[1], most, sizeof most));
    return message_set_text(w, key, text);
}

int planning_describe(Message *w, const char *program, const PlanningOptions *p, const Recipe *r)
{
    return message_set_text(w, "planner", program) || message_set_text(w, "recipe", r->name) ||
                   message_set_int(w, "view_seed", p->seed) || message_set_int(w, "globals", r->globals) ||
                   message_set_int(w, "global_size", r->global_size) ||
                   set_scale(w, "global_scale", r->global_scale) || message_set_int(w, "locals", r->locals) ||
                   message_set_int(w, "local_size", r->locals ? r->local_size : 0) ||
                   (r->locals && set_scale(w, "local_scale", r->local_scale)) ||
                   message_set_real(w, "blur_scale", p->blur_scale)
               ? -1
               : 0;
}

int planning_counts(const Message *w, ViewCounts *c)
{
    int64_t globals = message_int(w, "globals", 0), locals = message_int(w, "locals", 0),
            size = message_int(w, "global_size", 0), local_size = message_int(w, "local_size", 0);
    if (globals < 1 || globals > PLAN_MAX_VIEWS || locals < 0 || locals > PLAN_MAX_VIEWS - globals ||
        size < 1 || size > PLAN_MAX_SIZE || (locals && (local_size < 1 || local_size > PLAN_MAX_SIZE)))
        return err_set(ERR_DATA,
                       "the stream of plans does not say properly what views it has (globals, global_size, "
                       "locals, local_size)");
    *c = (ViewCounts){ (int)globals, (int)locals, (int)size, locals ? (int)local_size : 0 };
    return 0;
}

void planning_views(const Message *m, const Recipe *r, int64_t seed, ViewPlan *plans)
{
    plan_views(r, (uint64_t)seed, m->epoch, m->id, (int)m->width, (int)m->height, plans);
}

/* The order of a row of numbers, as hssl-stream(7) has it. */
static void to_numbers(const ViewPlan *p, double *x)
{
    const double row[NUMBERS] = { p->x,         p->y,         p->w,         p->h,         p->size,
                                  p->filter,    p->flip,      p->flip_last, p->jitter,    p->gray,
                                  p->solarize,  p->order[0],  p->order[1],  p->order[2],  p->order[3],
                                  p->factor[0], p->factor[1], p->factor[2], p->factor[3], p->blur };
    for (int i = 0; i < NUMBERS; i++)
        x[i] = row[i];
}

static int from_numbers(const double *x, ViewPlan *p)
{
    for (int i = 0; i < 15; i++)
        if (x[i] != floor(x[i]) || x[i] < 0 || x[i] > (i < 5 ? INT32_MAX : 255))
            return err_set(ERR_DATA, "plan: number %d is out of range", i);
    for (int i = 15; i < NUMBERS; i++)
        if (!(fabs(x[i]) < 1e6))
            return err_set(ERR_DATA, "plan: number %d is out of range", i);
    *p = (ViewPlan){ .x = (int32_t)x[0],
                     .y = (int32_t)x[1],
                     .w = (int32_t)x[2],
                     .h = (int32_t)x[3],
                     .size = (int32_t)x[4],
                     .filter = (uint8_t)x[5],
                     .flip = (uint8_t)x[6],
                     .flip_last = (uint8_t)x[7],
                     .jitter = (uint8_t)x[8],
                     .gray = (uint8_t)x[9],
                     .solarize = (uint8_t)x[10],
                     .blur = (float)x[19] };
    for (int i = 0; i < 4; i++) {
        p->order[i] = (uint8_t)x[11 + i];
        p->factor[i] = (float)x[15 + i];
    }
    return 0;
}

int planning_attach(Message *m, const ViewPlan *plans, int n)
{
    double numbers[PLAN_MAX_VIEWS * NUMBERS];
    if (n > PLAN_MAX_VIEWS)
        return err_set(ERR_SHAPE, "plan of %d views (at most %d)", n, PLAN_MAX_VIEWS);
    for (int v = 0; v < n; v++)
        to_numbers(&plans[v], numbers + v * NUMBERS);
    return message_set_plan(m, n, NUMBERS, numbers);
}

int planning_read(const Message *m, const ViewCounts *c, ViewPlan *plans)
{
    if (m->views != c->globals + c->locals || m->numbers != NUMBERS)
        return err_set(ERR_DATA, "plan of %d views of %d numbers, the stream announced %d of %d", m->views,
                       m->numbers, c->globals + c->locals, NUMBERS);
    for (int v = 0; v < m->views; v++) {
        if (from_numbers(m->plan + v * NUMBERS, &plans[v]))
            return -1;
        if (plans[v].size != (v < c->globals ? c->global_size : c->local_size))
            return err_set(ERR_DATA, "plan: view %d of %d pixels a side, the stream announced another size",
                           v, plans[v].size);
    }
    return 0;
}
