/* Holders of the ticket that want a program's memory: each attack runs against a process of its own, whose
 * largest resident set is measured when it has ended, beside an honest consumer that must get every record. What
 * a process may set aside for its peers stands in hssl-stream(7). */
#include "../tap.h"
#include "../zmtp.h"

#include "stream/ends.h"
#include "stream/hub.h"
#include "stream/link.h"
#include "stream/sink.h"
#include "stream/source.h"
#include "stream/stage.h"
#include "stream/wire.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined __SANITIZE_ADDRESS__
#define SANITIZED 1 /* which keeps what is freed for a while */
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { RECORD = 512 << 10, RECORDS = 3000, FEW = 200, CROWD = 1500 };
static const uint64_t BUDGET = (uint64_t)1536 << 20; /* what an attacker tries to put into the process */
static const long MOST_KIB = (SANITIZED ? 900L : 256L) << 10;

static char dir[] = "/tmp/hssl-exhaust-XXXXXX";

static const char *const fates[] = { "cut off", "blocked", "took all", "not let in" };

static void say_hello(ZmtpPeer *p)
{
    Message m;
    message_init(&m, MSG_HELLO);
    m.credit = INT32_MAX;
    m.limit = UINT64_MAX;
    message_set_text(&m, "kinds", "records");
    message_set_text(&m, "program", "attacker");
    zmtp_say(p, &m);
}

static void say_want(ZmtpPeer *p, const char *medium)
{
    Message m;
    message_init(&m, MSG_WANT);
    m.credit = INT32_MAX;
    m.limit = UINT64_MAX;
    message_set_text(&m, "medium", medium);
    zmtp_say(p, &m);
}

/* ---------------------------------------------------------------- attacks */

static uint8_t large[1 << 20];

/* Everything, and not a byte of it is read. */
static ZmtpFate read_nothing(const char *endpoint)
{
    ZmtpPeer p;
    if (!zmtp_enter(&p, endpoint, "DEALER"))
        return p.fate;
    say_hello(&p);
    say_want(&p, "inline");
    struct pollfd f = { .fd = p.fd, .events = POLLIN };
    if (poll(&f, 1, 60000) < 1 || !(f.revents & POLLIN))
        return ZMTP_NOT_IN;
    f.events = 0;
    poll(&f, 1, -1); /* until it is cut off, or the test ends it */
    return ZMTP_CUT;
}

static ZmtpFate flood(const char *endpoint, size_t n, bool more)
{
    ZmtpPeer p;
    if (!zmtp_enter(&p, endpoint, "DEALER"))
        return p.fate;
    while (p.sent < BUDGET && zmtp_push_frame(&p, more, large, n)) {
    }
    return p.fate;
}

/* Empty ones, and so small that each costs more than it holds: many in one call. */
static ZmtpFate flood_small(const char *endpoint, size_t n, bool more)
{
    static uint8_t many[1 << 16];
    ZmtpPeer p;
    size_t at = 0;
    if (!zmtp_enter(&p, endpoint, "DEALER"))
        return p.fate;
    for (; at + 2 + n <= sizeof many; at += 2 + n) {
        many[at] = more;
        many[at + 1] = (uint8_t)n;
    }
    while (p.sent < BUDGET / 8 && zmtp_push(&p, many, at)) {
    }
    return p.fate;
}

static ZmtpFate frames_of_1m(const char *e) { return flood(e, sizeof large, true); }
static ZmtpFate frames_of_64k(const char *e) { return flood(e, 64 << 10, true); }
static ZmtpFate frames_of_36(const char *e) { return flood_small(e, 36, true); }
static ZmtpFate empty_frames(const char *e) { return flood_small(e, 0, true); }
static ZmtpFate messages_of_100k(const char *e) { return flood(e, 100 << 10, false); }
static ZmtpFate small_messages(const char *e) { return flood_small(e, 100, false); }

/* As many empty frames as one call brings, behind them the head of one as large as may be: it weighs more than a peer
 * may let wait, together with them. */
