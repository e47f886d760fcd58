/* The ranks of a training stay in touch: rank 0 has met the others (rendezvous.h), and the connections are the
 * ranks' life lines. One that breaks, or is silent for 15 seconds, means that its process is dead, and rank 0
 * tells the rest. */
#ifndef HSSL_DIST_MUSTER_H
#define HSSL_DIST_MUSTER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Muster Muster;

typedef enum { MUSTER_STOPPED, MUSTER_FAILED } MusterEnd;

typedef struct {
    int rank, world;
    const unsigned char *key; /* of the job (secret.h); who hasn't it hears nothing */
    const char *job;          /* all ranks bring the same word; others are refused. NULL: none */
    int patience_ms;          /* for ranks that do not come; 0: 120 s */
    /* Called once, from the muster's own thread, when another rank has died, failed or stopped; text says which and why.
     * Not when it left in order. */
    void (*ended)(void *arg, MusterEnd how, const char *text);
    void (*late)(void *arg); /* the same 15 seconds later, if the muster is still open then and not on hold */
    void *arg;
} MusterConfig;

/* Rank 0 takes over `listening` (address.h), the others call at address; both wait until all are there. NULL with
 * an error that names the missing ranks. */
Muster *muster_open(const MusterConfig *c, int listening, const char *address);

/* Rank 0's bytes go to all; each rank calls it in the same order. 0, or -1 with ERR_PEER, ERR_STOP. */
int muster_share(Muster *m, void *bytes, size_t n);
/* Whether another rank has ended; then -1 with what `ended` was told. */
int muster_check(Muster *m);
bool muster_over(Muster *m); /* the same, without an error, from any thread */

/* `late` waits, and starts its 15 seconds anew afterwards. */
void muster_hold(Muster *m, bool hold);

/* This rank ends before its time: because of a signal (text NULL), or because of `text`. */
void muster_end(Muster *m, const char *text);
/* Leave. In order, unless anybody ended: then wait for the others to come here, at most 10 s. */
void muster_close(Muster **m);

#endif
