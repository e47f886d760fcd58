/* Sources, sinks, stages' flow rules, links, and the batch assembler, in threads of one process. */
#include "../tap.h"

#include "stream/batch.h"
#include "stream/link.h"
#include "stream/longwait.h"
#include "stream/stage.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rng.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIDE = 4, GLOBALS = 2, LOCALS = 1 };

typedef struct {
    Source *source;
    Ticket ticket;
    uint64_t start, count, per_epoch;
    unsigned shuffle;   /* records leave in blocks of so many, each in a random order; fewer than the window holds */
    uint64_t twice;     /* every so many records are sent a second time */
    uint64_t bad_every; /* image ids divisible by it are bad; 0: none */
    bool die;           /* close without an end */
    uint64_t last_limit_kept, beyond_limit;
    uint64_t acked;
    pthread_t thread;
} Maker;

static uint8_t pixel(uint64_t id, int view, int i)
{
    return (uint8_t)(id * 7 + (uint64_t)view * 31 + (uint64_t)i);
}

static void fill(Message *m, const char *name, int views, int first, uint64_t id)
{
    const int64_t shape[] = { views, SIDE, SIDE, 3 };
    uint8_t *px = message_add(m, name, MSG_U8, 4, shape);
    for (int v = 0; v < views; v++)
        for (int i = 0; i < SIDE * SIDE * 3; i++)
            px[v * SIDE * SIDE * 3 + i] = pixel(id, first + v, i);
}

static int send_record(Maker *k, uint64_t seq)
{
    Message m;
    while (!source_ready(k->source, seq))
        if (source_left(k->source) || stream_wait(NULL, k->source, -1, 2000) < 0)
            return -1;
    if (seq >= source_limit(k->source))
        k->beyond_limit++;
    message_init(&m, MSG_DATA);
    m.seq = seq;
    m.epoch = seq / k->per_epoch;
    m.id = seq % k->per_epoch;
    m.label = (int32_t)m.id;
    if (k->bad_every && m.id % k->bad_every == 0) {
        uint8_t bytes[64];
        const int64_t size = (int64_t)(1 + m.id % 63);
        memset(bytes, (int)m.id, sizeof bytes);
        message_set_bad(&m, "JPEG truncated");
        message_set_name(&m, "cat/1.jpg");
        message_add_copy(&m, "image", MSG_U8, 1, &size, bytes);
    } else {
        fill(&m, "global", GLOBALS, 0, m.id);
        fill(&m, "local", LOCALS, GLOBALS, m.id);
    }
    return source_send(k->source, &m);
}

static void *make(void *arg)
{
    Maker *k = arg;
    Message w;
    Rng rng = rng_make(3, RNG_TEST, 0, 0);
    uint64_t order[64], acked;
    if (source_hello(k->source, &k->start) != 1)
        return NULL;
    message_init(&w, MSG_WELCOME);
    message_set_int(&w, "records_per_epoch", (int64_t)k->per_epoch);
    message_set_int(&w, "globals", GLOBALS);
    message_set_int(&w, "global_size", SIDE);
    message_set_int(&w, "locals", LOCALS);
    message_set_int(&w, "local_size", SIDE);
    source_welcome(k->source, &w);
    unsigned block = k->shuffle ? k->shuffle : 1;
    for (uint64_t at = k->start; at < k->count; at += block) {
        unsigned n = at + block <= k->count ? block : (unsigned)(k->count - at);
        for (unsigned i = 0; i < n; i++)
            order[i] = at + i;
        for (unsigned i = n; i > 1; i--) {
            unsigned j = rng_below(&rng, i);
            uint64_t t = order[i - 1];
            order[i - 1] = order[j];
            order[j] = t;
        }
        for (unsigned i = 0; i < n; i++) {
            if (send_record(k, order[i]))
                goto out;
            if (k->twice && order[i] % k->twice == 0 && send_record(k, order[i]))
                goto out;
        }
    }
    if (!k->die) {
        source_end(k->source, k->count);
        while (source_pending(k->source) && !source_left(k->source))
            if (stream_wait(NULL, k->source, -1, TAP_PATIENCE_S * 1000) <= 0)
                break;
    }
out:
    while (source_acked(k->source, &acked))
        k->acked++;
    source_close(&k->source);
    return NULL;
}

