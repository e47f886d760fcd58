#include "stream/accepted.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { KEPT = 256 };

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int fd;
    struct sockaddr_storage address;
} kept[KEPT];
static unsigned first, count;

void accepted_keep(int fd)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    int before = errno;
    if (!getpeername(fd, (struct sockaddr *)&a, &n) && a.ss_family != AF_UNIX) {
        pthread_mutex_lock(&guard);
        if (count == KEPT) {
            first = (first + 1) % KEPT;
            count--;
        }
        unsigned at = (first + count++) % KEPT;
        kept[at].fd = fd;
        kept[at].address = a;
        pthread_mutex_unlock(&guard);
    }
    errno = before;
}

static int take(int fd, struct sockaddr_storage *a)
{
    int rc = -1;
    pthread_mutex_lock(&guard);
    for (unsigned i = 0; i < count && rc; i++)
        if (kept[(first + i) % KEPT].fd == fd) {
            *a = kept[(first + i) % KEPT].address;
            for (; i > 0; i--)
                kept[(first + i) % KEPT] = kept[(first + i - 1) % KEPT];
            first = (first + 1) % KEPT;
            count--;
            rc = 0;
        }
    pthread_mutex_unlock(&guard);
    return rc;
}

void accepted_address(int fd, char text[ACCEPTED_ADDRESS])
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    char host[INET6_ADDRSTRLEN] = "";
    snprintf(text, ACCEPTED_ADDRESS, "an unknown address");
    if (take(fd, &a) && getpeername(fd, (struct sockaddr *)&a, &n))
        return;
    if (a.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&a;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(text, ACCEPTED_ADDRESS, "%s:%d", host, ntohs(in->sin_port));
    } else if (a.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&a;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        snprintf(text, ACCEPTED_ADDRESS, "[%s]:%d", host, ntohs(in->sin6_port));
    }
}
