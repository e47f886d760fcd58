#include "stream/secure.h"

#include "stream/accepted.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

enum { KEY_TEXT = 41, KEY_BYTES = 32, MAX_DOORS = 32, MAX_CALLERS = 128, MAX_NAMED = 64 };

/* A connection that was accepted and has not yet shown its key. */
typedef struct {
    int fd;
    double since;
    char address[ACCEPTED_ADDRESS];
} Caller;

typedef struct {
    void *monitor;
    char domain[24];
    uint8_t key[KEY_BYTES]; /* the client's public key */
    /* ZeroMQ tells that a handshake succeeded, but not whose: so many of the callers are known to be in. */
    int callers, welcomed;
    Caller caller[MAX_CALLERS];
    const char *why; /* the handshake that failed last, until its connection is closed */
} Door;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static Door *doors[MAX_DOORS];
static int ndoors, wake = -1;
static bool running, ending;
static pthread_t thread;
static void *zap;
static char named[MAX_NAMED][ACCEPTED_ADDRESS];
static int nnamed;

/* ---------------------------------------------------------------- the log */

/* Once an address, whatever its port: a peer that tries again and again does not flood the log. */
static void name_refused(const char *address, const char *why)
{
    char host[ACCEPTED_ADDRESS];
    snprintf(host, sizeof host, "%s", address);
    char *colon = strrchr(host, ':');
    if (colon && (host[0] == '[' || colon == strchr(host, ':')))
        *colon = 0;
    for (int i = 0; i < nnamed; i++)
        if (!strcmp(named[i], host)) {
            log_debug("stream", "refused %s: %s", address, why);
            return;
        }
    if (nnamed == MAX_NAMED)
        return;
    snprintf(named[nnamed++], ACCEPTED_ADDRESS, "%s", host);
    log_warn("refused a connection from %s: %s%s", address, why,
             nnamed == MAX_NAMED ? "; further addresses are not named" : "");
}

/* ---------------------------------------------------------------- connections of one door */

static void drop_caller(Door *d, int i)
{
    d->caller[i] = d->caller[--d->callers];
}

/* Who is still there after the time for the handshake has passed it. */
static void settle(Door *d)
{
    double old = log_seconds() - 1.5e-3 * SECURE_HANDSHAKE_MS;
    for (int i = 0; i < d->callers && d->welcomed;)
        if (d->caller[i].since < old) {
            drop_caller(d, i);
            d->welcomed--;
        } else {
            i++;
        }
    if (d->welcomed && d->callers <= d->welcomed)
        d->callers = d->welcomed = 0;
}

static void on_accepted(Door *d, int fd)
{
    settle(d);
    if (d->callers == MAX_CALLERS)
        drop_caller(d, 0);
    d->caller[d->callers].fd = fd;
    d->caller[d->callers].since = log_seconds();
    accepted_address(fd, d->caller[d->callers].address);
    d->callers++;
}

static void on_closed(Door *d, int fd)
{
    const char *why = d->why;
    d->why = NULL;
    settle(d);
    for (int i = 0; i < d->callers; i++)
        if (d->caller[i].fd == fd) {
            /* Where others are known to be in, this one may be one of them that leaves. */
            if (why || !d->welcomed)
                name_refused(d->caller[i].address, why ? why : "it does not speak this protocol");
            drop_caller(d, i);
            return;
        }
}

static void on_event(Door *d, uint16_t event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_ACCEPTED:
        on_accepted(d, (int)value);
        break;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        d->welcomed++;
        settle(d);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        d->why = "its key is not in a ticket of this run";
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        d->why = value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC ? "its ticket is of another run"
                                                                : "it does not speak this protocol";
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        d->why = value == EAGAIN || value == ETIMEDOUT ? "it did not identify itself in time"
                                                       : "it broke off before it had identified itself";
        break;
    case ZMQ_EVENT_DISCONNECTED:
        on_closed(d, (int)value);
        break;
    }
}

/* Returns false when the socket behind the door is closed. */
static bool read_events(Door *d)
{
    uint8_t event[6];
    char endpoint[256];
    while (zmq_recv(d->monitor, event, sizeof event, ZMQ_DONTWAIT) == (int)sizeof event) {
        uint16_t what;
        uint32_t value;
        memcpy(&what, event, sizeof what);
        memcpy(&value, event + 2, sizeof value);
        int n = zmq_recv(d->monitor, endpoint, sizeof endpoint, 0);
        if (what == ZMQ_EVENT_MONITOR_STOPPED)
            return false;
        if (n >= 6 && !memcmp(endpoint, "tcp://", 6))
            on_event(d, what, value);
    }
    return true;
}

