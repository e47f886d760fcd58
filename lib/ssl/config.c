#include "ssl/config.h"

#include "models/aux.h"
#include "models/backbone.h"
#include "nn/schedule.h"
#include "ssl/method.h"
#include "util/err.h"
#include "util/text.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char SHARES[] = "none|last|all";

void config_init(TrainConfig *c)
{
    *c = (TrainConfig){
        .arch = "vit_small",
        .patch_size = 16,
        .global_size = 224,
        .local_size = 96,
        .local_crops = 8,
        .drop_path = 0.1,
        .aux = "none",
        .aux_depth = 3,
        .hssl_weight = 0.5,
        .share_proj = "last",
        .out_dim = 65536,
        .head_hidden = 2048,
        .head_bottleneck = 256,
        .norm_last_layer = true,
        .method = "dino",
        .student_temp = 0.1,
        .teacher_temp = 0.04,
        .warmup_teacher_temp = 0.04,
        .center_momentum = 0.9,
        .momentum_teacher = 0.996,
        .discrepancy = true,
        .batch_size = 64,
        .epochs = 100,
        .warmup_epochs = 10,
        .freeze_last_layer = 1,
        .lr = 5e-4,
        .min_lr = 1e-6,
        .weight_decay = 0.04,
        .weight_decay_end = 0.4,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .adam_eps = 1e-8,
        .clip_grad = 3,
        .device = "cpu",
        .graph = true,
        .pack = true,
    };
}

int config_options(TrainConfig *c, Opt *out, int max)
{
    const Opt all[] = {
        OPT_CHOICE("arch", 0, &c->arch, backbone_words(), "base model"),
        OPT_INT("patch-size", 0, &c->patch_size, 1, 256, "PIXELS", "side of a patch"),
        OPT_INT("global-size", 0, &c->global_size, 1, 4096, "PIXELS",
                "side of a global view: asked of the stream"),
        OPT_INT("local-size", 0, &c->local_size, 1, 4096, "PIXELS",
                "side of a local view: asked of the stream"),
        OPT_INT("local-crops", 0, &c->local_crops, 0, 64, "N",
                "local views an image: asked of the stream"),
        OPT_REAL("drop-path", 0, &c->drop_path, 0, 0.99, "RATE",
                 "drop-path rate of the student's last layer"),
        OPT_INT("dim", 0, &c->dim, 0, 8192, "N", "width of the base model (0: the architecture's)"),
        OPT_INT("depth", 0, &c->depth, 0, 256, "N", "blocks of the base model (0: the architecture's)"),
        OPT_INT("heads", 0, &c->heads, 0, 256, "N",
                "attention heads of the base model (0: the architecture's)"),
        OPT_CHOICE("aux", 0, &c->aux, aux_words(), "auxiliary head"),
        OPT_INT("aux-depth", 0, &c->aux_depth, 1, 64, "N", "layers of the auxiliary head"),
        OPT_FLAG("aux-first-shortcut", 0, &c->aux_first_shortcut,
                 "keep the shortcut of the head's first layer"),
        OPT_REAL("hssl-weight", 0, &c->hssl_weight, 0, 10, "W",
                 "weight of each of the two loss terms with a head"),
        OPT_CHOICE("share-proj", 0, &c->share_proj, SHARES, "what base and head share in projecting"),
        OPT_INT("out-dim", 0, &c->out_dim, 2, 1048576, "K", "prototypes"),
        OPT_INT("head-hidden", 0, &c->head_hidden, 1, 65536, "N", "hidden width of the projection"),
        OPT_INT("head-bottleneck", 0, &c->head_bottleneck, 1, 8192, "N", "width before the last layer"),
        OPT_FLAG("norm-last-layer", 0, &c->norm_last_layer, "hold the last layer's rows at length 1"),
        OPT_CHOICE("method", 0, &c->method, method_words(), "self-supervised method"),
        OPT_REAL("student-temp", 0, &c->student_temp, 1e-3, 10, "T", "temperature of the student"),
        OPT_REAL("teacher-temp", 0, &c->teacher_temp, 1e-3, 10, "T", "temperature of the teacher"),
        OPT_REAL("warmup-teacher-temp", 0, &c->warmup_teacher_temp, 1e-3, 10, "T",
                 "teacher temperature at the start"),
        OPT_INT("warmup-teacher-temp-epochs", 0, &c->warmup_teacher_temp_epochs, 0, 1000000, "N",
                "epochs over which it moves to --teacher-temp"),
        OPT_REAL("center-momentum", 0, &c->center_momentum, 0, 1, "M", "momentum of the centre"),
        OPT_REAL("momentum-teacher", 0, &c->momentum_teacher, 0, 1, "M",
                 "teacher momentum at step 0; 1 at the end"),
        OPT_FLAG("discrepancy", 0, &c->discrepancy, "let the teacher measure D"),
        OPT_INT("batch-size", 0, &c->batch_size, 1, 65536, "N", "images a step"),
        OPT_INT("epochs", 0, &c->epochs, 1, 1000000, "N", "epochs"),
        OPT_INT("warmup-epochs", 0, &c->warmup_epochs, 0, 1000000, "N",
                "epochs over which the learning rate rises"),
        OPT_INT("freeze-last-layer", 0, &c->freeze_last_layer, 0, 1000000, "N",
                "epochs during which the last layers stay as they are"),
        OPT_REAL("lr", 0, &c->lr, 0, 100, "RATE",
                 "peak learning rate for a batch of 256, scaled with the batch"),
        OPT_REAL("min-lr", 0, &c->min_lr, 0, 100, "RATE", "learning rate at the end"),
        OPT_REAL("weight-decay", 0, &c->weight_decay, 0, 100, "W", "weight decay at step 0"),
        OPT_REAL("weight-decay-end", 0, &c->weight_decay_end, 0, 100, "W", "weight decay at the end"),
        OPT_REAL("beta1", 0, &c->beta1, 0, 0.999999, "B", "AdamW's decay of the first moment"),
        OPT_REAL("beta2", 0, &c->beta2, 0, 0.999999, "B", "AdamW's decay of the second moment"),
        OPT_REAL("adam-eps", 0, &c->adam_eps, 0, 1, "E", "AdamW's epsilon"),
        OPT_REAL("clip-grad", 0, &c->clip_grad, 0, 1e9, "NORM",
                 "clip each tensor's gradient by its own norm (0: not)"),
        OPT_INT("seed", 0, &c->seed, 0, 9e15, "N", "seed of every random draw"),
    };
    int n = (int)(sizeof all / sizeof *all);
    for (int i = 0; i < n && i < max; i++)
        out[i] = all[i];
    return n < max ? n : max;
}

