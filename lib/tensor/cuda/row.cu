/* Kernels by rows: layer norm, L2 and weight norm, softmax.
 * Norms: one warp a row. Softmaxes, whose rows may be 65536 long: one block a row. Sums in F32, in a fixed order.
 * Floor: x (backward: x and dy) read and y (dx) written once; a row stays in the cache between its passes. */
#include "tensor/cuda/kernel.cuh"

enum { ROWS = BLOCK / WARP };

/* The row of this warp, and the columns of this lane. */
#define EACH_ROW(r, rows)                                                                   \
    int64_t r = (int64_t)blockIdx.x * ROWS + threadIdx.x / WARP; r < rows; r += (int64_t)gridDim.x * ROWS
#define EACH_COL(i, cols) int64_t i = threadIdx.x % WARP, i##_end = cols; i < i##_end; i += WARP

/* ---- layer norm */

/* Lanes take N columns at a time: a pack, or one. */
#define EACH_PACK(i, cols, N)                                                               \
    int64_t i = threadIdx.x % WARP * (N), i##_end = cols; i < i##_end; i += WARP * (N)

template <typename T, int N>
__global__ void k_layer_norm(RowArgs a)
{
    typedef Pack<T, N> P;
    for (EACH_ROW(r, a.rows)) {
        const T *x = (const T *)a.x + r * a.cols;
        T *y = (T *)a.y + r * a.cols;
        float sum = 0, spread = 0;
        for (EACH_PACK(i, a.cols, N)) {
            P v = load<P>(x, i);
            for (int k = 0; k < N; k++)
                sum += get(v.v, k);
        }
        float mean = warp_sum(sum) / (float)a.cols;
        for (EACH_PACK(i, a.cols, N)) {
            P v = load<P>(x, i);
            for (int k = 0; k < N; k++)
                spread += (get(v.v, k) - mean) * (get(v.v, k) - mean);
        }
        float rstd = 1 / sqrtf(warp_sum(spread) / (float)a.cols + a.eps);
        if (a.stat && threadIdx.x % WARP == 0) {
            a.stat[2 * r] = mean;
            a.stat[2 * r + 1] = rstd;
        }
        for (EACH_PACK(i, a.cols, N)) {
            P v = load<P>(x, i);
            for (int k = 0; k < N; k++) {
                float h = (get(v.v, k) - mean) * rstd;
                set(v.v, k, a.gamma ? h * a.gamma[i + k] + a.beta[i + k] : h);
            }
            store(y, i, v);
        }
    }
}

static int layer_norm(Backend *be, const RowArgs *a)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        unsigned grid = grid_for(be, a->rows, ROWS);
        return packs_fit(a->cols, (const T *)a->x, (T *)a->y) ? LAUNCH(be, (k_layer_norm<T, Pack<T>::SIZE>), grid, BLOCK, *a)
                                                              : LAUNCH(be, (k_layer_norm<T, 1>), grid, BLOCK, *a);
    });
}

/* With h = (x - mean) rstd and w = dy gamma: dx = rstd (w - mean(w) - h mean(w h)). */
template <typename T, int N>
__global__ void k_layer_norm_backward(RowArgs a)
{
    typedef Pack<T, N> P;
    for (EACH_ROW(r, a.rows)) {
        const T *x = (const T *)a.x + r * a.cols, *dy = (const T *)a.dy + r * a.cols;
        T *dx = (T *)a.dx + r * a.cols;
        float mean = a.stat[2 * r], rstd = a.stat[2 * r + 1], sw = 0, swx = 0;
        for (EACH_PACK(i, a.cols, N)) {
            P v = load<P>(x, i), d = load<P>(dy, i);
            for (int k = 0; k < N; k++) {
                float w = get(d.v, k) * (a.gamma ? a.gamma[i + k] : 1);
                sw += w;
                swx += w * (get(v.v, k) - mean);
            }
        }
        sw = warp_sum(sw) / (float)a.cols;
        swx = warp_sum(swx) * rstd * rstd / (float)a.cols;
        for (EACH_PACK(i, a.cols, N)) {
            P v = load<P>(x, i), d = load<P>(dy, i), c = a.add ? load<P>(dx, i) : P();
            for (int k = 0; k < N; k++) {
                float w = get(d.v, k) * (a.gamma ? a.gamma[i + k] : 1);
                put(c.v, k, rstd * (w - sw - (get(v.v, k) - mean) * swx), a.add);
            }
            store(dx, i, c);
        }
    }
}

