#include "stream/hub.h"

#include "stream/ends.h"
#include "stream/hub_state.h"
#include "stream/process.h"
#include "util/err.h"
#include "util/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINGER_MS = 300, LEAST_ROOM = 64, MOST_ROOM = 4096, CRASHES = 3, LOOK_MS = 250 };
static const int64_t LARGEST_FRAME = (int64_t)1 << 31;
/* Seconds: an answer is late at the earliest after LATE; a worker that says nothing for SILENT gets no more, and is
 * forgotten after FORGET. */
static const double LATE = 2, SILENT = 10, FORGET = 120;

/* ---------------------------------------------------------------- workers that go */

static int place_of(const HubWorker *w, uint64_t seq)
{
    int i = 0;
    while (i < w->queue && w->seq[i] != seq)
        i++;
    return i < w->queue ? i : -1;
}

static void unqueue(HubWorker *w, int i)
{
    memmove(&w->seq[i], &w->seq[i + 1], (size_t)(--w->queue - i) * sizeof *w->seq);
}

/* What it held goes to others, before all else, in its order. */
static void release_queue(Hub *h, HubWorker *w)
{
    while (w->queue) {
        Held *r = custody_find(&h->custody, w->seq[--w->queue]);
        if (!r)
            continue;
        r->holders -= r->holders > 0;
        if (r->state == CUSTODY_OUT && !r->holders)
            custody_set(&h->custody, r, CUSTODY_WAITING, true);
    }
}

/* writes: whether its process may still live and write into its desk. */
static void remove_worker(Hub *h, HubWorker *w, bool writes)
{
    release_queue(h, w);
    if (w->desk && !writes)
        desk_return(w->desk);
    process_forget(&w->gone);
    w->used = false;
    h->counts.workers--;
}

static void lose(Hub *h, HubWorker *w, bool writes, const char *why)
{
    log_warn("worker %ld %s; %d record%s it had go%s to others", w->number, why, w->queue,
             w->queue == 1 ? " that" : "s that", w->queue == 1 ? "es" : "");
    h->counts.lost++;
    remove_worker(h, w, writes);
}

static void make_bad(Hub *h, Held *r, const char *why)
{
    if (message_copy(&r->result, &r->record) || message_set_bad(&r->result, why))
        return; /* no memory: the record stays where it is and is tried again */
    custody_set(&h->custody, r, CUSTODY_DONE, false);
}

static bool is_crash(int status)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return sig == SIGSEGV || sig == SIGBUS || sig == SIGABRT || sig == SIGILL || sig == SIGFPE;
}

