#include "dist/place.h"

#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 65536, FIRST_PORT = 20000, PORTS = 20000 };

static const struct {
    const char *by, *rank, *world, *local, *local_world, *only_with;
} ways[] = {
    { "mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
      "OMPI_COMM_WORLD_LOCAL_SIZE", NULL },
    { "mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "MPI_LOCALRANKID" }, /* srun sets the first two */
    { "torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", NULL },
    /* The shell of a batch script has these too, but it is no step of the job, or one of one task. */
    { "slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_ID" },
};

/* A number of [from, to]; `otherwise` where the variable is not there. */
static int number(const char *name, long from, long to, int otherwise, int *out)
{
    const char *text = getenv(name);
    char *end;
    *out = otherwise;
    if (!text || !*text)
        return 0;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < from || n > to)
        return err_set(ERR_USAGE, "%s=%s: not a number from %ld to %ld", name, text, from, to);
    *out = (int)n;
    return 0;
}

int place_find(Place *p)
{
    *p = (Place){ .world = 1, .local_world = 1, .by = "" };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int world;
        if (!getenv(ways[i].rank) || !getenv(ways[i].world) || (ways[i].only_with && !getenv(ways[i].only_with)))
            continue;
        if (number(ways[i].world, 1, MOST_RANKS, 1, &world))
            return -1;
        if (world == 1)
            continue;
        p->world = world;
        p->by = ways[i].by;
        if (number(ways[i].rank, 0, world - 1, 0, &p->rank) || number(ways[i].local, 0, world - 1, p->rank, &p->local) ||
            number(ways[i].local_world, 1, MOST_RANKS, world, &p->local_world))
            return -1;
        int hosts;
        if (number("SLURM_STEP_NUM_NODES", 1, MOST_RANKS, 1, &hosts))
            return -1;
        p->spread = p->local_world < world || (!strcmp(p->by, "slurm") && hosts > 1);
        if (p->local_world > world) /* a step may have fewer tasks than its job has for each node */
            p->local_world = world;
        return 0;
    }
    return 0;
}

/* The first of "node[03-07,9],other": "node03". */
static void first_host(const char *list, char *host, size_t size)
{
    size_t plain = strcspn(list, "[,");
    int n = list[plain] == '[' ? (int)strcspn(list + plain + 1, "-,]") : 0;
    snprintf(host, size, "%.*s%.*s", (int)plain, list, n, n ? list + plain + 1 : "");
}

int place_given(const char **address)
{
    const char *given = getenv("HSSL_MUSTER"), *colon = given ? strrchr(given, ':') : NULL;
    *address = given;
    return !given || (colon && colon != given && colon[1] && *given != '@') ? 0
           : err_set(ERR_USAGE, "HSSL_MUSTER=%s: not HOST:PORT", given);
}

int place_meeting(const Place *p, char *address, size_t size, char *job, size_t job_size)
{
    const char *given, *master = getenv("MASTER_ADDR"), *nodes = getenv("SLURM_STEP_NODELIST"),
               *number_of = getenv("SLURM_JOB_ID"), *step = getenv("SLURM_STEP_ID"),
               *run = getenv("TORCHELASTIC_RUN_ID");
    char host[256];
    int port;
    if (!nodes)
        nodes = getenv("SLURM_JOB_NODELIST");
    snprintf(job, job_size, "%s/%s/%s", number_of ? number_of : "", step ? step : "", run ? run : "");
    if (place_given(&given))
        return -1;
    if (given) {
        snprintf(address, size, "%s", given);
        return 0;
    }
    if (master && *master) {
        if (number("MASTER_PORT", 1, 65534, 29500, &port))
            return -1;
        snprintf(address, size, "%s:%d", master, port + 1);
        return 0;
    }
    if (nodes && number_of) {
        first_host(nodes, host, sizeof host);
        snprintf(address, size, "%s:%ld", host, FIRST_PORT + strtol(number_of, NULL, 10) % PORTS);
        return 0;
    }
    return err_set(ERR_USAGE, "%d ranks, and nothing says where they meet: set HSSL_MUSTER=HOST:PORT, a free port of the "
                              "host of rank 0", p->world);
}
