#include "stream/worker.h"

#include "stream/gauges.h"
#include "stream/shm.h"
#include "stream/sockdir.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CREDIT = 256, LINGER_MS = 500, POLL_ITEMS = 3 };
static const double PULSE = 1, RETRY = 1; /* seconds between signs of life; before the next attempt to connect */

struct Worker {
    WorkerConfig config;
    Ticket ticket;
    void *socket;
    WireWatch watch;
    Message welcome, fresh; /* the first; that of the present connection */
    bool met, welcomed, ended, orphaned, refused;
    char reason[256];
    int life;
    int results;
    HubResult result[HUB_MAX_RESULTS];
    size_t offset[HUB_MAX_RESULTS], bytes[HUB_MAX_RESULTS], slot_bytes;
    ShmBlock *desk;
    double pulse, met_at; /* last sign of life; when the hub was last connected */
};

/* ---------------------------------------------------------------- connecting */

static void disconnect(Worker *w, int linger_ms)
{
    wire_watch_close(&w->watch, w->socket);
    wire_close(&w->socket, linger_ms);
    shm_free(&w->desk);
    message_clear(&w->fresh);
    w->welcomed = false;
}

static int connect_hub(Worker *w)
{
    Message m;
    w->watch = (WireWatch){ 0 };
    if (!(w->socket = wire_socket(ZMQ_DEALER)) || wire_watch(&w->watch, w->socket) ||
        wire_connect(w->socket, &w->ticket))
        return -1;
    message_init(&m, MSG_HELLO);
    if (message_set_int(&m, "version", TICKET_VERSION) || message_set_text(&m, "program", w->config.program) ||
        message_set_text(&m, "role", "worker") || message_set_int(&m, "pid", getpid())) {
        message_clear(&m);
        return -1;
    }
    w->pulse = log_seconds();
    return wire_send(w->socket, NULL, &m) < 0 ? -1 : 0;
}

/* On the hub's own host its ipc socket is the shorter way. */
static void choose_way(Ticket *t)
{
    const char *local = ticket_get(t, "local");
    if (!local || strncmp(local, "ipc://", 6) || access(local + 6, W_OK))
        return;
    if (sockdir_check(local + 6)) {
        err_clear();
        return;
    }
    snprintf(t->endpoint, sizeof t->endpoint, "%s", local);
}

Worker *worker_open(const Ticket *t, const WorkerConfig *c)
{
    Worker *w = calloc(1, sizeof *w);
    if (!w) {
        err_set(ERR_MEMORY, "out of memory");
        return NULL;
    }
    wire_keep_memory();
    gauges_open(c->program);
    w->config = *c;
    w->ticket = *t;
    w->met_at = log_seconds();
    message_init(&w->welcome, MSG_NONE);
    message_init(&w->fresh, MSG_NONE);
    choose_way(&w->ticket);
    gauges_name(GAUGE_KIND, "worker");
    gauges_name(GAUGE_READS, w->ticket.endpoint);
    /* A pipe from another host (ssh host hssl-augment --join - < ticket) is at its end at once. */
    w->life = wire_is_pipe(c->life) && !strncmp(w->ticket.endpoint, "ipc://", 6) ? c->life : -1;
    if (connect_hub(w))
        worker_close(&w);
    return w;
}

/* ---------------------------------------------------------------- the hub's memory */

static int locate(Worker *w)
{
    uint64_t size = w->desk->size;
    int64_t slot = message_int(&w->fresh, "slot_bytes", 0);
    char key[64];
    if (slot <= 0 || (uint64_t)slot > size)
        return -1;
    w->slot_bytes = (size_t)slot;
    for (int i = 0; i < w->results; i++) {
        snprintf(key, sizeof key, "offset_%s", w->result[i].name);
        int64_t at = message_int(&w->fresh, key, -1);
        if (at < 0 || at > slot || w->bytes[i] > (size_t)(slot - at))
            return -1;
        w->offset[i] = (size_t)at;
    }
    return 0;
}

