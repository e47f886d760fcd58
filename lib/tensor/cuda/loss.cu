/* Losses over many classes, in F32.
 * Forward: one block a row, one pass with a running maximum; the rows' losses are then added up by one block in a fixed
 * order. Backward: one thread an element.
 * Floor: logits and targets read once forward; once more, and dlogits written, backward. */
#include "tensor/cuda/kernel.cuh"

/* The log of the sum of exp(f x[i]), and the sums of q[i] and q[i] x[i]. q may be NULL. */
typedef struct {
    float lse, q, dot;
} RowSums;

__device__ static float log_sum_exp(const float *x, float f, int64_t k)
{
    float most = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < k; i += blockDim.x) {
        float v = f * x[i];
        if (v > most) {
            sum *= expf(most - v);
            most = v;
        }
        sum += expf(v - most);
    }
    float all = block_max(most);
    sum = block_sum(sum > 0 ? sum * expf(most - all) : sum);
    return all + logf(sum);
}

__device__ static RowSums row_sums(const float *x, const float *q, float f, int64_t k)
{
    RowSums s = { log_sum_exp(x, f, k), 0, 0 };
    for (int64_t i = threadIdx.x; q && i < k; i += blockDim.x) {
        s.q += q[i];
        s.dot += q[i] * x[i];
    }
    s.q = block_sum(s.q);
    s.dot = block_sum(s.dot);
    return s;
}

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

/* ---- DINO. Row v of sample b meets target i when i != v. */

__device__ static const float *dino_target(const LossArgs &a, int64_t row, int i)
{
    return row / a.batch == i ? NULL : a.target + (i * a.batch + row % a.batch) * a.k;
}

__global__ void k_dino_loss(LossArgs a, float *row, float pairs)
{
    int64_t r = blockIdx.x;
    const float *x = a.logits + r * a.k;
    float lse = log_sum_exp(x, 1 / a.temp, a.k), loss = 0;
    for (int i = 0; i < 2; i++) {
        const float *q = dino_target(a, r, i);
        float sum = 0, dot = 0;
        for (int64_t j = threadIdx.x; q && j < a.k; j += blockDim.x) {
            sum += q[j];
            dot += q[j] * x[j];
        }
        sum = block_sum(sum);
        dot = block_sum(dot);
        loss += q ? (lse * sum - dot / a.temp) / pairs : 0;
    }
    if (threadIdx.x == 0) {
        a.stat[r] = lse;
        row[r] = loss;
    }
}

static int dino_loss(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a), pairs = 2.0f * (float)(a->views - 1) * (float)a->batch;
    if (!row || (a->rows && LAUNCH(be, k_dino_loss, (unsigned)a->rows, BLOCK, *a, row, pairs)))
        return -1;
    return total(be, a, row);
}

__global__ void k_dino_loss_backward(LossArgs a, float pairs)
{
    float f = *a.gout / (pairs * a.temp);
    for (EACH(i, a.rows * a.k)) {
        int64_t r = i / a.k, j = i % a.k;
        const float *q0 = dino_target(a, r, 0), *q1 = dino_target(a, r, 1);
        float p = expf(a.logits[i] / a.temp - a.stat[r]);
        float d = (q0 ? p - q0[j] : 0) + (q1 ? p - q1[j] : 0);
        put(a.dlogits, i, f * d, a.add);
    }
}

static int dino_loss_backward(Backend *be, const LossArgs *a)
{
    float pairs = 2.0f * (float)(a->views - 1) * (float)a->batch;
    if (!a->rows || !a->k)
        return 0;
    return LAUNCH(be, k_dino_loss_backward, grid_for(be, a->rows * a->k, BLOCK), BLOCK, *a, pairs);
}

/* ---- soft targets that need not sum to 1 */

__global__ void k_soft_ce(LossArgs a, float *row)
{
    int64_t r = blockIdx.x;
    RowSums s = row_sums(a.logits + r * a.k, a.target + r * a.k, 1 / a.temp, a.k);
    if (threadIdx.x == 0) {
        a.stat[r] = s.lse;
        row[r] = (s.lse * s.q - s.dot / a.temp) / (float)a.rows;
    }
}

