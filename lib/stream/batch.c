#include "stream/batch.h"

#include "stream/badlist.h"
#include "stream/gauges.h"
#include "stream/stage.h"
#include "util/err.h"
#include "util/fault.h"
#include "util/idset.h"
#include "util/log.h"
#include "util/stop.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MAX_SLOTS = 64, MAX_SIDE = 8192, PIXEL = 3, BAD_BYTES = 64 << 20 };

typedef enum { SLOT_FREE, SLOT_FILLING, SLOT_READY, SLOT_HELD } SlotState;
enum { MISSING, GOOD, BAD };

typedef struct {
    SlotState state;
    uint64_t number;
    int64_t have;
    uint8_t *mark; /* [B] MISSING, GOOD, BAD */
    uint64_t *seq, *id;
    int32_t *label;
    BadList bad; /* those of which the caller has not heard yet */
    Batch batch;
} Slot;

struct Batches {
    BatchesConfig config;
    Sink *sink;
    int wake; /* eventfd: the caller released a slot or closes */
    pthread_t thread;
    bool running;

    pthread_mutex_t guard;
    pthread_cond_t changed;
    /* Under guard. */
    bool shaped, ended, failed, closing;
    ErrCode code;
    char text[512];
    Slot slot[MAX_SLOTS];
    uint64_t next; /* number of the batch to hand out next */
    IdSet bad;     /* images of which the caller knows that they are bad */
    size_t bad_bytes; /* of images that wait in the slots' lists */

    /* Set before `shaped`, constant afterwards. */
    BatchShape shape;
    Message welcome;
    int slots;
    ShmBlock *block;
    uint8_t *memory; /* the block's, or malloc'd where sharing failed */

    /* The receiving thread's own. */
    uint64_t opened; /* batches up to here have a slot, or had one */
    double waited; /* the caller's own */
};

static uint64_t batch_seq(const BatchShape *s, uint64_t number)
{
    return number / s->batches_per_epoch * s->records_per_epoch +
           number % s->batches_per_epoch * (uint64_t)s->batch_size;
}

/* ---------------------------------------------------------------- shape and memory */

static int view_bytes(int64_t views, int64_t side, int64_t batch, size_t *bytes)
{
    *bytes = (size_t)(views * side * side * PIXEL);
    return __builtin_mul_overflow(*bytes, (size_t)batch, bytes) || *bytes > (size_t)1 << 44
               ? err_set(ERR_MEMORY, "a batch of %" PRId64 " records of %" PRId64 " views of %" PRId64 " pixels a side "
                                     "is too large: lower --batch-size", batch, views, side)
               : 0;
}

