/* How the ranks of a job meet, and who may not come in. */
#include "../tap.h"

#include "dist/address.h"
#include "dist/muster.h"
#include "dist/secret.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#include <arpa/inet.h>
#include <endian.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = TAP_PATIENCE_S * 1000 };
static const unsigned char job_key[CHANNEL_KEY] = "the key of this job",
                           other_key[CHANNEL_KEY] = "another one";

/* What the processes tell the test. */
static struct {
    char text[4][512];
} * board;

static void on_end(void *arg, MusterEnd how, const char *text)
{
    (void)arg, (void)how, (void)text;
}

static void on_late(void *arg)
{
    (void)arg;
}

static MusterConfig config(int rank, int world, const char *job)
{
    return (MusterConfig){.rank = rank,
                          .world = world,
                          .key = job_key,
                          .job = job,
                          .patience_ms = PATIENCE_MS,
                          .ended = on_end,
                          .late = on_late};
}

static int status_of(pid_t pid)
{
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Rank 0 of `world`, waiting; what it says goes to `said`. Ends with 0 where all came. */
static pid_t first_rank(int world, const char *at, char *address, size_t size, FILE *said)
{
    int listening = address_listen(at, false, address, size);
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        dup2(fileno(said), STDERR_FILENO);
        MusterConfig c = config(0, world, "word");
        Muster *m = muster_open(&c, listening, address);
        bool met = m != NULL;
        if (!met)
            log_error("%s", err_text());
        muster_close(&m);
        _exit(!met);
    }
    close(listening);
    return pid;
}

/* A rank that should get in, or not: then with that reason. */
static pid_t caller(MusterConfig c, const char *address, const char *why)
{
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        Muster *m = muster_open(&c, -1, address);
        if (!m)
            snprintf(board->text[c.rank & 3], sizeof board->text[0], "%s", err_text());
        bool as_said = m ? !why : why && strstr(err_text(), why);
        muster_close(&m);
        _exit(!as_said);
    }
    return pid;
}

static int dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* All that comes until the other side hangs up, counted. */
static size_t hear_all(int fd)
{
    static char room[4096];
    size_t n = 0;
    for (ssize_t k; (k = recv(fd, room, sizeof room, 0)) > 0;)
        n += (size_t)k;
    return n;
}

static int count_of(FILE *f, const char *text)
{
    char line[1024];
    int n = 0;
    rewind(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    return n;
}

static bool wait_for_line(FILE *f, const char *text)
{
    for (int i = 0; i < PATIENCE_MS / 5 && !count_of(f, text); i++)
        usleep(5000);
    return count_of(f, text) > 0;
}

static void show(FILE *f)
{
    char line[1024];
    rewind(f);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        diag("rank 0: %s", line);
    }
}

/* What a stranger can say, and what it hears: bytes of rank 0's opening, and that it is one. */
static void test_stranger_bytes(const char *address)
{
    static const char *const names[] = {"a page of bytes", "an opening of another version",
                                        "a hello without a key", "half an opening"};
    static const size_t most[] = {0, 0, sizeof(Opening) + sizeof(FrameHead), 0};
    for (int i = 0; i < 4; i++) {
        static unsigned char bytes[4096];
        Opening o;
        int fd = dial(address);
        memset(bytes, 'x', sizeof bytes);
        channel_opening(&o);
        o.version += i == 1;
        if (i)
            memcpy(bytes, &o, sizeof o);
        bool sent = fd >= 0 && send(fd, bytes, i == 3 ? sizeof o / 2 : sizeof bytes, MSG_NOSIGNAL) > 0;
        if (i == 3)
            shutdown(fd, SHUT_WR);
        size_t heard_of = hear_all(fd);
        ok(sent && heard_of <= most[i], "%s is cut off, %zu bytes later", names[i], heard_of);
        close(fd);
    }
}

/* Strangers of all kinds, one after the other: bytes by chance, with and without an opening. */
static void storm(const char *address)
{
    const int n = siege(100);
    int came = 0;
    size_t heard_of = 0;
    Rng r = rng_make(7, RNG_TEST, 0, 0);
    for (int i = 0; i < n; i++) {
        unsigned char bytes[600];
        Opening o;
        size_t size = 1 + rng_below(&r, sizeof bytes);
        for (size_t k = 0; k < size; k++)
            bytes[k] = (unsigned char)rng_u32(&r);
        channel_opening(&o);
        if (rng_below(&r, 4) && size > sizeof o)
            memcpy(bytes, &o, sizeof o);
        int fd = dial(address);
        came += fd >= 0 && send(fd, bytes, size, MSG_NOSIGNAL) > 0;
        if (fd >= 0) {
            shutdown(fd, SHUT_WR);
            size_t got = hear_all(fd);
            heard_of = got > heard_of ? got : heard_of;
            close(fd);
        }
    }
    ok(came && heard_of <= sizeof(Opening) + sizeof(FrameHead), "no stranger hears more than an opening, and that it is one");
    diag("%d strangers, who heard %zu bytes at most", came, heard_of);
}

