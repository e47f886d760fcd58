/* The header as msgpack. The fields and their order are listed in hssl-stream(7). */
#include "stream/message_internal.h"

#include "stream/ticket.h"
#include "util/err.h"

#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[MSG_TYPES] = {
    [MSG_NONE] = "none", [MSG_HELLO] = "hello", [MSG_WELCOME] = "welcome", [MSG_DATA] = "data", [MSG_WANT] = "want",
    [MSG_END] = "end", [MSG_FAIL] = "fail", [MSG_BYE] = "bye", [MSG_NOTE] = "note",
};

const char *message_type_name(MsgType t)
{
    return (unsigned)t < MSG_TYPES ? type_names[t] : "?";
}

void msg_buffer_put(MsgBuffer *b, const void *bytes, size_t n)
{
    if (n > b->room - b->size) {
        size_t room = b->room ? b->room : 512;
        while (room - b->size < n)
            room *= 2;
        char *bigger = realloc(b->data, room);
        if (!bigger) {
            b->failed = true;
            return;
        }
        b->data = bigger;
        b->room = room;
    }
    if (n)
        memcpy(b->data + b->size, bytes, n);
    b->size += n;
}

static int put_bytes(void *buffer, const char *bytes, size_t n)
{
    msg_buffer_put(buffer, bytes, n);
    return 0;
}

static void put_text(msgpack_packer *pk, const char *s)
{
    size_t n = strlen(s);
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, s, n);
}

static void put_uint(msgpack_packer *pk, const char *key, uint64_t x)
{
    put_text(pk, key);
    msgpack_pack_uint64(pk, x);
}

/* The shortest form that gives the same double again: integer, float32, float64. */
static void put_number(msgpack_packer *pk, double x)
{
    if (x == floor(x) && fabs(x) < 0x1p53 && !(x == 0 && signbit(x)))
        msgpack_pack_int64(pk, (int64_t)x);
    else if ((double)(float)x == x)
        msgpack_pack_float(pk, (float)x);
    else
        msgpack_pack_double(pk, x);
}

static void put_tensor(msgpack_packer *pk, const MsgTensor *t)
{
    bool shared = t->medium == MSG_SHARED;
    msgpack_pack_map(pk, shared ? 8 : 4);
    put_text(pk, "name");
    put_text(pk, t->name);
    put_text(pk, "dtype");
    put_text(pk, msg_dtype_name(t->dtype));
    put_text(pk, "shape");
    msgpack_pack_array(pk, (size_t)t->ndim);
    for (int i = 0; i < t->ndim; i++)
        msgpack_pack_int64(pk, t->shape[i]);
    put_text(pk, "medium");
    put_text(pk, shared ? "shared" : "inline");
    if (shared) {
        put_uint(pk, "pid", (uint64_t)t->shared.pid);
        put_uint(pk, "fd", (uint64_t)t->shared.fd);
        put_uint(pk, "size", t->shared.size);
        put_uint(pk, "offset", t->shared.offset);
    }
}

static void put_fact(msgpack_packer *pk, const MsgFact *f)
{
    put_text(pk, f->key);
    if (f->type == FACT_TEXT)
        put_text(pk, f->text);
    else if (f->type == FACT_INT)
        msgpack_pack_int64(pk, f->integer);
    else
        msgpack_pack_double(pk, f->real);
}

int message_write(const Message *m, MsgBuffer *buf)
{
    msgpack_packer pack, *pk = &pack;
    size_t before = buf->size;
    bool record = m->type == MSG_DATA, flow = m->type == MSG_HELLO || m->type == MSG_WANT;
    bool seq = record || m->type == MSG_HELLO || m->type == MSG_END;
    bool label = record && m->label >= 0, limit = flow && m->limit != UINT64_MAX;

    msgpack_packer_init(pk, buf, put_bytes);
    msgpack_pack_map(pk, 2 + (size_t)seq + 2 * (size_t)record + (size_t)label + (size_t)(record && m->width) +
                             (size_t)(record && m->reading) +
                             !!m->name + !!m->bad + !!m->text + !!m->plan + (size_t)flow + (size_t)limit +
                             (size_t)(m->acks > 0) + (size_t)(m->tensors > 0) + (size_t)(m->facts > 0));
    put_uint(pk, "hssl", record && m->reading ? MSG_READING_VERSION : TICKET_VERSION);
    put_text(pk, "type");
    put_text(pk, message_type_name(m->type));
    if (seq)
        put_uint(pk, "seq", m->seq);
    if (record) {
        put_uint(pk, "epoch", m->epoch);
        put_uint(pk, "id", m->id);
    }
    if (label)
        put_uint(pk, "label", (uint64_t)m->label);
    if (record && m->width) {
        put_text(pk, "size");
        msgpack_pack_array(pk, 2);
        msgpack_pack_uint32(pk, m->width);
        msgpack_pack_uint32(pk, m->height);
    }
    if (record && m->reading)
        put_uint(pk, "reading", m->reading);
    const struct {
        const char *key, *text;
    } texts[] = { { "name", m->name }, { "bad", m->bad }, { "text", m->text } };
    for (int i = 0; i < 3; i++)
        if (texts[i].text) {
            put_text(pk, texts[i].key);
            put_text(pk, texts[i].text);
        }
    if (m->plan) {
        put_text(pk, "plan");
        msgpack_pack_array(pk, (size_t)m->views);
        for (int v = 0; v < m->views; v++) {
            msgpack_pack_array(pk, (size_t)m->numbers);
            for (int i = 0; i < m->numbers; i++)
                put_number(pk, m->plan[v * m->numbers + i]);
        }
    }
    if (flow)
        put_uint(pk, "credit", m->credit);
    if (limit)
        put_uint(pk, "limit", m->limit);
    if (m->acks > 0) {
        put_text(pk, "acks");
        msgpack_pack_array(pk, (size_t)m->acks);
        for (int i = 0; i < m->acks; i++)
            msgpack_pack_uint64(pk, m->ack[i]);
    }
    if (m->tensors > 0) {
        put_text(pk, "tensors");
        msgpack_pack_array(pk, (size_t)m->tensors);
        for (int i = 0; i < m->tensors; i++)
            put_tensor(pk, &m->tensor[i]);
    }
    if (m->facts > 0) {
        put_text(pk, "facts");
        msgpack_pack_map(pk, (size_t)m->facts);
        for (int i = 0; i < m->facts; i++)
            put_fact(pk, &m->fact[i]);
    }
    if (buf->failed)
        return err_set(ERR_MEMORY, "message: out of memory");
    if (buf->size - before > MSG_MAX_HEADER)
        return err_set(ERR_DATA, "message: a header of more than %d bytes", MSG_MAX_HEADER);
    return 0;
}

int message_header(const Message *m, void **bytes, size_t *n)
{
    MsgBuffer buf = { 0 };
    if (message_write(m, &buf)) {
        free(buf.data);
        return -1;
    }
    *bytes = buf.data;
    *n = buf.size;
    return 0;
}
