#include "stream/source.h"

#include "stream/ends.h"
#include "stream/message_internal.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PEERS = 64, LINGER_MS = 500 };

typedef struct {
    WireId id;
    uint64_t credit, limit;
    bool welcomed;
} Peer;

struct Source {
    void *socket;
    Ticket ticket;
    char line[TICKET_MAX_LINE], program[32];
    int life;       /* the ticket's way out, when it is a pipe; else -1 */
    bool life_gone; /* its reader has closed */
    Peer peer[MAX_PEERS];
    int peers;
    bool greeted, said_bye;
    uint64_t start, pending;
    Message welcome; /* kept for those who come later */
    bool has_welcome;
    uint64_t *acked; /* queue of acknowledged numbers */
    size_t acked_at, acked_n, acked_room;
};

Source *source_open(const char *kind, const char *program, const StreamOptions *o)
{
    Source *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(ERR_MEMORY, "stream: out of memory");
        return NULL;
    }
    s->life = -1;
    message_init(&s->welcome, MSG_NONE);
    snprintf(s->program, sizeof s->program, "%s", program);
    snprintf(s->ticket.kind, sizeof s->ticket.kind, "%s", kind);
    if (!(s->socket = wire_socket(ZMQ_ROUTER)) || wire_bind(s->socket, kind, o ? o->listen : NULL, &s->ticket))
        goto fail;
    if (ticket_format(&s->ticket, s->line, sizeof s->line) < 0)
        goto fail;
    return s;
fail:
    source_close(&s);
    return NULL;
}

void source_close(Source **source)
{
    Source *s = *source;
    if (!s)
        return;
    wire_close(&s->socket, s->life_gone ? 0 : LINGER_MS);
    message_clear(&s->welcome);
    free(s->acked);
    free(s);
    *source = NULL;
}

const char *source_ticket(const Source *s)
{
    return s->line;
}

int source_announce(Source *s, int fd)
{
    size_t n = strlen(s->line);
    for (size_t done = 0; done < n;) {
        ssize_t w = write(fd, s->line + done, n - done);
        if (w < 0 && errno == EPIPE) {
            s->life_gone = true;
            return 0;
        }
        if (w < 0 && errno != EINTR)
            return err_system("standard output");
        done += w > 0 ? (size_t)w : 0;
    }
    if (wire_is_pipe(fd))
        s->life = fd;
    return isatty(fd);
}

static void queue_ack(Source *s, uint64_t seq)
{
    if (s->acked_at == s->acked_n)
        s->acked_at = s->acked_n = 0;
    if (s->acked_n == s->acked_room) {
        size_t room = s->acked_room ? 2 * s->acked_room : 256;
        uint64_t *bigger = realloc(s->acked, room * sizeof *bigger);
        if (!bigger)
            return; /* the record stays in custody upstream: safe, if wasteful */
        s->acked = bigger;
        s->acked_room = room;
    }
    s->acked[s->acked_n++] = seq;
}

static Peer *find_peer(Source *s, const WireId *id)
{
    for (int i = 0; i < s->peers; i++)
        if (s->peer[i].id.size == id->size && !memcmp(s->peer[i].id.bytes, id->bytes, id->size))
            return &s->peer[i];
    return NULL;
}

static void drop_peer(Source *s, Peer *p)
{
    *p = s->peer[--s->peers];
    if (!s->peers)
        s->said_bye = true;
}

static void refuse(Source *s, const WireId *to, const char *why)
{
    Message m;
    message_init(&m, MSG_FAIL);
    if (!message_set_reason(&m, why))
        wire_send(s->socket, to, &m);
    message_clear(&m);
}

static int send_welcome(Source *s, Peer *p)
{
    Message m;
    message_init(&m, MSG_WELCOME);
    if (message_copy_facts(&m, &s->welcome)) {
        message_clear(&m);
        return -1;
    }
    p->welcomed = true;
    return wire_send(s->socket, &p->id, &m) < 0 ? -1 : 0;
}

static void on_hello(Source *s, const WireId *from, const Message *m)
{
    char why[256];
    const char *kinds = message_text(m, "kinds", ""), *who = message_text(m, "program", "the consumer");
    if (!ticket_kind_in(s->ticket.kind, kinds)) {
        snprintf(why, sizeof why, "%s gives %s, %.40s takes %.60s", s->program, s->ticket.kind, who, kinds);
        refuse(s, from, why);
        return;
    }
    Peer *p = find_peer(s, from);
    if (!p && s->peers == MAX_PEERS) {
        refuse(s, from, "too many consumers");
        return;
    }
    if (!p)
        p = &s->peer[s->peers++];
    *p = (Peer){ .id = *from, .credit = m->credit, .limit = m->limit };
    log_debug("stream", "hello from %s: start %" PRIu64 ", credit %" PRIu64, who, m->seq, m->credit);
    if (!s->greeted) {
        s->greeted = true;
        s->start = m->seq;
    }
    if (s->has_welcome)
        send_welcome(s, p);
}

