/* hssl-top: running pipelines on a terminal. Reads their gauges and sends them nothing. */
#include "stream/survey.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"
#include "util/text.h"

#include <json-c/json.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CHAIN = 64, LEAST_WIDTH = 40, MOST_WIDTH = 290, USUAL_WIDTH = 80, USUAL_HEIGHT = 24 };

static struct {
    bool json, once;
    double interval;
    const char *dir;
} o = { .interval = 2 };

static const Opt opts[] = {
    OPT_FLAG("json", 'j', &o.json, "print each sample as a line of JSON"),
    OPT_FLAG("once", '1', &o.once, "one sample, then exit"),
    OPT_REAL("interval", 'i', &o.interval, 0.05, 86400, "SECONDS", "time between samples"),
    OPT_STR("dir", 'd', &o.dir, "DIR", "look for pipelines in DIR (their XDG_RUNTIME_DIR or TMPDIR)"),
    OPT_END
};

static const OptProgram program = {
    "hssl-top", "[OPTION]...", "show running pipelines and what limits them", .opts = opts,
    .examples = "  hssl-top\n"
                "  hssl-top --once\n"
                "  hssl-top --json --interval 10 >> pipeline.jsonl\n"
};

static atomic_bool resized, suspended;
static int woken = -1; /* readable when one of them is new */
static int width = USUAL_WIDTH, height = USUAL_HEIGHT, processors = 1;
static bool screen; /* redraw, else one table after the other */
static const char *bold = "", *inverse = "", *plain = "";

static void measure(void)
{
    struct winsize w;
    cpu_set_t set;
    const char *columns = getenv("COLUMNS");
    int given = columns ? atoi(columns) : 0;
    resized = false;
    if (screen && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col && w.ws_row) {
        width = w.ws_col;
        height = w.ws_row;
    }
    if (given > 0)
        width = given;
    width = width < LEAST_WIDTH ? LEAST_WIDTH : width > MOST_WIDTH ? MOST_WIDTH : width;
    if (!sched_getaffinity(0, sizeof set, &set))
        processors = CPU_COUNT(&set);
}

/* ---------------------------------------------------------------- the terminal */

static struct termios cooked; /* how the terminal was */
static bool keys; /* standard input gives keys one by one */

static void say(const char *text)
{
    if (write(STDOUT_FILENO, text, strlen(text)) < 0)
        resized = true; /* nothing else can be done about it here */
}

/* A screen of its own, without the cursor. */
static void enter(void)
{
    struct termios raw = cooked;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    if (keys)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    say("\033[?1049h\033[?25l\033[2J");
}

static void leave(void)
{
    say("\033[?25h\033[?1049l");
    if (keys)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &cooked);
}

/* On the thread that waits for signals: the one that draws does the rest. */
static void on_signal(int sig)
{
    if (sig == SIGTSTP)
        suspended = true;
    resized = true;
    eventfd_write(woken, 1);
}

static void suspend(void)
{
    suspended = false;
    leave();
    raise(SIGSTOP);
    enter();
}

static void use_screen(void)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    screen = !o.json && !o.once && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb");
    if (!screen)
        return;
    if (!no_color || !*no_color) {
        bold = "\033[1m";
        inverse = "\033[7m";
        plain = "\033[0m";
    }
    keys = isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &cooked);
    if ((woken = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0) {
        stop_hear(SIGWINCH, on_signal);
        stop_hear(SIGTSTP, on_signal);
    }
}

/* ---------------------------------------------------------------- text */

typedef struct {
    char *text;
    size_t n;
    FILE *file;
    int lines;
} Page;

/* One line, cut at the edge of the screen, with what the last drawing left behind it erased. */
static void put(Page *p, const char *line, const char *style)
{
    if (screen && p->lines >= height - 1)
        return;
    p->lines++;
    if (screen)
        fprintf(p->file, "%s%.*s%s\033[K\r\n", style, width, line, *style ? plain : "");
    else
        fprintf(p->file, "%s\n", line);
}

