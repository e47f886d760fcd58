/* Kernels that move and resample: pixels, patches, copies, transposes, tokens, position grids.
 * One thread an element; of tokens, patches and copies 16 bytes where they are so aligned, of pixels four. The transpose goes
 * through tiles of shared memory, so that both sides are read in rows.
 * Floor: each element read and written once. */
#include "tensor/cuda/kernel.cuh"

/* N neighbouring pixels a thread, and a block has pixels of one image only. */
template <typename T, int N> __global__ void k_normalize_u8(NormalizeArgs a)
{
    const float mean[3] = IMAGE_MEAN, deviation[3] = IMAGE_DEVIATION;
    int64_t plane = a.h * a.w, at = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (at >= plane)
        return;
    const uint8_t *x = a.x + 3 * (blockIdx.x * plane + at);
    T *out = (T *)a.out + 3 * blockIdx.x * plane + at;
    Pack<uint8_t, N> part[3];
    UNROLL
    for (int i = 0; i < 3; i++)
        part[i] = load<Pack<uint8_t, N>>(x, i * N);
    UNROLL
    for (int c = 0; c < 3; c++) {
        Pack<T, N> y;
        UNROLL
        for (int j = 0; j < N; j++) {
            int i = 3 * j + c; /* among the 3 N bytes */
            set(y.v, j, ((float)part[i / N].v[i % N] / 255.0f - mean[c]) / deviation[c]);
        }
        store(out, c * plane, y);
    }
}

static int normalize_u8(Backend *be, const NormalizeArgs *a)
{
    enum { N = 4 };
    int64_t plane = a->h * a->w;
    if (!a->batch || !plane)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        bool packs = plane % N == 0 && packs_fit(0, a->x, (const uint8_t *)a->out);
        dim3 grid((unsigned)a->batch, (unsigned)((plane / (packs ? N : 1) + BLOCK - 1) / BLOCK));
        return packs ? LAUNCH(be, (k_normalize_u8<T, N>), grid, BLOCK, *a) : LAUNCH(be, (k_normalize_u8<T, 1>), grid, BLOCK, *a);
    });
}

/* ---- patches: element i of the rows lies at image_at(i) */

__device__ static int64_t image_at(const PatchArgs &a, int64_t i)
{
    int64_t p = a.patch, cols = a.w / p, rows = a.h / p, in = a.channels * p * p;
    int64_t k = i % in, patch = i / in, c = k / (p * p), y = k / p % p, x = k % p;
    int64_t sample = patch / (rows * cols), row = patch / cols % rows, col = patch % cols;
    return ((sample * a.channels + c) * a.h + row * p + y) * a.w + col * p + x;
}

static int64_t patch_elements(const PatchArgs *a)
{
    return a->batch * (a->h / a->patch) * (a->w / a->patch) * a->channels * a->patch * a->patch;
}

/* N elements at a time, a pack or one: where they begin takes many divisions. */
template <typename T, int N> __global__ void k_patches(PatchArgs a, int64_t n)
{
    for (EACH(p, n / N))
        store((T *)a.rows, p * N, load<Pack<T, N>>((const T *)a.image, image_at(a, p * N)));
}

template <typename T> __global__ void k_patches_backward(PatchArgs a, int64_t n)
{
    for (EACH(i, n)) {
        int64_t at = image_at(a, i);
        put((T *)a.dimage, at, get((const T *)a.rows, i), true);
    }
}

static int patches(Backend *be, const PatchArgs *a)
{
    int64_t n = patch_elements(a);
    if (!n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        enum { SIZE = Pack<T>::SIZE };
        return packs_fit(a->patch, (const T *)a->image, (T *)a->rows) && packs_fit(a->w, (T *)a->rows)
                   ? LAUNCH(be, (k_patches<T, SIZE>), grid_for(be, n / SIZE, BLOCK), BLOCK, *a, n)
                   : LAUNCH(be, (k_patches<T, 1>), grid_for(be, n, BLOCK), BLOCK, *a, n);
    });
}

