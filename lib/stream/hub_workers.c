/* Workers that go, and who gets which record. */
#include "stream/hub_state.h"
#include "stream/process.h"
#include "util/err.h"
#include "util/log.h"
#include "util/stop.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

enum { CRASHES = 3, MOST_DOUBLINGS = 6 };
/* A kill says little of the record: after KILLS it is rendered alone, after KILLS_ALONE more in that state it is bad. */
enum { KILLS = 3, KILLS_ALONE = 5 };
/* A worker that cannot be watched is forgotten after so many times the silence that makes it suspect. */
enum { FORGET = 12 };
enum { NEIGHBOUR_MS = 50 };

/* ---------------------------------------------------------------- workers that go */

int worker_place(const HubWorker *w, uint64_t seq)
{
    int i = 0;
    while (i < w->queue && w->seq[i] != seq)
        i++;
    return i < w->queue ? i : -1;
}

void worker_unqueue(HubWorker *w, int i)
{
    memmove(&w->seq[i], &w->seq[i + 1], (size_t)(--w->queue - i) * sizeof *w->seq);
}

/* What it held goes to others, before all else, in its order. */
static void release_queue(Hub *h, HubWorker *w)
{
    w->alone = false;
    while (w->queue) {
        Held *r = custody_find(&h->custody, w->seq[--w->queue]);
        if (!r)
            continue;
        r->holders -= r->holders > 0;
        if (r->state == CUSTODY_OUT && !r->holders)
            custody_set(&h->custody, r, CUSTODY_WAITING, true);
    }
}

void worker_remove(Hub *h, HubWorker *w, bool writes)
{
    release_queue(h, w);
    if (w->desk && writes)
        desk_orphan(w->desk, w->pid);
    else if (w->desk)
        desk_return(w->desk);
    process_forget(&w->gone);
    wire_keep(h->port[w->port].socket, &w->id, false);
    w->used = false;
    h->counts.workers--;
}

void worker_lose(Hub *h, HubWorker *w, bool writes, const char *why)
{
    log_warn("worker %ld %s; %d record%s it had go%s to others", w->number, why, w->queue,
             w->queue == 1 ? " that" : "s that", w->queue == 1 ? "es" : "");
    h->counts.lost++;
    worker_remove(h, w, writes);
}

void hub_make_bad(Hub *h, Held *r, const char *why)
{
    message_clear(&r->result);
    if (message_copy(&r->result, &r->record) || message_set_bad(&r->result, why)) {
        message_clear(&r->result);
        return; /* no memory: the record stays where it is and is tried again */
    }
    custody_set(&h->custody, r, CUSTODY_DONE, false);
}

/* Which one it died of cannot be told: it may have answered some that never arrived. So all are suspect, and each
 * is rendered by a worker that has no other; who crashes then has said which. */
void worker_crashed(Hub *h, HubWorker *w, const char *why)
{
    char bad[256];
    uint64_t only = w->seq[0];
    bool alone = w->queue == 1;
    for (int i = 0; i < w->queue; i++) {
        Held *r = custody_find(&h->custody, w->seq[i]);
        if (r)
            r->crashes++;
    }
    worker_lose(h, w, false, why);
    Held *r = alone ? custody_find(&h->custody, only) : NULL;
    if (!r || r->state != CUSTODY_WAITING || r->crashes < CRASHES)
        return;
    snprintf(bad, sizeof bad, "%d workers failed over it: the last one %s", r->crashes, why);
    hub_make_bad(h, r, bad);
}

/* By the system that is out of memory, perhaps over this record; or by somebody who chose any worker. */
static void worker_killed(Hub *h, HubWorker *w, const char *why)
{
    char bad[64];
    uint64_t only = w->seq[0];
    bool alone = w->alone && w->queue == 1;
    for (int i = 0; i < w->queue; i++) {
        Held *r = custody_find(&h->custody, w->seq[i]);
        if (r)
            r->kills++;
    }
    worker_lose(h, w, false, why);
    Held *r = alone ? custody_find(&h->custody, only) : NULL;
    if (!r || r->state != CUSTODY_WAITING || ++r->alone < KILLS_ALONE)
        return;
    snprintf(bad, sizeof bad, "killed %d workers", r->kills + r->crashes);
    hub_make_bad(h, r, bad);
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

/* Nothing is said of one that the signal to the whole pipeline reached first. */
static void lose_child(Hub *h, HubWorker *w, bool writes, const char *why)
{
    if (stop_within(NEIGHBOUR_MS))
        worker_remove(h, w, false);
    else
        worker_lose(h, w, writes, why);
}

static void child_ended(Hub *h, pid_t pid, int status)
{
    char why[64];
    describe_end(status, why, sizeof why);
    for (HubWorker *w = h->worker; w < h->worker + h->reach; w++) {
        if (!w->used || w->pid != pid)
            continue;
        if (is_crash(status))
            worker_crashed(h, w, why);
        else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
            worker_killed(h, w, why);
        else
            lose_child(h, w, false, why);
        return;
    }
    if (!h->ended && !stop_within(NEIGHBOUR_MS))
        log_warn("a worker without work %s", why);
}

void hub_look_for_deaths(Hub *h)
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
        worker_lose(h, w, false, "has died");
    }
}

