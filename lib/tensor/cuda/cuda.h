/* The inside of the CUDA backend: the device behind the table, and what the kernel families share on the host. */
#ifndef HSSL_CUDA_H
#define HSSL_CUDA_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/backend.h"

enum {
    CUDA_SCRATCH_PARTIAL,   /* partial sums of a kernel */
    CUDA_SCRATCH_SCORES,    /* of attention; gradients to be added to others */
    CUDA_SCRATCH_FILTER,    /* with its channels last */
    CUDA_SCRATCH_MOVE,
    CUDA_SCRATCH_BIAS,      /* in BF16; its gradient */
    CUDA_SCRATCH_WORKSPACE, /* of cuBLASLt and cuDNN */
    CUDA_SCRATCH_SLOTS
};

typedef enum { CUDA_FP32, CUDA_TF32, CUDA_BF16 } CudaPrecision;

typedef struct {
    Backend table; /* first: a Backend * of this device is also a CudaDevice * */
    CudaPrecision precision;
    int device, processors;
    int shared_memory; /* bytes that a block can have */
    bool varies; /* the last bits may differ from run to run, for speed */
    bool recording; /* what is issued is kept: record.c */
    unsigned era;   /* changes when scratch memory moves */
    cudaStream_t stream, copies; /* the work; uploads beside it */
    struct { void *p; size_t bytes; } scratch[CUDA_SCRATCH_SLOTS];
    struct Blas *blas; /* blaslt.c */
    struct Dnn *dnn;   /* graph.c */
    struct Ranks *ranks; /* collective.c; NULL where this device adds up with no others */
} CudaDevice;

static inline cudaStream_t cuda_stream(Backend *be)
{
    return ((CudaDevice *)be)->stream;
}

/* 0, or -1 with an error that says what was tried. */
int cuda_check(cudaError_t code, const char *what);

/* Device memory that the next use of the slot overwrites. It grows, so steps after the first get the same
 * addresses; not while work is recorded. NULL with an error. */
void *cuda_scratch(Backend *be, int slot, size_t bytes);

/* Depthwise convolutions, the gradient of their bias with the rest. depthwise.cu */
int cuda_depthwise(Backend *be, const ConvArgs *a);
int cuda_depthwise_backward(Backend *be, const ConvArgs *a);
/* Parts of those for the shapes that ConvNeXt has, by tiles in shared memory; the sums are added to a->dweight. */
bool cuda_tiles_suit(const ConvArgs *a);
int cuda_tiles_forward(Backend *be, const ConvArgs *a);
int cuda_tiles_input_gradient(Backend *be, const ConvArgs *a);
int cuda_tiles_weight_gradient(Backend *be, const ConvArgs *a);

/* For x [rows, cols] at row length ld: x[r, c] += bias[c] unless bias is NULL, and out[r, c] = gelu(x[r, c]) unless out is
 * NULL. out may be x: it then holds gelu. point.cu */
int cuda_bias_gelu(Backend *be, DType type, int64_t rows, int64_t cols, int64_t ld, const float *bias, void *x, void *out);
/* Attention by kernels of our own, where they suit: forward of few tokens, attention.cu, or of any number, attention_tiles.cu;
 * attention_backward.cu. */
bool cuda_own_suits(Backend *be, const AttentionArgs *a);
bool cuda_few_tokens(const AttentionArgs *a);
int cuda_few_attention(Backend *be, const AttentionArgs *a);
int cuda_tiled_attention(Backend *be, const AttentionArgs *a);
int cuda_own_attention_backward(Backend *be, const AttentionArgs *a);
/* Attention by products, softmax.cu: the scores q k^T of a head, F32 [batch, tokens, tokens], become softmax(scale
 * scores); stat: as in AttentionArgs, or NULL. */
int cuda_scaled_softmax(Backend *be, const AttentionArgs *a, int head, float *p, float *stat);
/* dp, the gradient of p, becomes that of the scores. */
int cuda_scaled_softmax_backward(Backend *be, const AttentionArgs *a, const float *p, float *dp);

/* The families put their kernels into the table. */
void cuda_point_table(Backend *be);  /* point.cu: elementwise */
void cuda_row_table(Backend *be);    /* row.cu: by rows */
void cuda_norm_table(Backend *be);   /* norm.cu: layer norm */
void cuda_layout_table(Backend *be); /* layout.cu: what moves */
void cuda_reduce_table(Backend *be); /* reduce.cu: sums */
void cuda_loss_table(Backend *be);   /* loss.cu */
void cuda_train_table(Backend *be);  /* train.cu: the optimiser, the average */
void cuda_record_table(Backend *be); /* record.c: work that repeats */
void cuda_teacher_table(Backend *be); /* teacher.cu: targets, centre, discrepancy */

#ifdef __cplusplus
}
#endif

#endif
