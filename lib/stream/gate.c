#include "stream/gate.h"

#include "stream/accepted.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum { GREETING = 64, CURVE_BYTES = 33, FDS = 1 << 16, LISTENERS = 16 };
/* Who does not speak ZMTP 3 cannot be followed, and will not be heard long: so many bytes. */
enum { BLIND_BYTES = 64 << 10 };
/* What is not for the program: handshake, and over tcp a heartbeat and the answer to one each 5 seconds (bytes, bytes
 * a second). */
enum { OWN = 8192, OWN_EACH = 64 };

/* Where one direction of a connection is in its framing. */
typedef struct {
    enum { F_GREETING, F_FLAGS, F_LENGTH, F_BODY, F_BLIND } at;
    uint64_t left;   /* bytes of this part that are still to come */
    uint64_t length; /* of the frame */
    bool curve;
} Flow;

typedef struct Connection {
    struct Connection *older, *newer; /* of its gate */
    Gate *gate;
    int fd;
    uint64_t number;
    Flow in, out;
    int64_t unread, unsent, largest; /* largest: message that was given */
    double settled, moved; /* up to when ZeroMQ's own is taken off `unread`; when something of `unsent` went */
    bool kept, cut;
} Connection;

struct Gate {
    GateRule rule;
    Gate *next; /* of all that are open */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int port;   /* it connects to; 0: to path, or not at all */
    bool connects, closed;
    Connection *oldest, *newest;
    int n, listeners;
    int64_t unread; /* of all connections */
    int64_t left, left_before; /* of closed ones, not read yet; of that what was so at the last drain */
    int64_t unsent, largest; /* where it has one peer */
    double moved;
    bool said_full, said_stranger;
};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static Gate *gates;
static Connection *connection_at[FDS];
static struct {
    Gate *gate;
    int fd;
} listener[LISTENERS];
static uint64_t numbers;
static _Thread_local Gate *binding; /* this thread is in zmq_bind() for it */

/* Whether this thread is one of ZeroMQ's, which it names so. */
static bool zmq_thread(void)
{
    static _Thread_local int is;
    if (!is) {
        char name[17] = "";
        prctl(PR_GET_NAME, name);
        is = strstr(name, "ZMQbg") ? 1 : -1;
    }
    return is > 0;
}

/* ---------------------------------------------------------------- framing */

static bool greeting_begins(uint64_t at, uint8_t c)
{
    return at == 0 ? c == 0xff : at == 9 ? c & 1 : at == 10 ? c >= 3 : true;
}

static int64_t weight(const Flow *f)
{
    uint64_t own = f->curve ? CURVE_BYTES : 0, n = f->length > own ? f->length - own : 0;
    return GATE_FRAME + (int64_t)(n < (uint64_t)1 << 48 ? n : (uint64_t)1 << 48);
}

/* The weight of the frames in these bytes: where they begin, or where they end. One that weighs more than `most` is
 * larger than any may be: that ends ZeroMQ's patience, in words of its own. */
static int64_t follow(Flow *f, const uint8_t *p, size_t n, bool ends, int64_t most)
{
    int64_t sum = 0;
    size_t i = 0;
    while (i < n && f->at != F_BLIND) {
        uint64_t part = f->left < n - i ? f->left : n - i;
        switch (f->at) {
        case F_GREETING:
            if (!greeting_begins(GREETING - f->left, p[i]))
                f->at = F_BLIND;
            f->curve |= GREETING - f->left == 12 && p[i] == 'C';
            i++;
            if (--f->left == 0)
                f->at = F_FLAGS;
            break;
        case F_FLAGS:
            f->at = F_LENGTH;
            f->left = p[i++] & 2 ? 8 : 1;
            f->length = 0;
            break;
        case F_LENGTH:
            f->length = f->length << 8 | p[i++];
            if (--f->left)
                break;
            f->left = f->length;
            f->at = f->length ? F_BODY : F_FLAGS;
            if ((!ends || !f->length) && weight(f) <= most)
                sum += weight(f);
            break;
        default:
            i += part;
            f->left -= part;
            if (f->left)
                break;
            f->at = F_FLAGS;
            if (ends)
                sum += weight(f);
        }
    }
    return f->at == F_BLIND ? sum + (int64_t)(n - i) : sum;
}

