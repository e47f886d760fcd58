/* Configuration, student and teacher. */
#include "../tap.h"
#include "ssl/config.h"
#include "ssl/student.h"
#include "ssl/teacher.h"
#include "util/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { B = 4, SIZE = 16, LOCAL = 8, LOCALS = 2, K = 64 };

static uint8_t globals[2 * B * SIZE * SIZE * 3], locals[LOCALS * B * LOCAL * LOCAL * 3];
static float q[2 * B * K];

static TrainConfig small(const char *aux)
{
    TrainConfig c;
    config_init(&c);
    c.arch = "vit_nano";
    c.dim = 32;
    c.depth = 2;
    c.heads = 2;
    c.patch_size = 4;
    c.global_size = SIZE;
    c.local_size = LOCAL;
    c.local_crops = LOCALS;
    c.aux = aux;
    c.aux_depth = 2;
    c.out_dim = K;
    c.head_hidden = 48;
    c.head_bottleneck = 256; /* as many dimensions as keep the first logits small */
    c.batch_size = B;
    c.epochs = 4;
    c.warmup_epochs = 0;
    c.lr = 0.05;
    c.seed = 11;
    return c;
}

static ViewBatch views(int step)
{
    for (size_t i = 0; i < sizeof globals; i++)
        globals[i] = (uint8_t)(i * 7 + i / 97 * (size_t)(step + 3));
    for (size_t i = 0; i < sizeof locals; i++)
        locals[i] = (uint8_t)(i * 5 + i / 31 * (size_t)(step + 2));
    return (ViewBatch){ .batch = B, .globals = 2, .locals = LOCALS, .global_size = SIZE, .local_size = LOCAL,
                        .global = globals, .local = locals };
}

static int step(Student *s, Teacher *t, const TrainConfig *c, int n, StudentReport *report, Discrepancy *d)
{
    ViewBatch v = views(n);
    StepRates r;
    config_rates(c, 2, n, &r);
    return teacher_targets(t, &v, r.teacher_temp, q, d) || student_forward(s, &v, &r) ||
                   student_finish(s, q, &r, report) || teacher_update(t, student_flat(s), r.momentum)
               ? -1
               : 0;
}

