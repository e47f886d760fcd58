/* A tensor as files hold it: name, element type, shape, bytes. Shared by runs and safetensors files;
 * it knows nothing of lib/tensor. */
#ifndef HSSL_STORED_H
#define HSSL_STORED_H

#include <stddef.h>
#include <stdint.h>

enum { STORED_DIMS = 8 };

/* Element types, by the names safetensors gives them. */
typedef enum {
    STORED_F32, STORED_U8, STORED_I32, STORED_I64,
    STORED_F64, STORED_F16, STORED_BF16, STORED_I16, STORED_I8, STORED_U16, STORED_U32, STORED_U64, STORED_BOOL,
    STORED_TYPES
} StoredType;

typedef struct {
    const char *name;
    StoredType dtype;
    int ndim; /* 0: a scalar, one element */
    int64_t shape[STORED_DIMS];
    const void *data; /* contiguous, row-major, little-endian; where it was read, aligned to its element */
    size_t bytes;     /* product of shape times element size */
} StoredTensor;

/* Called for each tensor; a value other than 0 ends the walk and becomes its result. */
typedef int StoredEach(const StoredTensor *t, void *arg);

/* "F32", and back; stored_type gives -1 with ERR_DATA for a name it does not know. */
const char *stored_type_name(StoredType t);
int stored_type(const char *name);
size_t stored_type_size(StoredType t); /* bytes of an element */

/* Elements of a shape, bytes through *bytes (may be NULL). -1 with ERR_DATA on a negative extent, too many
 * dimensions, an unknown type, or overflow. */
int64_t stored_count(StoredType dtype, int ndim, const int64_t *shape, size_t *bytes);

/* The elements of a tensor of F64, F32, F16 or BF16 as F32, rounded to the nearest; out: room for all of
 * them. -1 with ERR_DATA for the other types. */
int stored_to_f32(const StoredTensor *t, float *out) __attribute__((warn_unused_result));

/* dtype, shape and bytes agree and there is a name: 0, else -1 with ERR_DATA. Does not read the data. */
int stored_check(const StoredTensor *t) __attribute__((warn_unused_result));

#endif
