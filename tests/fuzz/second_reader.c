#include "second_reader.h"

#include "stream/message_internal.h"
#include "stream/ticket.h"
#include "util/err.h"

#include <math.h>
#include <msgpack.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef msgpack_object Object;

enum { KEY = 256, DEEPEST = 16 };

static const char *const texts[SECOND_VERDICTS] = {
    [SECOND_SAME] = "both accept, the same values",
    [SECOND_BROKEN] = "both refuse",
    [SECOND_BOMB] = "msgpack-c is not asked: more entries than bytes",
    [SECOND_LONG] = "longer than a header may be",
    [SECOND_BEHIND] = "something behind its end",
    [SECOND_EXT] = "an application's own type",
    [SECOND_DEEP] = "nested too deeply",
    [SECOND_NO_MAP] = "not a map with strings for keys",
    [SECOND_MANY] = "too many entries",
    [SECOND_TWICE] = "a field twice",
    [SECOND_VERSION] = "another version",
    [SECOND_FIELD] = "a field of another type, or out of range",
    [SECOND_LACKS] = "a field is missing",
    [SECOND_FRAMES] = "tensors and frames do not fit",
};

const char *second_text(SecondVerdict v)
{
    return v < 0 ? "they disagree" : texts[v];
}

/* ---------------------------------------------------------------- what an object may be */

static bool is_text(const Object *o, uint32_t most)
{
    return o->type == MSGPACK_OBJECT_STR && o->via.str.size <= most;
}

static bool is_clean(const Object *o, uint32_t most)
{
    return is_text(o, most) && !memchr(o->via.str.ptr, 0, o->via.str.size);
}

static bool is_uint(const Object *o, uint64_t most)
{
    return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= most;
}

static bool is_real(const Object *o)
{
    return o->type == MSGPACK_OBJECT_FLOAT32 || o->type == MSGPACK_OBJECT_FLOAT64;
}

static bool called(const Object *o, const char *name)
{
    return o->via.str.size == strlen(name) && !memcmp(o->via.str.ptr, name, o->via.str.size);
}

static double as_double(const Object *o)
{
    return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER   ? (double)o->via.u64
           : o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ? (double)o->via.i64
                                                        : o->via.f64;
}

/* Levels below o, of which *ext is told one of an application's own type. */
static int depth(const Object *o, bool *ext)
{
    int deepest = -1;
    *ext |= o->type == MSGPACK_OBJECT_EXT;
    if (o->type == MSGPACK_OBJECT_ARRAY)
        for (uint32_t i = 0; i < o->via.array.size; i++) {
            int d = depth(&o->via.array.ptr[i], ext);
            deepest = d > deepest ? d : deepest;
        }
    if (o->type == MSGPACK_OBJECT_MAP)
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            int k = depth(&o->via.map.ptr[i].key, ext), v = depth(&o->via.map.ptr[i].val, ext);
            int d = k > v ? k : v;
            deepest = d > deepest ? d : deepest;
        }
    return deepest + 1;
}

static SecondVerdict check_unknown(const Object *o)
{
    bool ext = false;
    int d = depth(o, &ext);
    return ext ? SECOND_EXT : d > DEEPEST ? SECOND_DEEP : SECOND_SAME;
}

/* ---------------------------------------------------------------- what a header says */

/* Strings and arrays stay msgpack-c's. */
typedef struct {
    int type; /* MSG_NONE: not there */
    uint64_t seq, epoch, id, width, height, reading, credit, limit;
    int64_t label;
    const Object *name, *bad, *text, *plan, *acks, *tensors, *facts;
    bool hssl, has_seq;
} Header;

/* The last of the entries with this key that a map has, or NULL. */
static const Object *entry(const Object *map, const char *key)
{
    const Object *found = NULL;
    for (uint32_t i = 0; i < map->via.map.size; i++)
        if (called(&map->via.map.ptr[i].key, key))
            found = &map->via.map.ptr[i].val;
    return found;
}

static SecondVerdict check_keys(const Object *o, uint32_t most)
{
    if (o->type != MSGPACK_OBJECT_MAP)
        return SECOND_NO_MAP;
    if (o->via.map.size > most)
        return SECOND_MANY;
    for (uint32_t i = 0; i < o->via.map.size; i++)
        if (!is_text(&o->via.map.ptr[i].key, KEY))
            return SECOND_NO_MAP;
    return SECOND_SAME;
}