static int read_shape(Batches *b, const Message *w)
{
    BatchShape *s = &b->shape;
    int64_t n = message_int(w, "records_per_epoch", 0), globals = message_int(w, "globals", 0),
            size = message_int(w, "global_size", 0), locals = message_int(w, "locals", 0),
            local_size = message_int(w, "local_size", 0), batch = b->config.batch_size;
    if (n < 1 || n > BATCH_MOST_RECORDS || globals < 1 || globals > MSG_MAX_VIEWS || size < 1 ||
        size > MAX_SIDE || locals < 0 || locals > MSG_MAX_VIEWS ||
        (locals && (local_size < 1 || local_size > MAX_SIDE)))
        return err_set(ERR_DATA, "the stream of views does not say properly what it holds (records_per_epoch, globals, "
                                 "global_size, locals, local_size)");
    if (b->config.records && (uint64_t)n != b->config.records)
        return err_set(ERR_USAGE,
                       "the stream has %" PRId64 " images an epoch, %" PRIu64
                       " are wanted: another dataset than before?",
                       n, b->config.records);
    if (batch > n)
        return err_set(ERR_USAGE, "a batch of %" PRId64 " records, but an epoch has only %" PRId64
                                  ": lower --batch-size", batch, n);
    *s = (BatchShape){ .batch_size = batch, .records_per_epoch = (uint64_t)n,
                       .batches_per_epoch = (uint64_t)(n / batch), .globals = (int)globals, .global_size = (int)size,
                       .locals = (int)locals, .local_size = locals ? (int)local_size : 0 };
    if (view_bytes(globals, size, batch, &s->global_bytes) || view_bytes(locals, s->local_size, batch, &s->local_bytes))
        return -1;
    uint64_t epoch = b->config.start / (uint64_t)n, in_epoch = b->config.start % (uint64_t)n;
    if (in_epoch % (uint64_t)batch || in_epoch / (uint64_t)batch >= s->batches_per_epoch)
        return err_set(ERR_USAGE, "position %" PRIu64 " is not the beginning of a batch of %" PRId64
                                  " records in epochs of %" PRId64 ": another --batch-size or dataset than before?",
                       b->config.start, batch, n);
    b->opened = b->next = epoch * s->batches_per_epoch + in_epoch / (uint64_t)batch;
    return message_copy_facts(&b->welcome, w);
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static int make_slots(Batches *b)
{
    const BatchShape *s = &b->shape;
    size_t local_at = round_up(s->global_bytes, 64), each = round_up(local_at + s->local_bytes, 4096);
    size_t count = (size_t)s->batch_size, total;
    /* Enough batches that many workers find work even where batches are small. */
    int64_t slots = b->config.slots ? b->config.slots : 2 + (63 + s->batch_size) / s->batch_size;
    b->slots = slots < 2 ? 2 : slots > 10 && !b->config.slots ? 10 : slots > MAX_SLOTS ? MAX_SLOTS : (int)slots;
    if (!b->config.slots && b->slots < 3)
        b->slots = 3;
    if (__builtin_mul_overflow(each, (size_t)b->slots, &total) || total > INT64_MAX / 2)
        return err_set(ERR_MEMORY, "batches too large: lower --batch-size");
    if (sink_memory(b->sink, (int64_t)total)) /* records for all slots may come before one is read */
        return -1;
    b->block = shm_create(total);
    if (b->block)
        b->memory = b->block->mem;
    else if (!(b->memory = malloc(total)))
        return err_set(ERR_MEMORY, "no memory for %d batches (%zu bytes): lower --batch-size", b->slots, total);
    for (int i = 0; i < b->slots; i++) {
        Slot *slot = &b->slot[i];
        slot->mark = calloc(count, 1);
        slot->seq = calloc(count, sizeof *slot->seq);
        slot->id = calloc(count, sizeof *slot->id);
        slot->label = calloc(count, sizeof *slot->label);
        if (!slot->mark || !slot->seq || !slot->id || !slot->label)
            return err_set(ERR_MEMORY, "no memory for batches of %zu records", count);
        size_t at = each * (size_t)i;
        slot->batch = (Batch){ .seq = slot->seq, .id = slot->id, .label = slot->label, .global = b->memory + at,
                               .local = s->locals ? b->memory + at + local_at : NULL, .offset_global = at,
                               .offset_local = at + local_at, .slot = i };
    }
    return 0;
}

/* ---------------------------------------------------------------- filling */

/* Open as many batches as there are free slots; the limit follows. */
static void open_batches(Batches *b)
{
    pthread_mutex_lock(&b->guard);
    for (Slot *s; s = &b->slot[b->opened % (uint64_t)b->slots], s->state == SLOT_FREE; b->opened++) {
        s->state = SLOT_FILLING;
        s->number = b->opened;
        s->have = 0;
        memset(s->mark, MISSING, (size_t)b->shape.batch_size);
    }
    pthread_mutex_unlock(&b->guard);
    sink_limit(b->sink, batch_seq(&b->shape, b->opened));
}

static int copy_views(const Batches *b, const Message *m, const char *name, int views, int side, uint8_t *to, int64_t at)
{
    const MsgTensor *t = message_tensor(m, name);
    size_t view = (size_t)side * (size_t)side * PIXEL;
    if (!t || !t->data || t->dtype != MSG_U8 || t->ndim != 4 || t->shape[0] != views || t->shape[1] != side ||
        t->shape[2] != side || t->shape[3] != PIXEL)
        return err_set(ERR_DATA, "record %" PRIu64 ": tensor %s is not u8[%d,%d,%d,3]", m->seq, name, views, side, side);
    for (int v = 0; v < views; v++)
        memcpy(to + ((size_t)v * (size_t)b->shape.batch_size + (size_t)at) * view, (const uint8_t *)t->data + (size_t)v * view,
               view);
    return 0;
}

/* Unless the caller knows of the image, it waits with its bytes until the caller takes the batch. */
static int note_bad(Batches *b, Slot *s, const Message *m)
{
    pthread_mutex_lock(&b->guard);
    bool known = idset_has(&b->bad, m->id);
    size_t before = s->bad.bytes, room = b->bad_bytes < BAD_BYTES ? BAD_BYTES - b->bad_bytes : 0;
    int rc = known ? 0 : badlist_add(&s->bad, m, room);
    b->bad_bytes += s->bad.bytes - before;
    pthread_mutex_unlock(&b->guard);
    return rc;
}

static void copy_record(const Batches *b, Slot *s, int64_t to, int64_t from)
{
    const BatchShape *sh = &b->shape;
    struct {
        uint8_t *base;
        int views, side;
    } part[2] = { { s->batch.global, sh->globals, sh->global_size }, { s->batch.local, sh->locals, sh->local_size } };
    for (int p = 0; p < 2; p++) {
        size_t view = (size_t)part[p].side * (size_t)part[p].side * PIXEL;
        for (int v = 0; v < part[p].views; v++) {
            uint8_t *row = part[p].base + (size_t)v * (size_t)sh->batch_size * view;
            memcpy(row + (size_t)to * view, row + (size_t)from * view, view);
        }
    }
    s->id[to] = s->id[from];
    s->label[to] = s->label[from];
}

/* All records are there: replace the bad ones. A batch without a good one is for report_bad() to refuse. */
static void finish(Batches *b, Slot *s)
{
    int64_t n = b->shape.batch_size, first = 0, last = -1;
    while (first < n && s->mark[first] != GOOD)
        first++;
    badlist_sort(&s->bad);
    s->batch.bad = first == n ? (int)n : 0;
    for (int64_t i = 0; i < n && first < n; i++) {
        if (s->mark[i] == GOOD) {
            last = i;
            continue;
        }
        copy_record(b, s, i, last >= 0 ? last : first);
        s->batch.bad++;
    }
    s->batch.number = s->number;
    s->batch.epoch = s->number / b->shape.batches_per_epoch;
    s->batch.next = batch_seq(&b->shape, s->number + 1);
    pthread_mutex_lock(&b->guard);
    s->state = SLOT_READY;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->guard);
}

