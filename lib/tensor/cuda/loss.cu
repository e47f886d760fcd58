/* Losses over many classes: for each row of logits x its share of the loss, and the gradient in one go. All of them are
 *     sum_k q[k] (log q'[k] - log softmax(x / temp)[k]),  with the gradient  softmax(x / temp) sum(q) - q  in x / temp
 * and differ in q, and in whether its own entropy counts (KL).
 * One block a row: one pass over it with a running maximum, one for the gradient, which finds the row in the cache. The rows'
 * losses are then added up by one block in a fixed order.
 * Floor: logits and targets read once, the gradient written, F32 or BF16. */
#include "tensor/cuda/wide.cuh"

__global__ void k_total(LossArgs a, const float *row)
{
    double s = 0;
    for (int64_t i = threadIdx.x; i < a.rows; i += blockDim.x)
        s += (double)row[i];
    s = block_sum(s);
    if (threadIdx.x == 0) {
        *a.loss = a.weight * (float)s;
        if (a.value)
            *a.value = (float)s;
    }
}

/* ---- what q is: begin(a, row), then at<N>(i) for the pack from i on; beside() is what the loss has besides. */

/* Row v of sample b meets target i when i != v. */
struct DinoTarget {
    const float *q0, *q1;

    template <int N> __device__ void begin(const LossArgs &a, int64_t r)
    {
        int64_t view = r / a.batch, sample = r % a.batch;
        q0 = view == 0 ? NULL : a.target + sample * a.k;
        q1 = view == 1 ? NULL : a.target + (a.batch + sample) * a.k;
    }
    template <int N> __device__ Pack<float, N> at(int64_t i)
    {
        typedef Pack<float, N> P;
        P q = q0 ? load<P>(q0, i) : P(), other = q1 ? load<P>(q1, i) : P();
        UNROLL
        for (int j = 0; j < N; j++)
            q.v[j] += other.v[j];
        return q;
    }
    __device__ float beside() const
    {
        return 0;
    }
};

struct SoftTarget {
    const float *q;

    template <int N> __device__ void begin(const LossArgs &a, int64_t r)
    {
        q = a.target + r * a.k;
    }
    template <int N> __device__ Pack<float, N> at(int64_t i)
    {
        return load<Pack<float, N>>(q, i);
    }
    __device__ float beside() const
    {
        return 0;
    }
};

/* A label out of range makes the loss not a number: looking at it first would stop the device. */
struct HardTarget {
    int64_t label;
    bool outside;

    template <int N> __device__ void begin(const LossArgs &a, int64_t r)
    {
        label = a.label[r];
        outside = label != a.ignore && (label < 0 || label >= a.k);
        if (label == a.ignore)
            label = -1; /* no class */
    }
    template <int N> __device__ Pack<float, N> at(int64_t i)
    {
        Pack<float, N> q;
        UNROLL
        for (int j = 0; j < N; j++)
            q.v[j] = i + j == label ? 1 : 0;
        return q;
    }
    __device__ float beside() const
    {
        return outside ? NAN : 0;
    }
};

struct SoftmaxTarget {
    const float *x;
    float lse, own;

    template <int N> __device__ void begin(const LossArgs &a, int64_t r)
    {
        x = a.target + r * a.k;
        own = 0;
        lse = log_sum_exp<N>(x, NULL, 1, a.k);
    }
    template <int N> __device__ Pack<float, N> at(int64_t i)
    {
        Pack<float, N> q = load<Pack<float, N>>(x, i);
        UNROLL
        for (int j = 0; j < N; j++) {
            float l = q.v[j] - lse;
            q.v[j] = expf(l);
            own += q.v[j] * l;
        }
        return q;
    }
    __device__ float beside() const
    {
        return block_sum(own);
    }
};

/* ---- the row */

template <typename T, int N, typename Target>
__global__ void __launch_bounds__(WIDE) k_loss(LossArgs a, float pairs, Target target, float *row)
{
    typedef Pack<float, N> P;
    int64_t r = blockIdx.x;
    const T *x = (const T *)a.logits + r * a.k;
    float f = 1 / a.temp, mass = 0, dot = 0;
    LogSum s;
    target.template begin<N>(a, r);
    for (EACH_WIDE(i, a.k, N)) {
        P v = tempered<N>(x, NULL, f, i), q = target.template at<N>(i);
        s.take(v);
        UNROLL
        for (int j = 0; j < N; j++) {
            mass += q.v[j];
            dot += q.v[j] != 0 ? q.v[j] * v.v[j] : 0; /* logits may be infinite where nothing is wanted */
        }
    }
    float lse = s.of_block();
    mass = block_sum(mass);
    dot = block_sum(dot);
    float loss = lse * mass - dot + target.beside();
    if (threadIdx.x == 0)
        row[r] = loss / pairs;
    if (!a.dlogits)
        return;
    float g = a.weight * f / pairs;
    for (EACH_WIDE(i, a.k, N)) {
        P v = tempered<N>(x, NULL, f, i), q = target.template at<N>(i);
        Pack<T, N> d;
        UNROLL
        for (int j = 0; j < N; j++)
            set(d.v, j, g * (mass * expf(v.v[j] - lse) - q.v[j]));
        store((T *)a.dlogits + r * a.k, i, d);
    }
}

/* pairs: of predictions and targets, over which the loss is the mean. */
template <typename Target> static int by_rows(Backend *be, const LossArgs *a, float pairs)
{
    float *row = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(a->rows + 1) * sizeof(float));
    if (!row)
        return -1;
    int rc = !a->rows ? 0 : by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        unsigned rows = (unsigned)a->rows, block = wide_block(a->k);
        return packs_fit(a->k, (const T *)a->logits, (const T *)a->dlogits) && packs_fit(a->k, a->target)
                   ? LAUNCH(be, (k_loss<T, 4, Target>), rows, block, *a, pairs, Target(), row)
                   : LAUNCH(be, (k_loss<T, 1, Target>), rows, block, *a, pairs, Target(), row);
    });
    return rc || LAUNCH(be, k_total, 1, BLOCK, *a, row) ? -1 : 0;
}

static int dino_loss(Backend *be, const LossArgs *a)
{
    return by_rows<DinoTarget>(be, a, 2.0f * (float)(a->views - 1) * (float)a->batch);
}

static int soft_ce(Backend *be, const LossArgs *a)
{
    return by_rows<SoftTarget>(be, a, (float)a->rows);
}

static int hard_ce(Backend *be, const LossArgs *a)
{
    return by_rows<HardTarget>(be, a, (float)a->rows);
}

static int kl(Backend *be, const LossArgs *a)
{
    return by_rows<SoftmaxTarget>(be, a, (float)a->rows);
}

void cuda_loss_table(Backend *be)
{
    be->dino_loss = dino_loss;
    be->soft_ce = soft_ce;
    be->hard_ce = hard_ce;
    be->kl = kl;
}
