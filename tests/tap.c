#include "tap.h"

#include "util/err.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int count, failed;
static bool failing; /* the last test */
static int errors = STDERR_FILENO;

/* A test may have put something else in the place of standard error. */
__attribute__((constructor)) static void keep_errors(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    errors = fd < 0 ? STDERR_FILENO : fd;
}

static void report(bool condition, const char *fmt, va_list ap)
{
    printf("%sok %d - ", condition ? "" : "not ", ++count);
    vprintf(fmt, ap);
    putchar('\n');
    fflush(stdout);
    failing = !condition;
    failed += failing;
}

bool tap_ok(bool condition, const char *text, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    report(condition, fmt, ap);
    va_end(ap);
    if (!condition) {
        dprintf(errors, "# not ok %d: %s:%d: %s\n", count, file, line, text);
        if (err_code() != ERR_NONE)
            dprintf(errors, "#   last error: %s\n", err_text());
    }
    return condition;
}

void skip(const char *why, const char *fmt, ...)
{
    va_list ap;
    failing = false;
    printf("ok %d # SKIP ", ++count);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(": %s\n", why);
}

void diag(const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (failing)
        dprintf(errors, "#   %s\n", text);
    else
        printf("# %s\n", text);
}

bool is_str(const char *got, const char *want, const char *name)
{
    bool same = got && want && !strcmp(got, want);
    if (!ok(same, "%s", name))
        diag("got '%s', want '%s'", got ? got : "(null)", want ? want : "(null)");
    return same;
}

bool is_int(long long got, long long want, const char *name)
{
    if (!ok(got == want, "%s", name))
        diag("got %lld, want %lld", got, want);
    return got == want;
}

bool is_close(const float *got, const float *want, size_t n, double tolerance, const char *fmt, ...)
{
    double worst = 0, scale = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        finite = finite && isfinite(got[i]);
        worst = fmax(worst, fabs((double)got[i] - want[i]));
        scale = fmax(scale, fabs(want[i]));
    }
    double error = scale > 0 ? worst / scale : worst;
    bool good = finite && error <= tolerance;
    va_list ap;
    va_start(ap, fmt);
    report(good, fmt, ap);
    va_end(ap);
    if (!good)
        diag("not ok %d: relative error %.3g, tolerance %.3g%s", count, error, tolerance, finite ? "" : "; not finite");
    return good;
}

int siege(int rounds)
{
    const char *times = getenv("HSSL_SIEGE");
    int n = times ? atoi(times) : 1;
    return rounds * (n > 1 ? n : 1);
}

const char *test_device(void)
{
    const char *device = getenv("HSSL_TEST_DEVICE");
    return device && *device ? device : "cpu";
}

int tap_done(void)
{
    printf("1..%d\n", count);
    return failed || !count;
}
