/* What a training takes: flops and bytes counted without computing, and the arithmetic of a forecast. */
#include "../tap.h"

#include "ssl/student.h"
#include "ssl/teacher.h"
#include "tensor/dry.h"
#include "train/forecast.h"
#include "util/err.h"

#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool near(double got, double want)
{
    bool same = fabs(got - want) <= 1e-9 * fabs(want);
    if (!same)
        diag("got %.12g, want %.12g", got, want);
    return same;
}

/* A ViT without a head, by hand: P patches and a class token of width C. */
static double vit_flops(double views, double side, double patch, double c, double depth)
{
    double p = side / patch * (side / patch), n = p + 1;
    return views * (2 * p * 3 * patch * patch * c + depth * (2 * n * 12 * c * c + 4 * n * n * c));
}

static double head_flops(double rows, const TrainConfig *c, double dim)
{
    double h = (double)c->head_hidden, b = (double)c->head_bottleneck, k = (double)c->out_dim;
    return 2 * rows * (dim * h + h * h + h * b + b * k);
}

static TrainConfig small(void)
{
    TrainConfig c;
    config_init(&c);
    c.arch = "vit_nano";
    c.dim = 64;
    c.depth = 3;
    c.heads = 2;
    c.patch_size = 8;
    c.global_size = 32;
    c.local_size = 16;
    c.local_crops = 3;
    c.head_hidden = 96;
    c.head_bottleneck = 32;
    c.out_dim = 128;
    c.batch_size = 6;
    return c;
}

static void counting(void)
{
    TrainConfig c = small();
    Workload w, half;
    ok(!workload_count(&c, 1, &w), "a step is counted");
    double globals = vit_flops(2, 32, 8, 64, 3), locals = vit_flops(3, 16, 8, 64, 3);
    ok(near(w.forward, globals + locals + head_flops(5, &c, 64)),
       "flops of the student's forward pass, by hand");
    ok(near(w.teacher, globals + head_flops(2, &c, 64)), "of the teacher's");
    /* Twice as many, but for the gradient of the pixels, which nobody wants. */
    double pixels = 2 * (2 * 16 + 3 * 4) * 192.0 * 64;
    ok(near(w.backward, 2 * w.forward - pixels), "of the backward pass");
    ok(w.covered > 0.5 * w.backward && w.covered < w.backward, "most of it is that of the global views");
    ok(near(w.view_bytes, 3 * (2 * 32 * 32 + 3 * 16 * 16)) && near(w.target_bytes, 2 * 128 * 4),
       "bytes of views and targets");
    ok(near(w.weight_bytes, (double)student_bytes(&c)) && near(w.parameters, w.weight_bytes / 4),
       "and of weights");
    ok(!workload_count(&c, 2, &half) && near(half.batch, 3) && near(half.forward, w.forward) &&
           half.memory.step < w.memory.step && half.memory.weights == w.memory.weights,
       "two ranks have half the images each, and all the weights");
    ok(workload_count(&c, 4, &half) && strstr(err_text(), "not a multiple"), "four cannot share them: %s",
       err_text());
    c.device = "cuda,bf16";
    ok(!workload_count(&c, 1, &half) && near(half.forward, w.forward) && near(half.backward, w.backward),
       "a GPU that is not there has as many flops to do");
    c.recompute = true;
    ok(!workload_count(&c, 1, &w) && w.memory.step < half.memory.step, "recomputing takes less memory");
}

/* Memory is what a real step takes. */
static void memory(void)
{
    TrainConfig c = small();
    Workload w;
    c.aux = "convnext";
    StepRates r;
    StudentReport report;
    config_rates(&c, 10, 1, &r);
    Student *s = student_new(&c, NULL);
    Teacher *t = s ? teacher_new(&c, student_flat(s)) : NULL;
    size_t global = (size_t)c.batch_size * 2 * 32 * 32 * 3, local = (size_t)c.batch_size * 3 * 16 * 16 * 3;
    uint8_t *views = calloc(1, global + local);
    float *q = calloc(2 * (size_t)c.batch_size * (size_t)c.out_dim, sizeof *q);
    ViewBatch v = {.batch = c.batch_size,
                   .globals = 2,
                   .locals = 3,
                   .global_size = 32,
                   .local_size = 16,
                   .global = views,
                   .local = views ? views + global : NULL};
    ok(t && views && q && !teacher_targets(t, &v, 0.04, q, NULL) && !student_forward(s, &v, &r) &&
           !student_finish(s, q, &r, &report),
       "a real step");
    ok(!workload_count(&c, 1, &w) && t && w.memory.step == (double)student_step_bytes(s) &&
           w.memory.teacher_step == (double)teacher_step_bytes(t),
       "takes the bytes that were counted: %zu and %zu", s ? student_step_bytes(s) : 0,
       t ? teacher_step_bytes(t) : 0);
    free(views);
    free(q);
    teacher_free(t);
    student_free(s);
}

