#include "dist/muster.h"

#include "util/err.h"
#include "util/log.h"
#include "util/stop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BEAT_MS = 2000, SILENCE_MS = 15000, PATIENCE_MS = 120000, LEAVE_MS = 10000, GRACE_MS = 15000, HELLO_MS = 5000, TEXT = 480,
       CHUNK = 1 << 20, RETRY_MS = 100 };

/* Frames: MAGIC, what, bytes that follow. */
enum { MAGIC = 0x4c535348 };
enum { HELLO = 1, WELCOME, BEAT, BYTES, STOPPED, FAILED, BYE, REFUSED };

typedef struct {
    uint32_t magic, what, bytes;
} Frame;

/* What a rank says of itself. */
typedef struct {
    int32_t rank, world, pid, spare;
    char version[32], token[128], host[64];
} Hello;

typedef struct {
    int fd; /* -1: not there any more */
    Hello who;
    double heard;
    bool left;
} Peer;

struct Muster {
    MusterConfig c;
    char token[128];
    Peer *peers; /* rank 0: of every rank, [0] unused; else [0] alone: rank 0 */
    int npeers, first;
    int listening, wake;
    pthread_t thread;
    bool running;
    double beat;

    pthread_mutex_t guard; /* of all below, and of what is sent */
    pthread_cond_t changed;
    bool over, closing, held;
    MusterEnd how;
    char text[TEXT];
    /* what muster_share waits for */
    char *into;
    size_t wanted;
};

/* ---------------------------------------------------------------- bytes */

static int all_out(int fd, const void *bytes, size_t n)
{
    for (const char *p = bytes; n;) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1; /* also after SO_SNDTIMEO */
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int all_in(int fd, void *bytes, size_t n)
{
    for (char *p = bytes; n;) {
        ssize_t k = recv(fd, p, n, 0);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int put(int fd, uint32_t what, const void *bytes, size_t n)
{
    Frame f = { htole32(MAGIC), htole32(what), htole32((uint32_t)n) };
    return all_out(fd, &f, sizeof f) || all_out(fd, bytes, n) ? -1 : 0;
}

/* A frame's head; -1 where it is none, or announces more than a frame of its kind may hold. */
static int head(int fd, uint32_t *what, size_t *n)
{
    Frame f;
    if (all_in(fd, &f, sizeof f) || le32toh(f.magic) != MAGIC)
        return -1;
    *what = le32toh(f.what);
    *n = le32toh(f.bytes);
    size_t most = *what == HELLO ? sizeof(Hello) : *what == BYTES ? CHUNK : *what == FAILED || *what == REFUSED ? TEXT - 1 : 0;
    return *n <= most ? 0 : -1;
}

static void set_waits(int fd, int ms)
{
    struct timeval t = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* ---------------------------------------------------------------- meeting */

static int split(const char *address, char *host, size_t size, const char **port)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || (size_t)(colon - address) >= size)
        return err_set(ERR_USAGE, "%s: not HOST:PORT", address);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = 0;
    *port = colon + 1;
    return 0;
}

static struct addrinfo *look_up(const char *address, bool listen)
{
    char host[256];
    const char *port = "";
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = listen ? AI_PASSIVE : 0 }, *found = NULL;
    if (split(address, host, sizeof host, &port))
        return NULL;
    /* On many systems the host's own name is that of a loopback address, which nobody else reaches: listen at all. */
    struct in6_addr number;
    bool given = !listen || !strcmp(host, "localhost") || inet_pton(AF_INET, host, &number) == 1 ||
                 inet_pton(AF_INET6, host, &number) == 1;
    int rc = getaddrinfo(given ? host : NULL, port, &hints, &found);
    if (rc)
        err_set(ERR_SYSTEM, "ranks cannot meet at %s: %s", address, gai_strerror(rc));
    return rc ? NULL : found;
}

int muster_listen(const char *address, char *actual, size_t size)
{
    struct addrinfo *a = look_up(address, true);
    struct sockaddr_storage bound;
    socklen_t n = sizeof bound;
    char host[256];
    const char *port = "";
    int on = 1, fd = a ? socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a && (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 128) ||
              getsockname(fd, (struct sockaddr *)&bound, &n))) {
        err_system("rank 0 cannot listen at %s", address);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    if (a)
        freeaddrinfo(a);
    if (fd < 0 || split(address, host, sizeof host, &port))
        return -1;
    int number = bound.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&bound)->sin6_port)
                                             : ntohs(((struct sockaddr_in *)&bound)->sin_port);
    snprintf(actual, size, "%s:%d", host, number);
    return fd;
}

