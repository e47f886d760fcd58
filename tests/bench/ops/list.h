/* The ops that a training step is made of, at the shapes of some configurations. */
#ifndef HSSL_BENCH_LIST_H
#define HSSL_BENCH_LIST_H

#include "tensor/backend.h"
#include "tensor/tensor.h"

enum { BENCH_INPUTS = 8 };

/* flops and floats are those of the forward pass; a product's backward does `backward` times its flops. */
typedef struct {
    const char *name;
    Tensor *(*run)(Tape *t, Tensor **x, const int64_t *p);
    int activations; /* the first so many inputs are of the device's real type, the others F32 */
    struct { int ndim; int64_t dim[TENSOR_DIMS]; } in[BENCH_INPUTS];
    int64_t p[3];
    double flops;     /* 0: the op is bound by memory */
    double floats[2]; /* forward, backward: numbers that must move, in millions; F32 where there are no activations */
    double backward;  /* flops of the backward pass over those of the forward */
} OpBench;

/* Kernels outside of the tape, on float buffers of these sizes (millions). bytes: what must move, in millions. */
typedef struct {
    const char *name;
    int (*run)(Backend *be, float **x, const int64_t *p);
    double size[BENCH_INPUTS];
    int64_t p[2];
    double bytes;
} KernelBench;

/* gpu: shapes that fill one. Each ends with a NULL name. */
const OpBench *bench_ops(bool gpu);
const KernelBench *bench_kernels(bool gpu);

#endif