static int soft_ce(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a);
    if (!row || (a->rows && LAUNCH(be, k_soft_ce, (unsigned)a->rows, BLOCK, *a, row)))
        return -1;
    return total(be, a, row);
}

__global__ void k_soft_ce_backward(LossArgs a)
{
    int64_t r = blockIdx.x;
    const float *x = a.logits + r * a.k, *q = a.target + r * a.k;
    float f = *a.gout / ((float)a.rows * a.temp), sum = 0;
    for (int64_t i = threadIdx.x; i < a.k; i += blockDim.x)
        sum += q[i];
    sum = block_sum(sum);
    for (int64_t i = threadIdx.x; i < a.k; i += blockDim.x)
        put(a.dlogits, r * a.k + i, f * (sum * expf(x[i] / a.temp - a.stat[r]) - q[i]), a.add);
}

static int soft_ce_backward(Backend *be, const LossArgs *a)
{
    return a->rows ? LAUNCH(be, k_soft_ce_backward, (unsigned)a->rows, BLOCK, *a) : 0;
}

/* ---- hard labels. A label out of range makes the loss not a number: looking at it first would stop the device. */

__global__ void k_hard_ce(LossArgs a, float *row)
{
    int64_t r = blockIdx.x, label = a.label[r];
    const float *x = a.logits + r * a.k;
    float lse = log_sum_exp(x, 1, a.k);
    if (threadIdx.x == 0) {
        bool outside = label < 0 || label >= a.k;
        a.stat[r] = lse;
        row[r] = label == a.ignore ? 0 : outside ? NAN : (lse - x[label]) / (float)a.rows;
    }
}

static int hard_ce(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a);
    if (!row || (a->rows && LAUNCH(be, k_hard_ce, (unsigned)a->rows, BLOCK, *a, row)))
        return -1;
    return total(be, a, row);
}

__global__ void k_hard_ce_backward(LossArgs a)
{
    float f = *a.gout / (float)a.rows;
    for (EACH(i, a.rows * a.k)) {
        int64_t r = i / a.k, label = a.label[r];
        float d = label == a.ignore ? 0 : expf(a.logits[i] - a.stat[r]) - (i % a.k == label ? 1 : 0);
        put(a.dlogits, i, f * d, a.add);
    }
}

static int hard_ce_backward(Backend *be, const LossArgs *a)
{
    if (!a->rows || !a->k)
        return 0;
    return LAUNCH(be, k_hard_ce_backward, grid_for(be, a->rows * a->k, BLOCK), BLOCK, *a);
}

/* ---- KL of two softmaxes */

__global__ void k_kl(LossArgs a, float *row)
{
    int64_t r = blockIdx.x;
    const float *x = a.logits + r * a.k, *t = a.target + r * a.k;
    float lx = log_sum_exp(x, 1, a.k), lt = log_sum_exp(t, 1, a.k), s = 0;
    for (int64_t i = threadIdx.x; i < a.k; i += blockDim.x)
        s += expf(t[i] - lt) * ((t[i] - lt) - (x[i] - lx));
    s = block_sum(s);
    if (threadIdx.x == 0) {
        a.stat[r] = lx;
        row[r] = s / (float)a.rows;
    }
}

static int kl(Backend *be, const LossArgs *a)
{
    float *row = row_losses(be, a);
    if (!row || (a->rows && LAUNCH(be, k_kl, (unsigned)a->rows, BLOCK, *a, row)))
        return -1;
    return total(be, a, row);
}

__global__ void k_kl_backward(LossArgs a)
{
    int64_t r = blockIdx.x;
    const float *x = a.logits + r * a.k, *t = a.target + r * a.k;
    float lt = log_sum_exp(t, 1, a.k), f = *a.gout / (float)a.rows;
    for (int64_t i = threadIdx.x; i < a.k; i += blockDim.x)
        put(a.dlogits, r * a.k + i, f * (expf(x[i] - a.stat[r]) - expf(t[i] - lt)), a.add);
}

static int kl_backward(Backend *be, const LossArgs *a)
{
    return a->rows ? LAUNCH(be, k_kl_backward, (unsigned)a->rows, BLOCK, *a) : 0;
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