static void start_maker(Maker *k, const char *kind)
{
    k->source = source_open(kind, "maker", NULL);
    if (!k->source) {
        diag("%s", err_text());
        exit(1);
    }
    const char *line = source_ticket(k->source);
    ticket_parse(line, strlen(line), &k->ticket);
    pthread_create(&k->thread, NULL, make, k);
}

static void stream_of_records(void)
{
    Maker k = { .count = 5000, .per_epoch = 100 };
    uint64_t n = 0, wrong = 0;
    Message m;
    start_maker(&k, "records");
    Sink *s = sink_open(&k.ticket, &(SinkConfig){ .program = "test", .kinds = "plans|records", .start = 17, .credit = 8,
                                                  .limit = UINT64_MAX, .life = -1 });
    const Message *w = s ? sink_welcome(s) : NULL;
    if (!ok(w && message_int(w, "records_per_epoch", 0) == 100, "the welcome: %s", err_text()))
        return;
    is_str(message_text(w, "program", ""), "maker", "it names the producer");
    while (sink_next(s, &m, TAP_PATIENCE_S * 1000) == 1) {
        const MsgTensor *t = message_tensor(&m, "global");
        wrong += m.seq != 17 + n || !t || ((uint8_t *)t->data)[5] != pixel(m.id, 0, 5);
        sink_ack(s, m.seq);
        message_clear(&m);
        n++;
    }
    ok(sink_ended(s), "the end comes: %s", err_text());
    is_int((long long)n, 5000 - 17, "every record from the start asked for");
    is_int((long long)wrong, 0, "in order and whole");
    sink_flush(s);
    pthread_join(k.thread, NULL);
    is_int((long long)k.acked, 5000 - 17, "every acknowledgement arrives");
    sink_close(&s);
}

static void wrong_kind(void)
{
    Maker k = { .count = 10, .per_epoch = 10 };
    Message m;
    start_maker(&k, "records");
    Sink *s = sink_open(&k.ticket, &(SinkConfig){ .program = "hssl-train", .kinds = "views", .credit = 1,
                                                  .limit = UINT64_MAX, .life = -1 });
    ok(!sink_welcome(s) && err_code() == ERR_PEER && strstr(err_text(), "takes views"), "a consumer of another kind is refused");
    diag("%s", err_text());
    ok(sink_next(s, &m, 100) == -1, "and gets no record");
    sink_close(&s);
    /* The maker still waits for its first proper consumer. */
    s = sink_open(&k.ticket, &(SinkConfig){ .program = "test", .kinds = "records", .credit = 20, .limit = UINT64_MAX, .life = -1 });
    ok(sink_welcome(s), "which another consumer can be");
    sink_close(&s);
    pthread_join(k.thread, NULL);
}

static void credit_and_limit(void)
{
    Maker k = { .count = 1000, .per_epoch = 1000 };
    Message m;
    int n = 0;
    start_maker(&k, "records");
    Sink *s = sink_open(&k.ticket, &(SinkConfig){ .program = "test", .kinds = "records", .credit = 5, .limit = UINT64_MAX,
                                                  .life = -1 });
    sink_welcome(s);
    while (sink_next(s, &m, 100) == 1)
        message_clear(&m), n++;
    is_int(n, 5, "no more than the credit comes unacknowledged");
    sink_ack(s, 0);
    sink_ack(s, 1);
    while (sink_next(s, &m, 100) == 1)
        message_clear(&m), n++;
    is_int(n, 7, "each acknowledgement is good for one more");
    sink_close(&s);
    pthread_join(k.thread, NULL);

    Maker l = { .count = 1000, .per_epoch = 1000 };
    start_maker(&l, "records");
    s = sink_open(&l.ticket, &(SinkConfig){ .program = "test", .kinds = "records", .credit = 500, .limit = 30, .life = -1 });
    sink_welcome(s);
    for (n = 0; sink_next(s, &m, 100) == 1; n++)
        message_clear(&m);
    is_int(n, 30, "nothing at or beyond the limit");
    sink_limit(s, 40);
    for (; sink_next(s, &m, 100) == 1; n++)
        message_clear(&m);
    is_int(n, 40, "a raised limit lets more through");
    sink_close(&s);
    pthread_join(l.thread, NULL);
    is_int((long long)l.beyond_limit, 0, "the producer saw it so");
}