static int place(Batches *b, const Message *m)
{
    const BatchShape *sh = &b->shape;
    uint64_t epoch = m->seq / sh->records_per_epoch, i = m->seq % sh->records_per_epoch;
    uint64_t in_epoch = i / (uint64_t)sh->batch_size, number = epoch * sh->batches_per_epoch + in_epoch;
    int64_t at = (int64_t)(i % (uint64_t)sh->batch_size);
    if (in_epoch >= sh->batches_per_epoch)
        return 0; /* the incomplete batch at the end of an epoch */
    if (number >= b->opened)
        return err_set(ERR_PEER, "record %" PRIu64 " lies beyond what was asked for", m->seq);
    Slot *s = &b->slot[number % (uint64_t)b->slots];
    pthread_mutex_lock(&b->guard);
    bool filling = s->number == number && s->state == SLOT_FILLING;
    pthread_mutex_unlock(&b->guard);
    if (!filling || s->mark[at] != MISSING)
        return 0; /* a duplicate */
    s->seq[at] = m->seq;
    s->id[at] = m->id;
    s->label[at] = m->label;
    if (m->bad) {
        if (note_bad(b, s, m))
            return -1;
    } else if (copy_views(b, m, "global", sh->globals, sh->global_size, s->batch.global, at) ||
               (sh->locals && copy_views(b, m, "local", sh->locals, sh->local_size, s->batch.local, at))) {
        return -1;
    }
    s->mark[at] = m->bad ? BAD : GOOD;
    gauge_add(GAUGE_HELD, 1);
    if (++s->have == sh->batch_size)
        finish(b, s);
    return 0;
}

