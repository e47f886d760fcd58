#include "tap.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int count, failed;

static bool report(bool condition, const char *fmt, va_list ap)
{
    printf("%sok %d - ", condition ? "" : "not ", ++count);
    vprintf(fmt, ap);
    putchar('\n');
    fflush(stdout);
    failed += !condition;
    return condition;
}

bool ok(bool condition, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    report(condition, fmt, ap);
    va_end(ap);
    return condition;
}

void skip(const char *why, const char *fmt, ...)
{
    va_list ap;
    printf("ok %d # SKIP ", ++count);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(": %s\n", why);
}

void diag(const char *fmt, ...)
{
    va_list ap;
    printf("# ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
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
        diag("relative error %.3g, tolerance %.3g%s", error, tolerance, finite ? "" : "; not finite");
    return good;
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
