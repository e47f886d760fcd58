#include "train/measure.h"

#include "image/image.h"
#include "train/features.h"
#include "util/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int batch, side;
    size_t view; /* bytes */
    Record *records;
    uint8_t *views;
    char **why;
} Room;

static void release(Room *r)
{
    free(r->records);
    free(r->views);
    free(r->why);
}

static int allocate(Room *r)
{
    r->view = (size_t)r->side * (size_t)r->side * 3;
    r->records = calloc((size_t)r->batch, sizeof *r->records);
    r->why = calloc((size_t)r->batch, sizeof *r->why);
    r->views = malloc((size_t)r->batch * r->view);
    return r->records && r->why && r->views
               ? 0
               : err_set(ERR_MEMORY, "no memory for a batch of %d images of %d pixels", r->batch, r->side);
}

/* Render n records; the good ones move together. Returns how many they are. */
static int render(Room *r, int n, void (*bad)(const char *name, const char *why))
{
    int kept = 0, resize = features_resize(r->side);
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < n; i++) {
        Image im = { 0 };
        if (image_decode(r->records[i].bytes, r->records[i].size, &im) < 0 ||
            image_eval_view(&im, resize, r->side, r->views + (size_t)i * r->view) < 0)
            r->why[i] = strdup(err_text());
        image_free(&im);
    }
    for (int i = 0; i < n; i++) {
        if (r->why[i]) {
            bad(r->records[i].name, r->why[i]);
            free(r->why[i]);
            r->why[i] = NULL;
            continue;
        }
        if (kept < i)
            memmove(r->views + (size_t)kept * r->view, r->views + (size_t)i * r->view, r->view);
        kept++;
    }
    return kept;
}

int measure_dataset(Teacher *t, const TrainConfig *c, double temp, Dataset *ds, int batch,
                    void (*bad)(const char *name, const char *why), int64_t *used, Discrepancy *out)
{
    Room r = { .batch = batch, .side = (int)c->global_size };
    uint64_t count = dataset_count(ds);
    double d = 0, d_role = 0;
    int rc = allocate(&r), filled = 0;
    *used = 0;
    for (uint64_t id = 0; !rc && id < count; id++) {
        rc = dataset_get(ds, id, &r.records[filled]);
        if (rc || (++filled < batch && id + 1 < count))
            continue;
        Discrepancy part;
        int n = render(&r, filled, bad);
        filled = 0;
        if (n && !(rc = teacher_measure(t, r.views, n, r.side, temp, &part))) {
            d += part.d * n;
            d_role += part.d_role * n;
            *used += n;
        }
    }
    release(&r);
    if (rc)
        return -1;
    if (!*used)
        return err_set(ERR_DATA, "%s: no image of it can be used", dataset_path(ds));
    *out = (Discrepancy){ .d = d / (double)*used, .d_role = d_role / (double)*used };
    return 0;
}

/* log of the sum of exp((x - c) / temp); c may be NULL. */
static double log_sum(const float *x, const float *c, int64_t k, double temp)
{
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < k; i++)
        top = fmax(top, ((double)x[i] - (c ? c[i] : 0)) / temp);
    for (int64_t i = 0; i < k; i++)
        sum += exp(((double)x[i] - (c ? c[i] : 0)) / temp - top);
    return top + log(sum);
}

Discrepancy measure_logits(const float *base, const float *head, const float *center_base,
                           const float *center_head, int64_t rows, int64_t k, double temp,
                           double student_temp)
{
    Discrepancy out = { 0, 0 };
    for (int64_t r = 0; r < rows; r++, base += k, head += k) {
        double lb = log_sum(base, center_base, k, temp), lr = log_sum(base, NULL, k, student_temp),
               la = log_sum(head, center_head, k, temp);
        for (int64_t i = 0; i < k; i++) {
            double a = ((double)head[i] - center_head[i]) / temp - la;
            double b = ((double)base[i] - center_base[i]) / temp - lb, role = base[i] / student_temp - lr;
            out.d += exp(b) * (b - a);
            out.d_role += exp(role) * (role - a);
        }
    }
    out.d /= (double)rows;
    out.d_role /= (double)rows;
    return out;
}
