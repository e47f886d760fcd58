/* What every program in the middle of a pipeline does: read a ticket, give a ticket, wait for the consumer, pass
 * its start upstream, pass acknowledgements and limits upstream while records flow down.
 *
 *     Stage st;
 *     switch (stage_open(&st, "hssl-multicrop", "records", "plans", 128, false, &o)) ...
 *     source_welcome(st.out, &facts);
 *     while (!st.left) {
 *         while (<room> && sink_next(st.in, &m, 0) == 1) ...
 *         while (<have one> && source_ready(st.out, seq)) source_send(st.out, &m);
 *         st.full = <no room>;
 *         stage_wait(&st, -1, -1);
 *         if (st.restarted) <drop the one that waits>, st.restarted = false;
 *     }
 *     stage_close(&st);
 */
#ifndef HSSL_STAGE_H
#define HSSL_STAGE_H

#include "stream/hub.h"
#include "stream/sink.h"
#include "stream/source.h"

/* Wait until one of the ends has something to say, fd (-1: none) is readable, or timeout_ms is over (-1: never).
 * in, out: either may be NULL. Returns 1, 0 when the time is up, -1 with ERR_STOP after a signal, or ERR_PEER when
 * the producer of `in` has died. A consumer that left shows in source_left(). */
int stream_wait(Sink *in, Source *out, int fd, int timeout_ms);

typedef struct {
    Sink *in;
    Source *out;
    uint64_t start;
    bool full; /* set by the tool: it cannot take more now, so input must not end the wait */
    bool left; /* the consumer has gone: stop */
    bool restarted; /* the consumer began anew, and so did the input: drop what you hold, and reset this */
    Hub *hub;  /* of a stage whose work others do, or NULL: it is waited for, looked after and told what was
                * taken over; closed with the stage */
} Stage;

/* takes: kinds such as "records|plans"; gives: the kind of the output, or NULL to give what comes in. credit: records
 * that this stage holds at most, or fewer for the sake of o->memory. With alone true the stage ends the pipeline: no source is opened. o: the source's
 * options, or NULL.
 * Returns 1, 0 when the consumer left before it said hello (end quietly), -1. */
int stage_open(Stage *st, const char *program, const char *takes, const char *gives, uint64_t credit,
               bool alone, const StreamOptions *o);
/* stream_wait() on both ends, then passes acknowledgements and the limit upstream. */
int stage_wait(Stage *st, int fd, int timeout_ms);
/* Everything has been sent: pass the end on and wait until the consumer has left, 0; 1 when it, or the next one,
 * begins anew (restarted); -1. */
int stage_end(Stage *st, uint64_t seq);
/* Tell the consumer that this program gives up, with the recorded error as the reason. */
void stage_fail(Stage *st, const char *program);
void stage_close(Stage *st);

/* The exit status that fits the recorded error: 2 for ERR_USAGE, 128 plus its number after a signal, else 1. */
int stream_status(void);

#endif