static void test_strangers(void)
{
    char address[256];
    FILE *said = tmpfile();
    enum { SILENT = 300 };
    static int silent[SILENT];
    memset(board, 0, sizeof *board);
    pid_t zero = first_rank(3, "127.0.0.1:0", address, sizeof address, said);
    int n = 0;
    for (int i = 0; i < SILENT; i++)
        n += (silent[i] = dial(address)) >= 0;
    ok(n == SILENT, "%d of %d that keep silent are connected", n, SILENT);
    test_stranger_bytes(address);
    storm(address);

    static const struct {
        int rank, world;
        const unsigned char *key;
        const char *job, *why;
    } wrong[] = {{1, 3, other_key, "word", "has another secret"},
                 {2, 3, other_key, "word", "has another secret"},
                 {1, 3, job_key, "another", "another job"},
                 {1, 4, job_key, "word", "another number of ranks"},
                 {3, 3, job_key, "word", "its rank"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        MusterConfig c = config(wrong[i].rank, wrong[i].world, wrong[i].job);
        c.key = wrong[i].key;
        if (!ok(status_of(caller(c, address, wrong[i].why)) == 0, "refused, with the reason: %s",
                wrong[i].why))
            diag("it saw: %s", board->text[wrong[i].rank & 3]);
    }
    pid_t ranks[2] = {caller(config(1, 3, "word"), address, NULL),
                      caller(config(2, 3, "word"), address, NULL)};
    int one = status_of(ranks[0]), two = status_of(ranks[1]), none = status_of(zero);
    ok(!one && !two && !none, "while all those are there, the ranks meet (status %d, %d, %d)", none, one,
       two);
    /* One address: it is named once. The wrong jobs have shown the key, and are named by what they say of
     * themselves. */
    ok(count_of(said, "refused a caller from 127.0.0.1 as a rank: ") == 1 &&
           count_of(said, "another job") == 1,
       "rank 0 names them, and each once");
    show(said);
    for (int i = 0; i < SILENT; i++)
        close(silent[i]);
    fclose(said);

    said = tmpfile();
    zero = first_rank(2, "127.0.0.1:0", address, sizeof address, said);
    MusterConfig c = config(1, 2, "word");
    c.key = other_key;
    status_of(caller(c, address, "has another secret"));
    ok(strstr(board->text[1], "HSSL_SECRET") &&
           wait_for_line(said, "does not know the job's secret (HSSL_SECRET"),
       "both sides say that the secret is wrong: %s", board->text[1]);
    one = status_of(caller(config(1, 2, "word"), address, NULL));
    ok(!one && !status_of(zero), "and the right one gets in all the same");
    fclose(said);
}

/* Whoever answers in rank 0's place without the key learns nothing and is told apart. */
static void test_false_first(void)
{
    char address[256];
    int listening = address_listen("127.0.0.1:0", false, address, sizeof address);
    memset(board, 0, sizeof *board);
    for (int answer = 0; answer < 2; answer++) {
        pid_t one = caller(config(1, 2, "word"), address,
                           answer ? "does not know the job's secret" : "somebody else than rank 0");
        struct pollfd p = {.fd = listening, .events = POLLIN};
        poll(&p, 1, PATIENCE_MS);
        int fd = accept(listening, NULL, NULL);
        struct {
            Opening o;
            FrameHead head;
            char bytes[CHANNEL_TAG];
        } say = {.head = {htole32(2), 0}};
        Opening theirs;
        channel_opening(&say.o);
        if (!answer)
            memset(&say.o, 'x', sizeof say.o);
        bool came = recv(fd, &theirs, sizeof theirs, MSG_WAITALL) == sizeof theirs &&
                    send(fd, &say, sizeof say, MSG_NOSIGNAL) > 0;
        if (!ok(status_of(one) == 0 && came, "a false rank 0 %s is left",
                answer ? "without the key" : "that says anything"))
            diag("it saw: %s", board->text[1]);
        close(fd);
    }
    close(listening);
}

static void test_missing(void)
{
    char address[256];
    MusterConfig c = config(0, 3, "word");
    c.patience_ms = 200;
    int listening = address_listen("127.0.0.1:0", false, address, sizeof address);
    ok(!muster_open(&c, listening, address) && err_code() == ERR_PEER &&
           strstr(err_text(), "ranks 1, 2 of 3 did not come"),
       "ranks that do not come are named: %s", err_text());
    c.rank = 1;
    ok(!muster_open(&c, -1, address) && strstr(err_text(), "rank 0 is not to be found"), "so is a rank 0: %s",
       err_text());
}

/* A name of this host: only the same user's processes. */
static void test_users(void)
{
    char name[64], address[256];
    if (geteuid()) {
        skip("only root can be somebody else", "another user of this host");
        return;
    }
    FILE *said = tmpfile();
    memset(board, 0, sizeof *board);
    snprintf(name, sizeof name, "@hssl-test-users-%d", (int)getpid());
    pid_t zero = first_rank(2, name, address, sizeof address, said);
    fflush(NULL);
    pid_t other = fork();
    if (!other) {
        int fd = setuid(65534) ? -1 : address_call(name, PATIENCE_MS);
        _exit(fd == -2 && strstr(err_text(), "of user 0") ? 0 : 1);
    }
    ok(status_of(other) == 0, "another user sees whose that is, and goes");
    fflush(NULL);
    if (!(other = fork())) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        Opening o;
        channel_opening(&o);
        memcpy(to.sun_path + 1, name + 1, strlen(name + 1));
        if (setuid(65534) || connect(fd, (struct sockaddr *)&to,
                                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))))
            _exit(1);
        _exit(send(fd, &o, sizeof o, MSG_NOSIGNAL) < 0 || hear_all(fd) == 0 ? 0 : 2);
    }
    ok(status_of(other) == 0, "and hears nothing where it stays");
    ok(wait_for_line(said, "of user 65534 as a rank: it is another user's"), "rank 0 names it");
    int one = status_of(caller(config(1, 2, "word"), address, NULL));
    ok(!one && !status_of(zero), "the same user's rank gets in");
    fclose(said);
}

