/* The hub against workers that die, dawdle, repeat themselves and lie: here they speak the protocol by hand. Then
 * against real children, which are this program again. */
#include "../tap.h"

#include "stream/ends.h"
#include "stream/hub.h"
#include "stream/shm.h"
#include "stream/wire.h"
#include "stream/worker.h"
#include "util/err.h"
#include "util/log.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 64, MANY = 200, CURSED = 7, ITEMS = 8 };
static const HubResult result = { "v", 1, { SIZE } };
static const double LATE = 0.15;

static Hub *hopeless; /* its children end at once: it is looked at beside all else */
static bool gave_up;

typedef struct {
    void *socket;
    Message welcome;
    ShmBlock *desk;
} Fake;

static void turn(Hub *h)
{
    zmq_pollitem_t items[ITEMS + 1];
    int n = hub_items(h, items), patience = hub_patience(h);
    wire_poll(items, n, patience < 0 || patience > 5 ? 5 : patience, false);
    if (hub_look(h))
        diag("hub_look: %s", err_text());
    if (hopeless && !gave_up) {
        hub_patience(hopeless);
        gave_up = hub_look(hopeless) < 0;
    }
}

/* For what should not come. What should is waited for: PUMP_UNTIL. */
static void pump(Hub *h, double seconds)
{
    double until = log_seconds() + seconds;
    do
        turn(h);
    while (log_seconds() < until);
}

#define PUMP_UNTIL(h, condition) \
    for (double until_ = log_seconds() + TAP_PATIENCE_S; !(condition) && log_seconds() < until_;) \
    turn(h)

static void say(Fake *f, Message *m)
{
    wire_send(f->socket, NULL, m);
    wire_flush(f->socket);
}

/* The next message of this type; others are dropped. */
static bool hear(Hub *h, Fake *f, MsgType type, Message *m, double seconds)
{
    double until = log_seconds() + seconds;
    do {
        while (wire_recv(f->socket, NULL, m) == 1) {
            if (m->type == type)
                return true;
            message_clear(m);
        }
        turn(h);
    } while (log_seconds() < until);
    return false;
}

static void hello(Fake *f, int64_t pid)
{
    Message m;
    message_init(&m, MSG_HELLO);
    message_set_text(&m, "role", "worker");
    message_set_int(&m, "pid", pid);
    say(f, &m);
}

static void want(Fake *f, const char *medium, uint64_t credit)
{
    Message m;
    message_init(&m, MSG_WANT);
    m.credit = credit;
    if (medium)
        message_set_text(&m, "medium", medium);
    say(f, &m);
}

static Fake joins(Hub *h, int64_t pid, const char *medium, uint64_t credit)
{
    Fake f = { .socket = wire_socket(ZMQ_DEALER) };
    Ticket t;
    ticket_parse(hub_ticket(h), strlen(hub_ticket(h)), &t);
    wire_connect(f.socket, &t);
    hello(&f, pid);
    if (!hear(h, &f, MSG_WELCOME, &f.welcome, TAP_PATIENCE_S)) {
        diag("no welcome");
        return f;
    }
    want(&f, medium, credit);
    pump(h, 0.05);
    return f;
}

static void leaves(Fake *f)
{
    shm_free(&f->desk);
    message_clear(&f->welcome);
    wire_close(&f->socket, 0);
}

static uint8_t pixel(uint64_t seq)
{
    return (uint8_t)(3 * seq + 1);
}

/* fill: of the answer; its size may be wrong. */
static void answer(Fake *f, uint64_t seq, int64_t size, int64_t slot)
{
    Message m;
    message_init(&m, MSG_DATA);
    m.seq = seq;
    if (size)
        memset(message_add(&m, "v", MSG_U8, 1, &size), pixel(seq), (size_t)size);
    if (slot != INT64_MIN)
        message_set_int(&m, "slot", slot);
    say(f, &m);
}

