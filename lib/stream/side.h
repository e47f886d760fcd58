/* A source's side channel: what it hands out, published for whoever looks on (hssl-tap --attach). Watching
 * changes nothing: nothing is sent while nobody watches, and a watcher that is slow misses records. Private to
 * lib/stream.
 *
 * The endpoint is in the gauges (GAUGE_TAP). Messages: the stream's welcome when a watcher comes, then records as
 * they are handed out, their tensors inline, and the end. */
#ifndef HSSL_SIDE_H
#define HSSL_SIDE_H

#include "stream/message.h"

typedef struct Side Side;

/* NULL where there can be none: a stream works without. All functions take NULL. */
Side *side_open(void);
/* Publish a copy of m, before the source takes it. welcome: what to tell a watcher that is new. */
void side_show(Side *s, const Message *m, const Message *welcome);
void side_close(Side **s);

#endif
