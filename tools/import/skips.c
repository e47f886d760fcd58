#include "import.h"

#include "util/log.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { KINDS = 32, NAMED = 5, REASON = 100, NAME_SHOWN = 200 };

static struct {
    char reason[REASON];
    int64_t n;
} kinds[KINDS];
static int n_kinds;
static int64_t skipped;

/* The reason with a # for each number. */
static void generalize(const char *why, char *to)
{
    size_t n = 0;
    for (; *why && n < REASON - 1; n++) {
        to[n] = isdigit((unsigned char)*why) ? '#' : *why;
        why += isdigit((unsigned char)*why) ? strspn(why, "0123456789") : 1;
    }
    to[n] = 0;
}

static int kind_of(const char *why)
{
    char reason[REASON];
    int i = 0;
    generalize(why, reason);
    while (i < n_kinds && strcmp(kinds[i].reason, reason))
        i++;
    if (i < n_kinds)
        return i;
    if (n_kinds == KINDS) /* more different ones than anybody reads */
        return KINDS - 1;
    snprintf(kinds[n_kinds].reason, REASON, "%s", n_kinds == KINDS - 1 ? "other reasons" : reason);
    return n_kinds++;
}

void skip(const char *name, const char *why)
{
    size_t n = strlen(name);
    skipped++;
    if (kinds[kind_of(why)].n++ >= NAMED && !log_debugging("import"))
        return;
    if (n <= NAME_SHOWN)
        log_warn("%s: %s; skipped", name, why);
    else /* its beginning and its end */
        log_warn("%.*s...%s: %s; skipped", NAME_SHOWN / 2, name, name + n - NAME_SHOWN / 2, why);
}

int64_t skips(void)
{
    return skipped;
}

void skips_end(void)
{
    for (int i = 0; i < n_kinds && !log_debugging("import"); i++)
        if (kinds[i].n > NAMED)
            log_warn("%" PRId64 " more were skipped: %s (HSSL_DEBUG=import names them)", kinds[i].n - NAMED,
                     kinds[i].reason);
}

void count_one(Count *c, const char *name)
{
    if (!c->n++)
        snprintf(c->first, sizeof c->first, "%s", name);
}
