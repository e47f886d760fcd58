#include "util/opt.h"

#include "util/descriptors.h"
#include "util/err.h"
#include "util/log.h"
#include "util/text.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTS = 128 };

/* Where each option's value came from, by index in the table. One program, one table, one parse. */
static const char *origins[MAX_OPTS];

void opt_usage(const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_error("%s (see %s --help)", text, log_program());
    exit(2);
}

static bool same_name(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((a[i] == '_' ? '-' : a[i]) != b[i])
            return false;
    return b[n] == 0;
}

static const Opt *find_long(const Opt *opts, const char *name, size_t n)
{
    for (const Opt *o = opts; o->type; o++)
        if (same_name(name, o->name, n))
            return o;
    return NULL;
}

static const Opt *find_letter(const Opt *opts, char letter)
{
    for (const Opt *o = opts; o->type; o++)
        if (o->letter && o->letter == letter)
            return o;
    return NULL;
}

static int distance(const char *a, size_t n, const char *b)
{
    int row[64], m = (int)strlen(b);
    if (n >= 64 || m >= 63)
        return 99;
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (int j = 1; j <= m; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]), best = row[j] < row[j - 1] ? row[j] : row[j - 1];
            diagonal = row[j];
            row[j] = change < best + 1 ? change : best + 1;
        }
    }
    return row[m];
}

static void unknown_option(const Opt *opts, const char *name, size_t n)
{
    const Opt *near = NULL;
    int best = 4;
    for (const Opt *o = opts; o->type; o++) {
        int d = distance(name, n, o->name);
        if (d < best)
            best = d, near = o;
    }
    if (near)
        opt_usage("--%.*s: no such option; did you mean --%s?", (int)n, name, near->name);
    opt_usage("--%.*s: no such option", (int)n, name);
}

/* A finite number with nothing behind it but, for sizes, a K, M, G or T. */
static int parse_number(const char *text, bool size, double *out)
{
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (end == text || errno == ERANGE || !isfinite(x))
        return -1;
    if (size && *end) {
        const char *units = "KMGT", *u = strchr(units, toupper((unsigned char)*end));
        if (!u)
            return -1;
        x *= ldexp(1, 10 * (int)(u - units + 1));
        end++;
        if (*end == 'B' || *end == 'b')
            end++;
    }
    while (isspace((unsigned char)*end))
        end++;
    *out = x;
    return *end ? -1 : 0;
}

static int check_range(const Opt *o, const char *text, double x)
{
    if (x < o->min)
        return err_set(ERR_USAGE, "--%s %s: at least %.15g", o->name, text, o->min);
    if (x > o->max)
        return err_set(ERR_USAGE, "--%s %s: at most %.15g", o->name, text, o->max);
    return 0;
}

static int set_amount(const Opt *o, const char *text)
{
    char number[64];
    size_t n = strlen(text);
    bool percent = n && text[n - 1] == '%';
    double x;
    snprintf(number, sizeof number, "%.*s", (int)(n - percent), text);
    if (n >= sizeof number || parse_number(number, false, &x) || (!percent && (x != floor(x) || fabs(x) > 9e15)))
        return err_set(ERR_USAGE, "--%s %s: neither a whole number nor a percentage such as 0.5%%", o->name, text);
    if (percent && (x < 0 || x > 100))
        return err_set(ERR_USAGE, "--%s %s: from 0%% to 100%%", o->name, text);
    if (!percent && check_range(o, text, x))
        return -1;
    *(OptAmount *)o->value = (OptAmount){ x, percent };
    return 0;
}

int64_t opt_amount(const OptAmount *a, int64_t whole)
{
    /* A little more, for what should have come out whole but for rounding. */
    return (int64_t)(a->percent ? floor(a->number * (double)whole / 100 * (1 + 1e-12)) : a->number);
}

