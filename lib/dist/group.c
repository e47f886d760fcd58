#include "dist/group.h"

#include "dist/address.h"
#include "dist/mpi/mpi_sums.h"
#include "dist/muster.h"
#include "dist/secret.h"
#include "util/err.h"
#include "util/log.h"
#include "util/plugin.h"
#include "util/stop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Where, and the key that all have. */
typedef struct {
    char address[256], job[128];
    unsigned char key[CHANNEL_KEY];
} Meeting;

/* Rank 0 takes any port, makes a key, and tells the others by MPI. */
static int arrange_by_mpi(Group *g, Meeting *at, int *listening)
{
    const Place *p = &g->place;
    const char *given;
    char wanted[256], host[128] = "127.0.0.1";
    if (!p->rank && !place_given(&given) && !secret_make(at->key)) {
        if (p->spread)
            gethostname(host, sizeof host - 1);
        snprintf(wanted, sizeof wanted, "%s:0", host);
        *listening = address_listen(given ? given : wanted, p->spread, at->address, sizeof at->address);
        if (*listening < 0)
            *at->address = 0;
    }
    if (g->mpi->share(at, sizeof *at))
        return -1;
    at->address[sizeof at->address - 1] = 0;
    return *at->address ? 0 : p->rank ? err_set(ERR_PEER, "rank 0 cannot be met") : -1;
}

/* Without a secret only processes of one host and user meet, for whom the kernel vouches. */
static int arrange(Group *g, Meeting *at, int *listening)
{
    const Place *p = &g->place;
    bool secret, here = true;
    char wanted[sizeof at->address];
    if (place_meeting(p, at->address, sizeof at->address, at->job, sizeof at->job) ||
        secret_find(at->key, &secret))
        return -1;
    if (!secret && !p->spread && address_is_here(at->address, &here))
        return -1;
    if (!secret && (p->spread || !here))
        return err_set(ERR_USAGE, "ranks on several hosts meet by a secret: give all of them the same HSSL_SECRET, "
                                  "or HSSL_SECRET_FILE, made with '" SECRET_MAKE "'");
    snprintf(wanted, sizeof wanted, "%s", at->address);
    if (!secret)
        snprintf(at->address, sizeof at->address, "@hssl-ranks-%u-%.200s", (unsigned)geteuid(), wanted);
    if (!p->rank) {
        snprintf(wanted, sizeof wanted, "%s", at->address);
        *listening = address_listen(wanted, p->spread, at->address, sizeof at->address);
    }
    return !p->rank && *listening < 0 ? -1 : 0;
}

static int meet(Group *g)
{
    Meeting at = { .address = "" };
    int listening = -1;
    MusterConfig c = { .rank = g->place.rank, .world = g->place.world, .key = at.key, .job = at.job,
                       .ended = other_ended, .late = still_here, .arg = g };
    if (!(g->mpi ? arrange_by_mpi(g, &at, &listening) : arrange(g, &at, &listening)))
        g->muster = muster_open(&c, listening, at.address);
    explicit_bzero(at.key, sizeof at.key);
    return g->muster ? 0 : -1;
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
