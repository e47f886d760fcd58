/* Begin with weights that others have trained: a safetensors file with timm's names for the base model. */
#ifndef HSSL_INITFROM_H
#define HSSL_INITFROM_H

#include "ssl/student.h"

#include <stdbool.h>
#include <stddef.h>

/* What was found in the file. */
typedef struct {
    char prefix[160];   /* what stands in front of every name that was taken, "module.backbone.", or "" */
    size_t taken, rest; /* tensors of the base model, and others */
    char other[96];     /* the name of one of the rest */
    bool converted;     /* from another type than F32 */
    int grid_from,
        grid_to; /* side of the grid of patches that the position embedding is for: in the file, and now */
} InitFrom;

/* Set the student's base model. Elements may be F64, F32, F16 or BF16. A position embedding for another grid
 * is resized as PyTorch resizes to an explicit size: bicubic, a = -0.75, half-pixel centres, no antialiasing
 * [Caron 2021, when weights are loaded]. 0, or -1: ERR_ABSENT names the tensor that is missing and the
 * nearest name, ERR_SHAPE one that does not fit, ERR_DATA a file that is not what it should be. */
int init_from(const char *path, Student *s, InitFrom *found) __attribute__((warn_unused_result));

#endif
