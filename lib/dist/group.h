/* The ranks that train one model together: what they add up, and what becomes of the others when one ends.
 *
 * Each rank computes on its part of every batch; sums over ranks make of the parts' gradients and figures those of the
 * whole. On GPUs NCCL adds, on processors MPI, beside the work that goes on. A group of one does nothing and needs none
 * of them.
 *
 * Functions that return int give 0, or -1 with an error: ERR_PEER when another rank has died or failed, ERR_STOP when
 * one was asked to stop; the text names it. */
#ifndef HSSL_DIST_GROUP_H
#define HSSL_DIST_GROUP_H

#include "dist/place.h"
#include "tensor/backend.h"

typedef struct Group Group;

/* Meet the others. be: the device whose memory is added up. give_up ends the process where nothing else does, from another
 * thread (group_check). NULL with an error. */
Group *group_open(const Place *p, Backend *be, void (*give_up)(void));
int group_rank(const Group *g);  /* 0 for NULL */
int group_world(const Group *g); /* 1 for NULL */

/* Begin: x, memory of the device, becomes its sum over ranks. Ordered after all work issued so far; every rank begins the
 * same sums in the same order. */
int group_sum(Group *g, float *x, int64_t n);
/* What is issued from here on works on the sums begun so far, which are whole: on GPUs it waits for them. */
int group_settle(Group *g);
/* All ranks have come here. */
int group_meet(Group *g);
/* Rank 0's bytes of the host go to all; waits. */
int group_share(Group *g, void *host, size_t bytes);

/* Whether all are still there. When another rank has ended, waits of this process end as if a signal had come
 * (util/stop.h), and if it hasn't ended by itself after 15 seconds, not counting those on hold, give_up is called. */
int group_check(Group *g);
/* This process saves what it has: it is not to be ended meanwhile. */
void group_hold(Group *g, bool hold);

/* This rank ends before its time: because of a signal (text NULL), or because of `text`. The others hear of it. */
void group_end(Group *g, const char *text);
/* Leave: in order, unless this or another rank has ended. */
void group_close(Group **g);

#endif