/* Round numbers, so that all can be done by hand. */
static const Workload load = {.batch = 10,
                              .forward = 4e9,
                              .backward = 8e9,
                              .teacher = 2e9,
                              .covered = 5e9,
                              .view_pixels = 1e5,
                              .view_bytes = 3e5,
                              .weight_bytes = 83886080,
                              .target_bytes = 1000,
                              .memory = {.views = 3e6, .all = 1e9}};
static const ForecastData data = {1000, 1e5, 2e5};

static Machine plain(void)
{
    Machine m;
    machine_init(&m);
    machine_fill(&m);
    m.cores = 4;
    m.memory = 8e9;
    m.decode = 2e8;
    m.render = 1e8;
    m.copy = 1e9;
    m.message = 1e-5;
    m.student = 6e11;
    m.teacher = 4e11;
    m.update = 12 * 83886080.0 / 0.05; /* 50 ms */
    m.busy = 3;
    return m;
}

static void one_rank(void)
{
    Machine m = plain();
    ForecastRun run = {2, 1, 0, 1};
    Forecast f;
    char text[400];
    forecast(&load, &data, &run, &m, &f);
    ok(near(f.student_s, 0.2) && near(f.teacher_s, 0.05) && near(f.update_s, 0.05) && f.allreduce_s == 0 &&
           near(f.step_s, 0.3),
       "a step");
    ok(near(f.stage[STAGE_LOAD].seconds, 1e-5 + 2.5e-4) &&
           near(f.stage[STAGE_MULTICROP].seconds, 2e-5 + 4e-4) &&
           near(f.stage[STAGE_AUGMENT].seconds, 2e-5 + 6.5e-4) &&
           near(f.stage[STAGE_WORKERS].seconds, 1e-5 + 1e-3 + 1e-3) && near(f.receive_s, 1e-5 + 3e-4),
       "the stages before it");
    ok(f.bound == STAGE_TRAIN && near(f.rate, 10 / 0.3) && near(f.steps, 200) &&
           near(f.hours, 2000 * 0.03 / 3600) && near(f.flops_rate, 14e9 / 0.03),
       "the trainer bounds it");
    ok(f.wanted == 0, "more workers would not help");
    ok(f.fits && near(f.weights_hop, 83886080 / 0.3) && near(f.views_hop, 1e7),
       "bytes a second, and it fits");
    m.memory = 1e9;
    forecast(&load, &data, &run, &m, &f);
    ok(!f.fits, "into less it does not");
    /* All processors of a slow machine: own work of a step and that of the others share them. */
    m = plain();
    m.busy = 4;
    m.decode = 2e7;
    forecast(&load, &data, &run, &m, &f);
    double others = 2.6e-4 + 4.2e-4 + 6.7e-4 + 3.1e-4 + (1e-5 + 1e-2 + 1e-3);
    ok(f.bound == STAGE_PROCESSORS && near(f.rate, 4 / (1.25 * others + 4 * 0.03)),
       "processors that are shared");
    forecast_advice(&f, &run, &m, text, sizeof text);
    ok(strstr(text, "another host") != NULL, "%s", text);
    m.student = 6e13;
    m.teacher = 4e13;
    m.update *= 100;
    m.gpu = true;
    m.device_memory = 2e9;
    m.busy = 1;
    m.cores = 64;
    forecast(&load, &data, &run, &m,
             &f); /* 3 ms a step: 3333 images/s, of which hssl-augment passes on 1492 */
    ok(f.bound == STAGE_WORKERS && near(f.rate, 1 / 0.01101) && near(f.wanted, 17),
       "a trainer that waits for a worker: %g", f.wanted);
    forecast_advice(&f, &run, &m, text, sizeof text);
    ok(strstr(text, "-j17") != NULL, "%s", text);
    run.jobs = 17;
    forecast(&load, &data, &run, &m, &f);
    ok(f.bound == STAGE_AUGMENT && near(f.rate, 1 / 6.7e-4), "with that many it does not");
    m.upload = 3e8;
    forecast(&load, &data, &run, &m, &f);
    ok(f.bound == STAGE_UPLOAD && near(f.rate, 1000), "a slow way up to the GPU");
}

