/* The one reader of foreign messages: a cursor over msgpack bytes that never believes a count, where
 * msgpack-c's unpacker sets memory aside for what a count announces. tests/fuzz/second_reader.h holds one to
 * the other. */
#include "stream/message_internal.h"

#include "stream/ticket.h"
#include "util/err.h"

#include <math.h>
#include <string.h>

typedef enum { K_NIL, K_BOOL, K_UINT, K_INT, K_REAL, K_STR, K_BIN, K_ARRAY, K_MAP } Kind;

typedef struct {
    Kind kind;
    uint64_t u;       /* unsigned value, or length, or count */
    int64_t i;        /* K_INT: a negative value */
    double real;
    const char *text; /* K_STR, K_BIN */
} Item;

typedef struct {
    const uint8_t *at, *end;
} Cursor;

static int bad(const char *what)
{
    return err_set(ERR_DATA, "message header: %s", what);
}

static int big_endian(Cursor *c, int bytes, uint64_t *out)
{
    if (c->end - c->at < bytes)
        return bad("truncated");
    *out = 0;
    for (int i = 0; i < bytes; i++)
        *out = *out << 8 | *c->at++;
    return 0;
}

static int signed_item(Item *it, int bytes)
{
    int shift = 64 - 8 * bytes;
    int64_t x = (int64_t)(it->u << shift) >> shift;
    it->kind = x < 0 ? K_INT : K_UINT;
    it->i = x;
    it->u = (uint64_t)x;
    return 0;
}

static int sized_item(Cursor *c, Item *it, Kind kind, int bytes)
{
    it->kind = kind;
    if (bytes && big_endian(c, bytes, &it->u))
        return -1;
    /* Every element takes a byte at least, so a count beyond what is left is a lie. */
    if (it->u > (uint64_t)(c->end - c->at) || (kind == K_MAP && it->u > (uint64_t)(c->end - c->at) / 2))
        return bad("a length beyond its end");
    if (kind == K_STR || kind == K_BIN) {
        it->text = (const char *)c->at;
        c->at += it->u;
    }
    return 0;
}

static int read_item(Cursor *c, Item *it)
{
    if (c->at == c->end)
        return bad("truncated");
    uint8_t b = *c->at++;
    *it = (Item){ .kind = K_UINT };
    if (b <= 0x7f) {
        it->u = b;
        return 0;
    }
    if (b >= 0xe0) {
        it->kind = K_INT;
        it->i = (int8_t)b;
        return 0;
    }
    if (b <= 0x8f)
        return it->u = b & 15, sized_item(c, it, K_MAP, 0);
    if (b <= 0x9f)
        return it->u = b & 15, sized_item(c, it, K_ARRAY, 0);
    if (b <= 0xbf)
        return it->u = b & 31, sized_item(c, it, K_STR, 0);
    switch (b) {
    case 0xc0:
        it->kind = K_NIL;
        return 0;
    case 0xc2:
    case 0xc3:
        it->kind = K_BOOL;
        it->u = b & 1;
        return 0;
    case 0xc4: case 0xc5: case 0xc6:
        return sized_item(c, it, K_BIN, 1 << (b - 0xc4));
    case 0xca: {
        float f;
        uint32_t bits;
        if (big_endian(c, 4, &it->u))
            return -1;
        bits = (uint32_t)it->u;
        memcpy(&f, &bits, 4);
        it->kind = K_REAL;
        it->real = f;
        return 0;
    }
    case 0xcb:
        if (big_endian(c, 8, &it->u))
            return -1;
        memcpy(&it->real, &it->u, 8);
        it->kind = K_REAL;
        return 0;
    case 0xcc: case 0xcd: case 0xce: case 0xcf:
        return big_endian(c, 1 << (b - 0xcc), &it->u);
    case 0xd0: case 0xd1: case 0xd2: case 0xd3:
        return big_endian(c, 1 << (b - 0xd0), &it->u) ? -1 : signed_item(it, 1 << (b - 0xd0));
    case 0xd9: case 0xda: case 0xdb:
        return sized_item(c, it, K_STR, 1 << (b - 0xd9));
    case 0xdc: case 0xdd:
        return sized_item(c, it, K_ARRAY, 2 << (b - 0xdc));
    case 0xde: case 0xdf:
        return sized_item(c, it, K_MAP, 2 << (b - 0xde));
    }
    return bad("a msgpack type that has no place here");
}

/* Step over one value whatever it is: fields that a later version adds. */
static int skip_value(Cursor *c, int depth)
{
    Item it;
    if (depth > 16)
        return bad("nested too deeply");
    if (read_item(c, &it))
        return -1;
    uint64_t inside = it.kind == K_ARRAY ? it.u : it.kind == K_MAP ? 2 * it.u : 0;
    while (inside--)
        if (skip_value(c, depth + 1))
            return -1;
    return 0;
}

