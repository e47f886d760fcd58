/* Gradients of linear layers, for the ops that have them. op_linear.c */
#ifndef HSSL_LINEAR_H
#define HSSL_LINEAR_H

#include "tensor/tape.h"

/* y = x w^T + b, with what its forward pass gave to the product. */
typedef struct {
    Tensor *x, *w, *b; /* x NULL: its gradient is the op's own business; b or NULL */
    const void *x_operand, *w_operand;
} Linear;

/* From dy [rows, out], the gradients of w, b and x, of those that want one. -1 with an error. */
int linear_gradients(Tape *t, const Linear *l, int64_t rows, const void *dy, DType type);

#endif
