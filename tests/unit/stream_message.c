/* Tickets, the message parser against damaged bytes, and shared memory. */
#include "../tap.h"

#include "stream/message.h"
#include "stream/shm.h"
#include "stream/ticket.h"
#include "util/err.h"
#include "util/rng.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void sample(Message *m)
{
    const int64_t shape[] = { 2, 3, 3, 3 }, empty[] = { 0, 4 };
    const double plan[] = { 1, -2, 0.25, 1e300, 3, 0.1f, 7, -0.0 };
    message_init(m, MSG_DATA);
    m->seq = 1ull << 40;
    m->epoch = 3;
    m->id = 70000;
    m->label = 9;
    m->width = 640;
    m->height = 480;
    m->reading = 22;
    message_set_name(m, "dog/\xc3\xa9 7.jpg");
    message_set_plan(m, 2, 4, plan);
    message_set_int(m, "count", -5);
    message_set_real(m, "ratio", 0.1);
    message_set_text(m, "recipe", "dino");
    uint8_t *px = message_add(m, "global", MSG_U8, 4, shape);
    for (int i = 0; i < 54; i++)
        px[i] = (uint8_t)i;
    message_add(m, "none", MSG_F32, 2, empty);
}

/* The frames of m as a receiver would have them. */
static int frames_of(const Message *m, MsgFrame *f)
{
    int n = 0;
    for (int i = 0; i < m->tensors; i++)
        if (m->tensor[i].medium == MSG_INLINE)
            f[n++] = (MsgFrame){ m->tensor[i].data, m->tensor[i].bytes };
    return n;
}

static void round_trip(void)
{
    Message m, r;
    MsgFrame f[4];
    void *header;
    size_t n;
    sample(&m);
    int frames = frames_of(&m, f);
    ok(!message_header(&m, &header, &n), "a header is made");
    diag("%zu bytes", n);
    if (!ok(!message_parse(header, n, f, frames, &r), "and read: %s", err_text()))
        return;
    ok(r.type == MSG_DATA && r.seq == m.seq && r.epoch == 3 && r.id == 70000 && r.label == 9, "numbers pass");
    ok(r.width == 640 && r.height == 480 && r.reading == 22 && !strcmp(r.name, m.name),
       "name, size and reading pass");
    ok(r.views == 2 && r.numbers == 4 && !memcmp(r.plan, m.plan, 8 * sizeof *m.plan), "the plan passes bit by bit");
    ok(message_int(&r, "count", 0) == -5 && message_real(&r, "ratio", 0) == 0.1, "facts pass");
    is_str(message_text(&r, "recipe", ""), "dino", "a text fact passes");
    const MsgTensor *t = message_tensor(&r, "global");
    ok(t && t->bytes == 54 && t->shape[0] == 2 && ((uint8_t *)t->data)[53] == 53, "the tensor passes");
    ok(message_tensor(&r, "none") && !message_tensor(&r, "nothing"), "tensors are found by name");
    ok(memmem(header, n, "\xa4hssl\x02", 6), "programs that don't know of readings refuse a record with one");
    m.reading = 0;
    void *plain = NULL;
    size_t plain_n = 0;
    ok(!message_header(&m, &plain, &plain_n) && memmem(plain, plain_n, "\xa4hssl\x01", 6) &&
           !memmem(plain, plain_n, "reading", 7), "and take one without");
    free(plain);
    char *text = message_describe(&r), *json = message_json(&r, true);
    ok(text && strstr(text, "global u8[2x3x3x3]"), "description: %s", text);
    ok(json && strstr(json, "\"shape\":[2,3,3,3]"), "JSON: %s", json);
    free(text);
    free(json);
    message_clear(&r);
    ok(message_parse(header, n, f, frames - 1, &r) == -1 && err_code() == ERR_DATA, "a missing frame: %s", err_text());
    f[0].size--;
    ok(message_parse(header, n, f, frames, &r) == -1, "a short frame: %s", err_text());
    free(header);
    message_clear(&m);
}

