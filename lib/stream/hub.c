#include "stream/hub.h"

#include "stream/ends.h"
#include "stream/gauges.h"
#include "stream/hub_state.h"
#include "stream/pack.h"
#include "stream/process.h"
#include "stream/sockdir.h"
#include "util/err.h"
#include "util/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

/* Answers of one worker that wait to be read, of so many that send them inline, all. */
enum { ANSWERS = 8, HUB_INLINE = 128, PACK_MOST = PACK_BYTES + PACK_RECORD + (64 << 10) };
enum { LINGER_MS = 300, LEAST_ROOM = 64, MOST_ROOM = 4096, LOOK_MS = 250 };
static const int64_t LARGEST_FRAME = (int64_t)1 << 31;
/* Seconds, unless the configuration says otherwise; see HubConfig. */
static const double LATE = 2, SILENT = 10;
static const double LONGEST_ANSWER = 30, LOOK_EACH = 0.02;

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
    if (h->crew && crew_has(h->crew, w->pid))
        return; /* reaped */
    w->gone = process_watch(w->pid);
    if (w->gone < 0)
        w->pid = 0; /* not to be seen from here: silence will tell */
    else
        epoll_ctl(h->deaths, EPOLL_CTL_ADD, w->gone, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = w });
}

/* A process that lost us and says hello again has let go of what it had before. */
static void forget_former(Hub *h, pid_t pid)
{
    for (HubWorker *w = h->worker; w < h->worker + h->reach && pid; w++)
        if (w->used && w->pid == pid)
            worker_lose(h, w, false, "has begun anew");
    desk_reclaim(h, pid);
}

static void on_hello(Hub *h, int port, const WireId *from, const Message *m)
{
    HubWorker *w = h->worker;
    if (strcmp(message_text(m, "role", ""), "worker")) {
        refuse(h, port, from, "this is the ticket of a pool of workers: it is for hssl-augment --join");
        return;
    }
    int64_t number = port ? 0 : message_int(m, "pid", 0);
    pid_t pid = number > 0 && number < INT32_MAX ? (pid_t)number : 0;
    forget_former(h, pid);
    while (w < h->worker + h->reach && w->used)
        w++;
    if (w == h->worker + HUB_MAX_WORKERS) {
        refuse(h, port, from, "too many workers");
        return;
    }
    if (w == h->worker + h->reach)
        h->reach++;
    *w = (HubWorker){ .used = true, .id = *from, .port = port, .gone = -1, .heard = log_seconds(),
                      .number = ++h->counts.joined, .pid = pid };
    h->counts.workers++;
    wire_keep(h->port[port].socket, from, true);
    if (w->pid)
        watch_process(h, w);
    if (w->pid && strcmp(h->config.medium, "inline"))
        w->desk = desk_lend(h);
    if (h->welcomed && greet(h, w))
        worker_remove(h, w, false);
}

static HubWorker *find_worker(Hub *h, int port, const WireId *id)
{
    for (HubWorker *w = h->worker; w < h->worker + h->reach; w++)
        if (w->used && w->port == port && w->id.size == id->size && !memcmp(w->id.bytes, id->bytes, id->size))
            return w;
    return NULL;
}

static void on_want(HubWorker *w, const Message *m)
{
    if (m->credit)
        w->credit = (int64_t)(m->credit < HUB_QUEUE ? m->credit : HUB_QUEUE) - w->queue;
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
    m->reading = 0; /* was done */
    m->name = NULL;
    m->text = NULL;
    m->plan = NULL;
    m->views = m->numbers = m->acks = m->facts = 0;
    m->credit = m->limit = 0;
    return record->name ? message_set_name(m, record->name) : 0;
}

/* The answer becomes the record's result. */
static int settle(Hub *h, Held *r, Message *m, Slot *slot)
{
    if (m->bad) {
        hub_make_bad(h, r, m->bad);
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
    } else {
        custody_weigh(&h->custody, r, h->slot_bytes);
    }
    custody_set(&h->custody, r, CUSTODY_DONE, false);
    return 0;
}

static void on_answer(Hub *h, HubWorker *w, Message *m, double now)
{
    int64_t number = message_int(m, "slot", -1);
    Slot *slot = w->desk && number >= 0 && number < w->desk->slots ? &w->desk->slot[number] : NULL;
    int place = worker_place(w, m->seq);
    Held *r = custody_find(&h->custody, m->seq);

    if (slot && (slot->state != SLOT_LENT || slot->seq != m->seq))
        slot = NULL;
    w->late = false;
    if (place >= 0) {
        worker_unqueue(w, place);
        if (r)
            r->holders -= r->holders > 0;
        w->credit += w->credit < HUB_QUEUE;
        w->alone = w->alone && w->queue;
    }
    if (w->pid && h->crew)
        crew_praise(h->crew, w->pid);
    if (!r || (r->state != CUSTODY_OUT && r->state != CUSTODY_WAITING)) {
        h->counts.duplicates++;
    } else if (!m->bad && !slot && !fits(h, m)) {
        worker_lose(h, w, w->pid > 0, "answers what nobody asked");
    } else {
        double took = now - r->since < LONGEST_ANSWER ? now - r->since : LONGEST_ANSWER;
        h->answer += 0.05 * (took - h->answer);
        if (settle(h, r, m, slot) && !r->holders && r->state == CUSTODY_OUT)
            custody_set(&h->custody, r, CUSTODY_WAITING, true);
    }
    if (slot && slot->state == SLOT_LENT)
        slot->state = SLOT_FREE;
}