/* ---------------------------------------------------------------- connections; all with the guard held */

static Connection *at(int fd)
{
    return fd >= 0 && fd < FDS ? connection_at[fd] : NULL;
}

static Connection *numbered(const Gate *g, uint64_t number)
{
    Connection *c = at((int)(number % FDS));
    return c && c->gate == g && c->number == number ? c : NULL;
}

static void free_if_over(Gate *g)
{
    if (!g->closed || g->n || g->listeners)
        return;
    free(g);
}

/* It is no peer any more; what of its messages is whole can be read all the same. */
static void leave(Connection *c)
{
    Gate *g = c->gate;
    g->unread -= c->unread;
    g->left += c->unread < g->rule.unread ? c->unread : g->rule.unread;
    c->unread = 0;
}

static void forget(Connection *c)
{
    Gate *g = c->gate;
    leave(c);
    *(c->older ? &c->older->newer : &g->oldest) = c->newer;
    *(c->newer ? &c->newer->older : &g->newest) = c->older;
    connection_at[c->fd] = NULL;
    g->n--;
    free(c);
    free_if_over(g);
}

static Connection *remember(Gate *g, int fd)
{
    if (at(fd))
        forget(at(fd));
    Connection *c = fd < FDS ? calloc(1, sizeof *c) : NULL;
    if (!c)
        return NULL;
    *c = (Connection){ .gate = g, .fd = fd, .number = ++numbers * FDS + (uint64_t)fd, .older = g->newest,
                       .in.left = GREETING, .out.left = GREETING, .settled = log_seconds() };
    c->moved = c->settled;
    *(g->newest ? &g->newest->newer : &g->oldest) = c;
    g->newest = c;
    g->n++;
    return connection_at[fd] = c;
}

/* ZeroMQ finds the end of the stream and does the rest. */
static void cut(Connection *c)
{
    c->cut = true;
    leave(c);
    shutdown(c->fd, SHUT_RDWR);
}

/* The oldest that nobody has kept; of those that said nothing first. */
static Connection *dispensable(const Gate *g)
{
    Connection *best = NULL;
    for (Connection *c = g->oldest; c; c = c->newer)
        if (!c->kept && !c->cut && (!best || (best->unread > OWN && c->unread <= OWN)))
            best = c;
    return best;
}

static Connection *heaviest(const Gate *g)
{
    Connection *most = g->oldest;
    for (Connection *c = most; c; c = c->newer)
        if (!c->cut && (most->cut || c->unread > most->unread))
            most = c;
    return most;
}

static void describe(const Connection *c, char *text, size_t size)
{
    struct sockaddr_storage a;
    struct ucred who;
    socklen_t n = sizeof a, m = sizeof who;
    text[0] = 0;
    if (getpeername(c->fd, (struct sockaddr *)&a, &n))
        return;
    if (a.ss_family == AF_UNIX && !getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &who, &m))
        snprintf(text, size, " (process %ld)", (long)who.pid);
    else if (a.ss_family == AF_INET)
        snprintf(text, size, " (port %d)", ntohs(((struct sockaddr_in *)&a)->sin_port));
}

/* ---------------------------------------------------------------- what ZeroMQ's thread calls */

/* In place of the C library's. Not under their names, which its headers may give bodies of their own. */
int gate_accept4(int, struct sockaddr *, socklen_t *, int) __asm__("accept4");
int gate_call_connect(int, const struct sockaddr *, socklen_t) __asm__("connect");
int gate_listen(int, int) __asm__("listen");
int gate_call_close(int) __asm__("close");
ssize_t gate_recv(int, void *, size_t, int) __asm__("recv");
ssize_t gate_send(int, const void *, size_t, int) __asm__("send");

