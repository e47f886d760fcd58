/* Golden tensors on a tape: inputs and parameters as tensors that take gradients, checks of results. */
#ifndef HSSL_GOLDEN_TAPE_H
#define HSSL_GOLDEN_TAPE_H

#include "golden.h"
#include "nn/params.h"
#include "tensor/tensor.h"

enum { GOLDEN_LEAVES = 64, GOLDEN_OUTS = 16 };

/* One computation: leaves are read from the file, results are handed to golden_out, and golden_finish runs
 * backwards from sum(out.X * in.gout.X) and compares everything. */
typedef struct {
    Golden *g;
    Tape *tape;
    Backend *be; /* of the tape */
    struct {
        const char *name; /* "in.x", "param.w" */
        Tensor tensor, grad;
    } leaf[GOLDEN_LEAVES];
    int leaves;
    struct {
        char name[64];
        Tensor *tensor;
    } out[GOLDEN_OUTS];
    int outs;
} GoldenRun;

/* NULL: no memory or no device; g is failed then. */
GoldenRun *golden_begin(Golden *g);
/* The tensor of that name as a leaf with a gradient (F32); NULL and g failed when there is none. shape: NULL
 * or the shape to give it (ndim dimensions). */
Tensor *golden_leaf(GoldenRun *r, const char *name);
Tensor *golden_leaf_as(GoldenRun *r, const char *name, int ndim, const int64_t *shape);
/* The leaf if the file has it, else NULL without complaint. */
Tensor *golden_leaf_opt(GoldenRun *r, const char *name);
/* Result "out.<name>". */
void golden_out(GoldenRun *r, const char *name, Tensor *y);
/* Backward, checks of all outs and of all grad.<leaf>, and of params (may be NULL), whose tensors are
 * grad.param.<prefix><name>. Frees r. */
void golden_finish(GoldenRun *r, Params *params, const char *prefix);

/* Fill parameters from param.<prefix><name>; g is failed where one is missing or shaped otherwise. */
bool golden_params(Golden *g, Backend *be, Params *params, const char *prefix);

#endif
