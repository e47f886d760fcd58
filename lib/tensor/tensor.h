/* Tensors, and the tape that remembers what was computed with them.
 *
 * An op (tensor/ops.h) runs at once through the table of kernels of the tape's device (tensor/backend.h)
 * and, while the tape records, notes how to run backwards. Nothing above this library knows the device.
 *
 *     Tape *t = tape_new("cpu");
 *     tape_begin(t, true);
 *     Tensor *loss = op_mean(t, op_gelu(t, op_linear(t, x, w, b)));
 *     if (tape_backward(t, loss) < 0) ...            // adds to w->grad, b->grad
 *     float value;
 *     tape_read(t, loss, &value);
 *
 * Ownership: what an op returns lives in the tape's step arena until the next tape_begin; nothing is
 * freed one by one, and the same sequence of ops gets the same addresses in each step. tape_backward uses
 * up the arena from its end: after it only results of up to 256 bytes (losses) can still be read, and what
 * the caller owns. Parameters belong to the caller, data and grad alike.
 *
 * Errors are sticky: an op that fails records the error (util/err.h) and returns NULL, an op that is
 * given NULL returns NULL, and tape_backward of NULL fails. So a forward pass is checked once, at its end. */
#ifndef HSSL_TENSOR_H
#define HSSL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TENSOR_DIMS = 5 };

typedef enum { DT_F32, DT_U8, DT_I32, DT_I64, DT_BF16 } DType;

/* Contiguous, row-major. data is memory of the tape's device. */
typedef struct Tensor {
    DType dtype;
    int ndim;
    int64_t shape[TENSOR_DIMS];
    void *data;
    /* A parameter: the caller's tensor of the same shape; backward ADDS to it, and whoever uses the gradient
     * zeroes it (the adamw kernel can do so in its own pass). An op's result: made and released by
     * tape_backward; NULL outside of it, except for tensors named in tape_retain. */
    struct Tensor *grad;
    bool needs_grad; /* a parameter: the caller's choice; a result: whether any operand needs one */
    void *tape_private; /* NULL in a tensor of the caller's making */
} Tensor;

static inline size_t dtype_size(DType dtype)
{
    return dtype == DT_U8 ? 1 : dtype == DT_BF16 ? 2 : dtype == DT_I64 ? 8 : 4;
}
/* The n-th element of an array of this dtype. */
static inline void *element(const void *array, DType dtype, int64_t n)
{
    return (char *)(uintptr_t)array + n * (int64_t)dtype_size(dtype);
}

int64_t tensor_count(const Tensor *x); /* elements */
size_t tensor_bytes(const Tensor *x);
int64_t tensor_dim(const Tensor *x, int axis); /* axis < 0 counts from the end; 1 where x has no such axis */
/* All dimensions but the last: rows of the matrix that x is to a linear layer. */
int64_t tensor_rows(const Tensor *x);

typedef struct Tape Tape;
typedef struct Backend Backend;

/* device: as backend_open has it, "cpu", "cuda" or "cuda:N". NULL with ERR_USAGE where there is none of that name. */
Tape *tape_new(const char *device);
void tape_free(Tape *t);
Backend *tape_backend(Tape *t);

/* Start a step: forget all results, reset the arena. record false: inference, nothing is kept for a
 * backward pass, and tape_mark / tape_keep bound the memory. Clears a failure. */
void tape_begin(Tape *t, bool record);
/* Between two steps: forget all results and lend their memory to others, until the next step takes it back at
 * the same addresses. */
void tape_rest(Tape *t);
bool tape_recording(const Tape *t);
bool tape_failed(const Tape *t);
/* Record a failure by hand: the err_set of a caller that builds its own op. Returns NULL. */
Tensor *tape_fail(Tape *t);

/* The caller's F32 device memory of `count` numbers from `first` on is full of parameters: where the device's products take
 * another type, all of it is cast at once when the first of them is used in a step, rather than each by itself. It holds
 * until the next call; NULL: none. */
void tape_operands(Tape *t, const float *first, size_t count);

/* Results that are not an op's: uninitialised, zero, or a header around memory that the caller owns (device
 * memory, alive for the step). */
Tensor *tape_tensor(Tape *t, DType dtype, int ndim, const int64_t *shape);
Tensor *tape_zeros(Tape *t, DType dtype, int ndim, const int64_t *shape);
Tensor *tape_wrap(Tape *t, DType dtype, int ndim, const int64_t *shape, void *data);
/* The same elements under another shape; one dimension may be -1. Differentiable; copies nothing. */
Tensor *tape_view(Tape *t, Tensor *x, int ndim, const int64_t *shape);

/* Host memory, tensor_count elements, to and from a tensor; of BF16 tensors the host sees floats. tape_read waits for
 * the device. 0, or -1. */
int tape_write(Tape *t, Tensor *x, const void *host);
int tape_read(Tape *t, const Tensor *x, void *host);

/* Gradients of a scalar, seed 1, or of sum over i of <outs[i], gouts[i]>. Adds to the grad of every tensor
 * of the caller's that needs one. The record is used up. 0, or -1. */
int tape_backward(Tape *t, Tensor *loss);
int tape_backward_from(Tape *t, int n, Tensor *const *outs, Tensor *const *gouts);
/* Keep the gradient of this result after tape_backward (until the next tape_begin). For tests and probes. */
void tape_retain(Tape *t, Tensor *x);

/* y = body(t, x, arg), of which the tape keeps y alone: backward runs the body once more for the rest, so a deep model
 * takes the memory of its blocks' outputs and of one block, and a third more time. The same numbers come out, so the
 * body must do the same both times; besides x it may use the caller's tensors only. arg: bytes that are copied. Where
 * nothing is recorded it is the body alone. */
typedef Tensor *TapeBody(Tape *t, Tensor *x, const void *arg);
Tensor *tape_recompute(Tape *t, Tensor *x, TapeBody *body, const void *arg, size_t bytes);

/* x itself, and a mark on the way back: where backward comes by, everything that was computed after it has been run
 * backwards, and reached(arg) is called; a result below 0 is a failure. */
Tensor *tape_milestone(Tape *t, Tensor *x, int (*reached)(void *arg), void *arg);

/* Inference: y = ..many ops..; y = tape_keep(t, mark, y) releases all that was made after the mark except
 * y, which stays where it is. Tensors older than the mark are untouched, younger ones but y are void.
 * While recording, returns y and releases nothing. */
size_t tape_mark(Tape *t);
Tensor *tape_keep(Tape *t, size_t mark, Tensor *y);

/* Device bytes held by the tape: most ever in use, and reserved now. */
size_t tape_peak_bytes(const Tape *t);

#endif
