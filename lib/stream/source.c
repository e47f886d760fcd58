#include "stream/source.h"

#include "stream/ends.h"
#include "stream/gauges.h"
#include "stream/longwait.h"
#include "stream/process.h"
#include "stream/shm.h"
#include "stream/side.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { MAX_PEERS = 64, LINGER_MS = 500, LOOK_MS = 500, FULL_MS = 10, PROBE_BYTES = 4096 };
/* Whatever a consumer asks for: records that it may have before it asks again. */
enum { MOST_CREDIT = 1 << 16 };
/* Whatever it wishes: facts of that, bytes of a name and of a text. */
enum { WISH_FACTS = 24, WISH_NAME = 64, WISH_TEXT = 256 };
static const double IDLE = 60;
static const double ABSENT = 5; /* seconds without a look */
static const double KNOCK = 2; /* seconds between looks whether a consumer elsewhere is still connected */

typedef struct {
    WireId id;
    uint64_t credit, limit;
    uint64_t next, pending; /* source_next(): its position; handed out and not acknowledged */
    int gone;               /* see process_watch() */
    bool welcomed, ended;
    bool full;   /* takes no more for now: it has not read what it was given */
    bool shares; /* maps shared memory */
    bool told;   /* has said whether it does */
} Peer;

struct Source {
    void *socket;
    Ticket ticket;
    StreamOptions options;
    char line[TICKET_MAX_LINE], program[32];
    int life;       /* the ticket's way out, when it is a pipe; else -1 */
    bool life_gone; /* its reader has closed */
    Peer peer[MAX_PEERS];
    int peers, most, turn; /* who is there, how many there may be; who gets the next record of source_next() */
    int departed;
    bool greeted, restarted;
    double knocked;
    double looked, awake; /* when its consumers were looked at last; since when that is done again and again */
    bool blocked; /* the consumer did not ask for the record that was offered last */
    uint64_t start;
    Message wish;    /* the facts of the last hello that are for whoever is upstream */
    Message welcome; /* kept for those who come later */
    bool has_welcome;
    Side *side;
    ShmBlock *probe; /* a consumer that can read it can read all that is shared */
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
    wire_keep_memory();
    gauges_open(program);
    s->life = -1;
    s->turn = -1;
    if (o)
        s->options = *o;
    s->most = s->options.fan_out > 1 ? (int)s->options.fan_out : 1;
    if (s->most > MAX_PEERS) {
        err_set(ERR_USAGE, "at most %d consumers", MAX_PEERS);
        goto fail;
    }
    message_init(&s->wish, MSG_NONE);
    message_init(&s->welcome, MSG_NONE);
    snprintf(s->program, sizeof s->program, "%s", program);
    snprintf(s->ticket.kind, sizeof s->ticket.kind, "%s", kind);
    if (!(s->socket = wire_socket(ZMQ_ROUTER)) || wire_bind(s->socket, kind, s->options.listen, &s->ticket))
        goto fail;
    if (ticket_format(&s->ticket, s->line, sizeof s->line) < 0)
        goto fail;
    gauges_name(GAUGE_KIND, kind);
    gauges_name(GAUGE_SERVES, s->ticket.endpoint);
    s->side = side_open();
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
    side_close(&s->side);
    wire_close(&s->socket, s->life_gone ? 0 : LINGER_MS);
    for (int i = 0; i < s->peers; i++)
        process_forget(&s->peer[i].gone);
    shm_free(&s->probe);
    message_clear(&s->wish);
    message_clear(&s->welcome);
    free(s->acked);
    free(s);
    *source = NULL;
    gauges_close();
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
    wire_keep(s->socket, &p->id, false);
    process_forget(&p->gone);
    *p = s->peer[--s->peers];
    s->turn = -1;
    s->departed++;
}

/* Whether a consumer whose process cannot be watched is still connected. A note means nothing to it. */
static bool connected(Source *s, const Peer *p)
{
    Message m;
    message_init(&m, MSG_NOTE);
    return wire_send(s->socket, &p->id, &m) != 0;
}

