#include "stream/wire.h"

#include "stream/secure.h"
#include "stream/sockdir.h"
#include "stream/wire_state.h"
#include "util/err.h"
#include "util/stop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <malloc.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { HEARTBEAT_MS = 5000, SILENCE_MS = 20000, RECONNECT_MS = 100, RECONNECT_MAX_MS = 2000 };
enum { KEEPALIVE_S = 30, MANY_FILES = 65536, MIN_LINGER_MS = 100, LOOK_UP_MS = 250, SOCKET_FILES = 20 };

/* ZeroMQ's ZMQ_ZERO_COPY_RECV, which its header shows to drafts only: a small frame would keep alive the 8 KiB that it
 * came in. Large ones are not copied anyway. */
enum { ZERO_COPY_RECV = 10 };

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static void *context;
static WireState *states;

int wire_error(const char *what)
{
    return err_set(ERR_SYSTEM, "%s: %s", what, zmq_strerror(errno));
}

static int most_messages(int64_t bytes)
{
    return bytes / GATE_FRAME < INT_MAX ? (int)(bytes / GATE_FRAME) + 1 : INT_MAX;
}

/* A consumer says little, and less the less it is answered: its records are bounded, and so is what it has to say of
 * them. 64 consumers that all wait for a producer at work stay far below. A subscriber subscribes once. What comes to
 * a DEALER or SUB was asked for. A DEALER has no number of messages beside the bytes: at such a mark ZeroMQ stops
 * reading, and loses what the system still holds when the other end closes: a producer's last word. */
WireBounds wire_bounds(int type)
{
    const int64_t k = 1 << 10, m = 1 << 20, g = 1 << 30;
    if (type == ZMQ_ROUTER)
        return (WireBounds){ .frame = WIRE_CONTROL_BYTES, .queue = 64, .unread = 512 * k, .unread_all = 4 * m,
                             .unsent = 64 * m, .peers = 256 };
    if (type == ZMQ_XPUB)
        return (WireBounds){ .frame = 4 * k, .queue = 16, .unread = 4 * k, .unread_all = 64 * k, .peers = 8 };
    return (WireBounds){ .frame = g, .queue = type == ZMQ_SUB ? 16 : most_messages(g), .unread = g, .unread_all = g, .unsent = g, .peers = 4 };
}

static void set_int(void *socket, int option, int value)
{
    zmq_setsockopt(socket, option, &value, sizeof value);
}

/* Everybody may knock, and each who does costs a descriptor until he is refused. */
static void more_descriptors(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= MANY_FILES || r.rlim_cur == r.rlim_max)
        return;
    r.rlim_cur = r.rlim_max < MANY_FILES ? r.rlim_max : MANY_FILES;
    setrlimit(RLIMIT_NOFILE, &r);
}

