/* The optimiser's side of a step: norms, AdamW, the moving average.
 * Parameters: one launch has up to SPANS of them, cut into pieces of one size, a block a piece: so large ones take many blocks
 * and small ones one. What belongs to a span travels as an argument of the launch.
 * Floor: norms read g; AdamW reads p, g, m, v and writes them; the average reads both and writes one. */
#include "tensor/cuda/map.cuh"

#include <math.h>

enum { SPANS = 64, PIECE = 8192 /* elements */ };

typedef struct {
    int64_t offset[SPANS], count[SPANS];
    int first[SPANS + 1]; /* piece of each span; the last says how many there are */
} Spans;

static Spans spans_from(const ParamSpan *from, int n)
{
    Spans s = {};
    for (int i = 0; i < SPANS; i++) {
        if (i < n) {
            s.offset[i] = from[i].offset;
            s.count[i] = from[i].count;
        }
        s.first[i + 1] = s.first[i] + (int)((s.count[i] + PIECE - 1) / PIECE);
    }
    return s;
}

/* Whether packs fit all spans. */
static bool spans_aligned(const ParamSpan *spans, int n)
{
    for (int i = 0; i < n; i++)
        if (spans[i].offset % Pack<float>::SIZE)
            return false;
    return true;
}

/* The span of this block: the last that begins with its piece or before. */
__device__ static int span_of_block(const Spans &spans)
{
    int s = 0;
    for (int half = SPANS / 2; half; half /= 2)
        if (spans.first[s + half] <= (int)blockIdx.x)
            s += half;
    return s;
}

/* f.at<P>(i) for each pack P of N elements from i on in this block's piece, and for what is left one by one. */
template <int N, typename F> __device__ static void each_of_piece(const Spans &spans, int s, F &f)
{
    int64_t at = (int64_t)(blockIdx.x - spans.first[s]) * PIECE, left = spans.count[s] - at;
    int64_t from = spans.offset[s] + at, n = left < PIECE ? left : (int64_t)PIECE, packed = n / N * N;
    for (int64_t i = threadIdx.x * N; i < packed; i += blockDim.x * N)
        f.template at<Pack<float, N>>(from + i);
    for (int64_t i = packed + threadIdx.x; i < n; i += blockDim.x)
        f.template at<Pack<float, 1>>(from + i);
}

struct SquareSum {
    const float *g;
    double sum;
    template <typename P> __device__ void at(int64_t i)
    {
        P v = load<P>(g, i);
        UNROLL
        for (int j = 0; j < P::SIZE; j++)
            sum += (double)v.v[j] * (double)v.v[j];
    }
};

template <int N> __global__ void k_norm_pieces(Spans spans, const float *g, double *partial)
{
    SquareSum f = { g, 0 };
    each_of_piece<N>(spans, span_of_block(spans), f);
    double s = block_sum(f.sum);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = s;
}

/* One warp a span. */
__global__ void k_norms(Spans spans, const double *partial, float *norm)
{
    double s = 0;
    for (int k = spans.first[blockIdx.x] + (int)threadIdx.x; k < spans.first[blockIdx.x + 1]; k += WARP)
        s += partial[k];
    s = warp_sum(s);
    if (threadIdx.x == 0)
        norm[blockIdx.x] = (float)sqrt(s);
}

static int norms(Backend *be, const NormArgs *a)
{
    for (int at = 0; at < a->nspans; at += SPANS) {
        int n = a->nspans - at < SPANS ? a->nspans - at : SPANS;
        Spans spans = spans_from(a->spans + at, n);
        unsigned pieces = (unsigned)spans.first[SPANS];
        bool packs = packs_fit(0, a->g) && spans_aligned(a->spans + at, n);
        double *partial = (double *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (pieces + 1) * sizeof *partial);
        if (!partial)
            return -1;
        if (pieces && (packs ? LAUNCH(be, k_norm_pieces<4>, pieces, BLOCK, spans, a->g, partial)
                             : LAUNCH(be, k_norm_pieces<1>, pieces, BLOCK, spans, a->g, partial)))
            return -1;
        if (LAUNCH(be, k_norms, (unsigned)n, WARP, spans, partial, a->norm + at))
            return -1;
    }
    return 0;
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

/* The step for one span. */
struct Adamw {
    const AdamwStep &a;
    float clip, shrink, step, root;
    bool skip;

    template <typename P> __device__ void at(int64_t i)
    {
        P g = P();
        if (!skip) {
            g = load<P>(a.g, i);
            P p = load<P>(a.p, i), m = load<P>(a.m, i), v = load<P>(a.v, i);
            UNROLL
            for (int j = 0; j < P::SIZE; j++) {
                float d = g.v[j] = g.v[j] * clip;
                m.v[j] = a.beta1 * m.v[j] + a.rest1 * d;
                v.v[j] = a.beta2 * v.v[j] + a.rest2 * d * d;
                p.v[j] = p.v[j] * shrink - step * m.v[j] / (sqrtf(v.v[j]) * root + a.eps);
            }
            store(a.p, i, p);
            store(a.m, i, m);
            store(a.v, i, v);
        }
        if (a.zero_grad)
            store(a.g, i, P());
        else if (!skip)
            store(a.g, i, g);
    }
};

template <int N> __global__ void k_adamw(Spans spans, SpanRates rates, AdamwStep a)
{
    int s = span_of_block(spans);
    bool skip = rates.skip[s] || (a.gate && !isfinite(*a.gate));
    float clip = a.norm && a.clip > 0 ? fminf(1, a.clip / (a.norm[s] + 1e-6f)) : 1;
    Adamw f = { a, clip, rates.shrink[s], rates.step[s], rates.root[s], skip };
    each_of_piece<N>(spans, s, f);
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
        unsigned pieces = (unsigned)spans.first[SPANS];
        bool packs = packs_fit(0, a->p, a->g, a->m, a->v) && spans_aligned(a->spans + at, n);
        if (pieces && (packs ? LAUNCH(be, k_adamw<4>, pieces, BLOCK, spans, rates, step)
                             : LAUNCH(be, k_adamw<1>, pieces, BLOCK, spans, rates, step)))
            return -1;
    }
    return 0;
}

struct Average {
    float keep, rest;
    __device__ float at(int64_t) const
    {
        return keep;
    }
    __device__ float operator()(float teacher, float student, float) const
    {
        return keep * teacher + rest * student;
    }
};

static int ema(Backend *be, const EmaArgs *a)
{
    return map(be, a->n, (const float *)a->teacher, a->student, a->teacher, false,
               Average{ (float)a->momentum, (float)(1 - a->momentum) });
}

void cuda_train_table(Backend *be)
{
    be->norms = norms;
    be->adamw = adamw;
    be->ema = ema;
}