static SecondVerdict check_array(const Object *o, uint32_t most)
{
    return o->type != MSGPACK_OBJECT_ARRAY ? SECOND_FIELD
           : o->via.array.size > most      ? SECOND_MANY
                                           : SECOND_SAME;
}

static SecondVerdict check_uints(const Object *o, uint32_t most, uint64_t largest)
{
    SecondVerdict v = check_array(o, most);
    for (uint32_t i = 0; !v && i < o->via.array.size; i++)
        if (!is_uint(&o->via.array.ptr[i], largest))
            v = SECOND_FIELD;
    return v;
}

static SecondVerdict check_plan(const Object *o)
{
    SecondVerdict v = check_array(o, MSG_MAX_VIEWS);
    if (!v && !o->via.array.size)
        v = SECOND_FIELD;
    for (uint32_t i = 0; !v && i < o->via.array.size; i++) {
        const Object *row = &o->via.array.ptr[i];
        v = check_array(row, MSG_MAX_NUMBERS);
        if (!v && (!row->via.array.size || row->via.array.size != o->via.array.ptr[0].via.array.size))
            v = SECOND_FIELD;
        for (uint32_t k = 0; !v && k < row->via.array.size; k++) {
            const Object *x = &row->via.array.ptr[k];
            bool number = x->type == MSGPACK_OBJECT_POSITIVE_INTEGER ||
                          x->type == MSGPACK_OBJECT_NEGATIVE_INTEGER || is_real(x);
            if (!number || !isfinite(as_double(x)))
                v = SECOND_FIELD;
        }
    }
    return v;
}

static SecondVerdict check_facts(const Object *o)
{
    SecondVerdict v = check_keys(o, MSG_MAX_FACTS);
    for (uint32_t i = 0; !v && i < o->via.map.size; i++) {
        const Object *x = &o->via.map.ptr[i].val;
        bool fine = is_clean(x, MSG_MAX_TEXT) || is_real(x) || is_uint(x, INT64_MAX) ||
                    x->type == MSGPACK_OBJECT_NEGATIVE_INTEGER;
        if (!fine || !is_clean(&o->via.map.ptr[i].key, KEY))
            v = SECOND_FIELD;
    }
    return v;
}

static int dtype_of(const Object *o)
{
    for (int d = 0; d < MSG_DTYPES; d++)
        if (called(o, msg_dtype_name((MsgDtype)d)))
            return d;
    return -1;
}

static uint64_t number(const Object *map, const char *key)
{
    const Object *o = entry(map, key);
    return o ? o->via.u64 : 0;
}

static bool is_shared(const Object *tensor)
{
    return called(entry(tensor, "medium"), "shared");
}

/* Bytes of a tensor, or SIZE_MAX for more than there can be. */
static size_t tensor_size(const Object *tensor)
{
    const Object *shape = entry(tensor, "shape");
    unsigned __int128 bytes = msg_dtype_size((MsgDtype)dtype_of(entry(tensor, "dtype")));
    for (uint32_t i = 0; i < shape->via.array.size; i++) {
        bytes *= shape->via.array.ptr[i].via.u64;
        if (bytes > SIZE_MAX / 4)
            return SIZE_MAX;
    }
    return (size_t)bytes;
}

static SecondVerdict check_tensor_field(const Object *key, const Object *x)
{
    if (called(key, "name"))
        return is_clean(x, KEY) && x->via.str.size ? SECOND_SAME : SECOND_FIELD;
    if (called(key, "dtype"))
        return is_text(x, 16) ? SECOND_SAME : SECOND_FIELD;
    if (called(key, "medium"))
        return is_text(x, 32) ? SECOND_SAME : SECOND_FIELD;
    if (called(key, "shape"))
        return check_uints(x, MSG_MAX_RANK, INT64_MAX);
    if (called(key, "pid") || called(key, "fd"))
        return is_uint(x, INT32_MAX) ? SECOND_SAME : SECOND_FIELD;
    if (called(key, "size") || called(key, "offset"))
        return is_uint(x, INT64_MAX) ? SECOND_SAME : SECOND_FIELD;
    return check_unknown(x);
}

static SecondVerdict check_tensor(const Object *o)
{
    SecondVerdict v = check_keys(o, 64);
    for (uint32_t i = 0; !v && i < o->via.map.size; i++)
        v = check_tensor_field(&o->via.map.ptr[i].key, &o->via.map.ptr[i].val);
    if (v)
        return v;
    const Object *dtype = entry(o, "dtype"), *medium = entry(o, "medium");
    if (!entry(o, "name") || !entry(o, "shape") || !dtype || !medium)
        return SECOND_LACKS;
    if (dtype_of(dtype) < 0 || !(called(medium, "inline") || called(medium, "shared")))
        return SECOND_FIELD;
    size_t bytes = tensor_size(o);
    if (bytes == SIZE_MAX)
        return SECOND_FIELD;
    uint64_t size = number(o, "size"), offset = number(o, "offset");
    return is_shared(o) && (offset > size || bytes > size - offset) ? SECOND_FRAMES : SECOND_SAME;
}

