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
    HUB_SLOTS = 64,      /* most slots of a desk */
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
    int slots;
    bool lent; /* a worker may write into it */
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
Slot *desk_take(Desk *a, uint64_t seq);
int desk_slot_number(const Slot *s);
void desk_free(Hub *h);
/* Describe a result that lies in a slot. */
int desk_describe(const Hub *h, const Slot *s, Message *m);

#endif