int gate_listen(int fd, int backlog)
{
    int rc = (int)syscall(SYS_listen, fd, backlog);
    if (rc || !binding)
        return rc;
    int i = 0;
    pthread_mutex_lock(&guard);
    while (i < LISTENERS && listener[i].gate)
        i++;
    if (i < LISTENERS) {
        listener[i].gate = binding;
        listener[i].fd = fd;
        binding->listeners++;
    }
    pthread_mutex_unlock(&guard);
    if (i == LISTENERS) { /* who came there would not be counted */
        errno = EMFILE;
        return -1;
    }
    return rc;
}

static Gate *listening(int fd)
{
    for (int i = 0; i < LISTENERS; i++)
        if (listener[i].gate && listener[i].fd == fd)
            return listener[i].gate;
    return NULL;
}

/* Of this user, or of the system's. What is not local has shown a key. */
static bool one_of_us(int fd)
{
    struct ucred who;
    socklen_t n = sizeof who;
    struct sockaddr_storage a;
    socklen_t m = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &m) || a.ss_family != AF_UNIX)
        return true;
    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) && (who.uid == geteuid() || who.uid == 0);
}

/* ZeroMQ aborts the process when there are no descriptors left, and else asks again at once. */
static int none_left(Gate *g)
{
    pthread_mutex_lock(&guard);
    Connection *c = g ? dispensable(g) : NULL;
    if (c)
        cut(c);
    pthread_mutex_unlock(&guard);
    poll(NULL, 0, 10);
    errno = ECONNABORTED;
    return -1;
}

int gate_accept4(int fd, struct sockaddr *address, socklen_t *n, int flags)
{
    Gate *g = NULL;
    bool later = false;
    if (zmq_thread()) {
        pthread_mutex_lock(&guard);
        g = listening(fd);
        later = g && g->left > g->rule.unread_all / 2;
        pthread_mutex_unlock(&guard);
    }
    if (later) { /* too much is to be read of those who have gone already: who comes now waits at the door */
        poll(NULL, 0, 1);
        errno = EAGAIN;
        return -1;
    }
    int got = (int)syscall(SYS_accept4, fd, address, n, flags);
    if (!zmq_thread())
        return got;
    if (got < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM ? none_left(g) : got;
    accepted_keep(got);
    if (!g)
        return got;
    bool in = one_of_us(got), strange = false;
    pthread_mutex_lock(&guard);
    if (!in) {
        strange = !g->said_stranger;
        g->said_stranger = true;
    } else {
        Connection *out = g->n >= g->rule.connections ? dispensable(g) : NULL;
        if (out)
            cut(out);
        in = (g->n < g->rule.connections || out) && remember(g, got);
    }
    pthread_mutex_unlock(&guard);
    if (strange)
        log_warn("refused a connection of another user");
    if (in)
        return got;
    syscall(SYS_close, got);
    errno = ECONNABORTED;
    return -1;
}

static bool leads_to(const Gate *g, const struct sockaddr *a, socklen_t n)
{
    if (!g->connects)
        return false;
    if (a->sa_family == AF_UNIX && n > offsetof(struct sockaddr_un, sun_path))
        return !g->port && !strncmp(((const struct sockaddr_un *)a)->sun_path, g->path, sizeof g->path);
    int port = a->sa_family == AF_INET    ? ntohs(((const struct sockaddr_in *)a)->sin_port)
               : a->sa_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)a)->sin6_port)
                                          : 0;
    return port && port == g->port;
}

int gate_call_connect(int fd, const struct sockaddr *a, socklen_t n)
{
    int rc = (int)syscall(SYS_connect, fd, a, n);
    if ((rc && errno != EINPROGRESS) || !zmq_thread())
        return rc;
    char path[sizeof gates->path] = "";
    int before = errno;
    bool in = rc || one_of_us(fd);
    pthread_mutex_lock(&guard);
    Gate *g = gates;
    while (g && !leads_to(g, a, n))
        g = g->next;
    if (g && in) {
        remember(g, fd);
    } else if (g) {
        snprintf(path, sizeof path, "%s", g->said_stranger ? "" : g->path); /* the gate may be gone after this */
        g->said_stranger = true;
    }
    pthread_mutex_unlock(&guard);
    if (*path)
        log_warn("%s is served by another user: not connected", path);
    errno = in || !g ? before : ECONNREFUSED;
    return in || !g ? rc : -1;
}

