/* Memory of the emulated device: a file in memory that other processes may map, filled with ones where it is new, so
 * that what nobody wrote shows (all ones is not a number in F32 and BF16).
 *
 * With HSSL_EMULATE_GUARD in the environment nobody but the device reaches it: it can be read and written only while a
 * function of the table runs. Code above the table that touches it dies. */
#ifndef EMULATE_MEMORY_H
#define EMULATE_MEMORY_H

extern "C" {
#include "tensor/backend.h"
}

void *memory_take(Backend *, size_t bytes);
void memory_release(Backend *, void *p, size_t bytes);
void memory_rest(Backend *, void *p, size_t bytes);

int memory_lend(Backend *, const void *p, BackendHandle *out);
void *memory_borrow(Backend *, const BackendHandle *handle, size_t bytes);
void memory_give_back(Backend *, void *p, size_t bytes);

/* Let the functions of this table alone reach the memory, if that is wanted. */
void memory_guard(Backend *be);

#endif
