/* Boxes of RandomResizedCrop: the statistics of many draws. */
#include "golden.h"
#include "image/plan.h"
#include "util/rng.h"

#include <math.h>
#include <stdio.h>

enum { FIGURES = 4 };

/* Powers of a figure's values, summed. */
typedef struct {
    double n, sum[4];
} Moments;

static void take(Moments *m, double x)
{
    double p = 1;
    m->n++;
    for (int i = 0; i < 4; i++)
        m->sum[i] += p *= x;
}

/* Mean, variance and fourth central moment. */
static void central(const Moments *m, double *mean, double *var, double *fourth)
{
    double a = m->sum[0] / m->n, b = m->sum[1] / m->n, c = m->sum[2] / m->n, d = m->sum[3] / m->n;
    *mean = a;
    *var = b - a * a;
    *fourth = d - 4 * a * c + 6 * a * a * b - 3 * a * a * a * a;
}

static double uniform(void *arg)
{
    return rng_uniform53(arg);
}

static void one_scale(Golden *g, const char *key, const double scale[2], int draws, int width, int height)
{
    Moments m[FIGURES] = { { 0 } };
    double whole = 0;
    for (int i = 0; i < draws; i++) {
        Rng r = rng_make(1, RNG_TEST, (uint64_t)i, 0);
        ImageBox box = plan_crop(scale, width, height, uniform, &r);
        take(&m[0], (double)box.w * box.h / ((double)width * height));
        take(&m[1], log((double)box.w / box.h));
        if (box.h < height)
            take(&m[2], (double)box.y / (height - box.h));
        if (box.w < width)
            take(&m[3], (double)box.x / (width - box.w));
        /* The file counts every box that spans a side, which cannot move along it. */
        whole += box.w == width || box.h == height;
    }
    /* Both sides are samples: five deviations of their difference. */
    float mean[FIGURES], var[FIGURES], share = (float)(whole / draws);
    double mean_bound[FIGURES], var_bound[FIGURES];
    for (int i = 0; i < FIGURES; i++) {
        double a, v, fourth;
        central(&m[i], &a, &v, &fourth);
        mean[i] = (float)a;
        var[i] = (float)v;
        mean_bound[i] = 5 * sqrt(2 * v / m[i].n);
        var_bound[i] = 5 * sqrt(2 * (fourth - v * v) / m[i].n);
    }
    double p = share > 0 ? share : 1.0 / draws, share_bound = 5 * sqrt(2 * p * (1 - p) / draws);
    char name[64];
    snprintf(name, sizeof name, "out.%s.mean", key);
    golden_check_within(g, name, mean, mean_bound);
    snprintf(name, sizeof name, "out.%s.var", key);
    golden_check_within(g, name, var, var_bound);
    snprintf(name, sizeof name, "out.%s.whole", key);
    golden_check_within(g, name, &share, &share_bound);
}

static void crop_stats(Golden *g)
{
    json_object *scales = json_object_object_get(golden_config(g), "scales");
    int draws = golden_int(g, "draws", 0), width = golden_int(g, "width", 0), height = golden_int(g, "height", 0);
    if (!scales || draws < 100 || width < 1 || height < 1)
        return golden_fail(g, "not statistics of crops");
    json_object_object_foreach(scales, key, value) {
        double scale[2] = { json_object_get_double(json_object_array_get_idx(value, 0)),
                            json_object_get_double(json_object_array_get_idx(value, 1)) };
        one_scale(g, key, scale, draws, width, height);
    }
}

static const GoldenCase cases[] = { { "optim_crop_stats", crop_stats }, { NULL, NULL } };
GOLDEN_REGISTER(cases)