int gate_call_close(int fd)
{
    if (zmq_thread()) {
        pthread_mutex_lock(&guard);
        if (at(fd))
            forget(at(fd));
        for (int i = 0; i < LISTENERS; i++)
            if (listener[i].gate && listener[i].fd == fd) {
                listener[i].gate->listeners--;
                free_if_over(listener[i].gate);
                listener[i].gate = NULL;
            }
        pthread_mutex_unlock(&guard);
    }
    return (int)syscall(SYS_close, fd);
}

/* Heartbeats can't be told from other frames where these are encrypted, and nobody reads them. */
static void settle(Connection *c)
{
    double now = log_seconds(), own = OWN_EACH * (now - c->settled);
    if (own < OWN_EACH)
        return;
    int64_t less = own < (double)c->unread ? (int64_t)own : c->unread;
    c->unread -= less;
    c->gate->unread -= less;
    c->settled = now;
}

/* Who has too much unread after n bytes came at c: c, another, or nobody. */
static Connection *came(Connection *c, const uint8_t *bytes, size_t n)
{
    Gate *g = c->gate;
    int64_t more = follow(&c->in, bytes, n, false, g->rule.unread);
    if (g->rule.deaf)
        more = (int64_t)n;
    settle(c);
    c->unread += more;
    g->unread += more;
    if (g->closed)
        return NULL;
    if (c->in.at == F_BLIND && c->unread > BLIND_BYTES)
        return c;
    if (c->unread > g->rule.unread + OWN)
        return c;
    return g->unread > g->rule.unread_all + (int64_t)OWN * g->n ? heaviest(g) : NULL;
}

ssize_t gate_recv(int fd, void *to, size_t n, int flags)
{
    char text[160] = "", who[64] = "";
    ssize_t got = syscall(SYS_recvfrom, fd, to, n, flags, NULL, NULL);
    if (got <= 0 || !zmq_thread())
        return got;
    pthread_mutex_lock(&guard);
    Connection *c = at(fd), *full = c && !c->cut ? came(c, to, (size_t)got) : NULL;
    if (full) {
        Gate *g = full->gate;
        describe(full, who, sizeof who);
        if (!g->said_full)
            snprintf(text, sizeof text, "a peer%s sent %lld bytes more than was read: it is cut off; others are not "
                                        "named", who, (long long)full->unread);
        g->said_full = true;
        cut(full);
    }
    bool over = c && c->cut;
    pthread_mutex_unlock(&guard);
    if (text[0])
        log_warn("%s", text);
    return over ? 0 : got;
}

ssize_t gate_send(int fd, const void *from, size_t n, int flags)
{
    ssize_t sent = syscall(SYS_sendto, fd, from, n, flags, NULL, 0);
    if (sent <= 0 || !zmq_thread())
        return sent;
    pthread_mutex_lock(&guard);
    Connection *c = at(fd);
    if (c && c->in.at != F_BLIND) {
        int64_t less = follow(&c->out, from, (size_t)sent, true, INT64_MAX), *waits = &c->unsent;
        if (!c->unsent)
            waits = &c->gate->unsent;
        *waits = *waits > less ? *waits - less : 0;
        c->moved = c->gate->moved = log_seconds();
    }
    pthread_mutex_unlock(&guard);
    return sent;
}

/* ---------------------------------------------------------------- what the program calls */

Gate *gate_open(const GateRule *r)
{
    Gate *g = calloc(1, sizeof *g);
    if (!g) {
        err_set(ERR_MEMORY, "stream: out of memory");
        return NULL;
    }
    g->rule = *r;
    pthread_mutex_lock(&guard);
    g->next = gates;
    gates = g;
    pthread_mutex_unlock(&guard);
    return g;
}

