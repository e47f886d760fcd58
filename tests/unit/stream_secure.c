/* Endpoints and keys: who gets in over tcp, who does not, and what it costs the others. */
#include "../tap.h"

#include "stream/sink.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
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

/* ---------------------------------------------------------------- other users */

enum { STRANGER = 65534 };

/* How a consumer takes what serves at this path. */
static const char *joined(const char *path)
{
    static char text[600];
    Ticket t = { .kind = "x" };
    snprintf(t.endpoint, sizeof t.endpoint, "ipc://%s", path);
    err_clear();
    Sink *s = sink_open(&t, &(SinkConfig){ .program = "test", .kinds = "x", .credit = 1, .life = -1 });
    bool refused = !s || !sink_welcome(s);
    snprintf(text, sizeof text, "%s%s", refused ? "" : "joined ", err_text());
    sink_close(&s);
    return text;
}

/* A process of another user that serves, and greets whoever comes as a producer does. Returns when it does. */
static pid_t serve_as_stranger(const char *path)
{
    int ready[2];
    char c;
    if (pipe(ready))
        return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        if (setresgid(STRANGER, STRANGER, STRANGER) || setresuid(STRANGER, STRANGER, STRANGER))
            _exit(1);
        char endpoint[300], buffer[4096], id[64];
        snprintf(endpoint, sizeof endpoint, "ipc://%s", path);
        void *context = zmq_ctx_new(), *s = zmq_socket(context, ZMQ_ROUTER);
        if (zmq_bind(s, endpoint) || write(ready[1], "", 1) != 1)
            _exit(2);
        int n = zmq_recv(s, id, sizeof id, 0);
        int m = n > 0 ? zmq_recv(s, buffer, sizeof buffer, 0) : -1;
        _exit(m > 0 ? 9 : 3); /* 9: somebody told it something */
    }
    close(ready[1]);
    if (read(ready[0], &c, 1) != 1)
        pid = -1;
    close(ready[0]);
    return pid;
}

static void stop(pid_t pid, const char *name)
{
    int status = 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    ok(WIFSIGNALED(status), "%s (%x)", name, (unsigned)status);
}

static void paths(const char *base)
{
    char dir[200], path[300], link[200];
    snprintf(dir, sizeof dir, "%s/old", base);
    snprintf(link, sizeof link, "%s/link", base);
    mkdir(dir, 0755);
    chmod(dir, 0755);
    snprintf(path, sizeof path, "%s/x", dir);
    ok(strstr(joined(path), "open to other users"), "a directory that all can read: %s", err_text());
    chmod(dir, 0700);
    ok(strstr(joined(path), "stream is over"), "one that is empty: %s", err_text());
    ok(!symlink(dir, link), "a symbolic link");
    snprintf(path, sizeof path, "%s/x", link);
    ok(strstr(joined(path), "cannot be joined"), "is not followed: %s", err_text());
    unlink(link);
    snprintf(path, sizeof path, "%s/x", dir);
    fclose(fopen(path, "w"));
    ok(strstr(joined(path), "stream is over"), "a file: %s", err_text());
    unlink(path);
    rmdir(dir);
}

static void other_users(const char *base)
{
    char foreign[200], own[200], path[300], moved[300], text[4096], c;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (geteuid()) {
        skip("not root, who alone can be another user", "sockets of other users");
        return;
    }
    chmod(base, 01777);
    snprintf(foreign, sizeof foreign, "%s/hssl-0-4711-aaaaaa", base);
    snprintf(path, sizeof path, "%s/x-0", foreign);
    ok(!mkdir(foreign, 0700) && !chown(foreign, STRANGER, STRANGER),
       "another user makes the directory of an old ticket");
    pid_t pid = serve_as_stranger(path);
    ok(pid > 0 && strstr(joined(path), "belongs to user 65534"), "and serves there: %s", err_text());
    stop(pid, "it was told nothing");

    /* As if the directory had been exchanged after it was looked at. */
    unlink(path);
    pid = serve_as_stranger(path);
    snprintf(own, sizeof own, "%s/own", base);
    snprintf(moved, sizeof moved, "%s/x-0", own);
    ok(pid > 0 && !mkdir(own, 0700) && !rename(path, moved) && !chown(moved, 0, 0),
       "a socket that looks like one's own");
    hear();
    const char *said = joined(moved);
    heard(text, sizeof text);
    ok(!strstr(said, "joined") && strstr(text, "served by another user"), "is asked who serves it: %s", text);
    stop(pid, "and that one was told nothing");
    unlink(moved);
    rmdir(own);
    rmdir(foreign);

    /* The other way: a consumer of another user, who found a way to the socket. */
    Ticket t = { .kind = "x" };
    void *s = wire_socket(ZMQ_ROUTER);
    wire_bind(s, "x", NULL, &t);
    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", t.endpoint + 6);
    chmod(a.sun_path, 0666);
    snprintf(own, sizeof own, "%.190s", a.sun_path);
    *strrchr(own, '/') = 0;
    chmod(own, 0711);
    hear();
    pid = fork();
    if (!pid) {
        if (setresgid(STRANGER, STRANGER, STRANGER) || setresuid(STRANGER, STRANGER, STRANGER))
            _exit(1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a))
            _exit(2);
        _exit(recv(fd, &c, 1, 0) == 1 ? 3 : 0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    heard(text, sizeof text);
    ok(WIFEXITED(status) && !WEXITSTATUS(status), "a consumer of another user gets not a byte (%x)",
       (unsigned)status);
    ok(strstr(text, "refused a connection of another user"), "with a word: %s", text);
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
    paths(dir);
    other_users(dir);
    ok(!rmdir(dir), "nothing is left in the socket directory");
    return tap_done();
}
