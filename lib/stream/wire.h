/* Messages over ZeroMQ sockets. Private to lib/stream: nothing else includes zmq.h. */
#ifndef HSSL_WIRE_H
#define HSSL_WIRE_H

#include "stream/message.h"
#include "stream/ticket.h"

#include <stdbool.h>
#include <zmq.h>

enum { WIRE_MAX_ID = 64 };

typedef struct {
    size_t size;
    uint8_t bytes[WIRE_MAX_ID];
    uint64_t connection; /* that it said this by, see stream/gate.h; 0: not known */
} WireId;

/* What a socket's peers can make a process set aside at most. Bytes are those of frames, each with GATE_FRAME more;
 * frames of a message that is not whole yet count. A peer that goes beyond is cut off, with a word in the log. */
typedef struct {
    int64_t frame;              /* a peer that announces a larger one is cut off before memory is taken */
    int queue;                  /* whole messages of one peer that wait to be read: then it has to wait */
    int64_t unread, unread_all; /* what came and was not read: of one peer, of all together */
    int64_t unsent;             /* what waits to be sent to one, beside the largest message that it was given */
    int peers;                  /* connections at once; beyond, the oldest goes that is not kept: wire_keep() */
} WireBounds;

enum {
    WIRE_CONTROL_BYTES = 128 << 10, /* what a frame from consumer to producer may hold at most */
    WIRE_UNSENT_WORDS = 64 << 20,   /* what a consumer has to say, and its producer does not read */
    WIRE_UNSENT_RECORDS = 32 << 20  /* a producer gives no more records to a peer for which so much waits */
};

/* A socket of the process's one context, which lives as long as there is a socket. Its bounds are those of
 * wire_bounds(). */
void *wire_socket(int type);
/* Those of control messages on a ROUTER, of subscriptions on an XPUB, of records elsewhere: see wire.c. */
WireBounds wire_bounds(int type);
/* Others. All but `unread` and `unsent` are for connections to come: before bind or connect. */
int wire_bound(void *socket, const WireBounds *b);
/* A peer of a ROUTER that is wanted: strangers do not push it out. */
void wire_keep(void *socket, const WireId *peer, bool keep);
/* End its connection. */
void wire_cut(void *socket, const WireId *peer);
/* Bytes that wait to be sent to it, and for how many seconds it has taken none of them. */
int64_t wire_unsent(void *socket, const WireId *peer, double *idle);
/* linger_ms: how long what is queued may still be sent. Also removes the ipc endpoint it was bound to. */
void wire_close(void **socket, int linger_ms);
/* For programs that do little but pass records on: what a message took stays with the process for the next one.
 * Else the allocator gives pages back and gets them zeroed again, record by record, which costs more than copying
 * them. Before the first message. */
void wire_keep_memory(void);

/* Bind, and fill in t: endpoint, and the keys where there are any; t->kind is the caller's. listen NULL: a
 * fresh ipc path of the process's socket directory, named after name. Else tcp with keys of its own, in the
 * form [HOST:]PORT: loopback unless HOST is given, an IPv6 address in brackets, port 0 for any that is free;
 * for a HOST of 0.0.0.0, * or [::] the ticket names an address of this machine. A socket may be bound twice:
 * first to ipc, then to tcp. ERR_USAGE: listen is wrong. */
int wire_bind(void *socket, const char *name, const char *listen, Ticket *t);
/* Connect to a ticket's endpoint, with its keys on tcp. ERR_DATA: a ticket without them; ERR_PEER: also an ipc socket of
 * another user. */
int wire_connect(void *socket, const Ticket *t);

/* Send m as one multipart message; to: the peer, on a ROUTER. m is empty afterwards. Never waits. Returns 1, 0 when
 * the peer has gone, or lets more than its bound wait (ROUTER), -1; ERR_PEER: it lets more than its bound wait. */
int wire_send(void *socket, const WireId *to, Message *m);
/* Receive without waiting. from: filled on a ROUTER, else NULL. Returns 1, 0 when there is nothing, -1 with
 * ERR_DATA for a message that could not be parsed (it is consumed; *from is valid) or ERR_SYSTEM. */
int wire_recv(void *socket, WireId *from, Message *m);

/* Whether a call on the socket has failed as none should, perhaps inside a message: then -1 with the error, as from
 * all that is called with it afterwards. */
int wire_broken(void *socket);

/* Small records to a peer are gathered into packs (stream/pack.h) while they follow each other quickly.
 * wire_poll() sends what its thread has gathered, on all sockets; a thread that does something else for long
 * calls this. */
void wire_flush(void *socket);
/* Whether wire_recv() would have something: not all of it shows in ZMQ_EVENTS. wire_poll() knows. */
bool wire_has_mail(void *socket);

/* Connections seen on a socket. */
typedef struct {
    void *events;   /* a PAIR socket to poll */
    bool connected; /* and let in */
    bool lost;      /* after it was connected */
    bool unmet;     /* never connected: nobody listens there, so far */
    bool refused;   /* the producer knows no such key: the ticket is not of this run */
} WireWatch;

int wire_watch(WireWatch *w, void *socket);
/* Read what has happened since. */
void wire_watch_read(WireWatch *w);
void wire_watch_close(WireWatch *w, void *socket);

/* Pipes as life lines. */
bool wire_reader_gone(int fd); /* the writing end of a pipe whose reader has closed */
/* Discards what the pipe holds; true at its end of file. A file or a terminal never ends: false. */
bool wire_writer_gone(int fd);
bool wire_is_pipe(int fd);

/* zmq_poll that looks at the stop flag: returns its result, or -1 with ERR_STOP (unless !stops) or
 * ERR_SYSTEM. items[n] must be free: it is used for the stop descriptor. */
int wire_poll(zmq_pollitem_t *items, int n, int timeout_ms, bool stops);

#endif
