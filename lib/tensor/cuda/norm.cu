/* Layer norm, alone or with the residual before it.
 * One warp a row. Backward with gamma and beta: the blocks go over the rows once, each lane holding its columns' sums; wide or
 * unaligned rows take a second pass, over strips of rows.
 * Floor: x (backward: x and dy) read and y (dx) written once; a row stays in registers or the cache between its passes. */
#include "tensor/cuda/sums.cuh"

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
            UNROLL
            for (int k = 0; k < N; k++)
                sum += get(v.v, k);
        }
        float mean = warp_sum(sum) / (float)a.cols;
        for (EACH_PACK(i, a.cols, N)) {
            P v = load<P>(x, i);
            UNROLL
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
            UNROLL
            for (int k = 0; k < N; k++) {
                float h = (get(v.v, k) - mean) * rstd;
                set(v.v, k, a.gamma ? h * a.gamma[i + k] + a.beta[i + k] : h);
            }
            store(y, i, v);
        }
    }
}

template <int N> struct Floats {
    float v[N];
};

/* N floats from i on, by packs of four. */
template <int N> __device__ inline Floats<N> floats(const float *x, int64_t i)
{
    Floats<N> f;
    UNROLL
    for (int q = 0; q < N; q += 4) {
        Pack<float> v = load<Pack<float>>(x, i + q);
        UNROLL
        for (int k = 0; k < 4; k++)
            f.v[q + k] = v.v[k];
    }
    return f;
}

/* The row in registers: a lane has L packs of it at most. With SUM it is the residual, made here. */
template <typename T, int L, bool SUM>
__global__ void k_layer_norm_packs(RowArgs a, ResidualArgs s)
{
    typedef Pack<T> P;
    enum { N = P::SIZE };
    unsigned lane = threadIdx.x % WARP, of_sample = SUM ? (unsigned)(s.stride / a.cols) : 1;
    for (EACH_ROW(r, a.rows)) {
        P x[L];
        float scale = SUM && s.scale ? s.scale[(unsigned)r / of_sample] : 1, sum = 0, spread = 0;
        UNROLL
        for (int l = 0; l < L; l++) {
            int64_t i = (l * WARP + lane) * N;
            if (i >= a.cols)
                continue;
            if (SUM) {
                P before = s.x ? load<P>((const T *)s.x, r * a.cols + i) : P(), branch = load<P>((const T *)s.y, r * a.cols + i);
                UNROLL
                for (int k = 0; k < N; k++)
                    set(x[l].v, k, (s.x ? get(before.v, k) : 0) + scale * get(branch.v, k));
                store((T *)s.out, r * a.cols + i, x[l]);
            } else {
                x[l] = load<P>((const T *)a.x, r * a.cols + i);
            }
            UNROLL
            for (int k = 0; k < N; k++)
                sum += get(x[l].v, k);
        }
        float mean = warp_sum(sum) / (float)a.cols;
        UNROLL
        for (int l = 0; l < L; l++) {
            UNROLL
            for (int k = 0; k < N; k++)
                if ((l * WARP + lane) * N < a.cols)
                    spread += (get(x[l].v, k) - mean) * (get(x[l].v, k) - mean);
        }
        float rstd = 1 / sqrtf(warp_sum(spread) / (float)a.cols + a.eps);
        if (a.stat && lane == 0) {
            a.stat[2 * r] = mean;
            a.stat[2 * r + 1] = rstd;
        }
        UNROLL
        for (int l = 0; l < L; l++) {
            int64_t i = (l * WARP + lane) * N;
            if (i >= a.cols)
                continue;
            Floats<N> gamma = floats<N>(a.gamma, i), beta = floats<N>(a.beta, i);
            UNROLL
            for (int k = 0; k < N; k++)
                set(x[l].v, k, (get(x[l].v, k) - mean) * rstd * gamma.v[k] + beta.v[k]);
            store((T *)a.y, r * a.cols + i, x[l]);
        }
    }
}

/* How many packs of a row a lane must hold; 0 where rows are too long, or packs don't fit. */
template <typename T> static int lane_packs(const RowArgs *a, bool fits)
{
    int64_t packs = a->cols / (int64_t)Pack<T>::SIZE;
    return fits && a->gamma && packs_fit(a->cols, (const T *)a->x) && packs_fit(0, a->gamma, a->beta) && packs <= 4 * WARP
               ? (int)((packs + WARP - 1) / WARP)
               : 0;
}

template <typename T, bool SUM> static int by_packs(Backend *be, int packs, const RowArgs *a, const ResidualArgs *s)
{
    unsigned grid = grid_for(be, a->rows, BLOCK_ROWS);
    switch (packs) {
    case 1: return LAUNCH(be, (k_layer_norm_packs<T, 1, SUM>), grid, BLOCK, *a, *s);
    case 2: return LAUNCH(be, (k_layer_norm_packs<T, 2, SUM>), grid, BLOCK, *a, *s);
    case 3: return LAUNCH(be, (k_layer_norm_packs<T, 3, SUM>), grid, BLOCK, *a, *s);
    default: return LAUNCH(be, (k_layer_norm_packs<T, 4, SUM>), grid, BLOCK, *a, *s);
    }
}

