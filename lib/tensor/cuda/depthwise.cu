/* Depthwise convolution, channels last: each channel with a filter of its own. Of any shape; see depthwise_tiles.cu for 7 x 7.
 * One thread an element of the output (dx: of the input); neighbouring threads have neighbouring channels. Weights: a
 * block a tap, 32 channels and a strip of positions, then the strips are added up.
 * Floor: x and y (backward: x, dy, dx) moved once; kh kw multiply-adds an element. */
#include "tensor/cuda/sums.cuh"

template <typename T> __global__ void k_forward(ConvArgs a)
{
    for (EACH(i, a.batch * a.ho * a.wo * a.cin)) {
        int64_t c = i % a.cin, ox = i / a.cin % a.wo, oy = i / a.cin / a.wo % a.ho, s = i / a.cin / a.wo / a.ho;
        const T *w = (const T *)a.weight + c * a.kh * a.kw;
        float sum = a.bias ? a.bias[c] : 0;
        for (int ky = 0; ky < a.kh; ky++)
            for (int kx = 0; kx < a.kw; kx++) {
                int64_t y = oy * a.stride + ky - a.pad, x = ox * a.stride + kx - a.pad;
                if (y >= 0 && y < a.h && x >= 0 && x < a.w)
                    sum += get(w, ky * a.kw + kx) * get((const T *)a.x, ((s * a.h + y) * a.w + x) * a.cin + c);
            }
        set((T *)a.y, i, sum);
    }
}

template <typename T> __global__ void k_input_gradient(ConvArgs a)
{
    for (EACH(i, a.batch * a.h * a.w * a.cin)) {
        int64_t c = i % a.cin, x = i / a.cin % a.w, y = i / a.cin / a.w % a.h, s = i / a.cin / a.w / a.h;
        const T *w = (const T *)a.weight + c * a.kh * a.kw;
        float sum = 0;
        for (int ky = 0; ky < a.kh; ky++)
            for (int kx = 0; kx < a.kw; kx++) {
                int64_t oy = y + a.pad - ky, ox = x + a.pad - kx;
                if (oy < 0 || ox < 0 || oy % a.stride || ox % a.stride || oy / a.stride >= a.ho ||
                    ox / a.stride >= a.wo)
                    continue;
                sum += get(w, ky * a.kw + kx) *
                       get((const T *)a.dy, ((s * a.ho + oy / a.stride) * a.wo + ox / a.stride) * a.cin + c);
            }
        put((T *)a.dx, i, sum, a.add);
    }
}

enum { WEIGHT_STRIPS = 16 };

template <typename T> __global__ void k_weight_strips(ConvArgs a, int64_t strip, float *partial)
{
    int64_t c = (int64_t)blockIdx.x * STRIP_COLS + threadIdx.x % STRIP_COLS, n = a.batch * a.ho * a.wo;
    int64_t from = blockIdx.z * strip, to = from + strip < n ? from + strip : n;
    int ky = (int)blockIdx.y / a.kw, kx = (int)blockIdx.y % a.kw;
    float sum = 0;
    for (int64_t i = from + threadIdx.x / STRIP_COLS; c < a.cin && i < to; i += STRIP_LANES) {
        int64_t ox = i % a.wo, oy = i / a.wo % a.ho, s = i / a.wo / a.ho;
        int64_t y = oy * a.stride + ky - a.pad, x = ox * a.stride + kx - a.pad;
        if (y >= 0 && y < a.h && x >= 0 && x < a.w)
            sum += get((const T *)a.dy, i * a.cin + c) * get((const T *)a.x, ((s * a.h + y) * a.w + x) * a.cin + c);
    }
    sum = lanes_sum<STRIP_LANES>(sum);
    if (threadIdx.x < STRIP_COLS && c < a.cin)
        partial[(blockIdx.z * a.cin + c) * a.kh * a.kw + blockIdx.y] = sum;
}

int cuda_depthwise(Backend *be, const ConvArgs *a)
{
    int64_t n = a->batch * a->ho * a->wo * a->cin;
    if (!n)
        return 0;
    if (cuda_tiles_suit(a))
        return cuda_tiles_forward(be, a);
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_forward<T>, grid_for(be, n, BLOCK), BLOCK, *a);
    });
}

template <typename T> static int weight_gradient(Backend *be, const ConvArgs *a)
{
    int64_t positions = a->batch * a->ho * a->wo, weights = a->cin * a->kh * a->kw;
    int strips = (int)(positions < WEIGHT_STRIPS * 64 ? (positions + 63) / 64 : (int64_t)WEIGHT_STRIPS);
    int64_t strip = (positions + strips - 1) / strips;
    float *partial = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(strips * weights) * sizeof(float));
    dim3 grid((unsigned)((a->cin + STRIP_COLS - 1) / STRIP_COLS), (unsigned)(a->kh * a->kw), (unsigned)strips);
    return !partial || LAUNCH(be, k_weight_strips<T>, grid, STRIP_COLS * STRIP_LANES, *a, strip, partial) ||
                   add_strips(be, weights, strips, partial, 1, 1, a->dweight)
               ? -1
               : 0;
}

int cuda_depthwise_backward(Backend *be, const ConvArgs *a)
{
    int64_t in = a->batch * a->h * a->w * a->cin, positions = a->batch * a->ho * a->wo;
    if (!in || !positions)
        return 0;
    ColsumArgs bias = { a->type, positions, a->cout, a->dy, a->dbias, true };
    if (a->dbias && be->colsum(be, &bias))
        return -1;
    if (cuda_tiles_suit(a))
        return (a->dweight && cuda_tiles_weight_gradient(be, a)) || (a->dx && cuda_tiles_input_gradient(be, a)) ? -1 : 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        if (a->dweight && weight_gradient<T>(be, a))
            return -1;
        return a->dx ? LAUNCH(be, k_input_gradient<T>, grid_for(be, in, BLOCK), BLOCK, *a) : 0;
    });
}
