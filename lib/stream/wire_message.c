/* Messages over sockets: a header and a frame a tensor, or many small records in one frame. */
#include "stream/message_internal.h"
#include "stream/wire.h"
#include "stream/wire_state.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Records that follow each other within so many seconds are gathered; nothing is kept back for longer while
 * the sender goes on sending. */
static const double QUICK = 1e-3;

/* ---------------------------------------------------------------- packs out */

static void free_header(void *data, void *hint)
{
    (void)hint;
    free(data);
}

/* Whether so much more may wait for the peer: 1; 0 or -1 as wire_send() returns. */
static int room_for(WireState *s, const WireId *to, size_t bytes, int frames)
{
    bool gone = to && to->size && !to->connection; /* already when it was read */
    if (!s->gate || s->type == ZMQ_XPUB || gone ||
        gate_give(s->gate, to ? to->connection : 0, bytes + (size_t)(frames - 1) * GATE_FRAME))
        return 1;
    return to && to->size ? 0 : err_set(ERR_PEER, "the other end reads nothing of what it is sent");
}

/* Send one frame. Returns 1, 0 when the peer has gone, -1. Takes data. */
static int send_frame(void *socket, const WireId *to, void *data, size_t n, int flags)
{
    zmq_msg_t part;
    if (zmq_msg_init_data(&part, data, n, free_header, NULL)) {
        free(data);
        return err_set(ERR_MEMORY, "message: out of memory");
    }
    int rc = 1;
    if (to && to->size && zmq_send(socket, to->bytes, to->size, ZMQ_SNDMORE) < 0)
        rc = errno == EHOSTUNREACH ? 0 : wire_error("send");
    else if (zmq_msg_send(&part, socket, flags) < 0)
        rc = wire_error("send");
    if (rc != 1)
        zmq_msg_close(&part);
    return rc;
}

/* Nothing is said through a socket on which a call failed as none should: the message may hang in the middle. */
static int check_whole(const WireState *s)
{
    return s->broken ? err_set(ERR_SYSTEM, "ZeroMQ: the connection has failed") : 0;
}

static void note_failure(WireState *s, int rc)
{
    s->broken = s->broken || (rc < 0 && err_code() == ERR_SYSTEM);
}

static int send_pack(WireState *s, WirePack *p)
{
    if (!p->bytes.size)
        return 1;
    int rc = room_for(s, &p->to, p->bytes.size, 1);
    if (rc == 1)
        rc = send_frame(s->socket, &p->to, p->bytes.data, p->bytes.size, 0);
    else
        free(p->bytes.data);
    note_failure(s, rc);
    p->bytes = (MsgBuffer){ 0 };
    s->gathered--;
    return rc;
}

static void drop_pack(WireState *s, WirePack *p)
{
    s->gathered -= p->bytes.size > 0;
    free(p->bytes.data);
    *p = s->pack[--s->packs];
}

void wire_packs_send(WireState *s)
{
    for (int i = s->packs; i-- > 0;) {
        WirePack *p = &s->pack[i];
        if (p->bytes.size && send_pack(s, p) < 1)
            p->gone = true;
    }
}

void wire_packs_end(WireState *s)
{
    wire_packs_send(s);
    while (s->packs)
        drop_pack(s, &s->pack[0]);
    free(s->pack);
    s->pack = NULL;
    s->pack_room = 0;
    if (s->unpacking)
        zmq_msg_close(&s->in);
    s->unpacking = false;
}

static WirePack *find_pack(WireState *s, const WireId *to)
{
    static const WireId nobody;
    const WireId *id = to ? to : &nobody;
    for (int i = 0; i < s->packs; i++)
        if (s->pack[i].to.size == id->size && !memcmp(s->pack[i].to.bytes, id->bytes, id->size))
            return &s->pack[i];
    return NULL;
}

/* Peers come and go without telling wire: an empty pack may be anybody's. */
static WirePack *new_pack(WireState *s, const WireId *to)
{
    enum { MANY = 64 };
    WirePack *p = NULL;
    for (int i = 0; i < s->packs && s->packs >= MANY && !p; i++)
        if (!s->pack[i].bytes.size)
            p = &s->pack[i];
    if (!p && s->packs == s->pack_room) {
        int room = s->pack_room ? 2 * s->pack_room : 4;
        WirePack *bigger = realloc(s->pack, (size_t)room * sizeof *bigger);
        if (!bigger) {
            err_set(ERR_MEMORY, "message: out of memory");
            return NULL;
        }
        s->pack = bigger;
        s->pack_room = room;
    }
    if (p)
        free(p->bytes.data);
    else
        p = &s->pack[s->packs++];
    *p = (WirePack){ 0 };
    if (to)
        p->to = *to;
    return p;
}

