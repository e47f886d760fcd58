#include "stream/longwait.h"

#include "util/log.h"

#include <stdarg.h>
#include <stdio.h>

double long_wait_s = 10;

int long_wait(LongWait *w, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    double now = log_seconds();
    if (w->said)
        return -1;
    if (!w->since)
        w->since = now;
    if (now < w->since + long_wait_s)
        return (int)(1000 * (w->since + long_wait_s - now)) + 1;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_info("%s", text);
    w->said = true;
    return -1;
}
