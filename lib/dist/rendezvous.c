#include "dist/rendezvous.h"

#include "dist/address.h"
#include "util/err.h"
#include "util/log.h"
#include "util/stop.h"
#include "util/text.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HELLO_MS = 5000, RETRY_MS = 100, MOST_CALLERS = 256, MOST_NAMED = 16 };
enum { HELLO = 1, ADMITTED, WELCOME, REFUSED, STRANGER };

typedef struct {
    FrameHead head;
    Hello hello;
    unsigned char tag[CHANNEL_TAG];
} SealedHello;
_Static_assert(sizeof(SealedHello) == sizeof(FrameHead) + sizeof(Hello) + CHANNEL_TAG,
               "as it comes over the line");

/* Who has called rank 0 and not yet shown that it belongs here. */
typedef struct {
    Channel c;
    char address[ADDRESS_TEXT];
    double since;
    bool opened;
    size_t got;
    union {
        Opening opening;
        SealedHello hello;
    } in;
} Caller;

typedef struct {
    const Rendezvous *r;
    int listening;
    Channel *to;
    Hello *who;
    Caller caller[MOST_CALLERS]; /* the longest there first */
    int callers;
    char named[MOST_NAMED][ADDRESS_TEXT];
    int nnamed;
} Door;

/* ---------------------------------------------------------------- rank 0 */

/* Once an address: who tries again and again does not flood the log. */
static void name_refused(Door *d, const char *address, const char *why)
{
    for (int i = 0; i < d->nnamed; i++)
        if (!strcmp(d->named[i], address)) {
            log_debug("ranks", "refused %s: %s", address, why);
            return;
        }
    if (d->nnamed == MOST_NAMED)
        return;
    snprintf(d->named[d->nnamed++], ADDRESS_TEXT, "%s", address);
    log_warn("refused %s as a rank: %s%s", address, why,
             d->nnamed == MOST_NAMED ? "; further ones are not named" : "");
}

/* why NULL: its connection lives on elsewhere. */
static void dismiss(Door *d, int i, const char *why)
{
    if (why) {
        name_refused(d, d->caller[i].address, why);
        channel_close(&d->caller[i].c);
    }
    memmove(d->caller + i, d->caller + i + 1, (size_t)(--d->callers - i) * sizeof *d->caller);
}

/* Where there are too many, the one that has been at it longest makes room: a rank is done within a moment,
 * and calls again where it was pushed out. -1 where no more can be opened. */
static int let_in(Door *d)
{
    char address[ADDRESS_TEXT];
    for (int i = 0; i < MOST_CALLERS; i++) {
        int fd = accept4(d->listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            if (!d->callers)
                return err_system("rank 0 cannot take calls");
            dismiss(d, 0, "it kept silent while there was no room for others");
            continue;
        }
        if (fd < 0)
            return 0;
        if (address_of_peer(fd, address)) {
            name_refused(d, address, "it is another user's");
            close(fd);
            continue;
        }
        if (d->callers == MOST_CALLERS)
            dismiss(d, 0, "it kept silent while others called");
        Caller *c = &d->caller[d->callers++];
        *c = (Caller){.c.fd = fd, .since = log_seconds()};
        snprintf(c->address, sizeof c->address, "%s", address);
        channel_patience(&c->c, HELLO_MS);
    }
    return 0;
}

