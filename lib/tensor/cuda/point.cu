/* Elementwise kernels.
 * One thread 16 bytes of elements where they are so aligned, else one; grid-stride.
 * Floor: each operand read and the result written once, at the memory's speed. */
#include "tensor/cuda/map.cuh"

struct Factor {
    float factor;
    __device__ float at(int64_t) const
    {
        return factor;
    }
};

struct Sum : Factor {
    __device__ float operator()(float x, float y, float factor) const
    {
        return x + factor * y;
    }
};

struct Product : Factor {
    __device__ float operator()(float x, float y, float factor) const
    {
        return factor * x * y;
    }
};

struct Multiple : Factor {
    __device__ float operator()(float x, float, float factor) const
    {
        return factor * x;
    }
};

static int add(Backend *be, const PointArgs *a)
{
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        const T *x = (const T *)a->x, *y = (const T *)a->y;
        T *out = (T *)a->out;
        return y ? map(be, a->n, x, y, out, a->add, Sum{ { a->factor } }) : map(be, a->n, x, y, out, a->add, Multiple{ { a->factor } });
    });
}

static int mul(Backend *be, const PointArgs *a)
{
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return map(be, a->n, (const T *)a->x, (const T *)a->y, (T *)a->out, a->add, Product{ { a->factor } });
    });
}

/* x Phi(x) and its derivative, exact [Hendrycks 2016]. */
__device__ static float phi(float x)
{
    return 0.5f * (1 + erff(x * 0.70710678f));
}

struct Gelu : Factor {
    __device__ float operator()(float x, float, float) const
    {
        return x * phi(x);
    }
};

static int gelu(Backend *be, const PointArgs *a)
{
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return map(be, a->n, (const T *)a->x, (const T *)NULL, (T *)a->out, false, Gelu());
    });
}

struct GeluBackward : Factor {
    __device__ float operator()(float x, float dy, float) const
    {
        return dy * (phi(x) + x * 0.39894228f * expf(-0.5f * x * x));
    }
};

static int gelu_backward(Backend *be, const PointArgs *a)
{
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return map(be, a->n, (const T *)a->x, (const T *)a->y, (T *)a->out, a->add, GeluBackward());
    });
}

struct Scalar {
    float factor;
    const float *value;
    __device__ float at(int64_t) const
    {
        return factor * *value;
    }
    __device__ float operator()(float, float, float at) const
    {
        return at;
    }
};

static int add_scalar(Backend *be, const PointArgs *a)
{
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return map(be, a->n, (const T *)NULL, (const T *)NULL, (T *)a->out, a->add, Scalar{ a->factor, (const float *)a->y });
    });
}

/* What the factor 1 leaves as it is need not be touched. */
template <typename T> __global__ void k_scale(int64_t n, int64_t packed, const float *factor, T *x)
{
    typedef Pack<T> P;
    float f = *factor;
    if (f == 1)
        return;
    for (EACH(p, packed / P::SIZE)) {
        P v = load<P>(x, p * P::SIZE);
        UNROLL
        for (int k = 0; k < P::SIZE; k++)
            set(v.v, k, f * get(v.v, k));
        store(x, p * P::SIZE, v);
    }
    for (EACH(j, n - packed))
        set(x, packed + j, f * get(x, packed + j));
}

static int scale(Backend *be, const PointArgs *a)
{
    if (!a->n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        int64_t packed = packs_fit(0, (const T *)a->out) ? a->n / Pack<T>::SIZE * Pack<T>::SIZE : 0;
        return LAUNCH(be, k_scale<T>, grid_for(be, packed ? a->n / Pack<T>::SIZE + 1 : a->n, BLOCK), BLOCK, a->n, packed,
                      (const float *)a->y, (T *)a->out);
    });
}

