/* Times the training step as hssl-train runs it, student and teacher in two processes or in one, with the pixels resident.
 *
 *     build/bench/step --arch vit_tiny --global-size 32 --patch-size 4 --batch-size 64 --local-crops 0
 *     build/bench/step --device cuda --precision bf16 --arch vit_small --batch-size 128 --local-crops 0 --peak 989
 *
 * Prints one JSON line. Parts are times of the host's unless --split waits for the device after each, which costs a little.
 * With --profile it is followed by a line for each kernel that the step is made of (step/profile.h).
 * Flops are those of hssl-plan(1): products, convolutions and attention, by definition. Needs hssl-teach beside the directory
 * of this program. */
#include "step/profile.h"

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
#include "train/workload.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/rng.h"

static TrainConfig config;
static struct {
    int64_t steps, warmup, threads;
    double peak;
    bool overlap, in_line, in_process, split, profile;
    DeviceOptions device;
} o = { .device = DEVICE_DEFAULT, .steps = 5, .warmup = 4 };

static const Opt own[] = {
    OPT_INT("steps", 0, &o.steps, 1, 100000, "N", "timed steps"),
    OPT_INT("warmup", 0, &o.warmup, 0, 100000, "N", "steps before them"),
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "threads (0: one a processor)"),
    DEVICE_OPTS(&o.device),
    OPT_FLAG("overlap", 0, &o.overlap, "teacher and student at once"),
    OPT_FLAG("recompute", 0, &config.recompute, "compute the inside of layers twice"),
    OPT_FLAG("graph", 0, &config.graph, "record the work of a step and repeat it"),
    OPT_FLAG("pack", 0, &config.pack, "on a GPU: views of both sizes in one pass"),
    OPT_FLAG("inline", 0, &o.in_line, "share no memory"),
    OPT_FLAG("teacher-in-process", 0, &o.in_process, "one process instead of two"),
    OPT_FLAG("split", 0, &o.split, "wait for the device after each part of a step"),
    OPT_FLAG("profile", 0, &o.profile, "time each kernel by itself; with --no-graph, --teacher-in-process"),
    OPT_REAL("peak", 0, &o.peak, 0, 1e6, "TFLOPS", "what the device is sold for: print the share of it (MFU)"),
    OPT_END
};
static Opt opts[CONFIG_OPTIONS + sizeof own / sizeof *own];
static const OptProgram program = { "step", "[OPTION]...", "time the training step", .opts = opts };

enum { TEACHER, FORWARD, BACKWARD, UPDATE, WHOLE, PARTS };

typedef struct {
    Backend *be;
    Teach *teach;
    Student *student;
    ShmBlock *pixels;
    Uploads *uploads;
    ViewBatch views;
    const uint8_t *global, *local;
    Workload work;
    size_t left; /* bytes of the device before anything was there */
    double loss;
} Rig;

/* ---------------------------------------------------------------- memory */

static double peak_mib(pid_t pid)
{
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = pid ? fopen(path, "r") : NULL;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib / 1024;
}

/* Pages that two processes share count half in each. */
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

/* ---------------------------------------------------------------- steps */

static void fill(uint8_t *p, size_t n)
{
    Rng r = rng_make(1, RNG_TEST, 0, 0);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(rng_u32(&r) >> 24);
}

static void teacher_path(char *path, size_t size)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    snprintf(path, size, "%s/../hssl-teach", dirname(self));
}

static int rig_open(Rig *r, int threads)
{
    char teacher[4200];
    size_t all, bytes, global = (size_t)(config.batch_size * config.global_size * config.global_size * 3);
    size_t local = (size_t)(config.batch_size * config.local_size * config.local_size * 3);
    teacher_path(teacher, sizeof teacher);
    r->be = backend_open(config.device);
    if ((r->be->memory && r->be->memory(r->be, &r->left, &all)) || workload_count(&config, 1, &r->work) ||
        !(r->pixels = shm_create(2 * global + (size_t)config.local_crops * local)))
        return -1;
    fill(r->pixels->mem, r->pixels->size);
    r->global = r->pixels->mem;
    r->local = config.local_crops ? r->global + 2 * global : NULL;
    r->views = (ViewBatch){ .batch = config.batch_size,
                            .globals = 2,
                            .locals = config.local_crops,
                            .global_size = config.global_size,
                            .local_size = config.local_size };
    r->teach = teach_open(&(TeachConfig){ .program = teacher, .in_process = o.in_process, .be = r->be,
                                          .best = o.in_line ? MEDIUM_INLINE : MEDIUM_IPC, .device = o.device.device,
                                          .precision = o.device.precision, .varies = !o.device.deterministic,
                                          .plain = !config.graph });
    float *memory = r->teach && (bytes = student_bytes(&config)) ? teach_memory(r->teach, bytes) : NULL;
    if (!memory || !(r->student = student_new(&config, memory)) ||
        !(r->uploads = uploads_new(r->be, &r->views, r->pixels)))
        return -1;
    void *views = uploads_memory(r->uploads, &bytes);
    return teach_start(r->teach, &config, threads, views, bytes);
}

static double mark(Rig *r)
{
    if (o.split && r->be->sync(r->be))
        die();
    return log_seconds();
}

/* Kernels have ceilings. */
static int rig_profile(Rig *r, Ceilings *most)
{
    return ceilings_measure(r->be, log_seconds, most) || profile_begin(r->be) ? -1 : 0;
}

