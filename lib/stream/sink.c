#include "stream/sink.h"

#include "stream/ends.h"
#include "stream/gauges.h"
#include "stream/longwait.h"
#include "stream/mapped.h"
#include "stream/shm.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"
#include "util/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NEIGHBOUR_MS = 200, ASKED_MS = 500 };
enum { FIRST_CREDIT = 4, ACK_BATCH = 64, GRACE_MS = 1000, LINK_MS = 20000, LINGER_MS = 200 };

struct Sink {
    void *socket;
    WireWatch watch;
    Ticket ticket;
    Message welcome, wish;
    SinkConfig config;
    Mapped *maps;
    bool welcomed, ended, failed;
    int restarts;        /* welcomes that are still to come: until the last all is of before */
    bool shares, untold; /* shared memory can be mapped; the producer does not know yet */
    int life;            /* the ticket's way in, when it is a pipe; else -1 */
    double opened;
    double life_ended;   /* when it came to its end; 0: it has not */
    uint64_t limit, sent_limit, last;
    uint64_t asked, held;    /* records that may still come; that came and were not acknowledged */
    double held_bytes, size; /* of those; what the next ones are reckoned at: little below the largest of late */
    uint64_t next; /* one past the highest that came */
    uint64_t ack[ACK_BATCH];
    int acks;
    LongWait slow_start, slow_record;
    bool fed; /* a record has come */
    char failure[512];
};

/* Records to ask for beside those asked for. Acknowledged bytes are reckoned at the mean of those held. */
static uint64_t more_credit(const Sink *s)
{
    uint64_t now = s->asked + s->held, most = s->config.credit;
    if (s->config.memory > 0 && now < most) {
        double room = (double)s->config.memory - s->held_bytes;
        uint64_t fit = s->size > 0 ? (uint64_t)(room > 0 ? room / s->size : 0) : FIRST_CREDIT;
        if (fit < most - s->held)
            most = s->held + fit;
        if (!most)
            most = 1;
    }
    return most > now ? most - now : 0;
}

static void came(Sink *s, const Message *m)
{
    double bytes = 1;
    for (int i = 0; i < m->tensors; i++)
        bytes += m->tensor[i].medium == MSG_INLINE ? (double)m->tensor[i].bytes : 0;
    s->asked--;
    s->held++;
    s->held_bytes += bytes;
    s->size += bytes > s->size ? bytes - s->size : (bytes - s->size) / 64;
}

static int say_hello(Sink *s, const SinkConfig *c)
{
    Message m;
    message_init(&m, MSG_HELLO);
    s->asked = s->held = 0;
    s->held_bytes = 0;
    s->asked = more_credit(s);
    m.seq = c->start;
    m.credit = s->asked;
    m.limit = c->limit;
    if (message_set_int(&m, "version", TICKET_VERSION) || message_set_text(&m, "program", c->program) ||
        message_set_text(&m, "kinds", c->kinds) || message_set_text(&m, "role", "consumer") ||
        message_set_int(&m, "pid", getpid()) || message_copy_facts(&m, &s->wish)) {
        message_clear(&m);
        return -1;
    }
    return wire_send(s->socket, NULL, &m) < 0 ? -1 : 0;
}

static int keep_wish(Sink *s, const Message *wish)
{
    message_clear(&s->wish);
    return wish ? message_copy_facts(&s->wish, wish) : 0;
}

/* What a producer may send that is not read yet: more where more was asked for at once. What it is sent is short. */
static int bound(void *socket, int64_t memory)
{
    WireBounds b = wire_bounds(ZMQ_DEALER);
    if (memory > b.unread / 2)
        b.unread = b.unread_all = 2 * memory;
    b.unsent = WIRE_UNSENT_WORDS;
    return wire_bound(socket, &b);
}

Sink *sink_open(const Ticket *t, const SinkConfig *c)
{
    Sink *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(ERR_MEMORY, "stream: out of memory");
        return NULL;
    }
    gauges_open(c->program);
    gauges_name(GAUGE_READS, t->endpoint);
    s->ticket = *t;
    s->config = *c;
    s->opened = log_seconds();
    s->life = wire_is_pipe(c->life) ? c->life : -1;
    s->limit = s->sent_limit = c->limit;
    message_init(&s->welcome, MSG_NONE);
    message_init(&s->wish, MSG_NONE);
    if (keep_wish(s, c->wish))
        goto fail;
    if (!(s->socket = wire_socket(ZMQ_DEALER)) || bound(s->socket, c->memory) || wire_watch(&s->watch, s->socket))
        goto fail;
    if (!wire_connect(s->socket, t) && !say_hello(s, c))
        return s;
fail:
    sink_close(&s);
    return NULL;
}

void sink_close(Sink **sink)
{
    Sink *s = *sink;
    if (!s)
        return;
    if (s->socket && s->watch.events) {
        wire_watch_read(&s->watch);
        if (s->watch.connected && !s->watch.lost) {
            Message bye;
            sink_flush(s);
            message_init(&bye, MSG_BYE);
            wire_send(s->socket, NULL, &bye);
        }
        wire_watch_close(&s->watch, s->socket);
    }
    wire_close(&s->socket, LINGER_MS);
    message_clear(&s->welcome);
    message_clear(&s->wish);
    mapped_free(&s->maps);
    free(s);
    *sink = NULL;
    gauges_close();
}

