/* How many directions a set of vectors takes. */
#ifndef HSSL_SPECTRUM_H
#define HSSL_SPECTRUM_H

#include <stdint.h>

/* exp of the entropy of the singular values of x [n, c], divided by their sum [Roy & Vetterli 2007]: 1 where
 * all rows are multiples of one, at most min(n, c). 0 where all are zero, or not all finite; -1: ERR_MEMORY.
 */
double effective_rank(const float *x, int64_t n, int64_t c);

#endif