void gate_rule(Gate *g, const GateRule *r)
{
    pthread_mutex_lock(&guard);
    g->rule = *r;
    pthread_mutex_unlock(&guard);
}

void gate_close(Gate **gate)
{
    Gate *g = *gate;
    if (!g)
        return;
    *gate = NULL;
    pthread_mutex_lock(&guard);
    for (Gate **i = &gates; *i; i = &(*i)->next)
        if (*i == g) {
            *i = g->next;
            break;
        }
    g->closed = true;
    free_if_over(g);
    pthread_mutex_unlock(&guard);
}

int gate_bind(Gate *g, void *socket, const char *endpoint)
{
    binding = g;
    int rc = zmq_bind(socket, endpoint);
    binding = NULL;
    return rc;
}

int gate_connect(Gate *g, void *socket, const char *endpoint)
{
    const char *port = strrchr(endpoint, ':');
    pthread_mutex_lock(&guard);
    if (!strncmp(endpoint, "ipc://", 6))
        snprintf(g->path, sizeof g->path, "%s", endpoint + 6);
    else
        g->port = port ? atoi(port + 1) : 0;
    g->connects = true;
    pthread_mutex_unlock(&guard);
    return zmq_connect(socket, endpoint);
}

uint64_t gate_connection(const Gate *g, int fd)
{
    pthread_mutex_lock(&guard);
    const Connection *c = at(fd);
    uint64_t number = c && c->gate == g ? c->number : 0;
    pthread_mutex_unlock(&guard);
    return number;
}

void gate_read(Gate *g, uint64_t connection, size_t n)
{
    int64_t less = GATE_FRAME + (int64_t)n;
    pthread_mutex_lock(&guard);
    Connection *c = numbered(g, connection);
    int64_t here = c && c->unread < less ? c->unread : c ? less : 0;
    if (c)
        c->unread -= here;
    g->unread -= here;
    less -= here;
    g->left -= less < g->left ? less : g->left;
    g->left_before = g->left_before < g->left ? g->left_before : g->left;
    pthread_mutex_unlock(&guard);
}

/* What was left when all had been read before is what never became whole. */
void gate_drained(Gate *g)
{
    pthread_mutex_lock(&guard);
    g->left -= g->left_before;
    g->left_before = g->left;
    pthread_mutex_unlock(&guard);
}

bool gate_give(Gate *g, uint64_t connection, size_t n)
{
    bool within = true;
    pthread_mutex_lock(&guard);
    Connection *c = numbered(g, connection);
    int64_t *waits = c ? &c->unsent : &g->unsent;
    int64_t *largest = c ? &c->largest : &g->largest, more = GATE_FRAME + (int64_t)n;
    double *moved = c ? &c->moved : &g->moved;
    if (!connection || c) {
        *largest = *largest > more ? *largest : more;
        within = *waits <= g->rule.unsent + *largest;
        if (!*waits)
            *moved = log_seconds();
        if (within)
            *waits += more;
        for (Connection *i = g->oldest; i && !within; i = i->newer)
            if (i == c || !connection)
                cut(i);
    }
    pthread_mutex_unlock(&guard);
    return within;
}

int64_t gate_unsent(Gate *g, uint64_t connection, double *idle)
{
    pthread_mutex_lock(&guard);
    const Connection *c = numbered(g, connection);
    int64_t waits = c ? c->unsent : 0;
    *idle = waits ? log_seconds() - c->moved : 0;
    pthread_mutex_unlock(&guard);
    return waits;
}

void gate_keep(Gate *g, uint64_t connection, bool keep)
{
    pthread_mutex_lock(&guard);
    Connection *c = numbered(g, connection);
    if (c)
        c->kept = keep;
    pthread_mutex_unlock(&guard);
}

void gate_cut(Gate *g, uint64_t connection)
{
    pthread_mutex_lock(&guard);
    Connection *c = numbered(g, connection);
    if (c)
        cut(c);
    pthread_mutex_unlock(&guard);
}
