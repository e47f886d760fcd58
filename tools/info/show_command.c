/* The commands that made a run, for a shell: every stage with every option that decides what it gives, so
 * that other defaults of a later version change nothing. What is in a run is foreign: names of options come
 * from the table or are checked, values are quoted. */
#include "show.h"
#include "train/provenance.h"
#include "util/err.h"
#include "util/log.h"
#include "util/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 100, INDENT = 4 };

/* Text in the making. */
typedef struct {
    FILE *f;
    size_t column;
    bool stages, words; /* there is one already; so is a word of this one */
    bool failed;        /* for want of memory */
} Writer;

static void begin_stage(Writer *w)
{
    if (w->stages)
        fprintf(w->f, " |\n%*s", INDENT, "");
    w->column = w->stages ? INDENT : 0;
    w->stages = true;
    w->words = false;
}

/* before, name, and then a value, quoted, behind a separator: they stay on one line. value NULL: neither. */
static void put(Writer *w, const char *before, const char *name, const char *separator, const char *value)
{
    char *word = value ? text_shell(value) : NULL;
    size_t n = strlen(before) + strlen(name) + (word ? strlen(separator) + strlen(word) : 0);
    if (w->words && w->column + 1 + n > COLUMNS) {
        fprintf(w->f, " \\\n%*s", 2 * INDENT, "");
        w->column = 2 * INDENT;
    } else if (w->words) {
        fputc(' ', w->f);
        w->column++;
    }
    fprintf(w->f, "%s%s%s%s", before, name, word ? separator : "", word ? word : "");
    w->column += n;
    w->words = true;
    w->failed |= value && !word;
    free(word);
}

static void put_option(Writer *w, const char *name, const char *value)
{
    put(w, "--", name, " ", value);
}

static void put_flag(Writer *w, const char *name, bool on)
{
    put(w, on ? "--" : "--no-", name, "", NULL);
}

/* All options of a stage that are known. Which part of a data set it was is said where there are several. */
static void put_facts(Writer *w, const Provenance *p, ProvenanceStage stage)
{
    const char *world = provenance_get(p, "world");
    bool whole = !world || !strcmp(world, "1");
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const ProvenanceFact *f = provenance_fact(i);
        if (f->stage != stage || !f->option || !p->text[i] ||
            (whole && (!strcmp(f->key, "rank") || !strcmp(f->key, "world"))))
            continue;
        if (f->type == FACT_IS_FLAG)
            put_flag(w, f->option, !strcmp(p->text[i], "true"));
        else
            put_option(w, f->option, p->text[i]);
    }
}

static void put_views(Writer *w, const Provenance *p)
{
    begin_stage(w);
    if (!strcmp(provenance_get(p, "planner"), "hssl-multicrop")) {
        put(w, "", "hssl-multicrop", "", NULL);
        put_facts(w, p, STAGE_PLAN);
        begin_stage(w);
        put(w, "", "hssl-augment", "", NULL);
    } else {
        put(w, "", "hssl-augment", "", NULL);
        put_facts(w, p, STAGE_PLAN);
    }
    put_facts(w, p, STAGE_RENDER);
}

static void put_train(Writer *w, const Provenance *p, json_object *config)
{
    begin_stage(w);
    for (int i = 0; i < PROVENANCE_FACTS; i++)
        if (provenance_fact(i)->variable && p->text[i])
            put(w, "", provenance_fact(i)->variable, "=", p->text[i]);
    put(w, "", "hssl-train", "", NULL);
    json_object_object_foreach(config, key, v) if (json_object_is_type(v, json_type_boolean))
        put_flag(w, key, json_object_get_boolean(v));
    else put_option(w, key, v ? json_object_get_string(v) : "");
    put_facts(w, p, STAGE_TRAIN);
}

/* ---------------------------------------------------------------- the whole */

/* The settings as an object whose members could be options. */
static json_object *settings(Run *run)
{
    json_object *o = json_tokener_parse(run_config(run));
    bool good = json_object_is_type(o, json_type_object);
    if (good) {
        json_object_object_foreach(o, key, v)
        {
            (void)v;
            good = good && *key >= 'a' && *key <= 'z' &&
                   !key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789-")];
        }
    }
    if (good)
        return o;
    json_object_put(o);
    err_set(ERR_DATA, "%s: its settings are not options of hssl-train", run_path(run));
    return NULL;
}

