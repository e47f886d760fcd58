#include "train/area.h"

#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = { "inline", "shm", "ipc" };

const char *medium_name(Medium m)
{
    return names[m];
}

int medium_find(const char *name, Medium *m)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) {
            *m = (Medium)i;
            return 0;
        }
    return err_set(ERR_DATA, "no such medium: \"%.20s\"", name);
}

static size_t round_up(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Memory of the device that nobody else has. */
static int take_device(Area *a)
{
    a->device = a->be->alloc(a->be, round_up(a->bytes));
    a->own_device = a->device != NULL;
    return a->device ? a->be->zero(a->be, a->device, a->bytes) : err_prefix("weights or targets");
}

static int take_host(Area *a)
{
    if (a->be->mapped && a->device) {
        a->host = a->device;
        return 0;
    }
    a->host = calloc(1, round_up(a->bytes) + 1);
    a->own_host = a->host != NULL;
    return a->host ? 0 : err_set(ERR_MEMORY, "no memory for %zu bytes", a->bytes);
}

/* The block's memory is the host's side, and the device's where that is the processor. */
static int use_block(Area *a)
{
    a->host = a->block->mem;
    if (a->be->mapped) {
        a->device = a->host;
        return 0;
    }
    a->be->pin(a->be, a->host, a->block->size);
    a->pinned = true;
    return a->device ? 0 : take_device(a);
}

int area_new(Area *a, Backend *be, size_t bytes, bool share)
{
    *a = (Area){ .be = be, .bytes = bytes };
    if (share && be->mapped && (a->block = shm_create(round_up(bytes))))
        return use_block(a);
    return take_device(a);
}

int area_prepare(Area *a, Medium m)
{
    if (m == MEDIUM_IPC)
        return a->be->lend ? a->be->sync(a->be)
                           : err_set(ERR_PEER, "memory of device %s is not lent to others", a->be->name);
    if (m == MEDIUM_INLINE)
        return a->host ? 0 : take_host(a);
    if (a->block)
        return 0;
    if (a->be->mapped || !(a->block = shm_create(round_up(a->bytes))))
        return err_set(ERR_PEER, "no shared memory");
    return use_block(a);
}

/* ---------------------------------------------------------------- in messages */

static void key_of(const char *name, char key[64])
{
    snprintf(key, 64, "%s_handle", name);
}

static int put_handle(const Area *a, Message *out, const char *name)
{
    BackendHandle h;
    char key[64], text[2 * sizeof h + 1];
    if (a->be->lend(a->be, a->device, &h))
        return -1;
    for (size_t i = 0; i < sizeof h; i++)
        snprintf(text + 2 * i, 3, "%02x", h.bytes[i]);
    key_of(name, key);
    return message_set_text(out, key, text);
}

static int get_handle(const Message *in, const char *name, BackendHandle *h)
{
    char key[64];
    key_of(name, key);
    const char *text = message_text(in, key, "");
    unsigned byte;
    bool good = strlen(text) == 2 * sizeof *h && strspn(text, "0123456789abcdef") == 2 * sizeof *h;
    for (size_t i = 0; good && i < sizeof *h; i++) {
        sscanf(text + 2 * i, "%2x", &byte);
        h->bytes[i] = (unsigned char)byte;
    }
    return good ? 0 : err_set(ERR_DATA, "%s: not a handle of a device's memory", key);
}

int area_announce(const Area *a, Medium m, Message *out, const char *name)
{
    int64_t shape[] = { (int64_t)(a->bytes / sizeof(float)) };
    if (m == MEDIUM_IPC)
        return put_handle(a, out, name);
    return m == MEDIUM_SHM ? message_add_shared(out, name, MSG_F32, 1, shape, a->block, 0) : 0;
}

static int open_shared(Area *a, const Message *in, const char *name, bool writable)
{
    const MsgTensor *t = message_tensor(in, name);
    if (!t || t->medium != MSG_SHARED || t->dtype != MSG_F32 || t->bytes != a->bytes || t->shared.offset)
        return err_set(ERR_DATA, "tensor %s is not f32[%zu] at the beginning of shared memory", name, a->bytes / sizeof(float));
    a->block = shm_attach(t->shared.pid, t->shared.fd, t->shared.size, writable);
    return a->block ? use_block(a) : -1;
}

int area_open(Area *a, Backend *be, size_t bytes, Medium m, const Message *in, const char *name, bool writable)
{
    BackendHandle h;
    *a = (Area){ .be = be, .bytes = bytes };
    switch (m) {
    case MEDIUM_IPC:
        if (!be->borrow)
            return err_set(ERR_PEER, "the teacher computes on device %s", be->name);
        if (get_handle(in, name, &h) || !(a->device = be->borrow(be, &h, bytes)))
            return -1;
        a->borrowed = true;
        return 0;
    case MEDIUM_SHM:
        return open_shared(a, in, name, writable);
    case MEDIUM_INLINE:
        return take_device(a) || take_host(a) ? -1 : 0;
    }
    return -1;
}

/* ---------------------------------------------------------------- between host and device */

int area_up(Area *a)
{
    if (!a->host || a->host == a->device)
        return 0;
    return a->be->write(a->be, a->device, a->host, a->bytes) || a->be->sync(a->be) ? -1 : 0;
}

int area_down(Area *a)
{
    if (!a->host || a->host == a->device)
        return 0;
    return a->be->read(a->be, a->host, a->device, a->bytes) || a->be->sync(a->be) ? -1 : 0;
}

void area_close(Area *a)
{
    if (a->pinned)
        a->be->unpin(a->be, a->host);
    if (a->borrowed)
        a->be->give_back(a->be, a->device, a->bytes);
    if (a->own_device)
        a->be->release(a->be, a->device, round_up(a->bytes));
    if (a->own_host)
        free(a->host);
    shm_free(&a->block);
    *a = (Area){ 0 };
}
