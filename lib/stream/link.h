/* A link: two processes that exchange messages in both directions, in order (student and teacher).
 *
 *     teacher:  Link *l = link_listen("teacher");  fputs(link_ticket(l), stdout); ... link_recv(l, &m, -1)
 *     student:  Link *l = link_connect(&ticket);   link_send(l, &m); link_recv(l, &answer, timeout)
 *
 * One peer a link. A link belongs to one thread at a time. */
#ifndef HSSL_LINK_H
#define HSSL_LINK_H

#include "stream/message.h"
#include "stream/ticket.h"

typedef struct Link Link;

/* Bind an ipc socket of a ticket of this kind. */
Link *link_listen(const char *kind);
Link *link_connect(const Ticket *t);
/* The ticket's line with its newline; lives as long as the link. */
const char *link_ticket(const Link *l);

/* One to many, one way: a teacher that publishes to whoever watches. Sending never waits: a watcher that is slow
 * misses messages, and without watchers nothing is sent. */
Link *link_publish(const char *kind);
Link *link_subscribe(const Ticket *t);
/* How many watch a link_publish(); worth asking before a message is made. */
int link_listeners(Link *l);
/* How many have come so far. */
uint64_t link_arrivals(Link *l);

/* Send m, which is empty afterwards (also on failure). Does not wait for the peer: it queues. */
int link_send(Link *l, Message *m);

/* Wait up to timeout_ms (-1: for ever, 0: look) for a message. Returns 1 with a message, 0 when the time is up,
 * -1: ERR_PEER when the peer has gone (its process ended, or the watched descriptor came to its end) and
 * everything it sent has been read; ERR_STOP when a signal asks to stop (util/stop.h); ERR_DATA. */
int link_recv(Link *l, Message *m, int timeout_ms);

/* Whether a signal makes link_recv return ERR_STOP (default true). A trainer that finishes its step after a
 * signal switches it off. */
void link_stops(Link *l, bool stops);

/* Also watch a pipe as the peer's life line (a child's standard output, one's own standard input): its end of
 * file means that the peer died. -1: none. Data that arrives on it is ignored. */
void link_watch(Link *l, int fd);

/* Becomes readable when link_recv() may have something to say: call it with timeout 0 until it returns 0.
 * Edge-triggered as ZMQ_FD is. */
int link_fd(Link *l);

void link_close(Link **l);

#endif
