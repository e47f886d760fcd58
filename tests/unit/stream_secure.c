/* Endpoints and keys: who gets in over tcp, who does not, and what it costs the others. */
#include "../tap.h"

#include "stream/sink.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static bool deliver(void *from, void *to, WireId *id)
{
    Message m;
    zmq_pollitem_t items[2] = { { .socket = to, .events = ZMQ_POLLIN } };
    message_init(&m, MSG_BYE);
    if (wire_send(from, NULL, &m) != 1 || wire_poll(items, 1, TAP_PATIENCE_S * 1000, false) < 1)
        return false;
    bool got = wire_recv(to, id, &m) == 1 && m.type == MSG_BYE;
    message_clear(&m);
    return got;
}

static bool silent(void *socket, int ms)
{
    zmq_pollitem_t items[2] = { { .socket = socket, .events = ZMQ_POLLIN } };
    return wire_poll(items, 1, ms, false) == 0;
}

static void endpoints(void)
{
    Ticket t = { 0 };
    WireId id;
    struct stat st;
    void *s = wire_socket(ZMQ_ROUTER), *c = wire_socket(ZMQ_DEALER), *d = wire_socket(ZMQ_DEALER);
    ok(!wire_bind(s, "work", NULL, &t) && !strncmp(t.endpoint, "ipc:///", 7) && !t.pairs,
       "ipc without keys: %s", t.endpoint);
    char dir[256];
    snprintf(dir, sizeof dir, "%.200s", t.endpoint + 6);
    *strrchr(dir, '/') = 0;
    ok(!stat(dir, &st) && (st.st_mode & 07777) == 0700, "in a directory of mode 0700");
    ok(!wire_connect(c, &t) && deliver(c, s, &id), "a message over ipc: %s", err_text());

    Ticket far = { 0 };
    ok(!wire_bind(s, "work", "0", &far), "the same socket on tcp too: %s", err_text());
    ok(!strncmp(far.endpoint, "tcp://127.0.0.1:", 16) && atoi(far.endpoint + 16) > 0,
       "loopback, a port of its own: %s", far.endpoint);
    ok(ticket_get(&far, "key") && ticket_get(&far, "secret"), "with keys");
    ok(!wire_connect(d, &far) && deliver(d, s, &id), "a message over tcp: %s", err_text());
    ok(deliver(c, s, &id), "ipc goes on");
    wire_close(&c, 0);
    wire_close(&d, 0);
    wire_close(&s, 0);

    Ticket any = { 0 };
    s = wire_socket(ZMQ_ROUTER);
    ok(!wire_bind(s, "work", "0.0.0.0:0", &any) && !strstr(any.endpoint, "0.0.0.0"),
       "all addresses: the ticket names one: %s", any.endpoint);
    c = wire_socket(ZMQ_DEALER);
    ok(!wire_connect(c, &any) && deliver(c, s, &id), "that can be reached: %s", err_text());
    ok(strcmp(ticket_get(&any, "key"), ticket_get(&far, "key")) &&
           strcmp(ticket_get(&any, "secret"), ticket_get(&far, "secret")),
       "each with keys of its own");
    wire_close(&c, 0);
    wire_close(&s, 0);

    s = wire_socket(ZMQ_ROUTER);
    if (!wire_bind(s, "work", "[::1]:0", &any)) {
        c = wire_socket(ZMQ_DEALER);
        ok(!wire_connect(c, &any) && deliver(c, s, &id), "IPv6: %s", any.endpoint);
        wire_close(&c, 0);
    } else {
        skip(err_text(), "IPv6");
    }
    wire_close(&s, 0);
    const char *const wrong[] = { "",      "x",     "-1",    "65536",         "1x", ":", ":5",
                                  "::1:5", "[::1]", "a:b:5", "host.invalid:5" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        s = wire_socket(ZMQ_ROUTER);
        ok(wire_bind(s, "work", wrong[i], &any) == -1 && err_code() == ERR_USAGE, "--listen \"%s\": %s",
           wrong[i], err_text());
        wire_close(&s, 0);
    }
}

/* Standard error of what runs between, as text. */
static int log_from, log_kept;
static void hear(void)
{
    FILE *f = tmpfile();
    fflush(stderr);
    log_kept = dup(STDERR_FILENO);
    log_from = dup(fileno(f));
    dup2(log_from, STDERR_FILENO);
    fclose(f);
}

static void heard(char *text, size_t size)
{
    dup2(log_kept, STDERR_FILENO);
    close(log_kept);
    ssize_t n = pread(log_from, text, size - 1, 0);
    text[n > 0 ? n : 0] = 0;
    close(log_from);
}

static int knock(const Ticket *t)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(strrchr(t->endpoint, ':') + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* What is half on its way when both ends close is lost in ZeroMQ, now and then also to free(). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libzmq";
}

