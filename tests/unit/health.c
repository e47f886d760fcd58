/* Whether a training learns, as far as that is seen without labels, and what it will take. */
#include "../tap.h"

#include "train/alarms.h"
#include "train/health.h"
#include "train/outlook.h"
#include "train/spectrum.h"
#include "util/chart.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool near(double got, double want, double within)
{
    bool same = fabs(got - want) <= within;
    if (!same)
        diag("got %.9g, want %.9g", got, want);
    return same;
}

/* ---------------------------------------------------------------- rank */

static void rotate(float *x, int64_t n, int64_t c, int64_t i, int64_t j, double angle)
{
    for (int64_t r = 0; r < n; r++) {
        double a = x[r * c + i], b = x[r * c + j];
        x[r * c + i] = (float)(a * cos(angle) - b * sin(angle));
        x[r * c + j] = (float)(a * sin(angle) + b * cos(angle));
    }
}

static void test_rank(void)
{
    enum { N = 40, C = 24 };
    static float x[N * C], same[N * C], across[N * C];
    const double sigma[] = { 5, 3, 1, 0.5 };
    double sum = 9.5, entropy = 0;
    for (int i = 0; i < 4; i++) {
        x[i * C + i] = (float)sigma[i];
        entropy -= sigma[i] / sum * log(sigma[i] / sum);
    }
    for (int i = 0; i < C - 1; i++)
        rotate(x, N, C, i, i + 1, 0.3 + i);
    ok(near(effective_rank(x, N, C), exp(entropy), 1e-3),
       "the rank is that of the singular values, however it lies");
    for (int r = 0; r < N; r++)
        for (int i = 0; i < C; i++)
            across[i * N + r] = x[r * C + i];
    ok(near(effective_rank(across, C, N), exp(entropy), 1e-3), "and of the transposed");
    for (int i = 0; i < N * C; i++)
        same[i] = (float)(1 + i % C) * (float)(1 + i / C);
    ok(near(effective_rank(same, N, C), 1, 1e-3), "multiples of one vector: 1");
    memset(x, 0, sizeof x);
    ok(near(effective_rank(x, N, C), 0, 0), "nothing: 0");
    for (int i = 0; i < C; i++)
        x[i * C + i] = 2;
    ok(near(effective_rank(x, N, C), C, 1e-6), "all directions alike: their number");
    ok(near(effective_rank(x, 1, C), 1, 1e-9), "one vector: 1");
    x[3] = NAN;
    ok(near(effective_rank(x, N, C), 0, 0), "what is not finite has no rank");
}

/* ---------------------------------------------------------------- looks */

enum { B2 = 8, K = 16, DIM = 6 };

static TrainConfig small(void)
{
    TrainConfig c;
    config_init(&c);
    c.out_dim = K;
    c.batch_size = B2 / 2;
    c.warmup_epochs = 0;
    return c;
}

static void test_looks(void)
{
    TrainConfig c = small();
    Backend *be = backend_open("cpu");
    static float q[B2 * K], features[B2 * DIM];
    HealthFigures f;
    Tensor x = { .dtype = DT_F32, .ndim = 2, .shape = { B2, DIM }, .data = features };
    Health *h = health_new(be, &c, B2, 40);
    if (!ok(h != NULL, "health of a short training"))
        return;
    for (int r = 0; r < B2; r++) { /* half the mass on a prototype of its own, half on one that all share */
        q[r * K + r] = 0.5f;
        q[r * K + K - 1] = 0.5f;
        features[r * DIM + r % 2] = 1;
    }
    int windows = 0;
    for (int step = 0; step < 40; step++) {
        bool due = health_due(h, step, false);
        ok(!due || !health_keep(h, &x), "features are put aside");
        ok(!health_step(h, step < 20 ? 3 : 1, due ? q : NULL), "step %d", step);
        if (health_window(h, &f) > 0) {
            windows++;
            ok(near(f.entropy, log(2), 1e-6), "entropy of the targets");
            ok(near(f.mean_entropy, 0.5 * log(2) + 8 * 0.0625 * log(16), 1e-6), "and of their mean");
            ok(near(f.rank, 2, 1e-6) && f.dim == DIM, "rank of the features");
            ok(near(f.loss, windows < 3 ? 3 : 1, 1e-9) && f.steps == 10,
               "mean loss of the window's ten steps");
        }
    }
    is_int(windows, 4, "a window is ten looks, of a short training ten steps");
    ok(!health_epoch(h, &f) && f.steps == 40 && near(f.loss, 2, 1e-9) && near(f.entropy, log(2), 1e-6),
       "an epoch has all its steps");
    ok(!health_epoch(h, &f) && f.steps == 0 && !isfinite(f.entropy) && !isfinite(f.rank), "and begins anew");
    health_free(h);
    h = health_new(be, &c, B2, 100000);
    int due = 0;
    for (int step = 0; h && step < 1000; step++)
        due += health_due(h, step, false);
    is_int(due, 100, "of a long training each tenth step is looked at");
    ok(h && health_due(h, 12, true), "and the last one of each epoch");
    health_free(h);
}

