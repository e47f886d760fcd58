/* What it costs to bring a rendered record from one process to another, for the sizes in use, medium by
 * medium.
 *
 *     build/bench/hops [SECONDS [MEDIUM [VIEWS]]]       hops 2 shm 2x224+10x96
 *
 * A producer (a process of its own) has its pixels in memory, as a renderer has; the consumer ends up with
 * them in a batch of its own, as the trainer does. Messages, packs, credit and acknowledgements are those of
 * hssl-stream(7). The floor is one memcpy from memory to memory, by the same process, in the same minute: no
 * hop can be faster than the copy into the batch. */
#include "stream/shm.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 64 << 20, IN_FLIGHT = 32 << 20, MAX_WINDOW = 512, MAX_PIECE = 1536 << 10 };

typedef enum { IPC, TCP, CURVE, SHM, PIPE, MEDIA } Medium;
static const char *const names[MEDIA] = { "ZeroMQ inline, ipc", "ZeroMQ inline, tcp",
                                          "ZeroMQ inline, tcp + CURVE", "shared memory", "pipe" };
static const char *const keys[MEDIA] = { "ipc", "tcp", "curve", "shm", "pipe" };

static const struct {
    const char *what;
    int globals, side, locals, local_side;
} shapes[] = {
    { "2x32", 2, 32, 0, 0 },
    { "2x64", 2, 64, 0, 0 },
    { "2x224+10x96", 2, 224, 10, 96 },
    { "10x224", 10, 224, 0, 0 },
};

typedef struct {
    int64_t shape[2][4];
    size_t bytes[2], record; /* globals, locals, both */
    int tensors, window;
} Layout;

static double seconds = 0.5, floor_rate;
static uint8_t *batch;

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static Layout layout_of(int i)
{
    Layout l = { .tensors = 1 + (shapes[i].locals > 0) };
    const int64_t g = shapes[i].side, s = shapes[i].local_side;
    memcpy(l.shape[0], (int64_t[]){ shapes[i].globals, g, g, 3 }, sizeof l.shape[0]);
    memcpy(l.shape[1], (int64_t[]){ shapes[i].locals, s, s, 3 }, sizeof l.shape[1]);
    l.bytes[0] = (size_t)(shapes[i].globals * g * g * 3);
    l.bytes[1] = (size_t)(shapes[i].locals * s * s * 3);
    l.record = l.bytes[0] + l.bytes[1];
    l.window = (int)(IN_FLIGHT / l.record);
    l.window = l.window > MAX_WINDOW ? MAX_WINDOW : l.window;
    return l;
}

/* ---------------------------------------------------------------- the producer */

static void begin_record(Message *m, uint64_t seq)
{
    double plan[12 * 20];
    for (int i = 0; i < 12 * 20; i++)
        plan[i] = i % 20 < 4 ? i : 0.25 * (i % 20);
    message_init(m, MSG_DATA);
    m->seq = m->id = seq;
    m->label = 7;
    m->width = m->height = 500;
    if (message_set_name(m, "train/n01440764/n01440764_10026.JPEG") || message_set_plan(m, 2, 20, plan))
        die();
}

/* Read what the consumer says. False: it leaves; what it cost this process since the first call is in *cost.
 */
static bool listen_to(void *socket, const Layout *l, WireId *peer, uint64_t *credit, uint64_t sent,
                      double *cost)
{
    static double began;
    static uint64_t skipped;
    Message m;
    if (!began && sent >= 2 * (uint64_t)l->window) {
        began = cpu_seconds();
        skipped = sent;
    }
    while (wire_recv(socket, peer, &m) == 1) {
        bool leaves = m.type == MSG_BYE;
        *credit += m.credit;
        message_clear(&m);
        if (leaves) {
            *cost = sent > skipped && began ? (cpu_seconds() - began) / (double)(sent - skipped) : 0;
            return false;
        }
    }
    return true;
}

/* A ring of records that were rendered before; sending one shares its pixels. */
static double produce_inline(void *socket, const Layout *l)
{
    Message *ring = calloc((size_t)l->window, sizeof *ring), m;
    WireId peer;
    uint64_t credit = 0;
    double cost = 0;
    for (int i = 0; i < l->window; i++) {
        begin_record(&ring[i], (uint64_t)i);
        for (int t = 0; t < l->tensors; t++)
            memset(message_add(&ring[i], t ? "local" : "global", MSG_U8, 4, l->shape[t]), i, l->bytes[t]);
    }
    zmq_pollitem_t items[2] = { { .socket = socket, .events = ZMQ_POLLIN } };
    for (uint64_t seq = 0; listen_to(socket, l, &peer, &credit, seq, &cost);) {
        for (; credit; credit--, seq++)
            if (message_copy(&m, &ring[seq % (uint64_t)l->window]) || wire_send(socket, &peer, &m) < 0)
                die();
        wire_poll(items, 1, 1000, false);
    }
    return cost;
}

/* Slots of an arena: a record is rendered into the next free one. The pixels stay as they are but for a byte
 * of each cache line, which leaves the lines where a renderer leaves them. */