static void producer_dies(void)
{
    Maker k = { .count = 20, .per_epoch = 10, .die = true };
    Message m;
    int n = 0;
    start_maker(&k, "records");
    Sink *s = sink_open(&k.ticket, &(SinkConfig){ .program = "test", .kinds = "records", .credit = 100, .limit = UINT64_MAX,
                                                  .life = -1 });
    sink_welcome(s);
    while (sink_next(s, &m, TAP_PATIENCE_S * 1000) == 1)
        message_clear(&m), n++;
    ok(err_code() == ERR_PEER && !sink_ended(s), "a stream that breaks off is an error: %s", err_text());
    is_int(n, 20, "after everything that was sent");
    sink_close(&s);
    pthread_join(k.thread, NULL);
}

/* What a caller hears of bad images. */
typedef struct {
    uint64_t last_seq;
    int64_t n, wrong, most; /* most: refuse more than these */
} Heard;

static int note_bad(void *arg, const BadRecord *list, size_t n)
{
    Heard *h = arg;
    for (size_t i = 0; i < n; i++, h->n++) {
        const BadRecord *r = &list[i];
        uint8_t want = (uint8_t)r->id;
        h->wrong += (h->n && r->seq <= h->last_seq) || r->size != 1 + r->id % 63 || r->kept != r->size ||
                    *(const uint8_t *)r->bytes != want || ((const uint8_t *)r->bytes)[r->kept - 1] != want ||
                    r->label != (int32_t)r->id || strcmp(r->name, "cat/1.jpg") || strcmp(r->why, "JPEG truncated");
        h->last_seq = r->seq;
    }
    return h->most && h->n > h->most ? err_set(ERR_DATA, "too many") : 0;
}

static int check_batch(const Batch *b, const BatchShape *sh, uint64_t per_epoch, uint64_t bad_every)
{
    int wrong = 0;
    size_t view = SIDE * SIDE * 3, B = (size_t)sh->batch_size;
    for (size_t i = 0; i < B; i++) {
        uint64_t seq = b->epoch * per_epoch + b->number % sh->batches_per_epoch * B + i, id = seq % per_epoch;
        if (bad_every && id % bad_every == 0) /* isolated ones: the neighbour before, or after for the first */
            id += i ? (uint64_t)-1 : 1;
        wrong += b->seq[i] != seq || b->id[i] != id || b->label[i] != (int32_t)id;
        for (int v = 0; v < GLOBALS; v++)
            wrong += b->global[((size_t)v * B + i) * view + 11] != pixel(id, v, 11);
        wrong += b->local[i * view + 47] != pixel(id, GLOBALS, 47);
    }
    return wrong;
}

static void batches(const char *what, Maker k, int64_t batch_size, uint64_t start, int slots)
{
    int wrong = 0;
    uint64_t n = 0, next = start;
    const uint64_t known = 12;
    Heard heard = { 0 };
    start_maker(&k, "views");
    Batches *b = batches_open(&k.ticket, &(BatchesConfig){ .program = "test", .batch_size = batch_size, .start = start,
                                                           .slots = slots, .life = -1, .bad = note_bad,
                                                           .arg = &heard, .known = &known, .n_known = 1 });
    const BatchShape *sh = batches_shape(b);
    if (!ok(sh && sh->batches_per_epoch == k.per_epoch / (uint64_t)batch_size, "%s: %s", what, err_text()))
        return;
    uint64_t first = start / k.per_epoch * sh->batches_per_epoch + start % k.per_epoch / (uint64_t)batch_size;
    for (Batch *x; (x = batches_next(b)); n++) {
        wrong += x->number != first + n || check_batch(x, sh, k.per_epoch, k.bad_every);
        next = x->next;
        batches_release(b, x);
    }
    ok(batches_ended(b), "%s: ends: %s", what, err_text());
    is_int((long long)(first + n), (long long)(k.count / k.per_epoch * sh->batches_per_epoch), "every whole batch");
    is_int(wrong, 0, "each in its place");
    is_int((long long)next, (long long)k.count, "the position after the last");
    /* All ids that are bad lie in the whole batches of each epoch, but `known` is not told again. */
    int64_t bad = 0;
    for (uint64_t id = 0; k.bad_every && id < sh->batches_per_epoch * (uint64_t)batch_size; id += k.bad_every)
        bad += id != known;
    ok(heard.n == bad && !heard.wrong && batches_bad(b) == bad + 1, "each bad image is told once, in order (%lld)",
       (long long)heard.n);
    ok(batches_block(b) != NULL, "the pixels lie in memory that can be shared");
    batches_close(&b);
    pthread_join(k.thread, NULL);
}

