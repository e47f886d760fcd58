/* What stream_wait() needs of a sink and a source. Private to lib/stream. */
#ifndef HSSL_ENDS_H
#define HSSL_ENDS_H

#include "stream/hub.h"
#include "stream/sink.h"
#include "stream/source.h"
#include "stream/wire.h"

enum { END_ITEMS = 4 };

/* Fill up to END_ITEMS poll items; returns how many. */
int sink_items(Sink *s, zmq_pollitem_t *items);
int source_items(Source *s, zmq_pollitem_t *items);
int hub_items(Hub *h, zmq_pollitem_t *items);
/* Look at what happened. sink: -1 with ERR_PEER when the producer is gone and all it sent has been read. */
int sink_look(Sink *s);
void source_look(Source *s);
/* Whether all has come that the limit allows: what waits now waits for the consumer. */
bool sink_sated(const Sink *s);
/* Whether the record that was offered last waits for the consumer to ask for it. */
bool source_blocked(const Source *s);
/* Whether all workers have something to do. */
bool hub_busy(const Hub *h);
int hub_look(Hub *h); /* -1: workers cannot be kept at work */
/* Milliseconds after which sink_look() should be called even if nothing happens, or -1. */
int sink_patience(Sink *s);
int source_patience(const Source *s);
int hub_patience(Hub *h);

#endif
