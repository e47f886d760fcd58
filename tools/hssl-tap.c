/* hssl-tap: passes a stream on and shows what passes, or looks on at a stage that runs. */
#include "image/image.h"
#include "image/sheet.h"
#include "stream/link.h"
#include "stream/stage.h"
#include "stream/survey.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/output.h"
#include "util/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HOLD = 2048, LARGEST_TILE = 128, SHEET_DEFAULT = 8 };

static struct {
    const char *attach, *sheet;
    int64_t count;
    bool json, sums, exit, quiet;
} o;

static StreamOptions stream = { .memory = STREAM_MEMORY };

static const Opt opts[] = {
    OPT_STR("attach", 'a', &o.attach, "STAGE", "look on at a running stage: its process ID or its ticket's file"),
    OPT_FLAG("json", 'j', &o.json, "show each message as a line of JSON"),
    OPT_FLAG("sums", 0, &o.sums, "with --json: a checksum of each tensor, to compare pixels"),
    OPT_STR("sheet", 's', &o.sheet, "FILE", "draw the first images' views into a PNG, a row an image"),
    OPT_INT("count", 'n', &o.count, 0, 1e9, "N", "show the first N records only (0: all; a sheet: 8)"),
    OPT_FLAG("exit", 'x', &o.exit, "leave after --count records"),
    OPT_FLAG("quiet", 'q', &o.quiet, "show nothing, only pass on"),
    STREAM_MEMORY_OPT(&stream),
    OPT_END
};

static const OptProgram program = {
    "hssl-tap", "[OPTION]... < STREAM [> STREAM] | hssl-tap --attach STAGE [OPTION]...",
    "show what passes through a pipe", .opts = opts,
    .examples = "  hssl-load photos.db | hssl-augment | hssl-tap --sheet views.png --count 8 --exit\n"
                "  hssl-tap --attach 4711 --sheet now.png\n"
                "  hssl-load photos.db | hssl-tap --json 2> log.jsonl | hssl-augment | hssl-train -o run.db\n"
};

static Sheet *sheet;
static FILE *lines; /* standard error where standard output carries a ticket */

/* Whether somebody could read a ticket from standard output; else this program ends the pipeline. Where
 * standard error goes into the same pipe (2>&1 | less) the reader is a person. */
static bool someone_may_listen(void)
{
    struct stat out, err;
    if (fstat(STDOUT_FILENO, &out) ||
        !(S_ISFIFO(out.st_mode) || S_ISSOCK(out.st_mode) || S_ISREG(out.st_mode)))
        return false;
    return fstat(STDERR_FILENO, &err) || err.st_dev != out.st_dev || err.st_ino != out.st_ino;
}

static int show_line(const Message *m)
{
    char *line = o.json ? message_json(m, o.sums) : message_describe(m);
    if (!line)
        return -1;
    bool wrote = fprintf(lines, "%s\n", line) >= 0 && !fflush(lines);
    free(line);
    return wrote ? 0 : err_system("standard output");
}

static int add_views(const MsgTensor *t)
{
    if (t->dtype != MSG_U8 || t->ndim != 4 || !t->data || t->shape[1] != t->shape[2] || t->shape[3] != 3 ||
        t->shape[1] < 1 || t->shape[1] > 8192)
        return 0;
    size_t view = (size_t)t->shape[1] * (size_t)t->shape[1] * 3;
    for (int64_t v = 0; v < t->shape[0]; v++)
        if (sheet_tile(sheet, (const uint8_t *)t->data + (size_t)v * view, (int)t->shape[1]))
            return -1;
    return 0;
}

static int show(const Message *m)
{
    if (o.json || (!o.sheet && !o.quiet))
        if (show_line(m))
            return -1;
    if (!sheet || m->type != MSG_DATA)
        return 0;
    if (sheet_row(sheet))
        return -1;
    for (int i = 0; i < m->tensors; i++)
        if (add_views(&m->tensor[i]))
            return -1;
    return 0;
}

static int write_sheet(void)
{
    Image picture = { 0 };
    void *png = NULL;
    size_t n;
    int rc = -1;
    if (!sheet)
        return 0;
    if ((picture.rgb = sheet_draw(sheet, &picture.w, &picture.h)) && !image_encode_png(&picture, &png, &n))
        rc = output_file(o.sheet, 0, png, n); /* a viewer never sees half a picture */
    free(png);
    free(picture.rgb);
    sheet_free(&sheet);
    return rc;
}

/* 1: shown all that was asked for and told to leave. */
static int observe(const Message *m, int64_t *seen)
{
    if (o.count && *seen >= o.count)
        return 0;
    if (show(m))
        return -1;
    if (++*seen != o.count)
        return 0;
    return write_sheet() ? -1 : o.exit;
}

static int end_of(Stage *st, Message *last)
{
    message_init(last, MSG_END);
    last->seq = sink_last(st->in);
    if (o.json || (!o.sheet && !o.quiet))
        show_line(last);
    return stage_end(st, sink_last(st->in));
}

static int run(Stage *st, Message *m)
{
    int64_t seen = 0;
    bool held = false;
    while (!st->left) {
        int rc = 0;
        while (!held && (rc = sink_next(st->in, m, 0)) == 1) {
            int leave = observe(m, &seen);
            if (leave)
                return leave < 0 ? -1 : 0;
            held = true;
            if (!st->out) {
                sink_ack(st->in, m->seq);
                message_clear(m);
                held = false;
            } else if (source_ready(st->out, m->seq)) {
                if (source_send(st->out, m))
                    return -1;
                held = false;
            }
        }
        if (rc < 0 && !sink_ended(st->in))
            return -1;
        st->full = held;
        rc = rc < 0 ? end_of(st, m) : stage_wait(st, -1, -1);
        if (rc < 0 || (!st->out && sink_ended(st->in)))
            return rc;
        if (st->restarted) {
            message_clear(m);
            held = st->restarted = false;
        }
        if (held && source_ready(st->out, m->seq)) {
            if (source_send(st->out, m))
                return -1;
            held = false;
        }
    }
    return 0;
}