/* ---------------------------------------------------------------- warnings */

static double ln_k;

static HealthFigures good(int window)
{
    /* Falls fast, while all targets share what the centre has not taken out yet, then rises, then learns. */
    double loss = window < 3 ? 0.5 * ln_k : 0.7 * ln_k - 0.001 * window;
    return (HealthFigures){.steps = 10,
                           .looks = 10,
                           .loss = loss,
                           .entropy = 0.8 * loss,
                           .mean_entropy = loss,
                           .rank = 13,
                           .dim = 128};
}

static Alarms fresh(int64_t warmup)
{
    TrainConfig c = small();
    Alarms a;
    c.out_dim = 65536;
    c.warmup_epochs = warmup;
    alarms_init(&a, &c, 10);
    ln_k = a.ln_k;
    return a;
}

/* Windows of f, until something changes: how many; 0: `most` change nothing. */
static int until(Alarms *a, int64_t *step, const HealthFigures *f, int most, unsigned *changed)
{
    for (int i = 1; i <= most; i++)
        if ((*changed = alarms_judge(a, *step += 10, f)))
            return i;
    return 0;
}

static void test_alarms(void)
{
    Alarms a = fresh(0);
    int64_t step = 0;
    unsigned changed = 0;
    for (int w = 0; w < 200; w++) {
        HealthFigures f = good(w);
        changed |= alarms_judge(&a, step += 10, &f);
    }
    is_int(changed, 0, "a good training is not warned of");

    HealthFigures uniform = {
        .loss = ln_k, .entropy = 0.9999 * ln_k, .mean_entropy = ln_k, .rank = 5, .dim = 128};
    HealthFigures fine = good(50);
    int n = until(&a, &step, &uniform, 10, &changed);
    ok(n == 5 && changed == 1u << ALARM_UNIFORM && a.of[ALARM_UNIFORM].since == step,
       "uniform targets, for a while");
    is_int(until(&a, &step, &uniform, 100, &changed), 0, "said once");
    n = until(&a, &step, &fine, 10, &changed);
    ok(n == 5 && changed == 1u << ALARM_UNIFORM && !alarm_is_on(&a, ALARM_UNIFORM), "it ends");
    is_int(until(&a, &step, &uniform, 4, &changed), 0, "windows that are not enough");
    alarms_judge(&a, step += 10, &fine);
    is_int(until(&a, &step, &uniform, 4, &changed), 0, "do not add up with later ones");
    ok(until(&a, &step, &uniform, 10, &changed) == 1 && alarm_is_on(&a, ALARM_UNIFORM),
       "it comes again, and is said again");

    a = fresh(100);
    step = 0;
    HealthFigures early = uniform, dead = uniform;
    early.entropy = 0.998 * ln_k;
    is_int(until(&a, &step, &early, 90, &changed), 0,
           "where K is large, targets that are nearly uniform are no fault at first");
    is_int(alarms_end(&a, step) ? 1 : 0, 1, "but where the training ends so");
    a = fresh(100);
    dead.entropy = (1 - 1e-6) * ln_k;
    ok(until(&a, &step, &dead, 10, &changed) == 5, "uniform to the last digits is one at any time");

    a = fresh(0);
    HealthFigures one = { .loss = 0.02, .entropy = 0.001, .mean_entropy = 0.01, .rank = 8, .dim = 128 };
    ok(until(&a, &step, &one, 10, &changed) == 3 && changed == 1u << ALARM_ONE_SIDED,
       "all mass on one prototype");

    a = fresh(0);
    HealthFigures flat = good(10);
    flat.rank = 1.2;
    ok(until(&a, &step, &flat, 10, &changed) == 5 && changed == 1u << ALARM_RANK,
       "features of one direction");

    a = fresh(0);
    HealthFigures worse = good(10), explodes = good(10);
    worse.loss = 1.05 * ln_k;
    explodes.loss = 3 * ln_k;
    is_int(until(&a, &step, &worse, 100, &changed), 0, "a loss that begins high is no rise");
    alarms_judge(&a, step += 10, &fine);
    ok(until(&a, &step, &worse, 10, &changed) == 3 && changed == 1u << ALARM_LOSS,
       "one that rises above an untrained student's is");
    a = fresh(0);
    alarms_judge(&a, step += 10, &fine);
    ok(until(&a, &step, &explodes, 10, &changed) == 2, "one that explodes is sooner");
    TrainConfig c = small();
    double most = log(64);
    HealthFigures light = {.loss = 0.5 * most, .entropy = most, .mean_entropy = most, .rank = 8, .dim = 128},
                  heavy = {.loss = 1.4 * most, .entropy = 2, .mean_entropy = 3, .rank = 8, .dim = 128};
    c.out_dim = 64;
    c.warmup_epochs = 0;
    c.aux = "convnext";
    c.hssl_weight = 0.25;
    alarms_init(&a, &c, 10);
    ok(until(&a, &step, &light, 10, &changed) == 5 && changed == 1u << ALARM_UNIFORM,
       "uniform targets are, whatever the two terms of a loss weigh");
    c.hssl_weight = 1;
    alarms_init(&a, &c, 10);
    alarms_judge(&a, step += 10, &heavy);
    heavy.loss = 1.5 * most;
    is_int(until(&a, &step, &heavy, 10, &changed), 0, "and their sum is held against two untrained ones");
    HealthFigures unknown = { .loss = NAN, .entropy = NAN, .mean_entropy = NAN, .rank = NAN };
    a = fresh(0);
    is_int(until(&a, &step, &unknown, 50, &changed), 0, "what is not known is no fault");

    a = fresh(0);
    is_int(alarms_waits(&a, 10, 20, 12), 0, "a wait");
    ok(alarms_waits(&a, 20, 20, 12) == 1u << ALARM_STARVED, "that goes on");
    is_int(alarms_waits(&a, 30, 20, 12), 0, "is said once");
    alarms_waits(&a, 40, 20, 8);
    ok(alarms_waits(&a, 50, 20, 0) == 1u << ALARM_STARVED && !alarm_is_on(&a, ALARM_STARVED), "and ends");

    a = fresh(0);
    alarms_go_on(&a, "starved", 7);
    alarms_go_on(&a, "of a newer version", 7);
    ok(a.of[ALARM_STARVED].since == 7 && !alarm_is_on(&a, ALARM_UNIFORM),
       "a training that goes on keeps its warnings");
    is_int(alarms_waits(&a, 30, 20, 12), 0, "which are not said again");
    alarms_waits(&a, 40, 20, 8);
    ok(alarms_waits(&a, 50, 20, 0) == 1u << ALARM_STARVED && !alarm_is_on(&a, ALARM_STARVED),
       "and end as others do");
    for (int k = 0; k < ALARM_KINDS; k++)
        ok(*alarm_name((AlarmKind)k) && *alarm_says((AlarmKind)k) && *alarm_remedy((AlarmKind)k),
           "%s has words", alarm_name((AlarmKind)k));
}