static const char *answer_opening(Door *d, Caller *c)
{
    Opening mine;
    if (!channel_knows(&c->in.opening))
        return "it does not speak as ranks of this version do";
    if (channel_opening(&mine) ||
        send(c->c.fd, &mine, sizeof mine, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof mine)
        return "it does not listen";
    channel_begin(&c->c, c->c.fd, d->r->key, &mine, &c->in.opening, false);
    c->opened = true;
    c->got = 0;
    return NULL;
}

/* Why one that has the key doesn't belong here all the same. */
static const char *misfit(const Door *d, const Hello *h)
{
    if (strcmp(h->job, d->r->job))
        return "it belongs to another job";
    if (strcmp(h->version, HSSL_VERSION))
        return "it is of another version than rank 0, which is " HSSL_VERSION;
    if (h->world != d->r->world)
        return "it knows of another number of ranks than rank 0";
    if (h->rank < 1 || h->rank >= d->r->world || d->to[h->rank].fd >= 0)
        return "its rank is taken, or there is none of that number";
    return NULL;
}

static const char *answer_hello(Door *d, Caller *c)
{
    Hello *h = &c->in.hello.hello;
    const FrameHead stranger = {htole32(STRANGER), 0};
    if (le32toh(c->in.hello.head.what) != HELLO || le32toh(c->in.hello.head.bytes) != sizeof *h ||
        channel_unseal(&c->c, &c->in.hello.head, h, c->in.hello.tag)) {
        /* in clear, since the two share nothing */
        if (send(c->c.fd, &stranger, sizeof stranger, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            return "it does not know the job's secret, and has gone";
        return "it does not know the job's secret (HSSL_SECRET, HSSL_SECRET_FILE)";
    }
    h->rank = (int32_t)le32toh((uint32_t)h->rank);
    h->world = (int32_t)le32toh((uint32_t)h->world);
    h->pid = (int32_t)le32toh((uint32_t)h->pid);
    h->version[sizeof h->version - 1] = h->job[sizeof h->job - 1] = h->host[sizeof h->host - 1] = 0;
    text_plain(h->host, h->host, sizeof h->host);
    const char *why = misfit(d, h);
    if (why) {
        snprintf(c->address, sizeof c->address, "process %d of host %s", (int)h->pid, h->host);
        channel_put(&c->c, REFUSED, why, strlen(why));
        return why;
    }
    if (channel_put(&c->c, ADMITTED, NULL, 0))
        return "it has gone";
    d->to[h->rank] = c->c;
    d->who[h->rank] = *h;
    c->c.fd = -1;
    return NULL;
}

static void hear(Door *d, int i)
{
    Caller *c = &d->caller[i];
    size_t want = c->opened ? sizeof c->in.hello : sizeof c->in.opening;
    ssize_t n = recv(c->c.fd, (char *)&c->in + c->got, want - c->got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->got += n > 0 ? (size_t)n : 0;
    const char *why = n <= 0          ? "it hung up before it had said who it is"
                      : c->got < want ? NULL
                      : c->opened     ? answer_hello(d, c)
                                      : answer_opening(d, c);
    if (why || c->c.fd < 0)
        dismiss(d, i, why);
}

/* The ranks that have come say nothing before all have: what comes from one is its end. */
static void look_after(Door *d, int rank)
{
    log_warn("rank %d (host %s, process %d) has gone before all were there", rank, d->who[rank].host,
             (int)d->who[rank].pid);
    channel_close(&d->to[rank]);
}

static int missing(const Door *d, char *list, size_t size)
{
    int n = 0;
    size_t used = 0;
    list[0] = 0;
    for (int i = 1; i < d->r->world; i++)
        if (d->to[i].fd < 0 && ++n <= 8 && used < size)
            used += (size_t)snprintf(list + used, size - used, "%s%d", n > 1 ? ", " : "", i);
    return n;
}

/* Wait for the next call, word or end; at most until `until`, or the next one is to be cut off. */
static int attend(Door *d, struct pollfd *p, double until)
{
    nfds_t n = 0;
    int callers = d->callers;
    double now = log_seconds(), wake = callers ? d->caller[0].since + HELLO_MS / 1000.0 : until;
    p[n++] = (struct pollfd){.fd = d->listening, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = stop_fd(), .events = POLLIN};
    for (int i = 0; i < callers; i++)
        p[n++] = (struct pollfd){.fd = d->caller[i].c.fd, .events = POLLIN};
    for (int i = 1; i < d->r->world; i++)
        p[n++] = (struct pollfd){.fd = d->to[i].fd, .events = POLLIN};
    wake = wake < until ? wake : until;
    if (poll(p, n, wake > now ? (int)((wake - now) * 1000) + 1 : 0) < 0)
        return errno == EINTR ? 0 : err_system("poll");
    if (p[1].revents)
        return err_set(ERR_STOP, "stopped by a signal");
    for (int i = 1; i < d->r->world; i++)
        if (p[1 + callers + i].revents)
            look_after(d, i);
    for (int i = callers; i-- > 0;)
        if (p[2 + i].revents)
            hear(d, i);
    while (d->callers && log_seconds() - d->caller[0].since >= HELLO_MS / 1000.0)
        dismiss(d, 0, "it did not say who it is in time");
    return p[0].revents ? let_in(d) : 0;
}

int rendezvous_gather(const Rendezvous *r, int listening, Channel *to, Hello *who)
{
    char list[128];
    int rc = 0;
    Door *d = calloc(1, sizeof *d);
    struct pollfd *p = calloc((size_t)r->world + MOST_CALLERS + 2, sizeof *p);
    if (!d || !p)
        rc = err_set(ERR_MEMORY, "ranks: out of memory");
    else
        *d = (Door){.r = r, .listening = listening, .to = to, .who = who};
    while (!rc && missing(d, list, sizeof list))
        rc = log_seconds() < r->until ? attend(d, p, r->until)
                                      : err_set(ERR_PEER, "rank%s %s of %d did not come",
                                                strchr(list, ',') ? "s" : "", list, r->world);
    close(listening);
    while (d && d->callers)
        channel_close(&d->caller[--d->callers].c);
    for (int i = 1; !rc && i < r->world; i++)
        channel_put(&to[i], WELCOME, NULL, 0); /* who has gone meanwhile is noticed later */
    free(d);
    free(p);
    return rc;
}

/* ---------------------------------------------------------------- the others */

static Hello myself(const Rendezvous *r)
{
    Hello h = {.rank = (int32_t)htole32((uint32_t)r->rank),
               .world = (int32_t)htole32((uint32_t)r->world),
               .pid = (int32_t)htole32((uint32_t)getpid())};
    snprintf(h.version, sizeof h.version, "%s", HSSL_VERSION);
    snprintf(h.job, sizeof h.job, "%s", r->job);
    gethostname(h.host, sizeof h.host - 1);
    return h;
}

/* A pause where fd is -1, else until there is something to read. 1: time is up. */
static int await(int fd, double seconds)
{
    for (double until = log_seconds() + seconds;;) {
        struct pollfd p[2] = {{.fd = stop_fd(), .events = POLLIN}, {.fd = fd, .events = POLLIN}};
        double left = until - log_seconds();
        int n = poll(p, 2, left > 0 ? (int)(left * 1000) + 1 : 0);
        if (n < 0 && errno != EINTR)
            return err_system("poll");
        if (n > 0)
            return p[0].revents ? err_set(ERR_STOP, "stopped by a signal") : 0;
        if (left <= 0)
            return 1;
    }
}

/* Say who this is, and hear that it may stay. 1: cut off before that, as happens where many call at once. */
static int introduce(const Rendezvous *r, const char *address, int fd, Channel *to)
{
    Opening mine, theirs;
    Hello h = myself(r);
    char why[RENDEZVOUS_WHY] = "";
    uint32_t what = 0;
    size_t n;
    int rc;
    to->fd = fd;
    channel_patience(to, HELLO_MS);
    if (channel_opening(&mine))
        return -1;
    if (send(fd, &mine, sizeof mine, MSG_NOSIGNAL) != sizeof mine)
        return 1;
    if ((rc = await(fd, HELLO_MS / 1000.0)))
        return rc;
    /* in one go: drops keep nobody waiting for longer than the socket's timeout */
    ssize_t got = recv(fd, &theirs, sizeof theirs, MSG_WAITALL);
    if (got == sizeof theirs && !channel_knows(&theirs))
        return err_set(ERR_PEER, "at %s there is somebody else than rank 0, or it is of another version",
                       address);
    if (got != sizeof theirs)
        return 1;
    channel_begin(to, fd, r->key, &mine, &theirs, true);
    if (channel_put(to, HELLO, &h, sizeof h))
        return 1;
    if ((rc = await(fd, HELLO_MS / 1000.0)))
        return rc;
    if (channel_head(to, &what, &n))
        return 1;
    if (what == STRANGER)
        return err_set(
            ERR_PEER,
            "rank 0 at %s has another secret: all ranks need the same HSSL_SECRET or HSSL_SECRET_FILE",
            address);
    if (n >= sizeof why || channel_take(to, why, n))
        return err_set(
            ERR_PEER, "at %s there is somebody else than rank 0: it does not know the job's secret", address);
    text_plain(why, why, sizeof why);
    return what == ADMITTED ? 0 : err_set(ERR_PEER, "rank 0 at %s refuses this process: %s", address, why);
}

static int await_welcome(const Rendezvous *r, const char *address, Channel *to)
{
    uint32_t what;
    size_t n;
    char none;
    double left = r->until - log_seconds();
    int rc = await(to->fd, (left > 0 ? left : 0) + HELLO_MS / 1000.0);
    if (rc < 0)
        return -1;
    if (rc || channel_head(to, &what, &n) || n || what != WELCOME || channel_take(to, &none, 0))
        return err_set(ERR_PEER, "rank 0 at %s has gone before all ranks were there", address);
    return 0;
}

int rendezvous_call(const Rendezvous *r, const char *address, Channel *to)
{
    for (bool there = false;;) {
        int fd = address_call(address, HELLO_MS), rc = 1;
        if (fd == -2)
            return -1;
        if (fd >= 0) {
            there = true;
            if (!(rc = introduce(r, address, fd, to)))
                return await_welcome(r, address, to);
            channel_close(to);
        }
        if (rc < 0 || (rc = await(-1, RETRY_MS / 1000.0)) < 0)
            return -1;
        if (log_seconds() > r->until)
            return err_set(
                ERR_PEER, there ? "rank 0 at %s did not answer" : "rank 0 is not to be found at %s", address);
    }
}
