/* Times every op that a training step is made of, forward and backward, and the kernels outside of it. On the processor at
 * the shapes of (a) vit_tiny, 32 px, patch 4, batch 64 and (b) vit_small, 224 px, batch 8; on a GPU at shapes that fill one.
 *
 *     build/bench/ops --threads 2
 *     build/bench/ops --only 'mlp*' --json
 *     build/bench/ops --device cuda --precision bf16
 *
 * The machine's own ceilings are measured first, in the same process (common/ceilings.h). A share is of the ceiling that binds
 * the op. */
#include "common/ceilings.h"
#include "ops/list.h"

#include "tensor/ops.h"
#include "train/device.h"
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

static struct {
    int64_t threads, repeat;
    const char *only;
    bool json, cpu_time, small, check;
    DeviceOptions device;
} o = { .repeat = 7, .only = "*", .device = DEVICE_DEFAULT };

static const Opt opts[] = {
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "threads (0: one a processor)"),
    OPT_INT("repeat", 'r', &o.repeat, 1, 1000, "N", "timed repetitions after two more; the median counts"),
    OPT_STR("only", 0, &o.only, "GLOB", "ops whose name matches"),
    OPT_FLAG("small", 0, &o.small, "the processor's shapes, on any device"),
    OPT_FLAG("cpu-time", 0, &o.cpu_time, "count processor time: on a busy machine, with one thread"),
    OPT_FLAG("check", 0, &o.check, "say whether the device is there, and end"),
    OPT_FLAG("json", 0, &o.json, "one JSON object a line instead of a table"),
    DEVICE_OPTS(&o.device),
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

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x)
{
    qsort(x, (size_t)o.repeat, sizeof *x, by_size);
    return x[o.repeat / 2];
}

static void report(const char *name, const char *pass, double time, double flops, double bytes, const Ceilings *most)
{
    double rate = (flops > 0 ? flops : bytes) / time, ceiling = flops > 0 ? most->flops : most->bytes;
    double share = ceiling > 0 ? rate / ceiling : 0;
    const char *unit = flops > 0 ? "GFLOP/s" : "GB/s";
    if (o.json)
        printf("{\"bench\":\"op\",\"op\":\"%s\",\"pass\":\"%s\",\"device\":\"%s\",\"threads\":%d,\"ms\":%.4f,"
               "\"rate\":%.1f,\"unit\":\"%s\",\"share\":%.3f}\n",
               name, pass, o.device.device, omp_get_max_threads(), time * 1e3, rate / 1e9, unit, share);
    else
        printf("%-38s %-9s %9.3f ms %8.1f %-8s %4.0f %%\n", name, pass, time * 1e3, rate / 1e9, unit, share * 100);
    fflush(stdout);
}

/* An input with numbers about 0, and memory for its gradient. */
static void make_input(Backend *be, const OpBench *b, int i, Tensor *x, Tensor *g)
{
    x->dtype = i < b->activations ? be->real : DT_F32;
    x->ndim = b->in[i].ndim;
    memcpy(x->shape, b->in[i].dim, sizeof x->shape);
    *g = *x;
    x->needs_grad = true;
    x->grad = g;
    int64_t n = tensor_count(x);
    float *host = malloc((size_t)n * sizeof *host);
    Rng r = rng_make(1, RNG_TEST, (uint64_t)i, 0);
    for (int64_t k = 0; host && k < n; k++)
        host[k] = (i ? 0.05f : 1) * (rng_uniform(&r) - 0.5f);
    float *wide = host ? be->alloc(be, (size_t)n * sizeof *wide) : NULL;
    x->data = be->alloc(be, tensor_bytes(x));
    g->data = be->alloc(be, tensor_bytes(x));
    if (!wide || !x->data || !g->data || be->write(be, wide, host, (size_t)n * sizeof *wide) ||
        be->cast(be, &(CastArgs){ .from = DT_F32, .to = x->dtype, .n = n, .x = wide, .out = x->data }) ||
        be->zero(be, g->data, tensor_bytes(x)) || be->sync(be))
        die();
    be->release(be, wide, (size_t)n * sizeof *wide);
    free(host);
}

/* On a GPU several go out between two waits, so that the wait does not count. */
enum { MOST_AT_ONCE = 8 };

