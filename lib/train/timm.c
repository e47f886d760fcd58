#include "train/timm.h"

#include "models/backbone.h"
#include "tensor/backend.h"
#include "train/features.h"
#include "util/err.h"
#include "util/json.h"
#include "util/text.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_object *real(double x)
{
    char text[32];
    return json_object_new_double_s(x, text_real(x, text, sizeof text));
}

/* Takes three values over. */
static bool add_triple(json_object *o, const char *key, json_object *const values[3])
{
    json_object *list = json_object_new_array();
    bool fine = list;
    for (int i = 0; i < 3; i++) {
        fine = fine && values[i] && !json_object_array_add(list, values[i]);
        if (!fine)
            json_object_put(values[i]);
    }
    if (!fine)
        json_object_put(list);
    return fine && json_add(o, key, list);
}

static bool add_colour(json_object *o, const char *key, const double x[3])
{
    return add_triple(o, key, (json_object *[]){real(x[0]), real(x[1]), real(x[2])});
}

/* timm resizes the shorter side to floor(side / crop_pct), in double. */
static double crop_share(int64_t side)
{
    int64_t resize = features_resize((int)side);
    double share = (double)side / (double)resize;
    while (floor((double)side / share) < (double)resize)
        share = nextafter(share, 0);
    return share;
}

static json_object *model_args(const TrainConfig *c)
{
    json_object *o = json_object_new_object();
    BackboneDims d = backbone_dims(c->arch, (int)c->dim, (int)c->depth, (int)c->heads);
    if (o && json_add_whole(o, "img_size", c->global_size) &&
        json_add_whole(o, "patch_size", c->patch_size) && json_add_whole(o, "embed_dim", d.dim) &&
        json_add_whole(o, "depth", d.depth) && json_add_whole(o, "num_heads", d.heads) &&
        json_add_whole(o, "num_classes", 0) && json_add(o, "class_token", json_object_new_boolean(true)) &&
        json_add(o, "global_pool", json_object_new_string("token")))
        return o;
    json_object_put(o);
    return NULL;
}

static json_object *preprocessing(const TrainConfig *c)
{
    static const double mean[] = IMAGE_MEAN, deviation[] = IMAGE_DEVIATION;
    json_object *o = json_object_new_object();
    int64_t side = c->global_size;
    if (o &&
        add_triple(o, "input_size",
                   (json_object *[]){json_object_new_int64(3), json_object_new_int64(side),
                                     json_object_new_int64(side)}) &&
        json_add(o, "fixed_input_size", json_object_new_boolean(true)) &&
        json_add(o, "interpolation", json_object_new_string("bicubic")) &&
        json_add(o, "crop_pct", real(crop_share(side))) &&
        json_add(o, "crop_mode", json_object_new_string("center")) && add_colour(o, "mean", mean) &&
        add_colour(o, "std", deviation) && json_add_whole(o, "num_classes", 0) &&
        json_add(o, "first_conv", json_object_new_string("patch_embed.proj")) &&
        json_add(o, "classifier", json_object_new_string("head")))
        return o;
    json_object_put(o);
    return NULL;
}

static char *text_of(json_object *o, int flags)
{
    const char *text = o ? json_object_to_json_string_ext(o, flags) : NULL;
    char *copy = NULL;
    if (!text || asprintf(&copy, "%s%s", text, flags & JSON_C_TO_STRING_PRETTY ? "\n" : "") < 0)
        return NULL;
    return copy;
}

int timm_describe(const TrainConfig *c, TimmModel *t)
{
    const BackboneKind *kind = backbone_find(c->arch);
    *t = (TimmModel){0};
    if (!kind)
        return -1;
    json_object *args = model_args(c), *cfg = preprocessing(c), *all = json_object_new_object();
    int dim = backbone_dims(c->arch, (int)c->dim, 0, 0).dim;
    t->architecture = kind->timm;
    t->model_args = text_of(args, JSON_C_TO_STRING_PLAIN);
    t->pretrained_cfg = text_of(cfg, JSON_C_TO_STRING_PLAIN);
    if (args && cfg && all && json_add(all, "architecture", json_object_new_string(kind->timm)) &&
        json_add_whole(all, "num_classes", 0) && json_add_whole(all, "num_features", dim) &&
        json_add(all, "global_pool", json_object_new_string("token")) &&
        json_add(all, "model_args", json_object_get(args)) &&
        json_add(all, "pretrained_cfg", json_object_get(cfg)))
        t->config = text_of(all, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED);
    json_object_put(args);
    json_object_put(cfg);
    json_object_put(all);
    if (t->model_args && t->pretrained_cfg && t->config)
        return 0;
    timm_free(t);
    return err_set(ERR_MEMORY, "timm's description: out of memory");
}

void timm_free(TimmModel *t)
{
    free(t->model_args);
    free(t->pretrained_cfg);
    free(t->config);
    *t = (TimmModel){0};
}
