/* The worker's side of a hub (stream/hub.h): takes records, gives results.
 *
 *     Worker *w = worker_open(&ticket, &(WorkerConfig){ .program = "hssl-augment", .life = STDIN_FILENO });
 *     const Message *facts = worker_welcome(w);
 *     worker_results(w, n, results);                  what a result consists of
 *     while ((rc = worker_next(w, &task)) == 1) { <render task.record into task.out[]>; worker_answer(w, &task, bad); }
 *     worker_close(&w);
 *
 * A worker that loses its hub tries to find it again for a while; what it had is done by others meanwhile. */
#ifndef HSSL_WORKER_H
#define HSSL_WORKER_H

#include "stream/hub.h"
#include "stream/message.h"
#include "stream/ticket.h"

typedef struct Worker Worker;

typedef struct {
    const char *program;
    const char *medium; /* "auto", "shm", "inline" */
    int life;           /* descriptor of the life line, -1: none */
    double patience;    /* seconds to look for a hub that does not answer */
} WorkerConfig;

typedef struct {
    Message record;
    uint8_t *out[HUB_MAX_RESULTS]; /* where each tensor of the result is to be written */
    int64_t slot;                  /* in shared memory, or -1: out lies in answer */
    Message answer;
} WorkerTask;

Worker *worker_open(const Ticket *t, const WorkerConfig *c);
/* Wait for the hub's description of the stream; lives as long as the worker. NULL with ERR_PEER, ERR_STOP. */
const Message *worker_welcome(Worker *w);
/* From now on records may come. */
int worker_results(Worker *w, int n, const HubResult *result);
/* The next record. 1; 0 when there is no more work; -1: ERR_PEER, ERR_STOP, ERR_MEMORY. */
int worker_next(Worker *w, WorkerTask *t);
/* Give the result back, or say why there is none (bad). The task is empty afterwards. */
int worker_answer(Worker *w, WorkerTask *t, const char *bad);
/* Give up: tell the hub why. */
void worker_fail(Worker *w, const char *reason);
void worker_close(Worker **w);

#endif