/* One that gives up does so over the record at hand, as if it had crashed. */
static void on_fail(Hub *h, HubWorker *w, const Message *m)
{
    char why[200];
    snprintf(why, sizeof why, "gave up (%.150s)", m->text ? m->text : "it does not say why");
    worker_crashed(h, w, why);
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
            w->full = false;
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
            on_fail(h, w, &m);
        else if (w && m.type == MSG_BYE)
            worker_remove(h, w, false);
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
    int look = h->config.late < 2 ? (int)(1000 * h->config.late / 4) + 1 : LOOK_MS;
    bool busy = h->custody.n || h->counts.workers;
    return busy && (ms < 0 || ms > look) ? look : ms;
}

bool hub_busy(const Hub *h)
{
    if (custody_waiting(&h->custody))
        return true;
    for (const HubWorker *w = h->worker; w < h->worker + HUB_MAX_WORKERS; w++)
        if (w->used && w->ready && !w->silent && !w->queue)
            return false;
    return h->custody.n > 0;
}

static void show_counts(const Hub *h)
{
    HubCounts c = hub_counts(h);
    gauge_set(GAUGE_HELD_BYTES, h->custody.bytes);
    gauge_set(GAUGE_WORKERS, (uint64_t)c.workers);
    gauge_set(GAUGE_LOST, (uint64_t)c.lost);
    gauge_set(GAUGE_RESTARTS, (uint64_t)c.restarts);
    gauge_set(GAUGE_AGAIN, (uint64_t)c.again);
    gauge_set(GAUGE_DUPLICATES, (uint64_t)c.duplicates);
}

int hub_look(Hub *h)
{
    double now = log_seconds();
    for (int i = 0; i < h->ports; i++)
        read_port(h, i, now);
    hub_look_for_deaths(h);
    if (h->crew && crew_failed(h->crew))
        return -1;
    if (now - h->looked > LOOK_EACH) {
        hub_look_for_silence(h, now);
        hub_hand_out_late(h, now);
        h->looked = now;
    }
    hub_hand_out(h, now);
    show_counts(h);
    return 0;
}

bool hub_room(const Hub *h)
{
    size_t room = (size_t)h->depth * (size_t)(h->counts.workers + 1) * 2;
    if (h->config.memory > 0 && h->custody.n && h->custody.bytes >= (uint64_t)h->config.memory)
        return false;
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
    hub_hand_out(h, log_seconds());
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
    h->passed++;
    return true;
}

bool hub_acked(Hub *h, uint64_t seq)
{
    Held *r = custody_find(&h->custody, seq);
    if (!r || r->state != CUSTODY_PASSED)
        return false;
    if (r->slot)
        r->slot->state = SLOT_FREE;
    h->passed--;
    custody_drop(&h->custody, r);
    return true;
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
    h->passed = 0;
}

bool hub_idle(const Hub *h)
{
    return h->custody.n == h->passed;
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
    WireBounds b = wire_bounds(ZMQ_ROUTER);
    int64_t answer = (h->slot_bytes > PACK_MOST ? (int64_t)h->slot_bytes : PACK_MOST) + WIRE_CONTROL_BYTES;
    b.queue = ANSWERS;
    b.frame = answer < LARGEST_FRAME ? answer : LARGEST_FRAME;
    b.unread = (ANSWERS + 2) * answer; /* beside those that wait one that comes and one that found no room */
    b.unread_all = HUB_INLINE * b.unread;
    if (!(h->port[p].socket = wire_socket(ZMQ_ROUTER)))
        return -1;
    h->ports++;
    snprintf(h->port[p].ticket.kind, sizeof h->port[p].ticket.kind, "work");
    return wire_bound(h->port[p].socket, &b) || wire_bind(h->port[p].socket, "work", listen, &h->port[p].ticket)
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
    if (h->config.late <= 0)
        h->config.late = LATE;
    if (h->config.silent <= 0)
        h->config.silent = SILENT;
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
    gauges_name(GAUGE_WORK, h->port[0].ticket.endpoint);
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
    for (HubWorker *w = h->worker; w < h->worker + h->reach && !h->welcomed; w++)
        if (w->used && greet(h, w))
            worker_remove(h, w, false);
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
    for (HubWorker *w = h->worker; w < h->worker + h->reach; w++) {
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
    sockdir_tidy(); /* what killed workers left */
    for (int i = 0; i < h->ports; i++)
        wire_close(&h->port[i].socket, LINGER_MS);
    for (HubWorker *w = h->worker; w < h->worker + h->reach; w++)
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
