/* Times every op that a training step is made of, forward and backward, at the shapes of two configurations:
 * (a) vit_tiny, 32 px, patch 4, batch 64 and (b) vit_small, 224 px, batch 8.
 *
 *     build/bench/ops --threads 2
 *     build/bench/ops --only 'mlp*' --json
 *
 * The machine's own ceilings are measured first, in the same process: multiply-adds a second in registers,
 * and bytes a second of a sum over arrays that fit in no cache. A share is of the ceiling that binds the
 * op. */
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "util/err.h"
#include "util/isa.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/rng.h"

#include <fnmatch.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static struct {
    int64_t threads, repeat;
    const char *only;
    bool json, cpu_time;
} o = { .repeat = 7, .only = "*" };

static const Opt opts[] = {
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "threads (0: one a processor)"),
    OPT_INT("repeat", 'r', &o.repeat, 1, 1000, "N", "timed repetitions after two more; the median counts"),
    OPT_STR("only", 0, &o.only, "GLOB", "ops whose name matches"),
    OPT_FLAG("cpu-time", 0, &o.cpu_time, "count processor time: on a busy machine, with one thread"),
    OPT_FLAG("json", 0, &o.json, "one JSON object a line instead of a table"),
    OPT_END
};
static const OptProgram program = { "ops", "[OPTION]...", "time the ops of a training step", .opts = opts };

