/* A stream over tcp, and strangers at its port while it runs: it must come through whole, they must not get
 * anything, cost little, and be named. */
#include "../tap.h"

#include "stream/secure.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CREDIT = 64, LARGE = 400 << 10, SLOW = 6 };

static void nap(int ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
}

static int64_t bytes_of(uint64_t seq)
{
    return seq % 50 == 3 ? LARGE : 100 + (int64_t)(seq % 37) * 40;
}

static uint8_t byte_of(uint64_t seq, int64_t i)
{
    return (uint8_t)(seq * 31 + (uint64_t)i * 7);
}

static void make(Message *m, uint64_t seq)
{
    const int64_t n = bytes_of(seq);
    message_init(m, MSG_DATA);
    m->seq = m->id = seq;
    uint8_t *to = message_add(m, "image", MSG_U8, 1, &n);
    for (int64_t i = 0; i < n; i++)
        to[i] = byte_of(seq, i);
}

static bool whole(const Message *m, uint64_t seq)
{
    const MsgTensor *t = message_tensor(m, "image");
    if (m->type != MSG_DATA || m->seq != seq || !t || t->bytes != (size_t)bytes_of(seq))
        return false;
    for (int64_t i = 0; i < bytes_of(seq); i++)
        if (((uint8_t *)t->data)[i] != byte_of(seq, i))
            return false;
    return true;
}

/* The producer; counts whatever comes that its consumer did not send. */
typedef struct {
    void *socket;
    int foreign;
} Producer;

static void *produce(void *arg)
{
    Producer *p = arg;
    WireId peer, from;
    Message m;
    uint64_t credit = 0, seq = 0;
    bool known = false;
    zmq_pollitem_t items[2] = { { .socket = p->socket, .events = ZMQ_POLLIN } };
    for (;;) {
        int rc;
        while ((rc = wire_recv(p->socket, &from, &m))) {
            bool leaves = rc > 0 && m.type == MSG_BYE;
            if (rc < 0 || (known && memcmp(&from, &peer, sizeof from)) || (m.type != MSG_WANT && !leaves)) {
                p->foreign++;
            } else {
                peer = from;
                known = true;
                credit += m.credit;
            }
            message_clear(&m);
            if (leaves)
                return NULL;
        }
        for (; credit; credit--, seq++) {
            make(&m, seq);
            wire_send(p->socket, &peer, &m);
        }
        wire_poll(items, 1, 100, false);
    }
}

/* ---------------------------------------------------------------- strangers, in a process of their own */

static int knock(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof a))
        return fd;
    close(fd);
    return -1;
}

static const uint8_t curve_greeting[64] = {
    0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1, 'C', 'U', 'R', 'V', 'E'
};

