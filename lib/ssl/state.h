/* The tensors that make up a training state, by name: what a checkpoint holds. */
#ifndef HSSL_SSL_STATE_H
#define HSSL_SSL_STATE_H

#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { STATE_F32, STATE_I64 } StateType;

typedef struct {
    char *name;
    StateType type;
    int ndim;
    int64_t shape[5];
    void *data; /* the live memory, of the device `be`, or the host's where that is NULL */
    size_t bytes;
    Backend *be;
    const void *host; /* the contents, after state_fetch and from a StateLookup */
    void *copy;       /* of the list's own, where the host cannot read `data` */
} StateTensor;

typedef struct {
    StateTensor *items;
    size_t count, room;
} StateList;

/* Append one tensor, its name prefix + name. Returns 0, or -1 (memory). */
int state_add(StateList *l, Backend *be, const char *prefix, const char *name, StateType type, int ndim,
              const int64_t *shape, void *data);
void state_free(StateList *l); /* frees names, copies and the list, not the data */

/* Let the host see the contents as they are now, in `host` of each tensor: in place where it can, else as copies that
 * the list keeps. 0, or -1. */
int state_fetch(StateList *l);

/* Find stored data by name: fill type, ndim, shape, host, bytes of *found and return 0, or -1 with
 * ERR_ABSENT. */
typedef int (*StateLookup)(void *arg, const char *name, StateTensor *found);

/* Fill every tensor of the list from the lookup; shapes and types must agree. 0, or -1 naming the tensor. */
int state_load(const StateList *l, StateLookup lookup, void *arg);

#endif