static int set_value(const Opt *o, const char *text)
{
    double x;
    switch (o->type) {
    case OPT_T_INT:
    case OPT_T_SIZE:
        if (parse_number(text, o->type == OPT_T_SIZE, &x) || x != floor(x) || fabs(x) > 9e15)
            return err_set(ERR_USAGE, "--%s %s: not a whole number", o->name, text);
        if (check_range(o, text, x))
            return -1;
        *(int64_t *)o->value = (int64_t)x;
        return 0;
    case OPT_T_REAL:
        if (parse_number(text, false, &x))
            return err_set(ERR_USAGE, "--%s %s: not a number", o->name, text);
        if (check_range(o, text, x))
            return -1;
        *(double *)o->value = x;
        return 0;
    case OPT_T_PAIR: {
        char first[64];
        size_t n = strcspn(text, ", ");
        double y;
        snprintf(first, sizeof first, "%.*s", (int)n, text);
        if (!text[n] || parse_number(first, false, &x) || parse_number(text + n + 1, false, &y))
            return err_set(ERR_USAGE, "--%s %s: not two numbers such as 0.4,1", o->name, text);
        if (check_range(o, text, x) || check_range(o, text, y))
            return -1;
        ((double *)o->value)[0] = x;
        ((double *)o->value)[1] = y;
        return 0;
    }
    case OPT_T_CHOICE: {
        size_t len = strlen(text);
        for (const char *p = o->arg; *p; p += strspn(p, "|")) {
            size_t n = strcspn(p, "|");
            if (n == len && !strncmp(p, text, n)) {
                *(const char **)o->value = text;
                return 0;
            }
            p += n;
        }
        return err_set(ERR_USAGE, "--%s %s: not one of %s", o->name, text, o->arg);
    }
    case OPT_T_AMOUNT:
        return set_amount(o, text);
    case OPT_T_STR:
        *(const char **)o->value = text;
        return 0;
    case OPT_T_FLAG:
        if (!strcmp(text, "1") || !strcmp(text, "true") || !strcmp(text, "yes"))
            *(bool *)o->value = true;
        else if (!strcmp(text, "0") || !strcmp(text, "false") || !strcmp(text, "no") || !*text)
            *(bool *)o->value = false;
        else
            return err_set(ERR_USAGE, "--%s %s: not true or false", o->name, text);
        return 0;
    case OPT_T_END:
        break;
    }
    return -1;
}

int opt_set(const Opt *opts, const char *name, const char *text)
{
    const Opt *o = find_long(opts, name, strlen(name));
    if (!o)
        return err_set(ERR_USAGE, "--%s: no such option", name);
    char *kept = strdup(text); /* string options keep the pointer for the life of the program */
    if (!kept)
        return err_set(ERR_MEMORY, "option --%s: out of memory", name);
    if (set_value(o, kept)) {
        free(kept);
        return -1;
    }
    if (o->type != OPT_T_STR && o->type != OPT_T_CHOICE)
        free(kept);
    return 0;
}

char *opt_format(const Opt *o, char *buf, size_t size)
{
    const char *s;
    char a[32], b[32];
    switch (o->type) {
    case OPT_T_INT:
    case OPT_T_SIZE:
        snprintf(buf, size, "%lld", (long long)*(int64_t *)o->value);
        break;
    case OPT_T_REAL:
        snprintf(buf, size, "%s", text_real(*(double *)o->value, a, sizeof a));
        break;
    case OPT_T_PAIR:
        snprintf(buf, size, "%s,%s", text_real(((double *)o->value)[0], a, sizeof a),
                 text_real(((double *)o->value)[1], b, sizeof b));
        break;
    case OPT_T_AMOUNT:
        snprintf(buf, size, "%s%s", text_real(((OptAmount *)o->value)->number, a, sizeof a),
                 ((OptAmount *)o->value)->percent ? "%" : "");
        break;
    case OPT_T_FLAG:
        snprintf(buf, size, "%s", *(bool *)o->value ? "true" : "false");
        break;
    default:
        s = *(const char **)o->value;
        snprintf(buf, size, "%s", s ? s : "");
    }
    return buf;
}

const char *opt_origin(const Opt *opts, const char *name)
{
    for (int i = 0; i < MAX_OPTS && opts[i].type; i++)
        if (!strcmp(opts[i].name, name))
            return origins[i] ? origins[i] : "default";
    return "default";
}

bool opt_given(const Opt *opts, const char *name)
{
    const char *origin = opt_origin(opts, name);
    return !strcmp(origin, "flag") || !strcmp(origin, "env");
}

void opt_mark(const Opt *opts, const char *name, const char *origin)
{
    for (int i = 0; i < MAX_OPTS && opts[i].type; i++)
        if (!strcmp(opts[i].name, name))
            origins[i] = origin;
}

void opt_print_config(const Opt *opts, FILE *out)
{
    char value[512];
    for (const Opt *o = opts; o->type; o++)
        fprintf(out, "%s = %s  # %s\n", o->name, opt_format(o, value, sizeof value),
                opt_origin(opts, o->name));
}

static void print_help(const OptProgram *p, FILE *out)
{
    fprintf(out, "Usage: %s %s\n%s.\n\n", p->name, p->synopsis, p->purpose);
    if (p->examples)
        fprintf(out, "Examples:\n%s\n", p->examples);
    fprintf(out, "Options:\n");
    for (const Opt *o = p->opts; o->type; o++) {
        char left[128], value[128];
        const char *arg = o->type == OPT_T_CHOICE ? "WORD" : o->arg;
        char letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, arg ? " " : "", arg ? arg : "");
        fprintf(out, "  %-32s %s", left, o->help);
        if (o->type == OPT_T_CHOICE)
            fprintf(out, ": %s", o->arg);
        opt_format(o, value, sizeof value);
        bool on = o->type == OPT_T_FLAG && *(bool *)o->value;
        if (on)
            fprintf(out, " [on; --no-%s]", o->name);
        else if (o->type != OPT_T_FLAG && *value)
            fprintf(out, " [%s]", value);
        fputc('\n', out);
    }
    fprintf(out, "  %-32s %s\n  %-32s %s\n", "    --help", "show this text", "    --version",
            "show name and version");
    fprintf(out, "Manual: man %s\n", p->name);
}