static size_t http(Rng *r, uint8_t *to)
{
    (void)r;
    return (size_t)sprintf((char *)to, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

static size_t noise(Rng *r, uint8_t *to)
{
    size_t n = 1 + rng_below(r, 4000);
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)rng_below(r, 256);
    return n;
}

/* A proper beginning, then anything. */
static size_t half(Rng *r, uint8_t *to)
{
    memcpy(to, curve_greeting, sizeof curve_greeting);
    return rng_below(r, 2) ? 1 + rng_below(r, 64) : 64 + noise(r, to + 64);
}

/* A frame of 2^62 bytes, of 16 MiB, and a HELLO of the wrong size. */
static size_t lengths(Rng *r, uint8_t *to)
{
    static const uint8_t frames[3][9] = { { 6, 0x40 },
                                          { 6, 0, 0, 0, 0, 1 },
                                          { 4, 250, 5, 'H', 'E', 'L', 'L', 'O' } };
    memcpy(to, curve_greeting, sizeof curve_greeting);
    memcpy(to + 64, frames[rng_below(r, 3)], 9);
    memset(to + 73, 'x', 3000);
    return 3073;
}

static size_t no_security(Rng *r, uint8_t *to)
{
    static const uint8_t ready[] = "\4\31\5READY\13Socket-Type\0\0\0\6DEALER\0\1\0\0";
    (void)r;
    memcpy(to, curve_greeting, sizeof curve_greeting);
    memcpy(to + 12, "NULL\0", 5);
    memcpy(to + 64, ready, sizeof ready);
    return 64 + sizeof ready;
}

static void besiege(int port, int *knocks)
{
    size_t (*const kinds[])(Rng *, uint8_t *) = { http, noise, half, lengths, no_security };
    Rng rng = rng_make(11, RNG_TEST, 0, 0);
    uint8_t bytes[8192], answer[4096];
    int slow[SLOW], cut = 0, got = 0;
    size_t fed[SLOW] = { 0 };
    double end = log_seconds() + TAP_PATIENCE_S;
    for (int i = 0; i < SLOW; i++)
        slow[i] = knock(port);
    const int rounds = siege(50);
    while (log_seconds() < end && (cut < SLOW || *knocks < 5 * rounds)) {
        for (int k = 0; k < 5; k++) {
            int fd = knock(port);
            size_t n = kinds[k](&rng, bytes);
            if (fd < 0)
                continue;
            ++*knocks;
            send(fd, bytes, n, MSG_NOSIGNAL); /* may be refused already */
            /* Its greeting is all that anybody gets to see: 64 bytes, and in answer to NULL an error. */
            ssize_t m, all = 0;
            struct pollfd p = { .fd = fd, .events = POLLIN };
            while (poll(&p, 1, 20) > 0 && (m = recv(fd, answer, sizeof answer, MSG_DONTWAIT)) > 0)
                all += m;
            got += all > 200;
            close(fd);
        }
        /* Slow ones, a byte at a time. */
        for (int i = 0; i < SLOW; i++) {
            if (slow[i] < 0)
                continue;
            struct pollfd p = { .fd = slow[i], .events = POLLIN };
            ssize_t m = poll(&p, 1, 0) > 0 ? recv(slow[i], answer, sizeof answer, MSG_DONTWAIT) : 1;
            if (m <= 0 || (fed[i] < 60 && send(slow[i], curve_greeting + fed[i]++, 1, MSG_NOSIGNAL) < 0)) {
                close(slow[i]);
                slow[i] = -1;
                cut++;
            }
        }
        nap(10);
    }
    _exit(got ? 1 : cut < SLOW ? 2 : 0);
}

static long peak_kib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

int main(void)
{
    char dir[] = "/tmp/hssl-siege-XXXXXX", text[8192];
    Ticket t = { 0 };
    if (!mkdtemp(dir))
        return 1;
    setenv("XDG_RUNTIME_DIR", dir, 1);
    log_name("test");
    FILE *log = tmpfile();
    Producer p = { .socket = wire_socket(ZMQ_ROUTER) };
    if (!ok(log && !wire_bind(p.socket, "siege", "0", &t), "a port: %s", err_text()))
        return tap_done();

    int *knocks = mmap(NULL, sizeof *knocks, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = knocks == MAP_FAILED ? -1 : fork();
    if (!pid) {
        nap(200);
        besiege(atoi(strrchr(t.endpoint, ':') + 1), knocks);
    }
    fflush(stderr);
    dup2(fileno(log), STDERR_FILENO);

    pthread_t thread;
    void *c = wire_socket(ZMQ_DEALER);
    pthread_create(&thread, NULL, produce, &p);
    wire_connect(c, &t);
    Message m;
    message_init(&m, MSG_WANT);
    m.credit = CREDIT;
    wire_send(c, NULL, &m);
    uint64_t n = 0, wrong = 0;
    int status = 0;
    long before = 0;
    double longest = 0, last = log_seconds();
    zmq_pollitem_t items[2] = { { .socket = c, .events = ZMQ_POLLIN } };
    bool over = false;
    while (!(over = over || waitpid(pid, &status, WNOHANG) != 0) || n <= 500) {
        while (wire_recv(c, NULL, &m) == 1) {
            wrong += !whole(&m, n++);
            message_clear(&m);
            message_init(&m, MSG_WANT);
            m.credit = 1;
            wire_send(c, NULL, &m);
            if (n == 2 * CREDIT)
                before = peak_kib();
            double now = log_seconds();
            longest = now - last > longest ? now - last : longest;
            last = now;
        }
        wire_poll(items, 1, 20, false);
        nap(1); /* the strangers need the processor too */
    }
    long grown = peak_kib() - before;
    message_init(&m, MSG_BYE);
    wire_send(c, NULL, &m);
    pthread_join(thread, NULL);
    ok(n > 500 && !wrong, "the stream came through whole: %llu records, %llu wrong", (unsigned long long)n,
       (unsigned long long)wrong);
    diag("%llu messages, %d hostile connections", (unsigned long long)n, *knocks);
    diag("longest pause %.0f ms, peak memory +%ld KiB", 1e3 * longest, grown);
    is_int(p.foreign, 0, "no message of a stranger's got to the producer");
    ok(WIFEXITED(status) && WEXITSTATUS(status) != 1, "nor anything but a greeting to a stranger");
    ok(WIFEXITED(status) && WEXITSTATUS(status) != 2, "who dallies is cut off");
    ok(grown < 512 << 10, /* the sanitizers keep what is freed for a while */
       "memory did not grow with what they announced");
    ssize_t len = pread(fileno(log), text, sizeof text - 1, 0);
    text[len > 0 ? len : 0] = 0;
    ok(strstr(text, "refused a connection from 127.0.0.1:"), "they are named");
    is_int(strstr(text, "\n") ? strstr(text, "\n") + 1 - text : 0, len, "once");
    diag("%.*s", (int)strcspn(text, "\n"), text);
    wire_close(&c, 0);
    wire_close(&p.socket, 0);
    ok(!rmdir(dir), "nothing is left in the socket directory");
    return tap_done();
}
