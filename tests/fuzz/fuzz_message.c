/* Stream messages. Input: number of frames (1; 255: the rest is a pack), length of the header (2), length of
 * each frame (2), header, frames. What was parsed is used as the programs do, and must survive being sent on;
 * msgpack-c's unpacker must agree about all of it. */
#include "fuzz.h"
#include "second_reader.h"

#include "stream/message.h"
#include "stream/pack.h"

#include <stdlib.h>

static void use(const Message *m)
{
    unsigned sum = 0;
    for (int i = 0; i < m->tensors; i++)
        for (size_t k = 0; m->tensor[i].data && k < m->tensor[i].bytes; k++)
            sum += ((const uint8_t *)m->tensor[i].data)[k];
    for (int i = 0; i < m->views * m->numbers; i++)
        sum += m->plan[i] > 0;
    for (int i = 0; i < m->acks; i++)
        sum += (unsigned)m->ack[i];
    free(message_describe(m));
    free(message_json(m, sum & 1));
    fuzz_sink = sum;
}

static void send_on(const Message *m)
{
    MsgFrame frames[MSG_MAX_TENSORS];
    Message again;
    void *header;
    size_t n;
    int count = 0;
    if (message_header(m, &header, &n))
        return;
    for (int i = 0; i < m->tensors; i++)
        if (m->tensor[i].medium == MSG_INLINE)
            frames[count++] = (MsgFrame){ m->tensor[i].data, m->tensor[i].bytes };
    MUST(!message_parse(header, n, frames, count, &again));
    MUST(again.tensors == m->tensors && again.facts == m->facts && again.views == m->views);
    free(header);
    message_clear(&again);
    Message copy = { 0 }, facts;
    if (!message_copy(&copy, m))
        use(&copy);
    message_clear(&copy);
    message_init(&facts, MSG_NOTE);
    MUST(!message_copy_facts(&facts, m));
    message_clear(&facts);
}

static void agree(const SecondInput *in, int ours, const Message *m)
{
    const char *what;
    MUST(second_reader(in, ours, m, &what) != SECOND_DISAGREES);
}

/* The record of a pack that begins at `at`. */
static void agree_in_pack(const uint8_t *pack, size_t n, size_t at, int ours, const Message *m)
{
    FuzzInput in = { pack + at, pack + n };
    size_t header = fuzz_take(&in, 4), data = fuzz_take(&in, 4), left = (size_t)(in.end - in.at);
    if (header > left || data > left - header)
        return;
    MsgFrame whole = { (uint8_t *)(uintptr_t)in.at + header, data };
    agree(&(SecondInput){ .header = in.at, .n = header, .frames = &whole, .count = -1 }, ours, m);
}

static void unpack(FuzzInput *in)
{
    Message m;
    size_t n, at = 0, from = 4;
    int rc;
    uint8_t *pack = fuzz_block(in, SIZE_MAX, &n);
    if (pack_is(pack, n))
        while ((rc = pack_next(pack, n, &at, &m))) {
            agree_in_pack(pack, n, from, rc < 0 ? -1 : 0, &m);
            if (rc < 0)
                break;
            from = at;
            use(&m);
            send_on(&m);
            message_clear(&m);
        }
    free(pack);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    FuzzInput in = { bytes, bytes + size };
    MsgFrame frames[MSG_MAX_TENSORS + 1];
    size_t length[MSG_MAX_TENSORS + 1], n;
    Message m;
    uint32_t count = fuzz_take(&in, 1);
    if (count == 255) {
        unpack(&in);
        return 0;
    }
    count %= MSG_MAX_TENSORS + 2;
    size_t header_size = fuzz_take(&in, 2);
    for (uint32_t i = 0; i < count; i++)
        length[i] = fuzz_take(&in, 2);
    uint8_t *header = fuzz_block(&in, header_size, &n);
    for (uint32_t i = 0; i < count; i++)
        frames[i].data = fuzz_block(&in, length[i], &frames[i].size);
    int rc = message_parse(header, n, frames, (int)count, &m);
    agree(&(SecondInput){ .header = header, .n = n, .frames = frames, .count = (int)count }, rc, &m);
    if (!rc) {
        use(&m);
        send_on(&m);
    }
    message_clear(&m);
    free(header);
    for (uint32_t i = 0; i < count; i++)
        free(frames[i].data);
    return 0;
}
