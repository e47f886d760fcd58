/* What we know of a socket beside ZeroMQ. Private to wire*.c. */
#ifndef HSSL_WIRE_STATE_H
#define HSSL_WIRE_STATE_H

#include "stream/gate.h"
#include "stream/pack.h"
#include "stream/wire.h"

#include <pthread.h>

/* Small records to one peer that have not been sent yet. */
typedef struct {
    WireId to;
    MsgBuffer bytes;
    double since; /* the first of them; seconds */
    bool gone;    /* the peer had gone when they were sent: its next record is to hear of it */
} WirePack;

typedef struct WireState {
    struct WireState *next;
    void *socket;
    int type;
    Gate *gate; /* NULL: nobody else is at the other end */
    uint64_t reading; /* the connection of the message at hand */
    bool broken; /* a send or a receive failed, perhaps inside a message: nothing makes sense after it */
    int ipc; /* paths of the socket directory that it holds */
    /* Sending. */
    pthread_t sender; /* the thread that gathered */
    int gathered;     /* packs that hold something */
    WirePack *pack;
    int packs, pack_room;
    double sent; /* the last small record; seconds */
    /* Receiving: the pack that is being handed out, in the thread that receives. */
    zmq_msg_t in;
    bool unpacking;
    size_t at;
    WireId from;
} WireState;

WireState *wire_state(void *socket);
/* Send all packs. */
void wire_packs_send(WireState *s);
/* The same, and free what they took. */
void wire_packs_end(WireState *s);
/* Whether a record can be read that is not on the socket any more. */
bool wire_unpacking(const WireState *s);

/* Record ZeroMQ's error; -1. */
int wire_error(const char *what);

#endif