static void batch_errors(void)
{
    Maker k = { .count = 300, .per_epoch = 100, .bad_every = 10 };
    Batch *x;
    start_maker(&k, "views");
    Heard heard = { .most = 3 };
    int64_t taken = 0;
    Batches *b = batches_open(&k.ticket, &(BatchesConfig){ .program = "test", .batch_size = 8, .life = -1, .bad = note_bad,
                                                           .arg = &heard });
    for (; (x = batches_next(b)); taken++)
        batches_release(b, x);
    ok(!batches_ended(b) && err_code() == ERR_DATA && !strcmp(err_text(), "too many"), "the caller may refuse");
    ok(taken == 3 && heard.n == 4, "at the batch that has one too many, however far reading went (%lld)", (long long)taken);
    batches_close(&b);
    pthread_join(k.thread, NULL);

    Maker l = { .count = 300, .per_epoch = 100, .bad_every = 1 };
    start_maker(&l, "views");
    b = batches_open(&l.ticket, &(BatchesConfig){ .program = "test", .batch_size = 8, .life = -1 });
    ok(!batches_next(b) && !batches_ended(b) && err_code() == ERR_DATA, "a batch without a good image: %s", err_text());
    batches_close(&b);
    pthread_join(l.thread, NULL);

    Maker d = { .count = 150, .per_epoch = 100, .die = true };
    start_maker(&d, "views");
    b = batches_open(&d.ticket, &(BatchesConfig){ .program = "test", .batch_size = 100, .life = -1 });
    while ((x = batches_next(b)))
        batches_release(b, x);
    ok(!batches_ended(b) && err_code() == ERR_PEER, "a producer that dies: %s", err_text());
    batches_close(&b);
    pthread_join(d.thread, NULL);

    Maker o = { .count = 150, .per_epoch = 100 };
    start_maker(&o, "views");
    b = batches_open(&o.ticket, &(BatchesConfig){ .program = "test", .batch_size = 101, .life = -1 });
    ok(!batches_shape(b) && err_code() == ERR_USAGE, "a batch larger than the epoch: %s", err_text());
    batches_close(&b);
    pthread_join(o.thread, NULL);
    b = batches_open(&o.ticket,
                     &(BatchesConfig){.program = "test", .batch_size = 8, .start = UINT64_MAX - 7});
    ok(!b && err_code() == ERR_USAGE, "a start that nobody can ask for: %s", err_text());
    batches_close(&b);
}

static void *teacher(void *arg)
{
    Link *l = arg;
    Message m;
    while (link_recv(l, &m, TAP_PATIENCE_S * 1000) == 1) {
        bool last = !strcmp(message_text(&m, "op", ""), "leave");
        message_set_int(&m, "seen", message_int(&m, "step", 0) + 1);
        link_send(l, &m);
        if (last)
            break;
    }
    link_close(&l);
    return NULL;
}

