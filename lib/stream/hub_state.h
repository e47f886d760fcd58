/* What hub*.c share. Private to lib/stream. */
#ifndef HSSL_HUB_STATE_H
#define HSSL_HUB_STATE_H

#include "stream/crew.h"
#include "stream/custody.h"
#include "stream/hub.h"
#include "stream/shm.h"
#include "stream/wire.h"

enum {
    HUB_PORTS = 2,       /* this host, and tcp */
    HUB_SLOTS = 256,     /* most slots of a desk */
    HUB_QUEUE = 256      /* most records at one worker */
};

typedef enum { SLOT_FREE, SLOT_LENT, SLOT_RESULT } SlotState;

/* Room for one result in a desk. */
typedef struct Slot {
    SlotState state;
    uint64_t seq;
    struct Desk *desk;
} Slot;

/* Shared memory of one worker. It outlives its worker, for results that are still in it, and then serves another:
 * so peers meet a bounded number of blocks. */
typedef struct Desk {
    ShmBlock *block;
    Slot slot[HUB_SLOTS];
    int slots, turn; /* turn: where the next free one may be */
    bool lent;   /* a worker may write into it */
    pid_t pid;   /* whose it is when the hub has lost its worker, which may live and write; else 0 */
    int gone;    /* then: pidfd, or -1 */
} Desk;

typedef struct {
    bool used;
    WireId id;
    int port;
    long number;     /* for messages */
    pid_t pid;       /* on this host; else 0 */
    int gone;        /* pidfd, or -1 */
    bool ready;      /* has told its medium */
    bool silent;     /* nothing heard for long: gets nothing */
    bool late;       /* a record that it has is overdue, and it has answered nothing since */
    bool full;       /* has not read what it was given: gets no more before it is looked at again */
    bool alone;      /* has a record over which a worker crashed, and gets no other */
    double heard;
    int64_t credit;  /* records that it takes beside those it has */
    uint64_t seq[HUB_QUEUE]; /* those it has, the oldest first */
    int queue;
    Desk *desk;    /* NULL: inline */
} HubWorker;

struct Hub {
    HubConfig config;
    struct {
        void *socket;
        Ticket ticket;
    } port[HUB_PORTS];
    int ports;
    char line[TICKET_MAX_LINE], local_line[TICKET_MAX_LINE];
    Message welcome;
    bool welcomed, ended;
    int deaths; /* epoll of the pidfds of workers that are not children */
    Crew *crew;
    Custody custody;
    HubWorker worker[HUB_MAX_WORKERS];
    int reach;        /* those from here on were never used */
    size_t passed;    /* records that the consumer has */
    double looked;    /* when workers and records were last looked through */
    Desk desk[HUB_MAX_WORKERS];
    int desks;
    size_t offset[HUB_MAX_RESULTS], slot_bytes;
    int slots, depth; /* slots a desk, records a worker */
    double answer;    /* seconds that an answer takes, smoothed */
    HubCounts counts;
};

/* Arenas. */
int desk_layout(Hub *h);
/* A desk for a new worker, or NULL: inline then. */
Desk *desk_lend(Hub *h);
/* The worker is dead, or has left: nobody writes into it any more. */
void desk_return(Desk *a);
/* The worker of this process was lost, but may live: its desk is not to be lent before it is dead, or begins anew. */
void desk_orphan(Desk *a, pid_t pid);
/* Return what lost workers had that are dead by now, or are this process. */
void desk_reclaim(Hub *h, pid_t pid);
/* NULL: none is free. */
Slot *desk_free_slot(Desk *a);
Slot *desk_take(Desk *a, uint64_t seq);
int desk_slot_number(const Slot *s);
void desk_free(Hub *h);
/* Describe a result that lies in a slot. */
int desk_describe(const Hub *h, const Slot *s, Message *m);

/* Workers. */
int worker_place(const HubWorker *w, uint64_t seq); /* in its queue, or -1 */
void worker_unqueue(HubWorker *w, int place);
/* writes: whether its process may still live and write into its desk. */
void worker_remove(Hub *h, HubWorker *w, bool writes);
void worker_lose(Hub *h, HubWorker *w, bool writes, const char *why);
/* It went, and a record it had may be to blame. */
void worker_crashed(Hub *h, HubWorker *w, const char *why);
void hub_look_for_deaths(Hub *h);
void hub_look_for_silence(Hub *h, double now);
/* Records. */
void hub_make_bad(Hub *h, Held *r, const char *why);
void hub_hand_out(Hub *h, double now);
/* Those whose answer is late go to others as well. */
void hub_hand_out_late(Hub *h, double now);

#endif
