/* The producing end of a stream: binds a socket, gives its ticket, hands records out on demand.
 *
 *     Source *s = source_open("records", "hssl-load", &o.stream);
 *     source_announce(s, STDOUT_FILENO);            ticket on standard output, which becomes the life line
 *     source_hello(s, &start);                      waits for the consumer
 *     source_welcome(s, &facts);
 *     while (...) { stream_wait(NULL, s, -1, -1); while (source_ready(s, seq)) source_send(s, &m); }
 *     source_end(s, seq);
 *     source_close(&s);
 *
 * A consumer asks for records (credit) and names a limit: sequence numbers that it takes at all. It
 * acknowledges a record when it has taken it over; until then the record is in this stage's custody.
 * A source belongs to one thread at a time. */
#ifndef HSSL_SOURCE_H
#define HSSL_SOURCE_H

#include "stream/message.h"
#include "stream/options.h"
#include "stream/ticket.h"

typedef struct Source Source;

/* program: the name to show to the other side. o: NULL for the defaults. Removes what dead processes left in the socket directory. */
Source *source_open(const char *kind, const char *program, const StreamOptions *o);
const char *source_ticket(const Source *s); /* the line with its newline */

/* Print the ticket on fd and watch it: a reader that closes its end has left. On a terminal also says on
 * standard error what the line is for; returns 1 then, else 0. */
int source_announce(Source *s, int fd);

/* Wait for a consumer's hello. Returns 1 with the record to start at, 0 when the reader of the ticket has
 * left before, -1 (ERR_STOP, ...). */
int source_hello(Source *s, uint64_t *start);

/* What the consumer that said hello last wishes of the stream: the facts of its hello whose names begin with
 * WISH_PREFIX, as it said them. They mean nothing here; a stage passes them on. */
const Message *source_wish(const Source *s);

/* Answer the hello: facts describe the stream (records_per_epoch, ...); m is empty afterwards. */
int source_welcome(Source *s, Message *m);
/* What it said of the stream. */
const Message *source_described(const Source *s);

/* Whether the consumer asks for record seq now. Reads what consumers have sent, never waits. */
bool source_ready(Source *s, uint64_t seq);
/* Whether the stream is over because nobody takes it: the consumer said bye or died, or the reader of the ticket
 * closed its pipe. With `stay` it never is. */
bool source_left(const Source *s);
/* Whether a consumer has begun anew since the last call, at record *start: what was handed out before is nobody's
 * any more. A consumer that lives keeps others out; one that has left or died is followed by the next. */
bool source_restarted(Source *s, uint64_t *start);
/* The consumer's limit; UINT64_MAX when it named none. */
uint64_t source_limit(const Source *s);

/* Hand over a record. Call only when source_ready(). m is empty afterwards. Tensors in shared memory go as they are
 * to a consumer that can map them, else their bytes are sent. */
int source_send(Source *s, Message *m);

/* For who can make any record at any time: the next one that a consumer asks for, and who is to get the next
 * source_send(). Each consumer gets all, from where it began up to total (then its end). With `fan_out` consumers
 * the stream is over when so many have left. */
bool source_next(Source *s, uint64_t total, uint64_t *seq);
/* The next sequence number that a consumer has taken over. false: none. */
bool source_acked(Source *s, uint64_t *seq);

/* Records handed out and not yet acknowledged. */
uint64_t source_pending(const Source *s);

/* Tell the consumer that seq is one past the last record. The tool then waits (stream_wait) until nothing is
 * pending or the consumer has left. */
int source_end(Source *s, uint64_t seq);
/* What a program says of itself where that was why: its consumer may be about to hear of the same signal. */
#define SOURCE_STOPPED "was stopped by a signal"
/* Tell the consumer why there will be no more. Does not wait. */
void source_fail(Source *s, const char *reason);
void source_close(Source **s);

#endif
