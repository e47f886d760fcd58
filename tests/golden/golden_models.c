/* Base models and auxiliary heads. */
#include "golden_tape.h"
#include "models/aux.h"
#include "models/backbone.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "util/err.h"

#include <stdio.h>
#include <string.h>

/* Parameters with memory and the file's values; false: g is failed. */
static bool commit(GoldenRun *r, Params *params, const char *prefix)
{
    if (params_commit(params, tape_backend(r->tape), NULL, true)) {
        golden_fail(r->g, "parameters: %s", err_text());
        return false;
    }
    return golden_params(r->g, r->be, params, prefix);
}

static void base_vit(Golden *g)
{
    static const char *const inputs[] = { "", "_local", "_rect" };
    BackboneSpec spec = {
        .arch = "vit_tiny",
        .dims = { golden_int(g, "dim", 0), golden_int(g, "depth", 0), golden_int(g, "heads", 0) },
        .patch = golden_int(g, "patch", 0),
        .image = golden_int(g, "img", 0),
    };
    GoldenRun *r = golden_begin(g);
    Params *params = params_new();
    Backbone *b = params ? backbone_new(&spec, params, "") : NULL;
    if (r && b && commit(r, params, ""))
        for (int i = 0; i < 3; i++) {
            char x[32], image[32], tokens[32];
            snprintf(x, sizeof x, "in.x%s", inputs[i]);
            snprintf(image, sizeof image, "image%s", inputs[i]);
            snprintf(tokens, sizeof tokens, "tokens%s", inputs[i]);
            if (!golden_find(g, x))
                continue;
            BackboneOut out;
            if (backbone_forward(b, r->tape, 1, (Tensor *[]){ golden_leaf(r, x) }, true, true, NULL, &out)) {
                golden_fail(g, "%s: %s", x, err_text());
                continue;
            }
            golden_out(r, image, out.image);
            golden_out(r, tokens, out.tokens);
        }
    if (r)
        golden_finish(r, params, "");
    backbone_free(b);
    params_free(params);
}

static void aux_head(Golden *g)
{
    double grid[2] = { 0 };
    golden_list(g, "grid", grid, 2);
    AuxSpec spec = {
        .kind = golden_text(g, "kind", ""),
        .dim = golden_int(g, "dim", 0),
        .depth = golden_int(g, "depth", 0),
        .heads = golden_int(g, "heads", 0),
        .first_shortcut = json_object_get_boolean(json_object_object_get(golden_config(g), "first_shortcut")),
    };
    GoldenRun *r = golden_begin(g);
    Params *params = params_new();
    AuxHead *h = params ? aux_new(&spec, params, "aux.") : NULL;
    if (!h)
        golden_fail(g, "%s", err_text());
    if (r && h && commit(r, params, "")) {
        const GoldenTensor *in = golden_get(g, "in.tokens");
        int64_t n = (int64_t)(grid[0] * grid[1]), c = spec.dim, batch = in ? in->shape[0] : 0;
        Tensor *cls = golden_leaf_opt(r, "in.cls");
        Tensor *raw = golden_leaf_as(r, "in.tokens", 3, (int64_t[]){ batch, n, c });
        if (cls)
            raw = op_concat(r->tape, 2,
                            (Tensor *[]){ tape_view(r->tape, cls, 3, (int64_t[]){ batch, 1, c }), raw }, 1);
        BackboneOut base = { .raw = raw, .rows = (int)grid[0], .cols = (int)grid[1], .cls = cls != NULL };
        AuxOut out;
        if (aux_forward(h, r->tape, &base, true, NULL, &out))
            golden_fail(g, "%s", err_text());
        else {
            golden_out(r, "image", out.image);
            golden_out(r, "patch", out.patches);
        }
    }
    if (r)
        golden_finish(r, params, "");
    aux_free(h);
    params_free(params);
}

static const GoldenCase cases[] = {
    { "base_vit", base_vit },
    { "aux_vit_*", aux_head },
    { "aux_convnext_*", aux_head },
    { NULL, NULL },
};
GOLDEN_REGISTER(cases)