/* Every truncation and many mutations: never a crash, and what is accepted stays within its frames. */
static void damage(void)
{
    Message m, r;
    MsgFrame f[4];
    void *header;
    size_t n, accepted = 0, wrong = 0;
    sample(&m);
    int frames = frames_of(&m, f);
    message_header(&m, &header, &n);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *part = malloc(cut ? cut : 1); /* of its own, so that a sanitizer sees each byte too far */
        memcpy(part, header, cut);
        if (!message_parse(part, cut, f, frames, &r))
            accepted++;
        message_clear(&r);
        free(part);
    }
    is_int((long long)accepted, 0, "no truncated header is accepted");
    Rng rng = rng_make(1, RNG_TEST, 0, 0);
    uint8_t *copy = malloc(n);
    for (int round = 0; round < 40000; round++) {
        memcpy(copy, header, n);
        for (uint32_t k = rng_below(&rng, 4) + 1; k; k--) {
            uint32_t at = rng_below(&rng, (uint32_t)n);
            copy[at] = rng_below(&rng, 2) ? (uint8_t)rng_u32(&rng) : (uint8_t)(copy[at] ^ 1u << rng_below(&rng, 8));
        }
        if (!message_parse(copy, n, f, frames, &r))
            for (int i = 0; i < r.tensors; i++)
                wrong += r.tensor[i].medium == MSG_INLINE && (!r.tensor[i].data || r.tensor[i].bytes > 54);
        message_clear(&r);
    }
    is_int((long long)wrong, 0, "no mutated header yields a tensor outside its frame");
    free(copy);
    free(header);
    message_clear(&m);

    static const struct {
        const char *bytes;
        size_t n;
        const char *what;
    } hostile[] = {
        { "\xdf\xff\xff\xff\xff", 5, "a map of 2^32 entries" },
        { "\x82\xa4hssl\x01\xa5" "facts\xdd\xff\xff\xff\xff", 18, "an array of 2^32 elements" },
        { "\x82\xa4hssl\x02\xa4type\xa4" "data", 17, "another version" },
        { "\x82\xa4hssl\x01\xa4type\xa4" "date", 17, "an unknown type" },
        { "\x83\xa4hssl\x01\xa4type\xa3" "bye\xa4type\xa3" "bye", 25, "a field twice" },
        { "\x82\xa4hssl\x01\xa4type\xa4" "data", 17, "data without seq" },
        { "\xc1", 1, "a byte that msgpack never uses" },
        { "", 0, "nothing" },
    };
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
        ok(message_parse(hostile[i].bytes, hostile[i].n, NULL, 0, &r) == -1 && err_code() == ERR_DATA, "%s: %s",
           hostile[i].what, err_text());
    uint8_t deep[4096];
    memset(deep, 0x91, sizeof deep);
    memcpy(deep, "\x83\xa4hssl\x01\xa4type\xa3" "bye\xa1z", 18);
    ok(message_parse(deep, sizeof deep, NULL, 0, &r) == -1, "arrays in arrays without end: %s", err_text());
    ok(!message_parse("\x83\xa4hssl\x01\xa4type\xa3" "bye\xa1z\x92\x01\x80", 21, NULL, 0, &r),
       "an unknown field is stepped over: %s", err_text());
    message_clear(&r);
}

static void limits(void)
{
    Message m;
    const int64_t huge[] = { 1ll << 31, 1ll << 31, 1ll << 31 }, one[] = { 1 };
    message_init(&m, MSG_NOTE);
    ok(!message_add(&m, "x", MSG_F32, 3, huge) && m.tensors == 0, "an impossible shape: %s", err_text());
    int n = 0;
    while (n < 100 && message_add(&m, "t", MSG_U8, 1, one))
        n++;
    is_int(n, MSG_MAX_TENSORS, "tensors are bounded");
    for (n = 0; n < 100; n++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", n);
        if (message_set_int(&m, key, n))
            break;
    }
    is_int(n, MSG_MAX_FACTS, "facts are bounded");
    ok(!message_set_text(&m, "k0", "anew") && m.facts == MSG_MAX_FACTS, "a second set replaces");
    message_clear(&m);
    message_clear(&m);
}

