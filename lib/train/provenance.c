#include "train/provenance.h"

#include "util/err.h"
#include "util/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_MOST = 128, NAME_MOST = 4096 };

static const ProvenanceFact table[] = {
    { "dataset", STAGE_LOAD, FACT_IS_NAME, NULL, "data set", NULL, false },
    { "dataset_digest", STAGE_LOAD, FACT_IS_WORD, NULL, "the data set's digest", NULL, true },
    { "dataset_count", STAGE_LOAD, FACT_IS_WHOLE, NULL, "the number of images", NULL, true },
    { "load_seed", STAGE_LOAD, FACT_IS_WHOLE, "seed", NULL, NULL, true },
    { "shuffle", STAGE_LOAD, FACT_IS_FLAG, "shuffle", NULL, NULL, true },
    { "rank", STAGE_LOAD, FACT_IS_WHOLE, "rank", NULL, NULL, true },
    { "world", STAGE_LOAD, FACT_IS_WHOLE, "world", NULL, NULL, true },
    { "planner", STAGE_PLAN, FACT_IS_WORD, NULL, "planning program", NULL, false },
    { "recipe", STAGE_PLAN, FACT_IS_WORD, "recipe", NULL, NULL, true },
    { "view_seed", STAGE_PLAN, FACT_IS_WHOLE, "seed", NULL, NULL, true },
    { "globals", STAGE_PLAN, FACT_IS_WHOLE, NULL, "the number of global views", NULL, true },
    { "global_size", STAGE_PLAN, FACT_IS_WHOLE, "global-size", NULL, NULL, true },
    { "global_scale", STAGE_PLAN, FACT_IS_WORD, "global-crops-scale", NULL, NULL, true },
    { "locals", STAGE_PLAN, FACT_IS_WHOLE, "local", NULL, NULL, true },
    { "local_size", STAGE_PLAN, FACT_IS_WHOLE, "local-size", NULL, NULL, true },
    { "local_scale", STAGE_PLAN, FACT_IS_WORD, "local-crops-scale", NULL, NULL, true },
    { "blur_scale", STAGE_PLAN, FACT_IS_REAL, "blur-scale", NULL, NULL, true },
    { "jobs", STAGE_RENDER, FACT_IS_WHOLE, "jobs", NULL, NULL, false },
    { "fast", STAGE_RENDER, FACT_IS_FLAG, "fast", NULL, NULL, true },
    { "isa", STAGE_TRAIN, FACT_IS_NAME, NULL, NULL, "HSSL_ISA", false },
    { "attention", STAGE_TRAIN, FACT_IS_NAME, NULL, NULL, "HSSL_ATTENTION", false },
    { "gelu", STAGE_TRAIN, FACT_IS_NAME, NULL, NULL, "HSSL_GELU", false },
    { "version", STAGE_TRAIN, FACT_IS_WORD, NULL, "version", NULL, false },
    { "ranks", STAGE_TRAIN, FACT_IS_WHOLE, NULL, "ranks", NULL, false },
    { "threads", STAGE_TRAIN, FACT_IS_WHOLE, "threads", NULL, NULL, false },
    { "device", STAGE_TRAIN, FACT_IS_WORD, "device", NULL, NULL, false },
    { "precision", STAGE_TRAIN, FACT_IS_WORD, "precision", NULL, NULL, false },
    { "deterministic", STAGE_TRAIN, FACT_IS_FLAG, "deterministic", NULL, NULL, false },
    { "teacher_device", STAGE_TRAIN, FACT_IS_WORD, "teacher-device", NULL, NULL, false },
    { "max_bad", STAGE_TRAIN, FACT_IS_WORD, "max-bad", NULL, NULL, false },
    { "init_from", STAGE_TRAIN, FACT_IS_NAME, "init-from", NULL, NULL, false },
    { "continue_from", STAGE_TRAIN, FACT_IS_NAME, "continue-from", NULL, NULL, false },
    { "continued_step", STAGE_TRAIN, FACT_IS_WHOLE, NULL, "its step", NULL, false },
    { "continued_digest", STAGE_TRAIN, FACT_IS_WORD, NULL, "its digest", NULL, false },
    { "output", STAGE_TRAIN, FACT_IS_NAME, "output", NULL, NULL, false },
};
_Static_assert(sizeof table / sizeof *table == PROVENANCE_FACTS, "PROVENANCE_FACTS counts the table");

const ProvenanceFact *provenance_fact(int i)
{
    return &table[i];
}

static int number_of(const char *key)
{
    for (int i = 0; i < PROVENANCE_FACTS; i++)
        if (!strcmp(table[i].key, key))
            return i;
    return -1;
}

/* ---------------------------------------------------------------- one fact */

static bool is_whole(const char *s)
{
    char again[32];
    snprintf(again, sizeof again, "%lld", strtoll(s, NULL, 10));
    return !strcmp(s, again);
}

