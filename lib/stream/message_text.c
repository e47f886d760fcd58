/* Messages as text: a line for people, a line of JSON for machines. */
#include "stream/message_internal.h"

#include "util/err.h"
#include "util/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

static void put_shape(FILE *f, const MsgTensor *t, const char *separator)
{
    for (int i = 0; i < t->ndim; i++)
        fprintf(f, "%s%" PRId64, i ? separator : "", t->shape[i]);
}

/* Foreign text on a terminal: control bytes are shown, never obeyed. */
static void put_plain(FILE *f, const char *s)
{
    bool bad, control;
    for (size_t n; (n = text_character(s, &bad, &control)); s += n)
        if (control)
            fprintf(f, "\\x%02x", (unsigned char)s[n - 1]);
        else
            fwrite(s, 1, n, f);
}

static void put_real(FILE *f, double x)
{
    if (isfinite(x))
        fprintf(f, "%.17g", x);
    else
        fputs("null", f); /* JSON has no NaN */
}

static void describe(FILE *f, const Message *m)
{
    fprintf(f, "%s", message_type_name(m->type));
    if (m->type == MSG_DATA)
        fprintf(f, " seq %" PRIu64 " epoch %" PRIu64 " id %" PRIu64, m->seq, m->epoch, m->id);
    else if (m->type == MSG_END || m->type == MSG_HELLO)
        fprintf(f, " seq %" PRIu64, m->seq);
    if (m->name) {
        fputc(' ', f);
        put_plain(f, m->name);
    }
    if (m->type == MSG_DATA && m->label >= 0)
        fprintf(f, " label %" PRId32, m->label);
    if (m->width)
        fprintf(f, " %" PRIu32 "x%" PRIu32, m->width, m->height);
    if (m->plan)
        fprintf(f, " plan of %d views", m->views);
    for (int i = 0; i < m->tensors; i++) {
        const MsgTensor *t = &m->tensor[i];
        fputc(' ', f);
        put_plain(f, t->name);
        fprintf(f, " %s[", msg_dtype_name(t->dtype));
        put_shape(f, t, "x");
        fprintf(f, "]%s", t->medium == MSG_SHARED ? " shared" : "");
    }
    if (m->bad) {
        fputs(" bad: ", f);
        put_plain(f, m->bad);
    }
    if (m->text) {
        fputs(": ", f);
        put_plain(f, m->text);
    }
    for (int i = 0; i < m->facts; i++) {
        const MsgFact *k = &m->fact[i];
        fputc(' ', f);
        put_plain(f, k->key);
        fputc('=', f);
        if (k->type == FACT_TEXT)
            put_plain(f, k->text);
        else if (k->type == FACT_INT)
            fprintf(f, "%" PRId64, k->integer);
        else
            fprintf(f, "%.9g", k->real);
    }
}

static void json(FILE *f, const Message *m, bool sums)
{
    fprintf(f, "{\"type\":\"%s\"", message_type_name(m->type));
    if (m->type == MSG_DATA || m->type == MSG_END || m->type == MSG_HELLO)
        fprintf(f, ",\"seq\":%" PRIu64, m->seq);
    if (m->type == MSG_DATA)
        fprintf(f, ",\"epoch\":%" PRIu64 ",\"id\":%" PRIu64 ",\"label\":%" PRId32, m->epoch, m->id, m->label);
    if (m->width)
        fprintf(f, ",\"width\":%" PRIu32 ",\"height\":%" PRIu32, m->width, m->height);
    if (m->reading)
        fprintf(f, ",\"reading\":%d", m->reading);
    const char *const keys[] = { "name", "bad", "text" }, *const texts[] = { m->name, m->bad, m->text };
    for (int i = 0; i < 3; i++)
        if (texts[i]) {
            fprintf(f, ",\"%s\":", keys[i]);
            text_put_string(f, texts[i]);
        }
    if (m->plan) {
        fputs(",\"plan\":[", f);
        for (int v = 0; v < m->views; v++) {
            fputs(v ? ",[" : "[", f);
            for (int i = 0; i < m->numbers; i++) {
                fputs(i ? "," : "", f);
                put_real(f, m->plan[v * m->numbers + i]);
            }
            fputc(']', f);
        }
        fputc(']', f);
    }
    if (m->tensors)
        fputs(",\"tensors\":[", f);
    for (int i = 0; i < m->tensors; i++) {
        const MsgTensor *t = &m->tensor[i];
        fputs(i ? ",{\"name\":" : "{\"name\":", f);
        text_put_string(f, t->name);
        fprintf(f, ",\"dtype\":\"%s\",\"shape\":[", msg_dtype_name(t->dtype));
        put_shape(f, t, ",");
        fprintf(f, "],\"medium\":\"%s\",\"bytes\":%zu", t->medium == MSG_SHARED ? "shared" : "inline", t->bytes);
        if (sums && t->data)
            fprintf(f, ",\"xxh3\":\"%016llx\"", (unsigned long long)XXH3_64bits(t->data, t->bytes));
        fputs(i == m->tensors - 1 ? "}]" : "}", f);
    }
    if (m->facts)
        fputs(",\"facts\":{", f);
    for (int i = 0; i < m->facts; i++) {
        const MsgFact *k = &m->fact[i];
        fputs(i ? "," : "", f);
        text_put_string(f, k->key);
        fputc(':', f);
        if (k->type == FACT_TEXT)
            text_put_string(f, k->text);
        else if (k->type == FACT_INT)
            fprintf(f, "%" PRId64, k->integer);
        else
            put_real(f, k->real);
    }
    fputs(m->facts ? "}}" : "}", f);
}

static char *finish(FILE *f, char **text)
{
    if (f && !fclose(f))
        return *text;
    free(*text);
    err_set(ERR_MEMORY, "message: out of memory");
    return NULL;
}

char *message_describe(const Message *m)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (f)
        describe(f, m);
    return finish(f, &text);
}

char *message_json(const Message *m, bool sums)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (f)
        json(f, m, sums);
    return finish(f, &text);
}
