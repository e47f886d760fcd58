/* Memory that a trainer and its teacher both work on, each on a device of its own: weights, targets, views.
 *
 * One process owns an area, the other maps it. What lies between them is a medium: the device's own memory, lent
 * (ipc); a block of shared memory on the host (shm), which is the area itself where the device is the processor and
 * else its copy; or the bytes of messages (inline). The bits are the same whichever it is.
 *
 * Functions that return int give 0, or -1 with an error. */
#ifndef HSSL_TRAIN_AREA_H
#define HSSL_TRAIN_AREA_H

#include "stream/message.h"
#include "stream/shm.h"
#include "tensor/backend.h"

typedef enum { MEDIUM_INLINE, MEDIUM_SHM, MEDIUM_IPC } Medium; /* the better the higher */

const char *medium_name(Medium m); /* "inline", "shm", "ipc" */
int medium_find(const char *name, Medium *m);

typedef struct {
    Backend *be;
    size_t bytes;
    void *device;    /* where this process works on it, memory of `be` */
    void *host;      /* its bytes for the other process; `device` itself where the host reaches that; NULL over ipc */
    ShmBlock *block; /* that holds `host`, where it is shared */
    bool own_device, own_host, borrowed, pinned;
} Area;

/* The owner's end. Memory of the device, which can be shared where `share`, zeroed. */
int area_new(Area *a, Backend *be, size_t bytes, bool share);
/* Get ready for a medium: -1 where it is not to be had. */
int area_prepare(Area *a, Medium m);
/* Tell the other process where it is, over ipc or shm, as `name`; nothing for inline. As float32 [bytes / 4]. */
int area_announce(const Area *a, Medium m, Message *out, const char *name);

/* The other end: find it by what was announced. `writable` says whether this end writes. Inline: memory of its own. */
int area_open(Area *a, Backend *be, size_t bytes, Medium m, const Message *in, const char *name, bool writable);

/* Bring what the host's side holds to the device, or the device's work to the host's side, and wait for that. Nothing
 * where the two are one, and over ipc. */
int area_up(Area *a);
int area_down(Area *a);

void area_close(Area *a);

#endif