/* Map what the hub offers, and tell it which medium it is to be, and that records may come. */
static int begin(Worker *w)
{
    int64_t pid = message_int(&w->fresh, "desk_pid", 0), fd = message_int(&w->fresh, "desk_fd", -1),
            size = message_int(&w->fresh, "desk_size", 0);
    Message m;
    shm_free(&w->desk);
    if (pid && size > 0 && strcmp(w->config.medium, "inline")) {
        w->desk = shm_attach(pid, fd, (uint64_t)size, true);
        if (w->desk && locate(w))
            shm_free(&w->desk);
        err_clear();
    }
    message_init(&m, MSG_WANT);
    m.credit = CREDIT;
    if (message_set_text(&m, "medium", w->desk ? "shm" : "inline")) {
        message_clear(&m);
        return -1;
    }
    return wire_send(w->socket, NULL, &m) < 0 ? -1 : 0;
}

int worker_results(Worker *w, int n, const HubResult *result)
{
    w->results = n;
    for (int i = 0; i < n; i++) {
        w->result[i] = result[i];
        w->bytes[i] = 1;
        for (int d = 0; d < result[i].ndim; d++)
            w->bytes[i] *= (size_t)result[i].shape[d];
    }
    return begin(w);
}

/* ---------------------------------------------------------------- talking */

static int on_welcome(Worker *w, Message *m)
{
    message_clear(&w->fresh);
    w->fresh = *m;
    message_init(m, MSG_NONE);
    w->welcomed = true;
    if (w->met)
        return begin(w);
    w->met = true;
    return message_copy(&w->welcome, &w->fresh);
}

/* 1: a record, 0: none now, -1. */
static int receive(Worker *w, Message *m)
{
    int rc;
    while ((rc = wire_recv(w->socket, NULL, m)) == 1) {
        w->met_at = log_seconds();
        if (m->type == MSG_DATA && w->results) {
            gauge_add(GAUGE_RECORDS_IN, 1);
            gauge_add(GAUGE_BYTES_IN, (int64_t)message_bytes(m));
            return 1;
        }
        if (m->type == MSG_WELCOME && on_welcome(w, m))
            return -1;
        if (m->type == MSG_END)
            w->ended = true;
        if (m->type == MSG_FAIL) {
            w->refused = !w->welcomed;
            w->watch.lost = true;
            snprintf(w->reason, sizeof w->reason, "%s", m->text ? m->text : "the hub refuses");
        }
        message_clear(m);
    }
    return rc;
}

static int give_up(Worker *w)
{
    const char *program = message_text(&w->welcome, "program", "hssl-augment");
    if (w->watch.refused)
        return err_set(ERR_PEER, "%s refuses this ticket: it is of another run, or spoilt", w->ticket.endpoint);
    if (w->refused)
        return err_set(ERR_PEER, "%s: %s", w->ticket.endpoint, w->reason);
    return err_set(ERR_PEER, "%s does not answer any more at %s", program, w->ticket.endpoint);
}

/* Look after the connection. -1 when there is no hope. */
static int tend(Worker *w)
{
    double now = log_seconds();
    wire_watch_read(&w->watch);
    if (w->watch.refused || w->refused)
        return give_up(w);
    if ((w->watch.lost || !w->met) && w->life >= 0 && wire_writer_gone(w->life)) {
        w->ended = w->orphaned = true; /* the hub that started this worker has gone */
        return 0;
    }
    if (w->watch.connected && !w->watch.lost)
        w->met_at = now;
    if (now - w->met_at > w->config.patience)
        return give_up(w);
    if (w->watch.lost && now - w->pulse > RETRY) {
        disconnect(w, 0);
        return connect_hub(w);
    }
    if (w->welcomed && w->results && now - w->pulse > PULSE) {
        Message m;
        message_init(&m, MSG_WANT);
        w->pulse = now;
        return wire_send(w->socket, NULL, &m) < 0 ? -1 : 0;
    }
    return 0;
}

