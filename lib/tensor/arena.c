#include "tensor/tape.h"

#include "util/err.h"

#include <stdlib.h>

enum { ALIGN = 64 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static int grow(Arena *a, Backend *be, size_t bytes)
{
    if (a->chunks == (int)(sizeof a->chunk / sizeof *a->chunk))
        return err_set(ERR_MEMORY, "step arena: too many chunks");
    size_t want = bytes > be->chunk ? round_up(bytes, 1 << 21) : be->chunk;
    char *base = be->alloc(be, want);
    if (!base && want > bytes)
        base = be->alloc(be, want = round_up(bytes, 1 << 21));
    if (!base) {
        err_prefix("activations");
        return -1;
    }
    a->chunk[a->chunks].start = arena_reserved(a);
    a->chunk[a->chunks].base = base;
    a->chunk[a->chunks++].bytes = want;
    return 0;
}

/* The end of what is held in the way of the next bytes, or 0. */
static size_t in_the_way(const Arena *a, size_t bytes)
{
    for (int i = 0; i < a->holds; i++)
        if (a->top < a->held[i].to && a->top + bytes > a->held[i].from)
            return a->held[i].to;
    return 0;
}

void *arena_take(Arena *a, Backend *be, size_t bytes)
{
    bytes = round_up(bytes ? bytes : 1, ALIGN);
    for (;;) {
        if (a->current == a->chunks && grow(a, be, bytes) < 0)
            return NULL;
        size_t start = a->chunk[a->current].start, past;
        if (a->top < start)
            a->top = start;
        if (a->top - start + bytes > a->chunk[a->current].bytes)
            a->current++;
        else if ((past = in_the_way(a, bytes)))
            a->top = past;
        else
            break;
    }
    void *p = a->chunk[a->current].base + (a->top - a->chunk[a->current].start);
    a->top += bytes;
    if (a->top > a->peak)
        a->peak = a->top;
    return p;
}

size_t arena_mark(Arena *a)
{
    if (a->holds && a->held[a->holds - 1].since == a->top)
        a->top += ALIGN;
    return a->top;
}

void arena_rewind(Arena *a, size_t position)
{
    while (a->holds && a->held[a->holds - 1].since >= position)
        a->holds--;
    a->top = position;
    while (a->current > 0 && (a->current >= a->chunks || a->chunk[a->current].start >= position))
        a->current--;
}

int arena_hold(Arena *a, const void *p, size_t bytes)
{
    for (int i = 0; i < a->chunks; i++) {
        size_t at = (uintptr_t)p - (uintptr_t)a->chunk[i].base, from = a->chunk[i].start + at;
        if (at >= a->chunk[i].bytes || from < a->top)
            continue;
        if (a->holds == (int)(sizeof a->held / sizeof *a->held))
            return err_set(ERR_MEMORY, "step arena: too many results are held");
        a->held[a->holds].from = from;
        a->held[a->holds].to = from + round_up(bytes, ALIGN);
        a->held[a->holds++].since = a->top;
    }
    return 0;
}

size_t arena_reserved(const Arena *a)
{
    return a->chunks ? a->chunk[a->chunks - 1].start + a->chunk[a->chunks - 1].bytes : 0;
}

void arena_rest(Arena *a, Backend *be)
{
    for (int i = 0; i < a->chunks; i++)
        be->rest(be, a->chunk[i].base, a->chunk[i].bytes);
}

void arena_free(Arena *a, Backend *be)
{
    for (int i = 0; i < a->chunks; i++)
        be->release(be, a->chunk[i].base, a->chunk[i].bytes);
    *a = (Arena){ 0 };
}

Buffer *pool_take(Pool *p, Backend *be, size_t bytes)
{
    bytes = round_up(bytes ? bytes : 1, ALIGN);
    Buffer *best = NULL;
    for (size_t i = 0; i < p->count; i++) {
        Buffer *b = p->buffers[i];
        if (!b->refs && b->bytes >= bytes && (b->bytes <= 2 * bytes || b->bytes <= 4096) &&
            (!best || b->bytes < best->bytes))
            best = b;
    }
    if (!best) {
        if (p->count == p->room) {
            size_t room = p->room ? 2 * p->room : 64;
            Buffer **grown = realloc(p->buffers, room * sizeof *grown);
            if (!grown) {
                err_set(ERR_MEMORY, "out of memory for gradients");
                return NULL;
            }
            p->buffers = grown;
            p->room = room;
        }
        best = calloc(1, sizeof *best);
        if (best)
            best->data = be->alloc(be, best->bytes = bytes);
        if (!best || !best->data) {
            if (best)
                err_prefix("gradients of activations");
            free(best);
            return NULL;
        }
        p->buffers[p->count++] = best;
    }
    best->refs = 1;
    p->live += best->bytes;
    if (p->live > p->peak)
        p->peak = p->live;
    return best;
}

void pool_drop(Pool *p, Buffer *b)
{
    if (b && --b->refs == 0)
        p->live -= b->bytes;
}

size_t pool_reserved(const Pool *p)
{
    size_t bytes = 0;
    for (size_t i = 0; i < p->count; i++)
        bytes += p->buffers[i]->bytes;
    return bytes;
}

void pool_rest(Pool *p, Backend *be)
{
    for (size_t i = 0; i < p->count; i++)
        be->rest(be, p->buffers[i]->data, p->buffers[i]->bytes);
}

void pool_free(Pool *p, Backend *be)
{
    for (size_t i = 0; i < p->count; i++) {
        be->release(be, p->buffers[i]->data, p->buffers[i]->bytes);
        free(p->buffers[i]);
    }
    free(p->buffers);
    *p = (Pool){ 0 };
}