/* 0 at the end of the stream or when the caller closes, -1. */
static int receive(Batches *b)
{
    uint64_t count;
    for (;;) {
        Message m;
        int rc;
        open_batches(b);
        while ((rc = sink_next(b->sink, &m, 0)) == 1) {
            uint64_t seq = m.seq;
            rc = place(b, &m);
            message_clear(&m);
            if (rc)
                return -1;
            sink_ack(b->sink, seq);
        }
        if (rc < 0 && sink_ended(b->sink))
            break;
        if (rc < 0)
            return -1;
        if (stream_wait(b->sink, NULL, b->wake, -1) < 0)
            return -1;
        if (read(b->wake, &count, sizeof count) > 0) {
            pthread_mutex_lock(&b->guard);
            bool closing = b->closing;
            pthread_mutex_unlock(&b->guard);
            if (closing)
                return 0;
        }
    }
    for (int i = 0; i < b->slots; i++)
        if (b->slot[i].state == SLOT_FILLING && b->slot[i].have)
            return err_set(ERR_PEER, "the stream ended within batch %" PRIu64 ": %" PRId64 " of %" PRId64 " records",
                           b->slot[i].number, b->slot[i].have, b->shape.batch_size);
    return 0;
}

static void *run(void *arg)
{
    Batches *b = arg;
    const Message *w = sink_welcome(b->sink);
    int rc = -1;
    fault_thread();
    if (w && !read_shape(b, w) && !make_slots(b)) {
        pthread_mutex_lock(&b->guard);
        b->shaped = true;
        pthread_cond_broadcast(&b->changed);
        pthread_mutex_unlock(&b->guard);
        rc = receive(b);
    }
    pthread_mutex_lock(&b->guard);
    if (rc) {
        b->failed = true;
        b->code = err_code();
        snprintf(b->text, sizeof b->text, "%s", err_text());
    }
    b->ended = !rc;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->guard);
    sink_close(&b->sink); /* says bye from the thread that owns the socket */
    return NULL;
}

/* ---------------------------------------------------------------- the caller's side */

Batches *batches_open(const Ticket *t, const BatchesConfig *c)
{
    sigset_t all, before;
    if (c->batch_size < 1 || c->batch_size > 1 << 24) {
        err_set(ERR_USAGE, "a batch of %" PRId64 " records", c->batch_size);
        return NULL;
    }
    if (c->start > INT64_MAX) { /* no message could ask for it */
        err_set(ERR_USAGE, "no stream has a record %" PRIu64 " to begin with", c->start);
        return NULL;
    }
    Batches *b = calloc(1, sizeof *b);
    if (!b) {
        err_set(ERR_MEMORY, "out of memory");
        return NULL;
    }
    gauges_open(c->program); /* here, for this thread's waiting is what counts */
    b->config = *c;
    b->config.wish = NULL; /* not to be kept */
    b->wake = -1;
    message_init(&b->welcome, MSG_WELCOME);
    pthread_mutex_init(&b->guard, NULL);
    pthread_cond_init(&b->changed, NULL);
    for (size_t i = 0; i < c->n_known; i++)
        if (idset_add(&b->bad, c->known[i]) < 0)
            goto fail;
    b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->wake < 0) {
        err_system("eventfd");
        goto fail;
    }
    /* Until the shape is known nothing could be placed, so nothing is asked for. */
    b->sink = sink_open(t, &(SinkConfig){ .program = c->program, .kinds = "views", .start = c->start,
                                          .credit = INT32_MAX, .limit = c->start, .life = c->life,
                                          .wish = c->wish });
    if (!b->sink)
        goto fail;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the main thread's */
    int rc = pthread_create(&b->thread, NULL, run, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        err_set(ERR_SYSTEM, "cannot start a thread");
        goto fail;
    }
    b->running = true;
    return b;
fail:
    batches_close(&b);
    return NULL;
}

static int failure(Batches *b)
{
    return err_set(b->code, "%s", b->text);
}

const BatchShape *batches_shape(Batches *b)
{
    const BatchShape *shape = NULL;
    pthread_mutex_lock(&b->guard);
    if (!b->shaped && !b->failed)
        gauge_state(GAUGE_WAITS_IN);
    while (!b->shaped && !b->failed)
        pthread_cond_wait(&b->changed, &b->guard);
    gauge_state(GAUGE_BUSY);
    if (b->shaped)
        shape = &b->shape;
    else
        failure(b);
    pthread_mutex_unlock(&b->guard);
    return shape;
}

const Message *batches_welcome(Batches *b)
{
    return &b->welcome;
}

const ShmBlock *batches_block(Batches *b)
{
    return b->block;
}