/* Put a small record into the peer's pack, and send that when it is full, old, or when records come so slowly
 * that waiting for more gains nothing. */
static int gather(WireState *s, const WireId *to, Message *m)
{
    WirePack *p = find_pack(s, to);
    double now = log_seconds();
    bool slow = now - s->sent > QUICK;
    int rc = 1;
    s->sent = now;
    if (p && p->gone) {
        drop_pack(s, p);
        return 0;
    }
    if (!p && !(p = new_pack(s, to)))
        return -1;
    if (!p->bytes.size) {
        p->since = now;
        if (!p->bytes.data && !slow && (p->bytes.data = malloc(PACK_BYTES + PACK_RECORD)))
            p->bytes.room = PACK_BYTES + PACK_RECORD;
    }
    bool empty = !p->bytes.size;
    if (pack_append(&p->bytes, m))
        return -1;
    s->gathered += empty;
    s->sender = pthread_self();
    if (slow || p->bytes.size >= PACK_BYTES || now - p->since > QUICK) {
        rc = send_pack(s, p);
        if (rc < 1)
            drop_pack(s, p);
    }
    return rc;
}

void wire_flush(void *socket)
{
    WireState *s = wire_state(socket);
    if (s->gathered)
        wire_packs_send(s);
}

/* ---------------------------------------------------------------- out */

/* A tensor that came in a pack has no frame of its own. */
static int send_tensor(void *socket, const MsgTensor *t, zmq_msg_t *frame, int flags)
{
    zmq_msg_t copy;
    if (frame)
        return zmq_msg_send(frame, socket, flags) < 0 ? wire_error("send") : 0;
    if (zmq_msg_init_size(&copy, t->bytes))
        return err_set(ERR_MEMORY, "message: out of memory (a frame of %zu bytes)", t->bytes);
    if (t->bytes)
        memcpy(zmq_msg_data(&copy), t->data, t->bytes);
    if (zmq_msg_send(&copy, socket, flags) >= 0)
        return 0;
    zmq_msg_close(&copy);
    return wire_error("send");
}

static int send_alone(WireState *s, const WireId *to, Message *m)
{
    void *header, *socket = s->socket;
    size_t n, bytes = 0;
    int frames = 0;
    for (int i = 0; i < m->tensors; i++) {
        frames += m->tensor[i].medium == MSG_INLINE;
        bytes += m->tensor[i].medium == MSG_INLINE ? m->tensor[i].bytes : 0;
    }
    if (message_header(m, &header, &n))
        return -1;
    int rc = room_for(s, to, n + bytes, 1 + frames);
    if (rc == 1)
        rc = send_frame(socket, to, header, n, frames ? ZMQ_SNDMORE : 0);
    else
        free(header);
    for (int i = 0; i < m->tensors && rc == 1; i++)
        if (m->tensor[i].medium == MSG_INLINE &&
            send_tensor(socket, &m->tensor[i], m->parts->frame[i], --frames ? ZMQ_SNDMORE : 0)) {
            s->broken = true;
            rc = -1;
        }
    return rc;
}

int wire_broken(void *socket)
{
    return check_whole(wire_state(socket));
}

int wire_send(void *socket, const WireId *to, Message *m)
{
    WireState *s = wire_state(socket);
    int rc = 1;
    if (check_whole(s)) {
        rc = -1;
    } else if (pack_takes(m)) {
        rc = gather(s, to, m);
    } else {
        WirePack *p = s->gathered ? find_pack(s, to) : NULL;
        if (p && p->bytes.size && (rc = send_pack(s, p)) < 1)
            drop_pack(s, p); /* nothing overtakes the records before it */
        if (rc == 1)
            rc = send_alone(s, to, m);
    }
    note_failure(s, rc);
    message_clear(m);
    return rc;
}

/* ---------------------------------------------------------------- in */

/* All that is read of what a peer sent is read here. */
static int recv_part(WireState *s, zmq_msg_t *part)
{
    int n = zmq_msg_recv(part, s->socket, 0);
    if (n >= 0 && s->gate)
        gate_read(s->gate, s->reading, (size_t)n);
    return n;
}

/* The first frame of a message that came from somewhere. */
static void begin_reading(WireState *s, zmq_msg_t *part)
{
    if (!s->gate)
        return;
    s->reading = gate_connection(s->gate, zmq_msg_get(part, ZMQ_SRCFD));
    gate_read(s->gate, s->reading, zmq_msg_size(part));
}