int sink_memory(Sink *s, int64_t bytes)
{
    return bound(s->socket, bytes);
}

int sink_restart(Sink *s, uint64_t start, uint64_t limit, const Message *wish)
{
    if (keep_wish(s, wish))
        return -1;
    s->config.start = start;
    s->config.limit = s->limit = s->sent_limit = limit;
    s->acks = 0;
    s->next = 0;
    gauge_set(GAUGE_HELD, 0);
    s->ended = s->welcomed = false;
    s->restarts++;
    return say_hello(s, &s->config);
}

void sink_flush(Sink *s)
{
    Message m;
    uint64_t more = s->welcomed ? more_credit(s) : 0;
    if (!s->acks && s->limit == s->sent_limit && !s->untold && more <= s->asked)
        return;
    message_init(&m, MSG_WANT);
    m.credit = more;
    m.limit = s->limit;
    if (!(s->untold && message_set_text(&m, "medium", s->shares ? "shm" : "inline")) &&
        !message_set_acks(&m, s->acks, s->ack) && wire_send(s->socket, NULL, &m) > 0) {
        s->acks = 0;
        s->asked += more;
        s->sent_limit = s->limit;
        s->untold = false;
    }
    message_clear(&m);
}

void sink_ack(Sink *s, uint64_t seq)
{
    if (s->acks == ACK_BATCH)
        sink_flush(s);
    if (s->acks < ACK_BATCH)
        s->ack[s->acks++] = seq;
    if (s->held) {
        s->held_bytes -= s->held_bytes / (double)s->held;
        s->held--;
    }
    gauge_add(GAUGE_HELD, -1);
}

void sink_limit(Sink *s, uint64_t limit)
{
    if (limit > s->limit)
        s->limit = limit;
}

bool sink_sated(const Sink *s)
{
    return s->next >= s->limit;
}

bool sink_ended(const Sink *s)
{
    return s->ended;
}

uint64_t sink_last(const Sink *s)
{
    return s->last;
}

int sink_items(Sink *s, zmq_pollitem_t *items)
{
    int n = 0;
    items[n++] = (zmq_pollitem_t){ .socket = s->socket, .events = ZMQ_POLLIN };
    items[n++] = (zmq_pollitem_t){ .socket = s->watch.events, .events = ZMQ_POLLIN };
    if (s->life >= 0 && !s->life_ended)
        items[n++] = (zmq_pollitem_t){ .fd = s->life, .events = ZMQ_POLLIN };
    return n;
}

/* A ticket is given out when its port is open, so where nobody listens its producer has ended; a link between hosts
 * may come back. */
static bool nobody_there(const Sink *s)
{
    int grace = strncmp(s->ticket.endpoint, "tcp://", 6) ? GRACE_MS : LINK_MS;
    return s->watch.unmet && log_seconds() - s->opened > 1e-3 * grace;
}

/* The producer has gone, perhaps for a signal to the whole pipeline, which may be seen here a moment later. */
static int gone(int wait_ms, const char *why)
{
    return stop_within(wait_ms) ? err_set(ERR_STOP, "stopped by a signal") : err_set(ERR_PEER, "%s", why);
}

/* The producer is dead when the connection is lost, or when standard input has come to its end and no connection
 * was ever made. An end of standard input alone says little: `echo TICKET | hssl-tap` is at its end at once. */
int sink_look(Sink *s)
{
    wire_watch_read(&s->watch);
    if (s->life >= 0 && !s->life_ended && wire_writer_gone(s->life))
        s->life_ended = log_seconds();
    bool unmet = !s->watch.connected && s->life_ended && log_seconds() - s->life_ended > 1e-3 * GRACE_MS;
    if (!s->ended && nobody_there(s))
        return err_set(ERR_PEER, "nobody gives %s at %s: this ticket's stream is over", s->ticket.kind,
                       s->ticket.endpoint);
    if (s->ended || (!s->watch.lost && !s->watch.refused && !unmet) || wire_has_mail(s->socket))
        return 0;
    const char *program = message_text(&s->welcome, "program", ticket_program(s->ticket.kind));
    if (s->watch.refused)
        return err_set(ERR_PEER, "%s refuses this ticket: it is of another run, or spoilt", s->ticket.endpoint);
    snprintf(s->failure, sizeof s->failure, "%s died: its stream of %s broke off without an end",
             program ? program : "the producer", s->ticket.kind);
    return gone(NEIGHBOUR_MS, s->failure);
}

/* Nothing has come yet though it should have. */
static int say_slow(Sink *s)
{
    const char *program = message_text(&s->welcome, "program", ticket_program(s->ticket.kind));
    if (!program)
        program = "the producer";
    if (s->fed || s->ended || s->failed)
        return -1;
    if (!s->welcomed)
        return long_wait(&s->slow_start, "%s does not stream yet: waiting for it", program);
    if (!s->asked || s->sent_limit <= s->config.start)
        return -1;
    return long_wait(&s->slow_record, "no %s have come from %s yet: waiting for them", s->ticket.kind,
                     program);
}

