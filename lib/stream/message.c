#include "stream/message_internal.h"

#include "stream/shm.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[MSG_DTYPES] = {
    [MSG_U8] = { "u8", 1 }, [MSG_I32] = { "i32", 4 }, [MSG_I64] = { "i64", 8 }, [MSG_F32] = { "f32", 4 },
};

size_t msg_dtype_size(MsgDtype d)
{
    return (unsigned)d < MSG_DTYPES ? dtypes[d].size : 0;
}

const char *msg_dtype_name(MsgDtype d)
{
    return (unsigned)d < MSG_DTYPES ? dtypes[d].name : "?";
}

void message_init(Message *m, MsgType type)
{
    *m = (Message){ .type = type, .label = -1, .limit = UINT64_MAX };
}

static struct MessageParts *parts_of(Message *m)
{
    if (!m->parts) {
        struct MessageParts *p = malloc(sizeof *p);
        if (!p) {
            err_set(ERR_MEMORY, "message: out of memory (%zu bytes)", sizeof *p);
            return NULL;
        }
        p->chunks = NULL;
        p->at = p->first;
        p->end = p->first + sizeof p->first;
        p->tensor_room = p->fact_room = 0;
        p->pack = NULL;
        memset(p->frame, 0, sizeof p->frame);
        m->parts = p;
    }
    return m->parts;
}

size_t message_bytes(const Message *m)
{
    size_t n = 0;
    for (int i = 0; i < m->tensors; i++)
        n += m->tensor[i].bytes;
    return n;
}

void message_drop_tensors(Message *m)
{
    for (int i = 0; i < m->tensors; i++)
        if (m->parts->frame[i]) {
            zmq_msg_close(m->parts->frame[i]);
            free(m->parts->frame[i]);
            m->parts->frame[i] = NULL;
        }
    if (m->parts && m->parts->pack) {
        zmq_msg_close(m->parts->pack);
        free(m->parts->pack);
        m->parts->pack = NULL;
    }
    m->tensors = 0;
}

void message_clear(Message *m)
{
    if (m->parts) {
        message_drop_tensors(m);
        for (MsgChunk *c = m->parts->chunks, *next; c; c = next) {
            next = c->next;
            free(c);
        }
        free(m->parts);
    }
    message_init(m, MSG_NONE);
}

void *message_alloc(Message *m, size_t size)
{
    struct MessageParts *p = parts_of(m);
    if (!p)
        return NULL;
    size = (size + 15) & ~(size_t)15;
    if (size > (size_t)(p->end - p->at)) {
        size_t room = (size > 4096 ? size : 4096) + 16;
        MsgChunk *c = malloc(room);
        if (!c) {
            err_set(ERR_MEMORY, "message: out of memory (%zu bytes)", room);
            return NULL;
        }
        c->next = p->chunks;
        p->chunks = c;
        p->at = (char *)c + 16;
        p->end = (char *)c + room;
    }
    void *bytes = p->at;
    p->at += size;
    return bytes;
}

char *message_keep(Message *m, const char *text, size_t n)
{
    if (n > MSG_MAX_TEXT) {
        err_set(ERR_DATA, "message: a text of %zu bytes (at most %d)", n, MSG_MAX_TEXT);
        return NULL;
    }
    char *copy = message_alloc(m, n + 1);
    if (copy) {
        memcpy(copy, text, n);
        copy[n] = 0;
    }
    return copy;
}

/* An array that doubles; what it outgrows stays in its chunk until the message goes. */
static void *grow(Message *m, void *old, size_t item, int count, int *room, int limit)
{
    if (count < *room)
        return old;
    int wanted = *room ? *room * 2 : 4;
    if (wanted > limit)
        wanted = limit;
    void *bigger = message_alloc(m, item * (size_t)wanted);
    if (!bigger)
        return NULL;
    if (count)
        memcpy(bigger, old, item * (size_t)count);
    *room = wanted;
    return bigger;
}