/* ---------------------------------------------------------------- what it takes */

static void test_outlook(void)
{
    TrainConfig c;
    Workload w;
    SmallerTraining s;
    char text[320];
    config_init(&c);
    c.local_crops = 2;
    c.batch_size = 2;
    c.out_dim = 1024;
    if (!ok(!workload_count(&c, 1, &w), "a training is counted"))
        return;
    Outlook o = {
        .memory = 12.8e9, .available = 20e9, .step_s = 190, .steps = 100100, .epochs = 100, .threads = 2};
    ok(near(outlook_hours(&o), 5283.0556, 1e-3) && outlook_excessive(&o) && !outlook_swaps(&o),
       "hours; and it is too much");
    ok(!outlook_smaller(&c, &w, &o, &s) && s.arch && s.hours < outlook_hours(&o), "a smaller one is found");
    o.steps = 1600;
    ok(!outlook_smaller(&c, &w, &o, &s) && s.arch && !strcmp(s.arch, "vit_tiny") && s.global_size == 0 &&
           s.hours <= 24,
       "the largest one that is done within a day");
    SmallerTraining named = { .arch = "vit_tiny", .global_size = 96, .hours = 41.2 };
    o.steps = 100100;
    outlook_text(&o, &named, text, sizeof text);
    is_str(text,
           "about 12.8 GB, 190 s a step, 5,280 h for 100 epochs on 2 threads; vit_tiny with --global-size 96 "
           "would take "
           "about 41 h: see hssl-plan",
           "in words");
    o = (Outlook){
        .memory = 1.5e9, .available = 1e9, .step_s = 0.0123, .steps = 5000, .epochs = 1, .gpu = true};
    ok(outlook_swaps(&o) && outlook_excessive(&o), "more memory than there is");
    outlook_text(&o, NULL, text, sizeof text);
    is_str(text, "about 1.5 GB, of which 1.0 GB are there, 12 ms a step, 62 s for 1 epoch", "in words");
    o = (Outlook){ .memory = 1e9, .step_s = 1, .steps = 3600 * 71, .epochs = 3, .threads = 1 };
    ok(!outlook_excessive(&o), "three days are not too much");
    o.gpu = true;
    o.steps *= 9;
    ok(!outlook_excessive(&o), "nor weeks on a GPU");
    ok(memory_available() >= 0, "the memory that is there");
}

