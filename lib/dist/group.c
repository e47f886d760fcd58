#include "dist/group.h"

#include "dist/mpi/mpi_sums.h"
#include "dist/muster.h"
#include "util/err.h"
#include "util/log.h"
#include "util/plugin.h"
#include "util/stop.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct Group {
    Place place;
    Backend *be;
    Muster *muster;
    const MpiSums *mpi; /* NULL: not under mpirun */
    bool device_sums;   /* the device adds up by itself */
    bool ended;         /* by group_end */
    void (*give_up)(void);
};

int group_rank(const Group *g)
{
    return g ? g->place.rank : 0;
}

int group_world(const Group *g)
{
    return g ? g->place.world : 1;
}

/* From the muster's thread. The main thread may wait for data, for the teacher, or for a sum that never comes. */
static void other_ended(void *arg, MusterEnd how, const char *text)
{
    Group *g = arg;
    if (how == MUSTER_FAILED)
        log_error("%s", text);
    stop_request(SIGTERM);
    if (g->device_sums)
        g->be->abandon(g->be);
}

/* Something waits that nothing wakes. */
static void still_here(void *arg)
{
    const Group *g = arg;
    log_error("still at work long after another rank ended: given up");
    g->give_up();
}

/* ---------------------------------------------------------------- meeting */

static int open_mpi(Group *g)
{
    int rank, world;
    void *library = plugin_load("hssl-mpi.so", "HSSL_MPI", true, "make with mpicc installed");
    if (!library)
        return err_prefix("ranks of %s", g->place.by);
    if (!(g->mpi = plugin_symbol(library, "hssl_mpi_sums")) || g->mpi->open(&rank, &world))
        return -1;
    if (rank != g->place.rank || world != g->place.world)
        return err_set(ERR_USAGE, "MPI says that this is rank %d of %d, the environment %d of %d: is mpirun of the MPI that "
                                  "hssl-mpi.so was built for?", rank, world, g->place.rank, g->place.world);
    return 0;
}

static void random_word(char *word, size_t size)
{
    uint64_t x[2] = { (uint64_t)getpid(), (uint64_t)time(NULL) };
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, x, sizeof x) != sizeof x)
            x[0] ^= (uint64_t)clock();
        close(fd);
    }
    snprintf(word, size, "%016" PRIx64 "%016" PRIx64, x[0], x[1]);
}

/* Where, and the word that all bring. Under mpirun rank 0 takes any port and tells the others by MPI. */
typedef struct {
    char address[256], token[128];
} Meeting;

static int arrange(Group *g, Meeting *at, int *listening)
{
    const Place *p = &g->place;
    char wanted[256], host[128] = "127.0.0.1";
    *listening = -1;
    if (!g->mpi) {
        if (place_meeting(p, at->address, sizeof at->address, at->token, sizeof at->token))
            return -1;
        snprintf(wanted, sizeof wanted, "%s", at->address);
        return p->rank ? 0 : (*listening = muster_listen(wanted, at->address, sizeof at->address)) < 0 ? -1 : 0;
    }
    memset(at, 0, sizeof *at);
    if (!p->rank) {
        if (p->local_world < p->world)
            gethostname(host, sizeof host - 1);
        snprintf(wanted, sizeof wanted, "%s:0", host);
        *listening = muster_listen(wanted, at->address, sizeof at->address);
        random_word(at->token, sizeof at->token);
    }
    if (g->mpi->share(at, sizeof *at))
        return -1;
    at->address[sizeof at->address - 1] = at->token[sizeof at->token - 1] = 0;
    return *at->address ? 0 : p->rank ? err_set(ERR_PEER, "rank 0 cannot be met") : -1;
}

static int meet(Group *g)
{
    Meeting at;
    int listening;
    if (arrange(g, &at, &listening))
        return -1;
    MusterConfig c = { .rank = g->place.rank, .world = g->place.world, .token = at.token, .ended = other_ended, .late = still_here,
                       .arg = g };
    return (g->muster = muster_open(&c, listening, at.address)) ? 0 : -1;
}

static int join_devices(Group *g)
{
    unsigned char ticket[BACKEND_TICKET] = { 0 };
    if (!g->place.rank && g->be->ticket(g->be, ticket))
        return -1;
    if (muster_share(g->muster, ticket, sizeof ticket) || g->be->join(g->be, ticket, g->place.rank, g->place.world))
        return -1;
    g->device_sums = true;
    return 0;
}

Group *group_open(const Place *p, Backend *be, void (*give_up)(void))
{
    Group *g = calloc(1, sizeof *g);
    if (!g) {
        err_set(ERR_MEMORY, "ranks: out of memory");
        return NULL;
    }
    g->place = *p;
    g->be = be;
    g->give_up = give_up;
    if (p->world == 1)
        return g;
    int rc = 0;
    if (!strcmp(p->by, "mpirun"))
        rc = open_mpi(g);
    else if (!be->join)
        rc = err_set(ERR_USAGE, "%d ranks on processors add up by MPI: start them with mpirun, not %s", p->world, p->by);
    if (!rc && !be->join && !be->mapped)
        rc = err_set(ERR_USAGE, "device %s does not add up over ranks", be->name);
    if (rc || meet(g) || (be->join && join_devices(g))) {
        group_end(g, err_text());
        group_close(&g);
    }
    return g;
}

/* ---------------------------------------------------------------- sums */

int group_sum(Group *g, float *x, int64_t n)
{
    if (group_world(g) == 1 || !n)
        return 0;
    if (muster_check(g->muster))
        return -1;
    if (g->device_sums)
        return g->be->sum(g->be, x, n);
    return g->be->sync(g->be) || g->mpi->sum(x, n) ? -1 : 0;
}

static bool is_over(void *arg)
{
    return muster_over(arg);
}

int group_settle(Group *g)
{
    if (group_world(g) == 1)
        return 0;
    /* A device's sums that another rank's end cut short look like any others: only once they are over is it known. */
    if (g->device_sums ? g->be->summed(g->be) || g->be->sync(g->be) : g->mpi->settle(is_over, g->muster))
        return muster_check(g->muster) ? -1 : err_prefix("sums over ranks");
    return g->device_sums ? muster_check(g->muster) : 0;
}

int group_meet(Group *g)
{
    if (group_world(g) == 1)
        return 0;
    float *x = g->be->alloc(g->be, sizeof *x);
    int rc = !x || g->be->zero(g->be, x, sizeof *x) || group_sum(g, x, 1) || group_settle(g) ? -1 : 0;
    if (x)
        g->be->release(g->be, x, sizeof *x);
    return rc;
}

int group_share(Group *g, void *host, size_t bytes)
{
    return group_world(g) == 1 ? 0 : muster_share(g->muster, host, bytes);
}

void group_hold(Group *g, bool hold)
{
    if (g && g->muster)
        muster_hold(g->muster, hold);
}

int group_check(Group *g)
{
    return g && g->muster ? muster_check(g->muster) : 0;
}

/* ---------------------------------------------------------------- the end */

void group_end(Group *g, const char *text)
{
    if (!g || g->ended)
        return;
    g->ended = true;
    if (g->muster)
        muster_end(g->muster, text);
}

void group_close(Group **group)
{
    Group *g = *group;
    if (!g)
        return;
    bool in_order = !g->ended && !(g->muster && muster_over(g->muster));
    muster_close(&g->muster);
    if (g->mpi)
        g->mpi->close(in_order);
    if (g->device_sums && in_order)
        g->be->leave(g->be);
    free(g);
    *group = NULL;
}