/* ZeroMQ ends the process where it lacks a descriptor for one of its own threads: look before. */
static int room_for_socket(void)
{
    int fd[SOCKET_FILES], n = 0;
    struct rlimit r = { 0 };
    more_descriptors();
    fd[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (fd[n] >= 0 && ++n < SOCKET_FILES)
        fd[n] = fcntl(fd[0], F_DUPFD_CLOEXEC, 0);
    int why = errno;
    for (int i = 0; i < n; i++)
        close(fd[i]);
    if (n == SOCKET_FILES)
        return 0;
    getrlimit(RLIMIT_NOFILE, &r);
    errno = why;
    return err_set(ERR_SYSTEM,
                   "stream: %s: of the %llu that this process may have only %d are left: raise ulimit -n",
                   strerror(why), (unsigned long long)r.rlim_cur, n);
}

void *wire_socket(int type)
{
    WireState *state = calloc(1, sizeof *state);
    void *s = NULL;
    if (!state) {
        err_set(ERR_MEMORY, "stream: out of memory");
        return NULL;
    }
    if (room_for_socket()) {
        free(state);
        return NULL;
    }
    pthread_mutex_lock(&guard);
    if (!context && (context = zmq_ctx_new()))
        zmq_ctx_set(context, ZERO_COPY_RECV, 0);
    if (context && (s = zmq_socket(context, type))) {
        state->socket = s;
        state->type = type;
        state->next = states;
        states = state;
    }
    pthread_mutex_unlock(&guard);
    if (!s) {
        wire_error("ZeroMQ socket");
        free(state);
        return NULL;
    }
    set_int(s, ZMQ_LINGER, 0);
    if (type == ZMQ_ROUTER)
        set_int(s, ZMQ_ROUTER_MANDATORY, 1);
    if (type == ZMQ_PAIR) { /* events of our own, which ZeroMQ's thread must never wait to tell */
        set_int(s, ZMQ_SNDHWM, 0);
        set_int(s, ZMQ_RCVHWM, 0);
        return s;
    }
    WireBounds b = wire_bounds(type);
    set_int(s, ZMQ_HANDSHAKE_IVL, SECURE_HANDSHAKE_MS);
    if (wire_bound(s, &b))
        wire_close(&s, 0);
    return s;
}

/* So many messages to be sent weigh more than is allowed, so sending never waits. To subscribers it leaves out what
 * does not fit. */
int wire_bound(void *socket, const WireBounds *b)
{
    WireState *s = wire_state(socket);
    GateRule rule = { .unread = b->unread, .unread_all = b->unread_all, .unsent = b->unsent, .connections = b->peers,
                      .deaf = s->type == ZMQ_XPUB };
    set_int(socket, ZMQ_RCVHWM, b->queue);
    set_int(socket, ZMQ_SNDHWM, s->type == ZMQ_XPUB ? b->queue : most_messages(b->unsent));
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &b->frame, sizeof b->frame))
        return wire_error("ZeroMQ socket");
    if (s->gate)
        gate_rule(s->gate, &rule);
    return s->gate || (s->gate = gate_open(&rule)) ? 0 : -1;
}

void wire_keep(void *socket, const WireId *peer, bool keep)
{
    gate_keep(wire_state(socket)->gate, peer->connection, keep);
}

void wire_cut(void *socket, const WireId *peer)
{
    gate_cut(wire_state(socket)->gate, peer->connection);
}

int64_t wire_unsent(void *socket, const WireId *peer, double *idle)
{
    return gate_unsent(wire_state(socket)->gate, peer->connection, idle);
}

void wire_keep_memory(void)
{
#ifdef M_TRIM_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* no more is allowed */
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
}

WireState *wire_state(void *socket)
{
    pthread_mutex_lock(&guard);
    WireState *s = states;
    while (s && s->socket != socket)
        s = s->next;
    pthread_mutex_unlock(&guard);
    return s;
}

/* With nothing to linger for, ZeroMQ 4.3 aborts the process when the peer closes, too, while it has sent a
 * part of a message of several: session_base.cpp, clean_pipes(). Given a moment it reads the message to its
 * end first. */
void wire_close(void **socket, int linger_ms)
{
    WireState *state = NULL;
    void *finished = NULL;
    if (!*socket)
        return;
    wire_packs_end(wire_state(*socket));
    set_int(*socket, ZMQ_LINGER, linger_ms < MIN_LINGER_MS ? MIN_LINGER_MS : linger_ms);
    pthread_mutex_lock(&guard);
    for (WireState **at = &states; *at; at = &(*at)->next)
        if ((*at)->socket == *socket) {
            state = *at;
            *at = state->next;
            break;
        }
    if (state)
        gate_close(&state->gate);
    zmq_close(*socket);
    *socket = NULL;
    if (!states) {
        secure_stop();
        finished = context;
        context = NULL;
    }
    pthread_mutex_unlock(&guard);
    if (finished)
        zmq_ctx_term(finished);
    while (state && state->ipc-- > 0)
        sockdir_release();
    free(state);
}

/* ---------------------------------------------------------------- endpoints */

/* A peer on another host may vanish without a word: its cable does not tell. */
static void set_tcp(void *socket)
{
    set_int(socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, SILENCE_MS);
    set_int(socket, ZMQ_HEARTBEAT_TTL, SILENCE_MS);
    set_int(socket, ZMQ_TCP_MAXRT, SILENCE_MS);
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S);
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_S / 3);
    set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, 3);
}

