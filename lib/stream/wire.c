#include "stream/wire.h"

#include "stream/message_internal.h"
#include "stream/secure.h"
#include "stream/sockdir.h"
#include "util/err.h"
#include "util/stop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEARTBEAT_MS = 5000, SILENCE_MS = 20000, RECONNECT_MS = 100, RECONNECT_MAX_MS = 2000 };
enum { KEEPALIVE_S = 30, MANY_FILES = 65536 };

/* What we know of a socket beside ZeroMQ. */
typedef struct WireState {
    struct WireState *next;
    void *socket;
    int ipc; /* paths of the socket directory that it holds */
} WireState;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static void *context;
static WireState *states;

static int zmq_error(const char *what)
{
    return err_set(ERR_SYSTEM, "%s: %s", what, zmq_strerror(errno));
}

static void set_int(void *socket, int option, int value)
{
    zmq_setsockopt(socket, option, &value, sizeof value);
}

void *wire_socket(int type)
{
    WireState *state = calloc(1, sizeof *state);
    void *s = NULL;
    if (!state) {
        err_set(ERR_MEMORY, "stream: out of memory");
        return NULL;
    }
    pthread_mutex_lock(&guard);
    if (!context)
        context = zmq_ctx_new();
    if (context && (s = zmq_socket(context, type))) {
        state->socket = s;
        state->next = states;
        states = state;
    }
    pthread_mutex_unlock(&guard);
    if (!s) {
        zmq_error("ZeroMQ socket");
        free(state);
        return NULL;
    }
    set_int(s, ZMQ_SNDHWM, 0);
    set_int(s, ZMQ_RCVHWM, 0);
    set_int(s, ZMQ_LINGER, 0);
    if (type == ZMQ_ROUTER)
        set_int(s, ZMQ_ROUTER_MANDATORY, 1);
    wire_max_frame(s, type == ZMQ_ROUTER || type == ZMQ_XPUB ? WIRE_CONTROL_BYTES : (int64_t)16 << 30);
    return s;
}

int wire_max_frame(void *socket, int64_t bytes)
{
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &bytes, sizeof bytes) ? zmq_error("ZeroMQ socket") : 0;
}

static WireState *state_of(void *socket)
{
    pthread_mutex_lock(&guard);
    WireState *s = states;
    while (s && s->socket != socket)
        s = s->next;
    pthread_mutex_unlock(&guard);
    return s;
}

void wire_close(void **socket, int linger_ms)
{
    WireState *state = NULL;
    void *finished = NULL;
    if (!*socket)
        return;
    set_int(*socket, ZMQ_LINGER, linger_ms);
    pthread_mutex_lock(&guard);
    for (WireState **at = &states; *at; at = &(*at)->next)
        if ((*at)->socket == *socket) {
            state = *at;
            *at = state->next;
            break;
        }
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

/* Everybody may knock, and each who does costs a descriptor until he is refused. */
static void more_descriptors(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= MANY_FILES || r.rlim_cur == r.rlim_max)
        return;
    r.rlim_cur = r.rlim_max < MANY_FILES ? r.rlim_max : MANY_FILES;
    setrlimit(RLIMIT_NOFILE, &r);
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
    more_descriptors();
    if (secure_serve(context, socket, t))
        goto out;
    if (zmq_bind(socket, t->endpoint)) {
        err_set(errno == EADDRNOTAVAIL || errno == ENODEV ? ERR_USAGE : ERR_SYSTEM, "--listen %s: %s", listen,
                zmq_strerror(errno));
        goto out;
    }
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, t->endpoint, &size)) {
        zmq_error("ZeroMQ socket");
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
    if (zmq_bind(socket, t->endpoint)) {
        zmq_error(t->endpoint);
        sockdir_release();
        return -1;
    }
    state_of(socket)->ipc++;
    return 0;
}

int wire_connect(void *socket, const Ticket *t)
{
    bool tcp = !strncmp(t->endpoint, "tcp://", 6);
    set_int(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    if (tcp) {
        set_tcp(socket);
        set_int(socket, ZMQ_CONNECT_TIMEOUT, SILENCE_MS);
        set_int(socket, ZMQ_IPV6, strchr(t->endpoint, '[') != NULL);
        if (secure_client(socket, t))
            return -1;
    }
    if (zmq_connect(socket, t->endpoint))
        return err_set(ERR_PEER, "%s: %s", t->endpoint, zmq_strerror(errno));
    return 0;
}

/* ---------------------------------------------------------------- messages */

static void free_header(void *data, void *hint)
{
    (void)hint;
    free(data);
}

int wire_send(void *socket, const WireId *to, Message *m)
{
    void *header;
    size_t n;
    zmq_msg_t part;
    int rc = -1, frames = 0;

    for (int i = 0; i < m->tensors; i++)
        frames += m->tensor[i].medium == MSG_INLINE;
    if (message_header(m, &header, &n))
        goto out;
    if (zmq_msg_init_data(&part, header, n, free_header, NULL)) {
        free(header);
        err_set(ERR_MEMORY, "message: out of memory");
        goto out;
    }
    if (to && zmq_send(socket, to->bytes, to->size, ZMQ_SNDMORE) < 0) {
        rc = errno == EHOSTUNREACH ? 0 : zmq_error("send");
        zmq_msg_close(&part);
        goto out;
    }
    if (zmq_msg_send(&part, socket, frames ? ZMQ_SNDMORE : 0) < 0) {
        rc = zmq_error("send");
        zmq_msg_close(&part);
        goto out;
    }
    for (int i = 0; i < m->tensors; i++) {
        zmq_msg_t *frame = m->parts->frame[i];
        if (m->tensor[i].medium != MSG_INLINE)
            continue;
        if (zmq_msg_send(frame, socket, --frames ? ZMQ_SNDMORE : 0) < 0) {
            zmq_error("send");
            goto out;
        }
    }
    rc = 1;
out:
    message_clear(m);
    return rc;
}

/* Read the parts that are left of a message that will not be used. */
static void drain(void *socket)
{
    int more = 1;
    size_t size = sizeof more;
    while (!zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) && more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, 0) < 0)
            more = 0;
        zmq_msg_close(&part);
    }
}

