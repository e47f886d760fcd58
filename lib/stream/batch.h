/* Batches from a stream of views: in sequence order whatever the order of arrival, each record once.
 *
 *     Batches *b = batches_open(&ticket, &(BatchesConfig){ .program = "hssl-train", .batch_size = 64,
 *                               .start = position, .life = STDIN_FILENO });
 *     const BatchShape *shape = batches_shape(b);           after the producer's welcome
 *     while ((batch = batches_next(b))) { ... batches_release(b, batch); }
 *     if (!batches_ended(b)) error
 *     batches_close(&b);
 *
 * A thread of its own receives and lays out the next batches while the caller works; memory is bounded by
 * `slots` batches. An epoch has S = floor(N / B) batches; the N - S*B last records of its order are dropped.
 * A bad record is replaced by the good one before it in its batch, or, where none is before it, by the next
 * good one, so that the same bits come out again. The caller hears of each bad image once, in the order of the
 * batches and not of arrival, so that also giving up happens at the same batch each time. */
#ifndef HSSL_BATCH_H
#define HSSL_BATCH_H

#include <stdbool.h>
#include <stdint.h>

/* Records of an epoch, at most: positions of a million epochs then fit. */
#define BATCH_MOST_RECORDS (INT64_C(1) << 40)

#include "stream/message.h"
#include "stream/shm.h"
#include "stream/ticket.h"

typedef struct Batches Batches;

/* A bad image as a stream of views brings it. Everything is borrowed for the call. */
typedef struct {
    uint64_t id, seq, epoch;
    int32_t label;          /* -1: none */
    const char *name, *why; /* name: "" where unknown */
    uint64_t size;          /* bytes of the encoded image; 0 where it did not come along */
    uint64_t checksum;      /* XXH3-64 of all of them */
    const void *bytes;      /* the first `kept` of them: all, or the head of a very large one */
    size_t kept;
} BadRecord;

typedef struct {
    const char *program;
    int64_t batch_size;
    uint64_t records; /* of an epoch that start counts by; 0: whatever the stream has */
    uint64_t start;  /* sequence number of the first record, from batches_position() of a checkpoint; 0: the beginning */
    int slots;       /* batches in memory, the caller's included; 0: 3 */
    int life;        /* descriptor of the life line, -1: none */
    const Message *wish; /* see SinkConfig; read by batches_open() */
    /* Called by batches_next() with the bad images that the batch is the first to have, in the order of seq, and that
     * are not among `known` (read by batches_open()). A result below 0 makes batches_next() fail. NULL: nobody. */
    int (*bad)(void *arg, const BadRecord *list, size_t n);
    void *arg;
    const uint64_t *known;
    size_t n_known;
} BatchesConfig;

typedef struct {
    int64_t batch_size;            /* B */
    uint64_t records_per_epoch;    /* N */
    uint64_t batches_per_epoch;    /* S */
    int globals, global_size;      /* G views of S x S */
    int locals, local_size;        /* L views of s x s; 0, 0: none */
    size_t global_bytes, local_bytes;
} BatchShape;

typedef struct {
    uint64_t number;     /* epoch * S + batch of the epoch: the training step */
    uint64_t epoch;
    uint64_t next;       /* position after this batch: `start` of a run that resumes behind it */
    const uint64_t *seq; /* [B] */
    const uint64_t *id;  /* [B] image of each record, of the replacement where it was bad */
    const int32_t *label; /* [B] */
    int bad;             /* how many were replaced */
    /* View-major: all images' view 0, then view 1, ... 8-bit RGB, not normalised. */
    uint8_t *global;     /* [G][B][S][S][3] */
    uint8_t *local;      /* [L][B][s][s][3], NULL when there are none */
    size_t offset_global, offset_local; /* in batches_block() */
    int slot;
} Batch;

/* Connects and starts to receive; waits for nothing. NULL with ERR_USAGE (a batch of none, a start
 * over INT64_MAX), ERR_PEER, ERR_MEMORY or ERR_SYSTEM. */
Batches *batches_open(const Ticket *t, const BatchesConfig *c);
/* Wait for the producer's welcome and return the shape, or NULL. */
const BatchShape *batches_shape(Batches *b);
/* What the producer said of the stream (recipe, dataset, seed): valid after batches_shape(). */
const Message *batches_welcome(Batches *b);
/* The memory that holds all slots, for a peer to map (message_add_shared), or NULL when it cannot be shared. */
const ShmBlock *batches_block(Batches *b);

/* The next batch, waiting for it; NULL at the end of the stream (batches_ended) or with ERR_PEER, ERR_STOP
 * (a signal: util/stop.h), ERR_DATA (a batch without a good image), or what the callback `bad` said. */
Batch *batches_next(Batches *b);
bool batches_ended(const Batches *b);
/* What batches_next() would give at once, to read ahead from; NULL where it would wait. */
const Batch *batches_peek(Batches *b);
/* The caller has done with the batch (and so has everybody it shared it with). In any order. */
void batches_release(Batches *b, Batch *batch);

/* So far: distinct bad images, the known ones included; seconds that batches_next() has waited. */
int64_t batches_bad(Batches *b);
double batches_waited(Batches *b);

void batches_close(Batches **b);

#endif