/* ---------------------------------------------------------------- the thread */

/* In a time that tells nothing. */
static bool same_key(const uint8_t *a, const uint8_t *b)
{
    uint8_t differs = 0;
    for (int i = 0; i < KEY_BYTES; i++)
        differs |= a[i] ^ b[i];
    return !differs;
}

/* RFC 27: version, request, domain, address, identity, mechanism, then for CURVE the client's public key. */
static void answer_zap(void)
{
    enum { VERSION, REQUEST, DOMAIN, ADDRESS_OF, IDENTITY, MECHANISM, KEY, FRAMES };
    char frame[FRAMES][256];
    int size[FRAMES] = { 0 }, n = 0, more = 1;
    size_t len = sizeof more;
    bool in = false;
    while (more) {
        char *to = frame[n < FRAMES ? n : FRAMES - 1];
        int got = zmq_recv(zap, to, sizeof frame[0], n ? 0 : ZMQ_DONTWAIT);
        if (got < 0)
            return;
        if (n < FRAMES)
            size[n] = got < (int)sizeof frame[0] ? got : (int)sizeof frame[0];
        n++;
        if (zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &len))
            return;
    }
    if (n == FRAMES && size[MECHANISM] == 5 && !memcmp(frame[MECHANISM], "CURVE", 5) &&
        size[KEY] == KEY_BYTES)
        for (int i = 0; i < ndoors; i++)
            if ((int)strlen(doors[i]->domain) == size[DOMAIN] &&
                !memcmp(doors[i]->domain, frame[DOMAIN], (size_t)size[DOMAIN]))
                in = same_key(doors[i]->key, (const uint8_t *)frame[KEY]);
    zmq_send(zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap, frame[REQUEST], (size_t)size[REQUEST], ZMQ_SNDMORE);
    zmq_send(zap, in ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(zap, in ? "OK" : "refused", in ? 2 : 7, ZMQ_SNDMORE);
    zmq_send(zap, "", 0, ZMQ_SNDMORE);
    zmq_send(zap, "", 0, 0);
}

static void remove_door(int i)
{
    zmq_close(doors[i]->monitor);
    free(doors[i]);
    doors[i] = doors[--ndoors];
}

static void *serve(void *unused)
{
    (void)unused;
    for (;;) {
        zmq_pollitem_t items[MAX_DOORS + 2];
        int n = 0;
        pthread_mutex_lock(&guard);
        items[n++] = (zmq_pollitem_t){ .fd = wake, .events = ZMQ_POLLIN };
        items[n++] = (zmq_pollitem_t){ .socket = zap, .events = ZMQ_POLLIN };
        for (int i = 0; i < ndoors; i++)
            items[n++] = (zmq_pollitem_t){ .socket = doors[i]->monitor, .events = ZMQ_POLLIN };
        pthread_mutex_unlock(&guard);
        if (zmq_poll(items, n, -1) < 0 && errno != EINTR)
            break;
        uint64_t count;
        if (items[0].revents && read(wake, &count, sizeof count) < 0 && errno != EAGAIN)
            break;
        pthread_mutex_lock(&guard);
        if (ending) {
            pthread_mutex_unlock(&guard);
            break;
        }
        if (items[1].revents)
            answer_zap();
        for (int i = ndoors; i-- > 0;)
            if (!read_events(doors[i]))
                remove_door(i);
        pthread_mutex_unlock(&guard);
    }
    return NULL;
}

static void wake_thread(void)
{
    uint64_t one = 1;
    if (write(wake, &one, sizeof one) < 0) {
        /* the counter is full: it wakes all the same */
    }
}