static int recv_frames(void *socket, zmq_msg_t *header, Message *m)
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
        if (zmq_msg_recv(part, socket, 0) < 0) {
            n++;
            zmq_error("receive");
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
    drain(socket);
    return rc;
}

int wire_recv(void *socket, WireId *from, Message *m)
{
    zmq_msg_t part;
    int rc;
    message_init(m, MSG_NONE);
    zmq_msg_init(&part);
    do
        rc = zmq_msg_recv(&part, socket, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        rc = errno == EAGAIN ? 0 : zmq_error("receive");
        goto out;
    }
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
            rc = zmq_error("receive");
            goto out;
        }
    }
    rc = recv_frames(socket, &part, m);
out:
    zmq_msg_close(&part);
    return rc;
}

int wire_watch(WireWatch *w, void *socket)
{
    static _Atomic unsigned serial;
    char name[64];
    *w = (WireWatch){ 0 };
    snprintf(name, sizeof name, "inproc://watch-%u", serial++);
    if (zmq_socket_monitor(socket, name,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                               ZMQ_EVENT_DISCONNECTED))
        return zmq_error("ZeroMQ monitor");
    if (!(w->events = wire_socket(ZMQ_PAIR)))
        return -1;
    if (zmq_connect(w->events, name)) {
        zmq_error("ZeroMQ monitor");
        wire_close(&w->events, 0);
        return -1;
    }
    return 0;
}

/* The handshake failed on our side of the connection, or the other end closed in its middle. */
static void handshake_failed(WireWatch *w, uint16_t what, uint32_t value, bool tcp)
{
    bool closed = value == EPIPE || value == ECONNRESET;
    if (w->connected || (what == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL && !closed))
        return; /* too slow this time: ZeroMQ tries again */
    if (tcp)
        w->refused = true; /* a server that cannot read a client's greeting says nothing */
    else
        w->lost = true;
}

void wire_watch_read(WireWatch *w)
{
    uint8_t event[6];
    char address[256];
    while (w->events && zmq_recv(w->events, event, sizeof event, ZMQ_DONTWAIT) == (int)sizeof event) {
        uint16_t what;
        uint32_t value;
        memcpy(&what, event, sizeof what);
        memcpy(&value, event + 2, sizeof value);
        int n = zmq_recv(w->events, address, sizeof address, ZMQ_DONTWAIT);
        if (what == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            w->connected = true;
        else if (what == ZMQ_EVENT_DISCONNECTED)
            w->lost |= w->connected;
        else
            handshake_failed(w, what, value, n > 3 && !memcmp(address, "tcp", 3));
    }
}

void wire_watch_close(WireWatch *w, void *socket)
{
    if (w->events) {
        zmq_socket_monitor(socket, NULL, 0);
        wire_close(&w->events, 0);
    }
}

bool wire_is_pipe(int fd)
{
    struct stat st;
    return fd >= 0 && !fstat(fd, &st) && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
}

bool wire_reader_gone(int fd)
{
    struct pollfd p = { .fd = fd };
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLHUP | POLLNVAL));
}

bool wire_writer_gone(int fd)
{
    char buf[4096];
    struct pollfd p = { .fd = fd, .events = POLLIN };
    while (poll(&p, 1, 0) > 0) {
        if (!(p.revents & POLLIN))
            return true; /* hung up and empty */
        ssize_t n = read(fd, buf, sizeof buf);
        if (n == 0)
            return true;
        if (n < 0)
            return errno != EINTR && errno != EAGAIN;
    }
    return false;
}

int wire_poll(zmq_pollitem_t *items, int n, int timeout_ms, bool stops)
{
    int extra = stops && stop_fd() >= 0;
    if (extra)
        items[n] = (zmq_pollitem_t){ .fd = stop_fd(), .events = ZMQ_POLLIN };
    if (stops && stop_signal())
        return err_set(ERR_STOP, "stopped by a signal");
    int rc = zmq_poll(items, n + extra, timeout_ms);
    if (stops && stop_signal())
        return err_set(ERR_STOP, "stopped by a signal");
    if (rc < 0 && errno != EINTR)
        return zmq_error("poll");
    return rc < 0 ? 0 : rc;
}
