#include "util/idset.h"

#include "util/err.h"

#include <stdlib.h>

/* Open addressing with linear probing, at most half full. The multiplication spreads runs of ids. */
static uint64_t *find(uint64_t *slot, size_t room, uint64_t key)
{
    size_t i = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (room - 1);
    while (slot[i] && slot[i] != key)
        i = (i + 1) & (room - 1);
    return &slot[i];
}

bool idset_has(const IdSet *s, uint64_t id)
{
    if (id == UINT64_MAX)
        return s->last;
    return s->room && *find(s->slot, s->room, id + 1);
}

int idset_add(IdSet *s, uint64_t id)
{
    if (idset_has(s, id))
        return 0;
    if (id == UINT64_MAX) {
        s->last = true;
        s->count++;
        return 1;
    }
    if (2 * (s->count + 1) > s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        uint64_t *bigger = calloc(room, sizeof *bigger);
        if (!bigger)
            return err_set(ERR_MEMORY, "no memory for a set of %zu images", s->count);
        for (size_t i = 0; i < s->room; i++)
            if (s->slot[i])
                *find(bigger, room, s->slot[i]) = s->slot[i];
        free(s->slot);
        s->slot = bigger;
        s->room = room;
    }
    *find(s->slot, s->room, id + 1) = id + 1;
    s->count++;
    return 1;
}

void idset_free(IdSet *s)
{
    free(s->slot);
    *s = (IdSet){ 0 };
}