MsgTensor *message_new_tensor(Message *m, const char *name, size_t n)
{
    if (!parts_of(m))
        return NULL;
    if (m->tensors == MSG_MAX_TENSORS) {
        err_set(ERR_DATA, "message: more than %d tensors", MSG_MAX_TENSORS);
        return NULL;
    }
    MsgTensor *all = grow(m, m->tensor, sizeof *all, m->tensors, &m->parts->tensor_room, MSG_MAX_TENSORS);
    char *kept = all ? message_keep(m, name, n) : NULL;
    if (!kept)
        return NULL;
    m->tensor = all;
    all[m->tensors] = (MsgTensor){ .name = kept };
    m->parts->frame[m->tensors] = NULL;
    return &all[m->tensors++];
}

MsgFact *message_new_fact(Message *m, const char *key, size_t n)
{
    for (int i = 0; i < m->facts; i++)
        if (strlen(m->fact[i].key) == n && !memcmp(m->fact[i].key, key, n))
            return &m->fact[i];
    if (!parts_of(m))
        return NULL;
    if (m->facts == MSG_MAX_FACTS) {
        err_set(ERR_DATA, "message: more than %d facts", MSG_MAX_FACTS);
        return NULL;
    }
    MsgFact *all = grow(m, m->fact, sizeof *all, m->facts, &m->parts->fact_room, MSG_MAX_FACTS);
    char *kept = all ? message_keep(m, key, n) : NULL;
    if (!kept)
        return NULL;
    m->fact = all;
    all[m->facts] = (MsgFact){ .key = kept };
    return &all[m->facts++];
}

static int set_text(Message *m, const char **field, const char *text)
{
    char *kept = message_keep(m, text, strlen(text));
    if (!kept)
        return -1;
    *field = kept;
    return 0;
}

int message_set_name(Message *m, const char *name)
{
    return set_text(m, &m->name, name);
}

int message_set_bad(Message *m, const char *reason)
{
    return set_text(m, &m->bad, reason);
}

int message_set_reason(Message *m, const char *text)
{
    return set_text(m, &m->text, text);
}

int message_set_plan(Message *m, int views, int numbers, const double *plan)
{
    if (views < 1 || views > MSG_MAX_VIEWS || numbers < 1 || numbers > MSG_MAX_NUMBERS)
        return err_set(ERR_DATA, "message: a plan of %d views with %d numbers (at most %d, %d)", views, numbers,
                       MSG_MAX_VIEWS, MSG_MAX_NUMBERS);
    size_t bytes = (size_t)views * (size_t)numbers * sizeof *plan;
    double *copy = message_alloc(m, bytes);
    if (!copy)
        return -1;
    memcpy(copy, plan, bytes);
    m->plan = copy;
    m->views = views;
    m->numbers = numbers;
    return 0;
}

int message_set_acks(Message *m, int n, const uint64_t *seqs)
{
    if (n < 0 || n > MSG_MAX_ACKS)
        return err_set(ERR_DATA, "message: %d acknowledgements (at most %d)", n, MSG_MAX_ACKS);
    uint64_t *copy = message_alloc(m, (size_t)n * sizeof *copy);
    if (!copy)
        return -1;
    if (n)
        memcpy(copy, seqs, (size_t)n * sizeof *copy);
    m->ack = copy;
    m->acks = n;
    return 0;
}

static int set_fact(Message *m, const char *key, MsgFact value)
{
    if (value.type == FACT_TEXT && !(value.text = message_keep(m, value.text, strlen(value.text))))
        return -1;
    MsgFact *f = message_new_fact(m, key, strlen(key));
    if (!f)
        return -1;
    value.key = f->key;
    *f = value;
    return 0;
}

int message_set_int(Message *m, const char *key, int64_t value)
{
    return set_fact(m, key, (MsgFact){ .type = FACT_INT, .integer = value });
}

int message_set_real(Message *m, const char *key, double value)
{
    return set_fact(m, key, (MsgFact){ .type = FACT_REAL, .real = value });
}

