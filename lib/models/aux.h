/* Auxiliary heads: a few layers of one architecture on the un-normed tokens of a base model.
 *
 *     Z_0 = tokens, Z_l = layer_l(Z_{l-1})
 *     out = LN(concat[mean of Z_depth over positions; Z_depth])
 *
 * so the image vector is the norm of the mean. A vit head on a base with class token keeps that token through
 * its layers and takes it for the image vector. The first layer's shortcut around its mixer is left out
 * unless asked for [HSSL]. No embedding of positions, no change of width. */
#ifndef HSSL_MODELS_AUX_H
#define HSSL_MODELS_AUX_H

#include "models/backbone.h"
#include "models/layers.h"
#include "nn/params.h"

typedef struct AuxHead AuxHead;

typedef struct {
    const char *name;
} AuxKind;

const AuxKind *aux_find(const char *name); /* "none" included; NULL with ERR_ABSENT */
const char *aux_words(void);               /* "none|vit|convnext" */

typedef struct {
    const char *kind;
    int dim, depth;
    bool first_shortcut;
    int heads;       /* attention heads of a vit head; 0: dim/64, at least 1, lowered until it divides dim */
    int first_layer; /* place of the first layer for drop path: the depth of the base */
} AuxSpec;

typedef struct {
    Tensor *image;   /* [B, C] */
    Tensor *patches; /* [B, N, C]; NULL unless asked for */
} AuxOut;

/* Add layers.{i}.* and norm.* under prefix ("aux."). NULL on failure. */
AuxHead *aux_new(const AuxSpec *spec, Params *params, const char *prefix);
void aux_free(AuxHead *h);

/* 0, or -1. base: with its raw tokens, of the width that the head was made for. */
int aux_forward(AuxHead *h, Tape *t, const BackboneOut *base, bool want_patches, const Pass *pass,
                AuxOut *out);

#endif