void hub_look_for_silence(Hub *h, double now)
{
    double silent = h->config.silent;
    for (HubWorker *w = h->worker; w < h->worker + h->reach; w++) {
        w->full = false;
        if (!w->used || now - w->heard < silent)
            continue;
        if (!w->pid && now - w->heard > FORGET * silent) {
            worker_lose(h, w, false, "was not heard of again");
        } else if (!w->silent) {
            log_warn("worker %ld is silent: it gets no more until it is heard of", w->number);
            w->silent = true;
            release_queue(h, w);
        }
    }
}

/* ---------------------------------------------------------------- handing out */

static bool is_suspect(const Held *r)
{
    return r->crashes || r->kills >= KILLS;
}

static bool may_have(const Hub *h, const HubWorker *w, const Held *r)
{
    return w->used && w->ready && !w->silent && !w->full && !w->alone && w->credit > 0 &&
           w->queue < (is_suspect(r) ? 1 : h->depth) &&
           (!w->desk || desk_free_slot(w->desk)) && (!r->holders || worker_place(w, r->seq) < 0);
}

/* Of those that may have it and have not, the one with the least to do. One that lets a record wait gets more only
 * where all do: else what it never answers would go from one that hangs to the next. */
static HubWorker *idlest(Hub *h, const Held *r)
{
    HubWorker *best = NULL;
    bool prompt = false;
    for (HubWorker *w = h->worker; w < h->worker + h->reach; w++) {
        prompt = prompt || (w->used && w->ready && !w->silent && !w->late);
        if (may_have(h, w, r) && (!best || w->late < best->late || (w->late == best->late && w->queue < best->queue)))
            best = w;
    }
    return best && best->late && prompt ? NULL : best;
}

static double patience_with(const Hub *h, const Held *r)
{
    double first = 4 * h->answer > h->config.late ? 4 * h->answer : h->config.late;
    return first * (double)(1 << (r->tries < MOST_DOUBLINGS ? r->tries : MOST_DOUBLINGS));
}

/* 1: sent, 0: the worker has gone, -1. */
static int send_record(Hub *h, HubWorker *w, const Held *r, const Slot *slot)
{
    Message m;
    err_clear();
    if (message_copy(&m, &r->record))
        return -1;
    if (slot && message_set_int(&m, "slot", desk_slot_number(slot))) {
        message_clear(&m);
        return -1;
    }
    return wire_send(h->port[w->port].socket, &w->id, &m);
}

/* Afterwards it has it, or is lost or full, or the record is bad: 0. -1: not now, there is no memory. */
static int give(Hub *h, HubWorker *w, Held *r, double now)
{
    double idle;
    w->full = wire_unsent(h->port[w->port].socket, &w->id, &idle) > WIRE_UNSENT_RECORDS;
    if (w->full)
        return 0;
    Slot *slot = w->desk ? desk_take(w->desk, r->seq) : NULL;
    int rc = send_record(h, w, r, slot);
    if (rc != 1) {
        if (slot)
            slot->state = SLOT_FREE;
        if (rc == 0 && w->pid > 0)
            lose_child(h, w, true, "cannot be reached");
        else if (rc == 0)
            worker_lose(h, w, false, "cannot be reached");
        else if (err_code() == ERR_DATA) /* no room in its header for what we add */
            hub_make_bad(h, r, err_text());
        return rc == 0 || r->state == CUSTODY_DONE ? 0 : -1;
    }
    w->seq[w->queue++] = r->seq;
    w->credit--;
    w->alone = is_suspect(r);
    if (!r->tries)
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
} Late;

static void try_another(void *arg, Held *r)
{
    Late *o = arg;
    if (r->state != CUSTODY_OUT || r->due > o->now)
        return;
    for (HubWorker *has = o->hub->worker; has < o->hub->worker + o->hub->reach; has++)
        has->late = has->late || (has->used && worker_place(has, r->seq) >= 0);
    HubWorker *w = idlest(o->hub, r);
    if (!w || give(o->hub, w, r, o->now) || w->full)
        r->due = o->now + o->hub->config.late / 8;
}

void hub_hand_out_late(Hub *h, double now)
{
    custody_each(&h->custody, try_another, &(Late){ h, now });
}

void hub_hand_out(Hub *h, double now)
{
    Held *r;
    HubWorker *w;
    while ((r = custody_waiting(&h->custody)) && (w = idlest(h, r)))
        if (give(h, w, r, now))
            break;
}