/* Read the parts that are left of a message that will not be used. */
static void drain(WireState *s)
{
    void *socket = s->socket;
    int more = 1;
    size_t size = sizeof more;
    while (!zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) && more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (recv_part(s, &part) < 0)
            more = 0;
        zmq_msg_close(&part);
    }
}

static int recv_frames(WireState *s, zmq_msg_t *header, Message *m)
{
    zmq_msg_t *held[MSG_MAX_TENSORS];
    MsgFrame frames[MSG_MAX_TENSORS];
    int n = 0, rc = -1;
    bool more = zmq_msg_more(header);

    while (more) {
        if (n == MSG_MAX_TENSORS) {
            err_set(ERR_DATA, "message: more than %d frames", MSG_MAX_TENSORS);
            goto out;
        }
        zmq_msg_t *part = malloc(sizeof *part);
        if (!part) {
            err_set(ERR_MEMORY, "message: out of memory");
            goto out;
        }
        zmq_msg_init(part);
        held[n] = part;
        if (recv_part(s, part) < 0) {
            n++;
            wire_error("receive");
            goto out;
        }
        frames[n++] = (MsgFrame){ zmq_msg_data(part), zmq_msg_size(part) };
        more = zmq_msg_more(part);
    }
    if (message_parse(zmq_msg_data(header), zmq_msg_size(header), frames, n, m))
        goto out;
    for (int i = 0, next = 0; i < m->tensors; i++)
        if (m->tensor[i].medium == MSG_INLINE)
            m->parts->frame[i] = held[next++];
    return 1;
out:
    for (int i = 0; i < n; i++) {
        zmq_msg_close(held[i]);
        free(held[i]);
    }
    drain(s);
    return rc;
}

bool wire_unpacking(const WireState *s)
{
    return s->unpacking;
}

/* The next record of the pack at hand. Returns as wire_recv(). */
static int unpack(WireState *s, WireId *from, Message *m)
{
    void *bytes = zmq_msg_data(&s->in);
    size_t n = zmq_msg_size(&s->in);
    if (from)
        *from = s->from;
    int rc = pack_next(bytes, n, &s->at, m);
    if (rc == 1 && m->tensors) {
        zmq_msg_t *pack = malloc(sizeof *pack);
        if (pack) {
            zmq_msg_init(pack);
            zmq_msg_copy(pack, &s->in);
            m->parts->pack = pack;
        } else {
            message_clear(m);
            rc = err_set(ERR_MEMORY, "message: out of memory");
        }
    }
    if (rc < 1 || s->at >= n) {
        zmq_msg_close(&s->in);
        s->unpacking = false;
    }
    return rc;
}

int wire_recv(void *socket, WireId *from, Message *m)
{
    zmq_msg_t part;
    int rc;
    WireState *s = wire_state(socket);
    message_init(m, MSG_NONE);
    if (check_whole(s))
        return -1;
    if (s->unpacking && (rc = unpack(s, from, m)))
        return rc;
    zmq_msg_init(&part);
    do
        rc = zmq_msg_recv(&part, socket, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        rc = errno == EAGAIN ? 0 : wire_error("receive");
        if (!rc && s->gate)
            gate_drained(s->gate);
        goto out;
    }
    if (!from)
        begin_reading(s, &part);
    if (from) {
        from->size = zmq_msg_size(&part) <= WIRE_MAX_ID ? zmq_msg_size(&part) : 0;
        memcpy(from->bytes, zmq_msg_data(&part), from->size);
        if (!zmq_msg_more(&part)) {
            rc = err_set(ERR_DATA, "message: no header");
            goto out;
        }
        zmq_msg_close(&part);
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, 0) < 0) {
            rc = wire_error("receive");
            goto out;
        }
        begin_reading(s, &part);
        from->connection = s->reading;
    }
    if (!zmq_msg_more(&part) && pack_is(zmq_msg_data(&part), zmq_msg_size(&part))) {
        zmq_msg_init(&s->in);
        zmq_msg_move(&s->in, &part);
        s->unpacking = true;
        s->at = 0;
        if (from)
            s->from = *from;
        zmq_msg_close(&part);
        rc = unpack(s, from, m);
        return rc ? rc : err_set(ERR_DATA, "message: an empty pack");
    }
    rc = recv_frames(s, &part, m);
out:
    zmq_msg_close(&part);
    s->broken = rc < 0 && err_code() != ERR_DATA;
    return rc;
}
