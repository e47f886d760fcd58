/* Times the training step as hssl-train runs it, student and teacher in two processes, with the pixels
 * resident.
 *
 *     build/bench/step --arch vit_tiny --image 32 --patch 4 --batch 64 --local 0
 *
 * Prints one JSON line. Needs hssl-teach beside the directory of this program. */
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ssl/student.h"
#include "tensor/backend.h"
#include "train/device.h"
#include "train/teach.h"
#include "train/threads.h"
#include "train/uploads.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/rng.h"

static TrainConfig config;
static struct {
    int64_t steps, warmup, threads;
    bool overlap, in_line, in_process;
    DeviceOptions device;
} o = { .device = DEVICE_DEFAULT, .steps = 5, .warmup = 2 };

static Opt opts[CONFIG_OPTIONS + 16];
static const Opt own[] = {
    OPT_INT("steps", 0, &o.steps, 1, 100000, "N", "timed steps"),
    OPT_INT("warmup", 0, &o.warmup, 0, 100000, "N", "steps before them"),
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "threads (0: one a processor)"),
    DEVICE_OPTS(&o.device),
    OPT_FLAG("overlap", 0, &o.overlap, "teacher and student at once"),
    OPT_FLAG("recompute", 0, &config.recompute, "compute the inside of layers twice"),
    OPT_FLAG("inline", 0, &o.in_line, "share no memory"),
    OPT_FLAG("teacher-in-process", 0, &o.in_process, "one process instead of two"),
    OPT_END
};
static const OptProgram program = { "step", "[OPTION]...", "time the training step", .opts = opts };

enum { TEACHER, FORWARD, BACKWARD, UPDATE, WHOLE, PARTS };

static double peak_mib(pid_t pid)
{
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib / 1024;
}

