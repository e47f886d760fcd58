/* Training on the device: 20 steps of small models against the processor's, the same bits twice, and from a state that was
 * taken out in the middle. Where the device is emulated the models are tiny and the steps few: a step takes seconds there. */
#include "both.h"

#include "../device.h"
#include "ssl/student.h"
#include "ssl/teacher.h"
#include "util/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 4, SIZE = 16, LOCAL = 8, LOCALS = 2, K = 32, MOST_STEPS = 20 };

static int step_count;
static uint8_t globals[2 * B * SIZE * SIZE * 3], locals[LOCALS * B * LOCAL * LOCAL * 3];

static TrainConfig small(const char *aux, const char *device)
{
    TrainConfig c;
    config_init(&c);
    c.arch = "vit_nano";
    c.dim = both_slow() ? 16 : 32;
    c.depth = both_slow() ? 1 : 3;
    c.heads = 2;
    c.patch_size = both_slow() ? 8 : 4;
    c.global_size = SIZE;
    c.local_size = LOCAL;
    c.local_crops = LOCALS;
    c.aux = aux;
    c.aux_depth = both_slow() ? 1 : 2;
    c.drop_path = 0.2;
    c.out_dim = K;
    c.head_hidden = 48;
    c.head_bottleneck = 32;
    c.batch_size = B;
    c.epochs = 10;
    c.warmup_epochs = 1;
    c.lr = 0.02;
    c.seed = 3;
    c.device = device;
    return c;
}

typedef struct {
    TrainConfig config;
    Backend *be;
    Student *student;
    Teacher *teacher;
    uint8_t *global, *local;
    float *q;
    uint8_t *turn[2]; /* views of every other step, or NULL: the same memory each time */
    int rest;         /* before this step the tape's memory is others', or 0 */
    double loss[MOST_STEPS], d[MOST_STEPS];
} Run;

static bool begin(Run *r, const TrainConfig *c)
{
    *r = (Run){ .config = *c, .be = backend_open(c->device) };
    r->student = student_new(c, NULL);
    r->teacher = r->student ? teacher_new(c, student_flat(r->student)) : NULL;
    if (!r->teacher)
        return ok(false, "%s: %s", c->device, err_text());
    r->global = device_put(r->be, NULL, sizeof globals);
    r->local = device_put(r->be, NULL, sizeof locals);
    r->q = device_put(r->be, NULL, 2 * B * K * sizeof(float));
    return true;
}

static void end(Run *r)
{
    student_free(r->student);
    teacher_free(r->teacher);
    device_done();
}

static bool steps(Run *r, int from, int to)
{
    for (int n = from; n < to; n++) {
        StepRates rates;
        StudentReport report;
        Discrepancy d;
        for (size_t i = 0; i < sizeof globals; i++)
            globals[i] = (uint8_t)(i * 7 + i / 97 * (size_t)(n + 3));
        for (size_t i = 0; i < sizeof locals; i++)
            locals[i] = (uint8_t)(i * 5 + i / 31 * (size_t)(n + 2));
        uint8_t *global = n % 2 && r->turn[0] ? r->turn[0] : r->global, *local = n % 2 && r->turn[1] ? r->turn[1] : r->local;
        device_set(r->be, global, globals, sizeof globals);
        device_set(r->be, local, locals, sizeof locals);
        ViewBatch v = { .batch = B, .globals = 2, .locals = LOCALS, .global_size = SIZE, .local_size = LOCAL,
                        .global = global, .local = local };
        if (r->rest && n == r->rest)
            student_rest(r->student);
        config_rates(&r->config, 2, n, &rates);
        if (teacher_targets(r->teacher, &v, rates.teacher_temp, r->q, &d) || student_forward(r->student, &v, &rates) ||
            student_finish(r->student, r->q, &rates, &report) ||
            teacher_update(r->teacher, student_flat(r->student), rates.momentum))
            return ok(false, "step %d on %s: %s", n, r->config.device, err_text());
        r->loss[n] = report.loss;
        r->d[n] = d.d;
    }
    return true;
}