static void set_options(TrainConfig *c, Opt *table)
{
    int n = config_options(c, table, CONFIG_OPTIONS);
    table[n] = (Opt)OPT_END;
}

/* Settings for sizes of model other than those the defaults are for; their views are the model's own. */
static const struct {
    const char *arch, *option;
    double value;
} presets[] = {
    /* A model for images of 32 pixels and small machines, tuned on 10,000 images of CIFAR-10. Its views agree in little
     * at first, so the targets are sharper and the centre is faster than DINO's: else they fall to uniform. */
    { "vit_nano", "patch-size", 8 },
    { "vit_nano", "drop-path", 0 },
    { "vit_nano", "out-dim", 1024 },
    { "vit_nano", "head-hidden", 512 },
    { "vit_nano", "head-bottleneck", 128 },
    { "vit_nano", "aux-depth", 2 },
    { "vit_nano", "batch-size", 32 },
    { "vit_nano", "lr", 8e-3 },
    { "vit_nano", "warmup-epochs", 2 },
    { "vit_nano", "teacher-temp", 0.02 },
    { "vit_nano", "warmup-teacher-temp", 0.02 },
    { "vit_nano", "center-momentum", 0.3 },
    { "vit_nano", "momentum-teacher", 0.99 },
};

static void preset(const Opt *table, const Opt *opts, const char *option, double value)
{
    if (opts && opt_given(opts, option))
        return;
    if (opts)
        opt_mark(opts, option, "preset");
    for (const Opt *o = table; o->type; o++) {
        if (strcmp(o->name, option))
            continue;
        if (o->type == OPT_T_REAL)
            *(double *)o->value = value;
        else
            *(int64_t *)o->value = (int64_t)value;
    }
}

void config_preset(TrainConfig *c, const Opt *opts)
{
    Opt table[CONFIG_OPTIONS + 1];
    const BackboneKind *k = backbone_find(c->arch);
    set_options(c, table);
    if (k && k->views) {
        preset(table, opts, "global-size", k->views->global_size);
        preset(table, opts, "local-size", k->views->local_size);
        preset(table, opts, "local-crops", k->views->locals);
    }
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].arch, c->arch))
            preset(table, opts, presets[i].option, presets[i].value);
}

/* The word of a list "a|b|c" as a string of its own that lives as long as the program, or NULL. */
static const char *word_of(const char *name, const char *text)
{
    static const char *const shares[] = { "none", "last", "all" };
    if (!strcmp(name, "arch"))
        return backbone_find(text) ? backbone_find(text)->name : NULL;
    if (!strcmp(name, "aux"))
        return aux_find(text) ? aux_find(text)->name : NULL;
    if (!strcmp(name, "method"))
        return method_find(text) ? method_find(text)->name : NULL;
    for (int i = 0; i < 3; i++)
        if (!strcmp(shares[i], text))
            return shares[i];
    return NULL;
}