/* Unique bytes: pages that two processes share count half in each. */
static double shared_mib(pid_t pid)
{
    char path[64], line[256];
    double kib = 0, rss = 0, pss = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "Rss: %lf", &kib) == 1)
            rss = kib;
        if (sscanf(line, "Pss: %lf", &kib) == 1)
            pss = kib;
    }
    if (f)
        fclose(f);
    return (rss - pss) / 1024;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(double *x, int64_t n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static void fill(uint8_t *p, size_t n)
{
    Rng r = rng_make(1, RNG_TEST, 0, 0);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(rng_u32(&r) >> 24);
}

int main(int argc, char **argv)
{
    char self[4096], teacher[4200];
    config_init(&config);
    config.local_crops = 0;
    config.out_dim = 8192;
    int n = config_options(&config, opts, CONFIG_OPTIONS);
    memcpy(opts + n, own, sizeof own);
    char **original = calloc((size_t)argc + 1, sizeof *original);
    if (!original)
        return 1;
    memcpy(original, argv, (size_t)argc * sizeof *original);
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: unexpected operand", argv[1]);
    threads_settle(original);
    free(original);
    int threads = threads_use((int)o.threads);
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = 0;
    snprintf(teacher, sizeof teacher, "%s/../hssl-teach", dirname(self));
    if (!(config.device = device_name(&o.device, "bf16")))
        die();
    if (!opt_given(opts, "overlap"))
        o.overlap = !backend_open(config.device)->mapped;

    size_t g = (size_t)(config.batch_size * config.global_size * config.global_size * 3);
    size_t l = (size_t)(config.batch_size * config.local_size * config.local_size * 3);
    ShmBlock *pixels = shm_create(2 * g + (size_t)config.local_crops * l);
    Backend *be = backend_open(config.device);
    Teach *t = teach_open(&(TeachConfig){ .program = teacher, .in_process = o.in_process, .be = be, .best = o.in_line ? MEDIUM_INLINE : MEDIUM_IPC,
                                          .device = o.device.device, .precision = o.device.precision });
    size_t bytes = student_bytes(&config);
    float *memory = t && bytes && pixels ? teach_memory(t, bytes) : NULL;
    Student *s = memory ? student_new(&config, memory) : NULL;
    ViewBatch v = { .batch = config.batch_size,
                    .globals = 2,
                    .locals = config.local_crops,
                    .global_size = config.global_size,
                    .local_size = config.local_size };
    Uploads *uploads = s ? uploads_new(be, &v, pixels) : NULL;
    size_t upload_bytes = 0;
    void *views = uploads ? uploads_memory(uploads, &upload_bytes) : NULL;
    if (!uploads || teach_start(t, &config, threads, views, upload_bytes))
        die();
    fill(pixels->mem, pixels->size);
    const uint8_t *global = pixels->mem, *local = config.local_crops ? global + 2 * g : NULL;
    TeachViews seen = { &v, global, pixels, 0 };

    double *time[PARTS];
    for (int i = 0; i < PARTS; i++)
        if (!(time[i] = calloc((size_t)o.steps, sizeof(double))))
            return 1;
    double loss = 0;
    for (int64_t i = -o.warmup; i < o.steps; i++) {
        StepRates r;
        StudentReport report;
        Discrepancy d;
        double mark[5];
        const float *q = NULL;
        config_rates(&config, 1000, 20000 + i, &r);
        mark[0] = log_seconds();
        uint64_t number = (uint64_t)(i + o.warmup);
        if (uploads_take(uploads, number, global, local, &v) || teach_step(t, &seen, &r) || (!o.overlap && !(q = teach_targets(t))))
            die();
        mark[1] = log_seconds();
        if (student_forward(s, &v, &r) || (o.overlap && !(q = teach_targets(t))))
            die();
        mark[2] = log_seconds();
        if (student_backward(s, q) || uploads_begin(uploads, number + 1, global, local))
            die();
        mark[3] = log_seconds();
        if (student_update(s, &r, &report) || teach_update(t, &r))
            die();
        mark[4] = log_seconds();
        loss = report.loss;
        for (int p = 0; i >= 0 && p < 4; p++)
            time[p][i] = mark[p + 1] - mark[p];
        if (i >= 0)
            time[WHOLE][i] = mark[4] - mark[0];
    }
    double whole = middle(time[WHOLE], o.steps), shared = shared_mib(getpid());
    double own_peak = peak_mib(getpid()), teacher_peak = peak_mib(teach_pid(t));
    printf(
        "{\"bench\":\"step\",\"arch\":\"%s\",\"aux\":\"%s\",\"image\":%lld,\"patch\":%lld,\"batch\":%lld,"
        "\"local\":%lld,"
        "\"out_dim\":%lld,\"threads\":%d,\"steps\":%lld,\"images_per_s\":%.4g,\"step_s\":%.4g,\"min_s\":%.4g,"
        "\"max_s\":%.4g,\"split_s\":{\"ema_teacher\":%.4g,\"forward\":%.4g,\"loss_backward\":%.4g,"
        "\"clip_adamw\":%.4g},\"peak_mib\":{\"student\":%.0f,\"teacher\":%.0f,\"counted_twice\":%.0f,\"sum\":"
        "%.0f},"
        "\"loss\":%.6g}\n",
        config.arch, config.aux, (long long)config.global_size, (long long)config.patch_size,
        (long long)config.batch_size, (long long)config.local_crops, (long long)config.out_dim, threads,
        (long long)o.steps, (double)config.batch_size / whole, whole, time[WHOLE][0],
        time[WHOLE][o.steps - 1], middle(time[TEACHER], o.steps), middle(time[FORWARD], o.steps),
        middle(time[BACKWARD], o.steps), middle(time[UPDATE], o.steps), own_peak, teacher_peak, 2 * shared,
        own_peak + teacher_peak - 2 * shared, loss);
    for (int i = 0; i < PARTS; i++)
        free(time[i]);
    teach_close(&t);
    uploads_free(uploads);
    student_free(s);
    shm_free(&pixels);
    return 0;
}
