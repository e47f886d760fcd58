/* The views of one batch, as they come from the stream: rendered bytes, view-major. */
#ifndef HSSL_SSL_VIEWS_H
#define HSSL_SSL_VIEWS_H

#include "tensor/tensor.h"

#include <stdint.h>

typedef struct {
    int64_t batch;                   /* B images */
    int64_t globals, locals;         /* views an image; globals is 2 */
    int64_t global_size, local_size; /* pixels */
    const uint8_t *global;           /* [globals][B][size][size][3] */
    const uint8_t *local;            /* [locals][B][size][size][3]; NULL when locals is 0 */
    const float *global_f32;         /* normalised [globals*B][3][size][size], instead of the bytes */
    const float *local_f32;
} ViewBatch; /* the pixels are memory of the device, read in place */

/* Counts and sizes make sense: 0, or -1 with ERR_SHAPE. */
int views_check(const ViewBatch *v);
/* All but the pixels. */
bool views_same_shape(const ViewBatch *a, const ViewBatch *b);
/* Where the pixels of a group lie, whatever their type. */
const void *views_pixels(const ViewBatch *v, int group);
/* Group 0, the global views, or 1, the local ones, as a tensor on the tape. */
Tensor *views_tensor(Tape *t, const ViewBatch *v, int group);

#endif
