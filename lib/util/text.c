#include "util/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the character at s, or 0 where it isn't proper UTF-8: too long a form, a surrogate, beyond
 * U+10FFFF. */
static size_t character(const unsigned char *s)
{
    static const unsigned long least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                                                              : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    if (n < 2)
        return n;
    unsigned long c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    return c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? n : 0;
}

size_t text_character(const char *s, bool *bad, bool *control)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t n = character(u);
    *bad = !n;
    *control = n == 1 ? *u < 0x20 || *u == 0x7f : n == 2 ? u[0] == 0xc2 && u[1] < 0xa0 : !n && *u < 0xa0;
    return !*u ? 0 : n ? n : 1;
}

char *text_plain(const char *s, char *to, size_t size)
{
    bool bad, control;
    size_t at = 0, n;
    for (; (n = text_character(s, &bad, &control)) && at + (control ? 1 : n) < size; s += n) {
        if (control)
            to[at] = '?';
        else
            memmove(to + at, s, n);
        at += control ? 1 : n;
    }
    if (size)
        to[at] = 0;
    return to;
}

static void put_json(FILE *f, const char *s, const char *escaped)
{
    bool bad, control;
    for (size_t n; (n = text_character(s, &bad, &control)); s += n) {
        if (bad)
            fputs("\xef\xbf\xbd", f);
        else if (control)
            fprintf(f, "\\u%04x", (unsigned char)s[n - 1]); /* of those in UTF-8 the second byte is the number */
        else if (strchr(escaped, *s))
            fprintf(f, "\\%c", *s);
        else
            fwrite(s, 1, n, f);
    }
}

void text_put_string(FILE *f, const char *s)
{
    fputc('"', f);
    put_json(f, s, "\"\\");
    fputc('"', f);
}

void text_put_json(FILE *f, const char *json)
{
    put_json(f, json, "");
}

char *text_utf8(const char *s)
{
    char *out = malloc(3 * strlen(s) + 1), *at = out;
    if (!out)
        return NULL;
    while (*s) {
        size_t n = character((const unsigned char *)s);
        memcpy(at, n ? s : "\xef\xbf\xbd", n ? n : 3);
        at += n ? n : 3;
        s += n ? n : 1;
    }
    *at = 0;
    return out;
}

/* Bytes of the character at s, 0 at the end. *wild: some shell spoils it, or a terminal would obey it. */
static size_t shell_character(const char *s, bool *wild)
{
    bool bad, control;
    size_t n = text_character(s, &bad, &control);
    *wild = bad || (control && n && *s != '\n');
    return n;
}

/* In single quotes, but for wild bytes: those come from printf, which every shell has. A newline at the end
 * of what it prints would get lost, so newlines stay within the quotes. */
static void put_quoted(FILE *f, const char *s)
{
    bool wild, was = false;
    fputc('\'', f);
    for (size_t n; (n = shell_character(s, &wild)); s += n) {
        if (wild != was)
            fputs(wild ? "'\"$(printf '" : "')\"'", f);
        was = wild;
        for (size_t i = 0; wild && i < n; i++)
            fprintf(f, "\\%03o", (unsigned char)s[i]);
        if (!wild && *s == '\'')
            fputs("'\\''", f);
        else if (!wild)
            fwrite(s, 1, n, f);
    }
    fputs(was ? "')\"''" : "'", f);
}

char *text_shell(const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./,:@%";
    char *word = NULL;
    size_t size;
    if (*s && !s[strspn(s, plain)])
        return strdup(s);
    FILE *f = open_memstream(&word, &size);
    if (!f)
        return NULL;
    put_quoted(f, s);
    if (!fclose(f))
        return word;
    free(word);
    return NULL;
}

char *text_real(double x, char *to, size_t size)
{
    snprintf(to, size, "%.15g", x);
    if (strtod(to, NULL) != x)
        snprintf(to, size, "%.17g", x);
    return to;
}

char *text_file_name(const char *s, char *to, size_t size)
{
    size_t n = 0, length = strlen(s);
    if (!size)
        return to;
    if (length >= size)
        s += length - (size - 1);
    for (; *s && n < size - 1; s++) {
        bool plain = isascii((unsigned char)*s) && (isalnum((unsigned char)*s) || strchr("._-", *s));
        if (plain || !n || to[n - 1] != '_')
            to[n++] = plain ? *s : '_';
    }
    if (!n && size > 1)
        to[n++] = '_';
    to[n] = 0;
    if (*to == '.' || *to == '-')
        *to = '_';
    return to;
}

char *text_bytes(double n, char *to, size_t size)
{
    static const char *const units[] = { "bytes", "kB", "MB", "GB", "TB" };
    int u = 0;
    for (; n >= 1000 && u < 4; u++)
        n /= 1000;
    snprintf(to, size, u ? "%.1f %s" : "%.0f %s", n, units[u]);
    return to;
}
