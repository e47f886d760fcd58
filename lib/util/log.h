/* Messages and progress on standard error. Data goes to standard output, never through here.
 *
 * A line each: text for people, or, with HSSL_MESSAGES=json in the environment, an object. Never a mixture of
 * both. */
#ifndef HSSL_LOG_H
#define HSSL_LOG_H

#include <stdbool.h>
#include <stdint.h>

/* Objects from now on, here and in programs that this one starts: it writes JSON lines of its own there. */
void log_as_json(void);

/* "hssl-load: message" lines. log_name is called by opt_parse. */
void log_name(const char *program);
const char *log_program(void);
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Say err_text() and exit with 1. For tools only. */
void die(void) __attribute__((noreturn));
/* Say the message and exit with 1. For tools only. */
void die_with(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* HSSL_DEBUG=stream,store,...: log_debug("stream", ...) speaks only where the list names it (or "all"). */
bool log_debugging(const char *subsystem);
void log_debug(const char *subsystem, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Progress: on a terminal one line rewritten at most 6 times a second, elsewhere a line of
 * key=value every 30 s. total 0: unknown, no ETA. note may be "" (e.g. "loss 4.21"). */
typedef struct {
    const char *what, *unit;
    int64_t total, done, start_done;
    double started, shown;
    bool tty, drawn;
} Progress;

void progress_start(Progress *p, const char *what, const char *unit, int64_t done, int64_t total);
void progress_update(Progress *p, int64_t done, const char *note);
void progress_end(Progress *p);

/* Seconds on the monotonic clock. */
double log_seconds(void);

/* What main returns: status, or 1, with a message, where standard output could not be written to its end: a
 * full disk must not look like success. A reader that has gone, as head does, is not worth a message. For
 * tools only. */
int log_status(int status);

#endif