static int layer_norm(Backend *be, const RowArgs *a)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        bool fits = packs_fit(a->cols, (const T *)a->x, (T *)a->y);
        unsigned grid = grid_for(be, a->rows, BLOCK_ROWS);
        ResidualArgs none = {};
        int packs = lane_packs<T>(a, fits);
        return packs  ? by_packs<T, false>(be, packs, a, &none)
               : fits ? LAUNCH(be, (k_layer_norm<T, Pack<T>::SIZE>), grid, BLOCK, *a)
                      : LAUNCH(be, (k_layer_norm<T, 1>), grid, BLOCK, *a);
    });
}

static int residual_norm(Backend *be, const ResidualNormArgs *a)
{
    const RowArgs *n = &a->norm;
    const ResidualArgs *s = &a->sum;
    if (!n->rows || !n->cols)
        return 0;
    return by_type(n->type, [&](auto t) {
        typedef decltype(t) T;
        int packs = lane_packs<T>(n, n->rows <= UINT32_MAX && packs_fit(n->cols, (const T *)s->x, (const T *)s->y, (T *)n->y));
        return packs ? by_packs<T, true>(be, packs, n, s) : be->residual(be, s) || layer_norm(be, n) ? -1 : 0;
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
            UNROLL
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
            UNROLL
            for (int k = 0; k < N; k++) {
                float w = get(d.v, k) * (a.gamma ? a.gamma[i + k] : 1);
                put(c.v, k, rstd * (w - sw - (get(v.v, k) - mean) * swx), a.add);
            }
            store(dx, i, c);
        }
    }
}

/* The same, and the gradients of gamma and beta: partial [blocks, 2, cols]. A lane has L packs of each row at most. s.out
 * becomes s.scale dx, unless it is NULL. */
template <typename T, int L>
__global__ void k_layer_norm_backward_sums(RowArgs a, ResidualArgs s, float *partial)
{
    typedef Pack<T> P;
    enum { N = P::SIZE };
    __shared__ float part[BLOCK_ROWS][WARP * N];
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, of_sample = s.out ? (unsigned)(s.stride / a.cols) : 1;
    float dgamma[L * N] = {}, dbeta[L * N] = {};
    for (EACH_ROW(r, a.rows)) {
        P x[L], dy[L];
        float mean = a.stat[2 * r], rstd = a.stat[2 * r + 1], sw = 0, swh = 0;
        UNROLL
        for (int l = 0; l < L; l++) {
            int64_t i = (l * WARP + lane) * N;
            if (i >= a.cols)
                continue;
            x[l] = load<P>((const T *)a.x, r * a.cols + i);
            dy[l] = load<P>((const T *)a.dy, r * a.cols + i);
            Floats<N> gamma = floats<N>(a.gamma, i);
            UNROLL
            for (int k = 0; k < N; k++) {
                float d = get(dy[l].v, k), h = (get(x[l].v, k) - mean) * rstd, w = d * gamma.v[k];
                sw += w;
                swh += w * h;
                dgamma[l * N + k] += d * h;
                dbeta[l * N + k] += d;
            }
        }
        if (!a.dx)
            continue;
        sw = warp_sum(sw) / (float)a.cols;
        swh = warp_sum(swh) / (float)a.cols;
        float scale = s.out ? s.scale[(unsigned)r / of_sample] : 1;
        UNROLL
        for (int l = 0; l < L; l++) {
            int64_t i = (l * WARP + lane) * N;
            if (i >= a.cols)
                continue;
            P c = a.add ? load<P>((const T *)a.dx, r * a.cols + i) : P();
            Floats<N> gamma = floats<N>(a.gamma, i);
            UNROLL
            for (int k = 0; k < N; k++) {
                float h = (get(x[l].v, k) - mean) * rstd;
                put(c.v, k, rstd * (get(dy[l].v, k) * gamma.v[k] - sw - h * swh), a.add);
            }
            store((T *)a.dx, r * a.cols + i, c);
            UNROLL
            for (int k = 0; s.out && k < N; k++)
                set(c.v, k, scale * get(c.v, k));
            if (s.out)
                store((T *)s.out, r * a.cols + i, c);
        }
    }
    for (int which = 0; which < 2; which++) {
        UNROLL
        for (int l = 0; l < L; l++) {
            UNROLL
            for (int k = 0; k < N; k++)
                part[warp][lane * N + k] = which ? dbeta[l * N + k] : dgamma[l * N + k];
            __syncthreads();
            for (int c = (int)threadIdx.x; c < WARP * N; c += BLOCK) {
                float s = part[0][c];
                for (int w = 1; w < BLOCK_ROWS; w++)
                    s += part[w][c];
                if (l * WARP * N + c < a.cols)
                    partial[(2 * blockIdx.x + which) * a.cols + l * WARP * N + c] = s;
            }
            __syncthreads();
        }
    }
}

