/* Packs: many small records in one ZeroMQ message of one frame; see hssl-stream(7). Private to lib/stream.
 *
 * A 32-pixel record of two views is 6 KB: sent alone it costs more in system calls and bookkeeping than in
 * bytes. Only inline tensors travel so; they lie in the pack one behind the other and are not aligned. */
#ifndef HSSL_PACK_H
#define HSSL_PACK_H

#include "stream/message.h"

enum {
    PACK_RECORD = 32 << 10, /* a record with more bytes of tensors goes alone */
    PACK_BYTES = 128 << 10  /* a pack of so many bytes is full */
};

/* Bytes that grow. */
typedef struct {
    char *data; /* malloc'd */
    size_t size, room;
    bool failed; /* out of memory; what was written since is lost */
} MsgBuffer;

/* Whether the message may travel in a pack. */
bool pack_takes(const Message *m);
/* Append m, which may be of any size. On failure the pack is as before: -1 with ERR_MEMORY, ERR_DATA. */
int pack_append(MsgBuffer *pack, const Message *m);

/* Whether a frame is a pack; no header begins like one. */
bool pack_is(const void *bytes, size_t n);
/* The record at *at (0: the first), which moves on. Tensor data points into bytes. Returns 1, 0 at the end,
 * or -1 with ERR_DATA: the rest of the pack is spoilt. */
int pack_next(const void *bytes, size_t n, size_t *at, Message *out);

#endif
