/* The tape itself, for the two files that make it: tape.c, what runs forwards, and tape_backward.c. */
#ifndef HSSL_TAPE_STATE_H
#define HSSL_TAPE_STATE_H

#include "tensor/tape.h"

/* Results up to this size outlive tape_backward. */
enum { SMALL_BYTES = 256, HOST_BLOCK = 1 << 18 };

typedef struct HostBlock {
    struct HostBlock *next;
    size_t used, bytes;
    char data[];
} HostBlock;

/* What the tape knows about a result, behind Tensor.tape_private. */
typedef struct {
    Tensor pub; /* first: a result's Tensor * is also a Result * */
    Tensor grad;
    Buffer *buffer;
    struct { const Tensor *gamma; Tensor *y; } norm; /* made ahead */
    bool retained, spent;
} Result;

/* A parameter's copy of the device's real type, for this step. */
typedef struct {
    const Tensor *x;
    const void *copy;
} Cast;

struct Tape {
    Backend *be;
    Arena arena, small, operands; /* operands: casts of parameters, and tables */
    struct { const float *first; size_t count; const void *copy; } together; /* parameters that are cast at once */
    Cast *casts; /* of others */
    size_t ncasts, casts_room;
    Pool pool;
    HostBlock *blocks, *block;
    Node *last;
    Result **with_grad; /* results that hold a gradient buffer */
    size_t grads, grads_room;
    bool record, failed;
};

/* Run the recorded ops backwards, from t->last on, and forget them. */
int tape_run_backward(Tape *t);

#endif
