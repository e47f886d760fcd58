#include "stream/mapped.h"

#include "stream/shm.h"
#include "util/err.h"

#include <stdlib.h>

struct Mapped {
    struct {
        int64_t pid, fd; /* as the owner says */
        ShmBlock *block;
    } at[MAPPED_MOST];
    int n, last; /* last: found last time */
};

static ShmBlock *find(Mapped *maps, const MsgTensor *t)
{
    for (int i = 0; i < maps->n; i++) {
        int at = (maps->last + i) % maps->n;
        if (maps->at[at].pid == t->shared.pid && maps->at[at].fd == t->shared.fd &&
            maps->at[at].block->size >= t->shared.size) {
            maps->last = at;
            return maps->at[at].block;
        }
    }
    if (maps->n == MAPPED_MOST) {
        err_set(ERR_PEER, "more than %d blocks of shared memory", MAPPED_MOST);
        return NULL;
    }
    ShmBlock *b = shm_attach(t->shared.pid, t->shared.fd, t->shared.size, false);
    if (!b)
        return NULL;
    maps->last = maps->n;
    maps->at[maps->n].pid = t->shared.pid;
    maps->at[maps->n].fd = t->shared.fd;
    maps->at[maps->n++].block = b;
    return b;
}

int mapped_resolve(Mapped **maps, Message *m)
{
    for (int i = 0; i < m->tensors; i++) {
        MsgTensor *t = &m->tensor[i];
        if (t->medium != MSG_SHARED)
            continue;
        if (!*maps && !(*maps = calloc(1, sizeof **maps)))
            return err_set(ERR_MEMORY, "out of memory");
        ShmBlock *b = find(*maps, t);
        if (!b)
            return -1;
        t->data = (uint8_t *)b->mem + t->shared.offset; /* offset + bytes <= size was checked */
    }
    return 0;
}

void mapped_free(Mapped **maps)
{
    if (!*maps)
        return;
    for (int i = 0; i < (*maps)->n; i++)
        shm_free(&(*maps)->at[i].block);
    free(*maps);
    *maps = NULL;
}
