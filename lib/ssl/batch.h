/* The views of one batch, as they come from the stream: rendered bytes, view-major. */
#ifndef HSSL_SSL_BATCH_H
#define HSSL_SSL_BATCH_H

#include <stdint.h>

typedef struct {
    int64_t batch;                   /* B images */
    int64_t globals, locals;         /* views an image; globals is 2 */
    int64_t global_size, local_size; /* pixels */
    const uint8_t *global;           /* [globals][B][size][size][3] */
    const uint8_t *local;            /* [locals][B][size][size][3]; NULL when locals is 0 */
    const float *global_f32;         /* normalised [globals*B][3][size][size], instead of the bytes */
    const float *local_f32;
} ViewBatch;

#endif
