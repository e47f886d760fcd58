#include "train/measure.h"

#include "train/features.h"
#include "util/err.h"

#include <math.h>

typedef struct {
    Teacher *teacher;
    int side;
    double temp, d, d_role; /* sums over images */
    int64_t used;
    EvalBad *bad;
    void *arg; /* of bad */
} Walk;

static int take_views(void *arg, const EvalBatch *b)
{
    Walk *w = arg;
    Discrepancy part;
    if (teacher_measure(w->teacher, b->views, b->n, w->side, w->temp, &part))
        return -1;
    w->d += part.d * b->n;
    w->d_role += part.d_role * b->n;
    w->used += b->n;
    return 0;
}

static int take_bad(void *arg, const Record *rec, uint64_t id, const char *why)
{
    Walk *w = arg;
    return w->bad(w->arg, rec, id, why);
}

int measure_dataset(Teacher *t, const TrainConfig *c, double temp, Dataset *ds, int batch, EvalBad *bad,
                    void *arg, int64_t *used, Discrepancy *out)
{
    Walk w = { .teacher = t, .side = (int)c->global_size, .temp = temp, .bad = bad, .arg = arg };
    EvalSink sink = { take_views, take_bad, &w, .labelled = false };
    EvalViews *v = evalviews_new(batch, w.side, features_resize(w.side));
    int rc = v ? evalviews_each(v, ds, NULL, (int64_t)dataset_count(ds), &sink) : -1;
    evalviews_free(&v);
    if (rc)
        return -1;
    if (!w.used)
        return err_set(ERR_DATA, "%s: no image of it can be used", dataset_path(ds));
    *used = w.used;
    *out = (Discrepancy){ .d = w.d / (double)w.used, .d_role = w.d_role / (double)w.used };
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