static Hello myself(const Muster *m)
{
    Hello h = { .rank = (int32_t)htole32((uint32_t)m->c.rank), .world = (int32_t)htole32((uint32_t)m->c.world),
                .pid = (int32_t)htole32((uint32_t)getpid()) };
    snprintf(h.version, sizeof h.version, "%s", HSSL_VERSION);
    snprintf(h.token, sizeof h.token, "%s", m->token);
    gethostname(h.host, sizeof h.host - 1);
    return h;
}

static void printable(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
}

/* In one go: who sends it in drops keeps nobody waiting longer than HELLO_MS. */
static int receive_hello(int fd, Hello *h)
{
    struct {
        Frame f;
        Hello h;
    } in;
    _Static_assert(sizeof in == sizeof(Frame) + sizeof(Hello), "as it comes over the line");
    if (recv(fd, &in, sizeof in, MSG_WAITALL) != sizeof in || le32toh(in.f.magic) != MAGIC || le32toh(in.f.what) != HELLO ||
        le32toh(in.f.bytes) != sizeof *h)
        return -1;
    *h = in.h;
    h->rank = (int32_t)le32toh((uint32_t)h->rank);
    h->world = (int32_t)le32toh((uint32_t)h->world);
    h->pid = (int32_t)le32toh((uint32_t)h->pid);
    h->version[sizeof h->version - 1] = h->token[sizeof h->token - 1] = h->host[sizeof h->host - 1] = 0;
    printable(h->host);
    return 0;
}

/* Somebody called at rank 0. Who doesn't belong here is told so, or cut off. */
static void admit(Muster *m, int fd)
{
    Hello h;
    const char *why = NULL;
    set_waits(fd, HELLO_MS);
    if (receive_hello(fd, &h)) {
        close(fd);
        return;
    }
    if (strcmp(h.token, m->token))
        why = "it belongs to another job";
    else if (strcmp(h.version, HSSL_VERSION))
        why = "it is of another version than rank 0, which is " HSSL_VERSION;
    else if (h.world != m->c.world)
        why = "it knows of another number of ranks than rank 0";
    else if (h.rank < 1 || h.rank >= m->c.world || m->peers[h.rank].fd >= 0)
        why = "its rank is taken, or there is none of that number";
    if (why) {
        log_warn("refused process %d of host %s as a rank: %s", (int)h.pid, h.host, why);
        put(fd, REFUSED, why, strlen(why));
        close(fd);
        return;
    }
    m->peers[h.rank] = (Peer){ .fd = fd, .who = h };
}

static int missing(const Muster *m, char *list, size_t size)
{
    int n = 0;
    size_t used = 0;
    list[0] = 0;
    for (int i = 1; i < m->c.world; i++)
        if (m->peers[i].fd < 0 && ++n <= 8 && used < size)
            used += (size_t)snprintf(list + used, size - used, "%s%d", n > 1 ? ", " : "", i);
    return n;
}

static int gather(Muster *m, double until)
{
    char list[128];
    while (missing(m, list, sizeof list)) {
        struct pollfd p[2] = { { .fd = m->listening, .events = POLLIN }, { .fd = stop_fd(), .events = POLLIN } };
        double left = until - log_seconds();
        if (left <= 0)
            return err_set(ERR_PEER, "rank%s %s of %d did not come", strchr(list, ',') ? "s" : "", list, m->c.world);
        if (poll(p, 2, (int)(left * 1000) + 1) > 0 && p[1].revents)
            return err_set(ERR_STOP, "stopped by a signal");
        int fd = p[0].revents ? accept4(m->listening, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0)
            admit(m, fd);
    }
    close(m->listening);
    m->listening = -1;
    for (int i = 1; i < m->c.world; i++)
        put(m->peers[i].fd, WELCOME, NULL, 0); /* who has gone meanwhile is noticed by the thread */
    return 0;
}

