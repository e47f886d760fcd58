#include "ssl/state.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int state_add(StateList *l, Backend *be, const char *prefix, const char *name, StateType type, int ndim,
              const int64_t *shape, void *data)
{
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        StateTensor *grown = realloc(l->items, room * sizeof *grown);
        if (!grown)
            return err_set(ERR_MEMORY, "state: out of memory");
        l->items = grown;
        l->room = room;
    }
    size_t n = strlen(prefix) + strlen(name) + 1;
    StateTensor s = { .name = malloc(n), .type = type, .ndim = ndim, .data = data, .be = be };
    if (!s.name)
        return err_set(ERR_MEMORY, "state: out of memory");
    snprintf(s.name, n, "%s%s", prefix, name);
    s.bytes = type == STATE_F32 ? sizeof(float) : sizeof(int64_t);
    for (int i = 0; i < ndim; i++) {
        s.shape[i] = shape[i];
        s.bytes *= (size_t)shape[i];
    }
    l->items[l->count++] = s;
    return 0;
}

void state_free(StateList *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->items[i].name);
        free(l->items[i].copy);
    }
    free(l->items);
    *l = (StateList){ 0 };
}

static int fetch(StateTensor *s)
{
    s->host = s->data;
    if (!s->be)
        return 0;
    if (s->be->mapped)
        return s->be->sync(s->be);
    if (!s->copy && !(s->copy = malloc(s->bytes ? s->bytes : 1)))
        return err_set(ERR_MEMORY, "%s: no memory for a copy of %zu bytes", s->name, s->bytes);
    s->host = s->copy;
    return s->be->read(s->be, s->copy, s->data, s->bytes);
}

int state_fetch(StateList *l)
{
    for (size_t i = 0; i < l->count; i++)
        if (fetch(&l->items[i]))
            return -1;
    return 0;
}

static const char *shape_text(const StateTensor *s, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "%s [", s->type == STATE_F32 ? "F32" : "I64");
    for (int i = 0; i < s->ndim && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%lld", i ? "," : "", (long long)s->shape[i]);
    if (n < size)
        snprintf(buf + n, size - n, "]");
    return buf;
}

int state_load(const StateList *l, StateLookup lookup, void *arg)
{
    for (size_t i = 0; i < l->count; i++) {
        const StateTensor *want = &l->items[i];
        StateTensor got = { 0 };
        char a[128], b[128];
        if (lookup(arg, want->name, &got))
            return -1;
        bool same = got.type == want->type && got.ndim == want->ndim && got.bytes == want->bytes && got.host;
        for (int d = 0; same && d < want->ndim; d++)
            same = got.shape[d] == want->shape[d];
        if (!same)
            return err_set(ERR_SHAPE, "%s: is %s where %s is wanted", want->name,
                           shape_text(&got, a, sizeof a), shape_text(want, b, sizeof b));
        if (!want->be)
            memcpy(want->data, got.host, want->bytes);
        else if (want->be->write(want->be, want->data, got.host, want->bytes))
            return -1;
    }
    return 0;
}