static int want(Cursor *c, Item *it, Kind kind, uint64_t most, const char *field)
{
    if (read_item(c, it))
        return -1;
    if (it->kind != kind)
        return err_set(ERR_DATA, "message header: %s has the wrong type", field);
    if (it->u > most)
        return err_set(ERR_DATA, "message header: %s: %llu, at most %llu", field, (unsigned long long)it->u,
                       (unsigned long long)most);
    return 0;
}

static bool is(const Item *it, const char *text)
{
    return it->u == strlen(text) && !memcmp(it->text, text, it->u);
}

static int get_uint(Cursor *c, uint64_t *out, uint64_t most, const char *field)
{
    Item it;
    if (want(c, &it, K_UINT, most, field))
        return -1;
    *out = it.u;
    return 0;
}

static int get_text(Cursor *c, Message *m, const char **out, const char *field)
{
    Item it;
    if (want(c, &it, K_STR, MSG_MAX_TEXT, field))
        return -1;
    if (memchr(it.text, 0, it.u))
        return err_set(ERR_DATA, "message header: %s holds a NUL", field);
    return (*out = message_keep(m, it.text, it.u)) ? 0 : -1;
}

static int get_plan(Cursor *c, Message *m)
{
    Item rows, row, x;
    if (want(c, &rows, K_ARRAY, MSG_MAX_VIEWS, "plan"))
        return -1;
    if (!rows.u)
        return bad("an empty plan");
    for (uint64_t v = 0; v < rows.u; v++) {
        if (want(c, &row, K_ARRAY, MSG_MAX_NUMBERS, "plan row"))
            return -1;
        if (!row.u || (v && row.u != (uint64_t)m->numbers))
            return bad("plan rows of unequal length");
        if (!v) {
            m->views = (int)rows.u;
            m->numbers = (int)row.u;
            if (!(m->plan = message_alloc(m, rows.u * row.u * sizeof *m->plan)))
                return -1;
        }
        for (uint64_t i = 0; i < row.u; i++) {
            if (read_item(c, &x))
                return -1;
            if (x.kind != K_UINT && x.kind != K_INT && x.kind != K_REAL)
                return bad("a plan entry that is no number");
            double value = x.kind == K_UINT ? (double)x.u : x.kind == K_INT ? (double)x.i : x.real;
            if (!isfinite(value))
                return bad("a plan entry that is not finite");
            m->plan[v * row.u + i] = value;
        }
    }
    return 0;
}

static int get_acks(Cursor *c, Message *m)
{
    Item it;
    if (want(c, &it, K_ARRAY, MSG_MAX_ACKS, "acks") || !(m->ack = message_alloc(m, it.u * sizeof *m->ack)))
        return -1;
    m->acks = (int)it.u;
    for (int i = 0; i < m->acks; i++)
        if (get_uint(c, &m->ack[i], UINT64_MAX, "acks"))
            return -1;
    return 0;
}

static int get_facts(Cursor *c, Message *m)
{
    Item map, key, x;
    if (want(c, &map, K_MAP, MSG_MAX_FACTS, "facts"))
        return -1;
    for (uint64_t i = 0; i < map.u; i++) {
        if (want(c, &key, K_STR, 256, "fact") || read_item(c, &x))
            return -1;
        if (memchr(key.text, 0, key.u))
            return bad("a fact's name holds a NUL");
        MsgFact f = { 0 };
        if (x.kind == K_STR && !memchr(x.text, 0, x.u)) {
            f.type = FACT_TEXT;
            if (!(f.text = message_keep(m, x.text, x.u)))
                return -1;
        } else if (x.kind == K_REAL) {
            f.type = FACT_REAL;
            f.real = x.real;
        } else if (x.kind == K_INT || (x.kind == K_UINT && x.u <= INT64_MAX)) {
            f.integer = x.kind == K_INT ? x.i : (int64_t)x.u;
        } else {
            return err_set(ERR_DATA, "message header: fact %.*s has the wrong type", (int)key.u, key.text);
        }
        MsgFact *to = message_new_fact(m, key.text, key.u);
        if (!to)
            return -1;
        f.key = to->key;
        *to = f;
    }
    return 0;
}

