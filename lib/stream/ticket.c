#include "stream/ticket.h"

#include "stream/longwait.h"
#include "util/err.h"
#include "util/log.h"
#include "util/stop.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *kind, *program;
} makers[] = {
    { "records", "hssl-load" }, { "plans", "hssl-multicrop" }, { "views", "hssl-augment" }, { "work", "hssl-augment" },
    { "teacher", "hssl-teach" }, { "targets", "hssl-teach" },
};

const char *ticket_program(const char *kind)
{
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
        if (!strcmp(makers[i].kind, kind))
            return makers[i].program;
    return NULL;
}

/* Copy one word of n bytes; only visible ASCII passes. */
static int take(char *to, size_t room, const char *from, size_t n, const char *what)
{
    if (!n || n >= room)
        return err_set(ERR_DATA, "ticket: %s of %zu bytes (1 to %zu)", what, n, room - 1);
    for (size_t i = 0; i < n; i++)
        if (!isgraph((unsigned char)from[i]))
            return err_set(ERR_DATA, "ticket: %s holds a byte that is no visible ASCII", what);
    memcpy(to, from, n);
    to[n] = 0;
    return 0;
}

/* What may be a path holds any byte but control characters; the line has %20 for a blank, as in a URI. */
static int keep(char *to, size_t room, const char *from, size_t n, const char *what)
{
    if (!n || n >= room)
        return err_set(ERR_DATA, "ticket: %s of %zu bytes (1 to %zu)", what, n, room - 1);
    for (size_t i = 0; i < n; i++)
        if (iscntrl((unsigned char)from[i]))
            return err_set(ERR_DATA, "ticket: %s holds a control character", what);
    memcpy(to, from, n);
    to[n] = 0;
    return 0;
}

static int hex(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10 : -1;
}

static int unescape(char *to, size_t room, const char *from, size_t n, const char *what)
{
    char plain[TICKET_MAX_LINE], word[TICKET_MAX_LINE];
    size_t len = 0;
    if (take(word, sizeof word, from, n, what))
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (word[i] != '%') {
            plain[len++] = word[i];
            continue;
        }
        if (i + 2 >= n || hex(word[i + 1]) < 0 || hex(word[i + 2]) < 0)
            return err_set(ERR_DATA, "ticket: %s has a %% without two hexadecimal digits behind it", what);
        plain[len++] = (char)(hex(word[i + 1]) * 16 + hex(word[i + 2]));
        i += 2;
    }
    return keep(to, room, plain, len, what);
}

/* Appends, as far as there is room; the length that it would have, as snprintf. */
static size_t escape(char *to, size_t room, const char *from)
{
    size_t n = 0;
    for (; *from; from++) {
        bool plain = isgraph((unsigned char)*from) && *from != '%';
        n += (size_t)snprintf(n < room ? to + n : NULL, n < room ? room - n : 0, plain ? "%c" : "%%%02X",
                              (unsigned char)*from);
    }
    return n;
}

static bool name_like(const char *s)
{
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '-' && *s != '_')
            return false;
    return true;
}

static int parse_word(Ticket *t, int index, const char *word, size_t n)
{
    if (index == 0) {
        char version[16];
        if (take(version, sizeof version, word, n, "version") || strncmp(version, "hssl/", 5))
            return err_set(ERR_DATA, "ticket: does not begin with hssl/%d", TICKET_VERSION);
        if (strcmp(version + 5, "1"))
            return err_set(ERR_DATA, "ticket: protocol %s, this program speaks hssl/%d", version, TICKET_VERSION);
        return 0;
    }
    if (index == 1) {
        if (take(t->kind, sizeof t->kind, word, n, "kind"))
            return -1;
        return name_like(t->kind) ? 0 : err_set(ERR_DATA, "ticket: kind %s is not a word", t->kind);
    }
    if (index == 2) {
        if (unescape(t->endpoint, sizeof t->endpoint, word, n, "endpoint"))
            return -1;
        if (!strncmp(t->endpoint, "ipc:///", 7) || !strncmp(t->endpoint, "tcp://", 6))
            return 0;
        return err_set(ERR_DATA, "ticket: endpoint %s is neither ipc:///PATH nor tcp://HOST:PORT", t->endpoint);
    }
    const char *eq = memchr(word, '=', n);
    if (!eq)
        return err_set(ERR_DATA, "ticket: %.*s is not key=value", (int)(n < 40 ? n : 40), word);
    if (t->pairs == TICKET_MAX_PAIRS)
        return err_set(ERR_DATA, "ticket: more than %d pairs", TICKET_MAX_PAIRS);
    size_t key = (size_t)(eq - word);
    if (take(t->pair[t->pairs].key, sizeof t->pair->key, word, key, "key") ||
        unescape(t->pair[t->pairs].value, sizeof t->pair->value, eq + 1, n - key - 1, "value"))
        return -1;
    t->pairs++;
    return 0;
}

int ticket_parse(const char *line, size_t n, Ticket *t)
{
    int words = 0;
    memset(t, 0, sizeof *t);
    if (n && line[n - 1] == '\n')
        n--;
    if (n && line[n - 1] == '\r')
        n--;
    if (n >= TICKET_MAX_LINE)
        return err_set(ERR_DATA, "ticket: a line of %zu bytes (at most %d)", n, TICKET_MAX_LINE - 1);
    for (size_t at = 0; at < n;) {
        size_t len = 0;
        while (at + len < n && line[at + len] != ' ')
            len++;
        if (len && parse_word(t, words++, line + at, len))
            return -1;
        at += len + 1;
    }
    if (words < 3)
        return err_set(ERR_DATA, "ticket: not hssl/%d KIND ENDPOINT", TICKET_VERSION);
    return 0;
}