static SecondVerdict take_uint(const Object *x, uint64_t *to, uint64_t most)
{
    if (!is_uint(x, most))
        return SECOND_FIELD;
    *to = x->via.u64;
    return SECOND_SAME;
}

static SecondVerdict take_text(const Object *x, const Object **to)
{
    *to = x;
    return is_clean(x, MSG_MAX_TEXT) ? SECOND_SAME : SECOND_FIELD;
}

static SecondVerdict take_field(Header *h, const Object *key, const Object *x)
{
    uint64_t label = 0;
    SecondVerdict v = SECOND_SAME;
    if (called(key, "hssl")) {
        h->hssl = true;
        return !is_uint(x, UINT64_MAX) ? SECOND_FIELD
               : x->via.u64 != 1 && x->via.u64 != 2 /* of records with a reading */ ? SECOND_VERSION
                                                                                    : SECOND_SAME;
    }
    if (called(key, "type")) {
        if (is_text(x, 32))
            for (int t = MSG_NONE + 1; t < MSG_TYPES; t++)
                if (called(x, message_type_name((MsgType)t)))
                    h->type = t;
        return h->type == MSG_NONE ? SECOND_FIELD : SECOND_SAME;
    }
    if (called(key, "seq")) {
        h->has_seq = true;
        return take_uint(x, &h->seq, INT64_MAX);
    }
    if (called(key, "epoch"))
        return take_uint(x, &h->epoch, INT64_MAX);
    if (called(key, "id"))
        return take_uint(x, &h->id, INT64_MAX);
    if (called(key, "label")) {
        v = take_uint(x, &label, INT32_MAX);
        h->label = (int64_t)label;
        return v;
    }
    if (called(key, "credit"))
        return take_uint(x, &h->credit, INT32_MAX);
    if (called(key, "limit"))
        return take_uint(x, &h->limit, UINT64_MAX);
    if (called(key, "size")) {
        v = check_uints(x, 2, UINT32_MAX);
        if (v || x->via.array.size != 2)
            return v ? v : SECOND_FIELD;
        h->width = x->via.array.ptr[0].via.u64;
        h->height = x->via.array.ptr[1].via.u64;
        return SECOND_SAME;
    }
    if (called(key, "reading"))
        return take_uint(x, &h->reading, UINT16_MAX);
    if (called(key, "name"))
        return take_text(x, &h->name);
    if (called(key, "bad"))
        return take_text(x, &h->bad);
    if (called(key, "text"))
        return take_text(x, &h->text);
    if (called(key, "plan")) {
        h->plan = x;
        return check_plan(x);
    }
    if (called(key, "acks")) {
        h->acks = x;
        return check_uints(x, MSG_MAX_ACKS, UINT64_MAX);
    }
    if (called(key, "facts")) {
        h->facts = x;
        return check_facts(x);
    }
    if (called(key, "tensors")) {
        h->tensors = x;
        v = check_array(x, MSG_MAX_TENSORS);
        for (uint32_t i = 0; !v && i < x->via.array.size; i++)
            v = check_tensor(&x->via.array.ptr[i]);
        return v;
    }
    return check_unknown(x);
}

