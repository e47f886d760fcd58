/* Losses over many classes, in F32.
 * Both ways one block a row. Forward: one pass with a running maximum; the rows' losses are then added up by one block in a
 * fixed order.
 * Floor: logits and targets read once forward; once more, and dlogits written, backward. */
#include "tensor/cuda/wide.cuh"

__global__ void k_total(int64_t rows, const float *row, float *loss)
{
    double s = 0;
    for (int64_t i = threadIdx.x; i < rows; i += blockDim.x)
        s += (double)row[i];
    s = block_sum(s);
    if (threadIdx.x == 0)
        *loss = (float)s;
}

static float *row_losses(Backend *be, const LossArgs *a)
{
    return (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(a->rows + 1) * sizeof(float));
}

static int total(Backend *be, const LossArgs *a, const float *row)
{
    return LAUNCH(be, k_total, 1, BLOCK, a->rows, row, a->loss);
}

static bool packs(const LossArgs *a)
{
    return packs_fit(a->k, a->logits, a->target, (const float *)a->dlogits);
}

/* - <q0 + q1, log softmax(f x)>; either may be NULL. *lse: the log of the softmax's denominator. */
template <int N>
__device__ static float cross_entropy(const float *x, const float *q0, const float *q1, float f, int64_t k, float *lse)
{
    typedef Pack<float, N> P;
    LogSum s;
    float mass = 0, dot = 0;
    for (EACH_WIDE(i, k, N)) {
        P v = tempered<N>(x, NULL, f, i), a = q0 ? load<P>(q0, i) : P(), b = q1 ? load<P>(q1, i) : P();
        s.take(v);
        UNROLL
        for (int j = 0; j < N; j++) {
            float q = (q0 ? a.v[j] : 0) + (q1 ? b.v[j] : 0);
            mass += q;
            dot += q * v.v[j];
        }
    }
    *lse = s.of_block();
    return *lse * block_sum(mass) - block_sum(dot);
}

/* ---- DINO. Row v of sample b meets target i when i != v. */

__device__ static const float *dino_target(const LossArgs &a, int64_t row, int i)
{
    return row / a.batch == i ? NULL : a.target + (i * a.batch + row % a.batch) * a.k;
}

template <int N> __global__ void __launch_bounds__(WIDE) k_dino_loss(LossArgs a, float *row, float pairs)
{
    int64_t r = blockIdx.x;
    float lse, loss = cross_entropy<N>(a.logits + r * a.k, dino_target(a, r, 0), dino_target(a, r, 1), 1 / a.temp, a.k, &lse);
    if (threadIdx.x == 0) {
        a.stat[r] = lse;
        row[r] = loss / pairs;
    }
}

static int dino_loss(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a), pairs = 2.0f * (float)(a->views - 1) * (float)a->batch;
    if (!row || (a->rows && LAUNCH_WIDE(be, k_dino_loss, packs(a), a->rows, a->k, *a, row, pairs)))
        return -1;
    return total(be, a, row);
}

template <int N> __global__ void __launch_bounds__(WIDE) k_dino_loss_backward(LossArgs a, float pairs)
{
    typedef Pack<float, N> P;
    int64_t r = blockIdx.x;
    const float *q0 = dino_target(a, r, 0), *q1 = dino_target(a, r, 1);
    float f = 1 / a.temp, g = *a.gout * f / pairs, lse = a.stat[r], *out = a.dlogits + r * a.k;
    for (EACH_WIDE(i, a.k, N)) {
        P v = tempered<N>(a.logits + r * a.k, NULL, f, i), s = q0 ? load<P>(q0, i) : P(), t = q1 ? load<P>(q1, i) : P(),
          d = a.add ? load<P>(out, i) : P();
        UNROLL
        for (int j = 0; j < N; j++) {
            float p = expf(v.v[j] - lse);
            put(d.v, j, g * ((q0 ? p - s.v[j] : 0) + (q1 ? p - t.v[j] : 0)), a.add);
        }
        store(out, i, d);
    }
}

static int dino_loss_backward(Backend *be, const LossArgs *a)
{
    float pairs = 2.0f * (float)(a->views - 1) * (float)a->batch;
    return a->rows ? LAUNCH_WIDE(be, k_dino_loss_backward, packs(a), a->rows, a->k, *a, pairs) : 0;
}

/* ---- soft targets that need not sum to 1 */

template <int N> __global__ void __launch_bounds__(WIDE) k_soft_ce(LossArgs a, float *row)
{
    int64_t r = blockIdx.x;
    float lse, loss = cross_entropy<N>(a.logits + r * a.k, a.target + r * a.k, NULL, 1 / a.temp, a.k, &lse);
    if (threadIdx.x == 0) {
        a.stat[r] = lse;
        row[r] = loss / (float)a.rows;
    }
}

static int soft_ce(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a);
    if (!row || (a->rows && LAUNCH_WIDE(be, k_soft_ce, packs(a), a->rows, a->k, *a, row)))
        return -1;
    return total(be, a, row);
}