static int step(Rig *r, int64_t i, double part[PARTS])
{
    StepRates rates;
    StudentReport report;
    Discrepancy d;
    const float *q = NULL;
    double at[5];
    uint64_t number = (uint64_t)(i + o.warmup);
    TeachViews seen = { &r->views, r->global, r->pixels, 0 };
    config_rates(&config, 1000, 20000 + i, &rates);
    at[0] = log_seconds();
    if (uploads_take(r->uploads, number, r->global, r->local, &r->views) || teach_step(r->teach, &seen, &rates) ||
        (!o.overlap && !(q = teach_targets(r->teach))))
        return -1;
    at[1] = mark(r);
    if (student_forward(r->student, &r->views, &rates) || (!q && !(q = teach_targets(r->teach))))
        return -1;
    at[2] = mark(r);
    if (student_backward(r->student, q) || uploads_begin(r->uploads, number + 1, r->global, r->local))
        return -1;
    at[3] = mark(r);
    if (student_update(r->student, &rates, &report) || teach_discrepancy(r->teach, &d) || teach_update(r->teach, &rates))
        return -1;
    at[4] = mark(r);
    r->loss = report.loss;
    for (int p = 0; p < WHOLE; p++)
        part[p] = at[p + 1] - at[p];
    part[WHOLE] = at[4] - at[0];
    return 0;
}

/* ---------------------------------------------------------------- report */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(double *x)
{
    qsort(x, (size_t)o.steps, sizeof *x, by_size);
    return o.steps % 2 ? x[o.steps / 2] : (x[o.steps / 2 - 1] + x[o.steps / 2]) / 2;
}

static void print_memory(const Rig *r)
{
    size_t left = 0, all;
    if (r->be->memory && !r->be->memory(r->be, &left, &all)) {
        printf(",\"counted_mib\":%.0f,\"device_mib\":%.0f", r->work.memory.all / 1048576,
               ((double)r->left - (double)left) / 1048576);
        return;
    }
    double student = peak_mib(getpid()), teacher = peak_mib(teach_pid(r->teach)), shared = teacher > 0 ? shared_mib(getpid()) : 0;
    printf(",\"counted_mib\":%.0f,\"peak_mib\":{\"student\":%.0f,\"teacher\":%.0f,\"counted_twice\":%.0f,\"sum\":%.0f}",
           r->work.memory.all / 1048576, student, teacher, 2 * shared, student + teacher - 2 * shared);
}

static void print(const Rig *r, double *time[PARTS], int threads)
{
    double whole = middle(time[WHOLE]), rate = (double)config.batch_size / whole;
    double flops = r->work.forward + r->work.backward + r->work.teacher;
    printf("{\"bench\":\"step\",\"device\":\"%s\",\"teacher\":\"%s\",\"arch\":\"%s\",\"aux\":\"%s\",\"image\":%lld,\"patch\":%lld,"
           "\"batch\":%lld,\"local\":%lld,\"out_dim\":%lld,\"threads\":%d,\"steps\":%lld,\"images_per_s\":%.4g,\"step_s\":%.4g,"
           "\"min_s\":%.4g,\"max_s\":%.4g",
           config.device, teach_medium(r->teach), config.arch, config.aux, (long long)config.global_size,
           (long long)config.patch_size, (long long)config.batch_size, (long long)config.local_crops,
           (long long)config.out_dim, threads, (long long)o.steps, rate, whole, time[WHOLE][0], time[WHOLE][o.steps - 1]);
    printf(",\"graph\":%s", config.graph && r->be->record ? "true" : "false");
    printf(",\"split\":%s,\"split_s\":{\"ema_teacher\":%.4g,\"forward\":%.4g,\"loss_backward\":%.4g,\"clip_adamw\":%.4g}",
           o.split || r->be->mapped ? "true" : "false", middle(time[TEACHER]), middle(time[FORWARD]), middle(time[BACKWARD]),
           middle(time[UPDATE]));
    printf(",\"gflop_per_image\":%.4g,\"tflop_per_s\":%.4g", flops / 1e9, rate * flops / 1e12);
    if (o.peak > 0)
        printf(",\"mfu\":%.3f", rate * flops / 1e12 / o.peak);
    print_memory(r);
    printf(",\"loss\":%.6g}\n", r->loss);
}

int main(int argc, char **argv)
{
    Rig r = { 0 };
    Ceilings most;
    double *time[PARTS], part[PARTS];
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
    if (o.profile) {
        o.in_process = true;
        config.graph = false;
    }
    if (!(config.device = device_name(&o.device, "bf16")) || rig_open(&r, threads))
        die();
    if (o.profile && rig_profile(&r, &most))
        die();
    if (!opt_given(opts, "overlap"))
        o.overlap = !r.be->mapped;
    for (int i = 0; i < PARTS; i++)
        if (!(time[i] = calloc((size_t)o.steps, sizeof(double))))
            return 1;
    for (int64_t i = -o.warmup; i < o.steps; i++) {
        if (!i)
            profile_reset();
        if (step(&r, i, part))
            die();
        for (int p = 0; i >= 0 && p < PARTS; p++)
            time[p][i] = part[p];
    }
    print(&r, time, threads);
    if (o.profile)
        profile_print(o.steps, &most);
    for (int i = 0; i < PARTS; i++)
        free(time[i]);
    teach_close(&r.teach);
    uploads_free(r.uploads);
    student_free(r.student);
    shm_free(&r.pixels);
    return 0;
}