/* Text of any length, broken between words. */
static void put_text(Page *p, const char *text)
{
    const char *indent = "";
    while (*text) {
        char line[300];
        size_t n = strlen(text), room = (size_t)width - strlen(indent);
        if (n > room) {
            for (n = room; n > 1 && text[n] != ' ';)
                n--;
            n = n > 1 ? n : room;
        }
        snprintf(line, sizeof line, "%s%.*s", indent, (int)n, text);
        put(p, line, bold);
        text += n;
        text += *text == ' ';
        indent = "  ";
    }
}

static void bytes_text(double b, char *s, size_t size)
{
    const char *unit = "KMGT";
    b /= 1024;
    while (b >= 1000 && unit[1]) {
        b /= 1024;
        unit++;
    }
    if (b < 0)
        snprintf(s, size, "-");
    else
        snprintf(s, size, b < 10 ? "%.1f%c" : "%.0f%c", b, *unit);
}

static void count_text(double v, char *s, size_t size)
{
    if (v < 1e5)
        snprintf(s, size, v < 99.95 ? "%.1f" : "%.0f", v);
    else
        snprintf(s, size, v < 1e7 ? "%.0fk" : "%.3gM", v < 1e7 ? v / 1e3 : v / 1e6);
}

static void put_stage(Page *p, const Survey *s, int i)
{
    const SurveyStage *st = &s->stage[i];
    const uint64_t *v = (const uint64_t *)st->page.value;
    char line[200], name[40], rate[16], held[16] = "", resident[16], restarts[24] = "", bad[24];
    count_text(st->rate, rate, sizeof rate);
    bytes_text(st->resident, resident, sizeof resident);
    if (!st->worker)
        snprintf(held, sizeof held, "%llu", (unsigned long long)survey_held(st));
    if (st->page.name[GAUGE_WORK][0])
        snprintf(restarts, sizeof restarts, "%llu", (unsigned long long)v[GAUGE_RESTARTS]);
    snprintf(bad, sizeof bad, "%llu", (unsigned long long)v[GAUGE_BAD]);
    snprintf(name, sizeof name, "%s%s", st->worker ? "  " : "", survey_name(st));
    snprintf(line, sizeof line, "%8lld %-17.17s %8s %6s %5.1f %5.1f %5.1f %8s %5s %4s", (long long)st->page.pid,
             name, rate, held, 100 * st->in, 100 * st->out, 100 * st->busy, resident, restarts, bad);
    put(p, line, "");
}

static uint64_t local_workers(const Survey *s, int hub)
{
    uint64_t n = 0;
    for (int i = 0; i < s->n; i++)
        n += s->stage[i].worker && s->stage[i].up == hub;
    return n;
}

/* A trainer's progress; workers of other hosts. */
static void put_notes(Page *p, const Survey *s, int i)
{
    const SurveyStage *st = &s->stage[i];
    const uint64_t *v = (const uint64_t *)st->page.value;
    char line[160];
    double loss;
    if (v[GAUGE_STEPS]) {
        memcpy(&loss, &v[GAUGE_LOSS], sizeof loss);
        snprintf(line, sizeof line, "%11sstep %llu of %llu, loss %.4f", "",
                 (unsigned long long)v[GAUGE_STEP], (unsigned long long)v[GAUGE_STEPS], loss);
        put(p, line, "");
    }
    if (st->page.name[GAUGE_WARNING][0]) {
        char text[300];
        snprintf(text, sizeof text, "%s: %s", survey_name(st), st->page.name[GAUGE_WARNING]);
        put_text(p, text);
    }
    if (v[GAUGE_WORKERS] > local_workers(s, i) && st->page.name[GAUGE_WORK][0]) {
        snprintf(line, sizeof line, "%11s+ %llu elsewhere", "",
                 (unsigned long long)(v[GAUGE_WORKERS] - local_workers(s, i)));
        put(p, line, "");
    }
}

static void limit_of(const Survey *s, int i, SurveyLimit *l)
{
    const SurveyStage *chain[MAX_CHAIN];
    int n = survey_chain(s, i, chain, MAX_CHAIN);
    survey_limit(chain, n, processors, l);
}

