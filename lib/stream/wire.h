/* Messages over ZeroMQ sockets. Private to lib/stream: nothing else includes zmq.h. */
#ifndef HSSL_WIRE_H
#define HSSL_WIRE_H

#include "stream/message.h"

#include <stdbool.h>
#include <zmq.h>

enum { WIRE_MAX_ID = 64 };

typedef struct {
    size_t size;
    uint8_t bytes[WIRE_MAX_ID];
} WireId;

/* A socket of the process's one context, which lives as long as there is a socket. Queues are unbounded here:
 * credit bounds what is on its way. */
void *wire_socket(int type);
/* linger_ms: how long what is queued may still be sent. */
void wire_close(void **socket, int linger_ms);
/* Bind to a fresh ipc path of the process's socket directory; endpoint receives its name. sockdir_release() is
 * due after wire_close(). */
int wire_bind(void *socket, const char *name, char *endpoint, size_t size);

/* Send m as one multipart message; to: the peer, on a ROUTER. m is empty afterwards. Returns 1, 0 when the peer
 * has gone (ROUTER), -1. */
int wire_send(void *socket, const WireId *to, Message *m);
/* Receive without waiting. from: filled on a ROUTER, else NULL. Returns 1, 0 when there is nothing, -1 with
 * ERR_DATA for a message that could not be parsed (it is consumed; *from is valid) or ERR_SYSTEM. */
int wire_recv(void *socket, WireId *from, Message *m);

/* Connections seen on a socket. */
typedef struct {
    void *events; /* a PAIR socket to poll */
    bool connected, lost;
} WireWatch;

int wire_watch(WireWatch *w, void *socket);
/* Read what has happened since. */
void wire_watch_read(WireWatch *w);
void wire_watch_close(WireWatch *w, void *socket);

/* Pipes as life lines. */
bool wire_reader_gone(int fd);    /* the writing end of a pipe whose reader has closed */
/* Discards what the pipe holds; true at its end of file. A file or a terminal never ends: false. */
bool wire_writer_gone(int fd);
bool wire_is_pipe(int fd);

/* zmq_poll that looks at the stop flag: returns its result, or -1 with ERR_STOP (unless !stops) or ERR_SYSTEM.
 * items[n] must be free: it is used for the stop descriptor. */
int wire_poll(zmq_pollitem_t *items, int n, int timeout_ms, bool stops);

#endif