struct Branch {
    const float *scale; /* one a sample, of `stride` elements */
    int64_t stride;
    __device__ float at(int64_t i) const
    {
        return scale ? scale[i / stride] : 1;
    }
    __device__ float operator()(float x, float y, float at) const
    {
        return x + at * y;
    }
};

static int residual(Backend *be, const ResidualArgs *a)
{
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return map(be, a->samples * a->stride, (const T *)a->x, (const T *)a->y, (T *)a->out, false,
                   Branch{ a->scale, a->stride }, a->stride);
    });
}

template <typename From, typename To>
__global__ void k_cast(int64_t n, int64_t packed, const From *x, To *out, bool add)
{
    typedef Pack<From, 4> In;
    typedef Pack<To, 4> Out;
    for (EACH(p, packed / 4)) {
        In a = load<In>(x, p * 4);
        Out c = add ? load<Out>(out, p * 4) : Out();
        UNROLL
        for (int k = 0; k < 4; k++)
            put(c.v, k, get(a.v, k), add);
        store(out, p * 4, c);
    }
    for (EACH(j, n - packed))
        put(out, packed + j, get(x, packed + j), add);
}

static int cast(Backend *be, const CastArgs *a)
{
    if (!a->n)
        return 0;
    return by_types(a->from, a->to, [&](auto from, auto to) {
        typedef decltype(from) From;
        typedef decltype(to) To;
        int64_t packed = packs_fit(0, (const From *)a->x, (const To *)a->out) ? a->n / 4 * 4 : 0;
        return LAUNCH(be, (k_cast<From, To>), grid_for(be, packed ? a->n / 4 + 1 : a->n, BLOCK), BLOCK, a->n, packed,
                      (const From *)a->x, (To *)a->out, a->add);
    });
}

/* A thread has N columns of all its rows: a pack, or one. */
template <typename T, int N>
__global__ void k_bias_gelu(int64_t rows, int64_t cols, int64_t ld, const float *bias, T *x, T *out)
{
    typedef Pack<T, N> P;
    int64_t c = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    float b[N];
    if (c >= cols)
        return;
    UNROLL
    for (int k = 0; k < N; k++)
        b[k] = bias ? bias[c + k] : 0;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        P in = load<P>(x, r * ld + c), y;
        UNROLL
        for (int k = 0; k < N; k++) {
            float v = get(in.v, k) + b[k];
            set(in.v, k, v);
            set(y.v, k, v * phi(v));
        }
        if (bias && x != out)
            store(x, r * ld + c, in);
        if (out)
            store(out, r * ld + c, y);
    }
}

template <typename T, int N>
static int bias_gelu(Backend *be, int64_t rows, int64_t cols, int64_t ld, const float *bias, T *x, T *out)
{
    unsigned across = (unsigned)((cols + ROW_BLOCK * N - 1) / (ROW_BLOCK * N));
    dim3 grid(across, grid_for(be, rows * across, 1) / across + 1);
    return LAUNCH(be, (k_bias_gelu<T, N>), grid, ROW_BLOCK, rows, cols, ld, bias, x, out);
}

int cuda_bias_gelu(Backend *be, DType type, int64_t rows, int64_t cols, int64_t ld, const float *bias, void *x, void *out)
{
    if (!rows || !cols || (!bias && !out))
        return 0;
    return by_type(type, [&](auto t) {
        typedef decltype(t) T;
        T *in = (T *)x, *to = (T *)out;
        return packs_fit(ld, in, to) && packs_fit(cols, in) ? bias_gelu<T, Pack<T>::SIZE>(be, rows, cols, ld, bias, in, to)
                                                            : bias_gelu<T, 1>(be, rows, cols, ld, bias, in, to);
    });
}

void cuda_point_table(Backend *be)
{
    be->add = add;
    be->mul = mul;
    be->gelu = gelu;
    be->gelu_backward = gelu_backward;
    be->add_scalar = add_scalar;
    be->scale = scale;
    be->residual = residual;
    be->cast = cast;
}