/* Columns: a block sums 32 columns of a strip of rows, k_strips adds up the strips in their order. */
enum { STRIP_COLS = 32, STRIP_ROWS = 8 };

template <typename T>
__global__ void k_affine_strips(RowArgs a, int64_t strip, float *partial)
{
    __shared__ float g[STRIP_ROWS][STRIP_COLS], b[STRIP_ROWS][STRIP_COLS];
    int64_t col = (int64_t)blockIdx.x * STRIP_COLS + threadIdx.x % STRIP_COLS, from = blockIdx.y * strip;
    int64_t to = from + strip < a.rows ? from + strip : a.rows;
    unsigned lane = threadIdx.x / STRIP_COLS;
    float dgamma = 0, dbeta = 0;
    for (int64_t r = from + lane; col < a.cols && r < to; r += STRIP_ROWS) {
        float d = get((const T *)a.dy, r * a.cols + col);
        dgamma += d * ((get((const T *)a.x, r * a.cols + col) - a.stat[2 * r]) * a.stat[2 * r + 1]);
        dbeta += d;
    }
    g[lane][threadIdx.x % STRIP_COLS] = dgamma;
    b[lane][threadIdx.x % STRIP_COLS] = dbeta;
    __syncthreads();
    if (lane || col >= a.cols)
        return;
    for (int i = 1; i < STRIP_ROWS; i++) {
        dgamma += g[i][threadIdx.x];
        dbeta += b[i][threadIdx.x];
    }
    partial[(2 * blockIdx.y) * a.cols + col] = dgamma;
    partial[(2 * blockIdx.y + 1) * a.cols + col] = dbeta;
}

__global__ void k_strips(int64_t cols, int strips, const float *partial, float *dgamma, float *dbeta)
{
    for (EACH(i, 2 * cols)) {
        float s = 0, *out = i < cols ? dgamma : dbeta;
        int64_t col = i % cols;
        for (int k = 0; k < strips; k++)
            s += partial[(2 * k + i / cols) * cols + col];
        if (out)
            out[col] += s;
    }
}

static int layer_norm_backward(Backend *be, const RowArgs *a)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        if (a->dgamma || a->dbeta) {
            int strips = (int)(a->rows < 64 * STRIP_ROWS ? (a->rows + STRIP_ROWS - 1) / STRIP_ROWS : 64);
            int64_t strip = (a->rows + strips - 1) / strips;
            float *partial = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL,
                                                   (size_t)(2 * strips * a->cols) * sizeof(float));
            dim3 grid((unsigned)((a->cols + STRIP_COLS - 1) / STRIP_COLS), (unsigned)strips);
            if (!partial || LAUNCH(be, k_affine_strips<T>, grid, STRIP_COLS * STRIP_ROWS, *a, strip, partial) ||
                LAUNCH(be, k_strips, grid_for(be, 2 * a->cols, BLOCK), BLOCK, a->cols, strips, partial,
                       a->dgamma, a->dbeta))
                return -1;
        }
        if (!a->dx)
            return 0;
        unsigned grid = grid_for(be, a->rows, ROWS);
        return packs_fit(a->cols, (const T *)a->x, (const T *)a->dy, (T *)a->dx)
                   ? LAUNCH(be, (k_layer_norm_backward<T, Pack<T>::SIZE>), grid, BLOCK, *a)
                   : LAUNCH(be, (k_layer_norm_backward<T, 1>), grid, BLOCK, *a);
    });
}

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
        return LAUNCH(be, (k_normalize<X, Y>), grid_for(be, a->rows, ROWS), BLOCK, *a, eps);
    });
}

static int normalize_backward(Backend *be, const RowArgs *a, float eps)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_types(a->type, a->type_y, [&](auto x, auto y) {
        typedef decltype(x) X;
        typedef decltype(y) Y;
        return LAUNCH(be, (k_normalize_backward<X, Y>), grid_for(be, a->rows, ROWS), BLOCK, *a, eps);
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
    be->layer_norm = layer_norm;
    be->layer_norm_backward = layer_norm_backward;
    be->l2_normalize = l2_normalize;
    be->l2_normalize_backward = l2_normalize_backward;
    be->weight_norm = weight_norm;
    be->weight_norm_backward = weight_norm_backward;
    be->softmax = softmax;
    be->softmax_backward = softmax_backward;
    be->log_softmax = log_softmax;
    be->log_softmax_backward = log_softmax_backward;
}
