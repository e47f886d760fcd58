#include "zmtp.h"

#include "stream/message_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCKED_MS = 3000, DOOR_S = 10 };

bool zmtp_push(ZmtpPeer *p, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n) {
        struct pollfd f = { .fd = p->fd, .events = POLLOUT };
        ssize_t w = send(p->fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (w > 0) {
            at += w;
            n -= (size_t)w;
            p->sent += (uint64_t)w;
        } else if (w < 0 && errno != EAGAIN && errno != EINTR) {
            p->fate = ZMTP_CUT;
            return false;
        } else if (poll(&f, 1, BLOCKED_MS) == 0) {
            p->fate = ZMTP_BLOCKED;
            return false;
        }
    }
    return true;
}

bool zmtp_push_frame(ZmtpPeer *p, bool more, const void *bytes, size_t n)
{
    uint8_t head[9] = { (uint8_t)more | (n > 255 ? 2 : 0), (uint8_t)n };
    for (int i = 0; i < 8 && n > 255; i++)
        head[1 + i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
    return zmtp_push(p, head, n > 255 ? 9 : 2) && zmtp_push(p, bytes, n);
}

static bool pull(int fd, void *bytes, size_t n)
{
    for (size_t got = 0; got < n;) {
        ssize_t r = recv(fd, (char *)bytes + got, n - got, 0);
        if (r <= 0)
            return false;
        got += (size_t)r;
    }
    return true;
}

bool zmtp_shake_hands(ZmtpPeer *p, const char *type)
{
    uint8_t greeting[64] = { 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L' };
    uint8_t ready[64] = "\4\0\5READY\13Socket-Type";
    size_t n = 20, len = strlen(type);
    ready[n + 3] = (uint8_t)len;
    memcpy(ready + n + 4, type, len);
    ready[1] = (uint8_t)(n + 4 + len - 2);
    uint8_t answer[256];
    return zmtp_push(p, greeting, sizeof greeting) && pull(p->fd, answer, 64) && zmtp_push(p, ready, n + 4 + len) &&
           pull(p->fd, answer, 2) && pull(p->fd, answer + 2, answer[1]);
}

struct sockaddr_un zmtp_address(const char *endpoint)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", endpoint + 6);
    return a;
}

int zmtp_knock(const char *endpoint)
{
    struct sockaddr_un a = zmtp_address(endpoint);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof a))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

bool zmtp_enter(ZmtpPeer *p, const char *endpoint, const char *type)
{
    const struct timeval patience = { .tv_sec = DOOR_S };
    *p = (ZmtpPeer){ .fd = zmtp_knock(endpoint), .fate = ZMTP_SPENT };
    if (p->fd >= 0)
        setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (p->fd >= 0 && zmtp_shake_hands(p, type))
        return true;
    p->fate = ZMTP_NOT_IN;
    return false;
}

void zmtp_say(ZmtpPeer *p, Message *m)
{
    void *header;
    size_t n;
    if (!message_header(m, &header, &n)) {
        zmtp_push_frame(p, false, header, n);
        free(header);
    }
    message_clear(m);
}