int config_check(const TrainConfig *c)
{
    const char *const words[][2] = {
        { "arch", c->arch }, { "aux", c->aux }, { "method", c->method }, { "share-proj", c->share_proj }
    };
    for (int i = 0; i < 4; i++)
        if (!words[i][1] || !word_of(words[i][0], words[i][1]))
            return err_set(ERR_USAGE, "--%s %s: no such thing", words[i][0], words[i][1] ? words[i][1] : "");
    if (c->global_size % c->patch_size)
        return err_set(ERR_USAGE, "--global-size %lld: not a multiple of --patch-size %lld",
                       (long long)c->global_size, (long long)c->patch_size);
    if (c->local_crops && c->local_size < c->patch_size)
        return err_set(ERR_USAGE, "--local-size %lld: less than --patch-size %lld", (long long)c->local_size,
                       (long long)c->patch_size);
    BackboneDims d = backbone_dims(c->arch, (int)c->dim, (int)c->depth, (int)c->heads);
    if (d.dim % d.heads)
        return err_set(ERR_USAGE, "--dim %d: not a multiple of --heads %d", d.dim, d.heads);
    return 0;
}

static json_object *real_json(double x)
{
    char text[32];
    return json_object_new_double_s(x, text_real(x, text, sizeof text));
}

char *config_to_json(const TrainConfig *c)
{
    TrainConfig copy = *c;
    Opt table[CONFIG_OPTIONS + 1];
    set_options(&copy, table);
    json_object *o = json_object_new_object();
    if (!o)
        return err_set(ERR_MEMORY, "configuration: out of memory"), NULL;
    for (const Opt *p = table; p->type; p++) {
        json_object *v = p->type == OPT_T_REAL   ? real_json(*(double *)p->value)
                         : p->type == OPT_T_FLAG ? json_object_new_boolean(*(bool *)p->value)
                         : p->type == OPT_T_INT  ? json_object_new_int64(*(int64_t *)p->value)
                                                 : json_object_new_string(*(const char **)p->value);
        /* A setting that got lost would be its default where this is read. */
        if (!v || json_object_object_add(o, p->name, v)) {
            json_object_put(v);
            json_object_put(o);
            return err_set(ERR_MEMORY, "configuration: out of memory"), NULL;
        }
    }
    const char *plain = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    char *text = plain ? strdup(plain) : NULL;
    json_object_put(o);
    if (!text)
        err_set(ERR_MEMORY, "configuration: out of memory");
    return text;
}

static int read_value(const Opt *o, json_object *v)
{
    if (o->type == OPT_T_FLAG) {
        if (!json_object_is_type(v, json_type_boolean))
            return err_set(ERR_DATA, "%s: not true or false", o->name);
        *(bool *)o->value = json_object_get_boolean(v);
    } else if (o->type == OPT_T_CHOICE) {
        const char *text = json_object_get_string(v), *word = text ? word_of(o->name, text) : NULL;
        if (!word)
            return err_set(ERR_DATA, "%s %.40s: not one of %s", o->name, text ? text : "null", o->arg);
        *(const char **)o->value = word;
    } else {
        bool whole = o->type == OPT_T_INT;
        if (!json_object_is_type(v, json_type_int) && (whole || !json_object_is_type(v, json_type_double)))
            return err_set(ERR_DATA, "%s: not a %snumber", o->name, whole ? "whole " : "");
        double x = json_object_get_double(v);
        if (!(x >= o->min && x <= o->max))
            return err_set(ERR_DATA, "%s %.15g: out of range", o->name, x);
        if (whole)
            *(int64_t *)o->value = json_object_get_int64(v);
        else
            *(double *)o->value = x;
    }
    return 0;
}

int config_from_json(TrainConfig *c, const char *json)
{
    Opt table[CONFIG_OPTIONS + 1];
    config_init(c);
    set_options(c, table);
    json_object *root = json_tokener_parse(json);
    if (!root || !json_object_is_type(root, json_type_object)) {
        json_object_put(root);
        return err_set(ERR_DATA, "configuration: not a JSON object");
    }
    int rc = 0;
    json_object_object_foreach(root, key, value) {
        const Opt *o = table;
        while (o->type && strcmp(o->name, key))
            o++;
        rc = o->type ? read_value(o, value) : err_set(ERR_DATA, "%.40s: no such setting", key);
        if (rc)
            break;
    }
    json_object_put(root);
    if (!rc)
        rc = config_check(c);
    return rc ? err_prefix("configuration") : 0;
}

void config_rates(const TrainConfig *c, int64_t steps_per_epoch, int64_t step, StepRates *out)
{
    int64_t s = steps_per_epoch > 0 ? steps_per_epoch : 1, total = c->epochs * s;
    out->step = step;
    out->epoch = step / s;
    out->lr =
        schedule_cosine(c->lr * (double)c->batch_size / 256, c->min_lr, c->warmup_epochs * s, total, step);
    out->weight_decay = schedule_cosine(c->weight_decay, c->weight_decay_end, 0, total, step);
    out->momentum = schedule_cosine(c->momentum_teacher, 1, 0, total, step);
    out->teacher_temp =
        schedule_ramp(c->warmup_teacher_temp, c->teacher_temp, c->warmup_teacher_temp_epochs, out->epoch);
    out->freeze_last = out->epoch < c->freeze_last_layer;
}