static ZmtpFate heads_behind_empty_frames(const char *endpoint)
{
    enum { CALL = 8192, HEAD = 9 };
    static uint8_t many[CALL];
    static const uint8_t head[HEAD] = { 3, 0, 0, 0, 0, 0, WIRE_CONTROL_BYTES >> 16, 0, 0 };
    ZmtpPeer p;
    if (!zmtp_enter(&p, endpoint, "DEALER"))
        return p.fate;
    for (size_t at = 0; at + 2 <= CALL - HEAD; at += 2)
        many[at] = 1;
    memcpy(many + CALL - HEAD - 1, head, HEAD);
    /* The body of a large frame is read by itself, so that what follows begins a call. */
    zmtp_push(&p, head, HEAD);
    while (p.sent < BUDGET && zmtp_push(&p, large, WIRE_CONTROL_BYTES) && zmtp_push(&p, many, CALL - 1)) {
    }
    return p.fate;
}

/* Who leaves messages behind that are not whole, and comes again. */
static ZmtpFate never_whole(const char *endpoint)
{
    for (int i = 0; i < 40; i++) {
        ZmtpPeer p;
        bool in = zmtp_enter(&p, endpoint, "DEALER");
        for (int k = 0; in && k < 7 && zmtp_push_frame(&p, true, large, 64 << 10); k++) {
        }
        close(p.fd);
        if (!in)
            return p.fate;
    }
    return ZMTP_SPENT;
}

/* Who is cut off comes again, until nobody opens: as long as what those left who went is not read. */
static ZmtpFate again_and_again(const char *endpoint)
{
    ZmtpPeer p = { .fate = ZMTP_NOT_IN };
    for (int i = 0; i < 300; i++) {
        bool in = zmtp_enter(&p, endpoint, "DEALER");
        for (int k = 0; in && k < 64 && zmtp_push_frame(&p, k % 2, large, 60 << 10); k++) {
        }
        close(p.fd);
        if (!in)
            return ZMTP_NOT_IN;
    }
    return p.fate;
}

/* Hello, hello: each is answered, and no answer is read. */
static ZmtpFate only_greet(const char *endpoint)
{
    ZmtpPeer p;
    if (!zmtp_enter(&p, endpoint, "DEALER"))
        return p.fate;
    while (p.sent < BUDGET && p.fate == ZMTP_SPENT)
        say_hello(&p);
    return p.fate;
}

static ZmtpFate subscribe(const char *endpoint)
{
    ZmtpPeer p;
    uint8_t topic[1000] = { 1 };
    if (!zmtp_enter(&p, endpoint, "SUB"))
        return p.fate;
    for (uint64_t i = 0; p.sent < BUDGET; i++) {
        memcpy(topic + 1, &i, sizeof i);
        if (!zmtp_push_frame(&p, false, topic, sizeof topic))
            break;
    }
    return p.fate;
}

static pid_t attack(ZmtpFate (*how)(const char *), const char *endpoint)
{
    fflush(stdout);
    pid_t pid = fork();
    if (!pid)
        _exit((int)how(endpoint));
    return pid;
}

static const char *ended(pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    int f = WIFEXITED(status) ? WEXITSTATUS(status) - ZMTP_CUT : -1;
    return f >= 0 && f < 4 ? fates[f] : "ended by the test";
}

/* ---------------------------------------------------------------- those who are attacked */

typedef struct {
    pid_t pid;
    int go;   /* a byte here: begin to look at what comes */
    int life; /* the ticket's pipe */
    Ticket ticket;
    int log;
} Victim;

static void make(Message *m, uint64_t seq)
{
    const int64_t n = RECORD;
    message_init(m, MSG_DATA);
    m->seq = m->id = seq;
    uint8_t *to = message_add(m, "image", MSG_U8, 1, &n);
    memset(to, (int)(seq * 31 + 7), RECORD);
    memcpy(to, &seq, sizeof seq);
}

static void wait_for(int go)
{
    char c;
    while (read(go, &c, 1) < 0 && errno == EINTR) {
    }
}

static void announce(const char *line, int out)
{
    if (write(out, line, strlen(line)) < 0)
        _exit(3);
}

static double idle;

