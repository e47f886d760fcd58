#include "stream/wire.h"

#include "stream/message_internal.h"
#include "stream/sockdir.h"
#include "util/err.h"
#include "util/stop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static void *context;
static int sockets;

static int zmq_error(const char *what)
{
    return err_set(ERR_SYSTEM, "%s: %s", what, zmq_strerror(errno));
}

void *wire_socket(int type)
{
    void *s = NULL;
    pthread_mutex_lock(&guard);
    if (!context)
        context = zmq_ctx_new();
    if (context && (s = zmq_socket(context, type)))
        sockets++;
    pthread_mutex_unlock(&guard);
    if (!s) {
        zmq_error("ZeroMQ socket");
        return NULL;
    }
    int none = 0, on = 1;
    zmq_setsockopt(s, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(s, ZMQ_RCVHWM, &none, sizeof none);
    zmq_setsockopt(s, ZMQ_LINGER, &none, sizeof none);
    if (type == ZMQ_ROUTER)
        zmq_setsockopt(s, ZMQ_ROUTER_MANDATORY, &on, sizeof on);
    return s;
}

void wire_close(void **socket, int linger_ms)
{
    void *finished = NULL;
    if (!*socket)
        return;
    zmq_setsockopt(*socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(*socket);
    *socket = NULL;
    pthread_mutex_lock(&guard);
    if (--sockets == 0) {
        finished = context;
        context = NULL;
    }
    pthread_mutex_unlock(&guard);
    if (finished)
        zmq_ctx_term(finished);
}

int wire_bind(void *socket, const char *name, char *endpoint, size_t size)
{
    char path[300];
    if (sockdir_acquire(name, path, sizeof path))
        return -1;
    snprintf(endpoint, size, "ipc://%s", path);
    if (zmq_bind(socket, endpoint)) {
        zmq_error(endpoint);
        sockdir_release();
        return -1;
    }
    return 0;
}

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
    if (zmq_socket_monitor(socket, name, ZMQ_EVENT_CONNECTED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED))
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

void wire_watch_read(WireWatch *w)
{
    uint8_t event[6], address[256];
    while (w->events && zmq_recv(w->events, event, sizeof event, ZMQ_DONTWAIT) >= 2) {
        uint16_t what;
        memcpy(&what, event, 2);
        zmq_recv(w->events, address, sizeof address, ZMQ_DONTWAIT);
        if (what == ZMQ_EVENT_DISCONNECTED)
            w->lost = true;
        else
            w->connected = true;
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