/* Tell the caller of the bad images that he hears of for the first time. */
static int report_bad(Batches *b, Slot *s)
{
    size_t n = 0;
    int rc = 0;
    pthread_mutex_lock(&b->guard);
    b->bad_bytes -= s->bad.bytes;
    for (size_t i = 0; i < s->bad.n && rc >= 0; i++) { /* an earlier batch may have had them meanwhile */
        BadRecord this = s->bad.item[i];
        rc = idset_add(&b->bad, this.id);
        if (rc > 0) {
            s->bad.item[i] = s->bad.item[n];
            s->bad.item[n++] = this;
        }
    }
    pthread_mutex_unlock(&b->guard);
    if (rc >= 0 && n && b->config.bad)
        rc = b->config.bad(b->config.arg, s->bad.item, n);
    badlist_clear(&s->bad);
    if (rc >= 0 && s->batch.bad == b->shape.batch_size)
        rc = err_set(ERR_DATA, "batch %" PRIu64 ": all %" PRId64 " images of it are bad, so there is none to take their "
                               "place", s->number, b->shape.batch_size);
    return rc < 0 ? -1 : 0;
}

Batch *batches_next(Batches *b)
{
    Batch *batch = NULL;
    if (!batches_shape(b))
        return NULL;
    double began = log_seconds();
    pthread_mutex_lock(&b->guard);
    for (;;) {
        Slot *s = &b->slot[b->next % (uint64_t)b->slots];
        if (b->failed) {
            failure(b);
            break;
        }
        if (s->state == SLOT_READY && s->number == b->next) {
            s->state = SLOT_HELD;
            b->next++;
            batch = &s->batch;
            break;
        }
        if (b->ended)
            break;
        gauge_state(GAUGE_WAITS_IN);
        pthread_cond_wait(&b->changed, &b->guard);
    }
    gauge_set(GAUGE_BAD, b->bad.count);
    pthread_mutex_unlock(&b->guard);
    gauge_state(GAUGE_BUSY);
    if (batch)
        gauge_add(GAUGE_HELD, -b->shape.batch_size);
    b->waited += log_seconds() - began;
    return batch && !report_bad(b, &b->slot[batch->slot]) ? batch : NULL;
}

const Batch *batches_peek(Batches *b)
{
    pthread_mutex_lock(&b->guard);
    const Slot *s = b->shaped && !b->failed ? &b->slot[b->next % (uint64_t)b->slots] : NULL;
    bool ready = s && s->state == SLOT_READY && s->number == b->next;
    pthread_mutex_unlock(&b->guard);
    return ready ? &s->batch : NULL;
}

bool batches_ended(const Batches *b)
{
    return b->ended;
}

static void wake(Batches *b)
{
    uint64_t one = 1;
    if (write(b->wake, &one, sizeof one) < 0) {
        /* it is awake already */
    }
}

void batches_release(Batches *b, Batch *batch)
{
    if (!batch)
        return;
    pthread_mutex_lock(&b->guard);
    b->slot[batch->slot].state = SLOT_FREE;
    pthread_mutex_unlock(&b->guard);
    wake(b);
}

int64_t batches_bad(Batches *b)
{
    pthread_mutex_lock(&b->guard);
    int64_t bad = (int64_t)b->bad.count;
    pthread_mutex_unlock(&b->guard);
    return bad;
}

double batches_waited(Batches *b)
{
    return b->waited;
}

void batches_close(Batches **batches)
{
    Batches *b = *batches;
    if (!b)
        return;
    if (b->running) {
        pthread_mutex_lock(&b->guard);
        b->closing = true;
        pthread_mutex_unlock(&b->guard);
        wake(b);
        pthread_join(b->thread, NULL);
    }
    sink_close(&b->sink);
    for (int i = 0; i < MAX_SLOTS; i++) {
        free(b->slot[i].mark);
        free(b->slot[i].seq);
        free(b->slot[i].id);
        free(b->slot[i].label);
        badlist_clear(&b->slot[i].bad);
    }
    if (!b->block)
        free(b->memory);
    shm_free(&b->block);
    message_clear(&b->welcome);
    idset_free(&b->bad);
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->guard);
    if (b->wake >= 0)
        close(b->wake);
    free(b);
    *batches = NULL;
    gauges_close();
}
