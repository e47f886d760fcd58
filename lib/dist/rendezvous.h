/* How the ranks of a job find each other: rank 0 listens, the others call, and each shows that it has the
 * job's key (channel.h) before it hears anything. Whoever hasn't is cut off within seconds, and keeps nobody
 * waiting.
 *
 * An address is HOST:PORT, or @NAME: a name that only processes of this host reach, and of which only those
 * of the same user are let in, on both sides; the kernel says who they are. */
#ifndef HSSL_DIST_RENDEZVOUS_H
#define HSSL_DIST_RENDEZVOUS_H

#include "dist/channel.h"

enum { RENDEZVOUS_WHY = 480 };

/* What a rank says of itself. */
typedef struct {
    int32_t rank, world, pid, spare;
    char version[32], job[128], host[64];
} Hello;

typedef struct {
    int rank, world;
    const char *job;          /* a word that all ranks bring; may be "" */
    const unsigned char *key; /* of CHANNEL_KEY bytes */
    double until;             /* by log_seconds() */
} Rendezvous;

/* Rank 0 waits for all others: to[i] and who[i] are those of rank i, of [1, world). Closes `listening`. 0, or
 * -1 with ERR_PEER that names the missing ranks, or ERR_STOP; what is in `to` then is the caller's to close.
 */
int rendezvous_gather(const Rendezvous *r, int listening, Channel *to, Hello *who);
/* Another rank calls, and waits until all are there. 0, or -1. */
int rendezvous_call(const Rendezvous *r, const char *address, Channel *to);

#endif
