#include "train/estimate.h"

#include "models/backbone.h"

#include <string.h>

/* Floats that a layer keeps for the backward pass, for each token and channel: q, k, v, attention, two sums,
 * and the four times wider hidden layer twice. */
static const double KEPT = 14, KEPT_INFERENCE = 12;

MemoryEstimate memory_estimate(const TrainConfig *c, size_t param_bytes)
{
    BackboneDims dims = backbone_dims(c->arch, (int)c->dim, (int)c->depth, (int)c->heads);
    double b = (double)c->batch_size, k = (double)c->out_dim, width = dims.dim;
    double layers = dims.depth + (strcmp(c->aux, "none") ? (double)c->aux_depth : 0);
    double kept = c->recompute ? layers + KEPT : KEPT * layers; /* outputs, and one layer at a time */
    double grid = (double)(c->global_size / c->patch_size), local = (double)(c->local_size / c->patch_size);
    double global_tokens = 2 * b * (grid * grid + 1),
           local_tokens = (double)c->local_crops * b * (local * local + 1);
    double heads = strcmp(c->aux, "none") ? 2 : 1, views = 2 + (double)c->local_crops;
    double pixels = 2 * b * 3 * (double)(c->global_size * c->global_size), targets = 2 * b * k;
    return (MemoryEstimate){
        .student = 4 * (double)param_bytes +
                   4 * (kept * (global_tokens + local_tokens) * width + 2 * heads * views * b * k +
                        2 * pixels + targets) +
                   4 * pixels,
        .teacher =
            (double)param_bytes + 4 * (KEPT_INFERENCE * global_tokens * width + heads * targets + pixels),
    };
}
