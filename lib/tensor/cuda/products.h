/* Products that NVIDIA's libraries make: matrix products by cuBLASLt; convolutions, attention and, on request, products with
 * GELU by cuDNN's graphs. */
#ifndef HSSL_CUDA_PRODUCTS_H
#define HSSL_CUDA_PRODUCTS_H

#include "tensor/cuda/cuda.h"

/* Handles of both libraries on the device's stream. */
int products_open(CudaDevice *d);
void products_close(CudaDevice *d);

void cuda_linear_table(Backend *be);    /* blaslt.c */
void cuda_attention_table(Backend *be); /* sdpa.c */
void cuda_conv_table(Backend *be);      /* convolution.c */
void cuda_collective_table(Backend *be); /* collective.c */

/* A product with gelu or gelu_at as one kernel of cuDNN's: 1 where nobody wishes that, shapes don't suit or it has none.
 * fused_gelu.c */
int cuda_fused_gelu(Backend *be, const MatmulArgs *m);

/* ---- cuDNN: graph.c */

int graph_open(CudaDevice *d);
void graph_close(CudaDevice *d);

typedef struct {
    int64_t uid;
    DType type;
    int dims;
    int64_t dim[5], stride[5]; /* elements */
    bool scalar;               /* a host float, given by value when the graph runs */
    bool within;               /* from one operation to the next, without memory */
} GraphTensor;

/* What distinguishes one graph from another: all numbers that went into it. Zeroed before it is filled. */
typedef struct {
    int64_t number[20];
} GraphKey;

typedef struct Graph Graph;

/* The plan of this kind and key, made by `build` on first use; NULL with an error where cuDNN has none (of an engine that
 * gives the same bits each time, unless the device varies). */
typedef int GraphBuild(Graph *g, const void *args);
Graph *graph_find(CudaDevice *d, const GraphKey *key, GraphBuild *build, const void *args);

/* For `build`: add a tensor, returning its descriptor, and an operation with the tensors' attributes. */
void *graph_tensor(Graph *g, const GraphTensor *t);
typedef struct {
    int attribute; /* cudnnBackendAttributeName_t */
    int type;      /* cudnnBackendAttributeType_t */
    int64_t count;
    const void *value;
} GraphAttribute;
int graph_operation(Graph *g, int kind, int n, const GraphAttribute *attributes);
/* An extra descriptor that an operation refers to (a convolution). */
void *graph_describe(Graph *g, int kind, int n, const GraphAttribute *attributes);

/* Operations on tensors' descriptors, all computing in F32; each is -1 after an error, as where a tensor is NULL.
 * c = a b; y = mode(x), or mode(x, b) unless b is NULL; dx = the mode's gradient at x times dy; y = the sums of x over the
 * dimensions of which y has 1; y = x under another shape. mode: cudnnPointwiseMode_t. */
int graph_matmul(Graph *g, void *a, void *b, void *c);
int graph_pointwise(Graph *g, int mode, void *x, void *b, void *y);
int graph_pointwise_backward(Graph *g, int mode, void *dy, void *x, void *dx);
int graph_sum(Graph *g, void *x, void *y);
int graph_reshape(Graph *g, void *x, void *y);

/* Run with device memory (scalars: host memory) for each uid. */
int graph_run(CudaDevice *d, Graph *g, int n, const int64_t *uids, void *const *memory);

#endif