int message_set_text(Message *m, const char *key, const char *value)
{
    return set_fact(m, key, (MsgFact){ .type = FACT_TEXT, .text = value });
}

const MsgFact *message_fact(const Message *m, const char *key)
{
    for (int i = 0; i < m->facts; i++)
        if (!strcmp(m->fact[i].key, key))
            return &m->fact[i];
    return NULL;
}

int64_t message_int(const Message *m, const char *key, int64_t otherwise)
{
    const MsgFact *f = message_fact(m, key);
    return f && f->type == FACT_INT ? f->integer : otherwise;
}

double message_real(const Message *m, const char *key, double otherwise)
{
    const MsgFact *f = message_fact(m, key);
    return f && f->type == FACT_REAL ? f->real : f && f->type == FACT_INT ? (double)f->integer : otherwise;
}

const char *message_text(const Message *m, const char *key, const char *otherwise)
{
    const MsgFact *f = message_fact(m, key);
    return f && f->type == FACT_TEXT ? f->text : otherwise;
}

int message_copy_fact(Message *to, const MsgFact *f)
{
    return set_fact(to, f->key, *f);
}

int message_copy_facts(Message *to, const Message *from)
{
    for (int i = 0; i < from->facts; i++)
        if (!message_fact(to, from->fact[i].key) && set_fact(to, from->fact[i].key, from->fact[i]))
            return -1;
    return 0;
}

int message_shape(MsgTensor *t, MsgDtype dtype, int ndim, const int64_t *shape)
{
    size_t bytes = msg_dtype_size(dtype);
    if (!bytes)
        return err_set(ERR_DATA, "message: tensor %s: unknown dtype", t->name);
    if (ndim < 0 || ndim > MSG_MAX_RANK)
        return err_set(ERR_DATA, "message: tensor %s: rank %d (at most %d)", t->name, ndim, MSG_MAX_RANK);
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(bytes, (size_t)shape[i], &bytes) || bytes > SIZE_MAX / 4)
            return err_set(ERR_DATA, "message: tensor %s: impossible shape", t->name);
        t->shape[i] = shape[i];
    }
    t->dtype = dtype;
    t->ndim = ndim;
    t->bytes = bytes;
    return 0;
}

static void free_frame(void *data, void *hint)
{
    (void)hint;
    free(data);
}

/* Large frames are aligned for vector stores and handed to ZeroMQ without a copy. */
static zmq_msg_t *new_frame(size_t bytes)
{
    zmq_msg_t *frame = malloc(sizeof *frame);
    void *data = NULL;
    bool large = bytes >= 4096;
    if (frame && (!large || !posix_memalign(&data, 64, bytes))) {
        int rc = large ? zmq_msg_init_data(frame, data, bytes, free_frame, NULL) : zmq_msg_init_size(frame, bytes);
        if (!rc)
            return frame;
        free(data);
    }
    free(frame);
    err_set(ERR_MEMORY, "message: out of memory (a frame of %zu bytes)", bytes);
    return NULL;
}

void *message_add(Message *m, const char *name, MsgDtype dtype, int ndim, const int64_t *shape)
{
    MsgTensor *t = message_new_tensor(m, name, strlen(name));
    if (!t)
        return NULL;
    zmq_msg_t *frame = message_shape(t, dtype, ndim, shape) ? NULL : new_frame(t->bytes);
    if (!frame) {
        m->tensors--;
        return NULL;
    }
    m->parts->frame[m->tensors - 1] = frame;
    return t->data = zmq_msg_data(frame);
}

int message_add_copy(Message *m, const char *name, MsgDtype dtype, int ndim, const int64_t *shape, const void *data)
{
    void *to = message_add(m, name, dtype, ndim, shape);
    if (!to)
        return -1;
    if (m->tensor[m->tensors - 1].bytes)
        memcpy(to, data, m->tensor[m->tensors - 1].bytes);
    return 0;
}

