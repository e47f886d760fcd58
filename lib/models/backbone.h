/* Base models: a list of architectures, each a row of data with its build and forward functions. */
#ifndef HSSL_MODELS_BACKBONE_H
#define HSSL_MODELS_BACKBONE_H

#include "models/layers.h"
#include "nn/params.h"
#include "tensor/tensor.h"

typedef struct Backbone Backbone;

typedef struct {
    int dim, depth, heads;
} BackboneDims;

/* Views that an architecture is made for. */
typedef struct {
    int global_size, local_size; /* pixels a side */
    int locals;                  /* an image; global views are 2 */
    double local_scale[2];       /* share of the image's area of a local view */
    double blur_scale;           /* factor on the radii of the recipe's blur */
} BackboneViews;

typedef struct BackboneFamily BackboneFamily;

typedef struct {
    const char *name; /* timm's, without the patch and the size */
    BackboneDims dims;
    const BackboneFamily *family;
    const BackboneViews *views; /* NULL: the recipe's do */
    const char *timm; /* what timm.create_model builds it from, by arguments (train/timm.h) */
} BackboneKind;

const BackboneKind *backbone_find(const char *name); /* NULL with ERR_ABSENT */
const BackboneKind *backbone_at(int i);              /* NULL behind the last */
const char *backbone_words(void);                    /* "vit_nano|vit_tiny|...", for an option */
/* The architecture's numbers, each replaced where its argument isn't 0. */
BackboneDims backbone_dims(const char *name, int dim, int depth, int heads);

typedef struct {
    const char *arch;
    BackboneDims dims;
    int patch; /* pixels */
    int image; /* side of a global view: gives the grid the position embedding is made for */
} BackboneSpec;

typedef struct {
    Tensor *raw;    /* un-normed tokens [B, N(+1), C], class token first where there is one */
    Tensor *image;  /* image vector [B, C] */
    Tensor *tokens; /* normalised tokens [B, N, C]; NULL unless asked for */
    int rows, cols; /* the grid, N = rows * cols */
    bool cls;       /* raw starts with a class token */
} BackboneOut;

/* What a family of architectures implements. A family's own struct starts with its Backbone. */
struct Backbone {
    const BackboneFamily *family;
    BackboneSpec spec;
};

struct BackboneFamily {
    Backbone *(*build)(const BackboneSpec *spec, Params *params, const char *prefix);
    int (*forward)(Backbone *b, Tape *t, int n, Tensor *const *x, bool want_raw, bool want_tokens, const Pass *pass,
                   BackboneOut *out);
    void (*free)(Backbone *b);
};

extern const BackboneFamily vit_family; /* Dosovitskiy 2021, as in DINO */

/* Add the parameters under prefix ("backbone."). NULL on failure. */
Backbone *backbone_new(const BackboneSpec *spec, Params *params, const char *prefix);
void backbone_free(Backbone *b);

/* Images of n <= SAMPLE_SIZES sizes in one pass, x[i] and out[i] those of one size: [B,3,H,W] f32, H and W at least one patch.
 * want_tokens: fill out->tokens; want_raw: fill out->raw (a head follows). pass NULL: no drop path. 0, or -1. */
int backbone_forward(Backbone *b, Tape *t, int n, Tensor *const *x, bool want_raw, bool want_tokens, const Pass *pass,
                     BackboneOut *out);

#endif
