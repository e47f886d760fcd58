#include "dist/muster.h"

#include "dist/rendezvous.h"
#include "util/err.h"
#include "util/log.h"
#include "util/text.h"

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

enum { BEAT_MS = 2000, SILENCE_MS = 15000, PATIENCE_MS = 120000, LEAVE_MS = 10000, GRACE_MS = 15000 };
enum { TEXT = RENDEZVOUS_WHY };

/* Frames once all have met. */
enum { BEAT = 16, BYTES, STOPPED, FAILED, BYE };

typedef struct {
    double heard;
    bool left;
} Peer;

struct Muster {
    MusterConfig c;
    /* Rank 0: of every rank, [0] unused; else [0] alone: rank 0. fd -1: not there any more. */
    Channel *to;
    Hello *who;
    Peer *peers;
    int npeers, first;
    int wake;
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

/* ---------------------------------------------------------------- the thread */

static void name_of(const Muster *m, int i, char *to, size_t size)
{
    const Hello *h = &m->who[i];
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
        if (i != from && m->to[i].fd >= 0)
            channel_put(&m->to[i], how == MUSTER_STOPPED ? STOPPED : FAILED, text,
                        how == MUSTER_STOPPED ? 0 : strlen(text));
    pthread_cond_broadcast(&m->changed);
}

static void lose(Muster *m, int i, const char *how)
{
    char who[160], text[TEXT];
    channel_close(&m->to[i]);
    name_of(m, i, who, sizeof who);
    snprintf(text, sizeof text, "%s %s", who, how);
    if (!m->peers[i].left)
        note_end(m, MUSTER_FAILED, text, i);
}

/* Bytes for muster_share, which waits for them. */
static int take_bytes(Muster *m, Channel *c, size_t n)
{
    if (n > m->wanted || channel_take(c, m->into, n))
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
    if (channel_head(&m->to[i], &what, &n))
        return -1;
    p->heard = log_seconds();
    if (what == BYTES)
        return take_bytes(m, &m->to[i], n);
    if (n >= sizeof text || channel_take(&m->to[i], text, n))
        return -1;
    text[n] = 0;
    text_plain(text, text, sizeof text);
    name_of(m, i, who, sizeof who);
    switch (what) {
    case BEAT:
        return 0;
    case BYE:
        p->left = true;
        pthread_cond_broadcast(&m->changed);
        return 0;
    case STOPPED:
        snprintf(whole, sizeof whole, "%s was asked to stop", who);
        p->left = true;
        note_end(m, MUSTER_STOPPED, whole, i);
        return 0;
    case FAILED:
        /* Rank 0 speaks of others, and with their names. */
        snprintf(whole, sizeof whole, "%.*s%s%.300s", m->c.rank ? 0 : 150, who, m->c.rank ? "" : ": ", text);
        p->left = true;
        note_end(m, MUSTER_FAILED, whole, i);
        return 0;
    }
    return -1;
}

/* Rank 0's bytes stay in the socket until muster_share asks for them. */
static bool bytes_wait(const Muster *m, int i)
{
    return !m->wanted && channel_holds(&m->to[i], BYTES);
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
            if (m->to[i].fd >= 0 && beat && channel_put(&m->to[i], BEAT, NULL, 0))
                lose(m, i, "has gone");
            else if (m->to[i].fd >= 0 && !m->peers[i].left && now - m->peers[i].heard > SILENCE_MS / 1000.0)
                lose(m, i, "has been silent for 15 seconds");
            p[i] = (struct pollfd){ .fd = m->to[i].fd, .events = POLLIN };
            if (p[i].fd >= 0 && bytes_wait(m, i)) {
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
            if (p[i].fd >= 0 && p[i].revents && m->to[i].fd >= 0 && !bytes_wait(m, i) && listen_to(m, i))
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

static void release(Muster *m)
{
    free(m->peers);
    free(m->to);
    free(m->who);
    free(m);
}

Muster *muster_open(const MusterConfig *c, int listening, const char *address)
{
    Muster *m = calloc(1, sizeof *m);
    sigset_t all, before;
    int n = c->rank ? 1 : c->world;
    Rendezvous r = { .rank = c->rank, .world = c->world, .job = c->job ? c->job : "", .key = c->key,
                     .until = log_seconds() + (c->patience_ms ? c->patience_ms : PATIENCE_MS) / 1000.0 };
    if (!m || !(m->peers = calloc((size_t)n, sizeof *m->peers)) ||
        !(m->to = calloc((size_t)n, sizeof *m->to)) || !(m->who = calloc((size_t)n, sizeof *m->who))) {
        if (m)
            release(m);
        if (listening >= 0)
            close(listening);
        err_set(ERR_MEMORY, "ranks: out of memory");
        return NULL;
    }
    m->c = *c;
    m->npeers = n;
    m->first = c->rank ? 0 : 1;
    for (int i = 0; i < n; i++)
        m->to[i].fd = -1;
    pthread_mutex_init(&m->guard, NULL);
    pthread_cond_init(&m->changed, NULL);
    m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->wake < 0) {
        err_system("eventfd");
        if (listening >= 0)
            close(listening);
        muster_close(&m);
        return NULL;
    }
    if (c->rank ? rendezvous_call(&r, address, m->to) : rendezvous_gather(&r, listening, m->to, m->who)) {
        muster_close(&m);
        return NULL;
    }
    for (int i = m->first; i < n; i++) {
        m->peers[i].heard = log_seconds();
        channel_patience(&m->to[i], SILENCE_MS);
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
    for (size_t at = 0; at < n; at += CHANNEL_MOST) {
        size_t k = n - at < CHANNEL_MOST ? n - at : CHANNEL_MOST;
        if (muster_check(m))
            return -1;
        pthread_mutex_lock(&m->guard);
        for (int i = 1; i < m->npeers; i++)
            if (m->to[i].fd >= 0 && channel_put(&m->to[i], BYTES, bytes + at, k))
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
            if (m->to[i].fd >= 0)
                channel_put(&m->to[i], text ? FAILED : STOPPED, own, text ? strlen(own) : 0);
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
        if (m->to[i].fd >= 0)
            channel_put(&m->to[i], BYE, NULL, 0);
    for (bool all = ending; !all && !m->over;) {
        all = true;
        for (int i = m->first; i < m->npeers; i++)
            all = all && (m->peers[i].left || m->to[i].fd < 0);
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
        channel_close(&m->to[i]);
    if (m->wake >= 0)
        close(m->wake);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->guard);
    release(m);
    *muster = NULL;
}
