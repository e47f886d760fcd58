#include "stream/hub_state.h"
#include "stream/process.h"
#include "util/err.h"

#include <string.h>

enum { ALIGN = 64 };

static const size_t DESK_BYTES = (size_t)16 << 20; /* a desk is of about this size, */
enum { LEAST_SLOTS = 6, LEAST_DEPTH = 2 };          /* and has at least so many slots */

int desk_layout(Hub *h)
{
    size_t at = 0;
    for (int i = 0; i < h->config.results; i++) {
        const HubResult *r = &h->config.result[i];
        size_t bytes = 1;
        for (int d = 0; d < r->ndim; d++)
            if (r->shape[d] < 0 || __builtin_mul_overflow(bytes, (size_t)r->shape[d], &bytes) || bytes > SIZE_MAX / 8)
                return err_set(ERR_SHAPE, "tensor %s: impossible shape", r->name);
        h->offset[i] = at;
        at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    h->slot_bytes = at;
    size_t slots = at ? DESK_BYTES / at : HUB_SLOTS;
    h->slots = slots < LEAST_SLOTS ? LEAST_SLOTS : slots > HUB_SLOTS ? HUB_SLOTS : (int)slots;
    /* A worker's slots hold what it has and what the consumer has not taken over yet. */
    h->depth = h->slots / 2 < LEAST_DEPTH ? LEAST_DEPTH : h->slots / 2;
    return 0;
}

static bool all_free(const Desk *a)
{
    for (int i = 0; i < a->slots; i++)
        if (a->slot[i].state != SLOT_FREE)
            return false;
    return true;
}

Desk *desk_lend(Hub *h)
{
    desk_reclaim(h, 0);
    for (int i = 0; i < h->desks; i++)
        if (!h->desk[i].lent && all_free(&h->desk[i])) {
            h->desk[i].lent = true;
            return &h->desk[i];
        }
    if (h->desks == HUB_MAX_WORKERS || !h->slot_bytes)
        return NULL;
    Desk *a = &h->desk[h->desks];
    *a = (Desk){ .slots = h->slots, .lent = true, .gone = -1 };
    if (!(a->block = shm_create(h->slot_bytes * (size_t)h->slots)))
        return NULL;
    for (int i = 0; i < a->slots; i++)
        a->slot[i].desk = a;
    h->desks++;
    return a;
}

void desk_return(Desk *a)
{
    a->lent = false;
    for (int i = 0; i < a->slots; i++)
        if (a->slot[i].state == SLOT_LENT)
            a->slot[i].state = SLOT_FREE;
}

void desk_orphan(Desk *a, pid_t pid)
{
    a->pid = pid;
    a->gone = process_watch(pid);
}

void desk_reclaim(Hub *h, pid_t pid)
{
    for (int i = 0; i < h->desks; i++) {
        Desk *a = &h->desk[i];
        if (!a->lent || !a->pid || (a->pid != pid && !process_gone(a->gone)))
            continue;
        process_forget(&a->gone);
        a->pid = 0;
        desk_return(a);
    }
}

/* They become free about in the order in which they were taken, so the next one is found at once. */
Slot *desk_free_slot(Desk *a)
{
    for (int i = 0; i < a->slots; i++, a->turn = a->turn + 1 < a->slots ? a->turn + 1 : 0)
        if (a->slot[a->turn].state == SLOT_FREE)
            return &a->slot[a->turn];
    return NULL;
}

Slot *desk_take(Desk *a, uint64_t seq)
{
    Slot *s = desk_free_slot(a);
    if (s) {
        s->state = SLOT_LENT;
        s->seq = seq;
    }
    return s;
}

int desk_slot_number(const Slot *s)
{
    return (int)(s - s->desk->slot);
}

int desk_describe(const Hub *h, const Slot *s, Message *m)
{
    size_t base = h->slot_bytes * (size_t)desk_slot_number(s);
    for (int i = 0; i < h->config.results; i++) {
        const HubResult *r = &h->config.result[i];
        if (message_add_shared(m, r->name, MSG_U8, r->ndim, r->shape, s->desk->block, base + h->offset[i]))
            return -1;
        m->tensor[m->tensors - 1].data = (uint8_t *)s->desk->block->mem + base + h->offset[i];
    }
    return 0;
}

void desk_free(Hub *h)
{
    for (int i = 0; i < h->desks; i++) {
        process_forget(&h->desk[i].gone);
        shm_free(&h->desk[i].block);
    }
    h->desks = 0;
}