static void put(Hub *h, uint64_t seq)
{
    Message m;
    const int64_t n = 16;
    message_init(&m, MSG_DATA);
    m.seq = m.id = seq;
    memset(message_add(&m, "image", MSG_U8, 1, &n), 1, 16);
    if (hub_put(h, &m))
        diag("hub_put: %s", err_text());
}

/* Results that are there; each is acknowledged. Says in *wrong how many were not what they should be. */
static int take(Hub *h, int *wrong)
{
    Message m;
    int n = 0;
    for (; hub_take(h, &m); n++) {
        const MsgTensor *t = message_tensor(&m, "v");
        *wrong += !t || !t->data || t->bytes != SIZE || ((uint8_t *)t->data)[SIZE - 1] != pixel(m.seq) || m.id != m.seq;
        uint64_t seq = m.seq;
        message_clear(&m);
        hub_acked(h, seq);
    }
    return n;
}

/* So many of them, in time, and no more a moment later. */
static int takes(Hub *h, int want, int *wrong)
{
    int n = 0;
    PUMP_UNTIL(h, (n += take(h, wrong)) >= want);
    pump(h, 0.02);
    return n + take(h, wrong);
}

static Hub *open_patient_hub(int64_t memory, double late, double silent)
{
    Message facts;
    Hub *h = hub_open(&(HubConfig){ .program = "test", .medium = "auto", .memory = memory, .late = late, .silent = silent,
                                    .results = 1, .result = { result } });
    message_init(&facts, MSG_WELCOME);
    if (!h || hub_welcome(h, &facts)) {
        diag("%s", err_text());
        exit(1);
    }
    return h;
}

static Hub *open_hub(int64_t memory)
{
    return open_patient_hub(memory, LATE, 0.8);
}

static pid_t stand_in(void)
{
    pid_t p = fork();
    if (!p)
        for (;;)
            pause();
    return p;
}

static void end(pid_t p)
{
    kill(p, SIGKILL);
    waitpid(p, NULL, 0);
}

static void deaths_and_latecomers(void)
{
    Hub *h = open_hub(0);
    Message m;
    int wrong = 0;
    put(h, 0);
    pid_t p = stand_in();
    Fake a = joins(h, p, "inline", 8);
    ok(hear(h, &a, MSG_DATA, &m, TAP_PATIENCE_S) && m.seq == 0, "who joins late gets what waited");
    message_clear(&m);
    end(p);
    PUMP_UNTIL(h, hub_counts(h).lost);
    is_int(hub_counts(h).lost, 1, "a worker that died is lost");
    Fake b = joins(h, 0, "inline", 8);
    ok(hear(h, &b, MSG_DATA, &m, TAP_PATIENCE_S) && m.seq == 0, "and what it had is another's at once");
    message_clear(&m);
    answer(&b, 0, SIZE, INT64_MIN);
    ok(takes(h, 1, &wrong) == 1 && !wrong && hub_idle(h), "whose answer counts");
    ok(!hub_acked(h, 0) && !hub_acked(h, 12345), "what nobody has cannot be acknowledged");
    leaves(&a);
    leaves(&b);
    hub_close(&h);
}

static void late_and_twice(void)
{
    Hub *h = open_hub(0);
    Message m;
    int wrong = 0;
    Fake a = joins(h, 0, "inline", 8), b;
    put(h, 5);
    ok(hear(h, &a, MSG_DATA, &m, TAP_PATIENCE_S), "a record");
    message_clear(&m);
    b = joins(h, 0, "inline", 8);
    double began = log_seconds();
    ok(hear(h, &b, MSG_DATA, &m, TAP_PATIENCE_S) && m.seq == 5, "that is not answered goes to another");
    diag("after %.0f ms", 1e3 * (log_seconds() - began));
    message_clear(&m);
    answer(&b, 5, SIZE, INT64_MIN);
    answer(&b, 5, SIZE, INT64_MIN);
    is_int(takes(h, 1, &wrong), 1, "the first answer counts");
    answer(&a, 5, SIZE, INT64_MIN);
    PUMP_UNTIL(h, hub_counts(h).duplicates == 2);
    ok(!take(h, &wrong) && !wrong && hub_counts(h).duplicates == 2, "the second, and the late one, do not");

    /* Silence: it gets nothing; its word still counts. */
    put(h, 6);
    pump(h, 0.05);
    pump(h, 1.2);
    put(h, 7);
    pump(h, 0.05);
    ok(!hear(h, &b, MSG_DATA, &m, 0.02) || m.seq != 7, "who says nothing for long gets nothing");
    message_clear(&m);
    answer(&a, 6, SIZE, INT64_MIN);
    ok(hear(h, &a, MSG_DATA, &m, TAP_PATIENCE_S), "until it is heard of");
    message_clear(&m);
    answer(&a, 7, SIZE, INT64_MIN);
    is_int(takes(h, 2, &wrong), 2, "and nothing is lost by it");
    leaves(&a);
    leaves(&b);
    hub_close(&h);
}

