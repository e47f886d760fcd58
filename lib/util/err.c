#include "util/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local ErrCode last_code;
static _Thread_local char last_text[ERR_TEXT];

int err_set(ErrCode code, const char *fmt, ...)
{
    char text[sizeof last_text]; /* the arguments may quote the last text */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(last_text, text, sizeof text);
    last_code = code;
    return -1;
}

int err_system(const char *fmt, ...)
{
    int saved = errno;
    char text[sizeof last_text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(ERR_SYSTEM, "%s: %s", text, strerror(saved));
}

int err_prefix(const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t n = strlen(text);
    if (!strncmp(last_text, text, n) && !strncmp(last_text + n, ": ", 2))
        return -1;
    return err_set(last_code, "%s: %s", text, last_text);
}

ErrCode err_code(void)
{
    return last_code;
}

const char *err_text(void)
{
    return last_code ? last_text : "no error";
}

void err_clear(void)
{
    last_code = ERR_NONE;
    last_text[0] = 0;
}