static void test_config(void)
{
    TrainConfig c, d;
    config_init(&c);
    c.arch = "vit_tiny";
    c.aux = "convnext";
    c.lr = 1.0 / 3;
    c.norm_last_layer = false;
    c.seed = 123456789;
    char *text = config_to_json(&c);
    ok(!config_from_json(&d, text) && d.lr == c.lr && !strcmp(d.aux, "convnext") &&
           !strcmp(d.arch, "vit_tiny") && !d.norm_last_layer && d.seed == c.seed,
       "a configuration survives its text");
    char *again = config_to_json(&d);
    is_str(again, text, "to the letter");
    free(text);
    free(again);
    static const char *const bad[] = { "[]", "{\"lr\": \"much\"}", "{\"lr\": -1}", "{\"arch\": \"vit_huge\"}",
                                       "{\"colour\": 1}", "{\"global-size\": 225}", "{\"seed\": 1.5}", "{",
                                       "{\"discrepancy\": 1}", "{\"aux\": null}" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(config_from_json(&d, bad[i]) == -1, "refused: %s", bad[i]);
    Opt table[CONFIG_OPTIONS + 1];
    int n = config_options(&c, table, CONFIG_OPTIONS);
    ok(n > 20 && n < CONFIG_OPTIONS, "the table of options has room");
    config_init(&c);
    config_preset(&c, NULL);
    ok(c.patch_size == 16 && c.out_dim == 65536, "the defaults are for their own size");
    c.arch = "vit_nano";
    config_preset(&c, NULL);
    ok(c.patch_size == 8 && c.global_size == 32 && !config_check(&c), "a small model gets small settings");
}

static void test_names(void)
{
    TrainConfig c = small("convnext");
    static const struct {
        const char *share;
        bool mlp, last;
    } want[] = { { "none", true, true }, { "last", true, false }, { "all", false, false } };
    for (int i = 0; i < 3; i++) {
        c.share_proj = want[i].share;
        Network *n = network_new(&c, NETWORK_ALL, false, NULL);
        Params *p = network_params(n);
        ok(params_find(p, "head.last_layer.weight_v") &&
               !params_find(p, "head_aux.mlp.0.weight") == !want[i].mlp &&
               !params_find(p, "head_aux.last_layer.weight_v") == !want[i].last,
           "share-proj %s has its own parts", want[i].share);
        network_free(n);
        Student *s = student_new(&c, NULL);
        Teacher *t = s ? teacher_new(&c, student_flat(s)) : NULL;
        StudentReport report;
        Discrepancy d;
        ok(t && !step(s, t, &c, 0, &report, &d), "and trains");
        student_free(s);
        teacher_free(t);
    }
    Network *n = network_new(&c, NETWORK_BACKBONE, false, NULL);
    StateList l = { 0 };
    network_backbone_state(n, "", &l);
    ok(l.count == 4 + 2 * 12 + 2 && !strcmp(l.items[0].name, "cls_token"), "the base by its official names");
    state_free(&l);
    network_free(n);
}

/* With drop path, and locals. */
static void test_recompute(const char *aux)
{
    TrainConfig c = small(aux);
    c.drop_path = 0.5;
    Student *s[2];
    Teacher *t[2];
    StudentReport report[2] = { 0 };
    Discrepancy d;
    for (int i = 0; i < 2; i++) {
        c.recompute = i == 1;
        s[i] = student_new(&c, NULL);
        t[i] = teacher_new(&c, student_flat(s[i]));
        for (int n = 0; n < 3; n++)
            if (step(s[i], t[i], &c, n, &report[i], &d))
                diag("%s", err_text());
    }
    ok(report[0].loss == report[1].loss && !memcmp(student_flat(s[0]), student_flat(s[1]), student_bytes(&c)),
       "head %s: layers that are computed twice give the same bits", aux);
    for (int i = 0; i < 2; i++) {
        student_free(s[i]);
        teacher_free(t[i]);
    }
}

static void test_training(const char *aux)
{
    TrainConfig c = small(aux);
    bool has = strcmp(aux, "none") != 0;
    Student *s = student_new(&c, NULL);
    Teacher *t = s ? teacher_new(&c, student_flat(s)) : NULL;
    if (!ok(t != NULL, "%s: student and teacher", aux))
        return diag("%s", err_text());
    StudentReport r;
    Discrepancy d;
    ok(!memcmp(student_flat(s), params_flat(network_params(teacher_network(t))), student_bytes(&c)),
       "%s: the teacher starts as a copy", aux);
    Param *last = params_find(network_params(student_network(s)), "head.last_layer.weight_v");
    float before = ((float *)last->tensor->data)[3];
    if (!ok(!step(s, t, &c, 0, &r, &d), "%s: first step", aux))
        return diag("%s", err_text());
    ok(fabs(r.term_base - log(K)) < 1 && (!has || fabs(r.term_head - log(K)) < 1) &&
           fabs(r.loss - (has ? (r.term_base + r.term_head) / 2 : r.term_base)) < 1e-5,
       "%s: the first loss is near ln K", aux);
    ok(has ? d.d >= 0 && d.d_role >= 0 && isfinite(d.d + d.d_role) : isnan(d.d),
       "%s: D where there is a head", aux);
    Discrepancy again;
    int measured = teacher_measure(t, globals, B, SIZE, 0.04, &again);
    ok(has ? !measured && again.d >= 0 && again.d_role >= 0 : measured == -1, "%s: D of images on their own",
       aux);
    ok(((float *)last->tensor->data)[3] == before, "%s: the last layer is frozen in the first epoch", aux);
    ok(!step(s, t, &c, 1, &r, &d) && !step(s, t, &c, 2, &r, &d) && ((float *)last->tensor->data)[3] != before,
       "%s: and moves in the second", aux);
    student_free(s);
    teacher_free(t);
}

/* A state as copies in memory. */
typedef struct {
    StateList list;
} Saved;

static int saved_lookup(void *arg, const char *name, StateTensor *found)
{
    const Saved *saved = arg;
    for (size_t i = 0; i < saved->list.count; i++)
        if (!strcmp(saved->list.items[i].name, name)) {
            *found = saved->list.items[i];
            return 0;
        }
    return err_set(ERR_ABSENT, "%s: not there", name);
}

static void save(Saved *saved, Student *s, Teacher *t)
{
    *saved = (Saved){ 0 };
    if (student_state(s, &saved->list) || teacher_state(t, &saved->list) || state_fetch(&saved->list))
        diag("%s", err_text());
    for (size_t i = 0; i < saved->list.count; i++) {
        StateTensor *x = &saved->list.items[i];
        if (!x->copy && (x->copy = malloc(x->bytes)))
            memcpy(x->copy, x->host, x->bytes);
        x->host = x->copy;
    }
}

static void test_resume(void)
{
    TrainConfig c = small("convnext");
    c.drop_path = 0.3;
    StudentReport r[2] = { 0 };
    Discrepancy d;
    Saved saved;
    Student *s = student_new(&c, NULL);
    Teacher *t = teacher_new(&c, student_flat(s));
    for (int i = 0; i < 3; i++)
        if (step(s, t, &c, i, &r[0], &d))
            diag("%s", err_text());
    save(&saved, s, t);
    for (int i = 3; i < 6; i++)
        step(s, t, &c, i, &r[0], &d);

    void *memory = aligned_alloc(64, (student_bytes(&c) + 63) / 64 * 64);
    TrainConfig other = c;
    Student *s2 = student_new(&other, memory);
    Teacher *t2 = teacher_new(&other, NULL);
    StateList l = { 0 };
    ok(!student_state(s2, &l) && !teacher_state(t2, &l) && !state_load(&l, saved_lookup, &saved),
       "a state is restored");
    for (int i = 3; i < 6; i++)
        step(s2, t2, &c, i, &r[1], &d);
    ok(r[0].loss == r[1].loss && !memcmp(student_flat(s), student_flat(s2), student_bytes(&c)) &&
           !memcmp(params_flat(network_params(teacher_network(t))),
                   params_flat(network_params(teacher_network(t2))), student_bytes(&c)),
       "going on from it gives the same bits");
    ok(student_flat(s2) == memory, "in the memory given");
    Network *n = network_new(&c, NETWORK_BACKBONE, false, NULL);
    ok(!network_load(n, "teacher.", saved_lookup, &saved), "a base alone is loaded from it");
    Tape *tape = tape_new("cpu");
    tape_begin(tape, false);
    ViewBatch v = views(0);
    Tensor *f = network_features(n, tape, views_tensor(tape, &v, 0), false);
    ok(f && f->ndim == 2 && f->shape[0] == 2 * B && f->shape[1] == 32, "and gives features");
    ok(!network_features(n, tape, views_tensor(tape, &v, 0), true),
       "but none of a head it wasn't built with");
    tape_free(tape);
    network_free(n);
    saved.list.items[2].shape[0]++;
    ok(state_load(&l, saved_lookup, &saved) == -1 && err_code() == ERR_SHAPE, "another shape is refused");
    state_free(&saved.list);
    state_free(&l);
    student_free(s);
    student_free(s2);
    teacher_free(t);
    teacher_free(t2);
    free(memory);
}

static void test_nan(void)
{
    TrainConfig c = small("vit");
    Student *s = student_new(&c, NULL);
    Teacher *t = teacher_new(&c, student_flat(s));
    StudentReport r;
    Discrepancy d;
    step(s, t, &c, 0, &r, &d);
    Param *p = params_find(network_params(student_network(s)), "backbone.blocks.1.mlp.fc1.weight");
    float *x = p->tensor->data, good = x[17];
    x[17] = NAN;
    float probe = ((float *)params_at(network_params(student_network(s)), 0)->tensor->data)[0];
    ok(step(s, t, &c, 1, &r, &d) == -1 && err_code() == ERR_MATH &&
           strstr(err_text(), "parameter backbone.blocks.1.mlp.fc1.weight"),
       "a NaN in a parameter is named");
    diag("%s", err_text());
    ok(((float *)params_at(network_params(student_network(s)), 0)->tensor->data)[0] == probe,
       "and nothing was updated");
    x[17] = good;
    ok(!step(s, t, &c, 1, &r, &d), "without it training goes on");
    x[17] = 1e38f;
    x[18] = 1e38f;
    int rc = step(s, t, &c, 2, &r, &d);
    ok(rc == -1 && err_code() == ERR_MATH && strstr(err_text(), "output of backbone.blocks.1"),
       "an activation that overflows is named");
    diag("%s", rc ? err_text() : "no error");
    x[17] = x[18] = good;
    q[5] = NAN;
    ViewBatch v = views(1);
    StepRates rates;
    config_rates(&c, 2, 1, &rates);
    ok(!student_forward(s, &v, &rates) && student_finish(s, q, &rates, &r) == -1 &&
           strstr(err_text(), "targets"),
       "bad targets are named");
    ok(student_finish(s, q, &rates, &r) == -1 && err_code() == ERR_USAGE, "no backward without a forward");
    student_free(s);
    teacher_free(t);
}

int main(void)
{
    test_config();
    test_names();
    test_training("none");
    test_training("vit");
    test_training("convnext");
    test_recompute("none");
    test_recompute("vit");
    test_recompute("convnext");
    test_resume();
    test_nan();
    return tap_done();
}