static void produce(int out, int go)
{
    StreamOptions o = { .fan_out = 8, .idle = idle };
    Message m;
    uint64_t seq;
    Source *s = source_open("records", "producer", &o);
    if (!s || source_announce(s, out) < 0)
        _exit(3);
    wait_for(go);
    if (source_hello(s, &seq) != 1)
        _exit(4);
    message_init(&m, MSG_NONE);
    if (source_welcome(s, &m))
        _exit(5);
    while (!source_left(s)) {
        if (stream_wait(NULL, s, -1, -1) < 0)
            _exit(6);
        source_restarted(s, &seq);
        while (source_next(s, RECORDS, &seq)) {
            make(&m, seq);
            if (source_send(s, &m))
                _exit(7);
        }
    }
    source_close(&s);
    _exit(0);
}

/* Does not look at its workers at all until told to, as one that is busy. */
static void run_hub(int out, int go)
{
    Hub *h = hub_open(&(HubConfig){ .program = "hub", .medium = "auto", .results = 1,
                                    .result = { { "global", 4, { 2, 32, 32, 3 } } } });
    if (!h)
        _exit(3);
    announce(hub_ticket(h), out);
    wait_for(go);
    int rc = hub_look(h);
    hub_close(&h);
    _exit(rc ? 4 : 0);
}

static void run_publisher(int out, int go)
{
    Message m;
    Link *l = link_publish("targets");
    if (!l)
        _exit(3);
    announce(link_ticket(l), out);
    for (struct pollfd p = { .fd = go, .events = POLLIN }; poll(&p, 1, 20) == 0;) {
        message_init(&m, MSG_NOTE);
        message_set_text(&m, "op", "step");
        if (link_listeners(l) < 0 || link_send(l, &m))
            _exit(4);
    }
    link_close(&l);
    _exit(0);
}

/* As a teacher's, with a bound that a test can reach. */
static void run_link(int out, int go)
{
    char line[TICKET_MAX_LINE];
    Ticket t = { .kind = "teacher" };
    void *s = wire_socket(ZMQ_DEALER);
    WireBounds b = wire_bounds(ZMQ_DEALER);
    b.unread = b.unread_all = 8 << 20;
    if (!s || wire_bound(s, &b) || wire_bind(s, "teacher", NULL, &t) || ticket_format(&t, line, sizeof line) < 0)
        _exit(3);
    announce(line, out);
    wait_for(go);
    Message m;
    if (wire_recv(s, NULL, &m) == 1)
        message_clear(&m);
    wire_close(&s, 0);
    _exit(0);
}

static Victim begin(void (*run)(int, int), const char *name)
{
    Victim v = { .pid = -1 };
    char line[TICKET_MAX_LINE] = "", log[300];
    int out[2], go[2];
    snprintf(log, sizeof log, "%s/log", dir);
    FILE *f = fopen(log, "w+");
    if (!f || pipe(out) || pipe(go))
        return v;
    v.log = dup(fileno(f));
    fclose(f);
    fflush(stdout);
    if (!(v.pid = fork())) {
        dup2(v.log, STDERR_FILENO);
        close(out[0]);
        close(go[1]);
        run(out[1], go[0]);
    }
    close(out[1]);
    close(go[0]);
    v.life = out[0];
    v.go = go[1];
    ssize_t n = read(out[0], line, sizeof line - 1);
    ok(n > 0 && !ticket_parse(line, (size_t)n, &v.ticket), "%s: begins", name);
    return v;
}

