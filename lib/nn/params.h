/* Parameters: named tensors that lie one behind the other in one buffer.
 *
 * A model adds its tensors, keeps the pointers, and params_commit gives them memory: the set's own, or
 * memory that another process maps too. The layout depends only on names, shapes and their order, so two sets
 * built alike can be averaged as plain arrays. Each tensor starts at a multiple of 64 bytes; the gaps
 * are 0. */
#ifndef HSSL_NN_PARAMS_H
#define HSSL_NN_PARAMS_H

#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    INIT_ZERO,
    INIT_ONE,
    INIT_NORMAL,  /* scale: the deviation. Truncated at +-2, which deviations like 0.02 never reach */
    INIT_UNIFORM, /* in [-scale, scale) */
} InitKind;

typedef struct {
    InitKind kind;
    float scale;
} Init;

typedef struct {
    char *name;
    Tensor *tensor;
    Init init;
    size_t offset, count; /* in floats */
    bool decays;          /* false for names ending in .bias and for 1-D tensors */
    bool last_layer;      /* the name contains last_layer */
    bool trains;          /* takes gradients when the set does */
} Param;

typedef struct Params Params;

Params *params_new(void);
void params_free(Params *p); /* frees the tensors and, where its own, the memory */

/* Add a tensor under a formatted name. NULL on failure; the failure sticks, so that a model may add all it
 * has and check params_commit alone. The data come with params_commit. */
Tensor *params_add(Params *p, Init init, int ndim, const int64_t *shape, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* The last added tensor shall take no gradient. */
void params_fix(Params *p);

size_t params_bytes(const Params *p);
/* Give the tensors memory of the device (NULL: own, zeroed) and, if grads, gradient buffers. 0, or -1. */
int params_commit(Params *p, Backend *be, void *memory, bool grads);
/* Set the initial values: a pure function of the seed and each tensor's name, whatever the number
 * of threads. */
int params_init(Params *p, uint64_t seed);

size_t params_count(const Params *p);
Param *params_at(Params *p, size_t i);
Param *params_find(Params *p, const char *name); /* or NULL */
float *params_flat(Params *p);                   /* all values; params_bytes long */
float *params_flat_grad(Params *p);              /* all gradients, same layout; NULL without */
int params_zero_grad(Params *p);

#endif
