/* What the machine can do at most, measured: the floor under every time in these tables. */
#ifndef HSSL_BENCH_CEILINGS_H
#define HSSL_BENCH_CEILINGS_H

#include "tensor/backend.h"

typedef double BenchClock(void); /* seconds */

typedef struct {
    double flops; /* a second: multiply-adds in registers on the processor, a large product elsewhere; 0: unknown */
    double bytes; /* a second, read and written, of x += y over arrays that fit in no cache */
} Ceilings;

/* 0, or -1 with an error. */
int ceilings_measure(Backend *be, BenchClock *seconds, Ceilings *out);

#endif
