/* The teacher's link against foreign messages, the log's means, and D of given logits. */
#include "../tap.h"
#include "ssl/student.h"
#include "train/journal.h"
#include "train/measure.h"
#include "train/saving.h"
#include "train/teach.h"
#include "train/teach_notes.h"
#include "util/err.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static TrainConfig small(void)
{
    TrainConfig c;
    config_init(&c);
    c.arch = "vit_nano";
    c.aux = "convnext";
    c.dim = 32, c.depth = 1, c.heads = 2, c.patch_size = 4, c.aux_depth = 1;
    c.global_size = 8, c.local_crops = 0, c.batch_size = 2;
    c.out_dim = 16, c.head_hidden = 8, c.head_bottleneck = 4;
    return c;
}

/* A teacher in a process of its own, which has not used ZeroMQ before. */
static pid_t teacher_process(char *line, size_t size)
{
    int out[2];
    if (pipe(out))
        return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        TeachServer s = { .trainer = link_listen(TEACH_KIND), .device = "cpu", .every = 1 };
        const char *ticket = s.trainer ? link_ticket(s.trainer) : "";
        close(out[0]);
        if (write(out[1], ticket, strlen(ticket)) < 0)
            _exit(9);
        close(out[1]);
        int rc = s.trainer ? teach_serve(&s) : -1;
        link_close(&s.trainer);
        _exit(rc ? 1 : 0);
    }
    close(out[1]);
    ssize_t n, have = 0;
    while ((n = read(out[0], line + have, size - 1 - (size_t)have)) > 0)
        have += n;
    line[have] = 0;
    close(out[0]);
    return pid;
}

static int add_start(Message *m, const TrainConfig *c, size_t floats, const char *medium)
{
    char *text = config_to_json(c);
    float *zero = calloc(floats ? floats : 1, sizeof *zero);
    int rc = note_begin(m, "start") || message_set_int(m, "protocol", TEACH_PROTOCOL) ||
             message_set_text(m, "config", text) || message_set_int(m, "threads", 1) ||
             message_set_text(m, "medium", medium) ||
             message_add_copy(m, "params", MSG_F32, 1, (int64_t[]){ (int64_t)floats }, zero);
    free(zero);
    free(text);
    return rc;
}

enum {
    NO_START = 1,
    SHORT_PARAMS,
    NO_MEDIUM,
    NO_PIXELS,
    WRONG_PIXELS,
    NO_TEMP,
    BAD_MOMENTUM,
    NO_WEIGHTS,
    SHORT_STATE,
    ALIEN_BLOCK,
    UNKNOWN,
    CASES
};
static const char *const case_names[] = { "",
                                          "a step before the start",
                                          "too few weights",
                                          "a medium that nobody knows",
                                          "no pixels",
                                          "pixels of another size",
                                          "no temperature",
                                          "a momentum of 2",
                                          "an update without weights",
                                          "a short state",
                                          "a block that cannot be mapped",
                                          "an unknown note" };

/* Send what the case says. */
static int send_case(Link *l, int which, const TrainConfig *c)
{
    Message m, reply;
    size_t floats = student_bytes(c) / sizeof(float);
    uint8_t pixels[2 * 2 * 8 * 8 * 3] = { 0 };
    int64_t side = which == WRONG_PIXELS ? 4 : 8, shape[] = { 2, 2, side, side, 3 };
    int rc = 0;
    if (which != NO_START) {
        if (add_start(&m, c, which == SHORT_PARAMS ? floats - 1 : floats, which == NO_MEDIUM ? "pigeon" : "inline") ||
            link_send(l, &m))
            return -1;
        if (which == SHORT_PARAMS || which == NO_MEDIUM)
            return 0;
        if (link_recv(l, &reply, 20000) != 1)
            return -1;
        rc = strcmp(note_op(&reply), "started");
        message_clear(&reply);
    }
    if (which == BAD_MOMENTUM || which == NO_WEIGHTS)
        rc |= note_begin(&m, "update") || message_set_real(&m, "momentum", which == BAD_MOMENTUM ? 2 : 0.5);
    else if (which == SHORT_STATE)
        rc |= note_begin(&m, "load") || message_add_copy(&m, "state", MSG_F32, 1, (int64_t[]){ 3 }, pixels);
    else if (which == UNKNOWN)
        rc |= note_begin(&m, "dance");
    else
        rc |= note_begin(&m, "step") || message_set_int(&m, "step", 0) || message_set_int(&m, "epoch", 0) ||
              message_set_real(&m, "temp", which == NO_TEMP ? 0 : 0.04);
    if (which == WRONG_PIXELS || which == NO_TEMP)
        rc |= message_add_copy(&m, "global", MSG_U8, 5, shape, pixels);
    if (which == ALIEN_BLOCK) {
        ShmBlock alien = { .size = 1 << 20, .fd = 0, .pid = getpid() };
        rc |= message_add_shared(&m, "global", MSG_U8, 5, shape, &alien, 0);
    }
    return rc ? -1 : link_send(l, &m);
}

static void test_foreign(void)
{
    TrainConfig c = small();
    for (int i = NO_START; i < CASES; i++) {
        char line[TICKET_MAX_LINE];
        Ticket t;
        Message m = { 0 };
        int status = -1;
        pid_t pid = teacher_process(line, sizeof line);
        fflush(stdout);
        pid_t trainer = fork();
        if (trainer == 0) {
            Link *l = ticket_parse(line, strlen(line), &t) ? NULL : link_connect(&t);
            int rc = l ? send_case(l, i, &c) : -1;
            bool refused = !rc && link_recv(l, &m, 20000) == 1 && m.type == MSG_FAIL && m.text && *m.text;
            message_clear(&m);
            link_close(&l);
            _exit(refused ? 0 : 1);
        }
        waitpid(trainer, &status, 0);
        bool refused = WIFEXITED(status) && !WEXITSTATUS(status);
        waitpid(pid, &status, 0);
        ok(refused && WIFEXITED(status) && WEXITSTATUS(status) == 1, "the teacher refuses %s", case_names[i]);
    }
}

