/* What holds a message's memory. Private to lib/stream. */
#ifndef HSSL_MESSAGE_INTERNAL_H
#define HSSL_MESSAGE_INTERNAL_H

#include "stream/message.h"
#include "stream/pack.h"

#include <zmq.h>

typedef struct MsgChunk {
    struct MsgChunk *next;
} MsgChunk;

/* Strings and arrays live in chunks that go away with the message; the first is part of this block, so that
 * an ordinary record costs one allocation and one a frame. */
struct MessageParts {
    MsgChunk *chunks;
    char *at, *end; /* free bytes of the newest chunk */
    int tensor_room, fact_room;
    zmq_msg_t *frame[MSG_MAX_TENSORS]; /* by tensor; NULL where shared, in a pack, or kept by the caller */
    zmq_msg_t *pack;                   /* the pack that tensors without a frame lie in, or NULL */
    _Alignas(16) char first[1600];
};

/* What a header says in place of TICKET_VERSION where a record has a reading: who does not know of readings
 * must not decode it, and programs that don't know this number say so. */
enum { MSG_READING_VERSION = 2 };

/* Append n bytes; a failure is kept in the buffer. */
void msg_buffer_put(MsgBuffer *b, const void *bytes, size_t n);
/* Append the header. -1 with ERR_MEMORY, or ERR_DATA when it is too long; what was written is to be cut off. */
int message_write(const Message *m, MsgBuffer *b);
/* message_parse() with the frames one behind the other. */
int message_parse_flat(const void *header, size_t n, const void *data, size_t size, Message *out);

/* size bytes, 16-byte aligned, from the message's chunks; NULL with ERR_MEMORY. */
void *message_alloc(Message *m, size_t size);
/* A copy of n bytes with a NUL behind; refuses more than MSG_MAX_TEXT. */
char *message_keep(Message *m, const char *text, size_t n);
/* Room for one more; zeroed; NULL at the limit. */
MsgTensor *message_new_tensor(Message *m, const char *name, size_t n);
MsgFact *message_new_fact(Message *m, const char *key, size_t n);
/* Check the shape and compute bytes. */
int message_shape(MsgTensor *t, MsgDtype dtype, int ndim, const int64_t *shape);

const char *message_type_name(MsgType t);

#endif
