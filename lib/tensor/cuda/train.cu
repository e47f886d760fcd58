/* What training needs besides gradients: norms, AdamW, EMA, teacher targets, centre, discrepancy.
 * Parameters: a block a piece of a span, the spans travel as arguments of the launch. Targets and discrepancy: one block
 * a row. Centre: one thread a class.
 * Floor: norms read g; AdamW reads p, g, m, v and writes them; EMA reads both and writes one; the rest read their rows
 * twice. */
#include "tensor/cuda/kernel.cuh"

enum { SPANS = 64, PIECES = 32 }; /* spans in a launch; pieces that a span is cut into */

typedef struct {
    int64_t offset[SPANS], count[SPANS];
} Spans;

/* The elements of span s for this block, which is one of PIECES. */
#define EACH_OF_SPAN(i, spans, s)                                                                     \
    int64_t i = spans.offset[s] + (int64_t)blockIdx.x * blockDim.x + threadIdx.x,                     \
            i##_end = spans.offset[s] + spans.count[s];                                               \
    i < i##_end; i += (int64_t)gridDim.x * blockDim.x

static Spans spans_from(const ParamSpan *from, int n)
{
    Spans s = {};
    for (int i = 0; i < n; i++) {
        s.offset[i] = from[i].offset;
        s.count[i] = from[i].count;
    }
    return s;
}

__global__ void k_norm_pieces(Spans spans, const float *g, double *partial)
{
    double s = 0;
    for (EACH_OF_SPAN(i, spans, blockIdx.y))
        s += (double)g[i] * (double)g[i];
    s = block_sum(s);
    if (threadIdx.x == 0)
        partial[blockIdx.y * PIECES + blockIdx.x] = s;
}

__global__ void k_norms(int n, const double *partial, float *norm)
{
    for (EACH(i, n)) {
        double s = 0;
        for (int k = 0; k < PIECES; k++)
            s += partial[i * PIECES + k];
        norm[i] = (float)sqrt(s);
    }
}

static int norms(Backend *be, const NormArgs *a)
{
    double *partial = (double *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, SPANS * PIECES * sizeof *partial);
    for (int at = 0; partial && at < a->nspans; at += SPANS) {
        int n = a->nspans - at < SPANS ? a->nspans - at : SPANS;
        Spans spans = spans_from(a->spans + at, n);
        if (LAUNCH(be, k_norm_pieces, dim3(PIECES, (unsigned)n), BLOCK, spans, a->g, partial) ||
            LAUNCH(be, k_norms, 1, SPANS, n, partial, a->norm + at))
            return -1;
    }
    return partial ? 0 : -1;
}

/* Per span: what the schedule and the step count make of it. */
typedef struct {
    float shrink[SPANS], step[SPANS], root[SPANS];
    bool skip[SPANS];
} SpanRates;

typedef struct {
    float *p, *g, *m, *v;
    const float *norm; /* of the first span, or NULL */
    const float *gate; /* or NULL */
    float clip, beta1, beta2, rest1, rest2, eps; /* rest: 1 - beta, made in double */
    bool zero_grad;
} AdamwStep;

__global__ void k_adamw(Spans spans, SpanRates rates, AdamwStep a)
{
    int s = blockIdx.y;
    bool skip = rates.skip[s] || (a.gate && !isfinite(*a.gate));
    float clip = a.norm && a.clip > 0 ? fminf(1, a.clip / (a.norm[s] + 1e-6f)) : 1;
    for (EACH_OF_SPAN(i, spans, s)) {
        if (!skip) {
            float d = a.g[i] * clip, m = a.beta1 * a.m[i] + a.rest1 * d, v = a.beta2 * a.v[i] + a.rest2 * d * d;
            a.m[i] = m;
            a.v[i] = v;
            a.p[i] = a.p[i] * rates.shrink[s] - rates.step[s] * m / (sqrtf(v) * rates.root[s] + a.eps);
            a.g[i] = d;
        }
        if (a.zero_grad)
            a.g[i] = 0;
    }
}

static int adamw(Backend *be, const AdamwArgs *a)
{
    AdamwStep step = { a->p, a->g, a->m, a->v, NULL, a->gate, (float)a->clip, (float)a->beta1, (float)a->beta2,
                       (float)(1 - a->beta1), (float)(1 - a->beta2), (float)a->eps, a->zero_grad };
    for (int at = 0; at < a->nspans; at += SPANS) {
        int n = a->nspans - at < SPANS ? a->nspans - at : SPANS;
        Spans spans = spans_from(a->spans + at, n);
        SpanRates rates = {};
        for (int i = 0; i < n; i++) {
            const ParamSpan *s = &a->spans[at + i];
            double k = (double)s->step;
            rates.skip[i] = s->skip;
            if (s->skip)
                continue;
            rates.shrink[i] = (float)(1 - a->lr * a->weight_decay * (double)s->decay);
            rates.step[i] = (float)(a->lr / (1 - pow(a->beta1, k)));
            rates.root[i] = (float)(1 / sqrt(1 - pow(a->beta2, k)));
        }
        step.norm = a->norm ? a->norm + at : NULL;
        if (LAUNCH(be, k_adamw, dim3(PIECES, (unsigned)n), BLOCK, spans, rates, step))
            return -1;
    }
    return 0;
}