static int patches_backward(Backend *be, const PatchArgs *a)
{
    int64_t n = patch_elements(a);
    if (!a->add &&
        be->zero(be, a->dimage, (size_t)(a->batch * a->channels * a->h * a->w) * dtype_size(a->type)))
        return -1;
    if (!n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_patches_backward<T>, grid_for(be, n, BLOCK), BLOCK, *a, n);
    });
}

/* ---- copies */

template <typename T, int N> __global__ void k_copy(CopyArgs a)
{
    typedef Pack<T, N> P;
    int64_t n = a.n / N;
    for (EACH(i, a.outer * a.inner * n)) {
        int64_t k = i % n * N, inner = i / n % a.inner, outer = i / n / a.inner;
        int64_t to = outer * a.out_outer + inner * a.out_inner + k;
        P x = load<P>((const T *)a.x, outer * a.x_outer + inner * a.x_inner + k), y = a.add ? load<P>((const T *)a.out, to) : P();
        UNROLL
        for (int j = 0; j < N; j++)
            put(y.v, j, get(x.v, j), a.add);
        store((T *)a.out, to, y);
    }
}

static int copy(Backend *be, const CopyArgs *a)
{
    int64_t n = a->outer * a->inner * a->n;
    if (!n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        enum { SIZE = Pack<T>::SIZE };
        bool packs = packs_fit(a->n, (const T *)a->x, (T *)a->out) && packs_fit(a->x_outer, (T *)a->out) &&
                     packs_fit(a->x_inner, (T *)a->out) && packs_fit(a->out_outer, (T *)a->out) &&
                     packs_fit(a->out_inner, (T *)a->out);
        return packs ? LAUNCH(be, (k_copy<T, SIZE>), grid_for(be, n / SIZE, BLOCK), BLOCK, *a)
                     : LAUNCH(be, (k_copy<T, 1>), grid_for(be, n, BLOCK), BLOCK, *a);
    });
}

enum { TILE = 32, TILE_ROWS = BLOCK / TILE };

template <typename T> __global__ void k_transpose(TransposeArgs a)
{
    __shared__ float tile[TILE][TILE + 1]; /* one more, so that columns lie in different banks */
    int64_t tiles_a = (a.a + TILE - 1) / TILE, tiles_b = (a.b + TILE - 1) / TILE;
    unsigned x = threadIdx.x % TILE, y = threadIdx.x / TILE;
    for (int64_t t = blockIdx.x; t < a.batch * tiles_a * tiles_b; t += gridDim.x) {
        int64_t base = t / (tiles_a * tiles_b) * a.a * a.b, r0 = t / tiles_b % tiles_a * TILE, c0 = t % tiles_b * TILE;
        for (unsigned i = y; i < TILE; i += TILE_ROWS)
            if (r0 + i < a.a && c0 + x < a.b)
                tile[i][x] = get((const T *)a.x, base + (r0 + i) * a.b + c0 + x);
        __syncthreads();
        for (unsigned i = y; i < TILE; i += TILE_ROWS)
            if (c0 + i < a.b && r0 + x < a.a)
                put((T *)a.out, base + (c0 + i) * a.a + r0 + x, tile[x][i], a.add);
        __syncthreads();
    }
}

static int transpose(Backend *be, const TransposeArgs *a)
{
    int64_t tiles = a->batch * ((a->a + TILE - 1) / TILE) * ((a->b + TILE - 1) / TILE);
    if (!tiles)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_transpose<T>, grid_for(be, tiles, 1), BLOCK, *a);
    });
}

/* ---- tokens and positions */