static bool is_real(const char *s)
{
    char again[32];
    return !strcmp(s, text_real(strtod(s, NULL), again, sizeof again));
}

static bool is_word(const char *s)
{
    size_t n = 0;
    while (s[n] > 32 && s[n] < 127)
        n++;
    return n && !s[n];
}

static bool fits(ProvenanceType type, const char *s)
{
    switch (type) {
    case FACT_IS_WHOLE:
        return is_whole(s);
    case FACT_IS_FLAG:
        return !strcmp(s, "true") || !strcmp(s, "false");
    case FACT_IS_REAL:
        return is_real(s);
    case FACT_IS_WORD:
        return is_word(s) && strlen(s) <= WORD_MOST;
    case FACT_IS_NAME:
        return *s && strlen(s) <= NAME_MOST;
    }
    return false;
}

static int put(Provenance *p, int i, const char *text)
{
    if (text && !fits(table[i].type, text))
        return err_set(ERR_DATA, "%s: not what it should be, %s", table[i].key,
                       table[i].type == FACT_IS_WHOLE  ? "a whole number"
                       : table[i].type == FACT_IS_FLAG ? "true or false"
                       : table[i].type == FACT_IS_REAL ? "a number"
                       : table[i].type == FACT_IS_WORD ? "a word of ASCII"
                                                       : "a name of 1 to 4096 bytes");
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        return err_set(ERR_MEMORY, "%s: out of memory", table[i].key);
    free(p->text[i]);
    p->text[i] = copy;
    return 0;
}

int provenance_set(Provenance *p, const char *key, const char *text)
{
    int i = number_of(key);
    assert(i >= 0);
    return put(p, i, text);
}

const char *provenance_get(const Provenance *p, const char *key)
{
    int i = number_of(key);
    return i < 0 ? NULL : p->text[i];
}

void provenance_free(Provenance *p)
{
    for (int i = 0; i < PROVENANCE_FACTS; i++)
        free(p->text[i]);
    json_object_put(p->changes);
    *p = (Provenance){ 0 };
}

/* ---------------------------------------------------------------- streams */

static int take(Provenance *p, int i, const MsgFact *f)
{
    char number[32];
    const char *text = number;
    if (f->type == FACT_TEXT)
        text = f->text;
    else if (f->type == FACT_REAL)
        text_real(f->real, number, sizeof number);
    else if (table[i].type == FACT_IS_FLAG && (f->integer == 0 || f->integer == 1))
        text = f->integer ? "true" : "false";
    else
        snprintf(number, sizeof number, "%" PRId64, f->integer);
    return put(p, i, text) ? err_prefix("the stream's welcome") : 0;
}

int provenance_from_stream(Provenance *p, const Message *welcome)
{
    *p = (Provenance){ 0 };
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const MsgFact *f = table[i].stage == STAGE_TRAIN ? NULL : message_fact(welcome, table[i].key);
        if (f && take(p, i, f))
            return -1;
    }
    return 0;
}

/* ---------------------------------------------------------------- JSON */

static json_object *hex_json(const char *s)
{
    char hex[2 * NAME_MOST + 1];
    size_t n = 0;
    for (; *s && n < sizeof hex - 2; s++, n += 2)
        snprintf(hex + n, 3, "%02x", (unsigned char)*s);
    hex[n] = 0;
    json_object *o = json_object_new_object(), *v = json_object_new_string(hex);
    if (o && v && !json_object_object_add(o, "hex", v))
        return o;
    json_object_put(v);
    json_object_put(o);
    return NULL;
}

static json_object *text_json(const char *s)
{
    char *proper = text_utf8(s);
    json_object *v = !proper ? NULL : strcmp(proper, s) ? hex_json(s) : json_object_new_string(s);
    free(proper);
    return v;
}

/* Takes v over. */
static int add(json_object *o, const char *key, json_object *v)
{
    if (v && !json_object_object_add(o, key, v))
        return 0;
    json_object_put(v);
    return err_set(ERR_MEMORY, "provenance: out of memory");
}

char *provenance_to_json(const Provenance *p)
{
    json_object *o = json_object_new_object();
    int rc = o ? 0 : err_set(ERR_MEMORY, "provenance: out of memory");
    for (int i = 0; !rc && i < PROVENANCE_FACTS; i++)
        if (p->text[i])
            rc = add(o, table[i].key, text_json(p->text[i]));
    if (!rc && p->changes)
        rc = add(o, "changes", json_object_get(p->changes));
    const char *plain = rc ? NULL : json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    char *text = plain ? strdup(plain) : NULL;
    json_object_put(o);
    if (!rc && !text)
        err_set(ERR_MEMORY, "provenance: out of memory");
    return text;
}

