/* What waits at a socket's connections, counted and bounded. Private to wire*.c.
 *
 * ZeroMQ bounds a frame (ZMQ_MAXMSGSIZE) and how many whole messages wait (high-water marks), but not how many
 * frames one message has, nor what all that is worth in bytes: whoever sends frame after frame of one message
 * fills the memory, and so does whoever asks for much and reads nothing. So the calls by which ZeroMQ's thread
 * accepts, connects, receives, sends and closes are taken over here (all other threads' pass through at once).
 * They follow the framing of ZMTP 3, in which each frame says its length first:
 *
 *     unread of a connection = frames announced to us - frames that the program has read
 *     unsent of a connection = frames given to ZeroMQ - frames that the system has taken
 *
 * A frame weighs its bytes and GATE_FRAME. A connection over its bound is ended; nothing is ever dropped out of one
 * that goes on. A peer of another user is turned away whatever it knows: over ipc the system says who it is.
 *
 * Where a ZeroMQ gets around the calls, nothing is counted, and the tests that besiege a stream fail. */
#ifndef HSSL_GATE_H
#define HSSL_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a frame costs beside its bytes: ZeroMQ's own 64, and the allocator's. */
enum { GATE_FRAME = 128 };

typedef struct {
    int64_t unread, unread_all; /* of one connection, of all; bytes */
    int64_t unsent;             /* of one connection, beside the largest message that it was given */
    int connections;            /* at once; a new one pushes the oldest out that nobody has kept */
    bool deaf;                  /* what comes is for ZeroMQ itself: all counts, and for as long as the connection is */
} GateRule;

typedef struct Gate Gate;

/* NULL: ERR_MEMORY. */
Gate *gate_open(const GateRule *r);
void gate_rule(Gate *g, const GateRule *r);
/* Its connections may live on for a while, and are counted to their end. */
void gate_close(Gate **g);

/* zmq_bind() and zmq_connect(): what connects to, or from, this endpoint is counted here. They return as those do. */
int gate_bind(Gate *g, void *socket, const char *endpoint);
int gate_connect(Gate *g, void *socket, const char *endpoint);

/* The connection that has the descriptor now, a number that is not used again; 0: not known. */
uint64_t gate_connection(const Gate *g, int fd);
/* A frame of n bytes was read. */
void gate_read(Gate *g, uint64_t connection, size_t n);
/* Nothing is left to be read now. */
void gate_drained(Gate *g);
/* A message is given to ZeroMQ: n bytes of one frame, with GATE_FRAME more for each further one; connection 0: on a
 * socket with one peer. Returns whether there was room: else it is not to be sent, and the connection has been ended. */
bool gate_give(Gate *g, uint64_t connection, size_t n);
/* What waits to be sent, and since when (seconds) the peer has taken nothing of it. */
int64_t gate_unsent(Gate *g, uint64_t connection, double *idle);
/* Somebody we know: not to be pushed out by those who come. */
void gate_keep(Gate *g, uint64_t connection, bool keep);
void gate_cut(Gate *g, uint64_t connection);

#endif
