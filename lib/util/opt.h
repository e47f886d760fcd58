/* Command-line options: one table says everything about an option, and parsing, range checks, --help,
 * --print-config, shell completions and the check against the manual page are all read from it.
 *
 *     static struct { int64_t jobs; double ema; const char *out; bool fast; int64_t mem; } o =
 *         { .jobs = 1, .ema = 0.996 };
 *     static const Opt opts[] = {
 *         OPT_INT ("jobs", 'j', &o.jobs, 0, 1024, "N", "render in N threads (0: one a processor)"),
 *         OPT_REAL("momentum-teacher", 0, &o.ema, 0, 1, "M", "teacher momentum at step 0"),
 *         OPT_STR ("output", 'o', &o.out, "FILE", "write the run to FILE"),
 *         OPT_FLAG("fast", 0, &o.fast, "let the decoder scale down"),
 *         OPT_END
 *     };
 *     static const OptProgram program = {
 *         "hssl-augment", "[OPTION]... < PLANS > VIEWS", "decode images and render their views",
 *         .opts = opts,
 *         .examples = "  hssl-load photos.db | hssl-augment -j8 | hssl-train -o run.db\n"
 *     };
 *
 * A default is the variable's value before parsing. Long names are accepted with `_` for `-`, as
 * `--name value` and `--name=value`; flags have a `--no-name` form; bundled short flags and `--` work.
 * A variable HSSL_<NAME> in the environment (upper case, `_` for `-`) sets an option that is not on the
 * command line. --help, --version and --completions are added to every program. */
#ifndef HSSL_OPT_H
#define HSSL_OPT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum { OPT_T_END, OPT_T_INT, OPT_T_REAL, OPT_T_STR, OPT_T_FLAG, OPT_T_SIZE, OPT_T_PAIR, OPT_T_CHOICE,
               OPT_T_AMOUNT } OptType;

/* So many, or so much of a whole that is known later. */
typedef struct {
    double number; /* whole, or percent */
    bool percent;
} OptAmount;

typedef struct {
    OptType type;
    const char *name; /* long name, with dashes */
    char letter;      /* or 0 */
    void *value;      /* int64_t, double, const char *, bool, int64_t (bytes), double[2], const char *,
                       * OptAmount */
    double min, max;  /* inclusive range of a number */
    const char *arg;  /* name of the argument in --help, or, for a choice, its values "a|b|c" */
    const char *help;
} Opt;

#define OPT_INT(n, c, v, lo, hi, a, h) { OPT_T_INT, n, c, v, lo, hi, a, h }
#define OPT_REAL(n, c, v, lo, hi, a, h) { OPT_T_REAL, n, c, v, lo, hi, a, h }
#define OPT_STR(n, c, v, a, h) { OPT_T_STR, n, c, v, 0, 0, a, h }
#define OPT_FLAG(n, c, v, h) { OPT_T_FLAG, n, c, v, 0, 0, NULL, h }
/* Bytes: 512K, 4M, 2G are understood. */
#define OPT_SIZE(n, c, v, lo, hi, a, h) { OPT_T_SIZE, n, c, v, lo, hi, a, h }
/* Two numbers: "0.4,1" or "0.4 1". v: double[2]. */
#define OPT_PAIR(n, c, v, lo, hi, a, h) { OPT_T_PAIR, n, c, v, lo, hi, a, h }
/* One of several words, "none|vit|convnext". */
#define OPT_CHOICE(n, c, v, words, h) { OPT_T_CHOICE, n, c, v, 0, 0, words, h }
/* "100" or "0.5%". v: OptAmount *. The range is that of a number without %; with it, 0 to 100. */
#define OPT_AMOUNT(n, c, v, lo, hi, a, h) { OPT_T_AMOUNT, n, c, v, lo, hi, a, h }
#define OPT_END { OPT_T_END, NULL, 0, NULL, 0, 0, NULL, NULL }

typedef struct {
    const char *name;     /* "hssl-load" */
    const char *synopsis; /* "[OPTION]... DATASET" */
    const char *purpose;  /* one line, lower case, no full stop */
    const Opt *opts;
    const char *examples; /* lines for --help, or NULL */
} OptProgram;

/* Parse argv; operands are left in argv[1..return value]. Serves --help, --version and --completions
 * itself (prints, exits 0); a mistake prints one line and a hint to --help and exits 2. Also tells
 * lib/util/log the program's name, and opens /dev/null in place of closed standard descriptors. It is the one function below tools/ that may exit: it runs first. */
int opt_parse(const OptProgram *program, int argc, char **argv);

/* Where the option's value comes from: "flag" (the command line), "env", "default", or what opt_mark said. */
const char *opt_origin(const Opt *opts, const char *name);
/* Whether the user gave it, on the command line or in the environment. */
bool opt_given(const Opt *opts, const char *name);
/* The program itself set an option that was not given: say from what. origin: a literal. */
void opt_mark(const Opt *opts, const char *name, const char *origin);

/* Print "name = value  # origin" for each option (--print-config). */
void opt_print_config(const Opt *opts, FILE *out);

/* The option's value as text in buf; returns buf. Values round-trip through opt_set. */
char *opt_format(const Opt *o, char *buf, size_t size);

/* What an amount is of a whole, rounded down; a number stays as it is. */
int64_t opt_amount(const OptAmount *a, int64_t whole);

/* Set one option from text, with the table's checks. Returns 0, or -1 with an error that names it. */
int opt_set(const Opt *opts, const char *name, const char *text);

/* Exit with 2 after one line on standard error: wrong usage. */
void opt_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
