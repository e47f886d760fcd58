#include "stream/link.h"

#include "stream/ends.h"
#include "stream/longwait.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINGER_MS = 1000 };

struct Link {
    void *socket;
    WireWatch watch;
    bool no_stop, life_gone, publishes, listens;
    LongWait unmet; /* of who listens */
    int life, listeners;
    uint64_t arrivals;
    char line[TICKET_MAX_LINE];
};

/* All of a model's parameters in one message, or in several that follow each other; what is larger than half of the
 * memory could not be used here. */
static int bound(void *socket)
{
    WireBounds b = wire_bounds(ZMQ_DEALER);
    b.frame = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / 2;
    b.unread = b.unread_all = b.unsent = b.frame;
    return wire_bound(socket, &b);
}

static Link *link_new(int type)
{
    Link *l = calloc(1, sizeof *l);
    if (!l) {
        err_set(ERR_MEMORY, "link: out of memory");
        return NULL;
    }
    l->life = -1;
    l->publishes = type == ZMQ_XPUB;
    if (!(l->socket = wire_socket(type)) || (type == ZMQ_DEALER && bound(l->socket)) || wire_watch(&l->watch, l->socket)) {
        link_close(&l);
        return NULL;
    }
    if (type == ZMQ_XPUB) {
        int each = 1; /* tell of each that comes and goes, not of the first and the last */
        zmq_setsockopt(l->socket, ZMQ_XPUB_VERBOSER, &each, sizeof each);
    }
    if (type == ZMQ_SUB)
        zmq_setsockopt(l->socket, ZMQ_SUBSCRIBE, "", 0);
    return l;
}

static Link *bound_link(int type, const char *kind)
{
    Ticket t = { 0 };
    Link *l = link_new(type);
    if (!l)
        return NULL;
    snprintf(t.kind, sizeof t.kind, "%s", kind);
    if (!wire_bind(l->socket, kind, NULL, &t) && ticket_format(&t, l->line, sizeof l->line) > 0)
        return l;
    link_close(&l);
    return NULL;
}

static Link *connected_link(int type, const Ticket *t)
{
    Link *l = link_new(type);
    if (l && wire_connect(l->socket, t))
        link_close(&l);
    if (l && ticket_format(t, l->line, sizeof l->line) < 0)
        link_close(&l);
    return l;
}

Link *link_listen(const char *kind)
{
    Link *l = bound_link(ZMQ_DEALER, kind);
    if (l)
        l->listens = true;
    return l;
}

Link *link_connect(const Ticket *t)
{
    return connected_link(ZMQ_DEALER, t);
}

Link *link_publish(const char *kind)
{
    return bound_link(ZMQ_XPUB, kind);
}

Link *link_subscribe(const Ticket *t)
{
    return connected_link(ZMQ_SUB, t);
}

const char *link_ticket(const Link *l)
{
    return l->line;
}

int link_listeners(Link *l)
{
    uint8_t frame[64];
    int n;
    /* All take the one topic "", and XPUB hears of each that begins or ends to. */
    while (l->publishes && (n = zmq_recv(l->socket, frame, sizeof frame, ZMQ_DONTWAIT)) > 0) {
        l->arrivals += frame[0] == 1;
        l->listeners += frame[0] == 1 ? 1 : l->listeners > 0 ? -1 : 0;
    }
    return l->listeners;
}

uint64_t link_arrivals(Link *l)
{
    link_listeners(l);
    return l->arrivals;
}

int link_send(Link *l, Message *m)
{
    if (l->publishes && !link_listeners(l)) {
        message_clear(m);
        return 0;
    }
    return wire_send(l->socket, NULL, m) < 0 ? -1 : 0;
}

static int peer_gone(Link *l)
{
    wire_watch_read(&l->watch);
    if (l->life >= 0 && !l->life_gone)
        l->life_gone = wire_writer_gone(l->life);
    if (!l->watch.lost && !l->life_gone)
        return 0;
    if (wire_has_mail(l->socket))
        return 0;
    return err_set(ERR_PEER, "the other end of the link has gone");
}

/* As long_wait(). */
static int say_unmet(Link *l)
{
    if (!l->listens || l->watch.connected)
        return -1;
    return long_wait(&l->unmet, "nobody has connected yet: waiting for whoever is to take this ticket");
}

int link_recv(Link *l, Message *m, int timeout_ms)
{
    double until = timeout_ms < 0 ? -1 : log_seconds() + 1e-3 * timeout_ms;
    for (;;) {
        zmq_pollitem_t items[4];
        int n = 0, wait = -1, rc = wire_recv(l->socket, NULL, m);
        if (rc)
            return rc;
        if (peer_gone(l))
            return -1;
        if (until >= 0) {
            double left = until - log_seconds();
            if (left <= 0)
                return 0;
            wait = (int)(left * 1000) + 1;
        }
        items[n++] = (zmq_pollitem_t){ .socket = l->socket, .events = ZMQ_POLLIN };
        items[n++] = (zmq_pollitem_t){ .socket = l->watch.events, .events = ZMQ_POLLIN };
        if (l->life >= 0)
            items[n++] = (zmq_pollitem_t){ .fd = l->life, .events = ZMQ_POLLIN };
        int say = say_unmet(l);
        if (say >= 0 && (wait < 0 || say < wait))
            wait = say;
        if (wire_poll(items, n, wait, !l->no_stop) < 0)
            return -1;
    }
}

void link_stops(Link *l, bool stops)
{
    l->no_stop = !stops;
}

void link_watch(Link *l, int fd)
{
    l->life = wire_is_pipe(fd) ? fd : -1;
    l->life_gone = false;
}

int link_fd(Link *l)
{
    int fd = -1;
    size_t size = sizeof fd;
    zmq_getsockopt(l->socket, ZMQ_FD, &fd, &size);
    return fd;
}

void link_close(Link **link)
{
    Link *l = *link;
    if (!l)
        return;
    wire_watch_read(&l->watch);
    bool alive = l->watch.connected && !l->watch.lost && !l->life_gone;
    if (l->socket)
        wire_watch_close(&l->watch, l->socket);
    wire_close(&l->socket, alive ? LINGER_MS : 0);
    free(l);
    *link = NULL;
}
