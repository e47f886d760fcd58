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

/* NULL where there is not so much. */
void *memory_take(size_t bytes);
/* p is what memory_take gave; false where it is not. */
bool memory_release(void *p);
/* What is left, and all there is. */
void memory_left(size_t *left, size_t *all);
/* All of it lies within one piece that was taken or borrowed. Without a guard (below) any memory will do: some tests' own. */
bool memory_holds(const void *p, size_t bytes);
bool memory_lacks(const void *p, size_t bytes); /* it does not */
/* The same memory where no guard is: for what goes on while the host is elsewhere. NULL: not the device's. */
void *memory_beside(void *p, size_t bytes);

/* Only whole pieces can be lent. NULL, or false, where it is refused. */
bool memory_lend(const void *p, void *handle, size_t bytes_of_handle);
void *memory_borrow(const void *handle);
bool memory_give_back(void *p);

/* Let the functions of this table alone reach the memory, if that is wanted. */
void memory_guard(Backend *be);

#endif
