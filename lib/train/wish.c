#include "train/wish.h"

#include "util/err.h"
#include "util/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of an image's views that somebody may wish; lines that consumers can have a stage write. */
enum { VIEW_BYTES = 16 << 20, LINES = 16 };
enum { NAME = 64 };

bool wish_can_be(const ProvenanceFact *f)
{
    return f->decides && f->option && (f->stage == STAGE_PLAN || f->stage == STAGE_RENDER);
}

static bool concerns(const ProvenanceFact *f, WishRoles as)
{
    return wish_can_be(f) && (f->stage == STAGE_PLAN ? as.plans : as.renders);
}

void wish_free(Wish *w)
{
    provenance_free(&w->views);
}

/* ---------------------------------------------------------------- facts */

static const char *name_of(const char *key, char name[NAME])
{
    snprintf(name, NAME, WISH_PREFIX "%s", key);
    return name;
}

int wish_put(const Wish *w, Message *hello)
{
    char name[NAME];
    bool any = false;
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const ProvenanceFact *f = provenance_fact(i);
        if (!wish_can_be(f) || !w->views.text[i])
            continue;
        any = true;
        if (message_set_text(hello, name_of(f->key, name), w->views.text[i]))
            return -1;
    }
    return any ? message_set_text(hello, name_of("whose", name), w->whose) : 0;
}

static bool is_printable(const char *s)
{
    while (*s >= 32 && *s < 127)
        s++;
    return !*s;
}

int wish_read(Wish *w, const Message *hello)
{
    char name[NAME];
    *w = (Wish){.whose = "the consumer wants"};
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const ProvenanceFact *f = provenance_fact(i);
        const char *text = wish_can_be(f) ? message_text(hello, name_of(f->key, name), NULL) : NULL;
        if (text && provenance_set(&w->views, f->key, text))
            return -1;
    }
    const char *whose = message_text(hello, name_of("whose", name), "");
    if (*whose && strlen(whose) < WISH_WHOSE && is_printable(whose))
        snprintf(w->whose, sizeof w->whose, "%s", whose);
    return 0;
}

/* ---------------------------------------------------------------- options */

static bool has(const Opt *opts, const char *option)
{
    while (opts->type && strcmp(opts->name, option))
        opts++;
    return opts->type;
}

static bool is_open(const Opt *opts, const char *option)
{
    ViewsGroup g = planning_group(option);
    if (!has(opts, option) || opt_given(opts, option))
        return false;
    if (g == VIEWS_LOOK)
        return planning_look_open(opts);
    return g != VIEWS_NUMBER || (!planning_given(opts, VIEWS_NUMBER) && !opt_given(opts, "recipe"));
}

static int fill_in(const Wish *w, const Opt *opts, WishRoles as)
{
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const ProvenanceFact *f = provenance_fact(i);
        if (!w->views.text[i] || !concerns(f, as) || !is_open(opts, f->option))
            continue;
        if (opt_set(opts, f->option, w->views.text[i]))
            return -1;
    }
    return 0;
}

static int64_t bytes_of(const Recipe *r)
{
    int64_t side = r->global_size, local = r->local_size;
    return 3 * (r->globals * side * side + r->locals * local * local);
}

static int check(const Recipe *before, const Recipe *after)
{
    if (bytes_of(after) <= VIEW_BYTES || bytes_of(after) <= bytes_of(before))
        return 0;
    return err_set(ERR_USAGE, "views of %" PRId64 " MiB an image, more than %d: options can ask for them",
                   bytes_of(after) >> 20, VIEW_BYTES >> 20);
}

/* The list's word in place of opt_set()'s copy. */
static void own_name(PlanningOptions *p, const char *before)
{
    char *copy = (char *)(uintptr_t)p->recipe;
    if (copy == before)
        return;
    p->recipe = recipe_find(copy)->name;
    free(copy);
}

int wish_take(const Message *hello, const Opt *opts, WishRoles as, PlanningOptions *p, Recipe *r)
{
    Wish w;
    Recipe made;
    PlanningOptions before = *p;
    WishRoles plans = {.plans = as.plans}, renders = {.renders = as.renders};
    int rc = wish_read(&w, hello) || fill_in(&w, opts, plans) || planning_recipe(p, &made) ||
                     check(r, &made) || fill_in(&w, opts, renders)
                 ? -1
                 : 0;
    own_name(p, before.recipe);
    if (rc) {
        err_prefix("what the consumer wants of the views is left alone");
        *p = before;
    } else {
        *r = made;
    }
    wish_free(&w);
    return rc;
}

int wish_answer(Message *welcome, const Opt *opts)
{
    return message_set_int(welcome, "views_given",
                           planning_given(opts, VIEWS_SIZE) || planning_given(opts, VIEWS_NUMBER) ||
                               planning_given(opts, VIEWS_LOOK));
}

/* ---------------------------------------------------------------- differences */

/* What was wished, or else what there is. */
static const char *either(const Provenance *a, const Provenance *b, const char *key)
{
    const char *text = provenance_get(a, key);
    return text ? text : provenance_get(b, key) ? provenance_get(b, key) : "?";
}

/* Appends, as much as there is room for. */
static void __attribute__((format(printf, 3, 4))) put(char *to, size_t size, const char *fmt, ...)
{
    size_t n = strlen(to);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(to + n, size - n, fmt, ap);
    va_end(ap);
}

static void put_views(char *to, size_t size, const Provenance *a, const Provenance *b, const char *globals)
{
    const char *locals = either(a, b, "locals");
    put(to, size, "%s x %s", globals, either(a, b, "global_size"));
    if (strcmp(locals, "0"))
        put(to, size, " + %s x %s", locals, either(a, b, "local_size"));
}

bool wish_differs(const Wish *w, const Message *welcome, WishRoles in, char *words, size_t size)
{
    Provenance now;
    char here[256] = "", there[256] = "";
    const char *with = " with";
    bool differs = false;
    if (provenance_from_stream(&now, welcome)) {
        provenance_free(&now);
        return false;
    }
    const char *locals = provenance_get(&now, "locals"), *globals = provenance_get(&now, "globals");
    bool no_locals = locals && !strcmp(locals, "0");
    if (!globals)
        globals = "?";
    put_views(here, sizeof here, &now, &now, globals);
    put(here, sizeof here, " views");
    put_views(there, sizeof there, &w->views, &now, globals);
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const ProvenanceFact *f = provenance_fact(i);
        const char *was = w->views.text[i], *is = now.text[i];
        if (!concerns(f, in) || !was || !is || !strcmp(was, is) ||
            (no_locals && !strncmp(f->key, "local_", 6)))
            continue;
        differs = true;
        ViewsGroup g = planning_group(f->option);
        if (g == VIEWS_SIZE || g == VIEWS_NUMBER)
            continue; /* they stand there already */
        put(here, sizeof here, "%s --%s %s", with, f->option, is);
        put(there, sizeof there, "%s --%s %s", with, f->option, was);
        with = "";
    }
    provenance_free(&now);
    int64_t given = message_int(welcome, "views_given", -1);
    snprintf(words, size, "makes %s%s; %s %s", here,
             given > 0    ? ", as its options say"
             : given == 0 ? ", as it has from the beginning"
                          : "",
             w->whose, there);
    return differs;
}

void wish_compare(const Message *hello, const Message *welcome, WishRoles as)
{
    static int lines;
    char words[640];
    Wish w;
    if (lines == LINES)
        return;
    if (!wish_read(&w, hello) && wish_differs(&w, welcome, as, words, sizeof words)) {
        log_info("%s", words);
        lines++;
    }
    wish_free(&w);
}
