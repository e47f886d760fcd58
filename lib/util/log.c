#include "util/log.h"

#include "util/err.h"
#include "util/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *program_name = "hssl";
static atomic_bool line_drawn; /* a progress line stands on the terminal */

void log_name(const char *program)
{
    program_name = program;
}

const char *log_program(void)
{
    return program_name;
}

static bool as_json(void)
{
    const char *form = getenv("HSSL_MESSAGES");
    return form && !strcmp(form, "json");
}

void log_as_json(void)
{
    setenv("HSSL_MESSAGES", "json", 1); /* for the programs that this one starts, too */
}

/* One write a line, so that lines of several processes do not mix. Its text is foreign. */
static void put_line(const char *line, size_t n)
{
    line_drawn = false;
    fflush(stdout);
    if (write(STDERR_FILENO, line, n) < 0) {
        /* nobody hears us: nothing to be done */
    }
}

static void put_object(const char *level, const char *message, const char *more)
{
    char *line = NULL, time_text[64];
    size_t n = 0;
    struct timespec now;
    struct tm utc;
    FILE *f = open_memstream(&line, &n);
    if (!f)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &utc);
    fprintf(f, "{\"time\":\"%s.%03ldZ\",\"program\":\"%s\",\"level\":\"%s\",", time_text,
            now.tv_nsec / 1000000, program_name, level);
    fputs("\"message\":", f);
    text_put_string(f, message);
    fprintf(f, "%s}\n", more);
    if (!fclose(f))
        put_line(line, n);
    free(line);
}

static void say(const char *level, const char *mark, const char *fmt, va_list ap)
{
    char line[2048];
    bool json = as_json();
    int n =
        json ? 0 : snprintf(line, sizeof line, "%s%s: %s", line_drawn ? "\r\033[K" : "", program_name, mark);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    if (m < 0)
        line[n] = 0;
    if (json) {
        put_object(level, line, "");
        return;
    }
    text_plain(line + n, line + n, sizeof line - (size_t)n - 1); /* it holds foreign text, such as a file's name */
    size_t end = strlen(line);
    line[end++] = '\n';
    put_line(line, end);
}

#define SAY(level, mark) \
    do { \
        va_list ap; \
        va_start(ap, fmt); \
        say(level, mark, fmt, ap); \
        va_end(ap); \
    } while (0)

void log_info(const char *fmt, ...)
{
    SAY("info", "");
}

void log_warn(const char *fmt, ...)
{
    SAY("warning", "warning: ");
}

void log_error(const char *fmt, ...)
{
    SAY("error", "");
}

void die(void)
{
    log_error("%s", err_text());
    exit(1);
}

void die_with(const char *fmt, ...)
{
    SAY("error", "");
    exit(1);
}

bool log_debugging(const char *subsystem)
{
    const char *list = getenv("HSSL_DEBUG");
    if (!list)
        return false;
    size_t len = strlen(subsystem);
    for (const char *p = list; *p; p += strspn(p, ",")) {
        size_t n = strcspn(p, ",");
        if ((n == len && !strncmp(p, subsystem, n)) || (n == 3 && !strncmp(p, "all", 3)))
            return true;
        p += n;
    }
    return false;
}

void log_debug(const char *subsystem, const char *fmt, ...)
{
    if (log_debugging(subsystem))
        SAY("debug", "debug: ");
}

double log_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_start(Progress *p, const char *what, const char *unit, int64_t done, int64_t total)
{
    const char *term = getenv("TERM");
    *p = (Progress){.what = what,
                    .unit = unit,
                    .total = total,
                    .done = done,
                    .start_done = done,
                    .started = log_seconds(),
                    .tty = isatty(STDERR_FILENO) && !as_json() && term && strcmp(term, "dumb")};
    p->shown = p->started;
}

static void format_eta(char *buf, size_t size, double s)
{
    if (s < 0 || s > 100 * 86400.0)
        snprintf(buf, size, "?");
    else if (s < 60)
        snprintf(buf, size, "%.0f s", s);
    else if (s < 3600)
        snprintf(buf, size, "%d:%02d min", (int)s / 60, (int)s % 60);
    else
        snprintf(buf, size, "%d:%02d h", (int)s / 3600, (int)s % 3600 / 60);
}

static void draw(Progress *p, double rate, double left, const char *note)
{
    char eta[32], plain[256];
    format_eta(eta, sizeof eta, left);
    fprintf(stderr, "\r\033[K%s: %s %lld", program_name, p->what, (long long)p->done);
    if (p->total)
        fprintf(stderr, "/%lld (%.0f %%)", (long long)p->total, 100.0 * (double)p->done / (double)p->total);
    fprintf(stderr, "  %.4g %s/s", rate, p->unit);
    if (p->total)
        fprintf(stderr, "  ETA %s", eta);
    fprintf(stderr, "%s%s", *note ? "  " : "", text_plain(note, plain, sizeof plain));
    fflush(stderr);
    p->drawn = true;
    line_drawn = true;
}

static void report(const Progress *p, double rate, double left, const char *note)
{
    char numbers[256], *fields;
    bool json = as_json();
    const char *form =
        json ? ",\"done\":%lld,\"total\":%lld,\"rate\":%.6g" : "done=%lld total=%lld rate=%.6g";
    int n = snprintf(numbers, sizeof numbers, form, (long long)p->done, (long long)p->total, rate);
    if (left >= 0)
        n +=
            snprintf(numbers + n, sizeof numbers - (size_t)n, json ? ",\"eta_s\":%.0f" : " eta_s=%.0f", left);
    snprintf(numbers + n, sizeof numbers - (size_t)n, json ? ",\"unit\":\"%s\"" : " unit=%s", p->unit);
    if (!json)
        log_info("progress what=%s %s%s%s", p->what, numbers, *note ? " " : "", note);
    else if (asprintf(&fields, ",\"progress\":\"%s\"%s", p->what, numbers) >= 0) {
        put_object("progress", note, fields);
        free(fields);
    }
}

void progress_update(Progress *p, int64_t done, const char *note)
{
    double now = log_seconds();
    p->done = done;
    if (now - p->shown < (p->tty ? 1.0 / 6 : 30))
        return;
    p->shown = now;
    double rate = (double)(done - p->start_done) / (now - p->started);
    double left = p->total && rate > 0 ? (double)(p->total - done) / rate : -1;
    (p->tty ? draw(p, rate, left, note) : report(p, rate, left, note));
}

void progress_end(Progress *p)
{
    if (p->drawn && line_drawn) {
        fprintf(stderr, "\r\033[K");
        line_drawn = false;
    }
    p->drawn = false;
}

int log_status(int status)
{
    if (!fflush(stdout) && !ferror(stdout) && !fclose(stdout))
        return status;
    if (errno != EPIPE)
        log_error("standard output: %s", strerror(errno));
    return status ? status : 1;
}
