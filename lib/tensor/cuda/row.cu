/* Kernels by rows: L2 and weight norm, softmax; see norm.cu for layer norm.
 * Norms: one warp a row. Softmaxes, whose rows may be 65536 long: one block a row. Sums in F32, in a fixed order.
 * Floor: x (backward: x and dy) read and y (dx) written once; a row stays in the cache between its passes. */
#include "tensor/cuda/kernel.cuh"

/* ---- x gamma / max(|x|, eps); gamma a number a row, or NULL */

template <typename X, typename Y>
__global__ void k_normalize(RowArgs a, float eps)
{
    for (EACH_ROW(r, a.rows)) {
        const X *x = (const X *)a.x + r * a.cols;
        Y *y = (Y *)a.y + r * a.cols;
        float sum = 0;
        for (EACH_COL(i, a.cols))
            sum += get(x, i) * get(x, i);
        float length = sqrtf(warp_sum(sum)), f = (a.gamma ? a.gamma[r] : 1) / (length > eps ? length : eps);
        if (a.stat && threadIdx.x % WARP == 0)
            a.stat[r] = length;
        for (EACH_COL(i, a.cols))
            set(y, i, get(x, i) * f);
    }
}

template <typename X, typename Y>
__global__ void k_normalize_backward(RowArgs a, float eps)
{
    for (EACH_ROW(r, a.rows)) {
        const X *x = (const X *)a.x + r * a.cols;
        const Y *dy = (const Y *)a.dy + r * a.cols;
        X *dx = (X *)a.dx + r * a.cols;
        bool clamped = !(a.stat[r] > eps);
        float inverse = 1 / (clamped ? eps : a.stat[r]), s = 0;
        for (EACH_COL(i, a.cols))
            s += get(x, i) * get(dy, i);
        s = warp_sum(s) * inverse;
        if (a.dgamma && threadIdx.x % WARP == 0)
            a.dgamma[r] += s;
        float f = (a.gamma ? a.gamma[r] : 1) * inverse, b = clamped ? 0 : f * s * inverse;
        for (EACH_COL(i, a.dx ? a.cols : 0))
            put(dx, i, f * get(dy, i) - b * get(x, i), a.add);
    }
}

static int normalize(Backend *be, const RowArgs *a, float eps)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_types(a->type, a->type_y, [&](auto x, auto y) {
        typedef decltype(x) X;
        typedef decltype(y) Y;
        return LAUNCH(be, (k_normalize<X, Y>), grid_for(be, a->rows, BLOCK_ROWS), BLOCK, *a, eps);
    });
}

static int normalize_backward(Backend *be, const RowArgs *a, float eps)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_types(a->type, a->type_y, [&](auto x, auto y) {
        typedef decltype(x) X;
        typedef decltype(y) Y;
        return LAUNCH(be, (k_normalize_backward<X, Y>), grid_for(be, a->rows, BLOCK_ROWS), BLOCK, *a, eps);
    });
}

static int l2_normalize(Backend *be, const RowArgs *a)
{
    return normalize(be, a, a->eps);
}

static int l2_normalize_backward(Backend *be, const RowArgs *a)
{
    return normalize_backward(be, a, a->eps);
}

static int weight_norm(Backend *be, const RowArgs *a)
{
    return normalize(be, a, 0);
}

static int weight_norm_backward(Backend *be, const RowArgs *a)
{
    return normalize_backward(be, a, 0);
}

/* ---- softmax */

template <typename T>
__global__ void k_softmax(RowArgs a, bool logarithm)
{
    const T *x = (const T *)a.x + blockIdx.x * a.cols;
    T *y = (T *)a.y + blockIdx.x * a.cols;
    float most = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        most = fmaxf(most, get(x, i));
    most = block_max(most);
    for (int64_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        sum += expf(get(x, i) - most);
    sum = block_sum(sum);
    float shift = most + logf(sum), inverse = 1 / sum;
    for (int64_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        set(y, i, logarithm ? get(x, i) - shift : expf(get(x, i) - most) * inverse);
}

/* y: dx = y (dy - <y, dy>); log y: dx = dy - exp(y) sum(dy). */
template <typename T>
__global__ void k_softmax_backward(RowArgs a, bool logarithm)
{
    const T *y = (const T *)a.y + blockIdx.x * a.cols, *dy = (const T *)a.dy + blockIdx.x * a.cols;
    T *dx = (T *)a.dx + blockIdx.x * a.cols;
    float s = 0;
    for (int64_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        s += logarithm ? get(dy, i) : get(dy, i) * get(y, i);
    s = block_sum(s);
    for (int64_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        put(dx, i, logarithm ? get(dy, i) - expf(get(y, i)) * s : get(y, i) * (get(dy, i) - s), a.add);
}

static int softmaxes(Backend *be, const RowArgs *a, bool logarithm)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_softmax<T>, (unsigned)a->rows, ROW_BLOCK, *a, logarithm);
    });
}

static int softmaxes_backward(Backend *be, const RowArgs *a, bool logarithm)
{
    if (!a->rows || !a->cols || !a->dx)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_softmax_backward<T>, (unsigned)a->rows, ROW_BLOCK, *a, logarithm);
    });
}

static int softmax(Backend *be, const RowArgs *a)
{
    return softmaxes(be, a, false);
}

static int softmax_backward(Backend *be, const RowArgs *a)
{
    return softmaxes_backward(be, a, false);
}

static int log_softmax(Backend *be, const RowArgs *a)
{
    return softmaxes(be, a, true);
}

static int log_softmax_backward(Backend *be, const RowArgs *a)
{
    return softmaxes_backward(be, a, true);
}

void cuda_row_table(Backend *be)
{
    be->l2_normalize = l2_normalize;
    be->l2_normalize_backward = l2_normalize_backward;
    be->weight_norm = weight_norm;
    be->weight_norm_backward = weight_norm_backward;
    be->softmax = softmax;
    be->softmax_backward = softmax_backward;
    be->log_softmax = log_softmax;
    be->log_softmax_backward = log_softmax_backward;
}
