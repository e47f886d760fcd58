#include "ceilings.h"

#include "util/isa.h"

#include <omp.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__x86_64__)
#define CHAINS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)

__attribute__((target("avx512f"))) static float chains_avx512(int64_t n)
{
    const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
#define DECLARE(i) __m512 a##i = _mm512_set1_ps((float)i);
#define STEP(i) a##i = _mm512_fmadd_ps(a##i, x, y);
#define SUM(i) s = _mm512_add_ps(s, a##i);
    CHAINS(DECLARE)
    for (int64_t k = 0; k < n; k++) {
        CHAINS(STEP)
    }
    __m512 s = x;
    CHAINS(SUM)
    return _mm512_cvtss_f32(s);
#undef DECLARE
#undef STEP
#undef SUM
}

__attribute__((target("avx2,fma"))) static float chains_avx2(int64_t n)
{
    const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
#define DECLARE(i) __m256 a##i = _mm256_set1_ps((float)i);
#define STEP(i) a##i = _mm256_fmadd_ps(a##i, x, y);
#define SUM(i) s = _mm256_add_ps(s, a##i);
    CHAINS(DECLARE)
    for (int64_t k = 0; k < n; k++) {
        CHAINS(STEP)
    }
    __m256 s = x;
    CHAINS(SUM)
    return _mm256_cvtss_f32(s);
#undef DECLARE
#undef STEP
#undef SUM
}
#endif

/* Multiply-adds in registers, 2 flops each; 0 where there is no loop for the processor. */
static double processor_flops(BenchClock *seconds)
{
    double best = 0;
#if defined(__x86_64__)
    Isa isa = isa_best();
    for (int r = 0; r < 20 && isa != ISA_BASE; r++) {
        int64_t n = 1000000;
        volatile float sink = 0;
        double t = seconds();
#pragma omp parallel
        {
            float v = isa == ISA_AVX512 ? chains_avx512(n) : chains_avx2(n);
#pragma omp critical
            sink = sink + v;
        }
        t = seconds() - t;
        double f = (double)n * 12 * (isa == ISA_AVX512 ? 32 : 16) * omp_get_max_threads() / t;
        best = f > best ? f : best;
    }
#endif
    return best;
}

/* The library's best: a square product of the device's own type, large enough to fill it. */
static int product_flops(Backend *be, BenchClock *seconds, double *best)
{
    const int64_t n = 8192;
    size_t bytes = (size_t)(n * n) * dtype_size(be->real);
    void *x[3] = { 0 };
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++)
        rc = (x[i] = be->alloc(be, bytes)) ? be->zero(be, x[i], bytes) : -1;
    MatmulArgs m = { .type = be->real, .type_c = be->real, .m = n, .n = n, .k = n, .a = x[0], .b = x[1], .c = x[2],
                     .lda = n, .ldb = n, .ldc = n, .tb = true };
    for (int r = 0; r < 5 && !rc; r++) {
        double t = seconds();
        for (int i = 0; i < 10 && !rc; i++)
            rc = be->matmul(be, &m);
        rc = rc || be->sync(be) ? -1 : 0;
        double f = 10 * 2.0 * (double)n * (double)n * (double)n / (seconds() - t);
        *best = f > *best ? f : *best;
    }
    for (int i = 0; i < 3; i++)
        if (x[i])
            be->release(be, x[i], bytes);
    return rc;
}

static int stream_bytes(Backend *be, BenchClock *seconds, double *best)
{
    const int64_t n = be->mapped ? 1 << 25 : 1 << 28;
    size_t bytes = (size_t)n * sizeof(float);
    float *x = be->alloc(be, bytes), *y = x ? be->alloc(be, bytes) : NULL;
    int rc = y ? be->zero(be, x, bytes) || be->zero(be, y, bytes) || be->sync(be) : -1;
    for (int i = 0; i < 10 && !rc; i++) {
        double t = seconds();
        rc = be->add(be, &(PointArgs){ .n = n, .x = x, .out = y, .factor = 1, .add = true }) || be->sync(be);
        t = seconds() - t;
        *best = 12 * (double)n / t > *best ? 12 * (double)n / t : *best;
    }
    if (x)
        be->release(be, x, bytes);
    if (y)
        be->release(be, y, bytes);
    return rc ? -1 : 0;
}

int ceilings_measure(Backend *be, BenchClock *seconds, Ceilings *out)
{
    *out = (Ceilings){ 0 };
    if (stream_bytes(be, seconds, &out->bytes))
        return -1;
    if (!be->mapped)
        return product_flops(be, seconds, &out->flops);
    out->flops = processor_flops(seconds);
    return 0;
}
