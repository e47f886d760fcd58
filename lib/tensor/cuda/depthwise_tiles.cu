/* Depthwise convolution of 7 x 7, stride 1, as large as its input: ConvNeXt's.
 * A block has 32 channels of a tile of one sample in shared memory, its border included; one lane a channel, one warp a row.
 * Weights: a warp a row of the filter, over a strip of tiles, then the strips are added up.
 * Floor: x and y (backward: x, dy, dx) moved once, borders again from the cache; 49 multiply-adds an element. */
#include "tensor/cuda/sums.cuh"

enum { K = 7, PAD = K / 2, TAPS = K * K, WARPS = BLOCK / WARP };
enum { ROWS = WARPS, COLS = 16, WEIGHT_COLS = 8, WEIGHT_STRIPS = 32 };

/* The tiles of all samples, in their order. */
struct Tiles {
    int across, down;
    int64_t all;
};

static Tiles tiles_of(const ConvArgs *a, int cols)
{
    Tiles t = { (int)((a->w + cols - 1) / cols), (int)((a->h + ROWS - 1) / ROWS), 0 };
    t.all = a->batch * t.across * t.down;
    return t;
}

/* The part of sample s from row y0, column x0 on, 0 outside of it: channel c in this lane's place. */
template <typename T, int TILE_ROWS, int TILE_COLS>
__device__ static void load_tile(const ConvArgs &a, const T *from, int64_t s, int y0, int x0, int64_t c,
                                 float (*tile)[TILE_COLS][WARP])
{
    for (int p = threadIdx.x / WARP; p < TILE_ROWS * TILE_COLS; p += WARPS) {
        int y = y0 + p / TILE_COLS, x = x0 + p % TILE_COLS;
        bool inside = c < a.cin && y >= 0 && y < a.h && x >= 0 && x < a.w;
        tile[p / TILE_COLS][p % TILE_COLS][threadIdx.x % WARP] = inside ? get(from, ((s * a.h + y) * a.w + x) * a.cin + c) : 0;
    }
}

/* y = x * w + bias; with flipped, w turned by 180 degrees: the gradient of x from that of y. */
template <typename T>
__global__ void k_tiles(ConvArgs a, Tiles t, const T *from, T *to, const float *bias, bool flipped, bool add)
{
    __shared__ float tile[ROWS + K - 1][COLS + K - 1][WARP], weight[WARP * TAPS];
    int64_t first = (int64_t)blockIdx.y * WARP, c = first + threadIdx.x % WARP, s = blockIdx.x / (t.across * t.down);
    int at = (int)(blockIdx.x % (t.across * t.down)), y0 = at / t.across * ROWS, x0 = at % t.across * COLS;
    int y = y0 + (int)threadIdx.x / WARP;
    for (int i = threadIdx.x; i < WARP * TAPS; i += BLOCK)
        weight[i] = first * TAPS + i < a.cin * TAPS ? get((const T *)a.weight, first * TAPS + i) : 0;
    load_tile<T, ROWS + K - 1, COLS + K - 1>(a, from, s, y0 - PAD, x0 - PAD, c, tile);
    __syncthreads();
    if (c >= a.cin || y >= a.h)
        return;
    float sum[COLS];
    for (int x = 0; x < COLS; x++)
        sum[x] = bias ? bias[c] : 0;
    for (int ky = 0; ky < K; ky++) {
        const float *w = weight + threadIdx.x % WARP * TAPS + (flipped ? TAPS - 1 - ky * K : ky * K);
        float tap[K];
        for (int kx = 0; kx < K; kx++)
            tap[kx] = flipped ? w[-kx] : w[kx];
        UNROLL
        for (int x = 0; x < COLS + K - 1; x++) {
            float v = tile[threadIdx.x / WARP + ky][x][threadIdx.x % WARP];
            UNROLL
            for (int kx = 0; kx < K; kx++)
                if (x - kx >= 0 && x - kx < COLS)
                    sum[x - kx] += tap[kx] * v;
        }
    }
    UNROLL
    for (int x = 0; x < COLS; x++)
        if (x0 + x < a.w)
            put(to, ((s * a.h + y) * a.w + x0 + x) * a.cin + c, sum[x], add);
}

