/* One branch (student or teacher): base model, auxiliary head, projection heads.
 *
 * Parameter names: backbone.* (timm's names), aux.layers.{i}.*, aux.norm.*, head.*, head_aux.*.
 * With share_proj "last" one weight-normed last layer, head.last_layer, serves both projections; with
 * "all" there is no head_aux. */
#ifndef HSSL_SSL_NETWORK_H
#define HSSL_SSL_NETWORK_H

#include "models/layers.h"
#include "nn/params.h"
#include "ssl/config.h"
#include "ssl/state.h"
#include "tensor/tensor.h"

typedef struct Network Network; /* lives on the device that the configuration names */

enum { /* parts to build */
    NETWORK_BACKBONE = 0,
    NETWORK_AUX = 1,   /* the auxiliary head, when the configuration has one */
    NETWORK_HEADS = 2, /* the projection heads */
    NETWORK_ALL = 3,
};

/* A forward pass of the student. */
typedef struct {
    const float *factors[SAMPLE_SIZES]; /* network_draw's, on the device, for images of each size; NULL: none are dropped */
    bool recompute; /* keep of each layer the output alone for the backward pass */
    int (*reached)(void *arg); /* see models/layers.h; or NULL */
    void *reached_arg;
    Probe *probe;    /* or NULL; see models/layers.h */
} NetworkPass;

typedef struct {
    Tensor *base, *aux;               /* image vectors [B, C]; aux NULL without a head */
    Tensor *base_logits, *aux_logits; /* [B, K]; NULL where not asked for */
} NetworkOut;

enum { NETWORK_BASE_LOGITS = 1, NETWORK_AUX_LOGITS = 2 };

/* Build a branch. Its parameters lie in one contiguous buffer: memory of the device when not NULL (of network_bytes,
 * borrowed, its contents kept as they are), else its own, set to the initial values drawn with c->seed.
 * trains: with gradients. */
Network *network_new(const TrainConfig *c, int parts, bool trains, void *memory);
void network_free(Network *n);
/* Bytes of the flat parameter buffer of such a network; 0 with an error. */
size_t network_bytes(const TrainConfig *c, int parts);

Params *network_params(Network *n);
Backend *network_backend(Network *n); /* its parameters are memory of this device */
int network_dim(const Network *n); /* C */
bool network_has_aux(const Network *n);

/* Numbers that a pass takes for each sample to drop paths: 0 where the configuration drops none. */
int64_t network_draws(const Network *n);
/* Those of `batch` samples, on the host; d without its rate and layers, which are the network's. */
void network_draw(const Network *n, const DropPath *d, int64_t batch, float *factors);

/* Image vectors of images of `sizes` sizes in one pass, x[i] and out[i] those of one size; `how` NULL for inference. out->base,
 * and out->aux if want_aux and there is a head. x: [B,3,H,W] f32 normalised, or [B,H,W,3] u8. 0, or -1. */
int network_images(Network *n, Tape *t, int sizes, Tensor *const *x, bool want_aux, const NetworkPass *how, NetworkOut *out);

/* Logits of the image vectors in *out, which: NETWORK_BASE_LOGITS and/or NETWORK_AUX_LOGITS. The views of
 * several sizes are put one behind the other first, so that the projection runs once. While the tape records they are of the
 * device's real type and one loss may use them up, else F32: a teacher's temperature magnifies their last digits. 0, or -1. */
int network_logits(Network *n, Tape *t, int which, NetworkOut *out);

/* Image vectors [B, C] for evaluation, of the base or of the auxiliary head. NULL on failure. */
Tensor *network_features(Network *n, Tape *t, Tensor *x, bool aux);

/* Append the parameters to a list of state, names prefixed ("student.", "teacher."). */
int network_state(Network *n, const char *prefix, StateList *l);

/* The same for the base model alone, by its official names ("blocks.0.attn.qkv.weight"), after prefix: what
 * export writes and --init-from reads. */
int network_backbone_state(Network *n, const char *prefix, StateList *l);

/* Set the parameters from stored state, e.g. prefix "teacher.". */
int network_load(Network *n, const char *prefix, StateLookup lookup, void *arg);

#endif
