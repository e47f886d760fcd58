/* Packs, as bytes and over sockets, and messages that share their bytes. */
#include "../tap.h"

#include "stream/message_internal.h"
#include "stream/pack.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void record(Message *m, uint64_t seq, int64_t bytes)
{
    char name[32];
    const double plan[] = { (double)seq, 0.5, -1 };
    message_init(m, MSG_DATA);
    m->seq = m->id = seq;
    snprintf(name, sizeof name, "%llu.png", (unsigned long long)seq);
    message_set_name(m, name);
    message_set_plan(m, 1, 3, plan);
    if (bytes)
        memset(message_add(m, "global", MSG_U8, 1, &bytes), (int)seq, (size_t)bytes);
    if (seq % 3 == 0)
        *(int32_t *)message_add(m, "one", MSG_I32, 0, NULL) = (int32_t)seq;
}

static bool good(const Message *m, uint64_t seq, int64_t bytes)
{
    const MsgTensor *t = message_tensor(m, "global"), *one = message_tensor(m, "one");
    int32_t x = -1;
    if (one)
        memcpy(&x, one->data, sizeof x);
    bool same = m->type == MSG_DATA && m->seq == seq && m->plan && m->plan[0] == (double)seq && m->name &&
                strtoull(m->name, NULL, 10) == seq && (seq % 3 != 0 || x == (int32_t)seq) &&
                (t != NULL) == (bytes > 0);
    for (int64_t i = 0; same && i < bytes; i += 97)
        same = ((uint8_t *)t->data)[i] == (uint8_t)seq;
    return same && (!t || t->bytes == (size_t)bytes);
}

static void bytes_of_packs(void)
{
    enum { RECORDS = 20 };
    MsgBuffer pack = { 0 };
    Message m;
    size_t at = 0;
    int n = 0, wrong = 0, refused = 0, taken = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        record(&m, i, (int64_t)(i * 50));
        wrong += pack_append(&pack, &m) != 0 || !pack_takes(&m);
        message_clear(&m);
    }
    ok(pack_is(pack.data, pack.size) && !pack_is("\x82\xa4hssl", 6), "a pack is known by its first bytes");
    while (pack_next(pack.data, pack.size, &at, &m) == 1) {
        wrong += !good(&m, (uint64_t)n, n * 50);
        message_clear(&m);
        n++;
    }
    is_int(n, RECORDS, "every record comes out");
    is_int(wrong, 0, "as it went in");

    /* Cut anywhere, and with any byte changed: records or an error, never a crash. */
    for (size_t cut = 0; cut < pack.size; cut += 7) {
        uint8_t *copy = malloc(cut ? cut : 1);
        int rc;
        memcpy(copy, pack.data, cut);
        for (at = 0; (rc = pack_next(copy, cut, &at, &m)) == 1;)
            message_clear(&m);
        refused += rc < 0;
        taken += rc == 0;
        free(copy);
    }
    ok(refused > 10 && taken <= RECORDS + 1, "a pack cut short is refused where it breaks off");
    Rng rng = rng_make(5, RNG_TEST, 0, 0);
    for (int i = 0; i < 3000; i++) {
        uint8_t *copy = malloc(pack.size);
        memcpy(copy, pack.data, pack.size);
        for (int k = 0; k < 4; k++)
            copy[rng_below(&rng, i % 2 ? 400 : (uint32_t)pack.size)] = (uint8_t)rng_below(&rng, 256);
        for (at = 0, n = 0; pack_next(copy, pack.size, &at, &m) == 1 && n <= RECORDS; n++)
            message_clear(&m);
        refused += n > RECORDS ? 1000000 : 0;
        free(copy);
    }
    ok(refused < 1000000, "and a damaged one never yields more than was in it");

    Message big;
    record(&big, 1, PACK_RECORD + 1);
    ok(!pack_takes(&big), "large records go alone");
    message_clear(&big);
    free(pack.data);
}

static void copies(void)
{
    Message a, b, c;
    record(&a, 3, 20000);
    message_set_text(&a, "key", "value");
    ok(!message_copy(&b, &a) && good(&b, 3, 20000) && !strcmp(message_text(&b, "key", ""), "value"),
       "a copy is equal");
    ok(message_tensor(&b, "global")->data == message_tensor(&a, "global")->data, "and shares the bytes");
    message_clear(&a);
    ok(good(&b, 3, 20000) && !message_copy(&c, &b), "which outlive the original");
    message_clear(&b);
    ok(good(&c, 3, 20000), "and the copy of a copy");
    message_clear(&c);
}