template <int N> __global__ void __launch_bounds__(WIDE) k_soft_ce_backward(LossArgs a)
{
    typedef Pack<float, N> P;
    int64_t r = blockIdx.x;
    const float *q = a.target + r * a.k;
    float f = 1 / a.temp, g = *a.gout * f / (float)a.rows, mass = 0, lse = a.stat[r], *out = a.dlogits + r * a.k;
    for (EACH_WIDE(i, a.k, N)) {
        P t = load<P>(q, i);
        UNROLL
        for (int j = 0; j < N; j++)
            mass += t.v[j];
    }
    mass = block_sum(mass);
    for (EACH_WIDE(i, a.k, N)) {
        P v = tempered<N>(a.logits + r * a.k, NULL, f, i), t = load<P>(q, i), d = a.add ? load<P>(out, i) : P();
        UNROLL
        for (int j = 0; j < N; j++)
            put(d.v, j, g * (mass * expf(v.v[j] - lse) - t.v[j]), a.add);
        store(out, i, d);
    }
}

static int soft_ce_backward(Backend *be, const LossArgs *a)
{
    return a->rows ? LAUNCH_WIDE(be, k_soft_ce_backward, packs(a), a->rows, a->k, *a) : 0;
}

/* ---- hard labels. A label out of range makes the loss not a number: looking at it first would stop the device. */

template <int N> __global__ void __launch_bounds__(WIDE) k_hard_ce(LossArgs a, float *row)
{
    int64_t r = blockIdx.x, label = a.label[r];
    const float *x = a.logits + r * a.k;
    float lse = log_sum_exp<N>(x, NULL, 1, a.k);
    if (threadIdx.x == 0) {
        bool outside = label < 0 || label >= a.k;
        a.stat[r] = lse;
        row[r] = label == a.ignore ? 0 : outside ? NAN : (lse - x[label]) / (float)a.rows;
    }
}

static int hard_ce(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a);
    if (!row || (a->rows && LAUNCH_WIDE(be, k_hard_ce, packs(a), a->rows, a->k, *a, row)))
        return -1;
    return total(be, a, row);
}

template <int N> __global__ void __launch_bounds__(WIDE) k_hard_ce_backward(LossArgs a)
{
    typedef Pack<float, N> P;
    int64_t r = blockIdx.x, label = a.label[r];
    float f = label == a.ignore ? 0 : *a.gout / (float)a.rows, lse = a.stat[r], *out = a.dlogits + r * a.k;
    for (EACH_WIDE(i, a.k, N)) {
        P v = load<P>(a.logits + r * a.k, i), d = a.add ? load<P>(out, i) : P();
        UNROLL
        for (int j = 0; j < N; j++)
            put(d.v, j, f != 0 ? f * (expf(v.v[j] - lse) - (i + j == label ? 1 : 0)) : 0, a.add);
        store(out, i, d);
    }
}

static int hard_ce_backward(Backend *be, const LossArgs *a)
{
    return a->rows ? LAUNCH_WIDE(be, k_hard_ce_backward, packs(a), a->rows, a->k, *a) : 0;
}

/* ---- KL of two softmaxes */

template <int N> __global__ void __launch_bounds__(WIDE) k_kl(LossArgs a, float *row)
{
    typedef Pack<float, N> P;
    int64_t r = blockIdx.x;
    const float *x = a.logits + r * a.k, *t = a.target + r * a.k;
    float lx = log_sum_exp<N>(x, NULL, 1, a.k), lt = log_sum_exp<N>(t, NULL, 1, a.k), s = 0;
    for (EACH_WIDE(i, a.k, N)) {
        P v = load<P>(x, i), u = load<P>(t, i);
        UNROLL
        for (int j = 0; j < N; j++)
            s += expf(u.v[j] - lt) * ((u.v[j] - lt) - (v.v[j] - lx));
    }
    s = block_sum(s);
    if (threadIdx.x == 0) {
        a.stat[r] = lx;
        row[r] = s / (float)a.rows;
    }
}

static int kl(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a);
    if (!row || (a->rows && LAUNCH_WIDE(be, k_kl, packs(a), a->rows, a->k, *a, row)))
        return -1;
    return total(be, a, row);
}

template <int N> __global__ void __launch_bounds__(WIDE) k_kl_backward(LossArgs a)
{
    typedef Pack<float, N> P;
    int64_t r = blockIdx.x;
    const float *x = a.logits + r * a.k, *t = a.target + r * a.k;
    float lt = log_sum_exp<N>(t, NULL, 1, a.k), f = *a.gout / (float)a.rows, lx = a.stat[r], *out = a.dlogits + r * a.k;
    for (EACH_WIDE(i, a.k, N)) {
        P v = load<P>(x, i), u = load<P>(t, i), d = a.add ? load<P>(out, i) : P();
        UNROLL
        for (int j = 0; j < N; j++)
            put(d.v, j, f * (expf(v.v[j] - lx) - expf(u.v[j] - lt)), a.add);
        store(out, i, d);
    }
}

static int kl_backward(Backend *be, const LossArgs *a)
{
    return a->rows ? LAUNCH_WIDE(be, k_kl_backward, packs(a), a->rows, a->k, *a) : 0;
}

void cuda_loss_table(Backend *be)
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