static void links(void)
{
    pthread_t thread;
    Ticket t;
    Message m;
    const int64_t shape[] = { 1000, 1000 };
    Link *l = link_listen("teacher"), *far;
    if (!ok(l && !ticket_parse(link_ticket(l), strlen(link_ticket(l)), &t), "a link listens: %s", err_text()))
        return;
    pthread_create(&thread, NULL, teacher, l);
    far = link_connect(&t);
    int wrong = 0;
    for (int i = 0; i < 200; i++) {
        message_init(&m, MSG_NOTE);
        message_set_text(&m, "op", i == 199 ? "leave" : "step");
        message_set_int(&m, "step", i);
        if (i == 100)
            ((float *)message_add(&m, "w", MSG_F32, 2, shape))[999999] = 4;
        wrong += link_send(far, &m) || link_recv(far, &m, TAP_PATIENCE_S * 1000) != 1 || message_int(&m, "seen", 0) != i + 1;
        if (i == 100)
            wrong += !message_tensor(&m, "w") || ((float *)message_tensor(&m, "w")->data)[999999] != 4;
        message_clear(&m);
    }
    is_int(wrong, 0, "questions and answers");
    ok(link_recv(far, &m, TAP_PATIENCE_S * 1000) == -1 && err_code() == ERR_PEER, "a peer that leaves is noticed: %s", err_text());
    pthread_join(thread, NULL);
    link_close(&far);

    Link *pub = link_publish("targets"), *sub;
    message_init(&m, MSG_NOTE);
    ok(pub && !link_listeners(pub) && !link_send(pub, &m), "publishing to nobody");
    ticket_parse(link_ticket(pub), strlen(link_ticket(pub)), &t);
    sub = link_subscribe(&t);
    for (int i = 0; i < TAP_PATIENCE_S * 100 && !link_listeners(pub); i++)
        link_recv(sub, &m, 10);
    ok(link_listeners(pub), "a watcher is seen");
    message_init(&m, MSG_NOTE);
    message_set_int(&m, "step", 5);
    link_send(pub, &m);
    ok(link_recv(sub, &m, TAP_PATIENCE_S * 1000) == 1 && message_int(&m, "step", 0) == 5, "and served: %s", err_text());
    message_clear(&m);
    link_close(&sub);
    link_close(&pub);
}

/* A consumer's goodbye that was read while the producer looked for something to send: the wait after it must not wait. */
static void goodbye_between(void)
{
    Source *s = source_open("records", "test", NULL);
    Ticket t;
    Message w;
    uint64_t start, seq;
    if (!ok(s && !ticket_parse(source_ticket(s), strlen(source_ticket(s)), &t), "a stream"))
        return;
    Sink *in = sink_open(&t, &(SinkConfig){ .program = "test", .kinds = "records", .credit = 1, .limit = UINT64_MAX, .life = -1 });
    message_init(&w, MSG_WELCOME);
    ok(source_hello(s, &start) == 1 && !source_welcome(s, &w) && sink_welcome(in), "has a consumer");
    sink_close(&in);
    for (int i = 0; i < TAP_PATIENCE_S * 100 && !source_left(s); i++) {
        source_next(s, 0, &seq);
        usleep(10000);
    }
    double began = log_seconds();
    ok(source_left(s) && stream_wait(NULL, s, -1, TAP_PATIENCE_S * 1000) >= 0 && log_seconds() - began < TAP_PATIENCE_S / 2,
       "that left between two looks: nobody waits for it");
    source_close(&s);
}

