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

/* The object of a line of this kind; NULL: it is of another, or no object. */
static json_object *line_of(const char *text, const char *kind)
{
    if (!strstr(text, kind))
        return NULL;
    json_object *o = json_tokener_parse(text), *value = NULL;
    if (o && json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, "kind", &value) &&
        json_object_is_type(value, json_type_string) && !strcmp(json_object_get_string(value), kind))
        return o;
    json_object_put(o);
    return NULL;
}

static int64_t whole_of(json_object *o, const char *key)
{
    double x = real_of(o, key);
    return x >= 0 && x < 1e12 ? (int64_t)x : -1;
}

static int see_line(int64_t number, const char *text, void *arg)
{
    EpochList *l = arg;
    (void)number;
    json_object *o = line_of(text, "epoch");
    int64_t epoch = o ? whole_of(o, "epoch") : -1;
    if (epoch >= 0) {
        EpochMeans e = {
            .epoch = epoch, .loss = real_of(o, "loss"), .d = real_of(o, "d"), .d_role = real_of(o, "d_role")};
        e.steps = whole_of(o, "steps") > 0 ? whole_of(o, "steps") : 0;
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

typedef struct {
    const char *kind, *const *keys;
    JournalPoint *items;
    int64_t count, room;
} PointList;

static int see_point(int64_t number, const char *text, void *arg)
{
    PointList *l = arg;
    (void)number;
    json_object *o = line_of(text, l->kind);
    int64_t step = o ? whole_of(o, "step") : -1;
    if (step < 0) {
        json_object_put(o);
        return 0;
    }
    while (l->count && l->items[l->count - 1].step >= step)
        l->count--;
    if (l->count == l->room) {
        int64_t room = l->room ? 2 * l->room : 256;
        JournalPoint *grown = realloc(l->items, (size_t)room * sizeof *grown);
        if (!grown) {
            json_object_put(o);
            return err_set(ERR_MEMORY, "log: out of memory");
        }
        l->items = grown;
        l->room = room;
    }
    JournalPoint *p = &l->items[l->count++];
    p->step = step;
    for (int i = 0; i < JOURNAL_FIGURES; i++)
        p->figure[i] = l->keys[i] ? real_of(o, l->keys[i]) : NAN;
    json_object_put(o);
    return 0;
}

int64_t journal_points(Run *run, const char *kind, const char *const keys[JOURNAL_FIGURES],
                       JournalPoint **out)
{
    PointList l = { .kind = kind, .keys = keys };
    *out = NULL;
    if (run_log_each(run, 0, see_point, &l)) {
        free(l.items);
        return -1;
    }
    *out = l.items;
    return l.count;
}

typedef struct {
    JournalWarning *items;
    int count;
} WarningList;

static void text_of(json_object *o, const char *key, char *to, size_t size)
{
    json_object *v;
    bool text = json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string);
    snprintf(to, size, "%s", text ? json_object_get_string(v) : "");
}

static void drop(WarningList *l, int i)
{
    memmove(l->items + i, l->items + i + 1, (size_t)(--l->count - i) * sizeof *l->items);
}

static int see_warning(int64_t number, const char *text, void *arg)
{
    WarningList *l = arg;
    JournalWarning w;
    char state[16];
    (void)number;
    json_object *o = line_of(text, "start");
    if (o) { /* the steps behind it are repeated */
        for (int i = l->count - 1; i >= 0; i--)
            if (l->items[i].step > whole_of(o, "step"))
                drop(l, i);
    } else if ((o = line_of(text, "warning"))) {
        w.step = whole_of(o, "step");
        w.epoch = whole_of(o, "epoch");
        text_of(o, "what", w.what, sizeof w.what);
        text_of(o, "text", w.text, sizeof w.text);
        text_of(o, "remedy", w.remedy, sizeof w.remedy);
        text_of(o, "state", state, sizeof state);
        for (int i = l->count - 1; i >= 0; i--)
            if (!strcmp(l->items[i].what, w.what))
                drop(l, i);
        if (!strcmp(state, "begins") && l->count < JOURNAL_WARNINGS)
            l->items[l->count++] = w;
    }
    json_object_put(o);
    return 0;
}

int journal_warnings(Run *run, JournalWarning out[JOURNAL_WARNINGS])
{
    WarningList l = { .items = out };
    return run_log_each(run, 0, see_warning, &l) ? -1 : l.count;
}