static int start(void *context)
{
    if (running)
        return 0;
    ending = false;
    if ((wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return err_system("eventfd");
    if (!(zap = zmq_socket(context, ZMQ_REP)) || zmq_bind(zap, "inproc://zeromq.zap.01")) {
        err_set(ERR_SYSTEM, "ZeroMQ authentication: %s", zmq_strerror(errno));
    } else if ((errno = pthread_create(&thread, NULL, serve, NULL))) {
        err_system("a thread");
    } else {
        running = true;
        return 0;
    }
    if (zap)
        zmq_close(zap);
    zap = NULL;
    close(wake);
    wake = -1;
    return -1;
}

void secure_stop(void)
{
    if (!running)
        return;
    pthread_mutex_lock(&guard);
    ending = true;
    pthread_mutex_unlock(&guard);
    wake_thread();
    pthread_join(thread, NULL);
    while (ndoors)
        remove_door(ndoors - 1);
    zmq_close(zap);
    zap = NULL;
    close(wake);
    wake = -1;
    nnamed = 0;
    running = false;
}

/* ---------------------------------------------------------------- the ends */

static int set_keys(void *socket, const char *public, const char *secret)
{
    return zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public, KEY_TEXT) ||
           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, KEY_TEXT);
}

/* With the guard held. */
static int open_door(void *context, void *socket, const char *client)
{
    static unsigned serial;
    char name[48];
    int none = 0;
    if (ndoors == MAX_DOORS)
        return err_set(ERR_SYSTEM, "more than %d sockets with keys", MAX_DOORS);
    Door *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(ERR_MEMORY, "stream: out of memory");
    snprintf(d->domain, sizeof d->domain, "hssl-%u", serial);
    snprintf(name, sizeof name, "inproc://hssl-door-%u", serial++);
    zmq_z85_decode(d->key, client);
    int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                 ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                 ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_MONITOR_STOPPED;
    if ((d->monitor = zmq_socket(context, ZMQ_PAIR)) &&
        /* without a bound on this queue ZeroMQ's thread would wait for ours */
        !zmq_setsockopt(d->monitor, ZMQ_RCVHWM, &none, sizeof none) &&
        !zmq_setsockopt(d->monitor, ZMQ_LINGER, &none, sizeof none) &&
        !zmq_socket_monitor(socket, name, events) && !zmq_connect(d->monitor, name) &&
        !zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, d->domain, strlen(d->domain))) {
        doors[ndoors++] = d;
        wake_thread();
        return 0;
    }
    err_set(ERR_SYSTEM, "ZeroMQ authentication: %s", zmq_strerror(errno));
    if (d->monitor)
        zmq_close(d->monitor);
    free(d);
    return -1;
}

int secure_serve(void *context, void *socket, Ticket *t)
{
    char public[KEY_TEXT], secret[KEY_TEXT], client_public[KEY_TEXT], client_secret[KEY_TEXT];
    int on = 1, patience = SECURE_HANDSHAKE_MS, rc = -1;
    if (!zmq_has("curve"))
        return err_set(ERR_USAGE, "--listen: the ZeroMQ of this machine was built without CURVE, and "
                                  "nothing goes over tcp unencrypted");
    if (zmq_curve_keypair(public, secret) || zmq_curve_keypair(client_public, client_secret) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof on) || set_keys(socket, public, secret) ||
        zmq_setsockopt(socket, ZMQ_HANDSHAKE_IVL, &patience, sizeof patience)) {
        err_set(ERR_SYSTEM, "CURVE keys: %s", zmq_strerror(errno));
    } else {
        pthread_mutex_lock(&guard);
        rc = start(context) || open_door(context, socket, client_public) || ticket_set(t, "key", public) ||
             ticket_set(t, "secret", client_secret);
        pthread_mutex_unlock(&guard);
    }
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(client_secret, sizeof client_secret);
    return rc ? -1 : 0;
}

int secure_client(void *socket, const Ticket *t)
{
    const char *server = ticket_get(t, "key"), *secret = ticket_get(t, "secret");
    char public[KEY_TEXT];
    int patience = SECURE_HANDSHAKE_MS;
    if (!server || !secret)
        return err_set(ERR_DATA, "ticket: a tcp stream without key= and secret=: it was not copied whole");
    if (strlen(server) != KEY_TEXT - 1 || strlen(secret) != KEY_TEXT - 1 || zmq_curve_public(public, secret))
        return err_set(ERR_DATA, "ticket: its keys are spoilt");
    if (!zmq_has("curve"))
        return err_set(ERR_SYSTEM, "the ZeroMQ of this machine was built without CURVE: no stream over tcp");
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server, KEY_TEXT) || set_keys(socket, public, secret) ||
        zmq_setsockopt(socket, ZMQ_HANDSHAKE_IVL, &patience, sizeof patience))
        return err_set(ERR_DATA, "ticket: its keys are spoilt");
    return 0;
}