static void tickets(void)
{
    Ticket t, back;
    char line[TICKET_MAX_LINE];
    const char *good = "hssl/1 views ipc:///run/x/views key=a=b  other=2\n";
    ok(!ticket_parse(good, strlen(good), &t) && !strcmp(t.kind, "views") && !strcmp(t.endpoint, "ipc:///run/x/views"),
       "a ticket is read: %s", err_text());
    is_str(ticket_get(&t, "key"), "a=b", "a value may hold =");
    ok(!ticket_get(&t, "ke"), "a key that is not there");
    int n = ticket_format(&t, line, sizeof line);
    ok(n > 0 && !ticket_parse(line, (size_t)n, &back) && !memcmp(&t, &back, sizeof t), "and written");
    ok(ticket_format(&t, line, 20) == -1, "too little room is an error");
    const char *path = "ipc:///tmp/with blank/J\xc3\xb6rg/50%/\xe9",
               *word = "ipc:///tmp/with%20blank/J%C3%B6rg/50%25/%E9";
    snprintf(t.endpoint, sizeof t.endpoint, "%s", path);
    ok(!ticket_set(&t, "key", path) && (n = ticket_format(&t, line, sizeof line)) > 0 && strstr(line, word),
       "any byte of a path is written in visible ASCII: %s", line);
    ok(!ticket_parse(line, (size_t)n, &back) && !strcmp(back.endpoint, path), "and read back: %s",
       back.endpoint);
    is_str(ticket_get(&back, "key"), path, "in a value, too");
    ok(ticket_set(&t, "key", "a\nb") == -1 && err_code() == ERR_DATA, "but no control character: %s",
       err_text());
    static const char *const wrong[] = {"",
                                        "\n",
                                        "hssl/1",
                                        "hssl/1 views",
                                        "hssl/2 views ipc:///x",
                                        "hssl/1 views http://x",
                                        "hssl/1 vi/ws ipc:///x",
                                        "hssl/1 views ipc:///x nopair",
                                        "hssl/1 views ipc:///x =v",
                                        "hssl/1 views ipc:///x k=",
                                        "hssl/1 views ipc:///x\x01y",
                                        "hssl/1 views ipc:///x%0Ay",
                                        "hssl/1 views ipc:///x%00",
                                        "hssl/1 views ipc:///x%2",
                                        "hssl/1 views ipc:///x%",
                                        "hssl/1 views ipc:///%g0",
                                        "hssl/1 views ipc:///x k=%7f",
                                        "hssl/1 views %",
                                        "hello world here",
                                        "hssl/1 averyverylongkindname ipc:///x",
                                        ("hssl/1 v ipc:///x a=1 a2=1 a3=1 a4=1 a5=1 a6=1 a7=1 a8=1 a9=1 b=1 "
                                        "b2=1 b3=1 b4=1 b5=1 b6=1 b7=1 b8=1")};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ok(ticket_parse(wrong[i], strlen(wrong[i]), &t) == -1 && err_code() == ERR_DATA, "refused: %s", err_text());
    char endless[4096];
    memset(endless, 'x', sizeof endless);
    ok(ticket_parse(endless, sizeof endless, &t) == -1, "too long: %s", err_text());
    ok(ticket_parse("hssl/1 v ipc:///x\0y", 19, &t) == -1, "a NUL: %s", err_text());

    int fd[2];
    if (pipe(fd) || write(fd[1], "hssl/1 records ipc:///x\nrest", 28) != 28)
        return;
    ok(!ticket_read(fd[0], "records|plans", &t) && read(fd[0], line, 4) == 4, "what follows the ticket is not eaten");
    is_int(memcmp(line, "rest", 4), 0, "not a byte");
    if (write(fd[1], "hssl/1 records ipc:///x\n", 24) != 24)
        return;
    ok(ticket_read(fd[0], "views", &t) == -1 && err_code() == ERR_USAGE && strstr(err_text(), "hssl-augment"),
       "a wrong kind names the program: %s", err_text());
    if (write(fd[1], "hello\n", 6) != 6)
        return;
    ok(ticket_read(fd[0], "views", &t) == -1 && err_code() == ERR_USAGE && strstr(err_text(), "hssl-augment"),
       "text names the program: %s", err_text());
    close(fd[1]);
    while (read(fd[0], line, sizeof line) > 0)
        ;
    ok(ticket_read(fd[0], "views", &t) == -1 && err_code() == ERR_PEER, "no ticket at all: %s", err_text());
    close(fd[0]);
}

static void shared_memory(void)
{
    ShmBlock *b = shm_create(100000), *peer;
    if (!ok(b != NULL, "a block: %s", err_text()))
        return;
    memcpy(b->mem, "owner", 6);
    int report[2];
    if (pipe(report))
        return;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        /* The child maps it by descriptor as a stranger would, not by what it inherited. */
        ShmBlock *c = shm_attach(b->pid, b->fd, b->size, true);
        char verdict = c && !memcmp(c->mem, "owner", 6) ? 'y' : 'n';
        if (c)
            memcpy((char *)c->mem + 99990, "child", 6);
        _exit(write(report[1], &verdict, 1) == 1 ? 0 : 1);
    }
    int status;
    char verdict = 0;
    waitpid(child, &status, 0);
    ok(read(report[0], &verdict, 1) == 1 && verdict == 'y', "another process maps it");
    is_str((char *)b->mem + 99990, "child", "and writes into it");
    peer = shm_attach(b->pid, b->fd, b->size + 10000000, false);
    ok(!peer && err_code() == ERR_PEER, "more than its size: %s", err_text());
    ok(!shm_attach(b->pid, 999999, 10, false), "no such descriptor: %s", err_text());
    ok(!shm_attach(-1, 0, 10, false), "no such process: %s", err_text());
    int plain = memfd_create("plain", 0);
    if (ftruncate(plain, 4096))
        return;
    ok(!shm_attach(getpid(), plain, 4096, false), "an unsealed file could shrink under us: %s", err_text());
    ok(!shm_attach(getpid(), report[0], 10, false), "a pipe: %s", err_text());
    close(plain);
    close(report[0]);
    close(report[1]);

    Message m, r;
    void *header;
    size_t n;
    const int64_t shape[] = { 10, 10 };
    message_init(&m, MSG_NOTE);
    ok(!message_add_shared(&m, "w", MSG_F32, 2, shape, b, 4096), "a shared tensor in a message");
    ok(message_add_shared(&m, "w", MSG_F32, 2, shape, b, 99900) == -1, "not beyond its block: %s", err_text());
    message_header(&m, &header, &n);
    ok(!message_parse(header, n, NULL, 0, &r) && r.tensor[0].medium == MSG_SHARED && !r.tensor[0].data, "it is read: %s",
       err_text());
    peer = shm_attach(r.tensor[0].shared.pid, r.tensor[0].shared.fd, r.tensor[0].shared.size, false);
    ok(peer && r.tensor[0].shared.offset == 4096, "and can be mapped");
    shm_free(&peer);
    message_clear(&r);
    free(header);
    message_clear(&m);
    shm_free(&b);
    shm_free(&b);
}

int main(void)
{
    round_trip();
    damage();
    limits();
    tickets();
    shared_memory();
    return tap_done();
}
