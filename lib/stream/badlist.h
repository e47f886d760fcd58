/* The bad records of a batch, with their encoded images, until the caller takes the batch. Private to
 * lib/stream. */
#ifndef HSSL_BADLIST_H
#define HSSL_BADLIST_H

#include "stream/batch.h"

enum {
    BADLIST_IMAGE = 16 << 20, /* bytes of an image that are kept; of a larger one */
    BADLIST_HEAD = 4096,      /* just the head */
    BADLIST_TEXT = 4096       /* bytes of a name or a reason */
};

typedef struct {
    BadRecord *item;
    size_t n, room;
    size_t bytes; /* kept of their images, all together */
} BadList;

/* Copy what is to be known of a bad record. room: bytes that may be kept; an image that is larger is cut to
 * its head. 0, or -1 with ERR_MEMORY. */
int badlist_add(BadList *l, const Message *m, size_t room) __attribute__((warn_unused_result));
/* In the order of seq. */
void badlist_sort(BadList *l);
void badlist_clear(BadList *l);

#endif