static int from_hex(const char *hex, char *to, size_t size)
{
    size_t n = strlen(hex);
    if (n % 2 || n / 2 >= size || hex[strspn(hex, "0123456789abcdef")])
        return err_set(ERR_DATA, "not bytes in hexadecimal digits");
    for (size_t i = 0; i < n / 2; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1 || !byte)
            return err_set(ERR_DATA, "not the bytes of a name");
        to[i] = (char)byte;
    }
    to[n / 2] = 0;
    return 0;
}

static int read_fact(Provenance *p, int i, json_object *v)
{
    char name[NAME_MOST + 1];
    json_object *hex;
    const char *text = json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
    if (json_object_is_type(v, json_type_object) && json_object_object_get_ex(v, "hex", &hex) &&
        json_object_is_type(hex, json_type_string)) {
        if (from_hex(json_object_get_string(hex), name, sizeof name))
            return err_prefix("%s", table[i].key);
        text = name;
    }
    /* Zero bytes within would hide what stands behind them. */
    if (!text || (text != name && strlen(text) != (size_t)json_object_get_string_len(v)))
        return err_set(ERR_DATA, "%s: not a text", table[i].key);
    return put(p, i, text);
}

static int read_facts(Provenance *p, json_object *o)
{
    json_object *v;
    for (int i = 0; i < PROVENANCE_FACTS; i++)
        if (json_object_object_get_ex(o, table[i].key, &v) && read_fact(p, i, v))
            return -1;
    if (json_object_object_get_ex(o, "changes", &v)) {
        if (!json_object_is_type(v, json_type_array))
            return err_set(ERR_DATA, "changes: not a list");
        p->changes = json_object_get(v);
    }
    return 0;
}

int provenance_from_json(Provenance *p, const char *json)
{
    json_object *o = json_tokener_parse(json);
    *p = (Provenance){ 0 };
    int rc = o && json_object_is_type(o, json_type_object) ? read_facts(p, o)
                                                           : err_set(ERR_DATA, "not a JSON object");
    json_object_put(o);
    return rc ? err_prefix("its provenance") : 0;
}

/* ---------------------------------------------------------------- another stream */

static const char *const programs[] = { "hssl-load", "the planning stage", "hssl-augment", "hssl-train" };

/* Without shuffling its seed means nothing. */
static bool matters(int i, const Provenance *was, const Provenance *now)
{
    const char *a = provenance_get(was, "shuffle"), *b = provenance_get(now, "shuffle");
    return table[i].decides &&
           (strcmp(table[i].key, "load_seed") || !a || !b || strcmp(a, "false") || strcmp(b, "false"));
}

static bool differs(int i, const Provenance *was, const Provenance *now)
{
    const char *a = was->text[i], *b = now->text[i];
    return a && (!b || strcmp(a, b)) && matters(i, was, now);
}

int provenance_compare(const Provenance *was, const Provenance *now, char *words, size_t size,
                       bool *unchecked)
{
    int n = 0;
    size_t at = 0;
    *words = 0;
    *unchecked = false;
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const ProvenanceFact *f = &table[i];
        *unchecked |= matters(i, was, now) && !was->text[i] && now->text[i];
        if (!differs(i, was, now))
            continue;
        const char *b = now->text[i] ? now->text[i] : "not told";
        int more = f->option ? snprintf(words + at, size - at, "%s--%s %s of %s, here %s", n ? "; " : "",
                                        f->option, was->text[i], programs[f->stage], b)
                             : snprintf(words + at, size - at, "%s%s %s, here %s", n ? "; " : "", f->what,
                                        was->text[i], b);
        at = at + (size_t)more < size ? at + (size_t)more : size - 1;
        n++;
    }
    return n;
}

int provenance_change(Provenance *p, int64_t step, const char *key, const char *was, const char *now)
{
    json_object *c = json_object_new_object();
    if (!p->changes)
        p->changes = json_object_new_array();
    if (!c || !p->changes)
        err_set(ERR_MEMORY, "provenance: out of memory");
    else if (!add(c, "step", json_object_new_int64(step)) && !add(c, "key", json_object_new_string(key)) &&
             (!was || !add(c, "was", text_json(was))) && (!now || !add(c, "now", text_json(now))) &&
             !json_object_array_add(p->changes, c))
        return 0;
    json_object_put(c);
    return -1;
}

int provenance_follow(Provenance *p, int64_t step, const Provenance *now)
{
    for (int i = 0; i < PROVENANCE_FACTS; i++)
        if (differs(i, p, now) && provenance_change(p, step, table[i].key, p->text[i], now->text[i]))
            return -1;
    for (int i = 0; i < PROVENANCE_FACTS; i++)
        if (table[i].stage != STAGE_TRAIN && put(p, i, now->text[i]))
            return -1;
    return 0;
}