static double seconds(void)
{
    struct timespec t;
    if (!o.cpu_time)
        return log_seconds();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- ceilings */

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
static double peak_flops(void)
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

static double peak_bytes(Backend *be)
{
    int64_t n = 1 << 25;
    double best = 0;
    float *x = be->alloc(be, (size_t)n * 4), *y = be->alloc(be, (size_t)n * 4);
    if (!x || !y)
        die();
    be->zero(be, x, (size_t)n * 4);
    be->zero(be, y, (size_t)n * 4);
    for (int i = 0; i < 10; i++) {
        double t = seconds();
        be->add(be, &(PointArgs){ .n = n, .x = x, .out = y, .factor = 1, .add = true });
        t = seconds() - t;
        best = 12 * (double)n / t > best ? 12 * (double)n / t : best;
    }
    be->release(be, x, (size_t)n * 4);
    be->release(be, y, (size_t)n * 4);
    return best;
}

/* ---- the ops: flops and bytes are those of the forward pass; a product's backward does twice its flops */

typedef struct {
    const char *name;
    Tensor *(*run)(Tape *t, Tensor **x, const int64_t *p);
    struct { int ndim; int64_t dim[TENSOR_DIMS]; } in[8];
    int64_t p[3];
    double flops;     /* 0: the op is bound by memory */
    double floats[2]; /* forward, backward: floats that must move, in millions */
    double backward;  /* flops of the backward pass over those of the forward */
} Bench;

static Tensor *linear(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_linear(t, x[0], x[1], x[2]);
}
static Tensor *mlp_branch(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    BranchArgs a = { .norm_w = x[5], .norm_b = x[6], .eps = 1e-6f, .residual = x[0] };
    return op_mlp_branch(t, x[0], &a, x[1], x[2], x[3], x[4]);
}
static Tensor *attention(Tape *t, Tensor **x, const int64_t *p)
{
    return op_attention(t, x[0], (int)p[0]);
}
static Tensor *attention_branch(Tape *t, Tensor **x, const int64_t *p)
{
    BranchArgs a = { .norm_w = x[5], .norm_b = x[6], .eps = 1e-6f, .residual = x[0] };
    return op_attention_branch(t, x[0], &a, x[1], x[2], x[3], x[4], (int)p[0]);
}
static Tensor *layer_norm(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_layer_norm(t, x[0], x[1], x[2], 1e-6f);
}
static Tensor *gelu(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_gelu(t, x[0]);
}
static Tensor *softmax(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_softmax(t, x[0]);
}
static Tensor *residual(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_residual(t, x[0], x[1], NULL);
}
static Tensor *depthwise(Tape *t, Tensor **x, const int64_t *p)
{
    return op_conv2d(t, x[0], x[1], x[2], 1, 3, (int)p[0]);
}
static Tensor *patch_embed(Tape *t, Tensor **x, const int64_t *p)
{
    x[0]->needs_grad = false;
    return op_patch_embed(t, x[0], x[1], x[2], (int)p[0]);
}
static Tensor *weight_norm(Tape *t, Tensor **x, const int64_t *p)
{
    (void)p;
    return op_weight_norm(t, x[0], NULL);
}
static Tensor *dino_loss(Tape *t, Tensor **x, const int64_t *p)
{
    return op_dino_loss(t, x[0], x[1], (int)p[0], (int)p[1], 0.1f);
}

#define D(...) { sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t), { __VA_ARGS__ } }
#define M(x) ((double)(x) / 1e6)
/* A block's branches for rows tokens of width c. */
#define MLP(name, b, n, c) \
    { name, mlp_branch, { D(b, n, c), D(4 * c, c), D(4 * c), D(c, 4 * c), D(c), D(c), D(c) }, \
      { 0 }, 16.0 * b * n * c * c, { 0 }, 2 }
#define ATTENTION_BRANCH(name, b, n, c, h) \
    { name, attention_branch, { D(b, n, c), D(3 * c, c), D(3 * c), D(c, c), D(c), D(c), D(c) }, { h }, \
      8.0 * b * n * c * c + 4.0 * b * n * n * c, { 0 }, 2 }
#define LINEAR(name, r, i, k) { name, linear, { D(r, i), D(k, i), D(k) }, { 0 }, 2.0 * r * i * k, { 0 }, 2 }

static const Bench benches[] = {
    LINEAR("linear a qkv 8320x192x576", 8320, 192, 576),
    LINEAR("linear b qkv 3152x384x1152", 3152, 384, 1152),
    LINEAR("linear last 128x256x8192", 128, 256, 8192),
    MLP("mlp branch a 8320x192", 128, 65, 192),
    MLP("mlp branch b 3152x384", 16, 197, 384),
    MLP("mlp branch b local 592x384", 16, 37, 384),
    { "attention a 384 x 65", attention, { D(128, 65, 576) }, { 3 }, 4.0 * 128 * 65 * 65 * 192, { 0 }, 2 },
    { "attention b 96 x 197", attention, { D(16, 197, 1152) }, { 6 }, 4.0 * 16 * 197 * 197 * 384, { 0 }, 2 },
    { "attention b local 96 x 37", attention, { D(16, 37, 1152) },
      { 6 }, 4.0 * 16 * 37 * 37 * 384, { 0 }, 2 },
    ATTENTION_BRANCH("attention branch a", 128, 65, 192, 3),
    ATTENTION_BRANCH("attention branch b", 16, 197, 384, 6),
    { "depthwise a 128x8x8x192", depthwise, { D(128, 8, 8, 192), D(192, 1, 7, 7), D(192) },
      { 192 }, 98.0 * 128 * 64 * 192, { 0 }, 2 },
    { "depthwise b 16x14x14x384", depthwise, { D(16, 14, 14, 384), D(384, 1, 7, 7), D(384) },
      { 384 }, 98.0 * 16 * 196 * 384, { 0 }, 2 },
    { "patch embed b", patch_embed, { D(16, 3, 224, 224), D(384, 3, 16, 16), D(384) },
      { 16 }, 2.0 * 16 * 196 * 768 * 384, { 0 }, 1 },
    { "layer norm 8320x192", layer_norm, { D(8320, 192), D(192), D(192) },
      { 0 }, 0, { M(2 * 8320 * 192), M(3 * 8320 * 192) }, 0 },
    { "layer norm 3152x384", layer_norm, { D(3152, 384), D(384), D(384) },
      { 0 }, 0, { M(2 * 3152 * 384), M(3 * 3152 * 384) }, 0 },
    { "gelu 8320x768", gelu, { D(8320, 768) }, { 0 }, 0, { M(2 * 8320 * 768), M(3 * 8320 * 768) }, 0 },
    { "softmax 24960x65", softmax, { D(24960, 65) }, { 0 }, 0, { M(2 * 24960 * 65), M(3 * 24960 * 65) }, 0 },
    { "residual 8320x192", residual, { D(8320, 192), D(8320, 192) }, { 0 }, 0, { M(3 * 8320 * 192), 0 }, 0 },
    { "weight norm 8192x256", weight_norm, { D(8192, 256) },
      { 0 }, 0, { M(2 * 8192 * 256), M(3 * 8192 * 256) }, 0 },
    { "dino loss 128x8192", dino_loss, { D(128, 8192), D(128, 8192) },
      { 2, 64 }, 0, { M(2 * 128 * 8192), M(3 * 128 * 8192) }, 0 },
};

/* ---- timing */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, const char *pass, double time, double flops, double bytes, double peak,
                   double stream)
{
    double rate = (flops > 0 ? flops : bytes) / time, share = rate / (flops > 0 ? peak : stream);
    const char *unit = flops > 0 ? "GFLOP/s" : "GB/s";
    if (o.json)
        printf("{\"bench\":\"op\",\"op\":\"%s\",\"pass\":\"%s\",\"threads\":%d,\"ms\":%.4f,"
               "\"rate\":%.1f,\"unit\":\"%s\",\"share\":%.3f}\n",
               name, pass, omp_get_max_threads(), time * 1e3, rate / 1e9, unit, share);
    else
        printf("%-30s %-9s %9.3f ms %8.1f %-8s %4.0f %%\n", name, pass,
               time * 1e3, rate / 1e9, unit, share * 100);
}

