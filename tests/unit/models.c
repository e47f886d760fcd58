/* Base models and auxiliary heads: sizes, names, and that inference agrees with recording. */
#include "../tap.h"
#include "models/aux.h"
#include "models/backbone.h"
#include "ssl/head.h"
#include "tensor/backend.h"
#include "util/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static long long trained(Params *p)
{
    long long n = 0;
    for (size_t i = 0; i < params_count(p); i++)
        if (params_at(p, i)->trains)
            n += (long long)params_at(p, i)->count;
    return n;
}

static void test_counts(void)
{
    static const struct {
        const char *name;
        long long want;
    } sizes[] = { { "vit_tiny", 5524416 }, { "vit_small", 21665664 }, { "vit_base", 85798656 },
                  { "vit_large", 303301632 } };
    for (int i = 0; i < 4; i++) {
        Params *p = params_new();
        BackboneSpec s = { sizes[i].name, backbone_dims(sizes[i].name, 0, 0, 0), 16, 224 };
        Backbone *b = backbone_new(&s, p, "");
        is_int(trained(p), sizes[i].want, sizes[i].name);
        backbone_free(b);
        params_free(p);
    }
    Params *p = params_new();
    AuxSpec s = { .kind = "convnext", .dim = 384, .depth = 1 };
    AuxHead *h = aux_new(&s, p, "aux.");
    is_int(trained(p) - 2 * 384, 1201536, "one convnext layer of width 384");
    aux_free(h);
    params_free(p);
    p = params_new();
    HeadMlp mlp;
    HeadLast last;
    head_mlp_add(&mlp, p, 384, 2048, 256, "head.");
    head_last_add(&last, p, 256, 65536, true, "head.");
    is_int(trained(p), 22286592, "DINO's projection head");
    params_free(p);
    ok(!backbone_find("vit_huge") && err_code() == ERR_ABSENT, "an unknown architecture is said to be one");
    ok(!aux_find("mlp") && err_code() == ERR_ABSENT, "an unknown head too");
    for (int i = 0; backbone_at(i); i++)
        ok(strstr(backbone_words(), backbone_at(i)->name) != NULL, "%s is offered", backbone_at(i)->name);
}

/* A base and a head on images of some size, image vectors copied to out [2][B * C]. */
static int forward(Backbone *b, AuxHead *h, Tape *t, bool record, int64_t rows, int64_t cols,
                   const Pass *pass, float *out)
{
    enum { B = 3 };
    tape_begin(t, record);
    int64_t shape[] = { B, 3, rows, cols };
    Tensor *x = tape_tensor(t, DT_F32, 4, shape);
    float *v = x->data;
    for (int64_t i = 0; i < tensor_count(x); i++)
        v[i] = (float)sin(0.37 * (double)i);
    BackboneOut base;
    AuxOut head;
    if (backbone_forward(b, t, x, true, false, pass, &base) || aux_forward(h, t, &base, false, pass, &head))
        return -1;
    size_t n = (size_t)tensor_count(base.image);
    memcpy(out, base.image->data, n * sizeof *out);
    memcpy(out + n, head.image->data, n * sizeof *out);
    return 0;
}

static void test_forward(const char *kind)
{
    enum { B = 3, C = 24, N = 2 * B * C };
    float a[N], b[N], c[N];
    Params *p = params_new();
    Tape *t = tape_new(test_device());
    BackboneSpec s = { "vit_tiny", backbone_dims("vit_tiny", C, 3, 2), 4, 24 };
    AuxSpec as = { .kind = kind, .dim = C, .depth = 2, .first_layer = 3 };
    Backbone *base = backbone_new(&s, p, "backbone.");
    AuxHead *head = aux_new(&as, p, "aux.");
    if (!ok(!params_commit(p, tape_backend(t), NULL, true) && !params_init(p, 3), "%s: built", kind))
        return;
    ok(!forward(base, head, t, true, 24, 24, NULL, a) && !forward(base, head, t, false, 24, 24, NULL, b),
       "%s: runs with and without record", kind);
    is_close(b, a, N, 2e-6, "%s: both agree", kind);
    ok(!forward(base, head, t, false, 12, 20, NULL, b), "%s: another size, not square", kind);
    ok(!forward(base, head, t, false, 4, 4, NULL, b), "%s: a grid of one patch", kind);
    ok(forward(base, head, t, false, 3, 9, NULL, b) && err_code() == ERR_SHAPE,
       "%s: less than a patch is refused", kind);
    float factors[5 * BRANCHES * B];
    DropPath draws = { .rate = 0.5f, .layers = 5, .seed = 1, .step = 2 };
    Pass drop = { .factors = factors };
    drop_path_draw(&draws, B, factors);
    ok(!forward(base, head, t, true, 24, 24, &drop, b) && !forward(base, head, t, true, 24, 24, &drop, c) &&
           !memcmp(b, c, sizeof b) && memcmp(a, b, sizeof a),
       "%s: drop path", kind);
    draws.step++;
    drop_path_draw(&draws, B, factors);
    ok(!forward(base, head, t, true, 24, 24, &drop, c) && memcmp(b, c, sizeof b),
       "%s: and draws anew each step", kind);
    Probe probe = { "" };
    Pass look = { .probe = &probe };
    float *weight = params_find(p, "aux.layers.1.norm.weight")
                        ? params_find(p, "aux.layers.1.norm.weight")->tensor->data
                        : params_find(p, "aux.layers.1.norm2.weight")->tensor->data;
    weight[3] = NAN;
    forward(base, head, t, false, 24, 24, &look, b);
    is_str(probe.first, "output of aux.layers.1", "the probe names where a NaN came up");
    backbone_free(base);
    aux_free(head);
    params_free(p);
    tape_free(t);
}