/* One tab-separated line an option: long name, letter, argument, words of a choice, help. For shell/. */
static void print_table(const OptProgram *p)
{
    for (const Opt *o = p->opts; o->type; o++) {
        char letter[2] = { o->letter ? o->letter : '-', 0 };
        bool choice = o->type == OPT_T_CHOICE;
        printf("%s\t%s\t%s\t%s\t%s\n", o->name, letter, choice ? "WORD" : o->arg ? o->arg : "-",
               choice ? o->arg : "-", o->help);
    }
    printf("help\t-\t-\t-\tshow help\nversion\t-\t-\t-\tshow name and version\n");
}

static void read_environment(const Opt *opts)
{
    for (int i = 0; opts[i].type; i++) {
        char name[96];
        int n = snprintf(name, sizeof name, "HSSL_%s", opts[i].name);
        for (int j = 5; j < n && j < (int)sizeof name; j++)
            name[j] = name[j] == '-' ? '_' : (char)toupper((unsigned char)name[j]);
        const char *text = getenv(name);
        if (!text)
            continue;
        if (set_value(&opts[i], text))
            opt_usage("environment %s: %s", name, err_text());
        origins[i] = "env";
    }
}

int opt_parse(const OptProgram *p, int argc, char **argv)
{
    const Opt *opts = p->opts;
    int operands = 0;
    bool only_operands = false;

    log_name(p->name);
    signal(SIGXFSZ, SIG_IGN); /* a limit on a file's size is met where the file is written */
    if (standard_descriptors())
        die();
    /* Help must show the built-in defaults and must not fail: look for it before anything is set. */
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--help") || (!strcmp(argv[i], "-h") && !find_letter(opts, 'h'))) {
            print_help(p, stdout);
            exit(log_status(0));
        }
        if (!strcmp(argv[i], "--version")) {
            printf("%s %s\n", p->name, HSSL_VERSION);
            exit(log_status(0));
        }
        if (!strcmp(argv[i], "--completions")) {
            print_table(p);
            exit(log_status(0));
        }
    }
    const char *messages = getenv("HSSL_MESSAGES");
    if (messages && *messages && strcmp(messages, "text") && strcmp(messages, "json"))
        opt_usage("environment HSSL_MESSAGES: %s: text or json", messages);
    read_environment(opts);
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (only_operands || a[0] != '-' || !a[1]) {
            argv[++operands] = a;
            continue;
        }
        if (!strcmp(a, "--")) {
            only_operands = true;
            continue;
        }
        if (a[1] == '-') {
            const char *name = a + 2, *eq = strchr(name, '=');
            size_t n = eq ? (size_t)(eq - name) : strlen(name);
            const Opt *o = find_long(opts, name, n);
            if (!o && n > 3 && !strncmp(name, "no", 2) && (name[2] == '-' || name[2] == '_')) {
                o = find_long(opts, name + 3, n - 3);
                if (o && o->type == OPT_T_FLAG && !eq) {
                    *(bool *)o->value = false;
                    origins[o - opts] = "flag";
                    continue;
                }
                o = NULL;
            }
            if (!o)
                unknown_option(opts, name, n);
            const char *text = eq ? eq + 1 : o->type == OPT_T_FLAG ? "true" : ++i < argc ? argv[i] : NULL;
            if (!text)
                opt_usage("--%s: needs %s", o->name, o->arg);
            if (set_value(o, text))
                opt_usage("%s", err_text());
            origins[o - opts] = "flag";
            continue;
        }
        for (char *c = a + 1; *c; c++) {
            const Opt *o = find_letter(opts, *c);
            if (!o && c == a + 1 && find_long(opts, c, strcspn(c, "=")))
                opt_usage("%s: no such option; did you mean -%s?", a, a);
            if (!o)
                opt_usage("-%c: no such option", *c);
            const char *text = o->type == OPT_T_FLAG ? "true" : c[1] ? c + 1 : ++i < argc ? argv[i] : NULL;
            if (!text)
                opt_usage("-%c: needs %s", *c, o->arg);
            if (set_value(o, text))
                opt_usage("%s", err_text());
            origins[o - opts] = "flag";
            if (o->type != OPT_T_FLAG)
                break;
        }
    }
    argv[operands + 1] = NULL;
    return operands;
}
