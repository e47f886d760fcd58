/* The projection head of DINO [Caron 2021, section 3.1]: three linear layers with GELU between them, L2 normalisation,
 * a weight-normed last layer without bias. */
#ifndef HSSL_SSL_HEAD_H
#define HSSL_SSL_HEAD_H

#include "nn/params.h"
#include "tensor/tensor.h"

typedef struct {
    Tensor *w[3], *b[3]; /* mlp.0, mlp.2, mlp.4 */
} HeadMlp;

typedef struct {
    Tensor *g, *v; /* last_layer.weight_g [K, 1], last_layer.weight_v [K, bottleneck] */
} HeadLast;

/* Add mlp.{0,2,4}.{weight,bias} under prefix ("head."). */
void head_mlp_add(HeadMlp *m, Params *params, int64_t in, int64_t hidden, int64_t bottleneck,
                  const char *prefix);
/* Add last_layer.weight_g, last_layer.weight_v; fixed: g stays 1 and takes no gradient. */
void head_last_add(HeadLast *l, Params *params, int64_t bottleneck, int64_t k, bool fixed,
                   const char *prefix);

/* The last layer's weight W_k = g_k v_k / |v_k| [Salimans 2016]: make it once a step. [K, bottleneck]. */
Tensor *head_last_weight(const HeadLast *l, Tape *t);
/* x [R, C] -> logits [R, K], of a type as op_logits has it. */
Tensor *head_forward(const HeadMlp *m, Tape *t, Tensor *x, Tensor *last_weight, DType dtype);

#endif