static void hanging(void)
{
    enum { N = 16 };
    Hub *h = open_hub(0);
    Message m;
    int wrong = 0, taken = 0;
    Fake a = joins(h, 0, "inline", 100), b = joins(h, 0, "inline", 100);
    for (uint64_t i = 0; i < N; i++)
        put(h, i);
    Fake c = joins(h, 0, "inline", N / 2);
    double began = log_seconds();
    while (taken < N && log_seconds() - began < TAP_PATIENCE_S) {
        if (hear(h, &c, MSG_DATA, &m, 0.01)) {
            answer(&c, m.seq, SIZE, INT64_MIN);
            message_clear(&m);
        }
        taken += take(h, &wrong);
    }
    is_int(taken - wrong, N, "two workers hang: all is there");
    is_int(hub_counts(h).again, N, "and nothing went from one that hangs to the other");
    leaves(&a);
    leaves(&b);
    leaves(&c);
    hub_close(&h);
}

static void liars(void)
{
    Hub *h = open_hub(0);
    Message m;
    int wrong = 0;
    Fake a = joins(h, -7, "inline", 1000000), b = joins(h, INT64_MAX, "neither", 2), c;
    hello(&a, 3);
    zmq_send(a.socket, "rubbish", 7, 0);
    zmq_send(a.socket, "\xc1pk\1\xff\xff\xff\xff\xff\xff\xff\xff", 12, 0);
    for (uint64_t seq = 1000; seq < 1300; seq++)
        answer(&b, seq, SIZE, INT64_MIN); /* nobody asked: no credit for it */
    want(&b, "inline", 2);
    pump(h, 0.1);
    is_int(hub_counts(h).workers, 2, "rubbish, a second hello and answers to nothing disturb nobody");
    for (uint64_t seq = 0; seq < 40; seq++)
        put(h, seq);
    int n = 0;
    while (n < 2 && hear(h, &b, MSG_DATA, &m, TAP_PATIENCE_S))
        message_clear(&m), n++;
    pump(h, 0.05);
    while (wire_recv(b.socket, NULL, &m) == 1)
        message_clear(&m), n++;
    is_int(n, 2, "and give no credit");
    answer(&a, 0, SIZE, -5);
    answer(&a, 1, SIZE, INT64_MAX);
    ok(takes(h, 2, &wrong) == 2 && !wrong, "a slot that there is not is not looked at");
    answer(&a, 2, SIZE - 1, INT64_MIN);
    pump(h, 0.05);
    answer(&b, 3, 0, 0);
    PUMP_UNTIL(h, hub_counts(h).lost == 2);
    ok(!take(h, &wrong) && hub_counts(h).workers == 0 && hub_counts(h).lost == 2, "an answer of another shape, or none, ends it");
    want(&a, NULL, 0);
    ok(hear(h, &a, MSG_FAIL, &m, TAP_PATIENCE_S), "which it is told, and may say hello again");
    message_clear(&m);
    c = joins(h, 0, "inline", 256);
    n = 0;
    while (n < 38 && hear(h, &c, MSG_DATA, &m, TAP_PATIENCE_S)) {
        answer(&c, m.seq, SIZE, INT64_MIN);
        message_clear(&m);
        n++;
        take(h, &wrong);
    }
    PUMP_UNTIL(h, (take(h, &wrong), hub_idle(h)));
    ok(n == 38 && !wrong && hub_idle(h), "another does the rest (%d)", n);
    leaves(&a);
    leaves(&b);
    leaves(&c);
    hub_close(&h);
}

