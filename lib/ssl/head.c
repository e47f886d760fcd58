#include "ssl/head.h"

#include "models/layers.h"
#include "tensor/ops.h"

#include <math.h>
#include <stdio.h>

void head_mlp_add(HeadMlp *m, Params *params, int64_t in, int64_t hidden, int64_t bottleneck,
                  const char *prefix)
{
    const int64_t widths[] = { in, hidden, hidden, bottleneck };
    for (int i = 0; i < 3; i++) {
        char name[160];
        snprintf(name, sizeof name, "%smlp.%d", prefix, 2 * i);
        linear_add(params, widths[i + 1], widths[i], name, &m->w[i], &m->b[i]);
    }
}

void head_last_add(HeadLast *l, Params *params, int64_t bottleneck, int64_t k, bool fixed, const char *prefix)
{
    Init linear = { INIT_UNIFORM, (float)(1 / sqrt((double)bottleneck)) };
    l->g = params_add(params, (Init){ INIT_ONE, 0 }, 2, (int64_t[]){ k, 1 }, "%slast_layer.weight_g", prefix);
    if (fixed)
        params_fix(params);
    l->v = params_add(params, linear, 2, (int64_t[]){ k, bottleneck }, "%slast_layer.weight_v", prefix);
}

Tensor *head_last_weight(const HeadLast *l, Tape *t)
{
    return op_weight_norm(t, l->v, l->g);
}

Tensor *head_forward(const HeadMlp *m, Tape *t, Tensor *x, Tensor *last_weight, DType dtype)
{
    x = op_linear_gelu(t, x, m->w[0], m->b[0]);
    x = op_linear_gelu(t, x, m->w[1], m->b[1]);
    x = op_l2_normalize(t, op_linear(t, x, m->w[2], m->b[2]), 1e-12f);
    return op_logits(t, x, last_weight, NULL, dtype);
}
