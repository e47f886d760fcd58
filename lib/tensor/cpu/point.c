/* Elementwise kernels: the loops of simd/point.c, a share for each thread. */
#include "tensor/cpu/cpu.h"

/* Run `call` with [from, from + n) being each thread's share of `count`, and return. */
#define SHARES(count, call)                                                            \
    do {                                                                               \
        int64_t total = count;                                                         \
        _Pragma("omp parallel if (total > CPU_SERIAL)")                                \
        {                                                                              \
            int64_t from, to, n;                                                       \
            cpu_share(total, omp_get_thread_num(), omp_get_num_threads(), &from, &to); \
            n = to - from;                                                             \
            call;                                                                      \
        }                                                                              \
        return 0;                                                                      \
    } while (0)

static int add(Backend *be, const PointArgs *a)
{
    (void)be;
    if (!a->y)
        SHARES(a->n, cpu.axpby(floats(a->x, from), a->factor, NULL, 0, floats(a->out, from), n, a->add));
    SHARES(a->n, cpu.axpby(floats(a->x, from), 1, floats(a->y, from), a->factor, floats(a->out, from), n, a->add));
}

static int mul(Backend *be, const PointArgs *a)
{
    (void)be;
    SHARES(a->n, cpu.mul(floats(a->x, from), floats(a->y, from), a->factor, floats(a->out, from), n, a->add));
}

static int gelu(Backend *be, const PointArgs *a)
{
    (void)be;
    SHARES(a->n, cpu.gelu(floats(a->x, from), floats(a->out, from), n));
}

static int gelu_backward(Backend *be, const PointArgs *a)
{
    (void)be;
    SHARES(a->n, cpu.gelu_backward(floats(a->x, from), floats(a->y, from), floats(a->out, from), n, a->add));
}

static int add_scalar(Backend *be, const PointArgs *a)
{
    (void)be;
    float value = a->factor * *floats(a->y, 0);
    SHARES(a->n, cpu.fill(value, floats(a->out, from), n, a->add));
}

static int scale(Backend *be, const PointArgs *a)
{
    (void)be;
    float factor = *floats(a->y, 0);
    SHARES(factor == 1 ? 0 : a->n, cpu.axpby(floats(a->out, from), factor, NULL, 0, floats(a->out, from), n, false));
}

static int residual(Backend *be, const ResidualArgs *a)
{
    (void)be;
    if (!a->scale && a->x)
        SHARES(a->samples * a->stride,
               cpu.axpby(floats(a->x, from), 1, floats(a->y, from), 1, floats(a->out, from), n, false));
#pragma omp parallel for schedule(static) if (a->samples * a->stride > CPU_SERIAL)
    for (int64_t s = 0; s < a->samples; s++) {
        int64_t at = s * a->stride;
        float f = a->scale ? a->scale[s] : 1;
        if (a->x)
            cpu.axpby(floats(a->x, at), 1, floats(a->y, at), f, floats(a->out, at), a->stride, false);
        else
            cpu.axpby(floats(a->y, at), f, NULL, 0, floats(a->out, at), a->stride, false);
    }
    return 0;
}

void cpu_point_table(Backend *be)
{
    be->add = add;
    be->mul = mul;
    be->gelu = gelu;
    be->gelu_backward = gelu_backward;
    be->add_scalar = add_scalar;
    be->scale = scale;
    be->residual = residual;
}
