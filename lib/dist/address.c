#include "dist/address.h"

#include "util/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 512 };

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
    struct sockaddr_storage room;
} Address;

/* ---------------------------------------------------------------- names and numbers */

static int split(const char *address, char *host, size_t size, const char **port)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !colon[1] || (size_t)(colon - address) >= size)
        return err_set(ERR_USAGE, "%s: not HOST:PORT", address);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = 0;
    *port = colon + 1;
    return 0;
}

static struct addrinfo *look_up(const char *address)
{
    char host[256];
    const char *port = "";
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (split(address, host, sizeof host, &port))
        return NULL;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc)
        err_set(ERR_SYSTEM, "ranks cannot meet at %s: %s", address, gai_strerror(rc));
    return rc ? NULL : found;
}

static bool is_loopback(const struct sockaddr *a)
{
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127));
}

static bool same_host(const struct sockaddr *a, const struct sockaddr *b)
{
    if (!b || a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    return a->sa_family == AF_INET6 &&
           !memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                   &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, 16);
}

int address_is_here(const char *address, bool *here)
{
    struct addrinfo *list = look_up(address);
    struct ifaddrs *own = NULL;
    if (!list)
        return -1;
    *here = false;
    int rc = getifaddrs(&own) ? err_system("addresses of this host") : 0;
    for (const struct addrinfo *a = list; !rc && a; a = a->ai_next) {
        *here = *here || is_loopback(a->ai_addr);
        for (const struct ifaddrs *i = own; i; i = i->ifa_next)
            *here = *here || same_host(a->ai_addr, i->ifa_addr);
    }
    freeifaddrs(own);
    freeaddrinfo(list);
    return rc;
}

/* @NAME: abstract, so that no file is left behind. */
static socklen_t local_address(const char *address, Address *a)
{
    *a = (Address){.local.sun_family = AF_UNIX};
    snprintf(a->local.sun_path + 1, sizeof a->local.sun_path - 1, "%s", address + 1);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a->local.sun_path + 1));
}

/* ---------------------------------------------------------------- rank 0 */

/* A socket that listens there, or -1 with errno. */
static int listen_at(const struct sockaddr *a, socklen_t n)
{
    int on = 1, fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (a->sa_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a, n) || listen(fd, BACKLOG)) {
        int was = errno;
        close(fd);
        errno = was;
        return -1;
    }
    return fd;
}

/* On many systems the host's own name is that of a loopback address, which nobody else reaches. Where there
 * is one other address, it is that one; where there are more, the user knows. */
static int listen_beyond(const char *address, const struct addrinfo *a)
{
    struct ifaddrs *own = NULL;
    struct sockaddr_in to = {.sin_family = AF_INET};
    char list[256] = "", text[INET_ADDRSTRLEN];
    int n = 0, fd = -1;
    if (getifaddrs(&own))
        return err_system("addresses of this host");
    for (const struct ifaddrs *i = own; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
            is_loopback(i->ifa_addr))
            continue;
        to.sin_addr = ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", n++ ? ", " : "",
                 inet_ntop(AF_INET, &to.sin_addr, text, sizeof text));
    }
    freeifaddrs(own);
    to.sin_port = a->ai_family == AF_INET6
                      ? ((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_port
                      : ((const struct sockaddr_in *)(const void *)a->ai_addr)->sin_port;
    if (n != 1)
        return err_set(
            ERR_USAGE,
            "rank 0 cannot listen at %s: no other host reaches that address: set HSSL_MUSTER=HOST:PORT with "
            "one that they do%s%s",
            address, n ? ", of " : "", list);
    if ((fd = listen_at((struct sockaddr *)&to, sizeof to)) < 0)
        err_system("rank 0 cannot listen at %s", list);
    return fd;
}

static int say_where(int fd, char *actual, size_t size)
{
    Address bound;
    socklen_t n = sizeof bound;
    char host[INET6_ADDRSTRLEN + 20], port[8];
    if (getsockname(fd, &bound.any, &n) ||
        getnameinfo(&bound.any, n, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        return err_system("address of a socket");
    snprintf(actual, size, "%s:%s", host, port);
    return 0;
}

int address_listen(const char *address, bool far, char *actual, size_t size)
{
    int fd = -1;
    bool reachable = false;
    if (*address == '@') {
        Address a;
        socklen_t n = local_address(address, &a);
        snprintf(actual, size, "%s", address);
        return (fd = listen_at(&a.any, n)) < 0 ? err_system("rank 0 cannot listen at %s", address) : fd;
    }
    struct addrinfo *list = look_up(address);
    if (!list)
        return -1;
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        if (far && is_loopback(a->ai_addr))
            continue;
        reachable = true;
        fd = listen_at(a->ai_addr, a->ai_addrlen);
    }
    if (fd < 0 && far &&
        (!reachable || errno == EADDRNOTAVAIL)) /* or the others' name for it is none that it knows */
        fd = listen_beyond(address, list);
    else if (fd < 0)
        err_system("rank 0 cannot listen at %s", address);
    freeaddrinfo(list);
    if (fd >= 0 && say_where(fd, actual, size)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* ---------------------------------------------------------------- connections */

int address_of_peer(int fd, char text[ADDRESS_TEXT])
{
    Address a;
    socklen_t n = sizeof a;
    struct ucred who = {0};
    snprintf(text, ADDRESS_TEXT, "a caller");
    if (getpeername(fd, &a.any, &n))
        return 0;
    if (a.any.sa_family != AF_UNIX) {
        char host[INET6_ADDRSTRLEN + 20];
        if (!getnameinfo(&a.any, n, host, sizeof host, NULL, 0, NI_NUMERICHOST))
            snprintf(text, ADDRESS_TEXT, "a caller from %s", host);
        return 0;
    }
    n = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n))
        return -1;
    snprintf(text, ADDRESS_TEXT, "process %d of user %u", (int)who.pid, (unsigned)who.uid);
    return who.uid == geteuid() ? 0 : -1;
}

static int connect_to(const struct sockaddr *to, socklen_t n, int ms)
{
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    if (connect(fd, to, n)) {
        close(fd);
        return -1;
    }
    return fd;
}

int address_call(const char *address, int ms)
{
    int fd = -1;
    if (*address == '@') {
        Address a;
        char who[ADDRESS_TEXT];
        socklen_t n = local_address(address, &a);
        if ((fd = connect_to(&a.any, n, ms)) >= 0 && address_of_peer(fd, who)) {
            close(fd);
            err_set(ERR_PEER, "at %s there is somebody else than rank 0: %s", address, who);
            return -2;
        }
        return fd;
    }
    struct addrinfo *list = look_up(address);
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        fd = connect_to(a->ai_addr, a->ai_addrlen, ms);
    if (list)
        freeaddrinfo(list);
    return fd;
}
