/* A set of 64-bit numbers, such as the ids of images. {0} is the empty one. */
#ifndef HSSL_IDSET_H
#define HSSL_IDSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t *slot; /* id + 1; 0: free */
    size_t room, count;
    bool last; /* whether UINT64_MAX, for which there is no id + 1, is in it */
} IdSet;

bool idset_has(const IdSet *s, uint64_t id);
/* 1: it is new, 0: it was there already, -1: ERR_MEMORY. */
int idset_add(IdSet *s, uint64_t id) __attribute__((warn_unused_result));
void idset_free(IdSet *s);

#endif