/* malloc'd, or NULL. Several ranks each have a pipeline. */
static char *pipeline(const Provenance *p, json_object *config)
{
    char *text = NULL, *all = NULL;
    size_t size;
    const char *dataset = provenance_get(p, "dataset"), *ranks = provenance_get(p, "ranks");
    Writer w = { .f = open_memstream(&text, &size)};
    if (!w.f)
        return NULL;
    begin_stage(&w);
    put(&w, "", "hssl-load", "", NULL);
    put_facts(&w, p, STAGE_LOAD);
    put(&w, *dataset == '-' ? "--" : "", "", *dataset == '-' ? " " : "", dataset);
    put_views(&w, p);
    put_train(&w, p, config);
    if (fclose(w.f) || w.failed) {
        free(text);
        return NULL;
    }
    if (!ranks || strtoll(ranks, NULL, 10) <= 1)
        return text;
    char *word = text_shell(text);
    if (!word || asprintf(&all, "mpirun -n %s sh -c %s", ranks, word) < 0)
        all = NULL;
    free(word);
    free(text);
    return all;
}

/* What no one command can say. */
static void say_more(Run *run, const Provenance *p)
{
    size_t n = p->changes ? json_object_array_length(p->changes) : 0;
    const char *digest = provenance_get(p, "continued_digest"), *step = provenance_get(p, "continued_step"),
               *from = provenance_get(p, "continue_from");
    for (size_t i = 0; i < n; i++)
        log_warn("%s: not made by one command: %s", run_path(run),
                 safe_text(json_object_to_json_string_ext(json_object_array_get_idx(p->changes, i),
                                                          JSON_C_TO_STRING_PLAIN)));
    if (digest && step && from)
        log_info("%s began with step %s, digest %s, of %s", run_path(run), step, digest, safe_text(from));
}

static int read_origin(Run *run, Provenance *p)
{
    char *json = run_get(run, "provenance");
    *p = (Provenance){ 0 };
    if (!json && err_code() == ERR_ABSENT)
        return err_set(ERR_ABSENT,
                       "%s: begun by an older version, which did not keep the stream it was trained on",
                       run_path(run));
    int rc = json ? provenance_from_json(p, json) : -1;
    free(json);
    return rc ? err_prefix("%s", run_path(run)) : 0;
}

int show_command(Run *run, const Wanted *w)
{
    Provenance p;
    json_object *config = NULL;
    char *text = NULL;
    int rc = read_origin(run, &p);
    if (!rc && (!provenance_get(&p, "dataset") || !provenance_get(&p, "planner")))
        rc = err_set(
            ERR_ABSENT,
            "%s: its stream did not say what data set or plans it was made of: that of %s is not known",
            run_path(run), provenance_get(&p, "dataset") ? "the plans" : "the records");
    if (!rc && !(config = settings(run)))
        rc = -1;
    if (!rc && !(text = pipeline(&p, config)))
        rc = err_set(ERR_MEMORY, "%s: out of memory", run_path(run));
    if (!rc) {
        say_more(run, &p);
        if (w->json) {
            json_object *j = json_object_new_object();
            json_object_object_add(j, "file", text_json(run_path(run)));
            json_object_object_add(j, "command", text_json(text));
            print_json(j);
        } else {
            puts(text);
        }
    }
    free(text);
    json_object_put(config);
    provenance_free(&p);
    return rc;
}

/* ---------------------------------------------------------------- among the rest that is said of a run */

void print_provenance(Run *run)
{
    Provenance p;
    if (!read_origin(run, &p))
        for (int i = 0; i < PROVENANCE_FACTS; i++)
            if (p.text[i])
                printf("  from: %-22s %s\n", provenance_fact(i)->key, safe_text(p.text[i]));
    provenance_free(&p);
}

json_object *provenance_json(Run *run)
{
    char *json = run_get(run, "provenance");
    json_object *j = json ? parsed_json(json) : NULL;
    free(json);
    return j;
}
