/* How much memory a training will want: a rough figure from the configuration, before anything is built. */
#ifndef HSSL_ESTIMATE_H
#define HSSL_ESTIMATE_H

#include "ssl/config.h"

#include <stddef.h>

typedef struct {
    double student, teacher; /* bytes */
} MemoryEstimate;

/* param_bytes: student_bytes(). */
MemoryEstimate memory_estimate(const TrainConfig *c, size_t param_bytes);

#endif