static double furthest(const double *a, const double *b)
{
    double most = 0;
    for (int i = 0; i < step_count; i++)
        if (!(isnan(a[i]) && isnan(b[i])))
            most = fmax(most, fabs(a[i] - b[i]) / fmax(1, fabs(b[i])));
    return most;
}

static bool same_bits(Run *a, Run *b)
{
    size_t bytes = student_bytes(&a->config);
    void *x[2] = { device_get(a->be, student_flat(a->student), bytes), device_get(b->be, student_flat(b->student), bytes) };
    void *y[2] = { device_get(a->be, params_flat(network_params(teacher_network(a->teacher))), bytes),
                   device_get(b->be, params_flat(network_params(teacher_network(b->teacher))), bytes) };
    return !memcmp(x[0], x[1], bytes) && !memcmp(y[0], y[1], bytes) && a->loss[step_count - 1] == b->loss[step_count - 1];
}

/* The tensors of a state by name, for state_load. */
static int look_up(void *arg, const char *name, StateTensor *found)
{
    const StateList *l = arg;
    for (size_t i = 0; i < l->count; i++)
        if (!strcmp(l->items[i].name, name)) {
            *found = l->items[i];
            return 0;
        }
    return err_set(ERR_ABSENT, "%s: not there", name);
}

/* Out of one run, over the host, into another. */
static int hand_over(Run *from, Run *to)
{
    StateList out = { 0 }, in = { 0 };
    int rc = student_state(from->student, &out) || teacher_state(from->teacher, &out) || state_fetch(&out) ||
             student_state(to->student, &in) || teacher_state(to->teacher, &in) || state_load(&in, look_up, &out);
    state_free(&in);
    state_free(&out);
    return rc ? -1 : 0;
}

static void test_training(const char *aux, const char *device)
{
    TrainConfig here = small(aux, "cpu"), there = small(aux, device);
    Run a, b, c;
    /* With fewer digits the ways part slowly; they must start together and stay near. */
    bool coarse = device_coarse(side[1]);
    if (!begin(&a, &here) || !begin(&b, &there) || !begin(&c, &there) || !steps(&a, 0, step_count) || !steps(&b, 0, step_count))
        return;
    ok(furthest(b.loss, a.loss) < (coarse ? 0.1 : 1e-3), "head %s: the losses of %d steps are the processor's: %.2g", aux,
       step_count, furthest(b.loss, a.loss));
    if (strcmp(aux, "none"))
        ok(b.d[0] > 0 && furthest(b.d, a.d) < (coarse ? 0.3 : 5e-3), "D too: %.2g", furthest(b.d, a.d));
    steps(&c, 0, step_count);
    ok(same_bits(&b, &c), "once more: the same bits");
    end(&c);
    Run half, rest;
    if (!begin(&half, &there) || !begin(&rest, &there) || !steps(&half, 0, step_count / 2))
        return;
    ok(!hand_over(&half, &rest), "a state moves over the host");
    steps(&rest, step_count / 2, step_count);
    ok(rest.loss[step_count - 1] == b.loss[step_count - 1], "going on from it: the same loss");
    end(&half);
    end(&rest);
    /* Steps are recorded and repeated; the bits are those of steps that aren't, in whatever memory the views lie. */
    TrainConfig plain = there;
    plain.graph = false;
    if (begin(&c, &plain) && steps(&c, 0, step_count))
        ok(same_bits(&b, &c), "no step recorded: the same bits");
    end(&c);
    if (begin(&c, &there)) {
        c.turn[0] = device_put(c.be, NULL, sizeof globals);
        c.turn[1] = device_put(c.be, NULL, sizeof locals);
        ok(steps(&c, 0, step_count) && same_bits(&b, &c), "views in two places by turns: the same bits");
    }
    end(&c);
    if (begin(&c, &there)) {
        c.rest = 3;
        ok(steps(&c, 0, step_count) && same_bits(&b, &c), "the memory lent to others between two steps: the same bits");
    }
    end(&c);
    TrainConfig twice = there;
    twice.recompute = true;
    if (begin(&c, &twice) && steps(&c, 0, step_count))
        ok(furthest(c.loss, b.loss) < (coarse ? 0.1 : 1e-5), "layers that are computed twice: the same losses: %.2g",
           furthest(c.loss, b.loss));
    end(&c);
    TrainConfig apart = there;
    apart.pack = false;
    if (begin(&c, &apart) && steps(&c, 0, step_count))
        ok(furthest(c.loss, b.loss) < (coarse ? 0.1 : 1e-5), "views of one size after those of the other: the same losses: %.2g",
           furthest(c.loss, b.loss));
    end(&c);
    student_free(a.student);
    teacher_free(a.teacher);
    student_free(b.student);
    teacher_free(b.teacher);
}

