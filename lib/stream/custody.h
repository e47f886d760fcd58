/* Records in somebody's custody: kept from the moment they come until their results have been taken over.
 * Private to lib/stream. See stream/hub.h for who asks. */
#ifndef HSSL_CUSTODY_H
#define HSSL_CUSTODY_H

#include "stream/message.h"

typedef enum {
    CUSTODY_WAITING, /* for a worker */
    CUSTODY_OUT,     /* at one worker or several */
    CUSTODY_DONE,    /* has its result, which waits to be passed on */
    CUSTODY_PASSED   /* the consumer was given the result and has not acknowledged it */
} CustodyState;

typedef struct Held {
    uint64_t seq;
    CustodyState state;
    Message record; /* as it came */
    Message result; /* DONE */
    struct Slot *slot; /* where in shared memory the result lies, or NULL */
    int holders;    /* workers that have it and have not answered */
    int tries;      /* times that it was handed out */
    int crashes;    /* workers that died while they had it */
    int kills;      /* workers that were killed from outside while they had it */
    int alone;      /* those of them that had nothing else */
    double since;   /* OUT: when it was first handed out; seconds */
    double due;     /* OUT: when to try another worker */
    size_t bytes;   /* of its tensors, and of its result's where they are its own */
    struct Held *next; /* in one of the lists */
    struct Held *chain;
} Held;

enum { CUSTODY_BUCKETS = 1024 };

typedef struct {
    Held *bucket[CUSTODY_BUCKETS];
    struct {
        Held *first, *last;
    } waiting, done; /* in order of arrival */
    size_t n;        /* records held */
    size_t bytes;    /* of their tensors */
} Custody;

/* Take m, which is empty afterwards. Returns NULL (ERR_MEMORY), or the record, WAITING; one that is held already
 * is returned as it is. */
Held *custody_put(Custody *c, Message *m);
Held *custody_find(const Custody *c, uint64_t seq);
/* The first that waits for a worker, or has a result to pass on; it stays in its list. */
Held *custody_waiting(const Custody *c);
Held *custody_done(const Custody *c);
/* Change the state; the lists follow. at_once: a record that waits again goes before the others. */
void custody_set(Custody *c, Held *h, CustodyState state, bool at_once);
/* It has come to hold so many bytes more. */
void custody_weigh(Custody *c, Held *h, size_t more);
/* Let go of a record. */
void custody_drop(Custody *c, Held *h);
/* Call each for every record; it may drop the one it is given. */
void custody_each(Custody *c, void (*each)(void *arg, Held *h), void *arg);

#endif