static int pending(void *socket, int ms)
{
    zmq_pollitem_t items[2] = { { .socket = socket, .events = ZMQ_POLLIN } };
    return wire_poll(items, 1, ms, false) > 0 && (items[0].revents & ZMQ_POLLIN);
}

static void sockets(void)
{
    enum { RECORDS = 3000 };
    Ticket t = { 0 };
    Message m, kept[50], control;
    WireId id;
    void *s = wire_socket(ZMQ_ROUTER), *c = wire_socket(ZMQ_DEALER), *d = wire_socket(ZMQ_DEALER);
    WireBounds records = wire_bounds(ZMQ_DEALER);
    wire_bound(s, &records); /* which a ROUTER does not take else */
    wire_bind(s, "pack", NULL, &t);
    wire_connect(c, &t);
    wire_connect(d, &t);
    int wrong = 0, n = 0, held = 0;
    /* Upwards: from a DEALER, with other messages and large records between, which keep their places. */
    for (uint64_t i = 0; i < RECORDS; i++) {
        record(&m, i, i % 100 == 50 ? 3 * PACK_RECORD : (int64_t)(i % 40) * 150);
        wrong += wire_send(c, NULL, &m) != 1;
    }
    message_init(&m, MSG_END);
    m.seq = RECORDS;
    wire_send(c, NULL, &m);
    ok(!pending(c, 0) && pending(s, TAP_PATIENCE_S * 1000), "they arrive");
    for (;;) {
        int rc = wire_recv(s, &id, &m);
        if (rc == 0) {
            if (!pending(s, TAP_PATIENCE_S * 1000))
                break;
            continue;
        }
        if (rc < 0 || m.type == MSG_END)
            break;
        wrong += !good(&m, (uint64_t)n, n % 100 == 50 ? 3 * PACK_RECORD : (int64_t)(n % 40) * 150);
        if (n % 60 == 7 && held < 50)
            kept[held++] = m; /* beyond its pack */
        else
            message_clear(&m);
        n++;
    }
    is_int(n, RECORDS, "all of them, and then the end");
    is_int(m.type, MSG_END, "in order");
    for (int i = 0; i < held; i++) {
        wrong += !good(&kept[i], (uint64_t)(i * 60 + 7),
                       (i * 60 + 7) % 100 == 50 ? 3 * PACK_RECORD : (i * 60 + 7) % 40 * 150);
        message_clear(&kept[i]);
    }
    is_int(wrong, 0, "whole, also those that were kept");

    /* Downwards, to two peers in turn; a record in hand is seen by poll though nothing is on the socket. */
    WireId who[2];
    void *ends[2] = { c, d };
    for (int i = 0; i < 2; i++) {
        message_init(&control, MSG_WANT);
        wire_send(ends[i], NULL, &control);
        pending(s, TAP_PATIENCE_S * 1000);
        wire_recv(s, &who[i], &control);
        message_clear(&control);
    }
    for (uint64_t i = 0; i < 40; i++) {
        record(&m, i, 100);
        wire_send(s, &who[i % 2], &m);
    }
    pending(s, 0); /* waiting sends what was gathered */
    wrong = 0;
    for (int i = 0; i < 2; i++)
        for (uint64_t k = (uint64_t)i; k < 40; k += 2) {
            wrong += !pending(ends[i], TAP_PATIENCE_S * 1000) || wire_recv(ends[i], NULL, &m) != 1 || !good(&m, k, 100);
            message_clear(&m);
        }
    ok(!wrong && !wire_has_mail(c) && !wire_has_mail(d), "to each peer its own, %d wrong", wrong);

    /* What came in a pack can be passed on as it is. */
    record(&m, 5, 900);
    wire_send(c, NULL, &m);
    record(&m, 6, 900);
    wire_send(c, NULL, &m);
    wire_flush(c);
    pending(s, TAP_PATIENCE_S * 1000);
    wire_recv(s, &id, &m);
    Message twin;
    message_copy(&twin, &m);
    const int64_t large = 2 * PACK_RECORD;
    memset(message_add(&m, "local", MSG_U8, 1, &large), 7, (size_t)large);
    wire_send(s, &who[1], &m);
    wire_send(s, &who[1], &twin);
    pending(s, 0);
    ok(pending(d, TAP_PATIENCE_S * 1000) && wire_recv(d, NULL, &m) == 1 && good(&m, 5, 900) && m.tensors == 2,
       "with another tensor");
    message_clear(&m);
    ok(pending(d, TAP_PATIENCE_S * 1000) && wire_recv(d, NULL, &m) == 1 && good(&m, 5, 900), "and as a copy");
    message_clear(&m);

    /* One that is gone: its records do not hold up the others', and the next one tells. */
    wire_close(&d, 0);
    int told = 1;
    for (int i = 0; i < TAP_PATIENCE_S * 100 && told == 1; i++) {
        record(&m, 1, 10);
        told = wire_send(s, &who[1], &m);
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        pending(s, 0);
    }
    is_int(told, 0, "a peer that has gone is noticed");
    record(&m, 9, 10);
    ok(wire_send(s, &who[0], &m) == 1 && pending(s, 0), "the others stay");
    wire_recv(s, &id, &m); /* record 6 */
    message_clear(&m);
    ok(pending(c, TAP_PATIENCE_S * 1000) && wire_recv(c, NULL, &m) == 1 && good(&m, 9, 10), "and are served");
    message_clear(&m);
    wire_close(&c, 0);
    wire_close(&s, 0);
}

