/* Losses over many classes, a row at a time, its gradient while it is in the cache; no log-softmax is stored. */
#include "tensor/cpu/cpu.h"

#include "util/err.h"

/* The loss of a row, x: sets *loss, and d unless that is NULL; d may be x. */
typedef int RowLoss(const LossArgs *a, int64_t r, const float *x, float *d, double *loss);

/* The rows' losses are added up in their order, so that the result does not depend on the threads. */
static int by_rows(const LossArgs *a, RowLoss *of_row)
{
    double *row = (double *)cpu_scratch(SCRATCH_PARTIAL, 2 * a->rows + 2), s = 0;
    int failed = 0;
    if (!row)
        return -1;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t r = 0; r < a->rows; r++)
        failed |= of_row(a, r, floats(a->logits, r * a->k), a->dlogits ? floats(a->dlogits, r * a->k) : NULL, &row[r]) < 0;
    if (failed)
        return -1;
    for (int64_t r = 0; r < a->rows; r++)
        s += row[r];
    a->loss[0] = a->weight * (float)s;
    if (a->value)
        a->value[0] = (float)s;
    return 0;
}

/* Row v of sample b meets target i when i != v. */
static const float *dino_target(const LossArgs *a, int64_t row, int i)
{
    int64_t view = row / a->batch, sample = row % a->batch;
    return view == i ? NULL : a->target + (i * a->batch + sample) * a->k;
}

/* With l the log of the denominator, -sum_k q[k] (x[k] / temp - l) = l sum(q) - <q, x> / temp. */
static int dino_row(const LossArgs *a, int64_t r, const float *x, float *d, double *loss)
{
    double pairs = 2.0 * (a->views - 1) * a->batch, mass = 0, dot = 0;
    const float *q[2] = { dino_target(a, r, 0), dino_target(a, r, 1) };
    float lse = cpu.log_sum_exp(x, 1 / a->temp, a->k), f = a->weight / (float)(pairs * (double)a->temp);
    for (int i = 0; i < 2; i++)
        if (q[i]) {
            mass += cpu.sum(q[i], a->k);
            dot += cpu.dot(q[i], x, a->k);
        }
    *loss = ((double)lse * mass - dot / (double)a->temp) / pairs;
    if (d)
        cpu.soft_gradient(x, 1 / a->temp, lse, f * (float)mass, q[0] ? q[0] : q[1], f, q[0] ? q[1] : NULL, f, d, a->k);
    return 0;
}

static int dino_loss(Backend *be, const LossArgs *a)
{
    (void)be;
    return by_rows(a, dino_row);
}

/* Targets need not sum to 1. */
static int soft_row(const LossArgs *a, int64_t r, const float *x, float *d, double *loss)
{
    const float *q = a->target + r * a->k;
    float lse = cpu.log_sum_exp(x, 1 / a->temp, a->k), f = a->weight / ((float)a->rows * a->temp);
    double mass = cpu.sum(q, a->k);
    *loss = ((double)lse * mass - cpu.dot(q, x, a->k) / (double)a->temp) / (double)a->rows;
    if (d)
        cpu.soft_gradient(x, 1 / a->temp, lse, f * (float)mass, q, f, NULL, 0, d, a->k);
    return 0;
}

static int soft_ce(Backend *be, const LossArgs *a)
{
    (void)be;
    return by_rows(a, soft_row);
}

static int hard_row(const LossArgs *a, int64_t r, const float *x, float *d, double *loss)
{
    bool ignored = a->label[r] == a->ignore;
    float lse = cpu.log_sum_exp(x, 1, a->k), f = ignored ? 0 : a->weight / (float)a->rows;
    *loss = ignored ? 0 : (double)(lse - x[a->label[r]]) / (double)a->rows;
    if (d)
        cpu.soft_gradient(x, 1, lse, f, NULL, 0, NULL, 0, d, a->k);
    if (d && !ignored)
        d[a->label[r]] -= f;
    return 0;
}

static int hard_ce(Backend *be, const LossArgs *a)
{
    (void)be;
    for (int64_t r = 0; r < a->rows; r++)
        if (a->label[r] != a->ignore && (a->label[r] < 0 || a->label[r] >= a->k))
            return err_set(ERR_SHAPE, "cross_entropy: label %lld of row %lld is not below %lld",
                           (long long)a->label[r], (long long)r, (long long)a->k);
    return by_rows(a, hard_row);
}

static int kl_row(const LossArgs *a, int64_t r, const float *x, float *d, double *loss)
{
    const float *t = a->target + r * a->k;
    float *p = cpu_scratch(SCRATCH_A, a->k), lt = cpu.log_sum_exp(t, 1, a->k), lx = cpu.log_sum_exp(x, 1, a->k);
    float f = a->weight / (float)a->rows;
    if (!p)
        return -1;
    cpu.exp_shifted(t, NULL, 1, lt, p, a->k);
    *loss = (cpu.dot(p, t, a->k) - cpu.dot(p, x, a->k) + (double)(lx - lt) * cpu.sum(p, a->k)) / (double)a->rows;
    if (d)
        cpu.soft_gradient(x, 1, lx, f, p, f, NULL, 0, d, a->k);
    return 0;
}

static int kl(Backend *be, const LossArgs *a)
{
    (void)be;
    return by_rows(a, kl_row);
}

void cpu_loss_table(Backend *be)
{
    be->dino_loss = dino_loss;
    be->soft_ce = soft_ce;
    be->hard_ce = hard_ce;
    be->kl = kl;
}