int ticket_format(const Ticket *t, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "hssl/%d %s ", TICKET_VERSION, t->kind);
    n += escape(n < size ? buf + n : buf, n < size ? size - n : 0, t->endpoint);
    for (int i = 0; i < t->pairs && n < size; i++) {
        n += (size_t)snprintf(buf + n, size - n, " %s=", t->pair[i].key);
        n += escape(n < size ? buf + n : buf, n < size ? size - n : 0, t->pair[i].value);
    }
    if (n + 1 >= size)
        return err_set(ERR_DATA, "ticket: longer than %zu bytes", size);
    buf[n++] = '\n';
    buf[n] = 0;
    return (int)n;
}

const char *ticket_get(const Ticket *t, const char *key)
{
    for (int i = 0; i < t->pairs; i++)
        if (!strcmp(t->pair[i].key, key))
            return t->pair[i].value;
    return NULL;
}

int ticket_set(Ticket *t, const char *key, const char *value)
{
    int i = 0;
    while (i < t->pairs && strcmp(t->pair[i].key, key))
        i++;
    if (i == TICKET_MAX_PAIRS)
        return err_set(ERR_DATA, "ticket: more than %d pairs", TICKET_MAX_PAIRS);
    if (take(t->pair[i].key, sizeof t->pair->key, key, strlen(key), "key") ||
        keep(t->pair[i].value, sizeof t->pair->value, value, strlen(value), "value"))
        return -1;
    if (i == t->pairs)
        t->pairs++;
    return 0;
}

/* "records|plans" -> "hssl-load or hssl-multicrop". */
static const char *programs_for(const char *wanted, char *buf, size_t size)
{
    size_t n = 0;
    buf[0] = 0;
    for (const char *p = wanted; *p; p += strspn(p, "|")) {
        char kind[16];
        size_t len = strcspn(p, "|");
        snprintf(kind, sizeof kind, "%.*s", (int)len, p);
        const char *program = ticket_program(kind);
        if (program && n < size && !strstr(buf, program))
            n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? " or " : "", program);
        p += len;
    }
    return buf;
}

bool ticket_kind_in(const char *kind, const char *wanted)
{
    size_t len = strlen(kind);
    for (const char *p = wanted; *p; p += strspn(p, "|")) {
        size_t n = strcspn(p, "|");
        if (n == len && !strncmp(p, kind, n))
            return true;
        p += n;
    }
    return false;
}

/* One byte, or 0 at the end of file; -1 with an error. */
static int read_byte(int fd, char *c, LongWait *w, const char *programs)
{
    for (;;) {
        struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = stop_fd(), .events = POLLIN } };
        int ms = long_wait(w, "no ticket has come on standard input yet: waiting for %s", programs);
        int rc = poll(p, 2, ms);
        if (stop_signal())
            return err_set(ERR_STOP, "stopped by a signal");
        if (rc < 0 && errno != EINTR)
            return err_system("poll");
        if (rc <= 0)
            continue;
        ssize_t n = read(fd, c, 1);
        if (n >= 0)
            return (int)n;
        if (errno != EINTR && errno != EAGAIN)
            return err_system("standard input");
    }
}

static int not_a_ticket(const char *text, size_t n, const char *programs)
{
    char shown[33];
    size_t len = 0;
    while (len < n && len < sizeof shown - 1 && isprint((unsigned char)text[len])) {
        shown[len] = text[len];
        len++;
    }
    shown[len] = 0;
    if (len)
        return err_set(ERR_USAGE, "standard input is text (\"%s%s\"), not a stream: put %s before %s in the pipe", shown,
                       len < n ? "..." : "", programs, log_program());
    return err_set(ERR_USAGE, "standard input is not a stream: put %s before %s in the pipe", programs, log_program());
}

int ticket_read(int fd, const char *wanted, Ticket *t)
{
    char line[TICKET_MAX_LINE], programs[128];
    LongWait w = { 0 };
    size_t n = 0;
    const char *magic = "hssl/";

    programs_for(wanted, programs, sizeof programs);
    if (isatty(fd))
        return err_set(ERR_USAGE, "standard input is a terminal: put %s before %s in the pipe", programs, log_program());
    for (;;) {
        char c;
        int rc = read_byte(fd, &c, &w, programs);
        if (rc < 0)
            return -1;
        if (rc == 0 && !n)
            return err_set(ERR_PEER, "standard input ended without a ticket: the program before this one (%s) did not start",
                           programs);
        if (rc == 0 || c == '\n')
            break;
        line[n++] = c;
        /* Say so at the first byte that is wrong: the rest may be gigabytes. */
        if ((n <= strlen(magic) && c != magic[n - 1]) || n == sizeof line) {
            struct pollfd more = { .fd = fd, .events = POLLIN };
            while (n < 40 && poll(&more, 1, 0) > 0 && read(fd, &line[n], 1) == 1)
                n++;
            if (n == sizeof line)
                return err_set(ERR_DATA, "standard input: a ticket of more than %d bytes: it was spoilt on its way",
                               TICKET_MAX_LINE - 1);
            return not_a_ticket(line, n, programs);
        }
    }
    if (ticket_parse(line, n, t)) {
        if (n < strlen(magic))
            return not_a_ticket(line, n, programs);
        err_prefix("standard input");
        return -1;
    }
    if (ticket_kind_in(t->kind, wanted))
        return 0;
    const char *maker = ticket_program(t->kind);
    return err_set(ERR_USAGE, "standard input carries %s%s%s%s; %s takes %s: put %s before it in the pipe", t->kind,
                   maker ? " (from " : "", maker ? maker : "", maker ? ")" : "", log_program(), wanted, programs);
}
