/* Where the time of a step goes: each call of the table of kernels is timed by itself, with a wait before and after it.
 * What a kernel calls of the table counts as its own. */
#ifndef HSSL_BENCH_PROFILE_H
#define HSSL_BENCH_PROFILE_H

#include "../common/ceilings.h"

/* From now on; no work may be recorded. 0, or -1 with an error. */
int profile_begin(Backend *be);
/* Forget what was timed so far. */
void profile_reset(void);
/* A JSON line for each kernel and shape, in the order of the time that they take: calls and milliseconds a step, the share of
 * all kernels' time, and the share of the ceiling that binds it, from the flops and bytes that it cannot do without. */
void profile_print(int64_t steps, const Ceilings *most);

#endif
