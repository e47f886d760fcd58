/* Sums of host memory over ranks by MPI: a library of its own, hssl-mpi.so, loaded where mpirun started the process, so
 * that nobody else needs MPI. */
#ifndef HSSL_DIST_MPI_SUMS_H
#define HSSL_DIST_MPI_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    /* Joins MPI's ranks, and says which of how many this is. Functions that return int give 0, or -1 with an error. */
    int (*open)(int *rank, int *world);
    /* Rank 0's bytes to all; waits. */
    int (*share)(void *bytes, size_t n);
    /* Begin to add x up in place, behind the sums begun before; a thread of the library does it. */
    int (*sum)(float *x, int64_t n);
    /* Wait for all of them. -1 with ERR_PEER as soon as over(arg) holds. */
    int (*settle)(bool (*over)(void *arg), void *arg);
    /* Leave. in_order: all ranks do so now. Else MPI is left as it is: the process must end. */
    void (*close)(bool in_order);
} MpiSums;

extern __attribute__((visibility("default"))) const MpiSums hssl_mpi_sums;

#endif
