#include "models/backbone.h"

#include "util/err.h"

#include <string.h>

/* Tuned on images of 32 pixels, of which blur leaves too little. */
static const BackboneViews small_views = { .global_size = 32, .local_size = 16, .locals = 2,
                                           .local_scale = { 0.15, 0.4 }, .blur_scale = 0 };

static const BackboneKind kinds[] = {
    { "vit_nano", { .dim = 128, .depth = 6, .heads = 2 }, &vit_family, &small_views, "vit_tiny_patch16_224" },
    { "vit_tiny", { .dim = 192, .depth = 12, .heads = 3 }, &vit_family, NULL, "vit_tiny_patch16_224" },
    { "vit_small", { .dim = 384, .depth = 12, .heads = 6 }, &vit_family, NULL, "vit_small_patch16_224" },
    { "vit_base", { .dim = 768, .depth = 12, .heads = 12 }, &vit_family, NULL, "vit_base_patch16_224" },
    { "vit_large", { .dim = 1024, .depth = 24, .heads = 16 }, &vit_family, NULL, "vit_large_patch16_224" },
};

enum { KINDS = sizeof kinds / sizeof *kinds };

const BackboneKind *backbone_at(int i)
{
    return i >= 0 && i < KINDS ? &kinds[i] : NULL;
}

const BackboneKind *backbone_find(const char *name)
{
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(kinds[i].name, name))
            return &kinds[i];
    err_set(ERR_ABSENT, "%.60s: no such architecture (there are %s)", name, backbone_words());
    return NULL;
}

const char *backbone_words(void)
{
    return "vit_nano|vit_tiny|vit_small|vit_base|vit_large";
}

BackboneDims backbone_dims(const char *name, int dim, int depth, int heads)
{
    const BackboneKind *k = backbone_find(name);
    BackboneDims d = k ? k->dims : (BackboneDims){ 0 };
    if (dim)
        d.dim = dim;
    if (depth)
        d.depth = depth;
    if (heads)
        d.heads = heads;
    return d;
}

Backbone *backbone_new(const BackboneSpec *spec, Params *params, const char *prefix)
{
    const BackboneKind *k = backbone_find(spec->arch);
    return k ? k->family->build(spec, params, prefix) : NULL;
}

void backbone_free(Backbone *b)
{
    if (b)
        b->family->free(b);
}

int backbone_forward(Backbone *b, Tape *t, int n, Tensor *const *x, bool want_raw, bool want_tokens, const Pass *pass,
                     BackboneOut *out)
{
    return b->family->forward(b, t, n, x, want_raw, want_tokens, pass, out);
}