/* What a consumer wishes goes to the producer with its hello, and anew when it begins anew; it is bounded. */
static void wishes(void)
{
    Source *s = source_open("records", "test", NULL);
    Ticket t;
    Message w, wish;
    uint64_t start;
    char key[512], text[1024];
    if (!ok(s && !ticket_parse(source_ticket(s), strlen(source_ticket(s)), &t), "a stream"))
        return;
    message_init(&wish, MSG_NONE);
    message_set_text(&wish, WISH_PREFIX "size", "32");
    message_set_int(&wish, "other", 1);
    SinkConfig c = { .program = "test", .kinds = "records", .credit = 1, .limit = UINT64_MAX, .life = -1,
                     .wish = &wish };
    Sink *in = sink_open(&t, &c);
    message_clear(&wish);
    message_init(&w, MSG_WELCOME);
    message_set_int(&w, "told", 7);
    ok(in && source_hello(s, &start) == 1 && !source_welcome(s, &w) && sink_welcome(in), "has a consumer");
    is_str(message_text(source_wish(s), WISH_PREFIX "size", ""), "32", "that wishes");
    is_int(source_wish(s)->facts, 1, "what else is in its hello is no wish");
    is_int(message_int(source_described(s), "told", 0), 7, "the stream remembers what it said");
    message_init(&wish, MSG_NONE);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    message_set_text(&wish, WISH_PREFIX "long", text);
    snprintf(key, sizeof key, WISH_PREFIX "%.200s", text);
    message_set_text(&wish, key, "1");
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof key, WISH_PREFIX "%d", i);
        message_set_int(&wish, key, i);
    }
    ok(!sink_restart(in, 5, UINT64_MAX, &wish), "it begins anew, and wishes more than it may");
    message_clear(&wish);
    for (int i = 0; i < TAP_PATIENCE_S * 100 && !source_restarted(s, &start); i++)
        stream_wait(NULL, s, -1, 10);
    is_int((long long)start, 5, "where it says");
    is_int(source_wish(s)->facts, 24, "so many are kept");
    ok(!message_fact(source_wish(s), WISH_PREFIX "size") &&
           !message_fact(source_wish(s), WISH_PREFIX "long") &&
           message_int(source_wish(s), WISH_PREFIX "23", -1) == 23,
       "none of before, none that is long");
    Ticket beyond;
    Source *down = source_open("records", "test", NULL);
    ticket_parse(source_ticket(down), strlen(source_ticket(down)), &beyond);
    c.wish = source_wish(s);
    Sink *stage = sink_open(&beyond, &c);
    ok(stage && source_hello(down, &start) == 1 && source_wish(down)->facts == 24,
       "and can be passed on as they are");
    sink_close(&stage);
    source_close(&down);
    ok(!sink_restart(in, 0, UINT64_MAX, NULL), "nobody need wish");
    for (int i = 0; i < TAP_PATIENCE_S * 100 && !source_restarted(s, &start); i++)
        stream_wait(NULL, s, -1, 10);
    is_int(source_wish(s)->facts, 0, "then there is none");
    sink_close(&in);
    source_close(&s);
}

/* Standard error goes into a file, from here to heard(). */
static FILE *spoken;
static int stderr_was;

static void listen_to_stderr(void)
{
    stderr_was = dup(STDERR_FILENO);
    spoken = tmpfile();
    if (!spoken || stderr_was < 0 || dup2(fileno(spoken), STDERR_FILENO) < 0)
        exit(1);
}

static int times_said(const char *text)
{
    static char all[1 << 16];
    int n = 0;
    ssize_t size = pread(fileno(spoken), all, sizeof all - 1, 0);
    all[size > 0 ? size : 0] = 0;
    for (const char *p = all; (p = strstr(p, text)); p++)
        n++;
    return n;
}

static void await_words(const char *text)
{
    for (int i = 0; i < TAP_PATIENCE_S * 100 && !times_said(text); i++)
        usleep(10000);
}

static void heard(void)
{
    dup2(stderr_was, STDERR_FILENO);
    close(stderr_was);
    fclose(spoken);
}

static void *say_hello(void *source)
{
    uint64_t start;
    return source_hello(source, &start) == 1 ? source : NULL;
}

static void *get_welcome(void *sink)
{
    return (void *)(uintptr_t)sink_welcome(sink);
}

static void *get_record(void *sink)
{
    Message m;
    int rc = sink_next(sink, &m, -1);
    message_clear(&m);
    return rc == 1 ? sink : NULL;
}

static void *get_ticket(void *fd)
{
    static Ticket t;
    return ticket_read(*(int *)fd, "records", &t) ? NULL : &t;
}

static void *get_note(void *link)
{
    Message m;
    int rc = link_recv(link, &m, -1);
    message_clear(&m);
    return rc == 1 ? link : NULL;
}