static size_t log_of(const Victim *v, char *text, size_t size)
{
    ssize_t n = pread(v->log, text, size - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static void finish(Victim *v, long most, const char *name)
{
    struct rusage u = { 0 };
    char text[2000];
    int status = -1;
    close(v->go);
    close(v->life);
    wait4(v->pid, &status, 0, &u);
    log_of(v, text, sizeof text);
    close(v->log);
    ok(WIFEXITED(status) && !WEXITSTATUS(status), "%s: ends in order (%x)", name, (unsigned)status);
    ok(u.ru_maxrss < most, "%s: held %ld MiB, of at most %ld", name, u.ru_maxrss >> 10, most >> 10);
    if (*text)
        diag("%.*s", (int)strcspn(text, "\n"), text);
}

/* ---------------------------------------------------------------- the honest consumer */

typedef struct {
    Sink *sink;
    uint64_t next, wrong;
} Honest;

static Honest honest_open(const Victim *v)
{
    Honest h = { .sink = sink_open(&v->ticket, &(SinkConfig){ .program = "honest", .kinds = "records", .credit = 64,
                                                             .limit = UINT64_MAX, .life = -1 }) };
    return h;
}

static void honest_read(Honest *h, uint64_t upto)
{
    static uint8_t want[RECORD];
    Message m;
    while (h->next < upto && sink_next(h->sink, &m, -1) == 1) {
        const MsgTensor *t = message_tensor(&m, "image");
        memset(want, (int)(h->next * 31 + 7), RECORD);
        memcpy(want, &h->next, sizeof h->next);
        h->wrong += m.seq != h->next || !t || t->bytes != RECORD || memcmp(t->data, want, RECORD);
        h->next++;
        sink_ack(h->sink, m.seq);
        message_clear(&m);
    }
}

static void honest_close(Honest *h, uint64_t upto, const char *name)
{
    ok(h->next == upto && !h->wrong, "%s: the honest consumer got %llu records of %llu, %llu wrong (%s)", name,
       (unsigned long long)h->next, (unsigned long long)upto, (unsigned long long)h->wrong, err_text());
    sink_close(&h->sink);
}

/* ---------------------------------------------------------------- tests */

static void huge_credit(void)
{
    const char *name = "huge credit, nothing read";
    Victim v = begin(produce, name);
    pid_t a = attack(read_nothing, v.ticket.endpoint), b = attack(read_nothing, v.ticket.endpoint);
    if (write(v.go, "", 1) != 1)
        return;
    Honest h = honest_open(&v);
    honest_read(&h, RECORDS);
    honest_close(&h, RECORDS, name);
    kill(a, SIGKILL);
    kill(b, SIGKILL);
    is_str(ended(a), "ended by the test", "one that read nothing was there");
    is_str(ended(b), "ended by the test", "and another");
    finish(&v, MOST_KIB, name);
}

static void dropped(void)
{
    const char *name = "who reads nothing is dropped";
    char text[2000];
    idle = 0.5;
    Victim v = begin(produce, name);
    idle = 0;
    pid_t a = attack(read_nothing, v.ticket.endpoint);
    if (write(v.go, "", 1) != 1)
        return;
    is_str(ended(a), "cut off", "who reads nothing is cut off");
    Honest h = honest_open(&v);
    honest_read(&h, FEW);
    honest_close(&h, FEW, name);
    log_of(&v, text, sizeof text);
    const char *word = strstr(text, "has read nothing");
    ok(word && !strstr(word + 1, "has read nothing"), "with a word, once: %s", text);
    finish(&v, MOST_KIB, name);
}

/* While the producer does not look; then the honest one comes. */
static void besiege(void (*run)(int, int), ZmtpFate (*how)(const char *), const char *name)
{
    Victim v = begin(run, name);
    pid_t a = attack(how, v.ticket.endpoint), b = attack(how, v.ticket.endpoint);
    const char *first = ended(a), *second = ended(b);
    diag("attackers: %s, %s", first, second);
    ok(strcmp(first, "took all") && strcmp(second, "took all"), "%s: not all of it was taken (%s, %s)", name, first,
       second);
    ok(how == again_and_again || strcmp(first, "not let in") || strcmp(second, "not let in"), "%s: one was let in",
       name);
    if (write(v.go, "", 1) != 1)
        return;
    if (run == produce) {
        Honest h = honest_open(&v);
        honest_read(&h, FEW);
        honest_close(&h, FEW, name);
    }
    finish(&v, MOST_KIB, name);
}

/* While a producer waits for somebody to come: nothing else wakes it. */
static void leave_halves(void)
{
    const char *name = "messages that never become whole";
    Victim v = begin(produce, name);
    if (write(v.go, "", 1) != 1)
        return;
    ended(attack(never_whole, v.ticket.endpoint));
    Honest h = honest_open(&v);
    honest_read(&h, FEW);
    honest_close(&h, FEW, name);
    finish(&v, MOST_KIB, name);
}

/* While it does. */
static void greet_on(void)
{
    const char *name = "hellos without end";
    Victim v = begin(produce, name);
    if (write(v.go, "", 1) != 1)
        return;
    pid_t a = attack(only_greet, v.ticket.endpoint);
    Honest h = honest_open(&v);
    honest_read(&h, FEW);
    honest_close(&h, FEW, name);
    diag("attacker: %s", ended(a));
    finish(&v, MOST_KIB, name);
}

/* Many who say nothing: half of them not even who they are. Returns them all, to be closed. */
static int gather(const char *endpoint, int *fd, int most)
{
    int n = 0;
    for (ZmtpPeer p; n < most; n++)
        if (n % 2)
            fd[n] = zmtp_knock(endpoint);
        else if (!zmtp_enter(&p, endpoint, "DEALER") && p.fd >= 0)
            fd[n] = -1, close(p.fd);
        else
            fd[n] = p.fd;
    return n;
}

static int descriptors(pid_t pid)
{
    char path[64];
    struct stat st;
    int n = 0;
    for (int i = 0; i < 4096; i++) {
        snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)pid, i);
        n += !lstat(path, &st);
    }
    return n;
}