static void bench(Tape *t, const Bench *b, double peak, double stream)
{
    Tensor x[8] = { 0 }, g[8] = { 0 }, *in[8] = { 0 };
    Backend *be = tape_backend(t);
    for (int i = 0; i < 8 && b->in[i].ndim; i++) {
        x[i].ndim = b->in[i].ndim;
        memcpy(x[i].shape, b->in[i].dim, sizeof x[i].shape);
        g[i] = x[i];
        x[i].needs_grad = true;
        x[i].grad = &g[i];
        in[i] = &x[i];
        size_t bytes = tensor_bytes(&x[i]);
        float *host = malloc(bytes);
        Rng r = rng_make(1, RNG_TEST, (uint64_t)i, 0);
        for (size_t k = 0; host && k < bytes / 4; k++)
            host[k] = i ? 0.05f * (rng_uniform(&r) - 0.5f) : rng_uniform(&r) - 0.5f;
        x[i].data = be->alloc(be, bytes);
        g[i].data = be->alloc(be, bytes);
        if (!host || !x[i].data || !g[i].data || be->write(be, x[i].data, host, bytes) ||
            be->zero(be, g[i].data, bytes))
            die();
        free(host);
    }
    double *time[2] = { calloc((size_t)o.repeat, sizeof(double)), calloc((size_t)o.repeat, sizeof(double)) };
    for (int64_t i = -2; time[0] && time[1] && i < o.repeat; i++) {
        tape_begin(t, true);
        double start = seconds();
        Tensor *y = b->run(t, in, b->p);
        if (be->sync(be))
            die();
        double forward = seconds() - start;
        Tensor *dy = y ? tape_tensor(t, DT_F32, y->ndim, y->shape) : NULL;
        if (!dy || be->zero(be, dy->data, tensor_bytes(dy)))
            die();
        start = seconds();
        if (tape_backward_from(t, 1, &y, &dy) || be->sync(be))
            die();
        if (i >= 0) {
            time[0][i] = forward;
            time[1][i] = seconds() - start;
        }
    }
    for (int pass = 0; pass < 2; pass++) {
        qsort(time[pass], (size_t)o.repeat, sizeof(double), by_size);
        double flops = b->flops * (pass ? b->backward : 1);
        if (flops + b->floats[pass] > 0)
            report(b->name, pass ? "backward" : "forward", time[pass][o.repeat / 2], flops,
                   b->floats[pass] * 4e6, peak, stream);
        free(time[pass]);
    }
    for (int i = 0; i < 8 && in[i]; i++) {
        be->release(be, x[i].data, tensor_bytes(&x[i]));
        be->release(be, g[i].data, tensor_bytes(&x[i]));
    }
}

int main(int argc, char **argv)
{
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: unexpected operand", argv[1]);
    if (o.threads)
        omp_set_num_threads((int)o.threads);
    Tape *t = tape_new("cpu");
    if (!t)
        die();
    double peak = peak_flops(), stream = peak_bytes(tape_backend(t));
    if (o.json)
        printf("{\"bench\":\"machine\",\"threads\":%d,\"isa\":\"%s\","
               "\"peak_gflops\":%.1f,\"stream_gb_s\":%.1f}\n",
               omp_get_max_threads(), isa_name(isa_best()), peak / 1e9, stream / 1e9);
    else
        printf("%d threads, %s: %.1f GFLOP/s in registers, %.1f GB/s from memory\n", omp_get_max_threads(),
               isa_name(isa_best()), peak / 1e9, stream / 1e9);
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
        if (!fnmatch(o.only, benches[i].name, 0))
            bench(t, &benches[i], peak, stream);
    tape_free(t);
    return 0;
}