/* Why a loss is not finite is found by one more forward pass, which is not recorded. */
static void test_blame(const char *device)
{
    TrainConfig c = small("vit", device);
    Run r;
    if (!begin(&r, &c) || !steps(&r, 0, 2))
        return;
    /* Finite weights, and numbers on the way that are not. */
    Params *p = network_params(student_network(r.student));
    const Param *w = params_find(p, "backbone.norm.weight");
    float *large = malloc(w->count * sizeof *large);
    for (size_t i = 0; i < w->count; i++)
        large[i] = 3e38f;
    device_set(r.be, w->tensor->data, large, w->count * sizeof *large);
    free(large);
    StepRates rates;
    StudentReport report;
    config_rates(&c, 2, 2, &rates);
    ViewBatch v = { .batch = B, .globals = 2, .locals = LOCALS, .global_size = SIZE, .local_size = LOCAL, .global = r.global,
                    .local = r.local };
    int rc = student_forward(r.student, &v, &rates) ? 0 : student_finish(r.student, r.q, &rates, &report);
    ok(rc < 0 && err_code() == ERR_MATH && strstr(err_text(), "image vectors of the base"), "numbers on the way that are not: %s",
       err_text());
    end(&r);
}

static void test_not_finite(const char *device)
{
    TrainConfig c = small("none", device);
    Run r;
    if (!begin(&r, &c) || !steps(&r, 0, 2))
        return;
    size_t bytes = student_bytes(&c);
    float *before = device_get(r.be, student_flat(r.student), bytes);
    StepRates rates;
    StudentReport report;
    config_rates(&c, 2, 2, &rates);
    float *bad = malloc(2 * B * K * sizeof *bad);
    for (int i = 0; i < 2 * B * K; i++)
        bad[i] = i == 5 ? NAN : 1.0f / K;
    device_set(r.be, r.q, bad, 2 * B * K * sizeof *bad);
    free(bad);
    ViewBatch v = { .batch = B, .globals = 2, .locals = LOCALS, .global_size = SIZE, .local_size = LOCAL, .global = r.global,
                    .local = r.local };
    int rc = student_forward(r.student, &v, &rates) ? 0 : student_finish(r.student, r.q, &rates, &report);
    ok(rc < 0 && err_code() == ERR_MATH && strstr(err_text(), "targets"), "a loss that is not finite: %s", err_text());
    float *after = device_get(r.be, student_flat(r.student), bytes);
    ok(!memcmp(before, after, bytes), "and nothing of the student has changed");
    end(&r);
}

/* An argument picks the head of the only model that is trained. */
int main(int argc, char **argv)
{
    both_open();
    const char *asked = getenv("HSSL_TEST_DEVICE"), *device = asked ? asked : "cuda";
    step_count = both_slow() ? 6 : MOST_STEPS;
    static const char *const heads[] = { "none", "vit", "convnext" };
    for (int i = 0; i < 3; i++)
        if (argc < 2 ? i || !both_slow() : !strcmp(argv[1], heads[i]))
            test_training(heads[i], device);
    if (argc > 1)
        return tap_done();
    test_not_finite(device);
    test_blame(device);
    return tap_done();
}