static void test_addresses(void)
{
    char actual[256];
    bool here = false;
    struct sockaddr_in at = {.sin_port = 0};
    socklen_t n = sizeof at;
    int fd = address_listen("127.0.0.1:0", false, actual, sizeof actual);
    ok(fd >= 0 && !getsockname(fd, (struct sockaddr *)&at, &n) &&
           ntohl(at.sin_addr.s_addr) == INADDR_LOOPBACK && !strncmp(actual, "127.0.0.1:", 10) &&
           strcmp(actual, "127.0.0.1:0"),
       "listens at the address that was given, and there alone: %s", actual);
    close(fd);
    fd = address_listen("127.0.0.1:0", true, actual, sizeof actual);
    ok(fd < 0 ? strstr(err_text(), "HSSL_MUSTER") != NULL
              : strncmp(actual, "127.", 4) && strncmp(actual, "0.0.0.0:", 8),
       "an address that other hosts do not reach will not do for them: %s", fd < 0 ? err_text() : actual);
    if (fd >= 0)
        close(fd);
    ok(!address_is_here("127.0.0.1:1", &here) && here && !address_is_here("192.0.2.1:1", &here) && !here,
       "an address of this host is known from another's");
    ok(address_listen("nowhere", false, actual, sizeof actual) < 0 && strstr(err_text(), "not HOST:PORT"),
       "%s", err_text());
}

/* ---------------------------------------------------------------- secrets and sealed frames */

static void settle(const char *name, const char *value)
{
    unsetenv("HSSL_SECRET");
    unsetenv("HSSL_SECRET_FILE");
    if (name)
        setenv(name, value, 1);
}

static void test_secret(void)
{
    static const char good[] = "0123456789abcdef0123456789abcdef";
    unsigned char none[CHANNEL_KEY], one[CHANNEL_KEY], two[CHANNEL_KEY];
    char path[] = "/tmp/hssl-test-secret.XXXXXX";
    bool found = true;
    settle(NULL, NULL);
    ok(!secret_find(none, &found) && !found, "no secret");
    settle("HSSL_SECRET", good);
    ok(!secret_find(one, &found) && found && memcmp(none, one, sizeof one), "a secret in the environment");
    int fd = mkstemp(path);
    dprintf(fd, "%s\n", good);
    settle("HSSL_SECRET_FILE", path);
    ok(!secret_find(two, &found) && found && !memcmp(one, two, sizeof one),
       "the same in a file, with a line's end");
    static const mode_t open_modes[] = {0640, 0604, 0620, 0602, 0644, 0666};
    int refused = 0;
    for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++)
        refused += !fchmod(fd, open_modes[i]) && secret_find(two, &found) < 0 &&
                   strstr(err_text(), "chmod 600") && strstr(err_text(), path);
    ok(refused == 6, "a file that others may read or write is refused: %s", err_text());
    ok(!fchmod(fd, 0400) && !secret_find(two, &found), "mode 0400 is fine");
    if (geteuid())
        skip("only root can give files away", "a file of another user");
    else
        ok(!fchmod(fd, 0600) && !fchown(fd, 65534, (gid_t)-1) && secret_find(two, &found) < 0 &&
               strstr(err_text(), "belongs to user"),
           "a file of another user is refused: %s", err_text());
    if (fchown(fd, geteuid(), (gid_t)-1) || fchmod(fd, 0600) || ftruncate(fd, 10))
        diag("the file could not be shortened");
    ok(secret_find(two, &found) < 0 && strstr(err_text(), "urandom"), "one that is too short: %s",
       err_text());
    close(fd);
    unlink(path);
    ok(secret_find(two, &found) < 0 && strstr(err_text(), path), "one that is not there: %s", err_text());
    ok(!mkfifo(path, 0600) && secret_find(two, &found) < 0 && strstr(err_text(), "not a plain file"),
       "a fifo: %s", err_text());
    unlink(path);
    settle("HSSL_SECRET", "short");
    ok(secret_find(two, &found) < 0 && strstr(err_text(), "HSSL_SECRET:") && strstr(err_text(), "urandom"),
       "%s", err_text());
    settle(NULL, NULL);
}