static void bench(Tape *t, const OpBench *b, const Ceilings *most)
{
    Tensor x[BENCH_INPUTS] = { 0 }, g[BENCH_INPUTS] = { 0 }, *in[BENCH_INPUTS] = { 0 };
    Tensor *y[MOST_AT_ONCE], *dy[MOST_AT_ONCE];
    Backend *be = tape_backend(t);
    int at_once = be->mapped ? 1 : MOST_AT_ONCE;
    for (int i = 0; i < BENCH_INPUTS && b->in[i].ndim; i++) {
        make_input(be, b, i, &x[i], &g[i]);
        in[i] = &x[i];
    }
    double *time[2] = { calloc((size_t)o.repeat, sizeof(double)), calloc((size_t)o.repeat, sizeof(double)) };
    for (int64_t i = -2; time[0] && time[1] && i < o.repeat; i++) {
        tape_begin(t, true);
        double start = seconds();
        for (int k = 0; k < at_once; k++)
            y[k] = b->run(t, in, b->p);
        if (be->sync(be))
            die();
        double forward = (seconds() - start) / at_once;
        for (int k = 0; k < at_once; k++) {
            dy[k] = y[k] ? tape_tensor(t, y[k]->dtype, y[k]->ndim, y[k]->shape) : NULL;
            if (!dy[k] || be->zero(be, dy[k]->data, tensor_bytes(dy[k])))
                die();
        }
        if (be->sync(be))
            die();
        start = seconds();
        if (tape_backward_from(t, at_once, y, dy) || be->sync(be))
            die();
        if (i >= 0) {
            time[0][i] = forward;
            time[1][i] = (seconds() - start) / at_once;
        }
    }
    for (int pass = 0; pass < 2; pass++) {
        double flops = b->flops * (pass ? b->backward : 1);
        double bytes = b->floats[pass] * 1e6 * (double)dtype_size(b->activations ? be->real : DT_F32);
        if (flops + bytes > 0)
            report(b->name, pass ? "backward" : "forward", median(time[pass]), flops, bytes, most);
        free(time[pass]);
    }
    for (int i = 0; i < BENCH_INPUTS && in[i]; i++) {
        be->release(be, x[i].data, tensor_bytes(&x[i]));
        be->release(be, g[i].data, tensor_bytes(&x[i]));
    }
}

static size_t buffer_bytes(const KernelBench *b, int i)
{
    return (size_t)(b->size[i] * 1e6 + 0.5) * sizeof(float);
}

static void bench_kernel(Backend *be, const KernelBench *b, const Ceilings *most)
{
    float *x[BENCH_INPUTS] = { 0 };
    int at_once = be->mapped ? 1 : MOST_AT_ONCE;
    for (int i = 0; i < BENCH_INPUTS && b->size[i] > 0; i++)
        if (!(x[i] = be->alloc(be, buffer_bytes(b, i))) || be->zero(be, x[i], buffer_bytes(b, i)))
            die();
    double *time = calloc((size_t)o.repeat, sizeof *time);
    for (int64_t i = -2; time && i < o.repeat; i++) {
        if (be->sync(be))
            die();
        double start = seconds();
        for (int k = 0; k < at_once; k++)
            if (b->run(be, x, b->p))
                die();
        if (be->sync(be))
            die();
        if (i >= 0)
            time[i] = (seconds() - start) / at_once;
    }
    if (time)
        report(b->name, "", median(time), 0, b->bytes * 1e6, most);
    free(time);
    for (int i = 0; i < BENCH_INPUTS && x[i]; i++)
        be->release(be, x[i], buffer_bytes(b, i));
}

int main(int argc, char **argv)
{
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: unexpected operand", argv[1]);
    if (o.threads)
        omp_set_num_threads((int)o.threads);
    const char *device = device_name(&o.device, "bf16");
    Tape *t = device ? tape_new(device) : NULL;
    Ceilings most;
    if (t && o.check) {
        tape_free(t);
        return 0;
    }
    if (!t || ceilings_measure(tape_backend(t), seconds, &most))
        die();
    Backend *be = tape_backend(t);
    const char *engine = be->mapped ? isa_name(isa_best()) : device;
    if (o.json)
        printf("{\"bench\":\"machine\",\"threads\":%d,\"isa\":\"%s\",\"peak_gflops\":%.1f,\"stream_gb_s\":%.1f}\n",
               omp_get_max_threads(), engine, most.flops / 1e9, most.bytes / 1e9);
    else
        printf("%d threads, %s: %.1f GFLOP/s %s, %.1f GB/s from memory\n", omp_get_max_threads(), engine, most.flops / 1e9,
               be->mapped ? "in registers" : "in a product of 8192 x 8192 x 8192", most.bytes / 1e9);
    bool gpu = !be->mapped && !o.small;
    for (const OpBench *b = bench_ops(gpu); b->name; b++)
        if (!fnmatch(o.only, b->name, 0))
            bench(t, b, &most);
    for (const KernelBench *b = bench_kernels(gpu); b->name; b++)
        if (!fnmatch(o.only, b->name, 0))
            bench_kernel(be, b, &most);
    tape_free(t);
    return 0;
}
