#include "train/uploads.h"

#include "util/err.h"

#include <stdlib.h>

enum { SLOTS = 2, ALIGN = 256 };

struct Uploads {
    Backend *be;
    ViewBatch shape;
    void *pinned; /* the host's block */
    char *memory; /* [SLOTS][each]; NULL where the device sees the host's memory */
    size_t global, local, local_at, each;
    bool full[SLOTS];
    uint64_t number[SLOTS];
};

Uploads *uploads_new(Backend *be, const ViewBatch *shape, const ShmBlock *block)
{
    Uploads *u = calloc(1, sizeof *u);
    if (!u) {
        err_set(ERR_MEMORY, "views: out of memory");
        return NULL;
    }
    *u = (Uploads){ .be = be, .shape = *shape };
    u->global = (size_t)(shape->globals * shape->batch * shape->global_size * shape->global_size * 3);
    u->local = (size_t)(shape->locals * shape->batch * shape->local_size * shape->local_size * 3);
    u->local_at = (u->global + ALIGN - 1) / ALIGN * ALIGN;
    u->each = (u->local_at + u->local + ALIGN - 1) / ALIGN * ALIGN;
    if (be->mapped)
        return u;
    if (!(u->memory = be->alloc(be, SLOTS * u->each))) {
        err_prefix("views");
        uploads_free(u);
        return NULL;
    }
    if (block) {
        be->pin(be, block->mem, block->size);
        u->pinned = block->mem;
    }
    return u;
}

void uploads_free(Uploads *u)
{
    if (!u)
        return;
    if (u->memory) {
        u->be->uploaded(u->be);
        u->be->release(u->be, u->memory, SLOTS * u->each);
    }
    if (u->pinned)
        u->be->unpin(u->be, u->pinned);
    free(u);
}

int uploads_begin(Uploads *u, uint64_t number, const uint8_t *global, const uint8_t *local)
{
    int slot = (int)(number % SLOTS);
    char *to = u->memory + (size_t)slot * u->each;
    if (!u->memory || (u->full[slot] && u->number[slot] == number))
        return 0;
    u->full[slot] = false;
    if (u->be->upload(u->be, to, global, u->global) ||
        (u->local && u->be->upload(u->be, to + u->local_at, local, u->local)))
        return -1;
    u->full[slot] = true;
    u->number[slot] = number;
    return 0;
}

int uploads_take(Uploads *u, uint64_t number, const uint8_t *global, const uint8_t *local, ViewBatch *out)
{
    *out = u->shape;
    out->global = global;
    out->local = local;
    if (!u->memory)
        return 0;
    if (uploads_begin(u, number, global, local) || u->be->uploaded(u->be))
        return -1;
    const char *at = u->memory + number % SLOTS * u->each;
    out->global = (const uint8_t *)at;
    out->local = u->local ? (const uint8_t *)at + u->local_at : NULL;
    return 0;
}

void *uploads_memory(const Uploads *u, size_t *bytes)
{
    *bytes = SLOTS * u->each;
    return u->memory;
}