static void describe_end(int status, char *buf, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(buf, size, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(buf, size, "ended with status %d", WEXITSTATUS(status));
}

static void child_ended(Hub *h, pid_t pid, int status)
{
    char why[64], bad[128];
    describe_end(status, why, sizeof why);
    for (HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS; w++) {
        if (!w->used || w->pid != pid || w->port)
            continue;
        /* It works in order, so it died of the oldest that it had. */
        Held *r = is_crash(status) && w->queue ? custody_find(&h->custody, w->seq[0]) : NULL;
        lose(h, w, false, why);
        if (r && r->state == CUSTODY_WAITING && ++r->crashes >= CRASHES) {
            snprintf(bad, sizeof bad, "%d workers crashed over it (signal %d)", CRASHES, WTERMSIG(status));
            make_bad(h, r, bad);
        }
        return;
    }
    if (!h->ended)
        log_warn("a worker %s before it had work", why);
}

static void look_for_deaths(Hub *h)
{
    pid_t pid;
    int status;
    struct epoll_event e;
    while (h->crew && crew_reap(h->crew, &pid, &status))
        child_ended(h, pid, status);
    while (epoll_wait(h->deaths, &e, 1, 0) == 1) {
        HubWorker *w = e.data.ptr;
        if (!w->used)
            break;
        lose(h, w, false, "has died");
    }
}

static void look_for_silence(Hub *h, double now)
{
    for (HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS; w++) {
        if (!w->used || now - w->heard < SILENT)
            continue;
        if (!w->pid && now - w->heard > FORGET) {
            lose(h, w, false, "was not heard of again");
        } else if (!w->silent) {
            log_warn("worker %ld is silent: it gets no more until it is heard of", w->number);
            w->silent = true;
            release_queue(h, w);
        }
    }
}

/* ---------------------------------------------------------------- handing out */

static bool has_slot(const Desk *a)
{
    for (int i = 0; i < a->slots; i++)
        if (a->slot[i].state == SLOT_FREE)
            return true;
    return false;
}

/* Of those that may have it and have not, the one with the least to do. */
static HubWorker *idlest(Hub *h, const Held *r)
{
    HubWorker *best = NULL;
    for (HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS; w++)
        if (w->used && w->ready && !w->silent && w->credit > 0 && w->queue < h->depth &&
            (!best || w->queue < best->queue) && (!w->desk || has_slot(w->desk)) &&
            (!r->holders || place_of(w, r->seq) < 0))
            best = w;
    return best;
}

static double patience_with(const Hub *h, const Held *r)
{
    double first = 4 * h->answer > LATE ? 4 * h->answer : LATE;
    return first * (double)(1 << (r->tries < 6 ? r->tries : 6));
}

/* 0, or -1 when the worker cannot be reached or there is no memory. */
static int give(Hub *h, HubWorker *w, Held *r, double now)
{
    Message m;
    Slot *slot = w->desk ? desk_take(w->desk, r->seq) : NULL;
    if (message_copy(&m, &r->record) || (slot && message_set_int(&m, "slot", desk_slot_number(slot)))) {
        message_clear(&m);
        if (slot)
            slot->state = SLOT_FREE;
        return -1;
    }
    if (wire_send(h->port[w->port].socket, &w->id, &m) != 1) {
        if (slot)
            slot->state = SLOT_FREE;
        lose(h, w, w->pid > 0, "cannot be reached");
        return -1;
    }
    w->seq[w->queue++] = r->seq;
    w->credit--;
    r->since = now;
    r->due = now + patience_with(h, r);
    h->counts.again += r->tries > 0;
    r->tries++;
    r->holders++;
    if (r->state == CUSTODY_WAITING)
        custody_set(&h->custody, r, CUSTODY_OUT, false);
    return 0;
}

typedef struct {
    Hub *hub;
    double now;
} Overdue;

static void try_another(void *arg, Held *r)
{
    Overdue *o = arg;
    if (r->state != CUSTODY_OUT || r->due > o->now)
        return;
    HubWorker *w = idlest(o->hub, r);
    if (w)
        give(o->hub, w, r, o->now);
    else
        r->due = o->now + 1;
}

static void hand_out(Hub *h, double now)
{
    Held *r;
    HubWorker *w;
    while ((r = custody_waiting(&h->custody)) && (w = idlest(h, r)))
        if (give(h, w, r, now) && err_code() == ERR_MEMORY)
            break;
}

/* ---------------------------------------------------------------- what workers say */

static void refuse(Hub *h, int port, const WireId *to, const char *why)
{
    Message m;
    message_init(&m, MSG_FAIL);
    if (!message_set_reason(&m, why))
        wire_send(h->port[port].socket, to, &m);
    message_clear(&m);
}

static int greet(Hub *h, HubWorker *w)
{
    Message m;
    char key[64];
    message_init(&m, MSG_WELCOME);
    int rc = message_set_int(&m, "version", TICKET_VERSION) || message_set_text(&m, "program", h->config.program) ||
             message_set_text(&m, "kind", "work") || message_copy_facts(&m, &h->welcome);
    if (!rc && w->desk)
        rc = message_set_int(&m, "desk_pid", w->desk->block->pid) ||
             message_set_int(&m, "desk_fd", w->desk->block->fd) ||
             message_set_int(&m, "desk_size", (int64_t)w->desk->block->size) ||
             message_set_int(&m, "slot_bytes", (int64_t)h->slot_bytes);
    for (int i = 0; i < h->config.results && w->desk && !rc; i++) {
        snprintf(key, sizeof key, "offset_%s", h->config.result[i].name);
        rc = message_set_int(&m, key, (int64_t)h->offset[i]);
    }
    if (rc) {
        message_clear(&m);
        return -1;
    }
    return wire_send(h->port[w->port].socket, &w->id, &m) == 1 ? 0 : -1;
}

static void watch_process(Hub *h, HubWorker *w)
{
    if (crew_has(h->crew, w->pid))
        return; /* reaped */
    w->gone = process_watch(w->pid);
    if (w->gone < 0)
        w->pid = 0; /* not to be seen from here: silence will tell */
    else
        epoll_ctl(h->deaths, EPOLL_CTL_ADD, w->gone, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = w });
}