static int call_once(const char *address)
{
    struct addrinfo *list = look_up(address, false);
    int fd = -1;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen)) {
            close(fd);
            fd = -1;
        }
    }
    if (list)
        freeaddrinfo(list);
    return fd;
}

static int call(Muster *m, const char *address, double until)
{
    Hello h = myself(m);
    uint32_t what;
    size_t n;
    int fd;
    while ((fd = call_once(address)) < 0) {
        struct pollfd p = { .fd = stop_fd(), .events = POLLIN };
        if (poll(&p, 1, RETRY_MS) > 0)
            return err_set(ERR_STOP, "stopped by a signal");
        if (log_seconds() > until)
            return err_set(ERR_PEER, "rank 0 is not to be found at %s", address);
    }
    set_waits(fd, (int)((until - log_seconds()) * 1000) + HELLO_MS);
    m->peers[0].fd = fd;
    if (put(fd, HELLO, &h, sizeof h) || head(fd, &what, &n))
        return err_set(ERR_PEER, "rank 0 at %s has gone before all ranks were there", address);
    if (what == REFUSED) {
        char why[TEXT] = "";
        if (all_in(fd, why, n))
            return err_set(ERR_PEER, "rank 0 at %s has gone", address);
        printable(why);
        return err_set(ERR_PEER, "rank 0 at %s refuses this process: %s", address, why);
    }
    if (what != WELCOME)
        return err_set(ERR_PEER, "at %s there is somebody else than rank 0", address);
    return 0;
}

/* ---------------------------------------------------------------- the thread */

static void name_of(const Muster *m, int i, char *to, size_t size)
{
    const Hello *h = &m->peers[i].who;
    if (m->c.rank)
        snprintf(to, size, "rank 0");
    else
        snprintf(to, size, "rank %d (host %s, process %d)", i, h->host, (int)h->pid);
}

/* Under the guard: the first end that is heard of counts, and rank 0 passes it on. */
static void note_end(Muster *m, MusterEnd how, const char *text, int from)
{
    if (m->over || m->closing)
        return;
    m->over = true;
    m->how = how;
    snprintf(m->text, sizeof m->text, "%s", text);
    for (int i = m->first; !m->c.rank && i < m->npeers; i++)
        if (i != from && m->peers[i].fd >= 0)
            put(m->peers[i].fd, how == MUSTER_STOPPED ? STOPPED : FAILED, text, how == MUSTER_STOPPED ? 0 : strlen(text));
    pthread_cond_broadcast(&m->changed);
}

static void lose(Muster *m, int i, const char *how)
{
    char who[160], text[TEXT];
    close(m->peers[i].fd);
    m->peers[i].fd = -1;
    name_of(m, i, who, sizeof who);
    snprintf(text, sizeof text, "%s %s", who, how);
    if (!m->peers[i].left)
        note_end(m, MUSTER_FAILED, text, i);
}

/* Bytes for muster_share, which waits for them. */
static int take_bytes(Muster *m, int fd, size_t n)
{
    if (n > m->wanted || all_in(fd, m->into, n))
        return -1;
    m->into += n;
    m->wanted -= n;
    if (!m->wanted)
        pthread_cond_broadcast(&m->changed);
    return 0;
}

static int listen_to(Muster *m, int i)
{
    char text[TEXT], who[160], whole[TEXT];
    Peer *p = &m->peers[i];
    uint32_t what;
    size_t n;
    if (head(p->fd, &what, &n))
        return -1;
    p->heard = log_seconds();
    switch (what) {
    case BEAT:
        return 0;
    case BYTES:
        return take_bytes(m, p->fd, n);
    case BYE:
        p->left = true;
        pthread_cond_broadcast(&m->changed);
        return 0;
    case STOPPED:
        name_of(m, i, who, sizeof who);
        snprintf(whole, sizeof whole, "%s was asked to stop", who);
        p->left = true;
        note_end(m, MUSTER_STOPPED, whole, i);
        return 0;
    case FAILED:
        if (all_in(p->fd, text, n))
            return -1;
        text[n] = 0;
        printable(text);
        name_of(m, i, who, sizeof who);
        /* Rank 0 speaks of others, and with their names. */
        snprintf(whole, sizeof whole, "%.*s%s%.300s", m->c.rank ? 0 : 150, who, m->c.rank ? "" : ": ", text);
        p->left = true;
        note_end(m, MUSTER_FAILED, whole, i);
        return 0;
    }
    return -1;
}