static void test_measure(void)
{
    /* KL((1/2, 1/2) || (1/4, 3/4)) = 0.143841, with temperature 1 and no centres to speak of. */
    float base[] = { 0, 0 }, head[] = { 0, (float)log(3) }, none[] = { 0, 0 };
    Discrepancy d = measure_logits(base, head, none, none, 1, 2, 1, 1);
    ok(fabs(d.d - 0.143841) < 1e-6 && fabs(d.d_role - 0.143841) < 1e-6, "D of given logits: %.6f, %.6f", d.d,
       d.d_role);
    d = measure_logits(head, head, none, none, 1, 2, 0.04, 0.04);
    ok(d.d == 0, "D of equal logits is 0");
    float moved[] = { 5, 5 + (float)log(3) }, five[] = { 5, 5 };
    d = measure_logits(base, moved, none, five, 1, 2, 1, 1);
    ok(fabs(d.d - 0.143841) < 1e-6, "the centre is taken away");
}

static void test_journal(void)
{
    char path[64];
    EpochMeans *e = NULL;
    snprintf(path, sizeof path, "/tmp/hssl-journal.%d", (int)getpid());
    Run *run = run_create(path, "{}", true);
    Journal j = { .run = run };
    const struct {
        int epoch;
        double d;
    } lines[] = { { 0, 1 }, { 1, 2 }, { 2, 3 }, { 1, 4 }, { 2, NAN } }; /* resumed after the first */
    for (size_t i = 0; run && i < sizeof lines / sizeof *lines; i++) {
        json_object *line = journal_line("epoch");
        journal_int(line, "epoch", lines[i].epoch);
        journal_real(line, "d", lines[i].d);
        if (journal_write(&j, line))
            diag("%s", err_text());
    }
    ok(run && !run_flush(run), "the log is written");
    is_int(run ? journal_epochs(run, &e) : -1, 3, "a resumed run repeats epochs: each counts once");
    ok(e && e[0].d == 1 && e[1].d == 4 && isnan(e[2].d) && isnan(e[0].loss),
       "the last word on an epoch counts");
    free(e);
    if (run_close(run))
        diag("%s", err_text());
    unlink(path);
    snprintf(path, sizeof path, "/tmp/hssl-journal.%d-lock", (int)getpid());
    unlink(path);
}

/* What a checkpoint says of where the training stands is foreign: a position is asked of the stream. */
static void test_progression(void)
{
    static const struct {
        const char *what, *step, *position, *records, *steps, *images, *sums;
    } wrong[] = {
        { "a position without end", "64", "-64", "4611686018427387888", "16", "256", "0" },
        { "more records than there can be", "4", "16", "4611686018427387888", "16", "16", "4" },
        { "a position of another epoch", "64", "192", "64", "16", "256", "0" },
        { "a position that is none of a batch", "60", "241", "64", "16", "240", "12" },
        { "a position within the first batch", "64", "257", "64", "16", "256", "0" },
        { "no step an epoch", "64", "256", "64", "0", "256", "0" },
        { "images without end", "64", "256", "64", "16", "9223372036854775807", "0" },
        { "fewer images than none", "64", "256", "64", "16", "-1", "0" },
        { "sums over more steps than were done", "60", "240", "64", "16", "240", "13" },
        { "sums over fewer than none", "60", "240", "64", "16", "240", "-1" },
    };
    char dir[] = "/tmp/hssl-train-XXXXXX", path[64], meta[512];
    const float x = 1;
    const StoredTensor t = { "x", STORED_F32, 1, { 1 }, &x, sizeof x };
    Progression p;
    snprintf(path, sizeof path, "%s/r.db", mkdtemp(dir) ? dir : "");
    Run *run = run_create(path, "{}", false);
    for (size_t i = 0; i <= sizeof wrong / sizeof *wrong; i++) {
        bool good = i == sizeof wrong / sizeof *wrong;
        snprintf(meta, sizeof meta,
                 "{\"step\":%s,\"position\":%s,\"records_per_epoch\":%s,\"steps_per_epoch\":%s,"
                 "\"images\":%s,\"threads\":1,\"seconds\":1.5,\"digest\":\"\",\"epoch_sums\":{\"steps\":%s,"
                 "\"loss\":1}}",
                 good ? "68" : wrong[i].step, good ? "272" : wrong[i].position,
                 good ? "64" : wrong[i].records, good ? "16" : wrong[i].steps, good ? "272" : wrong[i].images,
                 good ? "4" : wrong[i].sums);
        if (!run || run_save(run, good ? 68 : strtoull(wrong[i].step, NULL, 10), meta, &t, 1, 1)) {
            ok(0, "a checkpoint: %s", err_text());
            break;
        }
        int rc = saving_peek(run, &p);
        ok(good ? rc == 0 && p.step == 68 && p.position == 272 : rc == -1 && err_code() == ERR_DATA, "%s: %s",
           good ? "where a training stands" : wrong[i].what, rc ? err_text() : "taken");
    }
    if (run_close(run))
        diag("%s", err_text());
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    test_foreign();
    test_progression();
    test_measure();
    test_journal();
    return tap_done();
}