int sink_patience(Sink *s)
{
    return (s->life_ended || s->watch.unmet) && !s->watch.connected && !s->ended ? 100 : say_slow(s);
}

/* Whether the producer's memory can be seen from here. */
static bool sees_memory(const Message *w)
{
    int64_t pid = message_int(w, "probe_pid", 0), size = message_int(w, "probe_size", 0);
    uint64_t token = 0;
    ShmBlock *b = pid && size >= (int64_t)sizeof token
                      ? shm_attach(pid, message_int(w, "probe_fd", -1), (uint64_t)size, false)
                      : NULL;
    if (b)
        memcpy(&token, b->mem, sizeof token);
    bool seen = b && (int64_t)(token >> 1) == message_int(w, "probe_token", 0);
    shm_free(&b);
    err_clear();
    return seen;
}

/* 1: a record, 0: something else, -1: end or error. */
static int take(Sink *s, Message *m)
{
    if (s->restarts && (m->type == MSG_DATA || m->type == MSG_END)) {
        message_clear(m);
        return 0;
    }
    switch (m->type) {
    case MSG_DATA:
        if (!s->asked) {
            message_clear(m);
            return err_set(ERR_PEER, "%s: a record that nobody asked for", s->ticket.endpoint);
        }
        came(s, m);
        s->fed = true;
        if (s->welcomed && !mapped_resolve(&s->maps, m)) {
            s->next = m->seq >= s->next ? m->seq + 1 : s->next;
            gauge_add(GAUGE_RECORDS_IN, 1);
            gauge_add(GAUGE_BYTES_IN, (int64_t)message_bytes(m));
            gauge_add(GAUGE_HELD, 1);
            return 1;
        }
        if (s->welcomed) {
            message_clear(m);
            return -1;
        }
        message_clear(m);
        return err_set(ERR_PEER, "%s: a record before the stream's description", s->ticket.endpoint);
    case MSG_WELCOME:
        s->restarts -= s->restarts > 0;
        message_clear(&s->welcome);
        s->welcome = *m;
        message_init(m, MSG_NONE);
        if (s->restarts)
            return 0;
        s->welcomed = true;
        mapped_free(&s->maps); /* nobody holds a record of before */
        s->shares = sees_memory(&s->welcome);
        s->untold = true;
        return 0;
    case MSG_END:
        s->ended = true;
        s->last = m->seq;
        break;
    case MSG_FAIL:
        s->failed = true;
        snprintf(s->failure, sizeof s->failure, "%s", m->text ? m->text : "the producer gave up");
        break;
    default:
        break;
    }
    message_clear(m);
    return 0;
}

static int finished(Sink *s)
{
    if (s->failed)
        return strstr(s->failure, SOURCE_STOPPED) ? gone(ASKED_MS, s->failure) : err_set(ERR_PEER, "%s", s->failure);
    if (s->ended) {
        err_clear();
        return -1;
    }
    return 0;
}

static int wait_more(Sink *s, double until)
{
    zmq_pollitem_t items[END_ITEMS + 1];
    int patience = sink_patience(s), timeout = -1;
    if (until >= 0) {
        double left = until - log_seconds();
        if (left <= 0)
            return 0;
        timeout = (int)(left * 1000) + 1;
    }
    if (patience >= 0 && (timeout < 0 || patience < timeout))
        timeout = patience;
    gauge_state(GAUGE_WAITS_IN);
    int rc = wire_poll(items, sink_items(s, items), timeout, true);
    gauge_state(GAUGE_BUSY);
    return rc < 0 ? -1 : 1;
}

int sink_next(Sink *s, Message *m, int timeout_ms)
{
    double until = timeout_ms < 0 ? -1 : log_seconds() + 1e-3 * timeout_ms;
    message_init(m, MSG_NONE);
    if (finished(s))
        return -1;
    for (;;) {
        int rc;
        while ((rc = wire_recv(s->socket, NULL, m)) == 1) {
            rc = take(s, m);
            if (rc)
                return rc;
            if (finished(s))
                return -1;
        }
        if (rc < 0)
            return -1;
        sink_flush(s);
        if (timeout_ms == 0)
            return 0;
        if (sink_look(s))
            return -1;
        if ((rc = wait_more(s, until)) <= 0)
            return rc;
    }
}

const Message *sink_welcome(Sink *s)
{
    Message m;
    while (!s->welcomed) {
        int rc;
        if (finished(s)) {
            if (s->ended)
                err_set(ERR_PEER, "%s: the stream ended before it began", s->ticket.endpoint);
            return NULL;
        }
        if ((rc = wire_recv(s->socket, NULL, &m)) < 0)
            return NULL;
        if (rc) {
            if (take(s, &m) < 0)
                return NULL;
            continue;
        }
        if (sink_look(s) || wait_more(s, -1) < 0)
            return NULL;
    }
    return &s->welcome;
}
