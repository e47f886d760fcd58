/* What base models and auxiliary heads have in common: the pass with its drop path, and the transformer
 * block. */
#ifndef HSSL_MODELS_LAYERS_H
#define HSSL_MODELS_LAYERS_H

#include "nn/params.h"
#include "tensor/ops.h"

#define NORM_EPS 1e-6f

/* Looks at activations as they come; made to run when a loss was not finite. */
typedef struct {
    char first[160]; /* the first that held a NaN or Inf, or "" */
} Probe;

/* Drop path [Huang 2016]: layer l of `layers` has the rate rate * l / (layers - 1); each residual branch of a layer draws for
 * itself, a sample at a time, as a pure function of (seed, step, group, layer, branch, sample). Where a batch is shared by
 * ranks, sample i of this one is number i * ranks + rank of all. */
typedef struct {
    float rate;
    int layers;
    uint64_t seed, step;
    uint32_t group;
    int rank, ranks; /* ranks 0 counts as 1 */
} DropPath;

enum { BRANCHES = 2 }; /* of a layer, at most */

/* The factors of all branches, [layers, BRANCHES, batch], which are 0 or 1/keep; layer 0 drops nothing. */
void drop_path_draw(const DropPath *d, int64_t batch, float *factors);

/* What a forward pass is given beside its input. factors: those of drop_path_draw on the device, for the samples of each size,
 * or NULL for none. recompute: of a layer only the output is kept for the backward pass (tape_recompute). */
typedef struct {
    const float *factors[SAMPLE_SIZES];
    bool recompute;
    bool lean; /* of MLPs what lies before gelu is kept, and not its result (BranchArgs) */
    int (*reached)(void *arg); /* on the way back, before each block of the base model; or NULL */
    void *reached_arg;
    Probe *probe; /* or NULL */
} Pass;

/* Note x under the name if it is the first that isn't finite; x itself. Nothing without a probe (pass may be
 * NULL). */
Tensor *probe_see(const Pass *pass, Tape *t, Tensor *x, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The pass for samples of size i alone. */
Pass pass_of_size(const Pass *pass, int i);

/* The factors of one branch of a pass (which may be NULL) for the `batch` samples of size i; NULL where nothing is dropped. */
const float *drop_path_factors(const Pass *pass, int i, int layer, int branch, int64_t batch);

typedef struct {
    Tensor *norm1_w, *norm1_b, *qkv_w, *qkv_b, *proj_w, *proj_b;
    Tensor *norm2_w, *norm2_b, *fc1_w, *fc1_b, *fc2_w, *fc2_b;
    int heads;
} Block;

/* Add norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2 under prefix ("backbone.blocks.0."). */
void block_add(Block *b, Params *params, int dim, int heads, const char *prefix);

/* x = x + DP(attention(norm1(x))); x = x + DP(mlp(norm2(x))), x: [B, N, C], or [R, C] with its samples (else NULL)
 * [Dosovitskiy 2021, Eq. 2 and 3].
 * shortcut false: the first x is left out of the first sum. layer: its place for drop path. next: the block that reads the
 * result, whose first norm may be made with it; or NULL. */
Tensor *block_forward(const Block *b, Tape *t, Tensor *x, const Samples *samples, bool shortcut, const Pass *pass, int layer,
                      const Block *next);

/* Weight [out, in] normal 0.02 and bias 0, under prefix.weight and prefix.bias. */
void linear_add(Params *params, int64_t out, int64_t in, const char *prefix, Tensor **w, Tensor **b);
/* Weight 1 and bias 0 of a norm over n channels. */
void norm_add(Params *params, int64_t n, const char *prefix, Tensor **w, Tensor **b);

#endif