static double produce_shared(void *socket, const Layout *l)
{
    ShmBlock *arena = shm_create(l->record * (size_t)l->window);
    WireId peer;
    Message m;
    uint64_t credit = 0;
    double cost = 0;
    if (!arena)
        die();
    memset(arena->mem, 1, arena->size);
    zmq_pollitem_t items[2] = { { .socket = socket, .events = ZMQ_POLLIN } };
    for (uint64_t seq = 0; listen_to(socket, l, &peer, &credit, seq, &cost);) {
        for (; credit; credit--, seq++) {
            size_t at = seq % (uint64_t)l->window * l->record;
            for (size_t i = 0; i < l->record; i += 64)
                ((uint8_t *)arena->mem)[at + i]++;
            begin_record(&m, seq);
            for (int t = 0; t < l->tensors; t++, at += l->bytes[0])
                if (message_add_shared(&m, t ? "local" : "global", MSG_U8, 4, l->shape[t], arena, at))
                    die();
            if (wire_send(socket, &peer, &m) < 0)
                die();
        }
        wire_poll(items, 1, 1000, false);
    }
    return cost;
}

static void produce_pipe(int fd, const Layout *l)
{
    uint8_t *pixels = malloc(IN_FLIGHT + MAX_PIECE);
    memset(pixels, 1, IN_FLIGHT + MAX_PIECE);
    for (size_t at = 0;; at = (at + l->record) % IN_FLIGHT)
        for (size_t done = 0; done < l->record;) {
            ssize_t n = write(fd, pixels + at + done, l->record - done);
            if (n <= 0)
                return;
            done += (size_t)n;
        }
}

static void *listen_on(Medium medium, Ticket *t)
{
    void *s = wire_socket(ZMQ_ROUTER);
    size_t size = sizeof t->endpoint;
    snprintf(t->kind, sizeof t->kind, "views");
    if (!s || (medium != TCP && wire_bind(s, "hops", medium == CURVE ? "0" : NULL, t)))
        die();
    /* What tcp would cost unencrypted, for comparison: no program of ours does that. */
    if (medium == TCP &&
        (zmq_bind(s, "tcp://127.0.0.1:*") || zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, t->endpoint, &size)))
        die_with("tcp: %s", zmq_strerror(zmq_errno()));
    return s;
}

static void producer(Medium medium, const Layout *l, int ticket_fd)
{
    char line[TICKET_MAX_LINE];
    Ticket t = { 0 };
    void *s = listen_on(medium, &t);
    int n = ticket_format(&t, line, sizeof line);
    if (n < 0 || write(ticket_fd, line, (size_t)n) != n)
        die();
    double cost = medium == SHM ? produce_shared(s, l) : produce_inline(s, l);
    if (write(ticket_fd, &cost, sizeof cost) != sizeof cost)
        die_with("hops: pipe");
    wire_close(&s, 0);
}

/* ---------------------------------------------------------------- the consumer */

typedef struct {
    double each;          /* seconds a record */
    double cpu, producer; /* processor time a record, consumer and producer, all threads */
    uint64_t records, part;
    double began, part_began;
} Result;

/* Count a record that has arrived. The fastest tenth of the time counts, as the floor is the fastest of many
 * copies: other work on the machine disturbs the rest. False: time is up. */
static bool tick(Result *r)
{
    enum { PARTS = 10 };
    double now = log_seconds();
    if (!r->began) {
        r->began = r->part_began = now;
        r->cpu = -cpu_seconds();
        return true;
    }
    r->records++;
    r->part++;
    if (now - r->part_began >= seconds / PARTS) {
        double each = (now - r->part_began) / (double)r->part;
        r->each = r->each == 0 || each < r->each ? each : r->each;
        r->part_began = now;
        r->part = 0;
    }
    if (now - r->began <= seconds || r->each == 0)
        return true;
    r->cpu = (r->cpu + cpu_seconds()) / (double)r->records;
    return false;
}

static void want(void *socket, uint64_t credit)
{
    Message m;
    message_init(&m, MSG_WANT);
    m.credit = credit;
    if (wire_send(socket, NULL, &m) < 0)
        die();
}

static void take(const Message *m, const Layout *l, ShmBlock **arena, size_t *at)
{
    if (*at + l->record > BATCH)
        *at = 0;
    for (int i = 0; i < m->tensors; i++) {
        const MsgTensor *t = &m->tensor[i];
        const uint8_t *from = t->data;
        if (t->medium == MSG_SHARED) {
            if (!*arena && !(*arena = shm_attach(t->shared.pid, t->shared.fd, t->shared.size, false)))
                die();
            from = (const uint8_t *)(*arena)->mem + t->shared.offset;
        }
        memcpy(batch + *at, from, t->bytes);
        *at += t->bytes;
    }
}