/* N columns of a token a thread. */
template <typename T, int N> __global__ void k_tokens(TokensArgs a)
{
    typedef Pack<T, N> P;
    int64_t skip = a.cls ? 1 : 0, n = a.tokens + skip, cols = a.dim / N;
    for (EACH(i, a.batch * n * cols)) {
        int64_t d = i % cols * N, j = i / cols % n, b = i / cols / n;
        P v = j < skip ? P() : load<P>((const T *)a.patches, (b * a.tokens + j - skip) * a.dim + d);
        UNROLL
        for (int k = 0; k < N; k++)
            set(v.v, k, (j < skip ? a.cls[d + k] : get(v.v, k)) + (a.pos ? a.pos[j * a.dim + d + k] : 0));
        store((T *)a.out, i * N, v);
    }
}

static int tokens(Backend *be, const TokensArgs *a)
{
    int64_t n = a->batch * (a->tokens + (a->cls ? 1 : 0)) * a->dim;
    if (!n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        enum { SIZE = Pack<T>::SIZE };
        return packs_fit(a->dim, (const T *)a->patches, (T *)a->out)
                   ? LAUNCH(be, (k_tokens<T, SIZE>), grid_for(be, n / SIZE, BLOCK), BLOCK, *a)
                   : LAUNCH(be, (k_tokens<T, 1>), grid_for(be, n, BLOCK), BLOCK, *a);
    });
}

__global__ void k_resize(ResizeArgs a)
{
    for (EACH(i, (a.skip + a.rows * a.cols) * a.dim)) {
        int64_t d = i % a.dim, j = i / a.dim - a.skip, r = j / a.cols, c = j % a.cols;
        const float *x = a.x + a.skip * a.dim + d;
        float s = j < 0 ? a.x[i] : 0;
        for (int k = 0; k < (j < 0 ? 0 : 16); k++)
            s += a.weight_r[4 * r + k / 4] * a.weight_c[4 * c + k % 4] *
                 x[(a.index_r[4 * r + k / 4] * a.grid + a.index_c[4 * c + k % 4]) * a.dim];
        a.out[i] = s;
    }
}

/* The weight with which position j of the small grid takes part in position i of the large one. */
__device__ static float tap(const float *weight, const int32_t *index, int64_t i, int64_t j)
{
    float w = 0;
    UNROLL
    for (int k = 0; k < 4; k++)
        w += index[4 * i + k] == j ? weight[4 * i + k] : 0;
    return w;
}

__global__ void k_resize_backward(ResizeArgs a)
{
    for (EACH(i, (a.skip + a.grid * a.grid) * a.dim)) {
        int64_t d = i % a.dim, j = i / a.dim - a.skip;
        float s = j < 0 ? a.x[i] : 0;
        for (int64_t r = 0; j >= 0 && r < a.rows; r++) {
            float wr = tap(a.weight_r, a.index_r, r, j / a.grid);
            for (int64_t c = 0; wr != 0 && c < a.cols; c++)
                s += wr * tap(a.weight_c, a.index_c, c, j % a.grid) *
                     a.x[(a.skip + r * a.cols + c) * a.dim + d];
        }
        a.out[i] += s;
    }
}

static int resize(Backend *be, const ResizeArgs *a)
{
    int64_t n = (a->skip + a->rows * a->cols) * a->dim;
    return n ? LAUNCH(be, k_resize, grid_for(be, n, BLOCK), BLOCK, *a) : 0;
}

static int resize_backward(Backend *be, const ResizeArgs *a)
{
    int64_t n = (a->skip + a->grid * a->grid) * a->dim;
    return n ? LAUNCH(be, k_resize_backward, grid_for(be, n, BLOCK), BLOCK, *a) : 0;
}

void cuda_layout_table(Backend *be)
{
    be->normalize_u8 = normalize_u8;
    be->patches = patches;
    be->patches_backward = patches_backward;
    be->copy = copy;
    be->transpose = transpose;
    be->tokens = tokens;
    be->resize = resize;
    be->resize_backward = resize_backward;
}
