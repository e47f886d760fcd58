#include "stream/pack.h"

#include "stream/message_internal.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

/* 0xc1 is the one byte that msgpack never uses. */
static const uint8_t magic[4] = { 0xc1, 'p', 'k', 1 };
enum {
    PREFIX = 8
}; /* before each record: bytes of its header, bytes of its tensors, both u32, little-endian */

static size_t inline_bytes(const Message *m)
{
    size_t n = 0;
    for (int i = 0; i < m->tensors; i++)
        n += m->tensor[i].medium == MSG_INLINE ? m->tensor[i].bytes : 0;
    return n;
}

bool pack_takes(const Message *m)
{
    return m->type == MSG_DATA && inline_bytes(m) <= PACK_RECORD;
}

static void put_u32(char *to, size_t x)
{
    for (int i = 0; i < 4; i++)
        to[i] = (char)(x >> (8 * i));
}

static size_t get_u32(const uint8_t *from)
{
    return (size_t)from[0] | (size_t)from[1] << 8 | (size_t)from[2] << 16 | (size_t)from[3] << 24;
}

int pack_append(MsgBuffer *pack, const Message *m)
{
    size_t before = pack->size, data = inline_bytes(m);
    if (!pack->size)
        msg_buffer_put(pack, magic, sizeof magic);
    size_t prefix = pack->size;
    msg_buffer_put(pack, (char[PREFIX]){ 0 }, PREFIX);
    if (message_write(m, pack))
        goto fail;
    size_t header = pack->size - prefix - PREFIX;
    if (data > UINT32_MAX) {
        err_set(ERR_DATA, "message: %zu bytes in a pack", data);
        goto fail;
    }
    for (int i = 0; i < m->tensors; i++)
        if (m->tensor[i].medium == MSG_INLINE)
            msg_buffer_put(pack, m->tensor[i].data, m->tensor[i].bytes);
    if (pack->failed) {
        err_set(ERR_MEMORY, "message: out of memory (a pack)");
        goto fail;
    }
    put_u32(pack->data + prefix, header);
    put_u32(pack->data + prefix + 4, data);
    return 0;
fail:
    pack->size = before;
    pack->failed = false;
    return -1;
}

bool pack_is(const void *bytes, size_t n)
{
    return n >= sizeof magic && !memcmp(bytes, magic, sizeof magic);
}

int pack_next(const void *bytes, size_t n, size_t *at, Message *out)
{
    const uint8_t *b = bytes;
    message_init(out, MSG_NONE);
    if (!*at)
        *at = sizeof magic;
    if (*at >= n)
        return 0;
    size_t left = n - *at;
    if (left < PREFIX)
        return err_set(ERR_DATA, "message: a pack of %zu bytes, truncated", n);
    size_t header = get_u32(b + *at), data = get_u32(b + *at + 4);
    left -= PREFIX;
    if (header > left || data > left - header)
        return err_set(ERR_DATA, "message: a pack of %zu bytes, truncated", n);
    const uint8_t *from = b + *at + PREFIX;
    if (message_parse_flat(from, header, from + header, data, out))
        return -1;
    *at += PREFIX + header + data;
    return 1;
}