/* [HOST:]PORT -> host without brackets ("" where there is none) and port. */
static int split_listen(const char *listen, char *host, size_t size, char *port, size_t port_size)
{
    const char *colon = strrchr(listen, ':'), *digits = colon ? colon + 1 : listen;
    size_t n = colon ? (size_t)(colon - listen) : 0;
    char *end;
    if (n >= 2 && listen[0] == '[' && listen[n - 1] == ']') {
        listen++;
        n -= 2;
    } else if (colon && (!n || memchr(listen, ':', n) || memchr(listen, ']', n))) {
        return err_set(ERR_USAGE, "--listen %s: not [HOST:]PORT (an IPv6 address stands in brackets)",
                       listen);
    }
    long number = strtol(digits, &end, 10);
    if (digits[0] < '0' || digits[0] > '9' || *end || number < 0 || number > 65535)
        return err_set(ERR_USAGE, "--listen %s: not [HOST:]PORT with a port of 0 to 65535", listen);
    if (n >= size || n >= 200)
        return err_set(ERR_USAGE, "--listen: a host name of %zu bytes", n);
    memcpy(host, listen, n);
    host[n] = 0;
    snprintf(port, port_size, "%ld", number);
    return 0;
}

static bool any_address(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

/* An address of this machine that others can reach; what is there when it has none. */
static void own_address(int family, char *text, socklen_t size)
{
    struct ifaddrs *all = NULL;
    snprintf(text, size, "%s", family == AF_INET ? "127.0.0.1" : "::1");
    if (getifaddrs(&all))
        return;
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != family || !(i->ifa_flags & IFF_UP) ||
            (i->ifa_flags & IFF_LOOPBACK))
            continue;
        if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr))
            continue;
        socklen_t n = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (!getnameinfo(i->ifa_addr, n, text, size, NULL, 0, NI_NUMERICHOST))
            break;
    }
    freeifaddrs(all);
}

static int resolve(const char *listen, struct addrinfo **found)
{
    char host[256], port[8];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    if (split_listen(listen, host, sizeof host, port, sizeof port))
        return -1;
    if (!strcmp(host, "*"))
        snprintf(host, sizeof host, "0.0.0.0");
    int rc = getaddrinfo(host[0] ? host : "127.0.0.1", port, &hints, found);
    return rc ? err_set(ERR_USAGE, "--listen %s: %s", listen, gai_strerror(rc)) : 0;
}

static void tcp_endpoint(char *to, size_t size, int family, const char *host, const char *port)
{
    snprintf(to, size, family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s", host, port);
}

static int bind_tcp(void *socket, const char *listen, Ticket *t)
{
    struct addrinfo *a = NULL;
    char host[INET6_ADDRSTRLEN + 20], port[8];
    size_t size = sizeof t->endpoint;
    int rc = -1;
    if (resolve(listen, &a))
        return -1;
    if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV)) {
        err_set(ERR_USAGE, "--listen %s: no address", listen);
        goto out;
    }
    tcp_endpoint(t->endpoint, sizeof t->endpoint, a->ai_family, host, port);
    if (a->ai_family == AF_INET6)
        set_int(socket, ZMQ_IPV6, 1);
    set_tcp(socket);
    if (secure_serve(context, socket, t))
        goto out;
    if (gate_bind(wire_state(socket)->gate, socket, t->endpoint)) {
        err_set(errno == EADDRNOTAVAIL || errno == ENODEV ? ERR_USAGE : ERR_SYSTEM, "--listen %s: %s", listen,
                zmq_strerror(errno));
        goto out;
    }
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, t->endpoint, &size)) {
        wire_error("ZeroMQ socket");
        goto out;
    }
    if (any_address(a->ai_addr)) {
        snprintf(port, sizeof port, "%.7s", strrchr(t->endpoint, ':') + 1);
        own_address(a->ai_family, host, sizeof host);
        tcp_endpoint(t->endpoint, sizeof t->endpoint, a->ai_family, host, port);
    }
    rc = 0;
out:
    freeaddrinfo(a);
    return rc;
}

int wire_bind(void *socket, const char *name, const char *listen, Ticket *t)
{
    char path[200];
    if (listen)
        return bind_tcp(socket, listen, t);
    if (sockdir_acquire(name, path, sizeof path))
        return -1;
    snprintf(t->endpoint, sizeof t->endpoint, "ipc://%s", path);
    if (gate_bind(wire_state(socket)->gate, socket, t->endpoint)) {
        wire_error(t->endpoint);
        sockdir_release();
        return -1;
    }
    wire_state(socket)->ipc++;
    return 0;
}