/* ---------------------------------------------------------------- charts */

static char *drawn(const Chart *c)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (f) {
        chart_draw(c, f);
        fclose(f);
    }
    return text;
}

static void test_chart(void)
{
    const double x[] = { 0, 1, 2, 3 }, y[] = { 0, 1, NAN, 3 };
    Chart c = { .title = "loss", .x = x, .y = y, .n = 4, .line = NAN, .to = 3, .width = 25, .height = 4 };
    char *text = drawn(&c);
    is_str(text,
           "loss\n        3 |           ***\n          |       ****\n          |  *****\n        0 |**\n",
           "a line in ASCII");
    free(text);
    c.line = 3;
    c.n = 2;
    text = drawn(&c);
    is_str(text, "loss\n        3 |--------------\n          |\n          |  ***\n        0 |**\n",
           "with a level");
    free(text);
    c.utf8 = true;
    text = drawn(&c);
    ok(text && strstr(text, "\342\240\201") && strstr(text, "|") && !strchr(text, '*'), "in braille");
    free(text);
    c.utf8 = false;
    c.n = 1;
    c.line = NAN;
    c.height = 2;
    text = drawn(&c);
    is_str(text, "loss\n        0 |*\n        0 |\n", "one point");
    free(text);
    c.n = 0;
    text = drawn(&c);
    is_str(text, "loss\n", "none");
    free(text);
}

int main(void)
{
    test_rank();
    test_looks();
    test_alarms();
    test_outlook();
    test_chart();
    return tap_done();
}