static void crowd(int most, rlim_t limit, const char *name)
{
    static int fd[2][CROWD];
    struct rlimit before, few;
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    if (limit) {
        few.rlim_cur = few.rlim_max = limit;
        fflush(stdout);
    }
    /* The producer alone has few: its parent gives it its own limit by way of prlimit(). */
    Victim v = begin(produce, name);
    if (limit)
        prlimit(v.pid, RLIMIT_NOFILE, &few, NULL);
    few = before;
    few.rlim_cur = before.rlim_max;
    setrlimit(RLIMIT_NOFILE, &few);
    if (write(v.go, "", 1) != 1)
        return;
    int n = gather(v.ticket.endpoint, fd[0], most);
    Honest h = honest_open(&v);
    honest_read(&h, FEW / 2);
    n += gather(v.ticket.endpoint, fd[1], most);
    int open = descriptors(v.pid);
    honest_read(&h, FEW);
    honest_close(&h, FEW, name);
    ok(open > 0 && open < 400, "%s: %d came, the producer has %d descriptors", name, n, open);
    for (int i = 0; i < most; i++)
        for (int k = 0; k < 2; k++)
            if (fd[k][i] >= 0)
                close(fd[k][i]);
    setrlimit(RLIMIT_NOFILE, &before);
    finish(&v, MOST_KIB, name);
}

static void watchers(void)
{
    const char *name = "subscriptions without end";
    Victim v = begin(run_publisher, name);
    pid_t a = attack(subscribe, v.ticket.endpoint);
    is_str(ended(a), "cut off", "who subscribes without end is cut off");
    int idle_ones[20];
    for (int i = 0; i < 20; i++)
        idle_ones[i] = zmtp_knock(v.ticket.endpoint);
    Link *l = link_subscribe(&v.ticket);
    Message m;
    ok(l && link_recv(l, &m, 60000) == 1, "who wants to watch can: %s", err_text());
    message_clear(&m);
    link_close(&l);
    for (int i = 0; i < 20; i++)
        if (idle_ones[i] >= 0)
            close(idle_ones[i]);
    finish(&v, MOST_KIB, name);
}

/* What is half on its way when both ends close is lost in ZeroMQ, now and then also to free(). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libzmq";
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    setenv("XDG_RUNTIME_DIR", dir, 1);
    log_name("test");
    signal(SIGPIPE, SIG_IGN);
    huge_credit();
    dropped();
    besiege(produce, frames_of_1m, "frames of 1 MiB");
    besiege(produce, frames_of_64k, "frames of 64 KiB of one message");
    besiege(produce, frames_of_36, "frames of 36 bytes of one message");
    besiege(produce, empty_frames, "empty frames of one message");
    besiege(produce, heads_behind_empty_frames, "heads of large frames behind empty ones");
    besiege(produce, messages_of_100k, "messages of 100 KiB");
    besiege(produce, small_messages, "small messages");
    besiege(produce, again_and_again, "who is cut off comes again");
    leave_halves();
    greet_on();
    crowd(CROWD, 0, "a silent crowd");
    crowd(100, 64, "a crowd where descriptors are few");
    besiege(run_hub, frames_of_64k, "frames to a hub");
    besiege(run_hub, empty_frames, "empty frames to a hub");
    besiege(run_hub, messages_of_100k, "messages to a hub");
    besiege(run_link, frames_of_1m, "frames to a link");
    watchers();
    char path[300];
    snprintf(path, sizeof path, "%s/log", dir);
    unlink(path);
    ok(!rmdir(dir), "nothing is left in the socket directory");
    return tap_done();
}