__global__ void k_ema(int64_t n, float *teacher, const float *student, float m, float rest)
{
    for (EACH(i, n))
        teacher[i] = m * teacher[i] + rest * student[i];
}

static int ema(Backend *be, const EmaArgs *a)
{
    if (!a->n)
        return 0;
    return LAUNCH(be, k_ema, grid_for(be, a->n, BLOCK), BLOCK, a->n, a->teacher, a->student, (float)a->momentum,
                  (float)(1 - a->momentum));
}

/* ---- distributions */

/* log of the sum of exp(f (x - center)); center may be NULL. */
__device__ static float log_sum_exp(const float *x, const float *center, float f, int64_t k)
{
    float most = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < k; i += blockDim.x)
        most = fmaxf(most, f * (x[i] - (center ? center[i] : 0)));
    most = block_max(most);
    for (int64_t i = threadIdx.x; i < k; i += blockDim.x)
        sum += expf(f * (x[i] - (center ? center[i] : 0)) - most);
    return most + logf(block_sum(sum));
}

__global__ void k_targets(TargetsArgs a, float f)
{
    const float *x = a.logits + blockIdx.x * a.k;
    float lse = log_sum_exp(x, a.center, f, a.k);
    for (int64_t i = threadIdx.x; i < a.k; i += blockDim.x)
        a.q[blockIdx.x * a.k + i] = expf(f * (x[i] - (a.center ? a.center[i] : 0)) - lse);
}

static int targets(Backend *be, const TargetsArgs *a)
{
    if (!a->rows || !a->k)
        return 0;
    return LAUNCH(be, k_targets, (unsigned)a->rows, BLOCK, *a, (float)(1 / a->temp));
}

__global__ void k_center(CenterArgs a, float m, float rest)
{
    for (EACH(i, a.k)) {
        float s = 0;
        for (int64_t r = 0; r < a.rows; r++)
            s += a.logits[r * a.k + i];
        a.center[i] = m * a.center[i] + rest * (s / (float)a.rows);
    }
}

static int center(Backend *be, const CenterArgs *a)
{
    if (!a->rows || !a->k)
        return 0;
    return LAUNCH(be, k_center, grid_for(be, a->k, BLOCK), BLOCK, *a, (float)a->momentum,
                  (float)(1 - a->momentum));
}

__global__ void k_discrepancy(DiscrepancyArgs a, float f, float student, double *row)
{
    const float *b = a.base + blockIdx.x * a.k, *h = a.head + blockIdx.x * a.k;
    float head = log_sum_exp(h, a.center_head, f, a.k);
    float base = log_sum_exp(b, a.center_base, f, a.k), plain = log_sum_exp(b, NULL, student, a.k);
    double d = 0, role = 0;
    for (int64_t i = threadIdx.x; i < a.k; i += blockDim.x) {
        float la = f * (h[i] - (a.center_head ? a.center_head[i] : 0)) - head;
        float lb = f * (b[i] - (a.center_base ? a.center_base[i] : 0)) - base, lp = student * b[i] - plain;
        d += (double)(expf(lb) * (lb - la));
        role += (double)(expf(lp) * (lp - la));
    }
    d = block_sum(d);
    role = block_sum(role);
    if (threadIdx.x == 0) {
        row[2 * blockIdx.x] = d;
        row[2 * blockIdx.x + 1] = role;
    }
}

__global__ void k_mean_pairs(int64_t rows, const double *row, float *out)
{
    double s = 0;
    for (int64_t r = 0; r < rows; r++)
        s += row[2 * r + threadIdx.x];
    out[threadIdx.x] = rows ? (float)(s / (double)rows) : 0;
}

static int discrepancy(Backend *be, const DiscrepancyArgs *a)
{
    double *row = (double *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(2 * a->rows + 2) * sizeof *row);
    if (!row || (a->rows && LAUNCH(be, k_discrepancy, (unsigned)a->rows, BLOCK, *a, (float)(1 / a->temp),
                                   (float)(1 / a->student_temp), row)))
        return -1;
    return LAUNCH(be, k_mean_pairs, 1, 2, a->rows, row, a->out);
}

void cuda_train_table(Backend *be)
{
    be->norms = norms;
    be->adamw = adamw;
    be->ema = ema;
    be->targets = targets;
    be->center = center;
    be->discrepancy = discrepancy;
}
