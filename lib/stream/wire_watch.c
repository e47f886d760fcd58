/* Who is there: connections of a socket, and pipes as life lines. */
#include "stream/wire.h"
#include "stream/wire_state.h"
#include "util/err.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int wire_watch(WireWatch *w, void *socket)
{
    static _Atomic unsigned serial;
    char name[64];
    *w = (WireWatch){ 0 };
    snprintf(name, sizeof name, "inproc://watch-%u", serial++);
    if (zmq_socket_monitor(socket, name,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                               ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CONNECT_RETRIED))
        return wire_error("ZeroMQ monitor");
    if (!(w->events = wire_socket(ZMQ_PAIR)))
        return -1;
    if (zmq_connect(w->events, name)) {
        wire_error("ZeroMQ monitor");
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
        bool tcp = n > 3 && !memcmp(address, "tcp", 3);
        switch (what) {
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            w->connected = true;
            w->unmet = false;
            break;
        case ZMQ_EVENT_CONNECT_RETRIED:
            w->unmet = !w->connected;
            break;
        case ZMQ_EVENT_DISCONNECTED:
            w->lost |= w->connected;
            break;
        default:
            handshake_failed(w, what, value, tcp);
        }
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
