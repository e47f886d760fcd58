#include "models/layers.h"

#include "tensor/backend.h"
#include "tensor/ops.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

Tensor *probe_see(const Pass *pass, Tape *t, Tensor *x, const char *fmt, ...)
{
    bool finite = true;
    Backend *be = tape_backend(t);
    if (!pass || !pass->probe || pass->probe->first[0] || !x ||
        be->all_finite(be, x->dtype, x->data, tensor_count(x), &finite) || finite)
        return x;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(pass->probe->first, sizeof pass->probe->first, fmt, ap);
    va_end(ap);
    return x;
}

void drop_path_draw(const DropPath *d, int64_t batch, float *factors)
{
    int64_t ranks = d->ranks ? d->ranks : 1;
    for (int64_t i = 0; i < BRANCHES * batch; i++)
        *factors++ = 1;
    for (int layer = 1; layer < d->layers; layer++)
        for (int branch = 0; branch < BRANCHES; branch++, factors += batch) {
            float rate = d->rate * (float)layer / (float)(d->layers - 1), keep = 1 - rate;
            uint32_t key = d->group << 16 | (uint32_t)layer << 1 | (uint32_t)branch;
            Rng r = rng_make(d->seed, RNG_DROP_PATH, d->step, key);
            uint32_t words[4];
            for (int64_t b = 0; b < batch * ranks; b++) {
                if (b % 4 == 0)
                    rng_four(&r, (uint32_t)(b / 4), words);
                float u = (float)(words[b % 4] >> 8) * 0x1p-24f, factor = floorf(keep + u) / keep; /* u as rng_uniform's */
                if (b % ranks == d->rank)
                    factors[b / ranks] = factor;
            }
        }
}

Pass pass_of_size(const Pass *pass, int i)
{
    Pass own = pass ? *pass : (Pass){ 0 };
    own.factors[0] = own.factors[i];
    return own;
}

const float *drop_path_factors(const Pass *pass, int i, int layer, int branch, int64_t batch)
{
    return pass && pass->factors[i] && layer ? pass->factors[i] + (layer * BRANCHES + branch) * batch : NULL;
}

void linear_add(Params *params, int64_t out, int64_t in, const char *prefix, Tensor **w, Tensor **b)
{
    *w = params_add(params, (Init){ INIT_NORMAL, 0.02f }, 2, (int64_t[]){ out, in }, "%s.weight", prefix);
    *b = params_add(params, (Init){ INIT_ZERO, 0 }, 1, (int64_t[]){ out }, "%s.bias", prefix);
}

void norm_add(Params *params, int64_t n, const char *prefix, Tensor **w, Tensor **b)
{
    *w = params_add(params, (Init){ INIT_ONE, 0 }, 1, (int64_t[]){ n }, "%s.weight", prefix);
    *b = params_add(params, (Init){ INIT_ZERO, 0 }, 1, (int64_t[]){ n }, "%s.bias", prefix);
}

void block_add(Block *b, Params *params, int dim, int heads, const char *prefix)
{
    char name[200];
#define SUB(part) (snprintf(name, sizeof name, "%s%s", prefix, part), name)
    b->heads = heads;
    norm_add(params, dim, SUB("norm1"), &b->norm1_w, &b->norm1_b);
    linear_add(params, 3 * dim, dim, SUB("attn.qkv"), &b->qkv_w, &b->qkv_b);
    linear_add(params, dim, dim, SUB("attn.proj"), &b->proj_w, &b->proj_b);
    norm_add(params, dim, SUB("norm2"), &b->norm2_w, &b->norm2_b);
    linear_add(params, 4 * dim, dim, SUB("mlp.fc1"), &b->fc1_w, &b->fc1_b);
    linear_add(params, dim, 4 * dim, SUB("mlp.fc2"), &b->fc2_w, &b->fc2_b);
#undef SUB
}

/* A call of block_forward that can be repeated. */
typedef struct {
    const Block *block;
    bool shortcut;
    Pass pass;
    Samples samples;
    int layer;
} BlockCall;

static Tensor *repeat_block(Tape *t, Tensor *x, const void *arg)
{
    const BlockCall *c = arg;
    return block_forward(c->block, t, x, &c->samples, c->shortcut, &c->pass, c->layer, NULL);
}

/* Drop path of one of the branches. */
static void set_scale(BranchArgs *a, const Tensor *x, const Pass *pass, int layer, int branch)
{
    for (int i = 0; i < SAMPLE_SIZES && i < (a->samples.sizes ? a->samples.sizes : 1); i++)
        a->scale[i] = drop_path_factors(pass, i, layer, branch, a->samples.sizes ? a->samples.of[i].count : x->shape[0]);
}

Tensor *block_forward(const Block *b, Tape *t, Tensor *x, const Samples *samples, bool shortcut, const Pass *pass, int layer,
                      const Block *next)
{
    if (!x)
        return NULL;
    Samples s = samples ? *samples : (Samples){ 0 };
    if (pass && pass->recompute) {
        BlockCall again = { b, shortcut, *pass, s, layer };
        again.pass.recompute = false;
        return tape_recompute(t, x, repeat_block, &again, sizeof again);
    }
    size_t mark = tape_mark(t);
    BranchArgs attention = { .norm_w = b->norm1_w, .norm_b = b->norm1_b, .eps = NORM_EPS, .samples = s,
                             .residual = shortcut ? x : NULL,
                             .next_w = b->norm2_w, .next_b = b->norm2_b };
    /* Without its shortcut a branch is all there is: dropping it would leave nothing. */
    if (shortcut)
        set_scale(&attention, x, pass, layer, 0);
    Tensor *u = op_attention_branch(t, x, &attention, b->qkv_w, b->qkv_b, b->proj_w, b->proj_b, b->heads);
    BranchArgs mlp = { .norm_w = b->norm2_w, .norm_b = b->norm2_b, .eps = NORM_EPS, .samples = s, .residual = u,
                       .lean = pass && pass->lean };
    set_scale(&mlp, x, pass, layer, 1);
    if (next) {
        mlp.next_w = next->norm1_w;
        mlp.next_b = next->norm1_b;
    }
    Tensor *y = op_mlp_branch(t, u, &mlp, b->fc1_w, b->fc1_b, b->fc2_w, b->fc2_b);
    return tape_keep(t, mark, y);
}