static void draw(Page *p, const Survey *s)
{
    char head[160], clock[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(clock, sizeof clock, "%H:%M:%S", localtime_r(&now, &tm));
    snprintf(head, sizeof head, "hssl-top  %s  %d pipeline%s  every %g s  %d processor%s", clock, s->pipelines,
             s->pipelines == 1 ? "" : "s", o.interval, processors, processors == 1 ? "" : "s");
    put(p, head, "");
    if (!s->n)
        put(p, "no pipeline of yours is running", "");
    for (int pl = 0; pl < s->pipelines; pl++) {
        put(p, "", "");
        for (int i = 0; i < s->n; i++)
            if (s->stage[i].pipeline == pl && survey_last(s, i)) {
                SurveyLimit l;
                limit_of(s, i, &l);
                put_text(p, l.text);
            }
        put(p, "     PID STAGE             IMAGES/S   HELD   IN%  OUT% BUSY%   MEMORY  NEW  BAD", inverse);
        for (int i = 0; i < s->n; i++)
            if (s->stage[i].pipeline == pl) {
                put_stage(p, s, i);
                put_notes(p, s, i);
            }
    }
}

static int show(const Survey *s)
{
    Page p = { 0 };
    if (!(p.file = open_memstream(&p.text, &p.n)))
        return err_set(ERR_MEMORY, "out of memory");
    if (screen)
        fputs("\033[H", p.file);
    draw(&p, s);
    if (screen)
        fputs("\033[J", p.file);
    else if (!o.once)
        fputc('\n', p.file);
    fclose(p.file);
    bool wrote = p.text && fwrite(p.text, 1, p.n, stdout) == p.n && !fflush(stdout);
    free(p.text);
    return wrote ? 0 : err_system("standard output");
}

/* ---------------------------------------------------------------- JSON */

static void number(json_object *to, const char *key, double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.6g", v);
    json_object_object_add(to, key, json_object_new_double_s(v, text));
}

static json_object *stage_json(const Survey *s, int i)
{
    static const struct {
        const char *key;
        Gauge g;
    } counts[] = {
        { "records_in", GAUGE_RECORDS_IN }, { "records_out", GAUGE_RECORDS_OUT },
        { "bytes_in", GAUGE_BYTES_IN }, { "bytes_out", GAUGE_BYTES_OUT }, { "held_bytes", GAUGE_HELD_BYTES },
        { "workers", GAUGE_WORKERS }, { "lost", GAUGE_LOST }, { "restarts", GAUGE_RESTARTS },
        { "again", GAUGE_AGAIN }, { "duplicates", GAUGE_DUPLICATES }, { "bad", GAUGE_BAD },
        { "step", GAUGE_STEP }, { "steps", GAUGE_STEPS }, { "images", GAUGE_IMAGES },
    };
    const SurveyStage *st = &s->stage[i];
    json_object *j = json_object_new_object();
    json_object_object_add(j, "stage", json_object_new_string(survey_name(st)));
    json_object_object_add(j, "pid", json_object_new_int64(st->page.pid));
    json_object_object_add(j, "started", json_object_new_int64(st->page.started / 1000000000));
    json_object_object_add(j, "serves", json_object_new_string(st->page.name[GAUGE_SERVES]));
    json_object_object_add(j, "reads", json_object_new_string(st->page.name[GAUGE_READS]));
    json_object_object_add(j, "from", st->up < 0 ? NULL : json_object_new_int64(s->stage[st->up].page.pid));
    number(j, "rate", st->rate);
    json_object_object_add(j, "held", json_object_new_int64((int64_t)survey_held(st)));
    number(j, "waits_in", st->in);
    number(j, "waits_out", st->out);
    number(j, "busy", st->busy);
    json_object_object_add(j, "resident_bytes",
                           st->resident < 0 ? NULL : json_object_new_int64((int64_t)st->resident));
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
        json_object_object_add(j, counts[k].key, json_object_new_int64((int64_t)st->page.value[counts[k].g]));
    if (st->page.value[GAUGE_STEPS])
        json_object_object_add(j, "warning", json_object_new_string(st->page.name[GAUGE_WARNING]));
    if (st->page.name[GAUGE_WORK][0]) {
        json_object *workers = json_object_new_array();
        for (int k = 0; k < s->n; k++)
            if (s->stage[k].worker && s->stage[k].up == i)
                json_object_array_add(workers, stage_json(s, k));
        json_object_object_add(j, "at_work", workers);
    }
    return j;
}

static json_object *limit_json(const Survey *s, int i)
{
    SurveyLimit l;
    json_object *j = json_object_new_object();
    limit_of(s, i, &l);
    json_object_object_add(j, "stage", l.stage ? json_object_new_string(survey_name(l.stage)) : NULL);
    json_object_object_add(j, "pid", l.stage ? json_object_new_int64(l.stage->page.pid) : NULL);
    json_object_object_add(j, "help", json_object_new_string(l.help));
    json_object_object_add(j, "text", json_object_new_string(l.text));
    return j;
}

static int print_json(const Survey *s)
{
    json_object *j = json_object_new_object(), *all = json_object_new_array();
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    json_object_object_add(j, "time",
                           json_object_new_double((double)now.tv_sec + 1e-9 * (double)now.tv_nsec));
    number(j, "interval", o.interval);
    json_object_object_add(j, "processors", json_object_new_int(processors));
    for (int pl = 0; pl < s->pipelines; pl++) {
        json_object *one = json_object_new_object(), *stages = json_object_new_array();
        json_object *limits = json_object_new_array();
        for (int i = 0; i < s->n; i++) {
            if (s->stage[i].pipeline != pl)
                continue;
            if (!s->stage[i].worker || s->stage[i].up < 0)
                json_object_array_add(stages, stage_json(s, i));
            if (survey_last(s, i))
                json_object_array_add(limits, limit_json(s, i));
        }
        json_object_object_add(one, "stages", stages);
        json_object_object_add(one, "limits", limits);
        json_object_array_add(all, one);
    }
    json_object_object_add(j, "pipelines", all);
    text_put_json(stdout, json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN));
    bool wrote = putchar('\n') != EOF && !fflush(stdout);
    json_object_put(j);
    return wrote ? 0 : err_system("standard output");
}

