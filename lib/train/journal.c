#include "train/journal.h"

#include "util/err.h"
#include "util/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

json_object *journal_line(const char *kind)
{
    char now[40];
    struct timespec t;
    struct tm utc;
    json_object *line = json_object_new_object();
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &utc);
    size_t n = strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(now + n, sizeof now - n, ".%03dZ", (int)(t.tv_nsec / 1000000));
    journal_text(line, "kind", kind);
    journal_text(line, "time", now);
    return line;
}

void journal_int(json_object *line, const char *key, int64_t value)
{
    json_object_object_add(line, key, json_object_new_int64(value));
}

void journal_real(json_object *line, const char *key, double value)
{
    if (isfinite(value))
        json_object_object_add(line, key, json_object_new_double(value));
}

void journal_text(json_object *line, const char *key, const char *value)
{
    char *proper = text_utf8(value);
    if (proper)
        json_object_object_add(line, key, json_object_new_string(proper));
    free(proper);
}

int journal_write(Journal *j, json_object *line)
{
    const char *text = json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN);
    int rc = text ? 0 : err_set(ERR_MEMORY, "log: out of memory");
    if (!rc && j->file) { /* which may be a terminal */
        text_put_json(j->file, text);
        if (fputc('\n', j->file) == EOF || fflush(j->file) || ferror(j->file))
            rc = err_system(j->file == stdout ? "standard output" : "log file");
    }
    if (!rc && j->run)
        rc = run_log(j->run, text);
    json_object_put(line);
    return rc;
}

typedef struct {
    EpochMeans *items;
    int64_t count, room;
} EpochList;

static double real_of(json_object *o, const char *key)
{
    json_object *v;
    bool number = json_object_object_get_ex(o, key, &v) &&
                  (json_object_is_type(v, json_type_double) || json_object_is_type(v, json_type_int));
    return number ? json_object_get_double(v) : NAN;
}

static int see_line(int64_t number, const char *text, void *arg)
{
    EpochList *l = arg;
    (void)number;
    if (!strstr(text, "\"epoch\""))
        return 0;
    json_object *o = json_tokener_parse(text), *kind = NULL;
    bool mine = o && json_object_is_type(o, json_type_object) &&
                json_object_object_get_ex(o, "kind", &kind) && json_object_is_type(kind, json_type_string) &&
                !strcmp(json_object_get_string(kind), "epoch");
    double epoch = mine ? real_of(o, "epoch") : NAN;
    if (epoch >= 0 && epoch < 1e12) {
        EpochMeans e = { .epoch = (int64_t)epoch, .loss = real_of(o, "loss"), .d = real_of(o, "d"),
                         .d_role = real_of(o, "d_role") };
        double steps = real_of(o, "steps");
        e.steps = steps >= 0 && steps < 1e12 ? (int64_t)steps : 0;
        while (l->count && l->items[l->count - 1].epoch >= e.epoch)
            l->count--;
        if (l->count == l->room) {
            int64_t room = l->room ? 2 * l->room : 64;
            EpochMeans *grown = realloc(l->items, (size_t)room * sizeof *grown);
            if (!grown) {
                json_object_put(o);
                return err_set(ERR_MEMORY, "log: out of memory");
            }
            l->items = grown;
            l->room = room;
        }
        l->items[l->count++] = e;
    }
    json_object_put(o);
    return 0;
}

int64_t journal_epochs(Run *run, EpochMeans **out)
{
    EpochList l = { 0 };
    *out = NULL;
    if (run_log_each(run, 0, see_line, &l)) {
        free(l.items);
        return -1;
    }
    *out = l.items;
    return l.count;
}
