#include "stream/custody.h"

#include "util/err.h"

#include <stdlib.h>

static Held **bucket_of(const Custody *c, uint64_t seq)
{
    return (Held **)&c->bucket[seq % CUSTODY_BUCKETS];
}

Held *custody_find(const Custody *c, uint64_t seq)
{
    Held *h = *bucket_of(c, seq);
    while (h && h->seq != seq)
        h = h->chain;
    return h;
}

static size_t tensor_bytes(const Message *m)
{
    size_t n = 0;
    for (int i = 0; i < m->tensors; i++)
        n += m->tensor[i].bytes;
    return n;
}

/* ---------------------------------------------------------------- the two lists */

static void append(Custody *c, Held *h, bool first)
{
    bool waiting = h->state == CUSTODY_WAITING;
    Held **head = waiting ? &c->waiting.first : &c->done.first, **tail = waiting ? &c->waiting.last : &c->done.last;
    h->next = first ? *head : NULL;
    if (first) {
        *head = h;
        if (!*tail)
            *tail = h;
        return;
    }
    if (*tail)
        (*tail)->next = h;
    else
        *head = h;
    *tail = h;
}

static void detach(Custody *c, Held *h)
{
    bool waiting = h->state == CUSTODY_WAITING;
    Held **at = waiting ? &c->waiting.first : &c->done.first, **tail = waiting ? &c->waiting.last : &c->done.last;
    Held *before = NULL;
    for (; *at && *at != h; at = &(*at)->next)
        before = *at;
    if (!*at)
        return;
    *at = h->next;
    if (*tail == h)
        *tail = before;
    h->next = NULL;
}

static bool listed(CustodyState s)
{
    return s == CUSTODY_WAITING || s == CUSTODY_DONE;
}

void custody_set(Custody *c, Held *h, CustodyState state, bool at_once)
{
    if (listed(h->state))
        detach(c, h);
    h->state = state;
    if (listed(state))
        append(c, h, at_once);
}

/* ---------------------------------------------------------------- in and out */

Held *custody_put(Custody *c, Message *m)
{
    Held *h = custody_find(c, m->seq), **b = bucket_of(c, m->seq);
    if (h) {
        message_clear(m);
        return h;
    }
    if (!(h = calloc(1, sizeof *h))) {
        message_clear(m);
        err_set(ERR_MEMORY, "out of memory");
        return NULL;
    }
    h->seq = m->seq;
    h->record = *m;
    message_init(m, MSG_NONE);
    message_init(&h->result, MSG_NONE);
    h->chain = *b;
    *b = h;
    append(c, h, false);
    c->n++;
    c->bytes += h->bytes = tensor_bytes(&h->record);
    return h;
}

void custody_weigh(Custody *c, Held *h, size_t more)
{
    h->bytes += more;
    c->bytes += more;
}

Held *custody_waiting(const Custody *c)
{
    return c->waiting.first;
}

Held *custody_done(const Custody *c)
{
    return c->done.first;
}

void custody_drop(Custody *c, Held *h)
{
    Held **at = bucket_of(c, h->seq);
    if (listed(h->state))
        detach(c, h);
    while (*at != h)
        at = &(*at)->chain;
    *at = h->chain;
    c->n--;
    c->bytes -= h->bytes;
    message_clear(&h->record);
    message_clear(&h->result);
    free(h);
}

void custody_each(Custody *c, void (*each)(void *arg, Held *h), void *arg)
{
    for (int i = 0; i < CUSTODY_BUCKETS; i++)
        for (Held *h = c->bucket[i], *next; h; h = next) {
            next = h->chain;
            each(arg, h);
        }
}