int wire_connect(void *socket, const Ticket *t)
{
    bool tcp = !strncmp(t->endpoint, "tcp://", 6);
    if (!strncmp(t->endpoint, "ipc://", 6) && sockdir_check(t->endpoint + 6))
        return -1;
    set_int(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    if (tcp) {
        set_tcp(socket);
        set_int(socket, ZMQ_CONNECT_TIMEOUT, SILENCE_MS);
        set_int(socket, ZMQ_IPV6, strchr(t->endpoint, '[') != NULL);
        if (secure_client(socket, t))
            return -1;
    }
    if (gate_connect(wire_state(socket)->gate, socket, t->endpoint))
        return err_set(ERR_PEER, "%s: %s", t->endpoint, zmq_strerror(errno));
    return 0;
}

/* ---------------------------------------------------------------- waiting */

bool wire_has_mail(void *socket)
{
    int events = 0;
    size_t size = sizeof events;
    return wire_unpacking(wire_state(socket)) ||
           (!zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) && (events & ZMQ_POLLIN));
}

/* Send what this thread has gathered; what others gather is their affair. */
static void flush_packs(void)
{
    enum { AT_ONCE = 16 };
    WireState *full[AT_ONCE];
    int n;
    do {
        n = 0;
        pthread_mutex_lock(&guard);
        for (WireState *s = states; s && n < AT_ONCE; s = s->next)
            if (s->gathered && pthread_equal(s->sender, pthread_self()))
                full[n++] = s;
        pthread_mutex_unlock(&guard);
        for (int i = 0; i < n; i++)
            wire_packs_send(full[i]);
    } while (n == AT_ONCE);
}

/* Records that came in a pack and were not read yet do not show on the socket: mark its items. */
static int unpacked(zmq_pollitem_t *items, int n)
{
    int marked = 0;
    for (int i = 0; i < n; i++)
        if (items[i].socket && (items[i].events & ZMQ_POLLIN) &&
            wire_unpacking(wire_state(items[i].socket))) {
            marked += !items[i].revents;
            items[i].revents |= ZMQ_POLLIN;
        }
    return marked;
}

/* A connection that has gone may have left a message that never became whole, which is known when nothing was to be
 * read twice. Others wait at the door for that (stream/gate.c), and wake nobody: so this looks up now and then. */
static int poll_sockets(zmq_pollitem_t *items, int n, int timeout_ms)
{
    for (;;) {
        int turn = timeout_ms < 0 || timeout_ms > LOOK_UP_MS ? LOOK_UP_MS : timeout_ms;
        int rc = zmq_poll(items, n, turn);
        for (int i = 0; i < n && rc >= 0; i++) {
            const WireState *s = items[i].socket ? wire_state(items[i].socket) : NULL;
            if (s && s->gate && (items[i].events & ZMQ_POLLIN) && !(items[i].revents & ZMQ_POLLIN))
                gate_drained(s->gate);
        }
        if (rc || turn == timeout_ms)
            return rc;
        timeout_ms -= timeout_ms > 0 ? turn : 0;
    }
}

int wire_poll(zmq_pollitem_t *items, int n, int timeout_ms, bool stops)
{
    int extra = stops && stop_fd() >= 0;
    if (extra)
        items[n] = (zmq_pollitem_t){ .fd = stop_fd(), .events = ZMQ_POLLIN };
    if (stops && stop_signal())
        return err_set(ERR_STOP, "stopped by a signal");
    flush_packs();
    for (int i = 0; i < n; i++) {
        items[i].revents = 0;
        if (items[i].socket && wire_state(items[i].socket) && wire_broken(items[i].socket))
            return -1;
    }
    if (unpacked(items, n))
        timeout_ms = 0;
    int rc = poll_sockets(items, n + extra, timeout_ms);
    if (stops && stop_signal())
        return err_set(ERR_STOP, "stopped by a signal");
    if (rc < 0 && errno != EINTR)
        return wire_error("poll");
    return (rc < 0 ? 0 : rc) + unpacked(items, n);
}