/* Map the desk and write an answer into the slot of the record that comes next. */
static int64_t render(Hub *h, Fake *f, uint64_t *seq)
{
    Message m;
    if (!f->desk)
        f->desk = shm_attach(message_int(&f->welcome, "desk_pid", 0), message_int(&f->welcome, "desk_fd", -1),
                             (uint64_t)message_int(&f->welcome, "desk_size", 0), true);
    if (!f->desk || !hear(h, f, MSG_DATA, &m, TAP_PATIENCE_S))
        return -1;
    int64_t slot = message_int(&m, "slot", -1);
    *seq = m.seq;
    message_clear(&m);
    if (slot >= 0)
        memset((uint8_t *)f->desk->mem + slot * message_int(&f->welcome, "slot_bytes", 0), pixel(*seq), SIZE);
    return slot;
}

static void desks(void)
{
    Hub *h = open_hub(0);
    Message m;
    uint64_t seq = 99;
    int wrong = 0;
    pid_t p = stand_in(), q = stand_in();
    Fake a = joins(h, p, "shm", 8), b, c;
    put(h, 1);
    int64_t slot = render(h, &a, &seq);
    ok(slot >= 0 && seq == 1, "a record comes with a slot of shared memory");
    answer(&a, 1, 0, slot);
    ok(takes(h, 1, &wrong) == 1 && !wrong, "and is found there");
    put(h, 2);
    slot = render(h, &a, &seq);
    hub_restart(h);
    ok(hub_idle(h), "the stream begins anew");
    put(h, 3);
    int64_t other = render(h, &a, &seq);
    ok(other >= 0 && other != slot && seq == 3, "a slot that may still be written to is not lent again");
    answer(&a, 2, 0, slot);
    answer(&a, 3, 0, other);
    ok(takes(h, 1, &wrong) == 1 && !wrong, "an answer of before is nobody's");

    answer(&a, 77, 1, INT64_MIN);
    put(h, 4);
    pump(h, 0.05);
    answer(&a, 4, 1, INT64_MIN);
    PUMP_UNTIL(h, hub_counts(h).lost);
    is_int(hub_counts(h).lost, 1, "it lies, and is lost, but its process lives");
    b = joins(h, q, "shm", 8);
    ok(message_int(&b.welcome, "desk_fd", -1) != message_int(&a.welcome, "desk_fd", -1), "so nobody gets its memory");
    end(p);
    c = joins(h, 0, "shm", 8);
    ok(!message_fact(&c.welcome, "desk_fd"), "who has no process here gets none");
    message_init(&m, MSG_BYE);
    say(&c, &m);
    pump(h, 0.05);
    leaves(&c);
    c = joins(h, getpid(), "shm", 8);
    is_int(message_int(&c.welcome, "desk_fd", -1), message_int(&a.welcome, "desk_fd", -2), "once it is dead the next one does");
    ok(hear(h, &b, MSG_DATA, &m, TAP_PATIENCE_S) && m.seq == 4, "and what it had was another's");
    message_clear(&m);
    is_int(hub_counts(h).workers, 2, "two workers");
    Fake d = joins(h, q, "shm", 8);
    is_int(hub_counts(h).workers, 2, "a process that begins anew is one worker, not two");
    end(q);
    leaves(&a);
    leaves(&b);
    leaves(&c);
    leaves(&d);
    hub_close(&h);
}

static void bounds(void)
{
    Hub *h = open_hub(40);
    uint64_t n = 0;
    int wrong = 0;
    for (; n < 100 && hub_room(h); n++)
        put(h, n);
    is_int((long long)n, 3, "no room beyond the bound, 16 bytes a record");
    Fake a = joins(h, 0, "inline", 8);
    for (uint64_t i = 0; i < n; i++)
        answer(&a, i, SIZE, INT64_MIN);
    pump(h, 0.1);
    ok(!hub_room(h), "results that came inline count");
    ok(takes(h, 3, &wrong) == 3 && hub_room(h), "until they are acknowledged");
    leaves(&a);
    hub_close(&h);
}

