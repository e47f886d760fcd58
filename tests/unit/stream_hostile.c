/* A producer that means ill: what a consumer sets aside for one stands in hssl-stream(7). */
#include "../tap.h"
#include "../zmtp.h"

#include "stream/message_internal.h"
#include "stream/sink.h"
#include "util/err.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
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

enum { RECORD = 512 << 10 };
static const long SINK_KIB = (SANITIZED ? 3000L : 1600L) << 10;
static const uint64_t SINK_BUDGET = (uint64_t)4 << 30;

static char dir[] = "/tmp/hssl-hostile-XXXXXX";
static uint8_t large[1 << 20];

static void make(Message *m, uint64_t seq)
{
    const int64_t n = RECORD;
    message_init(m, MSG_DATA);
    m->seq = m->id = seq;
    uint8_t *to = message_add(m, "image", MSG_U8, 1, &n);
    memset(to, (int)(seq * 31 + 7), RECORD);
    memcpy(to, &seq, sizeof seq);
}

static void consume(const char *line)
{
    Ticket t;
    Message m;
    Sink *s = ticket_parse(line, strlen(line), &t) ? NULL
              : sink_open(&t, &(SinkConfig){ .program = "victim", .kinds = "records", .credit = 64, .limit = UINT64_MAX,
                                             .life = -1, .memory = 64 << 20 });
    if (!s)
        _exit(3);
    while (sink_next(s, &m, -1) == 1)
        message_clear(&m);
    fprintf(stderr, "%s\n", err_text());
    int rc = err_code() == ERR_PEER ? 0 : 4;
    sink_close(&s);
    _exit(rc);
}

typedef enum { ENDLESS, EMPTY, UNASKED } Malice;

static void welcome(ZmtpPeer *p)
{
    Message m;
    message_init(&m, MSG_WELCOME);
    zmtp_say(p, &m);
}

static void serve_badly(Malice how, const char *name)
{
    struct rusage u = { 0 };
    struct sockaddr_un a;
    char line[300], log[300], text[1000] = "";
    static uint8_t many[1 << 16];
    int status = -1, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(line, sizeof line, "hssl/1 records ipc://%s/evil\n", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    snprintf(text, sizeof text, "ipc://%s/evil", dir);
    a = zmtp_address(text);
    unlink(a.sun_path);
    FILE *f = fopen(log, "w+");
    if (!ok(f && !bind(fd, (struct sockaddr *)&a, sizeof a) && !listen(fd, 8), "%s: begins", name))
        return;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        dup2(fileno(f), STDERR_FILENO);
        consume(line);
    }
    ZmtpPeer p = { .fd = accept(fd, NULL, NULL), .fate = ZMTP_SPENT };
    if (ok(zmtp_shake_hands(&p, "ROUTER"), "%s: the consumer comes", name)) {
        if (how == UNASKED)
            welcome(&p);
        for (uint64_t i = 0; p.sent < SINK_BUDGET && p.fate == ZMTP_SPENT; i++) {
            Message m;
            if (how == ENDLESS) {
                zmtp_push_frame(&p, true, large, sizeof large);
            } else if (how == EMPTY) {
                for (size_t k = 0; k < sizeof many; k += 2)
                    many[k] = 1;
                zmtp_push(&p, many, sizeof many);
            } else {
                make(&m, i);
                void *header;
                size_t n;
                if (!message_header(&m, &header, &n)) {
                    zmtp_push_frame(&p, true, header, n);
                    zmtp_push_frame(&p, false, m.tensor[0].data, RECORD);
                    free(header);
                }
                message_clear(&m);
            }
        }
    }
    /* It may find one more way: there is none. */
    close(fd);
    close(p.fd);
    wait4(pid, &status, 0, &u);
    ssize_t n = pread(fileno(f), text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    fclose(f);
    ok(p.fate != ZMTP_SPENT, "%s: the producer sent %llu MiB", name, (unsigned long long)p.sent >> 20);
    ok(WIFEXITED(status) && !WEXITSTATUS(status), "%s: the consumer gives up (%x): %s", name, (unsigned)status, text);
    ok(u.ru_maxrss < SINK_KIB, "%s: held %ld MiB, of at most %ld", name, u.ru_maxrss >> 10, SINK_KIB >> 10);
}

/* What is half on its way when both ends close is lost in ZeroMQ, now and then also to free(). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libzmq";
}

int main(void)
{
    char path[300];
    if (!mkdtemp(dir))
        return 1;
    setenv("XDG_RUNTIME_DIR", dir, 1);
    log_name("test");
    serve_badly(ENDLESS, "endless frames");
    serve_badly(EMPTY, "empty frames");
    serve_badly(UNASKED, "records that nobody asked for");
    snprintf(path, sizeof path, "%s/log", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/evil", dir);
    unlink(path);
    ok(!rmdir(dir), "nothing is left in the socket directory");
    return tap_done();
}
