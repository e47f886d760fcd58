#include "train/threads.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Spins of a waiting thread before it sleeps: some tens of microseconds, longer than the gaps between the loops of
 * one step and shorter than anything worth sharing a processor for. */
static const char SPINS[] = "20000";

void threads_settle(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME"))
        return;
    setenv("GOMP_SPINCOUNT", SPINS, 1);
    setenv("KMP_BLOCKTIME", "0", 1);
    execv("/proc/self/exe", argv);
}

int threads_default(void)
{
    return omp_get_max_threads() < omp_get_num_procs() ? omp_get_max_threads() : omp_get_num_procs();
}

int threads_use(int n)
{
    if (n <= 0)
        n = threads_default();
    omp_set_num_threads(n);
    return n;
}