static void on_hello(Hub *h, int port, const WireId *from, const Message *m)
{
    HubWorker *w = h->worker;
    if (strcmp(message_text(m, "role", ""), "worker")) {
        refuse(h, port, from, "this is the ticket of a pool of workers: it is for hssl-augment --join");
        return;
    }
    while (w < h->worker + HUB_MAX_WORKERS && w->used)
        w++;
    if (w == h->worker + HUB_MAX_WORKERS) {
        refuse(h, port, from, "too many workers");
        return;
    }
    int64_t pid = port ? 0 : message_int(m, "pid", 0);
    *w = (HubWorker){ .used = true, .id = *from, .port = port, .gone = -1, .heard = log_seconds(),
                      .number = ++h->counts.joined, .pid = pid > 0 && pid < INT32_MAX ? (pid_t)pid : 0 };
    h->counts.workers++;
    if (w->pid)
        watch_process(h, w);
    if (w->pid && strcmp(h->config.medium, "inline"))
        w->desk = desk_lend(h);
    if (h->welcomed && greet(h, w))
        remove_worker(h, w, false);
}

static HubWorker *find_worker(Hub *h, int port, const WireId *id)
{
    for (HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS; w++)
        if (w->used && w->port == port && w->id.size == id->size && !memcmp(w->id.bytes, id->bytes, id->size))
            return w;
    return NULL;
}

static void on_want(HubWorker *w, const Message *m)
{
    if (m->credit && m->credit <= HUB_QUEUE)
        w->credit = (int64_t)m->credit - w->queue;
    if (w->ready)
        return;
    const char *medium = message_text(m, "medium", "inline");
    w->ready = true;
    if (w->desk && strcmp(medium, "shm")) {
        desk_return(w->desk);
        w->desk = NULL;
    }
    log_debug("stream", "worker %ld: %s", w->number, w->desk ? "shm" : "inline");
}

static bool fits(const Hub *h, const Message *m)
{
    if (m->tensors != h->config.results)
        return false;
    for (int i = 0; i < h->config.results; i++) {
        const HubResult *r = &h->config.result[i];
        const MsgTensor *t = message_tensor(m, r->name);
        if (!t || t->medium != MSG_INLINE || t->dtype != MSG_U8 || t->ndim != r->ndim ||
            memcmp(t->shape, r->shape, (size_t)r->ndim * sizeof *r->shape))
            return false;
    }
    return true;
}

static int identify(Message *m, const Message *record)
{
    m->type = MSG_DATA;
    m->seq = record->seq;
    m->epoch = record->epoch;
    m->id = record->id;
    m->label = record->label;
    m->width = record->width;
    m->height = record->height;
    m->name = NULL;
    return record->name ? message_set_name(m, record->name) : 0;
}

/* The answer becomes the record's result. */
static int settle(Hub *h, Held *r, Message *m, Slot *slot)
{
    if (m->bad) {
        make_bad(h, r, m->bad);
        return r->state == CUSTODY_DONE ? 0 : -1;
    }
    if (!slot) {
        r->result = *m;
        message_init(m, MSG_NONE);
    } else {
        message_init(&r->result, MSG_DATA);
    }
    if (identify(&r->result, &r->record) || (slot && desk_describe(h, slot, &r->result))) {
        message_clear(&r->result);
        return -1;
    }
    if (slot) {
        slot->state = SLOT_RESULT;
        r->slot = slot;
    }
    custody_set(&h->custody, r, CUSTODY_DONE, false);
    return 0;
}