static int get_tensor(Cursor *c, Message *m)
{
    Item map, key, name = { 0 }, x;
    int64_t shape[MSG_MAX_RANK] = { 0 };
    uint64_t pid = 0, fd = 0, size = 0, offset = 0;
    int ndim = -1, dtype = -1, medium = -1;

    if (want(c, &map, K_MAP, 64, "tensor"))
        return -1;
    for (uint64_t i = 0; i < map.u; i++) {
        if (want(c, &key, K_STR, 256, "tensor field"))
            return -1;
        if (is(&key, "name")) {
            if (want(c, &name, K_STR, 256, "tensor name"))
                return -1;
            if (!name.u || memchr(name.text, 0, name.u))
                return bad("a tensor without a proper name");
        } else if (is(&key, "dtype")) {
            if (want(c, &x, K_STR, 16, "dtype"))
                return -1;
            dtype = -1;
            for (int d = 0; d < MSG_DTYPES; d++)
                if (is(&x, msg_dtype_name((MsgDtype)d)))
                    dtype = d;
        } else if (is(&key, "shape")) {
            if (want(c, &x, K_ARRAY, MSG_MAX_RANK, "shape"))
                return -1;
            ndim = (int)x.u;
            for (int d = 0; d < ndim; d++) {
                if (want(c, &x, K_UINT, INT64_MAX, "shape"))
                    return -1;
                shape[d] = (int64_t)x.u;
            }
        } else if (is(&key, "medium")) {
            if (want(c, &x, K_STR, 32, "medium"))
                return -1;
            medium = is(&x, "inline") ? MSG_INLINE : is(&x, "shared") ? MSG_SHARED : -1;
        } else if (is(&key, "pid")) {
            if (get_uint(c, &pid, INT32_MAX, "pid"))
                return -1;
        } else if (is(&key, "fd")) {
            if (get_uint(c, &fd, INT32_MAX, "fd"))
                return -1;
        } else if (is(&key, "size")) {
            if (get_uint(c, &size, INT64_MAX, "size"))
                return -1;
        } else if (is(&key, "offset")) {
            if (get_uint(c, &offset, INT64_MAX, "offset"))
                return -1;
        } else if (skip_value(c, 0)) {
            return -1;
        }
    }
    if (!name.u || dtype < 0 || ndim < 0 || medium < 0)
        return bad("a tensor lacks name, dtype, shape or medium, or has one that is unknown");
    MsgTensor *t = message_new_tensor(m, name.text, name.u);
    if (!t)
        return -1;
    if (message_shape(t, (MsgDtype)dtype, ndim, shape))
        return -1;
    t->medium = (MsgMedium)medium;
    if (medium == MSG_SHARED) {
        if (offset > size || t->bytes > size - offset)
            return err_set(ERR_DATA, "message: tensor %s does not lie within its shared block", t->name);
        t->shared.pid = (int64_t)pid;
        t->shared.fd = (int64_t)fd;
        t->shared.size = size;
        t->shared.offset = offset;
    }
    return 0;
}

static int get_tensors(Cursor *c, Message *m)
{
    Item it;
    if (want(c, &it, K_ARRAY, MSG_MAX_TENSORS, "tensors"))
        return -1;
    for (uint64_t i = 0; i < it.u; i++)
        if (get_tensor(c, m))
            return -1;
    return 0;
}

static int get_size(Cursor *c, Message *m)
{
    Item it;
    uint64_t w, h;
    if (want(c, &it, K_ARRAY, 2, "size"))
        return -1;
    if (it.u != 2 || get_uint(c, &w, UINT32_MAX, "size") || get_uint(c, &h, UINT32_MAX, "size"))
        return bad("size is not two numbers");
    m->width = (uint32_t)w;
    m->height = (uint32_t)h;
    return 0;
}

enum {
    F_HSSL,
    F_TYPE,
    F_SEQ,
    F_EPOCH,
    F_ID,
    F_LABEL,
    F_SIZE,
    F_READING,
    F_NAME,
    F_BAD,
    F_TEXT,
    F_PLAN,
    F_CREDIT,
    F_LIMIT,
    F_ACKS,
    F_TENSORS,
    F_FACTS,
    F_COUNT
};
static const char *const field_names[F_COUNT] = { "hssl", "type", "seq", "epoch", "id", "label", "size",
    "reading", "name", "bad", "text", "plan", "credit", "limit", "acks", "tensors", "facts" };

static int get_type(Cursor *c, Message *m)
{
    Item it;
    if (want(c, &it, K_STR, 32, "type"))
        return -1;
    for (int t = MSG_NONE + 1; t < MSG_TYPES; t++)
        if (is(&it, message_type_name((MsgType)t))) {
            m->type = (MsgType)t;
            return 0;
        }
    return err_set(ERR_DATA, "message header: unknown type %.*s", (int)it.u, it.text);
}