/* Read everything the consumers have sent. What cannot be parsed is dropped: a peer that speaks garbage gets
 * nothing and disturbs nobody. */
static void read_control(Source *s)
{
    WireId from;
    Message m;
    int rc;
    while ((rc = wire_recv(s->socket, &from, &m))) {
        if (rc < 0) {
            if (err_code() != ERR_DATA)
                return;
            log_debug("stream", "%s", err_text());
            continue;
        }
        Peer *p = find_peer(s, &from);
        if (m.type == MSG_HELLO) {
            on_hello(s, &from, &m);
        } else if (p && m.type == MSG_WANT) {
            p->credit += m.credit;
            if (p->limit != UINT64_MAX && m.limit > p->limit)
                p->limit = m.limit;
            for (int i = 0; i < m.acks; i++) {
                queue_ack(s, m.ack[i]);
                s->pending -= s->pending > 0;
            }
        } else if (p && (m.type == MSG_BYE || m.type == MSG_FAIL)) {
            drop_peer(s, p);
        }
        message_clear(&m);
    }
}

int source_items(Source *s, zmq_pollitem_t *items)
{
    int n = 0;
    items[n++] = (zmq_pollitem_t){ .socket = s->socket, .events = ZMQ_POLLIN };
    if (s->life >= 0 && !s->life_gone)
        items[n++] = (zmq_pollitem_t){ .fd = s->life, .events = 0 };
    return n;
}

void source_look(Source *s)
{
    read_control(s);
    if (s->life >= 0 && !s->life_gone && wire_reader_gone(s->life))
        s->life_gone = true;
}

bool source_left(Source *s)
{
    return s->life_gone || (s->said_bye && !s->peers);
}

int source_hello(Source *s, uint64_t *start)
{
    zmq_pollitem_t items[END_ITEMS + 1];
    for (;;) {
        source_look(s);
        if (s->greeted) {
            *start = s->start;
            return 1;
        }
        if (s->life_gone)
            return 0;
        if (wire_poll(items, source_items(s, items), -1, true) < 0)
            return -1;
    }
}

int source_welcome(Source *s, Message *m)
{
    int rc = 0;
    message_clear(&s->welcome);
    s->welcome = *m;
    message_init(m, MSG_NONE);
    s->has_welcome = true;
    if (message_set_int(&s->welcome, "version", TICKET_VERSION) || message_set_text(&s->welcome, "kind", s->ticket.kind) ||
        message_set_text(&s->welcome, "program", s->program))
        return -1;
    for (int i = 0; i < s->peers; i++)
        if (!s->peer[i].welcomed)
            rc |= send_welcome(s, &s->peer[i]);
    return rc;
}

/* Of the peers that want seq, the one with the most credit left: the one that has done most of its work. */
static Peer *taker(Source *s, uint64_t seq)
{
    Peer *best = NULL;
    for (int i = 0; i < s->peers; i++) {
        Peer *p = &s->peer[i];
        if (p->welcomed && p->credit && seq < p->limit && (!best || p->credit > best->credit))
            best = p;
    }
    return best;
}

bool source_ready(Source *s, uint64_t seq)
{
    if (taker(s, seq))
        return true;
    read_control(s);
    return taker(s, seq);
}

uint64_t source_limit(const Source *s)
{
    uint64_t limit = 0;
    for (int i = 0; i < s->peers; i++)
        if (s->peer[i].limit > limit)
            limit = s->peer[i].limit;
    return limit;
}

int source_send(Source *s, Message *m)
{
    Peer *p = taker(s, m->seq);
    if (!p) {
        message_clear(m);
        return err_set(ERR_PEER, "stream: nobody asks for record");
    }
    int rc = wire_send(s->socket, &p->id, m);
    if (rc == 0) {
        drop_peer(s, p);
        return 0;
    }
    if (rc < 0)
        return -1;
    p->credit--;
    s->pending++;
    return 0;
}

bool source_acked(Source *s, uint64_t *seq)
{
    if (s->acked_at == s->acked_n)
        return false;
    *seq = s->acked[s->acked_at++];
    return true;
}

uint64_t source_pending(const Source *s)
{
    return s->pending;
}

int source_end(Source *s, uint64_t seq)
{
    for (int i = 0; i < s->peers; i++) {
        Message m;
        message_init(&m, MSG_END);
        m.seq = seq;
        if (wire_send(s->socket, &s->peer[i].id, &m) < 0)
            return -1;
    }
    return 0;
}

void source_fail(Source *s, const char *reason)
{
    for (int i = 0; i < s->peers; i++)
        refuse(s, &s->peer[i].id, reason);
}