static int wait_for_hub(Worker *w)
{
    zmq_pollitem_t items[POLL_ITEMS + 1];
    int n = 0;
    items[n++] = (zmq_pollitem_t){ .socket = w->socket, .events = ZMQ_POLLIN };
    items[n++] = (zmq_pollitem_t){ .socket = w->watch.events, .events = ZMQ_POLLIN };
    if (!w->met && w->life >= 0)
        items[n++] = (zmq_pollitem_t){ .fd = w->life, .events = ZMQ_POLLIN };
    gauge_state(GAUGE_WAITS_IN);
    int rc = wire_poll(items, n, (int)(1000 * PULSE), true);
    gauge_state(GAUGE_BUSY);
    return rc < 0 ? -1 : 0;
}

const Message *worker_welcome(Worker *w)
{
    Message m;
    while (!w->met) {
        if (receive(w, &m) < 0 || tend(w))
            return NULL;
        if (w->orphaned || (w->ended && w->life >= 0)) {
            err_clear(); /* the hub that started this worker came to its end first, and has nothing to hear
                            about it */
            return NULL;
        }
        if (w->ended) {
            err_set(ERR_PEER, "%s: the work ended before it began", w->ticket.endpoint);
            return NULL;
        }
        if (!w->met && wait_for_hub(w))
            return NULL;
    }
    return &w->welcome;
}

/* Where the result is to be written. */
static int place(Worker *w, WorkerTask *t)
{
    t->slot = w->desk ? message_int(&t->record, "slot", -1) : -1;
    message_init(&t->answer, MSG_DATA);
    t->answer.seq = t->record.seq;
    if (t->slot >= 0 && (uint64_t)t->slot >= w->desk->size / w->slot_bytes)
        return err_set(ERR_PEER, "%s: no such slot", w->ticket.endpoint);
    for (int i = 0; i < w->results; i++) {
        const HubResult *r = &w->result[i];
        if (t->slot >= 0)
            t->out[i] = (uint8_t *)w->desk->mem + (size_t)t->slot * w->slot_bytes + w->offset[i];
        else if (!(t->out[i] = message_add(&t->answer, r->name, MSG_U8, r->ndim, r->shape)))
            return -1;
    }
    return t->slot >= 0 ? message_set_int(&t->answer, "slot", t->slot) : 0;
}

int worker_next(Worker *w, WorkerTask *t)
{
    *t = (WorkerTask){ .slot = -1 };
    for (;;) {
        int rc = receive(w, &t->record);
        if (rc == 1 && !place(w, t))
            return 1;
        if (rc) {
            message_clear(&t->record);
            message_clear(&t->answer);
            return -1;
        }
        if (w->ended)
            return 0;
        if (tend(w) || (!w->ended && wait_for_hub(w)))
            return -1;
    }
}

int worker_answer(Worker *w, WorkerTask *t, const char *bad)
{
    int rc = 0;
    gauge_add(GAUGE_RECORDS_OUT, 1);
    gauge_add(GAUGE_BAD, bad != NULL);
    if (bad) {
        message_drop_tensors(&t->answer);
        rc = message_set_bad(&t->answer, bad);
    }
    message_clear(&t->record);
    if (!rc) {
        w->pulse = log_seconds();
        rc = wire_send(w->socket, NULL, &t->answer) < 0;
    }
    message_clear(&t->answer);
    return rc ? -1 : 0;
}

void worker_fail(Worker *w, const char *reason)
{
    Message m;
    message_init(&m, MSG_FAIL);
    if (!message_set_reason(&m, reason))
        wire_send(w->socket, NULL, &m);
    message_clear(&m);
}

void worker_close(Worker **worker)
{
    Worker *w = *worker;
    if (!w)
        return;
    if (w->socket) {
        wire_watch_read(&w->watch);
        if (w->watch.connected && !w->watch.lost) {
            Message bye;
            message_init(&bye, MSG_BYE);
            wire_send(w->socket, NULL, &bye);
            wire_flush(w->socket);
        }
    }
    disconnect(w, LINGER_MS);
    message_clear(&w->welcome);
    free(w);
    *worker = NULL;
    gauges_close();
}