/* ---------------------------------------------------------------- the loop */

/* Whether the user has pressed q. */
static bool quit(void)
{
    char key;
    return read(STDIN_FILENO, &key, 1) == 1 && (key == 'q' || key == 'Q');
}

/* 0 when the interval is over or a signal asks to stop, 1 when the screen must be drawn anew, 2 to quit. */
static int pause_for(double seconds)
{
    double until = log_seconds() + seconds;
    for (;;) {
        double left = until - log_seconds();
        struct pollfd p[3] = { { .fd = stop_fd(), .events = POLLIN },
                               { .fd = keys ? STDIN_FILENO : -1, .events = POLLIN },
                               { .fd = woken, .events = POLLIN } };
        if (left <= 0 || stop_signal())
            return 0;
        if (suspended)
            suspend();
        if (resized)
            return 1;
        if (poll(p, 3, (int)(1000 * left) + 1) > 0 && p[1].revents && quit())
            return 2;
        if (p[2].revents)
            eventfd_read(woken, &(eventfd_t){ 0 });
        keys = keys && !(p[1].revents & (POLLHUP | POLLERR | POLLNVAL));
    }
}

static int watch(void)
{
    Survey before, now;
    measure();
    if (survey_take(&before, o.dir))
        return -1;
    if (o.once && !before.n) {
        survey_free(&before);
        return err_set(ERR_PEER, "no pipeline of yours is running (looked in %s)",
                       o.dir ? o.dir : "XDG_RUNTIME_DIR, TMPDIR and /tmp; --dir names another place");
    }
    survey_compare(&before, NULL);
    int rc = o.once || o.json ? 0 : show(&before);
    while (!rc && !stop_signal()) {
        int why = pause_for(o.interval);
        if (why == 2)
            break;
        if (why) {
            measure();
            fputs("\033[2J", stdout);
            rc = show(&before);
            continue;
        }
        if (stop_signal())
            break;
        if ((rc = survey_take(&now, o.dir)))
            break;
        survey_compare(&now, &before);
        rc = o.json ? print_json(&now) : show(&now);
        survey_free(&before);
        before = now;
        if (o.once)
            break;
    }
    survey_free(&before);
    return rc;
}

int main(int argc, char **argv)
{
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: takes no operands", argv[1]);
    use_screen();
    if (stop_install())
        die();
    if (screen)
        enter();
    int rc = watch();
    if (screen)
        leave();
    if (rc)
        log_error("%s", err_text());
    return rc ? 1 : stop_status();
}