int message_add_shared(Message *m, const char *name, MsgDtype dtype, int ndim, const int64_t *shape,
                       const ShmBlock *block, size_t offset)
{
    MsgTensor *t = message_new_tensor(m, name, strlen(name));
    if (!t)
        return -1;
    if (message_shape(t, dtype, ndim, shape) || offset > block->size || t->bytes > block->size - offset) {
        m->tensors--;
        return err_set(ERR_SHAPE, "message: tensor %s does not lie within its shared block", name);
    }
    t->medium = MSG_SHARED;
    t->shared.pid = block->pid;
    t->shared.fd = block->fd;
    t->shared.size = block->size;
    t->shared.offset = offset;
    return 0;
}

/* One more holder of the same bytes. ZeroMQ's call counts, but does not say that the source stays as it is. */
static zmq_msg_t *share_frame(const zmq_msg_t *of)
{
    zmq_msg_t *frame = malloc(sizeof *frame);
    if (!frame) {
        err_set(ERR_MEMORY, "message: out of memory");
        return NULL;
    }
    zmq_msg_init(frame);
    zmq_msg_copy(frame, (zmq_msg_t *)of);
    return frame;
}

static int copy_tensor(Message *to, const Message *from, int i)
{
    const MsgTensor *t = &from->tensor[i];
    const zmq_msg_t *held = from->parts->frame[i];
    bool in_pack = t->medium == MSG_INLINE && !held && to->parts && to->parts->pack;
    if (t->medium == MSG_INLINE && !held && !in_pack)
        return message_add_copy(to, t->name, t->dtype, t->ndim, t->shape, t->data);
    MsgTensor *copy = message_new_tensor(to, t->name, strlen(t->name));
    if (!copy)
        return -1;
    const char *name = copy->name;
    *copy = *t;
    copy->name = name;
    if (!held)
        return 0;
    zmq_msg_t *frame = share_frame(held);
    if (!frame) {
        to->tensors--;
        return -1;
    }
    to->parts->frame[to->tensors - 1] = frame;
    copy->data = zmq_msg_data(frame); /* tiny frames are not shared but copied */
    return 0;
}

int message_copy(Message *to, const Message *from)
{
    message_init(to, from->type);
    to->seq = from->seq;
    to->epoch = from->epoch;
    to->id = from->id;
    to->label = from->label;
    to->width = from->width;
    to->height = from->height;
    to->reading = from->reading;
    to->credit = from->credit;
    to->limit = from->limit;
    int rc = (from->name && message_set_name(to, from->name)) || (from->bad && message_set_bad(to, from->bad)) ||
             (from->text && message_set_reason(to, from->text)) ||
             (from->plan && message_set_plan(to, from->views, from->numbers, from->plan)) ||
             (from->acks && message_set_acks(to, from->acks, from->ack)) || message_copy_facts(to, from);
    if (!rc && from->parts && from->parts->pack)
        rc = !parts_of(to) || !(to->parts->pack = share_frame(from->parts->pack));
    for (int i = 0; i < from->tensors && !rc; i++)
        rc = copy_tensor(to, from, i);
    if (rc)
        message_clear(to);
    return rc ? -1 : 0;
}

int message_make_inline(Message *m)
{
    for (int i = 0; i < m->tensors; i++) {
        MsgTensor *t = &m->tensor[i];
        if (t->medium != MSG_SHARED)
            continue;
        if (!t->data)
            return err_set(ERR_PEER, "message: tensor %s is not mapped here", t->name);
        zmq_msg_t *frame = new_frame(t->bytes);
        if (!frame)
            return -1;
        if (t->bytes)
            memcpy(zmq_msg_data(frame), t->data, t->bytes);
        m->parts->frame[i] = frame;
        t->data = zmq_msg_data(frame);
        t->medium = MSG_INLINE;
    }
    return 0;
}

const MsgTensor *message_tensor(const Message *m, const char *name)
{
    for (int i = 0; i < m->tensors; i++)
        if (!strcmp(m->tensor[i].name, name))
            return &m->tensor[i];
    return NULL;
}