static void test_drop_path(void)
{
    enum { B = 4096, LAYERS = 4, ALL = LAYERS * BRANCHES * B };
    static float all[ALL], again[ALL], half[2][ALL / 2];
    DropPath d = { .rate = 0.3f, .layers = LAYERS, .seed = 5, .step = 6 };
    drop_path_draw(&d, B, all);
    drop_path_draw(&d, B, again);
    ok(!memcmp(all, again, sizeof all), "drop path repeats its draws");
    d.ranks = 2;
    for (d.rank = 0; d.rank < 2; d.rank++)
        drop_path_draw(&d, B / 2, half[d.rank]);
    int differ = 0;
    for (int i = 0; i < ALL; i++)
        differ += all[i] != half[i % 2][i / 2];
    ok(!differ, "two ranks share them out");
    Pass pass = { .factors = all };
    ok(!drop_path_factors(NULL, 3, 0, B) && !drop_path_factors(&pass, 0, 0, B), "the first layer drops nothing");
    const float *s = drop_path_factors(&pass, 3, 1, B);
    ok(s == all + ALL - B, "each branch has its own");
    int dropped = 0, odd = 0;
    for (int i = 0; i < B; i++) {
        dropped += s[i] == 0;
        odd += s[i] != 0 && fabsf(s[i] - 1 / 0.7f) > 1e-6f;
    }
    ok(!odd && abs(dropped - (int)(0.3 * B)) < 4 * sqrt(B * 0.21), "at its rate, the rest scaled up");
}

static int norms, sums, backwards;

static int count_norm(Backend *be, const RowArgs *a)
{
    (void)be, (void)a;
    norms++;
    return 0;
}

static int count_sum(Backend *be, const ResidualNormArgs *a)
{
    (void)be;
    sums += a->norm.x == a->sum.out;
    return 0;
}

static int count_backward(Backend *be, const ResidualNormArgs *a)
{
    (void)be;
    backwards += a->sum.y == a->norm.dx;
    return 0;
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

/* Norms that a device makes with the residual before them: all but the first and the last, of a base of three blocks. */
static void test_norms_ahead(void)
{
    enum { DEPTH = 3 };
    Params *p = params_new();
    BackboneSpec s = { "vit_nano", backbone_dims("vit_nano", 0, DEPTH, 0), 4, 32 };
    Backbone *b = backbone_new(&s, p, "");
    Tape *t = tape_new("dry,bf16");
    if (!ok(b && t && !params_commit(p, tape_backend(t), NULL, true), "a base on a device that computes nothing"))
        return;
    Backend *be = tape_backend(t);
    be->layer_norm = count_norm;
    be->residual_norm = count_sum;
    be->residual_norm_backward = count_backward;
    float factors[DEPTH * BRANCHES * 2];
    static const char *const names[] = { "inference", "training", "training with drop path", "with milestones", "computed twice" };
    static const int want[][3] = { { 2, 5, 0 }, { 2, 5, 0 }, { 2, 5, 3 }, { 4, 3, 0 }, { 7, 6, 0 } };
    for (int how = 0; how < 5; how++) {
        Pass pass = { .factors = how == 2 ? factors : NULL, .reached = how == 3 ? nothing : NULL, .recompute = how == 4 };
        BackboneOut out;
        norms = sums = backwards = 0;
        tape_begin(t, how > 0);
        Tensor *x = tape_tensor(t, DT_BF16, 4, (int64_t[]){ 2, 3, 32, 32 });
        ok(!backbone_forward(b, t, x, false, false, &pass, &out) && (!how || !tape_backward_from(t, 1, &out.image, &out.image)),
           "%s", names[how]);
        ok(norms == want[how][0] && sums == want[how][1] && backwards == want[how][2],
           "norms alone %d, after their residual %d, and back with it %d", norms, sums, backwards);
    }
    tape_free(t);
    backbone_free(b);
    params_free(p);
}

int main(void)
{
    test_norms_ahead();
    test_counts();
    test_drop_path();
    test_forward("vit");
    test_forward("convnext");
    return tap_done();
}