static bool is_known(const Object *key)
{
    static const char *const names[] = {"hssl",  "type",  "seq",     "epoch", "id",   "label",
                                        "size",  "name",  "bad",     "text",  "plan", "acks",
                                        "limit", "facts", "tensors", "credit", "reading"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (called(key, names[i]))
            return true;
    return false;
}

static SecondVerdict check_frames(const Object *tensors, const SecondInput *in)
{
    size_t used = 0, total = 0;
    for (uint32_t i = 0; tensors && i < tensors->via.array.size; i++) {
        const Object *o = &tensors->via.array.ptr[i];
        if (is_shared(o))
            continue;
        size_t bytes = tensor_size(o);
        if (in->count < 0 ? bytes > in->frames[0].size - total
                          : used == (size_t)in->count || in->frames[used].size != bytes)
            return SECOND_FRAMES;
        used++;
        total += bytes;
    }
    return (in->count < 0 ? total == in->frames[0].size : used == (size_t)in->count) ? SECOND_SAME
                                                                                     : SECOND_FRAMES;
}

static SecondVerdict read_header(const Object *o, const SecondInput *in, Header *h)
{
    SecondVerdict v = check_keys(o, 256);
    for (uint32_t i = 0; !v && i < o->via.map.size; i++) {
        const msgpack_object_kv *kv = &o->via.map.ptr[i];
        for (uint32_t k = 0; k < i && is_known(&kv->key); k++)
            if (o->via.map.ptr[k].key.via.str.size == kv->key.via.str.size &&
                !memcmp(o->via.map.ptr[k].key.via.str.ptr, kv->key.via.str.ptr, kv->key.via.str.size))
                return SECOND_TWICE;
        v = take_field(h, &kv->key, &kv->val);
    }
    if (v)
        return v;
    if (!h->hssl || h->type == MSG_NONE ||
        (!h->has_seq && (h->type == MSG_DATA || h->type == MSG_HELLO || h->type == MSG_END)))
        return SECOND_LACKS;
    return check_frames(h->tensors, in);
}

/* ---------------------------------------------------------------- the same values */

static bool same_text(const Object *o, const char *text)
{
    return o ? text && called(o, text) : !text;
}

static bool same_plan(const Object *o, const Message *m)
{
    if (!o)
        return !m->plan;
    if (!m->plan || (uint32_t)m->views != o->via.array.size ||
        (uint32_t)m->numbers != o->via.array.ptr[0].via.array.size)
        return false;
    for (int i = 0; i < m->views * m->numbers; i++) {
        double x = as_double(&o->via.array.ptr[i / m->numbers].via.array.ptr[i % m->numbers]);
        if (memcmp(&x, &m->plan[i], sizeof x))
            return false;
    }
    return true;
}

static bool same_facts(const Object *o, const Message *m)
{
    for (int i = 0; i < m->facts; i++) {
        const MsgFact *f = &m->fact[i];
        const Object *x = o ? entry(o, f->key) : NULL;
        if (!x)
            return false;
        if (f->type == FACT_TEXT   ? !(x->type == MSGPACK_OBJECT_STR && called(x, f->text))
            : f->type == FACT_REAL ? !(is_real(x) && !memcmp(&x->via.f64, &f->real, sizeof f->real))
                                   : is_real(x) || x->type == MSGPACK_OBJECT_STR || x->via.i64 != f->integer)
            return false;
    }
    for (uint32_t i = 0; o && i < o->via.map.size; i++) {
        int k = 0;
        while (k < m->facts && !called(&o->via.map.ptr[i].key, m->fact[k].key))
            k++;
        if (k == m->facts)
            return false;
    }
    return true;
}

static bool same_tensor(const Object *o, const MsgTensor *t, const SecondInput *in, size_t *used, size_t *at)
{
    const Object *shape = entry(o, "shape");
    if (!called(entry(o, "name"), t->name) || dtype_of(entry(o, "dtype")) != (int)t->dtype ||
        (uint32_t)t->ndim != shape->via.array.size || t->bytes != tensor_size(o) ||
        is_shared(o) != (t->medium == MSG_SHARED))
        return false;
    for (int d = 0; d < t->ndim; d++)
        if ((uint64_t)t->shape[d] != shape->via.array.ptr[d].via.u64)
            return false;
    if (is_shared(o))
        return !t->data && (uint64_t)t->shared.pid == number(o, "pid") &&
               (uint64_t)t->shared.fd == number(o, "fd") && t->shared.size == number(o, "size") &&
               t->shared.offset == number(o, "offset");
    const void *data = in->count < 0 ? (char *)in->frames[0].data + *at : in->frames[(*used)++].data;
    *at += t->bytes;
    return t->data == data;
}

static bool same_tensors(const Object *o, const Message *m, const SecondInput *in)
{
    size_t used = 0, at = 0;
    if ((uint32_t)m->tensors != (o ? o->via.array.size : 0))
        return false;
    for (int i = 0; i < m->tensors; i++)
        if (!same_tensor(&o->via.array.ptr[i], &m->tensor[i], in, &used, &at))
            return false;
    return true;
}

static bool same_acks(const Object *o, const Message *m)
{
    if ((uint32_t)m->acks != (o ? o->via.array.size : 0))
        return false;
    for (int i = 0; i < m->acks; i++)
        if (m->ack[i] != o->via.array.ptr[i].via.u64)
            return false;
    return true;
}

static const char *compare(const Header *h, const Message *m, const SecondInput *in)
{
    return (int)m->type != h->type                                      ? "type"
           : m->seq != h->seq || m->epoch != h->epoch || m->id != h->id ? "seq, epoch or id"
           : m->label != h->label                                       ? "label"
           : m->width != h->width || m->height != h->height             ? "size"
           : m->reading != h->reading                                   ? "reading"
           : m->credit != h->credit || m->limit != h->limit             ? "credit or limit"
           : !same_text(h->name, m->name) || !same_text(h->bad, m->bad) || !same_text(h->text, m->text)
               ? "a text"
           : !same_plan(h->plan, m)           ? "plan"
           : !same_acks(h->acks, m)           ? "acks"
           : !same_facts(h->facts, m)         ? "facts"
           : !same_tensors(h->tensors, m, in) ? "tensors"
                                              : NULL;
}

/* ---------------------------------------------------------------- both */

static uint64_t big_endian(const uint8_t *b, size_t left, int bytes)
{
    uint64_t x = 0;
    for (int i = 0; i < bytes && (size_t)i < left; i++)
        x = x << 8 | b[i];
    return x;
}

/* Bytes that belong to the item that starts at b, its entries not counted, which follow as items of their
 * own. */
static uint64_t item_size(const uint8_t *b, size_t left)
{
    static const uint8_t fixed[] = {[0xca - 0xc0] = 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17,
                                    [0xdc - 0xc0] = 2, 4, 2, 4};
    static const uint8_t length[] = {[0xc4 - 0xc0] = 1, 2, 4, 1, 2, 4, [0xd9 - 0xc0] = 1, 2, 4};
    if (*b >= 0xa0 && *b <= 0xbf)
        return 1 + (uint64_t)(*b & 31);
    if (*b < 0xc0 || *b > 0xdf)
        return 1;
    int i = *b - 0xc0, n = i < (int)sizeof length ? length[i] : 0;
    bool ext = *b >= 0xc7 && *b <= 0xc9;
    return 1 + (uint64_t)fixed[i] + (uint64_t)n + big_endian(b + 1, left - 1, n) + ext;
}

/* An array or a map of more entries than there are bytes. */
static bool is_bomb(const uint8_t *b, size_t n)
{
    for (uint64_t at = 0; at < n; at += item_size(b + at, n - at))
        if ((b[at] == 0xdd || b[at] == 0xdf) && big_endian(b + at + 1, n - at - 1, 4) > n)
            return true;
    return false;
}

static SecondVerdict disagree(const char **what, const char *text)
{
    *what = text;
    return SECOND_DISAGREES;
}

SecondVerdict second_reader(const SecondInput *in, int ours, const Message *m, const char **what)
{
    if (ours && err_code() != ERR_DATA)
        return err_code() == ERR_MEMORY ? SECOND_BOMB
                                        : disagree(what, "ours fails and does not blame the header");
    if (in->n > MSG_MAX_HEADER)
        return ours ? SECOND_LONG : disagree(what, "ours accepts a header that is too long");
    if (is_bomb(in->header, in->n))
        return ours ? SECOND_BOMB : disagree(what, "ours accepts more entries than there are bytes");
    msgpack_unpacked u;
    Header h = {.label = -1, .limit = UINT64_MAX};
    size_t used = 0;
    SecondVerdict v = SECOND_BROKEN;
    msgpack_unpacked_init(&u);
    msgpack_unpack_return rc = msgpack_unpack_next(&u, in->header, in->n, &used);
    bool whole = rc == MSGPACK_UNPACK_SUCCESS || rc == MSGPACK_UNPACK_EXTRA_BYTES;
    if (whole)
        v = used < in->n ? SECOND_BEHIND : read_header(&u.data, in, &h);
    if (!ours && v)
        v = disagree(what, whole ? second_text(v) : "ours accepts, msgpack-c does not");
    else if (ours && !v)
        v = disagree(what, "ours refuses, msgpack-c does not");
    else if (!v && (*what = compare(&h, m, in)))
        v = SECOND_DISAGREES;
    msgpack_unpacked_destroy(&u);
    return v;
}

SecondVerdict second_check(const SecondInput *in, const char **what)
{
    Message m;
    int rc = in->count < 0 ? message_parse_flat(in->header, in->n, in->frames[0].data, in->frames[0].size, &m)
                           : message_parse(in->header, in->n, in->frames, in->count, &m);
    SecondVerdict v = second_reader(in, rc, &m, what);
    message_clear(&m);
    return v;
}
