#include "tensor/tape.h"

#include "util/err.h"

#include <stdlib.h>

enum { ALIGN = 64 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

void *arena_take(Arena *a, Backend *be, size_t bytes)
{
    bytes = round_up(bytes ? bytes : 1, ALIGN);
    for (;; a->current++) {
        if (a->current == a->chunks) {
            if (a->chunks == (int)(sizeof a->chunk / sizeof *a->chunk)) {
                err_set(ERR_MEMORY, "step arena: too many chunks");
                return NULL;
            }
            size_t want = bytes > be->chunk ? round_up(bytes, 1 << 21) : be->chunk;
            char *base = be->alloc(be, want);
            if (!base && want > bytes)
                base = be->alloc(be, want = round_up(bytes, 1 << 21));
            if (!base) {
                err_prefix("activations");
                return NULL;
            }
            size_t start = a->chunks ? a->chunk[a->chunks - 1].start + a->chunk[a->chunks - 1].bytes : 0;
            a->chunk[a->chunks].base = base;
            a->chunk[a->chunks].start = start;
            a->chunk[a->chunks++].bytes = want;
        }
        size_t start = a->chunk[a->current].start, room = a->chunk[a->current].bytes;
        if (a->top < start)
            a->top = start;
        if (a->top - start + bytes <= room) {
            void *p = a->chunk[a->current].base + (a->top - start);
            a->top += bytes;
            if (a->top > a->peak)
                a->peak = a->top;
            return p;
        }
    }
}

void arena_rewind(Arena *a, size_t position)
{
    a->top = position;
    while (a->current > 0 && (a->current >= a->chunks || a->chunk[a->current].start >= position))
        a->current--;
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