template <typename T, int L> static int backward_sums(Backend *be, const RowArgs *a, const ResidualArgs *s)
{
    int64_t blocks = ((CudaDevice *)be)->processors * 2, needed = (a->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    blocks = needed < blocks ? needed : blocks;
    float *partial = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(2 * blocks * a->cols) * sizeof(float));
    return !partial || LAUNCH(be, (k_layer_norm_backward_sums<T, L>), (unsigned)blocks, BLOCK, *a, *s, partial) ||
                   add_strips(be, a->cols, blocks, partial, 1, 1, a->dgamma, a->dbeta)
               ? -1
               : 0;
}

/* Columns: a block sums 32 columns of a strip of rows. */
template <typename T>
__global__ void k_affine_strips(RowArgs a, int64_t strip, float *partial)
{
    int64_t col = (int64_t)blockIdx.x * STRIP_COLS + threadIdx.x % STRIP_COLS, from = blockIdx.y * strip;
    int64_t to = from + strip < a.rows ? from + strip : a.rows;
    float dgamma = 0, dbeta = 0;
    for (int64_t r = from + threadIdx.x / STRIP_COLS; col < a.cols && r < to; r += STRIP_LANES) {
        float d = get((const T *)a.dy, r * a.cols + col);
        dgamma += d * ((get((const T *)a.x, r * a.cols + col) - a.stat[2 * r]) * a.stat[2 * r + 1]);
        dbeta += d;
    }
    dgamma = lanes_sum<STRIP_LANES>(dgamma);
    dbeta = lanes_sum<STRIP_LANES>(dbeta);
    if (threadIdx.x < STRIP_COLS && col < a.cols) {
        partial[(2 * blockIdx.y) * a.cols + col] = dgamma;
        partial[(2 * blockIdx.y + 1) * a.cols + col] = dbeta;
    }
}

template <typename T> static int affine_gradient(Backend *be, const RowArgs *a)
{
    int64_t strips = a->rows < MOST_STRIPS * STRIP_LANES ? (a->rows + STRIP_LANES - 1) / STRIP_LANES : (int64_t)MOST_STRIPS;
    int64_t strip = (a->rows + strips - 1) / strips;
    float *partial = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(2 * strips * a->cols) * sizeof(float));
    dim3 grid((unsigned)((a->cols + STRIP_COLS - 1) / STRIP_COLS), (unsigned)strips);
    return !partial || LAUNCH(be, k_affine_strips<T>, grid, STRIP_COLS * STRIP_LANES, *a, strip, partial) ||
                   add_strips(be, a->cols, strips, partial, 1, 1, a->dgamma, a->dbeta)
               ? -1
               : 0;
}

template <typename T> static int backward_by_packs(Backend *be, int packs, const RowArgs *a, const ResidualArgs *s)
{
    switch (packs) {
    case 1: return backward_sums<T, 1>(be, a, s);
    case 2: return backward_sums<T, 2>(be, a, s);
    case 3: return backward_sums<T, 3>(be, a, s);
    default: return backward_sums<T, 4>(be, a, s);
    }
}

static int layer_norm_backward(Backend *be, const RowArgs *a)
{
    if (!a->rows || !a->cols)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        unsigned grid = grid_for(be, a->rows, BLOCK_ROWS);
        bool fits = packs_fit(a->cols, (const T *)a->x, (const T *)a->dy, (T *)a->dx);
        int packs = lane_packs<T>(a, fits);
        ResidualArgs none = {};
        if (packs && (a->dgamma || a->dbeta))
            return backward_by_packs<T>(be, packs, a, &none);
        if ((a->dgamma || a->dbeta) && affine_gradient<T>(be, a))
            return -1;
        if (!a->dx)
            return 0;
        return fits ? LAUNCH(be, (k_layer_norm_backward<T, Pack<T>::SIZE>), grid, BLOCK, *a)
                    : LAUNCH(be, (k_layer_norm_backward<T, 1>), grid, BLOCK, *a);
    });
}

static int residual_norm_backward(Backend *be, const ResidualNormArgs *a)
{
    const RowArgs *n = &a->norm;
    const ResidualArgs *s = &a->sum;
    if (!n->rows || !n->cols)
        return 0;
    return by_type(n->type, [&](auto t) {
        typedef decltype(t) T;
        int packs = lane_packs<T>(n, n->rows <= UINT32_MAX && s->scale && (n->dgamma || n->dbeta) &&
                                         packs_fit(n->cols, (const T *)n->dy, (T *)n->dx, (T *)s->out));
        return packs ? backward_by_packs<T>(be, packs, n, s) : layer_norm_backward(be, n) || be->residual(be, s) ? -1 : 0;
    });
}

void cuda_norm_table(Backend *be)
{
    be->layer_norm = layer_norm;
    be->layer_norm_backward = layer_norm_backward;
    be->residual_norm = residual_norm;
    be->residual_norm_backward = residual_norm_backward;
}
