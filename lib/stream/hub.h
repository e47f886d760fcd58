/* A hub: hands records to workers on demand, keeps them until their results have been taken over, and so loses
 * nothing when workers are killed, stopped, cut off or slow; see hssl-stream(7).
 *
 *     Hub *h = hub_open(&(HubConfig){ .program = "hssl-augment", .results = 2, .result = { ... } });
 *     hub_welcome(h, &facts);                 what workers are told
 *     hub_employ(h, argv, 4);                 keep four child processes at work
 *     while (...) {
 *         while (<there is input> && hub_room(h)) hub_put(h, &record);
 *         while (hub_take(h, &m)) <pass m on>;
 *         <wait: hub_items(), hub_patience()>;  hub_look(h);
 *         hub_acked(h, seq)                   for what the consumer has taken over
 *     }
 *     hub_close(&h);
 *
 * A record goes to the worker with the least to do. When a worker dies, what it held goes to others at once; when
 * an answer takes long, the record goes to another worker as well, and the first answer counts. A record that was
 * at a worker that crashed is handed out alone from then on; when the third worker crashes, with no other record, it
 * is a bad one.
 *
 * A worker on this host renders straight into shared memory that belongs to the hub (medium shm), and the results
 * name it; others send results inline. A part of that memory is not used anew before the worker has answered or
 * is known to be dead. A hub belongs to one thread. */
#ifndef HSSL_HUB_H
#define HSSL_HUB_H

#include "stream/message.h"

typedef struct Hub Hub;

enum { HUB_MAX_RESULTS = 4, HUB_MAX_WORKERS = 256 };

/* One tensor of a result. */
typedef struct {
    const char *name;
    int ndim;
    int64_t shape[MSG_MAX_RANK]; /* u8 */
} HubResult;

typedef struct {
    const char *program;
    const char *listen; /* [HOST:]PORT: serve workers over tcp as well; NULL: this host only */
    const char *medium; /* "auto", "shm", "inline" */
    int64_t memory;     /* bytes of records, and of results that came inline, from which on there is no room; 0: any */
    /* Seconds: an answer is late at the earliest after `late`; a worker that says nothing for `silent` gets no more.
     * 0: 2 and 10. */
    double late, silent;
    int results;        /* tensors of a result */
    HubResult result[HUB_MAX_RESULTS];
} HubConfig;

Hub *hub_open(const HubConfig *c);
/* The ticket that a worker needs: its line with the newline. It serves workers on this host; with `listen`, on any. */
const char *hub_ticket(const Hub *h);
/* What to tell workers about the stream. m is empty afterwards. */
int hub_welcome(Hub *h, Message *m);
/* Keep n child processes at work; see crew_start(). */
int hub_employ(Hub *h, const char *const argv[], int n);

/* Whether another record may be put: enough for every worker to have something to do. */
bool hub_room(const Hub *h);
/* Take a record into custody. m is empty afterwards. */
int hub_put(Hub *h, Message *m);
/* A result to pass on. Its tensors are in the hub's shared memory, or inline; they are valid until hub_acked(). A
 * bad record comes with `bad` and the tensors that it came with. */
bool hub_take(Hub *h, Message *m);
/* The consumer has taken record seq over. false: it was not given this record, or had said so before. */
bool hub_acked(Hub *h, uint64_t seq);
/* Whether all that came has been taken with hub_take(). */
bool hub_idle(const Hub *h);
/* Forget all records: the stream starts anew. */
void hub_restart(Hub *h);

/* So far. */
typedef struct {
    int workers;          /* at work now */
    long joined, lost;    /* workers that said hello; that died, or fell silent */
    long restarts;        /* children started in place of others */
    long again;           /* records handed out once more */
    long duplicates;      /* answers that came second */
} HubCounts;
HubCounts hub_counts(const Hub *h);

/* Tell the workers that there is no more work; who ends is not replaced. */
void hub_end(Hub *h);
void hub_close(Hub **h);

#endif