/* ---------------------------------------------------------------- children */

static int child(bool quits, int by)
{
    Ticket t;
    WorkerTask task;
    if (quits || ticket_read(STDIN_FILENO, "work", &t))
        return 3;
    Worker *w = worker_open(&t, &(WorkerConfig){ .program = "test", .medium = "auto", .life = STDIN_FILENO, .patience = 5 });
    if (!w || !worker_welcome(w) || worker_results(w, 1, &result))
        return 4;
    while (worker_next(w, &task) == 1) {
        if (task.record.id == CURSED) {
            signal(SIGABRT, SIG_DFL);
            raise(by);
        }
        memset(task.out[0], pixel(task.record.seq), SIZE);
        worker_answer(w, &task, NULL);
    }
    worker_close(&w);
    return 0;
}

/* by: the signal of which they die over one of the images. */
static void children(const char *by, int deaths, const char *reason)
{
    Hub *h = open_patient_hub(0, 30, 30); /* on a busy machine as well, one worker at a time has the image */
    Message m;
    int good = 0, bad = 0, wrong = 0;
    char why[256] = "";
    uint64_t next = 0;
    if (!ok(!hub_employ(h, (const char *const[]){ "child", by, NULL }, 2), "children: %s", err_text()))
        return;
    for (double until = log_seconds() + TAP_PATIENCE_S; good + bad < MANY && log_seconds() < until; turn(h)) {
        while (next < MANY && hub_room(h))
            put(h, next++);
        while (hub_take(h, &m)) {
            const MsgTensor *t = message_tensor(&m, "v");
            if (m.bad) {
                snprintf(why, sizeof why, "%s", m.bad);
                bad++;
                wrong += m.id != CURSED || !message_tensor(&m, "image");
            } else {
                good++;
                wrong += !t || !t->data || ((uint8_t *)t->data)[SIZE - 1] != pixel(m.seq);
            }
            uint64_t seq = m.seq;
            message_clear(&m);
            hub_acked(h, seq);
        }
    }
    ok(good == MANY - 1 && bad == 1 && !wrong, "an image over which workers crash is bad, and no other (%d, %d, %d)", good, bad, wrong);
    ok(strstr(why, reason), "after %d of them: %s", deaths, why);
    HubCounts c = hub_counts(h);
    /* Both may wait for their next start when the image is given up. */
    ok(c.lost == deaths && c.restarts >= deaths - 2, "they are replaced (%ld lost, %ld started anew)", c.lost, c.restarts);
    hub_close(&h);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/hssl-hub-XXXXXX";
    int left = 0;
    if (argc > 1)
        return child(!strcmp(argv[1], "quits"), strcmp(argv[1], "killed") ? SIGABRT : SIGKILL);
    if (!mkdtemp(dir))
        return 1;
    setenv("XDG_RUNTIME_DIR", dir, 1);
    signal(SIGPIPE, SIG_IGN);
    hopeless = open_hub(0);
    if (hub_employ(hopeless, (const char *const[]){ "child", "quits", NULL }, 1))
        diag("%s", err_text());
    deaths_and_latecomers();
    late_and_twice();
    hanging();
    liars();
    desks();
    bounds();
    children("works", 3, "3 workers failed over it");
    children("killed", 8, "killed 8 workers");
    Hub *h = open_hub(0);
    for (double until = log_seconds() + TAP_PATIENCE_S; !gave_up && log_seconds() < until;)
        turn(h);
    hub_close(&h);
    ok(gave_up, "children that end as they start, again and again, are an error");
    hub_close(&hopeless);
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        left += e->d_name[0] != '.';
    closedir(d);
    is_int(left, 0, "nothing is left in the socket directory");
    rmdir(dir);
    return tap_done();
}