static void ranks(void)
{
    Machine m = plain();
    ForecastRun run = {2, 16, 0, 1};
    Forecast f;
    ok(near(forecast_ring(4, 1e9, 1e9, 0.01), 1.5 + 0.06) && forecast_ring(1, 1e9, 1e9, 1) == 0, "a ring");
    m.devices = 8;
    m.cores = 64;
    m.link = 1e11;
    m.network = 1e10;
    m.latency = 1e-4;
    forecast(&load, &data, &run, &m, &f);
    double sum = 2 * 15 / 16.0 * 83886080 / 1e10 + 30 * 1e-4;
    ok(near(f.hosts, 2) && near(f.per_host, 8) && near(f.rank_cores, 8), "two hosts");
    ok(near(f.allreduce_s, sum) && f.hidden_s == 0 && near(f.step_s, 0.3 + sum) &&
           near(f.rate, 160 / (0.3 + sum)),
       "sums that nothing hides");
    ok(near(f.steps, 2 * 6), "an epoch has whole batches of all ranks");
    m.overlap = 0.5;
    forecast(&load, &data, &run, &m, &f);
    ok(near(f.hidden_s, 0.9 * sum), "sums that hide behind the way back, but for the last of ten pieces");
    m.network = 1e8;
    forecast(&load, &data, &run, &m, &f);
    ok(near(f.hidden_s, 0.5 * 10 * 5e9 / 6e11), "which is no longer than it is");
    run.per_host = 16;
    forecast(&load, &data, &run, &m, &f);
    ok(near(f.hosts, 1) && near(f.rank_cores, 4) &&
           near(f.allreduce_s, 2 * 15 / 16.0 * 83886080 / 1e11 + 30e-4),
       "on one host the network is not used");
}

static int parse(const char *path, const char *text, Machine *m)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f))
        return -2;
    return machine_read(path, m);
}

static void files(void)
{
    char path[] = "/tmp/hssl-forecast.XXXXXX";
    Machine m = plain(), back;
    int fd = mkstemp(path);
    if (fd >= 0)
        close(fd);
    snprintf(m.name, sizeof m.name, "a \"name\"");
    ok(!machine_write(path, &m) && !machine_read(path, &back) && !strcmp(back.name, m.name) &&
           back.cores == 4 && back.student == m.student && fabs(back.update / m.update - 1) < 1e-5,
       "a machine is written and read");
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"", "not JSON"},
        {"[1]", "not a JSON object"},
        {"{\"cores\":1}", "memory is missing"},
        {"{\"cores\":0}", "cores 0: out of range"},
        {"{\"cores\":\"two\"}", "cores: not a number"},
        {"{\"gpu\":1}", "gpu: not true or false"},
        {"{\"name\":1}", "name: not a text"},
        {"{\"cores\":2,\"colour\":1}", "colour: no such key"},
        {"{\"cores\":2,\"memory\":1,\"decode\":1,\"render\":1,\"student\":1,\"overlap\":2}", "overlap 2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(parse(path, bad[i].text, &back) == -1 && strstr(err_text(), bad[i].why), "refused: %s",
           err_text());
    ok(!parse(path, "{\"cores\":2,\"memory\":1e9,\"decode\":1,\"render\":1,\"student\":5}", &back) &&
           back.teacher == 5 && back.busy == 2 && back.device_memory == 1e9 && back.devices == 1,
       "what is not said follows from the rest");
    unlink(path);
    ok(machine_read(path, &back) == -1 && strstr(err_text(), "No such file"), "%s", err_text());
}

int main(void)
{
    counting();
    memory();
    one_rank();
    ranks();
    files();
    return tap_done();
}