/* Rank 0's bytes stay in the socket until muster_share asks for them. */
static bool bytes_wait(const Muster *m, int fd)
{
    Frame f;
    ssize_t n = m->wanted ? -1 : recv(fd, &f, sizeof f, MSG_PEEK | MSG_DONTWAIT);
    return n == sizeof f ? le32toh(f.what) == BYTES : n > 0; /* or the rest of a head is still to come */
}

static void *watch(void *arg)
{
    Muster *m = arg;
    struct pollfd *p = calloc((size_t)m->npeers + 1, sizeof *p);
    bool told = false;
    double told_at = 0;
    if (p)
        p[0].fd = -1; /* rank 0 is no peer of its own */
    while (p) {
        pthread_mutex_lock(&m->guard);
        double now = log_seconds();
        bool beat = now - m->beat >= BEAT_MS / 1000.0, closing = m->closing, held = m->held;
        if (beat)
            m->beat = now;
        for (int i = m->first; i < m->npeers; i++) {
            if (m->peers[i].fd >= 0 && beat && put(m->peers[i].fd, BEAT, NULL, 0))
                lose(m, i, "has gone");
            else if (m->peers[i].fd >= 0 && !m->peers[i].left && now - m->peers[i].heard > SILENCE_MS / 1000.0)
                lose(m, i, "has been silent for 15 seconds");
            p[i] = (struct pollfd){ .fd = m->peers[i].fd, .events = POLLIN };
            if (p[i].fd >= 0 && bytes_wait(m, p[i].fd)) {
                m->peers[i].heard = now;
                p[i].fd = -1;
            }
        }
        bool tell = m->over && !told;
        pthread_mutex_unlock(&m->guard);
        if (closing)
            break;
        if (held)
            told_at = now;
        if (told && now - told_at > GRACE_MS / 1000.0)
            m->c.late(m->c.arg);
        if (tell) {
            told = true;
            told_at = now;
            m->c.ended(m->c.arg, m->how, m->text);
        }
        p[m->npeers] = (struct pollfd){ .fd = m->wake, .events = POLLIN };
        if (poll(p, (nfds_t)m->npeers + 1, BEAT_MS / 2) <= 0)
            continue;
        uint64_t count;
        if (p[m->npeers].revents && read(m->wake, &count, sizeof count) < 0)
            continue;
        pthread_mutex_lock(&m->guard);
        for (int i = m->first; i < m->npeers; i++)
            if (p[i].fd >= 0 && p[i].revents && m->peers[i].fd >= 0 && !bytes_wait(m, p[i].fd) && listen_to(m, i))
                lose(m, i, "has gone");
        pthread_mutex_unlock(&m->guard);
    }
    free(p);
    return NULL;
}

static void wake(Muster *m)
{
    uint64_t one = 1;
    if (write(m->wake, &one, sizeof one) < 0) {
        /* it is awake already */
    }
}

/* ---------------------------------------------------------------- the callers' side */

Muster *muster_open(const MusterConfig *c, int listening, const char *address)
{
    Muster *m = calloc(1, sizeof *m);
    sigset_t all, before;
    int n = c->rank ? 1 : c->world;
    double until = log_seconds() + (c->patience_ms ? c->patience_ms : PATIENCE_MS) / 1000.0;
    if (!m || !(m->peers = calloc((size_t)n, sizeof *m->peers))) {
        free(m);
        err_set(ERR_MEMORY, "ranks: out of memory");
        return NULL;
    }
    m->c = *c;
    snprintf(m->token, sizeof m->token, "%s", c->token ? c->token : "");
    m->npeers = n;
    m->first = c->rank ? 0 : 1;
    m->listening = listening;
    for (int i = 0; i < n; i++)
        m->peers[i].fd = -1;
    pthread_mutex_init(&m->guard, NULL);
    pthread_cond_init(&m->changed, NULL);
    m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->wake < 0) {
        err_system("eventfd");
        muster_close(&m);
        return NULL;
    }
    if (c->rank ? call(m, address, until) : gather(m, until)) {
        muster_close(&m);
        return NULL;
    }
    for (int i = m->first; i < n; i++) {
        m->peers[i].heard = log_seconds();
        set_waits(m->peers[i].fd, SILENCE_MS);
    }
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the main thread's */
    m->running = !pthread_create(&m->thread, NULL, watch, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!m->running) {
        err_set(ERR_SYSTEM, "cannot start a thread");
        muster_close(&m);
    }
    return m;
}