static void on_answer(Hub *h, HubWorker *w, Message *m, double now)
{
    int64_t number = message_int(m, "slot", -1);
    Slot *slot = w->desk && number >= 0 && number < w->desk->slots ? &w->desk->slot[number] : NULL;
    int place = place_of(w, m->seq);
    Held *r = custody_find(&h->custody, m->seq);

    if (slot && (slot->state != SLOT_LENT || slot->seq != m->seq))
        slot = NULL;
    w->credit++;
    if (place >= 0) {
        unqueue(w, place);
        if (r)
            r->holders -= r->holders > 0;
    }
    if (w->pid && h->crew)
        crew_praise(h->crew, w->pid);
    if (!r || (r->state != CUSTODY_OUT && r->state != CUSTODY_WAITING)) {
        h->counts.duplicates++;
    } else if (!m->bad && !slot && !fits(h, m)) {
        lose(h, w, w->pid > 0, "answers what nobody asked");
    } else {
        if (r->tries == 1)
            h->answer += 0.05 * (now - r->since - h->answer);
        if (settle(h, r, m, slot) && !r->holders && r->state == CUSTODY_OUT)
            custody_set(&h->custody, r, CUSTODY_WAITING, true);
    }
    if (slot && slot->state == SLOT_LENT)
        slot->state = SLOT_FREE;
}

static void read_port(Hub *h, int port, double now)
{
    WireId from;
    Message m;
    int rc;
    while ((rc = wire_recv(h->port[port].socket, &from, &m))) {
        if (rc < 0) {
            if (err_code() != ERR_DATA)
                return;
            log_debug("stream", "%s", err_text());
            continue;
        }
        HubWorker *w = find_worker(h, port, &from);
        if (w) {
            w->heard = now;
            w->silent = false;
        }
        if (m.type == MSG_HELLO && !w)
            on_hello(h, port, &from, &m);
        else if (w && m.type == MSG_WANT)
            on_want(w, &m);
        else if (w && m.type == MSG_DATA)
            on_answer(h, w, &m, now);
        else if (w && m.type == MSG_FAIL)
            lose(h, w, false, m.text ? m.text : "gave up");
        else if (w && m.type == MSG_BYE)
            remove_worker(h, w, false);
        else if (!w && m.type == MSG_WANT)
            refuse(h, port, &from, "unknown worker"); /* forgotten meanwhile: it says hello again */
        message_clear(&m);
    }
}

/* ---------------------------------------------------------------- the loop's side */

int hub_items(Hub *h, zmq_pollitem_t *items)
{
    int n = 0;
    for (int i = 0; i < h->ports; i++)
        items[n++] = (zmq_pollitem_t){ .socket = h->port[i].socket, .events = ZMQ_POLLIN };
    items[n++] = (zmq_pollitem_t){ .fd = h->deaths, .events = ZMQ_POLLIN };
    if (h->crew)
        items[n++] = (zmq_pollitem_t){ .fd = crew_fd(h->crew), .events = ZMQ_POLLIN };
    return n;
}

int hub_patience(Hub *h)
{
    int ms = h->crew ? crew_patience(h->crew) : -1;
    bool busy = h->custody.n || h->counts.workers;
    return busy && (ms < 0 || ms > LOOK_MS) ? LOOK_MS : ms;
}

int hub_look(Hub *h)
{
    double now = log_seconds();
    for (int i = 0; i < h->ports; i++)
        read_port(h, i, now);
    look_for_deaths(h);
    look_for_silence(h, now);
    if (h->crew && crew_failed(h->crew))
        return -1;
    custody_each(&h->custody, try_another, &(Overdue){ h, now });
    hand_out(h, now);
    return 0;
}

bool hub_room(const Hub *h)
{
    size_t room = (size_t)h->depth * (size_t)(h->counts.workers + 1) * 2;
    return h->custody.n < (room < LEAST_ROOM ? LEAST_ROOM : room > MOST_ROOM ? MOST_ROOM : room);
}

int hub_put(Hub *h, Message *m)
{
    Held *r = custody_put(&h->custody, m);
    if (!r)
        return -1;
    if (r->record.bad && r->state == CUSTODY_WAITING) { /* said upstream */
        r->result = r->record;
        message_init(&r->record, MSG_NONE);
        custody_set(&h->custody, r, CUSTODY_DONE, false);
        return 0;
    }
    hand_out(h, log_seconds());
    return 0;
}

bool hub_take(Hub *h, Message *m)
{
    Held *r = custody_done(&h->custody);
    if (!r)
        return false;
    *m = r->result;
    message_init(&r->result, MSG_NONE);
    custody_set(&h->custody, r, CUSTODY_PASSED, false);
    return true;
}

