#include "train/threads.h"

#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

void threads_settle(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME"))
        return;
    /* Waking a thread costs microseconds. Spinning costs far more as soon as anybody else computes: even 2000
     * spins before going to sleep made steps three times longer beside a compiler, and the programs that
     * render the views are always there. */
    setenv("OMP_WAIT_POLICY", "passive", 1);
    setenv("KMP_BLOCKTIME", "0", 1);
    char self[4096]; /* by its own path, so that it keeps its name in ps */
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = 0;
        execv(self, argv);
    }
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
