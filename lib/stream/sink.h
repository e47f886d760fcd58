/* The consuming end of a stream.
 *
 *     Ticket t;  ticket_read(STDIN_FILENO, "views", &t);
 *     Sink *s = sink_open(&t, &(SinkConfig){ .program = "hssl-train", .kinds = "views", .credit = 64,
 *                                            .limit = UINT64_MAX, .life = STDIN_FILENO });
 *     sink_welcome(s)                                      what the stream holds
 *     while (sink_next(s, &m, -1) == 1) { ... sink_ack(s, m.seq); message_clear(&m); }
 *     sink_close(&s);
 *
 * A sink belongs to one thread at a time. */
#ifndef HSSL_SINK_H
#define HSSL_SINK_H

#include "stream/message.h"
#include "stream/ticket.h"

typedef struct Sink Sink;

typedef struct {
    const char *program; /* who I am, e.g. "hssl-train" */
    const char *kinds;   /* "records|plans" */
    uint64_t start;      /* sequence number of the first record wanted */
    uint64_t credit;     /* records that may be on their way or unacknowledged; at least 1 */
    uint64_t limit;      /* see sink_limit() */
    int64_t memory;      /* bytes of records that may be on their way or unacknowledged, as far as their size can be
                          * foreseen; one record always may. 0: as many as the credit says */
    int life;            /* descriptor of the life line (standard input), -1: none */
    const Message *wish; /* facts to say with hello, see source_wish(): copied; NULL: none */
} SinkConfig;

Sink *sink_open(const Ticket *t, const SinkConfig *c);

/* Wait for the producer's description of the stream. NULL with ERR_PEER, ERR_STOP. Lives as long as the sink. */
const Message *sink_welcome(Sink *s);

/* So many bytes may be on their way, which --memory does not say: for who learns it from the description. */
int sink_memory(Sink *s, int64_t bytes);
/* Begin anew at another record, with another wish. What was under way is dropped, and need not be
 * acknowledged. */
int sink_restart(Sink *s, uint64_t start, uint64_t limit, const Message *wish);

/* The next record, waiting up to timeout_ms (-1: for ever). Returns 1, 0 when the time is up, -1. After the last
 * record it returns -1 with sink_ended() true. Errors: ERR_PEER the producer died or gave up, ERR_STOP a signal,
 * ERR_DATA a message that cannot be parsed. Shared tensors are mapped: their data is valid until the record is
 * acknowledged. */
int sink_next(Sink *s, Message *m, int timeout_ms);
bool sink_ended(const Sink *s);
/* After the end: one past the sequence number of the last record. */
uint64_t sink_last(const Sink *s);

/* I have taken record seq over: the producer may forget it, and sends one more. */
void sink_ack(Sink *s, uint64_t seq);
/* I take records with seq < limit (it only grows). A consumer that puts records in order raises the limit as its
 * window moves on; so the window is bounded and never filled up by late records while an early one is missing. */
void sink_limit(Sink *s, uint64_t limit);
/* Send pending acknowledgements now; sink_next() does so before it waits. */
void sink_flush(Sink *s);

/* Says bye. */
void sink_close(Sink **s);

#endif
