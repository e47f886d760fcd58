/* Elementwise kernels.
 * One thread an element, grid-stride.
 * Floor: each operand read and the result written once, at the memory's speed. */
#include "tensor/cuda/kernel.cuh"

template <typename T>
__global__ void k_add(int64_t n, const T *x, const T *y, float factor, T *out, bool add)
{
    for (EACH(i, n))
        put(out, i, y ? get(x, i) + factor * get(y, i) : factor * get(x, i), add);
}

static int add(Backend *be, const PointArgs *a)
{
    if (!a->n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_add<T>, grid_for(be, a->n, BLOCK), BLOCK, a->n, (const T *)a->x, (const T *)a->y,
                      a->factor, (T *)a->out, a->add);
    });
}

template <typename T>
__global__ void k_mul(int64_t n, const T *x, const T *y, float factor, T *out, bool add)
{
    for (EACH(i, n))
        put(out, i, factor * get(x, i) * get(y, i), add);
}

static int mul(Backend *be, const PointArgs *a)
{
    if (!a->n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_mul<T>, grid_for(be, a->n, BLOCK), BLOCK, a->n, (const T *)a->x, (const T *)a->y,
                      a->factor, (T *)a->out, a->add);
    });
}

/* x Phi(x) and its derivative, exact [Hendrycks 2016]. */
__device__ static float phi(float x)
{
    return 0.5f * (1 + erff(x * 0.70710678f));
}

template <typename T> __global__ void k_gelu(int64_t n, const T *x, T *out)
{
    for (EACH(i, n)) {
        float v = get(x, i);
        set(out, i, v * phi(v));
    }
}

static int gelu(Backend *be, const PointArgs *a)
{
    if (!a->n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_gelu<T>, grid_for(be, a->n, BLOCK), BLOCK, a->n, (const T *)a->x, (T *)a->out);
    });
}

template <typename T> __global__ void k_gelu_backward(int64_t n, const T *x, const T *dy, T *out, bool add)
{
    for (EACH(i, n)) {
        float v = get(x, i);
        put(out, i, get(dy, i) * (phi(v) + v * 0.39894228f * expf(-0.5f * v * v)), add);
    }
}

static int gelu_backward(Backend *be, const PointArgs *a)
{
    if (!a->n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_gelu_backward<T>, grid_for(be, a->n, BLOCK), BLOCK, a->n, (const T *)a->x,
                      (const T *)a->y, (T *)a->out, a->add);
    });
}

template <typename T> __global__ void k_add_scalar(int64_t n, float factor, const float *y, T *out, bool add)
{
    for (EACH(i, n))
        put(out, i, factor * y[0], add);
}

static int add_scalar(Backend *be, const PointArgs *a)
{
    if (!a->n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_add_scalar<T>, grid_for(be, a->n, BLOCK), BLOCK, a->n, a->factor, (const float *)a->y,
                      (T *)a->out, a->add);
    });
}

template <typename T>
__global__ void k_residual(int64_t n, int64_t stride, const T *x, const T *y, const float *scale, T *out)
{
    for (EACH(i, n))
        set(out, i, (x ? get(x, i) : 0) + (scale ? scale[i / stride] : 1) * get(y, i));
}

static int residual(Backend *be, const ResidualArgs *a)
{
    int64_t n = a->samples * a->stride;
    if (!n)
        return 0;
    return by_type(a->type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_residual<T>, grid_for(be, n, BLOCK), BLOCK, n, a->stride, (const T *)a->x,
                      (const T *)a->y, a->scale, (T *)a->out);
    });
}

template <typename From, typename To> __global__ void k_cast(int64_t n, const From *x, To *out, bool add)
{
    for (EACH(i, n))
        put(out, i, get(x, i), add);
}

static int cast(Backend *be, const CastArgs *a)
{
    if (!a->n)
        return 0;
    return by_types(a->from, a->to, [&](auto from, auto to) {
        typedef decltype(from) From;
        typedef decltype(to) To;
        return LAUNCH(be, (k_cast<From, To>), grid_for(be, a->n, BLOCK), BLOCK, a->n, (const From *)a->x,
                      (To *)a->out, a->add);
    });
}

template <typename T>
__global__ void k_bias_gelu(int64_t rows, int64_t cols, int64_t ld, const float *bias, T *x, T *out)
{
    int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= cols)
        return;
    float b = bias ? bias[c] : 0;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v = get(x, r * ld + c) + b;
        if (bias)
            set(x, r * ld + c, v);
        if (out)
            set(out, r * ld + c, v * phi(v));
    }
}

int cuda_bias_gelu(Backend *be, DType type, int64_t rows, int64_t cols, int64_t ld, const float *bias, void *x, void *out)
{
    if (!rows || !cols || (!bias && !out))
        return 0;
    unsigned across = (unsigned)((cols + ROW_BLOCK - 1) / ROW_BLOCK);
    dim3 grid(across, grid_for(be, rows * across, 1) / across + 1);
    return by_type(type, [&](auto t) {
        typedef decltype(t) T;
        return LAUNCH(be, k_bias_gelu<T>, grid, ROW_BLOCK, rows, cols, ld, bias, (T *)x, (T *)out);
    });
}

void cuda_point_table(Backend *be)
{
    be->add = add;
    be->mul = mul;
    be->gelu = gelu;
    be->gelu_backward = gelu_backward;
    be->add_scalar = add_scalar;
    be->residual = residual;
    be->cast = cast;
}