/* ---------------------------------------------------------------- looking on */

/* The ticket of the side channel of the stage that --attach names. */
static int find_stage(Ticket *side)
{
    Survey s;
    Ticket t = { 0 };
    char *end;
    long long pid = strtoll(o.attach, &end, 10);
    if (end == o.attach || *end || pid < 1) {
        int fd = strcmp(o.attach, "-") ? open(o.attach, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
        if (fd < 0)
            return err_set(ERR_USAGE, "--attach %s: neither a process ID nor a ticket: %s", o.attach,
                           strerror(errno));
        int rc = ticket_read(fd, "records|plans|views|work", &t);
        if (fd != STDIN_FILENO)
            close(fd);
        if (rc)
            return -1;
        pid = 0;
    }
    if (survey_take(&s, NULL))
        return -1;
    const SurveyStage *st = survey_find(&s, pid, pid ? NULL : t.endpoint);
    while (st && !st->page.name[GAUGE_TAP][0] && st->up >= 0)
        st = &s.stage[st->up]; /* who gives nothing itself is asked for what it gets */
    const char *endpoint = st ? st->page.name[GAUGE_TAP] : "";
    char line[TICKET_MAX_LINE];
    int rc = -1;
    if (!st)
        err_set(ERR_PEER, "--attach %s: no such stage of yours runs on this host (hssl-top shows those that do)",
                o.attach);
    else if (!*endpoint)
        err_set(ERR_PEER, "--attach %s: this %s gives and reads no stream that can be looked at", o.attach,
                survey_name(st));
    else
        rc = ticket_parse(line, (size_t)snprintf(line, sizeof line, "hssl/%d %s %s", TICKET_VERSION,
                                                 st->page.name[GAUGE_KIND], endpoint), side);
    survey_free(&s);
    return rc;
}

/* 0: done; -1. */
static int look_on(Link *l, Message *m)
{
    int64_t seen = 0;
    bool welcomed = false;
    for (;;) {
        message_clear(m);
        if (link_recv(l, m, -1) < 0)
            return err_code() == ERR_PEER ? err_set(ERR_PEER, "the stage is gone, without an end of its stream")
                                          : -1;
        if (m->type == MSG_FAIL)
            return err_set(ERR_PEER, "%s", m->text ? m->text : "the stage gave up");
        if (m->type == MSG_WELCOME && welcomed)
            continue; /* for somebody else */
        welcomed = welcomed || m->type == MSG_WELCOME;
        if (m->type == MSG_DATA) {
            int leave = observe(m, &seen);
            if (leave)
                return leave < 0 ? -1 : 0;
        } else if ((o.json || (!o.sheet && !o.quiet)) && show_line(m)) {
            return -1;
        }
        if (m->type == MSG_END)
            return 0;
    }
}

static int attach(void)
{
    Ticket side;
    Message m = { 0 };
    Link *l = NULL;
    o.exit = true; /* leaving takes nothing away */
    int rc = find_stage(&side) || !(l = link_subscribe(&side)) ? -1 : look_on(l, &m);
    message_clear(&m);
    if (l)
        link_close(&l);
    if (rc) {
        rc = stream_status();
        if (err_code() != ERR_STOP)
            log_error("%s", err_text());
    }
    return rc;
}

/* Whatever came is drawn, also when the stream was shorter than --count. */
static int draw_rest(int rc)
{
    if (sheet && sheet_rows(sheet) && write_sheet() && !rc) {
        log_error("%s", err_text());
        rc = 1;
    }
    sheet_free(&sheet);
    return rc;
}

int main(int argc, char **argv)
{
    Stage st;
    Message m = { 0 };
    bool alone = !someone_may_listen();
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: takes no operands", argv[1]);
    if (o.sheet && !o.count)
        o.count = SHEET_DEFAULT;
    if (o.exit && !o.count)
        opt_usage("--exit: needs --count");
    if (stop_install() || (o.sheet && !(sheet = sheet_new(LARGEST_TILE))))
        die();
    lines = o.attach ? stdout : stderr;
    if (o.json && !o.attach)
        log_as_json();
    if (o.attach)
        return draw_rest(attach());
    int rc = stage_open(&st, program.name, "records|plans|views", NULL, HOLD, alone, &stream);
    if (rc > 0 && st.out) {
        Message w;
        message_init(&w, MSG_WELCOME);
        if (message_copy_facts(&w, sink_welcome(st.in)) || source_welcome(st.out, &w))
            rc = -1;
    }
    if (rc > 0 && (o.json || (!o.sheet && !o.quiet)) && show_line(sink_welcome(st.in)))
        rc = -1;
    if (rc > 0)
        rc = run(&st, &m);
    if (rc < 0) {
        rc = stream_status();
        stage_fail(&st, program.name);
        if (err_code() != ERR_STOP)
            log_error("%s", err_text());
    }
    message_clear(&m);
    rc = draw_rest(rc);
    if (!rc && o.exit && st.out)
        source_fail(st.out, "hssl-tap left, as --exit asks");
    stage_close(&st);
    return rc;
}