template <typename T>
__global__ void k_weight_tiles(ConvArgs a, Tiles t, int64_t strip, float *partial)
{
    __shared__ float in[ROWS + K - 1][WEIGHT_COLS + K - 1][WARP], out[ROWS][WEIGHT_COLS][WARP];
    int64_t c = (int64_t)blockIdx.x * WARP + threadIdx.x % WARP, from = blockIdx.y * strip;
    int64_t to = from + strip < t.all ? from + strip : t.all;
    int ky = (int)threadIdx.x / WARP;
    float sum[K] = { 0 };
    for (int64_t i = from; i < to; i++) {
        int64_t s = i / (t.across * t.down);
        int at = (int)(i % (t.across * t.down)), y0 = at / t.across * ROWS, x0 = at % t.across * WEIGHT_COLS;
        load_tile<T, ROWS + K - 1, WEIGHT_COLS + K - 1>(a, (const T *)a.x, s, y0 - PAD, x0 - PAD, c, in);
        load_tile<T, ROWS, WEIGHT_COLS>(a, (const T *)a.dy, s, y0, x0, c, out);
        __syncthreads();
        for (int y = 0; ky < K && y < ROWS; y++) {
            float d[WEIGHT_COLS];
            UNROLL
            for (int x = 0; x < WEIGHT_COLS; x++)
                d[x] = out[y][x][threadIdx.x % WARP];
            UNROLL
            for (int x = 0; x < WEIGHT_COLS + K - 1; x++) {
                float v = in[y + ky][x][threadIdx.x % WARP];
                UNROLL
                for (int kx = 0; kx < K; kx++)
                    if (x - kx >= 0 && x - kx < WEIGHT_COLS)
                        sum[kx] += v * d[x - kx];
            }
        }
        __syncthreads();
    }
    if (ky >= K || c >= a.cin)
        return;
    for (int kx = 0; kx < K; kx++)
        partial[((int64_t)blockIdx.y * a.cin + c) * TAPS + ky * K + kx] = sum[kx];
}

bool cuda_tiles_suit(const ConvArgs *a)
{
    return a->kh == K && a->kw == K && a->stride == 1 && a->pad == PAD && a->batch * a->h * a->w < (int64_t)1 << 31;
}

static int convolve(Backend *be, const ConvArgs *a, const void *from, void *to, const float *bias, bool flipped, bool add)
{
    Tiles t = tiles_of(a, COLS);
    dim3 grid((unsigned)t.all, (unsigned)((a->cin + WARP - 1) / WARP));
    return by_type(a->type, [&](auto type) {
        typedef decltype(type) T;
        return LAUNCH(be, k_tiles<T>, grid, BLOCK, *a, t, (const T *)from, (T *)to, bias, flipped, add);
    });
}

int cuda_tiles_forward(Backend *be, const ConvArgs *a)
{
    return convolve(be, a, a->x, a->y, a->bias, false, false);
}

int cuda_tiles_input_gradient(Backend *be, const ConvArgs *a)
{
    return convolve(be, a, a->dy, a->dx, NULL, true, a->add);
}

int cuda_tiles_weight_gradient(Backend *be, const ConvArgs *a)
{
    Tiles t = tiles_of(a, WEIGHT_COLS);
    int64_t weights = a->cin * TAPS, strip = (t.all + WEIGHT_STRIPS - 1) / WEIGHT_STRIPS;
    int strips = (int)((t.all + strip - 1) / strip);
    float *partial = (float *)cuda_scratch(be, CUDA_SCRATCH_PARTIAL, (size_t)(strips * weights) * sizeof(float));
    dim3 grid((unsigned)((a->cin + WARP - 1) / WARP), (unsigned)strips);
    return !partial || by_type(a->type, [&](auto type) {
               typedef decltype(type) T;
               return LAUNCH(be, k_weight_tiles<T>, grid, BLOCK, *a, t, strip, partial);
           }) || add_strips(be, weights, strips, partial, 1, 1, a->dweight)
               ? -1
               : 0;
}