/* What is half on its way when both ends close is lost in ZeroMQ, now and then also to free(). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libzmq";
}

/* A producer that closes its socket in the moment in which its consumer does, with records on their way. */
static void close_in_flow(int fd)
{
    const int64_t shape[] = { 300000 };
    char line[TICKET_MAX_LINE];
    Ticket t = { 0 };
    Message m;
    WireId peer;
    void *s = wire_socket(ZMQ_ROUTER);
    snprintf(t.kind, sizeof t.kind, "views");
    if (!s || wire_bind(s, "close", NULL, &t) || ticket_format(&t, line, sizeof line) < 0 ||
        write(fd, line, strlen(line)) < 0 || !pending(s, TAP_PATIENCE_S * 1000) || wire_recv(s, &peer, &m) != 1)
        _exit(3);
    message_clear(&m);
    bool bye = false;
    for (int sent = 0; sent < 60 && !(bye = wire_recv(s, &peer, &m) != 0); sent++) {
        message_init(&m, MSG_DATA);
        memset(message_add(&m, "global", MSG_U8, 1, shape), 1, (size_t)*shape);
        memset(message_add(&m, "local", MSG_U8, 1, shape), 1, (size_t)*shape);
        wire_send(s, &peer, &m);
    }
    if (!bye)
        pending(s, TAP_PATIENCE_S * 1000);
    wire_close(&s, 0);
    _exit(0);
}

static void closing(void)
{
    int died = 0;
    for (int round = 0; round < 10; round++) {
        char line[TICKET_MAX_LINE];
        int fds[2], status = -1;
        Ticket t;
        Message m;
        if (pipe(fds))
            return;
        pid_t pid = fork();
        if (!pid)
            close_in_flow(fds[1]);
        ssize_t n = read(fds[0], line, sizeof line);
        void *c = wire_socket(ZMQ_DEALER);
        if (n <= 0 || ticket_parse(line, (size_t)n, &t) || wire_connect(c, &t))
            died = 100;
        message_init(&m, MSG_WANT);
        wire_send(c, NULL, &m);
        for (int got = 0; got < 20 && pending(c, TAP_PATIENCE_S * 1000); got++)
            if (wire_recv(c, NULL, &m) == 1)
                message_clear(&m);
        message_init(&m, MSG_BYE);
        wire_send(c, NULL, &m);
        wire_close(&c, 1000);
        waitpid(pid, &status, 0);
        died += status != 0;
        close(fds[0]);
        close(fds[1]);
    }
    is_int(died, 0, "both ends may close at once");
}

int main(void)
{
    char dir[] = "/tmp/hssl-pack-XXXXXX";
    if (!mkdtemp(dir))
        return 1;
    setenv("XDG_RUNTIME_DIR", dir, 1);
    closing();
    bytes_of_packs();
    copies();
    sockets();
    rmdir(dir);
    return tap_done();
}