static void keys(void)
{
    char text[4096], secret[64];
    Ticket t = { 0 }, old = { 0 }, other;
    WireId id;
    void *s = wire_socket(ZMQ_ROUTER), *c;
    wire_bind(s, "work", "0", &old);
    wire_close(&s, 0);
    s = wire_socket(ZMQ_ROUTER);
    snprintf(text, sizeof text, "127.0.0.1:%d", atoi(strrchr(old.endpoint, ':') + 1));
    if (!ok(!wire_bind(s, "work", text, &t) && !strcmp(t.endpoint, old.endpoint),
            "the port of a run that has ended: %s", err_text()))
        return;

    hear();
    c = wire_socket(ZMQ_DEALER);
    wire_connect(c, &old);
    Message m;
    message_init(&m, MSG_BYE);
    wire_send(c, NULL, &m);
    ok(silent(s, 400), "its ticket gets nothing through");
    wire_close(&c, 0);
    heard(text, sizeof text);
    ok(strstr(text, "refused a connection from 127.0.0.1") && strstr(text, "another run"),
       "and is named in the log");
    ok(!strstr(strchr(text, '\n') + 1, "127.0.0.1"), "once");
    ok(!strstr(text, ticket_get(&t, "secret")) && !strstr(text, ticket_get(&old, "secret")), "without a key");
    diag("%.*s", (int)strcspn(text, "\n"), text);

    /* The consumer is told, too. */
    Sink *sink = sink_open(&old, &(SinkConfig){ .program = "test", .kinds = "x", .credit = 1, .life = -1 });
    ok(!sink_welcome(sink) && err_code() == ERR_PEER && strstr(err_text(), "another run"),
       "the consumer says: %s", err_text());
    sink_close(&sink);

    other = t;
    snprintf(secret, sizeof secret, "%s", ticket_get(&old, "secret"));
    ticket_set(&other, "secret", secret);
    sink = sink_open(&other, &(SinkConfig){ .program = "test", .kinds = "x", .credit = 1, .life = -1 });
    ok(!sink_welcome(sink) && err_code() == ERR_PEER, "a client's key of another run: %s", err_text());
    sink_close(&sink);

    other.pairs = 0;
    c = wire_socket(ZMQ_DEALER);
    ok(wire_connect(c, &other) == -1 && err_code() == ERR_DATA, "a ticket without keys: %s", err_text());
    ticket_set(&other, "key", "short");
    ticket_set(&other, "secret", secret);
    ok(wire_connect(c, &other) == -1 && err_code() == ERR_DATA, "with half a key: %s", err_text());
    wire_close(&c, 0);
    c = wire_socket(ZMQ_DEALER);
    zmq_connect(c, t.endpoint);
    message_init(&m, MSG_BYE);
    wire_send(c, NULL, &m);
    ok(silent(s, 300), "a peer that speaks ZeroMQ without keys gets nothing through");
    wire_close(&c, 0);

    c = wire_socket(ZMQ_DEALER);
    ok(!wire_connect(c, &t) && deliver(c, s, &id), "while the ticket of this run opens: %s", err_text());

    /* Bytes that mean nothing. A frame may announce 2^63 bytes: nothing is set aside for it. */
    static const uint8_t lengths[] = { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1, 'C', 'U', 'R', 'V', 'E' };
    const char *const garbage[] = { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\1\2\3\4",
                                    "\xff\xff\xff\xff\xff\xff\xff\xff\x7f" };
    int fds[8], n = 0;
    for (int i = 0; i < 3; i++) {
        fds[n] = knock(&t);
        n += send(fds[n], garbage[i], strlen(garbage[i]), MSG_NOSIGNAL) > 0;
    }
    uint8_t greeting[64 + 9] = { 0 };
    memcpy(greeting, lengths, sizeof lengths);
    greeting[64] = 6; /* a large command of */
    memset(greeting + 65, 0x7f, 8);
    fds[n] = knock(&t);
    n += send(fds[n], greeting, sizeof greeting, MSG_NOSIGNAL) > 0;
    fds[n++] = knock(&t); /* and one that says nothing at all */
    ok(n == 5 && deliver(c, s, &id) && silent(s, 100),
       "garbage does not get through, nor hold the stream up");
    for (int i = 0; i < n; i++)
        close(fds[i]);
    ok(deliver(c, s, &id), "nor when it hangs up");
    wire_close(&c, 0);
    wire_close(&s, 0);
}

int main(void)
{
    char dir[] = "/tmp/hssl-secure-XXXXXX";
    if (!mkdtemp(dir))
        return 1;
    setenv("XDG_RUNTIME_DIR", dir, 1);
    log_name("test");
    endpoints();
    keys();
    ok(!rmdir(dir), "nothing is left in the socket directory");
    return tap_done();
}
