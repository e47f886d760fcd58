/* What timm is told of a base model. That it does what is meant is not seen here: timm is another program. */
#include "../tap.h"

#include "models/backbone.h"
#include "train/features.h"
#include "train/timm.h"
#include "util/err.h"

#include <json-c/json.h>
#include <math.h>
#include <string.h>

static double number(json_object *o, const char *key)
{
    json_object *v;
    return json_object_object_get_ex(o, key, &v) ? json_object_get_double(v) : -1;
}

/* timm resizes to floor(size / crop_pct), reckoned in double from the number as it is written. */
static void test_crops(void)
{
    long wrong = 0, sizes = 0;
    TrainConfig c;
    TimmModel t;
    config_init(&c);
    for (int side = 16; side <= 4096; side++) {
        c.global_size = side;
        if (timm_describe(&c, &t))
            break;
        json_object *o = json_tokener_parse(t.pretrained_cfg);
        double share = number(o, "crop_pct");
        wrong += !(share > 0 && share <= 1) || (int)floor(side / share) != features_resize(side);
        sizes++;
        json_object_put(o);
        timm_free(&t);
    }
    is_int(sizes, 4096 - 15, "sizes are described");
    is_int(wrong, 0, "each is resized in timm as it is here");
    c.global_size = 224;
    int rc = timm_describe(&c, &t);
    ok(!rc && strstr(t.pretrained_cfg, "\"crop_pct\":0.875,"), "that of 224 pixels is 0.875: %s",
       t.pretrained_cfg);
    timm_free(&t);
}

static void test_models(void)
{
    for (int i = 0; backbone_at(i); i++) {
        TrainConfig c;
        TimmModel t;
        config_init(&c);
        c.arch = backbone_at(i)->name;
        c.heads = i == 1 ? 6 : 0;
        config_preset(&c, NULL);
        int rc = timm_describe(&c, &t);
        if (!ok(!rc, "%s is described as %s", c.arch, t.architecture))
            continue;
        BackboneDims d = backbone_dims(c.arch, (int)c.dim, (int)c.depth, (int)c.heads);
        json_object *args = json_tokener_parse(t.model_args), *all = json_tokener_parse(t.config), *inner;
        ok((int)number(args, "embed_dim") == d.dim && (int)number(args, "depth") == d.depth &&
               (int)number(args, "num_heads") == d.heads && (int)number(args, "patch_size") == c.patch_size &&
               (int)number(args, "img_size") == c.global_size && !number(args, "num_classes"),
           "its arguments are its sizes: %s", t.model_args);
        ok(json_object_object_get_ex(all, "model_args", &inner) && json_object_equal(inner, args),
           "and stand in config.json as well");
        json_object_put(args);
        json_object_put(all);
        timm_free(&t);
        timm_free(&t);
    }
    TrainConfig c;
    TimmModel t;
    config_init(&c);
    c.arch = "perceptron";
    int rc = timm_describe(&c, &t);
    ok(rc < 0 && err_code() == ERR_ABSENT && !t.config, "another one: %s", err_text());
}

int main(void)
{
    test_crops();
    test_models();
    return tap_done();
}