void muster_hold(Muster *m, bool hold)
{
    pthread_mutex_lock(&m->guard);
    m->held = hold;
    pthread_mutex_unlock(&m->guard);
}

bool muster_over(Muster *m)
{
    pthread_mutex_lock(&m->guard);
    bool over = m->over;
    pthread_mutex_unlock(&m->guard);
    return over;
}

int muster_check(Muster *m)
{
    int rc = 0;
    pthread_mutex_lock(&m->guard);
    if (m->over)
        rc = err_set(m->how == MUSTER_STOPPED ? ERR_STOP : ERR_PEER, "%s", m->text);
    pthread_mutex_unlock(&m->guard);
    return rc;
}

/* Bounded pieces, so that beats find their way between them. */
static int send_share(Muster *m, const char *bytes, size_t n)
{
    for (size_t at = 0; at < n; at += CHUNK) {
        size_t k = n - at < CHUNK ? n - at : CHUNK;
        if (muster_check(m))
            return -1;
        pthread_mutex_lock(&m->guard);
        for (int i = 1; i < m->npeers; i++)
            if (m->peers[i].fd >= 0 && put(m->peers[i].fd, BYTES, bytes + at, k))
                lose(m, i, "has gone");
        pthread_mutex_unlock(&m->guard);
    }
    return muster_check(m);
}

int muster_share(Muster *m, void *bytes, size_t n)
{
    if (!m->c.rank)
        return send_share(m, bytes, n);
    if (!n)
        return 0;
    pthread_mutex_lock(&m->guard);
    m->into = bytes;
    m->wanted = n;
    pthread_mutex_unlock(&m->guard);
    wake(m);
    pthread_mutex_lock(&m->guard);
    while (m->wanted && !m->over)
        pthread_cond_wait(&m->changed, &m->guard);
    bool done = !m->wanted;
    m->wanted = 0;
    pthread_mutex_unlock(&m->guard);
    return done ? 0 : muster_check(m);
}

void muster_end(Muster *m, const char *text)
{
    char cut[TEXT];
    snprintf(cut, sizeof cut, "%.300s", text ? text : "");
    pthread_mutex_lock(&m->guard);
    if (!m->over) {
        char own[TEXT];
        snprintf(own, sizeof own, m->c.rank ? "%s" : "rank 0: %s", cut);
        for (int i = m->first; i < m->npeers; i++)
            if (m->peers[i].fd >= 0)
                put(m->peers[i].fd, text ? FAILED : STOPPED, own, text ? strlen(own) : 0);
        m->closing = true;
    }
    pthread_mutex_unlock(&m->guard);
    wake(m);
}

/* Everybody says bye, and stays until the others have. */
static void part(Muster *m)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LEAVE_MS / 1000;
    pthread_mutex_lock(&m->guard);
    bool ending = m->over || m->closing;
    for (int i = m->first; !ending && i < m->npeers; i++)
        if (m->peers[i].fd >= 0)
            put(m->peers[i].fd, BYE, NULL, 0);
    for (bool all = ending; !all && !m->over;) {
        all = true;
        for (int i = m->first; i < m->npeers; i++)
            all = all && (m->peers[i].left || m->peers[i].fd < 0);
        if (!all && pthread_cond_timedwait(&m->changed, &m->guard, &until))
            break;
    }
    m->closing = true;
    pthread_mutex_unlock(&m->guard);
}

void muster_close(Muster **muster)
{
    Muster *m = *muster;
    if (!m)
        return;
    if (m->running) {
        part(m);
        wake(m);
        pthread_join(m->thread, NULL);
    }
    for (int i = 0; i < m->npeers; i++)
        if (m->peers[i].fd >= 0)
            close(m->peers[i].fd);
    if (m->listening >= 0 && !m->c.rank)
        close(m->listening);
    if (m->wake >= 0)
        close(m->wake);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->guard);
    free(m->peers);
    free(m);
    *muster = NULL;
}