/* Two ends that have met; what a sends, b hears. */
static void pair_of(Channel *a, Channel *b, const unsigned char *key_a, const unsigned char *key_b)
{
    int fd[2];
    Opening x, y;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) || channel_opening(&x) || channel_opening(&y))
        exit(1);
    channel_begin(a, fd[0], key_a, &x, &y, true);
    channel_begin(b, fd[1], key_b, &y, &x, false);
}

static int take_frame(Channel *c, char *text, size_t size)
{
    uint32_t what;
    size_t n;
    if (channel_head(c, &what, &n) || n >= size || channel_take(c, text, n))
        return -1;
    text[n] = 0;
    return (int)what;
}

static void test_channel(void)
{
    enum { TEXT = 5, FRAME = sizeof(FrameHead) + TEXT + CHANNEL_TAG };
    char text[64];
    unsigned char raw[2 * FRAME];
    Channel a, b;
    pair_of(&a, &b, job_key, job_key);
    ok(!channel_put(&a, 7, "hello", TEXT) && !channel_put(&b, 8, "", 0) &&
           take_frame(&b, text, sizeof text) == 7 && !strcmp(text, "hello") &&
           take_frame(&a, text, sizeof text) == 8 && !*text,
       "frames go both ways");
    channel_put(&a, 7, "hello", TEXT);
    ok(recv(b.fd, raw, FRAME, MSG_PEEK) == FRAME && !memmem(raw, FRAME, "hello", TEXT),
       "and cannot be read on the way");
    channel_close(&a);
    channel_close(&b);

    int through = 0, tried = 0;
    for (size_t bit = 0; bit < 8 * FRAME; bit++, tried++) {
        pair_of(&a, &b, job_key, job_key);
        channel_put(&a, 7, "hello", TEXT);
        if (recv(b.fd, raw, FRAME, MSG_WAITALL) != FRAME)
            continue;
        raw[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (send(a.fd, raw, FRAME, 0) == FRAME)
            shutdown(a.fd, SHUT_WR);
        through += take_frame(&b, text, sizeof text) >= 0;
        channel_close(&a);
        channel_close(&b);
    }
    ok(tried == 8 * FRAME && !through, "%d of %d frames with a wrong bit are taken", through, tried);

    static const char *const names[] = {"said again", "in another order", "sent back", "of another key"};
    for (int i = 0; i < 4; i++) {
        pair_of(&a, &b, job_key, i == 3 ? other_key : job_key);
        channel_put(&a, 7, "hello", TEXT);
        channel_put(&a, 9, "there", TEXT);
        bool all = recv(b.fd, raw, sizeof raw, MSG_WAITALL) == sizeof raw;
        int first = i == 1 ? FRAME : 0, second = i == 1 ? 0 : i == 0 ? 0 : FRAME;
        Channel *to = i == 2 ? &a : &b, *from = i == 2 ? &b : &a;
        all = all && send(from->fd, raw + first, FRAME, 0) == FRAME &&
              send(from->fd, raw + second, FRAME, 0) == FRAME;
        int got[2] = {take_frame(to, text, sizeof text), take_frame(to, text, sizeof text)};
        ok(all && got[0] == (i ? -1 : 7) && got[1] == -1, "a frame %s is not taken", names[i]);
        channel_close(&a);
        channel_close(&b);
    }
}

int main(void)
{
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        return 1;
    test_addresses();
    test_secret();
    test_channel();
    test_strangers();
    test_false_first();
    test_missing();
    test_users();
    return tap_done();
}
