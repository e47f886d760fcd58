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
    if (backbone_forward(b, t, 1, &x, true, false, pass, &base) || aux_forward(h, t, &base, false, pass, &head))
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
    Pass drop = { .factors = { factors } };
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

/* Images of two sizes, in one pass or one after the other: image vectors to out, one behind the other, and, where that is
 * recorded, the gradients of all parameters for gradients of those. */
static int both_sizes(Backbone *b, Params *p, Tape *t, bool record, bool at_once, const Pass *pass, float *out)
{
    static const int64_t shapes[SAMPLE_SIZES][4] = { { 3, 3, 24, 24 }, { 5, 3, 12, 20 } };
    Tensor *x[SAMPLE_SIZES], *image[SAMPLE_SIZES], *gout[SAMPLE_SIZES];
    BackboneOut base[SAMPLE_SIZES];
    tape_begin(t, record);
    if (params_zero_grad(p))
        return -1;
    for (int i = 0; i < SAMPLE_SIZES; i++) {
        x[i] = tape_tensor(t, DT_F32, 4, shapes[i]);
        for (int64_t k = 0; k < tensor_count(x[i]); k++)
            ((float *)x[i]->data)[k] = (float)sin(0.37 * (double)k + i);
    }
    for (int i = 0; i < SAMPLE_SIZES; i += at_once ? SAMPLE_SIZES : 1) {
        Pass own = at_once ? *pass : pass_of_size(pass, i);
        if (backbone_forward(b, t, at_once ? SAMPLE_SIZES : 1, &x[i], true, false, &own, &base[i]))
            return -1;
    }
    for (int i = 0; i < SAMPLE_SIZES; i++) {
        /* What a head reads and the image vector, each with a gradient of its own. */
        image[i] = op_add(t, base[i].image, op_mean_tokens(t, base[i].raw));
        gout[i] = image[i] ? tape_tensor(t, image[i]->dtype, image[i]->ndim, image[i]->shape) : NULL;
        if (!gout[i])
            return -1;
        memcpy(out, image[i]->data, tensor_bytes(image[i]));
        out += tensor_count(image[i]);
        for (int64_t k = 0; k < tensor_count(gout[i]); k++)
            ((float *)gout[i]->data)[k] = (float)cos(0.9 * (double)k + i);
    }
    return record ? tape_backward_from(t, SAMPLE_SIZES, image, gout) : 0;
}

static void test_sizes(void)
{
    enum { C = 24, DEPTH = 3, SAMPLES = 3 + 5, LAYER = DEPTH * BRANCHES };
    float apart[SAMPLES * C], together[SAMPLES * C], factors[SAMPLE_SIZES][LAYER * 5];
    Params *p = params_new();
    Tape *t = tape_new(test_device());
    BackboneSpec s = { "vit_tiny", backbone_dims("vit_tiny", C, DEPTH, 2), 4, 24 };
    Backbone *b = backbone_new(&s, p, "");
    if (!ok(!params_commit(p, tape_backend(t), NULL, true) && !params_init(p, 3), "a base for images of two sizes"))
        return;
    size_t n = params_bytes(p) / sizeof(float);
    float *want = malloc(params_bytes(p));
    DropPath draws = { .rate = 0.5f, .layers = DEPTH, .seed = 1, .step = 2 };
    for (draws.group = 0; draws.group < SAMPLE_SIZES; draws.group++)
        drop_path_draw(&draws, draws.group ? 5 : 3, factors[draws.group]);
    for (int how = 0; how < 3; how++) {
        static const char *const names[] = { "without drop path", "with drop path", "with drop path, computed twice" };
        Pass pass = { .recompute = how == 2 };
        for (int i = 0; how && i < SAMPLE_SIZES; i++)
            pass.factors[i] = factors[i];
        ok(!both_sizes(b, p, t, true, false, &pass, apart), "one after the other, %s", names[how]);
        memcpy(want, params_flat_grad(p), n * sizeof *want);
        ok(!both_sizes(b, p, t, true, true, &pass, together), "in one pass");
        is_close(together, apart, SAMPLES * C, 1e-5, "the same image vectors");
        is_close(params_flat_grad(p), want, (long)n, 1e-5, "the same gradients");
        ok(!both_sizes(b, p, t, false, true, &pass, together), "in one pass that is not recorded");
        is_close(together, apart, SAMPLES * C, 1e-5, "the same image vectors");
    }
    free(want);
    backbone_free(b);
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
    Pass pass = { .factors = { all } };
    ok(!drop_path_factors(NULL, 0, 3, 0, B) && !drop_path_factors(&pass, 0, 0, 0, B), "the first layer drops nothing");
    const float *s = drop_path_factors(&pass, 0, 3, 1, B);
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
        Pass pass = { .factors = { how == 2 ? factors : NULL }, .reached = how == 3 ? nothing : NULL, .recompute = how == 4 };
        BackboneOut out;
        norms = sums = backwards = 0;
        tape_begin(t, how > 0);
        Tensor *x = tape_tensor(t, DT_BF16, 4, (int64_t[]){ 2, 3, 32, 32 });
        ok(!backbone_forward(b, t, 1, &x, false, false, &pass, &out) && (!how || !tape_backward_from(t, 1, &out.image, &out.image)),
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
    test_sizes();
    test_forward("vit");
    test_forward("convnext");
    return tap_done();
}