static Result consume(int fd, const Layout *l)
{
    Ticket t;
    Message m;
    ShmBlock *arena = NULL;
    Result r = { 0 };
    size_t at = 0;
    uint64_t owed = 0, batch_of = l->window / 8 ? (uint64_t)l->window / 8 : 1;
    void *s = wire_socket(ZMQ_DEALER);
    zmq_pollitem_t items[2] = { { .socket = s, .events = ZMQ_POLLIN } };
    if (ticket_read(fd, "views", &t))
        die();
    bool keyless = !strncmp(t.endpoint, "tcp:", 4) && !ticket_get(&t, "key");
    if (keyless ? zmq_connect(s, t.endpoint) : wire_connect(s, &t))
        die();
    want(s, (uint64_t)l->window);
    for (uint64_t warm = 0;;) {
        int rc = wire_recv(s, NULL, &m);
        if (rc < 0 || (!rc && wire_poll(items, 1, 10000, false) < 1))
            die_with("hops: the producer is silent: %s", err_text());
        if (!rc)
            continue;
        take(&m, l, &arena, &at);
        message_clear(&m);
        if (++owed == batch_of) {
            want(s, owed);
            owed = 0;
        }
        /* The first turn of the batch and of the ring pays for fresh pages. */
        if (++warm * l->record < 2 * (size_t)BATCH && warm < 20000)
            continue;
        if (!tick(&r))
            break;
    }
    message_init(&m, MSG_BYE);
    wire_send(s, NULL, &m);
    wire_close(&s, 1000);
    shm_free(&arena);
    if (read(fd, &r.producer, sizeof r.producer) != sizeof r.producer)
        die_with("hops: pipe");
    return r;
}

static Result consume_pipe(int fd, const Layout *l)
{
    Result r = { 0 };
    for (size_t at = 0, warm = 0;; at = at + 2 * l->record > BATCH ? 0 : at + l->record) {
        for (size_t done = 0; done < l->record;) {
            ssize_t n = read(fd, batch + at + done, l->record - done);
            if (n <= 0)
                die_with("hops: pipe");
            done += (size_t)n;
        }
        if ((warm += l->record) < BATCH)
            continue;
        if (!tick(&r))
            break;
    }
    return r;
}

/* The best of many short copies: what the machine can do when nothing else disturbs it. */
static double copy_rate(void)
{
    enum { CHUNK = 8 << 20, TURNS = 40 };
    uint8_t *from = malloc(BATCH);
    double best = 0;
    memset(from, 3, BATCH);
    for (size_t i = 0, at = 0; i < TURNS; i++, at = (at + CHUNK) % BATCH) {
        double start = log_seconds();
        memcpy(batch + at, from + at, CHUNK);
        double rate = CHUNK / (log_seconds() - start);
        best = rate > best ? rate : best;
    }
    free(from);
    return best;
}

static void hop(Medium medium, int shape)
{
    Layout l = layout_of(shape);
    int fds[2];
    fflush(stdout);
    if (pipe(fds))
        die_with("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die_with("fork");
    if (!pid) {
        close(fds[0]);
        if (medium == PIPE)
            produce_pipe(fds[1], &l);
        else
            producer(medium, &l, fds[1]);
        _exit(0);
    }
    close(fds[1]);
    Result r = medium == PIPE ? consume_pipe(fds[0], &l) : consume(fds[0], &l);
    close(fds[0]);
    waitpid(pid, NULL, 0);
    double each = r.each, rate = (double)l.record / each;
    printf("%-12s %-27s %9.2f %7.2f %10.0f %9.2f %9.2f %8.2f\n", shapes[shape].what, names[medium],
           each * 1e6, rate / 1e9, 1 / each, r.producer * 1e6, r.cpu * 1e6, floor_rate / rate);
    printf(
        "{\"bench\":\"hop\",\"medium\":\"%s\",\"views\":\"%s\",\"bytes\":%zu,\"us\":%.3f,\"GB_per_s\":%.3f,"
        "\"records_per_s\":%.0f,\"producer_cpu_us\":%.3f,\"consumer_cpu_us\":%.3f,\"floor_GB_per_s\":%.3f}\n",
        keys[medium], shapes[shape].what, l.record, each * 1e6, rate / 1e9, 1 / each, r.producer * 1e6,
        r.cpu * 1e6, floor_rate / 1e9);
}

int main(int argc, char **argv)
{
    log_name("hops");
    if (argc > 1)
        seconds = atof(argv[1]);
    batch = malloc(BATCH);
    if (!batch || !(seconds > 0))
        die_with("usage: hops [SECONDS [MEDIUM [VIEWS]]]");
    memset(batch, 0, BATCH);
    floor_rate = copy_rate();
    printf("floor: memcpy %.2f GB/s\n", floor_rate / 1e9);
    printf("%-12s %-27s %9s %7s %10s %9s %9s %8s\n", "views", "medium", "us", "GB/s", "records/s", "cpu out",
           "cpu in", "x floor");
    for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; shape++)
        for (Medium medium = 0; medium < MEDIA; medium++)
            if ((argc < 3 || !strcmp(argv[2], keys[medium])) &&
                (argc < 4 || !strcmp(argv[3], shapes[shape].what)))
                hop(medium, (int)shape);
    return 0;
}