/* Who waits for long says for what, once, and goes on waiting. */
static void long_waits(void)
{
    pthread_t thread;
    void *got;
    Ticket t;
    Message m;
    int fd[2], counts[5];
    const int64_t shape[] = { 1 };
    Source *s = source_open("records", "test", NULL);
    Link *teacher = link_listen("teacher");
    SinkConfig c = { .program = "test", .kinds = "records", .credit = 1, .limit = UINT64_MAX, .life = -1 };
    if (!ok(s && teacher && !pipe(fd) && !ticket_parse(source_ticket(s), strlen(source_ticket(s)), &t),
            "a stream"))
        return;
    listen_to_stderr();
    long_wait_s = 0.05;
    pthread_create(&thread, NULL, say_hello, s);
    await_words("nobody has connected");
    Sink *in = sink_open(&t, &c);
    pthread_join(thread, &got);
    counts[0] = times_said("nobody has connected yet: waiting for whoever is to take these records");
    bool greeted = got;
    pthread_create(&thread, NULL, get_welcome, in);
    await_words("does not stream yet");
    message_init(&m, MSG_WELCOME);
    source_welcome(s, &m);
    pthread_join(thread, &got);
    counts[1] = times_said("hssl-load does not stream yet: waiting for it");
    bool welcomed = got;
    pthread_create(&thread, NULL, get_record, in);
    await_words("no records have come");
    message_init(&m, MSG_DATA);
    message_add_copy(&m, "image", MSG_U8, 1, shape, "");
    while (!source_ready(s, 0) && stream_wait(NULL, s, -1, 10) >= 0) {
    }
    source_send(s, &m);
    pthread_join(thread, &got);
    counts[2] = times_said("no records have come from test yet: waiting for them");
    bool fed = got;
    pthread_create(&thread, NULL, get_ticket, &fd[0]);
    await_words("no ticket has come");
    bool wrote = write(fd[1], source_ticket(s), strlen(source_ticket(s))) > 0;
    pthread_join(thread, &got);
    counts[3] = times_said("no ticket has come on standard input yet: waiting for hssl-load");
    bool read = got;
    pthread_create(&thread, NULL, get_note, teacher);
    await_words("whoever is to take this ticket");
    ticket_parse(link_ticket(teacher), strlen(link_ticket(teacher)), &t);
    Link *trainer = link_connect(&t);
    message_init(&m, MSG_NOTE);
    link_send(trainer, &m);
    pthread_join(thread, &got);
    counts[4] = times_said("nobody has connected yet: waiting for whoever is to take this ticket");
    bool noted = got;
    long_wait_s = 10;
    heard();
    ok(greeted && counts[0] == 1, "a producer says that nobody has connected, and waits: %d", counts[0]);
    ok(welcomed && counts[1] == 1, "a consumer that the stream has not begun: %d", counts[1]);
    ok(fed && counts[2] == 1, "and that no record comes: %d", counts[2]);
    ok(wrote && read && counts[3] == 1, "or that there is no ticket: %d", counts[3]);
    ok(noted && counts[4] == 1, "a teacher that it has no trainer: %d", counts[4]);
    link_close(&trainer);
    link_close(&teacher);
    sink_close(&in);
    source_close(&s);
    close(fd[0]);
    close(fd[1]);
}

int main(void)
{
    char dir[] = "/tmp/hssl-flow-XXXXXX";
    int left = 0;
    if (!mkdtemp(dir))
        return 1;
    setenv("XDG_RUNTIME_DIR", dir, 1);
    stream_of_records();
    wrong_kind();
    credit_and_limit();
    goodbye_between();
    wishes();
    long_waits();
    producer_dies();
    batches("in order", (Maker){ .count = 300, .per_epoch = 100 }, 10, 0, 0);
    batches("shuffled, some twice, with a tail", (Maker){ .count = 515, .per_epoch = 103, .shuffle = 16, .twice = 3 }, 10, 0, 4);
    batches("late ones are far behind", (Maker){ .count = 200, .per_epoch = 100, .shuffle = 16 }, 8, 0, 3);
    batches("from the middle", (Maker){ .count = 300, .per_epoch = 100, .shuffle = 7 }, 7, 121, 2);
    batches("bad ones are replaced", (Maker){ .count = 300, .per_epoch = 100, .shuffle = 5, .bad_every = 6 }, 10, 0, 0);
    batches("also from the middle", (Maker){ .count = 300, .per_epoch = 100, .shuffle = 8, .bad_every = 6 }, 10, 150, 4);
    batch_errors();
    links();
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        left += e->d_name[0] != '.';
    closedir(d);
    is_int(left, 0, "nothing is left in the socket directory");
    rmdir(dir);
    return tap_done();
}
