/* What training needs besides gradients: norms, AdamW, EMA, teacher targets, centre, discrepancy. */
#include "tensor/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Elements handled at a time; each piece is one unit of work, and of summation. */
enum { PIECE = 32768 };

static int64_t pieces(int64_t count)
{
    return (count + PIECE - 1) / PIECE;
}

static int norms(Backend *be, const NormArgs *a)
{
    (void)be;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < a->nspans; i++) {
        double s = 0;
        for (int64_t at = 0; at < a->spans[i].count; at += PIECE) {
            int64_t n = a->spans[i].count - at < PIECE ? a->spans[i].count - at : PIECE;
            s += cpu.sum_squares(a->g + a->spans[i].offset + at, n);
        }
        a->norm[i] = (float)sqrt(s);
    }
    return 0;
}

static void adamw_span(const AdamwArgs *a, int i, int64_t from, int64_t n)
{
    const ParamSpan *s = &a->spans[i];
    int64_t at = s->offset + from;
    if (s->skip || (a->gate && !isfinite(*a->gate))) {
        if (a->zero_grad)
            memset(a->g + at, 0, (size_t)n * sizeof *a->g);
        return;
    }
    double clip = 1;
    if (a->clip > 0 && a->norm)
        clip = fmin(1, a->clip / ((double)a->norm[i] + 1e-6));
    double k = (double)s->step;
    cpu.adamw(a->p + at, a->g + at, a->m + at, a->v + at, n, (float)clip,
              (float)(1 - a->lr * a->weight_decay * (double)s->decay), a->beta1, a->beta2,
              (float)(a->lr / (1 - pow(a->beta1, k))), (float)(1 / sqrt(1 - pow(a->beta2, k))), (float)a->eps,
              a->zero_grad);
}

static int adamw(Backend *be, const AdamwArgs *a)
{
    (void)be;
#pragma omp parallel
    for (int i = 0; i < a->nspans; i++) {
#pragma omp for schedule(static) nowait
        for (int64_t j = 0; j < pieces(a->spans[i].count); j++) {
            int64_t from = j * PIECE, left = a->spans[i].count - from;
            adamw_span(a, i, from, left < PIECE ? left : PIECE);
        }
    }
    return 0;
}

static int ema(Backend *be, const EmaArgs *a)
{
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < pieces(a->n); j++) {
        int64_t at = j * PIECE, n = a->n - at < PIECE ? a->n - at : PIECE;
        cpu.axpby(a->teacher + at, (float)a->momentum, a->student + at, (float)(1 - a->momentum),
                  a->teacher + at, n, false);
    }
    return 0;
}

/* log of the sum of exp((x - center) / temp); the differences go through `tmp` when there is a centre. */
static float shifted(const float *x, const float *center, double temp, float *tmp, int64_t k)
{
    if (center) {
        cpu.axpby(x, 1, center, -1, tmp, k, false);
        x = tmp;
    }
    return cpu.log_sum_exp(x, (float)(1 / temp), k);
}

static int targets(Backend *be, const TargetsArgs *a)
{
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *x = a->logits + r * a->k;
        float *q = a->q + r * a->k, lse = shifted(x, a->center, a->temp, q, a->k);
        cpu.exp_shifted(x, a->center, (float)(1 / a->temp), lse, q, a->k);
    }
    return 0;
}

static int center(Backend *be, const CenterArgs *a)
{
    if (!a->rows)
        return 0;
    float *mean = cpu_scratch(SCRATCH_A, a->k);
    ReduceArgs r = {.outer = 1,
                    .reduce = a->rows,
                    .n = a->k,
                    .x = a->logits,
                    .out = mean,
                    .factor = 1.0f / (float)a->rows};
    if (!mean || be->reduce(be, &r) < 0)
        return -1;
    cpu.axpby(a->center, (float)a->momentum, mean, (float)(1 - a->momentum), a->center, a->k, false);
    return 0;
}

/* log of softmax((x - center) / temp) into out. */
static void log_probabilities(const float *x, const float *center, double temp, float *out, int64_t k)
{
    float f = (float)(1 / temp), lse = shifted(x, center, temp, out, k);
    if (center)
        cpu.axpby(x, f, center, -f, out, k, false);
    else
        cpu.axpby(x, f, NULL, 0, out, k, false);
    cpu.fill(-lse, out, k, true);
}

static double divergence(const float *b, const float *a, float *p, int64_t k)
{
    cpu.exp_shifted(b, NULL, 1, 0, p, k);
    return cpu.dot(p, b, k) - cpu.dot(p, a, k);
}

static int discrepancy(Backend *be, const DiscrepancyArgs *a)
{
    (void)be;
    double *row = (double *)cpu_scratch(SCRATCH_PARTIAL, 4 * a->rows + 4);
    int failed = row ? 0 : 1;
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t r = 0; r < (row ? a->rows : 0); r++) {
        float *head = cpu_scratch(SCRATCH_A, 3 * a->k), *base = head + a->k, *p = base + a->k;
        if (!head) {
            failed = 1;
            continue;
        }
        const float *b = a->base + r * a->k;
        log_probabilities(a->head + r * a->k, a->center_head, a->temp, head, a->k);
        log_probabilities(b, a->center_base, a->temp, base, a->k);
        row[2 * r] = divergence(base, head, p, a->k);
        log_probabilities(b, NULL, a->student_temp, base, a->k);
        row[2 * r + 1] = divergence(base, head, p, a->k);
    }
    double sum[2] = { 0, 0 };
    for (int64_t r = 0; !failed && r < 2 * a->rows; r++)
        sum[r % 2] += row[r];
    for (int i = 0; i < 2; i++)
        a->out[i] = a->rows ? (float)(sum[i] / (double)a->rows) : 0;
    return failed ? -1 : 0;
}

static int all_finite(Backend *be, DType type, const void *x, int64_t n, bool *finite)
{
    (void)be;
    (void)type;
    int bad = 0;
#pragma omp parallel for schedule(static) reduction(| : bad)
    for (int64_t j = 0; j < pieces(n); j++)
        bad |= !cpu.all_finite(floats(x, j * PIECE), n - j * PIECE < PIECE ? n - j * PIECE : PIECE);
    *finite = !bad;
    return 0;
}

void cpu_train_table(Backend *be)
{
    be->norms = norms;
    be->adamw = adamw;
    be->ema = ema;
    be->targets = targets;
    be->center = center;
    be->discrepancy = discrepancy;
    be->all_finite = all_finite;
}
