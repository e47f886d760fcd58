/* A piece of a step that comes again and again with the same memory: the first time it is run, the second time it is
 * recorded, and from then on the device repeats it, at the cost of one call. It is known by the addresses that may
 * differ from step to step, such as those of two sets of views in turn.
 *
 * A piece qualifies that issues the same work each time: what changes lies in device memory and is written before. What a
 * piece itself writes from the host is written once, while it is recorded. */
#ifndef HSSL_RECORDING_H
#define HSSL_RECORDING_H

#include "tensor/backend.h"

enum { RECORDINGS = 4 }; /* sets of addresses; more of them are run */

typedef struct {
    Backend *be; /* NULL, or one that cannot record: pieces are run each time */
    int runs, failures;
    struct { const void *at[2]; void *work; } made[RECORDINGS];
    int count;
} Recordings;

/* Whether there is anything to repeat. */
bool recordings_any(const Recordings *r);
/* 0: the device repeats it; 1: it has to be made or run; -1 with an error. */
int recordings_repeat(Recordings *r, const void *first, const void *second);
/* Run the piece, and record it on the way if it is its turn. 0; -1 with its error; 1: it could not be recorded, and may
 * have done anything but its work. A recording of these addresses that is there already is replaced. */
int recordings_make(Recordings *r, const void *first, const void *second, int (*piece)(void *arg), void *arg);
/* Memory or shapes have changed, or will. */
void recordings_forget(Recordings *r);

#endif
