/* Whether another process lives: by a descriptor that cannot be mistaken for a later process of the same number.
 * Private to lib/stream. */
#ifndef HSSL_PROCESS_H
#define HSSL_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* A descriptor that becomes readable when the process ends, or -1: there is none of this number to be seen. */
int process_watch(int64_t pid);
/* Whether it has ended; a zombie has. */
bool process_gone(int watch);
/* Close; *watch is -1 afterwards. */
void process_forget(int *watch);

#endif
