/* Self-supervised methods: a list, each a table of functions; who trains never asks which one it runs. */
#ifndef HSSL_SSL_METHOD_H
#define HSSL_SSL_METHOD_H

#include "ssl/config.h"
#include "tensor/tensor.h"

/* The predictions of one loss term and what they are held against. */
typedef struct {
    Tensor *student; /* logits [V*B, K], view-major, global views first */
    Tensor *targets; /* [2B, K] */
    int64_t views, batch;
    float weight; /* of the term in the loss */
    float *value; /* device: the term by itself; or NULL */
} LossTerm;

typedef struct {
    const char *name;
    /* weight times the term, a scalar on the tape; NULL on failure. It may use the logits up (op_logits). */
    Tensor *(*term)(Tape *t, const TrainConfig *c, const LossTerm *in);
    /* Targets from teacher logits: q [rows, K] from z and the centre [K]. 0 or -1. */
    int (*targets)(Tape *t, const float *z, const float *center, double temp, float *q, int64_t rows,
                   int64_t k);
    /* The centre takes in this step's teacher logits. */
    int (*center)(Tape *t, float *center, const float *z, double momentum, int64_t rows, int64_t k);
} Method;

extern const Method method_dino;

const Method *method_find(const char *name); /* NULL with ERR_ABSENT */
const char *method_words(void);              /* "dino" */

#endif
