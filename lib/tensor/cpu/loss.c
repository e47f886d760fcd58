/* Losses over many classes, a row at a time: the logits are read once for the denominator and once for each
 * product with a target; no log-softmax is stored. */
#include "tensor/cpu/cpu.h"

#include "util/err.h"

/* Sum of the rows' losses in their order, so that the result does not depend on the threads. */
static int total(const LossArgs *a, const double *row)
{
    double s = 0;
    for (int64_t r = 0; r < a->rows; r++)
        s += row[r];
    a->loss[0] = (float)s;
    return 0;
}

static double *row_losses(const LossArgs *a)
{
    return (double *)cpu_scratch(SCRATCH_PARTIAL, 2 * a->rows + 2);
}

/* ---- DINO. Row v of sample b meets target i when i != v; q sums to 1, so that with l the log of the
 * denominator, -sum_k q[k] (s[k] / temp - l) = l - <q, s> / temp. */

static const float *dino_target(const LossArgs *a, int64_t row, int i)
{
    int64_t view = row / a->batch, sample = row % a->batch;
    return view == i ? NULL : a->target + (i * a->batch + sample) * a->k;
}

static int dino_loss(Backend *be, const LossArgs *a)
{
    (void)be;
    double *row = row_losses(a), pairs = 2.0 * (a->views - 1) * a->batch;
    if (!row)
        return -1;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *s = a->logits + r * a->k;
        float lse = a->stat[r] = cpu.log_sum_exp(s, 1 / a->temp, a->k);
        row[r] = 0;
        for (int i = 0; i < 2; i++) {
            const float *q = dino_target(a, r, i);
            if (q)
                row[r] += ((double)lse * cpu.sum(q, a->k) - cpu.dot(q, s, a->k) / (double)a->temp) / pairs;
        }
    }
    return total(a, row);
}

static int dino_loss_backward(Backend *be, const LossArgs *a)
{
    (void)be;
    float f = a->gout[0] / (2.0f * (float)(a->views - 1) * (float)a->batch * a->temp);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *q0 = dino_target(a, r, 0), *q1 = dino_target(a, r, 1);
        const float *first = q0 ? q0 : q1, *second = q0 && q1 ? q1 : NULL;
        float weight = (second ? 2 : 1) * f;
        cpu.soft_gradient(a->logits + r * a->k, 1 / a->temp, a->stat[r], weight, first, f, second, f,
                          a->dlogits + r * a->k, a->k, a->add);
    }
    return 0;
}

/* ---- soft targets that need not sum to 1 */

static int soft_ce(Backend *be, const LossArgs *a)
{
    (void)be;
    double *row = row_losses(a);
    if (!row)
        return -1;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *s = a->logits + r * a->k, *q = a->target + r * a->k;
        a->stat[r] = cpu.log_sum_exp(s, 1 / a->temp, a->k);
        row[r] =
            ((double)a->stat[r] * cpu.sum(q, a->k) - cpu.dot(q, s, a->k) / (double)a->temp) / (double)a->rows;
    }
    return total(a, row);
}

static int soft_ce_backward(Backend *be, const LossArgs *a)
{
    (void)be;
    float f = a->gout[0] / ((float)a->rows * a->temp);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *q = a->target + r * a->k;
        cpu.soft_gradient(a->logits + r * a->k, 1 / a->temp, a->stat[r], f * (float)cpu.sum(q, a->k), q, f,
                          NULL, 0, a->dlogits + r * a->k, a->k, a->add);
    }
    return 0;
}

/* ---- hard labels */

static int hard_ce(Backend *be, const LossArgs *a)
{
    (void)be;
    double *row = row_losses(a);
    if (!row)
        return -1;
    for (int64_t r = 0; r < a->rows; r++)
        if (a->label[r] != a->ignore && (a->label[r] < 0 || a->label[r] >= a->k))
            return err_set(ERR_SHAPE, "cross_entropy: label %lld of row %lld is not below %lld",
                           (long long)a->label[r], (long long)r, (long long)a->k);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *s = a->logits + r * a->k;
        a->stat[r] = cpu.log_sum_exp(s, 1, a->k);
        row[r] = a->label[r] == a->ignore ? 0 : (double)(a->stat[r] - s[a->label[r]]) / (double)a->rows;
    }
    return total(a, row);
}

static int hard_ce_backward(Backend *be, const LossArgs *a)
{
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        bool ignored = a->label[r] == a->ignore;
        float f = ignored ? 0 : a->gout[0] / (float)a->rows, *d = a->dlogits + r * a->k;
        if (ignored && a->add)
            continue;
        cpu.soft_gradient(a->logits + r * a->k, 1, a->stat[r], f, NULL, 0, NULL, 0, d, a->k, a->add);
        if (!ignored)
            d[a->label[r]] -= f;
    }
    return 0;
}

/* ---- KL of two softmaxes */

static int kl(Backend *be, const LossArgs *a)
{
    (void)be;
    double *row = row_losses(a);
    if (!row)
        return -1;
    int failed = 0;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *s = a->logits + r * a->k, *t = a->target + r * a->k;
        float *p = cpu_scratch(SCRATCH_A, a->k), lt = cpu.log_sum_exp(t, 1, a->k);
        a->stat[r] = cpu.log_sum_exp(s, 1, a->k);
        if (!p) {
            failed = 1;
            continue;
        }
        cpu.exp_shifted(t, NULL, 1, lt, p, a->k);
        row[r] = (cpu.dot(p, t, a->k) - cpu.dot(p, s, a->k) + (double)(a->stat[r] - lt) * cpu.sum(p, a->k)) /
                 (double)a->rows;
    }
    return failed ? -1 : total(a, row);
}

static int kl_backward(Backend *be, const LossArgs *a)
{
    (void)be;
    float f = a->gout[0] / (float)a->rows;
    int failed = 0;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *t = a->target + r * a->k;
        float *p = cpu_scratch(SCRATCH_A, a->k);
        if (!p) {
            failed = 1;
            continue;
        }
        cpu.exp_shifted(t, NULL, 1, cpu.log_sum_exp(t, 1, a->k), p, a->k);
        cpu.soft_gradient(a->logits + r * a->k, 1, a->stat[r], f, p, f, NULL, 0, a->dlogits + r * a->k, a->k,
                          a->add);
    }
    return failed ? -1 : 0;
}

void cpu_loss_table(Backend *be)
{
    be->dino_loss = dino_loss;
    be->dino_loss_backward = dino_loss_backward;
    be->soft_ce = soft_ce;
    be->soft_ce_backward = soft_ce_backward;
    be->hard_ce = hard_ce;
    be->hard_ce_backward = hard_ce_backward;
    be->kl = kl;
    be->kl_backward = kl_backward;
}