/* One that asks, is given, and takes none of it. */
static bool reads_nothing(Source *s, Peer *p)
{
    double idle, most = s->options.idle > 0 ? s->options.idle : IDLE;
    p->full = wire_unsent(s->socket, &p->id, &idle) > WIRE_UNSENT_RECORDS;
    if (!p->full || idle < most || s->looked - s->awake < most)
        return false;
    log_warn("a consumer has read nothing for %.0f seconds with %d MiB waiting for it: it is dropped", idle,
             WIRE_UNSENT_RECORDS >> 20);
    wire_cut(s->socket, &p->id);
    return true;
}

static void drop_dead(Source *s, bool ask)
{
    double now = log_seconds();
    bool knock = ask || now - s->knocked > KNOCK;
    if (now - s->looked > ABSENT) /* stopped (Ctrl-Z, a batch system), as its consumers may have been */
        s->awake = now;
    s->looked = now;
    if (knock)
        s->knocked = now;
    for (int i = s->peers; i-- > 0;) {
        Peer *p = &s->peer[i];
        if (p->full && reads_nothing(s, p)) {
            drop_peer(s, p);
            continue;
        }
        if (p->gone >= 0 ? !process_gone(p->gone) : !knock || p->full || connected(s, p))
            continue;
        log_debug("stream", "a consumer has died");
        drop_peer(s, p);
    }
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

/* A place for a consumer that is new, or NULL. */
static Peer *admit(Source *s, const WireId *from)
{
    drop_dead(s, true);
    if (s->peers == s->most) {
        char why[160];
        snprintf(why, sizeof why, s->most > 1 ? "%s has all its %d consumers (--fan-out)"
                                              : "%s has a consumer already, and it lives (see hssl-load --fan-out)",
                 s->program, s->most);
        refuse(s, from, why);
        return NULL;
    }
    Peer *p = &s->peer[s->peers++];
    *p = (Peer){ .id = *from, .gone = -1 };
    wire_keep(s->socket, from, true);
    return p;
}

static bool is_short(const MsgFact *f)
{
    return strlen(f->key) <= WISH_NAME && (f->type != FACT_TEXT || strlen(f->text) <= WISH_TEXT);
}

/* What this consumer wishes takes the place of what another did. What is too long is left out. */
static void keep_wish(Source *s, const Message *hello)
{
    message_clear(&s->wish);
    for (int i = 0; i < hello->facts && s->wish.facts < WISH_FACTS; i++)
        if (!strncmp(hello->fact[i].key, WISH_PREFIX, strlen(WISH_PREFIX)) && is_short(&hello->fact[i]) &&
            message_copy_fact(&s->wish, &hello->fact[i])) {
            message_clear(&s->wish); /* no memory: none is as good as one that came without */
            return;
        }
}

static uint64_t capped(uint64_t credit)
{
    return credit < MOST_CREDIT ? credit : MOST_CREDIT;
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
    if (!p && !(p = admit(s, from)))
        return;
    if (p->gone < 0 && !s->options.listen)
        p->gone = process_watch(message_int(m, "pid", 0));
    *p = (Peer){ .id = *from, .credit = capped(m->credit), .limit = m->limit, .next = m->seq, .gone = p->gone,
                 .shares = p->shares };
    log_debug("stream", "hello from %s: start %" PRIu64 ", credit %" PRIu64, who, m->seq, m->credit);
    s->restarted = s->greeted;
    s->greeted = true;
    s->start = m->seq;
    keep_wish(s, m);
    s->acked_at = s->acked_n = 0;
    if (s->has_welcome)
        send_welcome(s, p);
}

static void on_want(Source *s, Peer *p, const Message *m)
{
    const char *medium = message_text(m, "medium", NULL);
    p->credit = capped(p->credit + capped(m->credit));
    if (p->limit != UINT64_MAX && m->limit > p->limit)
        p->limit = m->limit;
    for (int i = 0; i < m->acks; i++) {
        if (!p->pending)
            break; /* more than it was given */
        queue_ack(s, m->ack[i]);
        p->pending--;
    }
    if (medium) {
        p->told = true;
        p->shares = s->probe && !strcmp(medium, "shm");
        log_debug("stream", "%s go by %s", s->ticket.kind, p->shares ? "shm" : "inline");
    }
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
            on_want(s, p, &m);
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
    if (s->peers && s->peer[0].gone >= 0)
        items[n++] = (zmq_pollitem_t){ .fd = s->peer[0].gone, .events = ZMQ_POLLIN };
    return n;
}

const Message *source_wish(const Source *s)
{
    return &s->wish;
}

const Message *source_described(const Source *s)
{
    return &s->welcome;
}

bool source_left(const Source *s)
{
    return !s->options.stay && (s->life_gone || (s->departed >= s->most && !s->peers));
}

int source_patience(const Source *s)
{
    if (source_left(s))
        return 0; /* the bye was read on the way here: no event will tell of it again */
    for (int i = 0; i < s->peers; i++)
        if (s->peer[i].full)
            return FULL_MS; /* nor that it reads */
    for (int i = 0; i < s->peers; i++)
        if (s->peer[i].gone < 0)
            return (int)(1000 * KNOCK);
    return s->peers > 1 ? LOOK_MS : -1;
}

void source_look(Source *s)
{
    read_control(s);
    drop_dead(s, false);
    if (s->life >= 0 && !s->life_gone && wire_reader_gone(s->life))
        s->life_gone = true;
}

bool source_restarted(Source *s, uint64_t *start)
{
    bool restarted = s->restarted;
    s->restarted = false;
    *start = s->start;
    return restarted;
}

int source_hello(Source *s, uint64_t *start)
{
    zmq_pollitem_t items[END_ITEMS + 1];
    LongWait w = { 0 };
    for (;;) {
        source_look(s);
        if (s->greeted) {
            *start = s->start;
            return 1;
        }
        if (source_left(s))
            return 0;
        int ms = long_wait(&w, "nobody has connected yet: waiting for whoever is to take these %s",
                           s->ticket.kind);
        gauge_state(GAUGE_WAITS_OUT);
        int rc = wire_poll(items, source_items(s, items), ms, true);
        gauge_state(GAUGE_BUSY);
        if (rc < 0)
            return -1;
    }
}

static int send_end(Source *s, Peer *p, uint64_t seq)
{
    Message m;
    message_init(&m, MSG_END);
    m.seq = seq;
    p->ended = true;
    if (p == &s->peer[0])
        side_show(s->side, &m, &s->welcome);
    return wire_send(s->socket, &p->id, &m) < 0 ? -1 : 0;
}

/* A few bytes to be found in shared memory tell a consumer on this host, and one that may look, from others. */
static int offer_memory(Source *s)
{
    uint64_t token = 0;
    if (!s->probe && !s->options.listen && strcmp(s->options.medium ? s->options.medium : "auto", "inline")) {
        s->probe = shm_create(PROBE_BYTES);
        if (s->probe && getrandom(s->probe->mem, sizeof token, 0) != sizeof token)
            shm_free(&s->probe);
        err_clear();
    }
    if (s->probe)
        memcpy(&token, s->probe->mem, sizeof token);
    /* Also where there is none: a stage hands on the facts that it got, and this one speaks for one hop. */
    return message_set_int(&s->welcome, "probe_pid", s->probe ? s->probe->pid : 0) ||
           message_set_int(&s->welcome, "probe_fd", s->probe ? s->probe->fd : 0) ||
           message_set_int(&s->welcome, "probe_size", s->probe ? PROBE_BYTES : 0) ||
           message_set_int(&s->welcome, "probe_token", (int64_t)(token >> 1));
}

int source_welcome(Source *s, Message *m)
{
    int rc = 0;
    message_clear(&s->welcome);
    s->welcome = *m;
    message_init(m, MSG_NONE);
    s->has_welcome = true;
    if (message_set_int(&s->welcome, "version", TICKET_VERSION) || message_set_text(&s->welcome, "kind", s->ticket.kind) ||
        message_set_text(&s->welcome, "program", s->program) || offer_memory(s))
        return -1;
    for (int i = 0; i < s->peers; i++)
        if (!s->peer[i].welcomed)
            rc |= send_welcome(s, &s->peer[i]);
    return rc;
}

/* Nobody gets a record before it has said how it wants it. */
static bool takes(const Peer *p, uint64_t seq)
{
    return p->welcomed && p->told && p->credit && seq < p->limit;
}

/* And has room for it, as things are now. */
static bool may_have(Source *s, Peer *p, uint64_t seq)
{
    double idle;
    if (!takes(p, seq))
        return false;
    p->full = wire_unsent(s->socket, &p->id, &idle) > WIRE_UNSENT_RECORDS;
    return !p->full;
}

bool source_ready(Source *s, uint64_t seq)
{
    s->blocked = false;
    if (s->peers && !s->restarted && may_have(s, &s->peer[0], seq))
        return true;
    read_control(s);
    s->blocked = !s->peers || s->restarted || !may_have(s, &s->peer[0], seq);
    return !s->blocked;
}

bool source_blocked(const Source *s)
{
    return s->blocked;
}

bool source_next(Source *s, uint64_t total, uint64_t *seq)
{
    s->acked_at = s->acked_n = 0; /* nothing is upstream */
    read_control(s);
    gauge_set(GAUGE_HELD, source_pending(s));
    for (int i = 0; i < s->peers; i++) {
        Peer *p = &s->peer[i];
        if (p->next >= total) {
            if (p->welcomed && !p->ended)
                send_end(s, p, p->next);
        } else if (may_have(s, p, p->next)) {
            s->turn = i;
            *seq = p->next;
            return true;
        }
    }
    return false;
}

uint64_t source_limit(const Source *s)
{
    return s->peers ? s->peer[0].limit : 0;
}

int source_send(Source *s, Message *m)
{
    Peer *p = s->turn >= 0 ? &s->peer[s->turn] : &s->peer[0];
    bool by_turn = s->turn >= 0;
    s->turn = -1;
    if (!s->peers || !takes(p, m->seq)) {
        message_clear(m);
        return err_set(ERR_PEER, "stream: nobody asks for this record");
    }
    if (!p->shares && message_make_inline(m)) {
        message_clear(m);
        return -1;
    }
    if (p == &s->peer[0])
        side_show(s->side, m, &s->welcome);
    size_t bytes = message_bytes(m);
    bool bad = m->bad != NULL;
    int rc = wire_send(s->socket, &p->id, m);
    if (rc == 0) {
        drop_peer(s, p);
        return 0;
    }
    if (rc < 0)
        return -1;
    gauge_add(GAUGE_RECORDS_OUT, 1);
    gauge_add(GAUGE_BYTES_OUT, (int64_t)bytes);
    gauge_add(GAUGE_BAD, bad);
    p->credit--;
    p->pending++;
    p->next += by_turn;
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
    uint64_t n = 0;
    for (int i = 0; i < s->peers; i++)
        n += s->peer[i].pending;
    return n;
}

int source_end(Source *s, uint64_t seq)
{
    for (int i = 0; i < s->peers; i++)
        if (send_end(s, &s->peer[i], seq))
            return -1;
    return 0;
}

void source_fail(Source *s, const char *reason)
{
    Message m;
    message_init(&m, MSG_FAIL);
    if (!message_set_reason(&m, reason))
        side_show(s->side, &m, &s->welcome);
    message_clear(&m);
    for (int i = 0; i < s->peers; i++)
        refuse(s, &s->peer[i].id, reason);
}