void hub_acked(Hub *h, uint64_t seq)
{
    Held *r = custody_find(&h->custody, seq);
    if (!r || r->state != CUSTODY_PASSED)
        return;
    if (r->slot)
        r->slot->state = SLOT_FREE;
    custody_drop(&h->custody, r);
}

static void drop_record(void *arg, Held *r)
{
    Hub *h = arg;
    if (r->slot)
        r->slot->state = SLOT_FREE;
    custody_drop(&h->custody, r);
}

void hub_restart(Hub *h)
{
    custody_each(&h->custody, drop_record, h);
}

size_t hub_held(const Hub *h)
{
    return h->custody.n;
}

HubCounts hub_counts(const Hub *h)
{
    HubCounts c = h->counts;
    c.restarts = h->crew ? crew_restarts(h->crew) : 0;
    return c;
}

/* ---------------------------------------------------------------- opening and closing */

static int open_port(Hub *h, const char *listen)
{
    int p = h->ports;
    int64_t frame = WIRE_CONTROL_BYTES + (int64_t)h->slot_bytes;
    if (!(h->port[p].socket = wire_socket(ZMQ_ROUTER)))
        return -1;
    h->ports++;
    snprintf(h->port[p].ticket.kind, sizeof h->port[p].ticket.kind, "work");
    return wire_max_frame(h->port[p].socket, frame < LARGEST_FRAME ? frame : LARGEST_FRAME) ||
                   wire_bind(h->port[p].socket, "work", listen, &h->port[p].ticket)
               ? -1
               : 0;
}

Hub *hub_open(const HubConfig *c)
{
    Hub *h = calloc(1, sizeof *h);
    if (!h) {
        err_set(ERR_MEMORY, "out of memory");
        return NULL;
    }
    h->config = *c;
    message_init(&h->welcome, MSG_WELCOME);
    if ((h->deaths = epoll_create1(EPOLL_CLOEXEC)) < 0) {
        err_system("epoll");
        goto fail;
    }
    if (desk_layout(h) || open_port(h, NULL) ||
        ticket_format(&h->port[0].ticket, h->local_line, sizeof h->local_line) < 0)
        goto fail;
    memcpy(h->line, h->local_line, sizeof h->line);
    /* One ticket for all: on this host its reader takes the way that is there. */
    if (c->listen && (open_port(h, c->listen) ||
                      ticket_set(&h->port[1].ticket, "local", h->port[0].ticket.endpoint) ||
                      ticket_format(&h->port[1].ticket, h->line, sizeof h->line) < 0))
        goto fail;
    return h;
fail:
    hub_close(&h);
    return NULL;
}

const char *hub_ticket(const Hub *h)
{
    return h->line;
}

int hub_welcome(Hub *h, Message *m)
{
    message_clear(&h->welcome);
    h->welcome = *m;
    message_init(m, MSG_NONE);
    for (HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS && !h->welcomed; w++)
        if (w->used && greet(h, w))
            remove_worker(h, w, false);
    h->welcomed = true;
    return 0;
}

int hub_employ(Hub *h, const char *const argv[], int n)
{
    return (h->crew = crew_start(h->local_line, argv, n)) ? 0 : -1;
}

void hub_end(Hub *h)
{
    if (h->ended)
        return;
    h->ended = true;
    if (h->crew)
        crew_dismiss(h->crew);
    for (HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS; w++) {
        Message m;
        message_init(&m, MSG_END);
        if (w->used)
            wire_send(h->port[w->port].socket, &w->id, &m);
    }
}

void hub_close(Hub **hub)
{
    Hub *h = *hub;
    if (!h)
        return;
    hub_end(h);
    for (int i = 0; i < h->ports; i++)
        wire_flush(h->port[i].socket);
    crew_stop(&h->crew);
    for (int i = 0; i < h->ports; i++)
        wire_close(&h->port[i].socket, LINGER_MS);
    for (HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS; w++)
        if (w->used)
            process_forget(&w->gone);
    custody_each(&h->custody, drop_record, h);
    desk_free(h);
    message_clear(&h->welcome);
    if (h->deaths >= 0)
        close(h->deaths);
    free(h);
    *hub = NULL;
}