static int get_field(Cursor *c, Message *m, int field)
{
    uint64_t x = 0;
    switch (field) {
    case F_HSSL:
        if (get_uint(c, &x, UINT64_MAX, "hssl"))
            return -1;
        return x == TICKET_VERSION || x == MSG_READING_VERSION
                   ? 0
                   : err_set(ERR_DATA,
                             "message of protocol version %llu, this program speaks %d and, in records, %d",
                             (unsigned long long)x, TICKET_VERSION, MSG_READING_VERSION);
    case F_TYPE:
        return get_type(c, m);
    case F_SEQ:
        return get_uint(c, &m->seq, INT64_MAX, "seq");
    case F_EPOCH:
        return get_uint(c, &m->epoch, INT64_MAX, "epoch");
    case F_ID:
        return get_uint(c, &m->id, INT64_MAX, "id");
    case F_LABEL:
        if (get_uint(c, &x, INT32_MAX, "label"))
            return -1;
        m->label = (int32_t)x;
        return 0;
    case F_SIZE:
        return get_size(c, m);
    case F_READING:
        if (get_uint(c, &x, UINT16_MAX, "reading"))
            return -1;
        m->reading = (uint16_t)x;
        return 0;
    case F_NAME:
        return get_text(c, m, &m->name, "name");
    case F_BAD:
        return get_text(c, m, &m->bad, "bad");
    case F_TEXT:
        return get_text(c, m, &m->text, "text");
    case F_PLAN:
        return get_plan(c, m);
    case F_CREDIT:
        return get_uint(c, &m->credit, INT32_MAX, "credit");
    case F_LIMIT:
        return get_uint(c, &m->limit, UINT64_MAX, "limit");
    case F_ACKS:
        return get_acks(c, m);
    case F_TENSORS:
        return get_tensors(c, m);
    case F_FACTS:
        return get_facts(c, m);
    }
    return skip_value(c, 0);
}

static int parse_header(Cursor *c, Message *m)
{
    Item map, key;
    unsigned seen = 0;
    if (want(c, &map, K_MAP, 256, "header"))
        return -1;
    for (uint64_t i = 0; i < map.u; i++) {
        int field = 0;
        if (want(c, &key, K_STR, 256, "field name"))
            return -1;
        while (field < F_COUNT && !is(&key, field_names[field]))
            field++;
        if (field < F_COUNT && (seen >> field & 1))
            return err_set(ERR_DATA, "message header: %s twice", field_names[field]);
        seen |= field < F_COUNT ? 1u << field : 0;
        if (get_field(c, m, field))
            return -1;
    }
    if (c->at != c->end)
        return bad("bytes behind its end");
    if (!(seen >> F_HSSL & 1) || !(seen >> F_TYPE & 1))
        return bad("no version or type");
    bool needs_seq = m->type == MSG_DATA || m->type == MSG_HELLO || m->type == MSG_END;
    if (needs_seq && !(seen >> F_SEQ & 1))
        return err_set(ERR_DATA, "message header: %s without seq", message_type_name(m->type));
    return 0;
}

static int match_frames(Message *m, const MsgFrame *frames, int nframes)
{
    int next = 0;
    for (int i = 0; i < m->tensors; i++) {
        MsgTensor *t = &m->tensor[i];
        if (t->medium != MSG_INLINE)
            continue;
        if (next == nframes)
            return err_set(ERR_DATA, "message: tensor %s has no frame", t->name);
        if (frames[next].size != t->bytes)
            return err_set(ERR_DATA, "message: tensor %s: %zu bytes, its shape needs %zu", t->name, frames[next].size,
                           t->bytes);
        t->data = frames[next++].data;
    }
    return next == nframes ? 0 : err_set(ERR_DATA, "message: %d frames for %d tensors", nframes, next);
}

static int parse(const void *header, size_t n, Message *out)
{
    Cursor c = { header, (const uint8_t *)header + n };
    message_init(out, MSG_NONE);
    if (n > MSG_MAX_HEADER)
        return err_set(ERR_DATA, "message: a header of %zu bytes (at most %d)", n, MSG_MAX_HEADER);
    return parse_header(&c, out);
}

int message_parse(const void *header, size_t n, const MsgFrame *frames, int nframes, Message *out)
{
    if (!parse(header, n, out) && !match_frames(out, frames, nframes))
        return 0;
    message_clear(out);
    return -1;
}

int message_parse_flat(const void *header, size_t n, const void *data, size_t size, Message *out)
{
    MsgFrame frames[MSG_MAX_TENSORS];
    char *at = (char *)data;
    int count = 0;
    if (!parse(header, n, out)) {
        for (int i = 0; i < out->tensors; i++) {
            size_t bytes = out->tensor[i].bytes;
            if (out->tensor[i].medium != MSG_INLINE)
                continue;
            if (bytes > size)
                bytes = size; /* found to be too few below */
            frames[count++] = (MsgFrame){ at, bytes };
            at += bytes;
            size -= bytes;
        }
        if (size)
            err_set(ERR_DATA, "message: %zu bytes behind its tensors", size);
        else if (!match_frames(out, frames, count))
            return 0;
    }
    message_clear(out);
    return -1;
}
