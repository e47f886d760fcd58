#include "golden.h"

#include "../tap.h"
#include "store/safetensors.h"
#include "util/err.h"

#include <dirent.h>
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_TABLES = 32, MAX_EXCUSES = 32 };

static const GoldenCase *tables[MAX_TABLES];
static int ntables;

struct Golden {
    SafeTensors *st;
    const char *path, *name;
    GoldenTensor *tensors;
    bool *compared;
    size_t count;
    json_object *config, *zero;
    double tolerance; /* NaN: statistical */
    double largest;   /* of all gradients, for those that are zero in exact arithmetic */
    int failures, compares;
    double worst; /* error over tolerance, of all comparisons */
    char worst_name[128];
    double worst_error;
};

void golden_register(const GoldenCase *cases)
{
    if (ntables < MAX_TABLES)
        tables[ntables++] = cases;
}

static void (*case_function(const char *name))(Golden *)
{
    void (*run)(Golden *) = NULL;
    size_t best = 0;
    for (int i = 0; i < ntables; i++)
        for (const GoldenCase *c = tables[i]; c->pattern; c++)
            if (strlen(c->pattern) > best && !fnmatch(c->pattern, name, 0)) {
                best = strlen(c->pattern);
                run = c->run;
            }
    return run;
}

const char *golden_name(const Golden *g)
{
    return g->name;
}

double golden_tolerance(const Golden *g)
{
    return g->tolerance;
}

void golden_fail(Golden *g, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    diag("%s: %s", g->name, text);
    g->failures++;
}

/* ---------------------------------------------------------------- configuration */

json_object *golden_config(const Golden *g)
{
    return g->config;
}

bool golden_has(const Golden *g, const char *key)
{
    return json_object_object_get_ex(g->config, key, NULL);
}

double golden_real(const Golden *g, const char *key, double fallback)
{
    json_object *v;
    return json_object_object_get_ex(g->config, key, &v) ? json_object_get_double(v) : fallback;
}

int golden_int(const Golden *g, const char *key, int fallback)
{
    json_object *v;
    return json_object_object_get_ex(g->config, key, &v) ? json_object_get_int(v) : fallback;
}

const char *golden_text(const Golden *g, const char *key, const char *fallback)
{
    json_object *v;
    return json_object_object_get_ex(g->config, key, &v) ? json_object_get_string(v) : fallback;
}

int golden_list(const Golden *g, const char *key, double *out, int max)
{
    json_object *v;
    if (!json_object_object_get_ex(g->config, key, &v) || !json_object_is_type(v, json_type_array))
        return 0;
    int n = (int)json_object_array_length(v);
    for (int i = 0; i < n && i < max; i++)
        out[i] = json_object_get_double(json_object_array_get_idx(v, (size_t)i));
    return n;
}

/* ---------------------------------------------------------------- tensors */

const GoldenTensor *golden_at(const Golden *g, size_t i)
{
    return i < g->count ? &g->tensors[i] : NULL;
}

const GoldenTensor *golden_find(const Golden *g, const char *name)
{
    for (size_t i = 0; i < g->count; i++)
        if (!strcmp(g->tensors[i].name, name))
            return &g->tensors[i];
    return NULL;
}

const GoldenTensor *golden_findf(const Golden *g, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return golden_find(g, name);
}

const GoldenTensor *golden_get(Golden *g, const char *name)
{
    const GoldenTensor *t = golden_find(g, name);
    if (!t)
        golden_fail(g, "the file has no %s", name);
    return t;
}

const float *golden_f32(Golden *g, const char *name)
{
    const GoldenTensor *t = golden_get(g, name);
    if (t && strcmp(t->dtype, "F32")) {
        golden_fail(g, "%s is %s, not F32", name, t->dtype);
        return NULL;
    }
    return t ? t->data : NULL;
}

/* ---------------------------------------------------------------- comparison */

static bool is_exactly_zero(const Golden *g, const char *name)
{
    size_t n = g->zero ? json_object_array_length(g->zero) : 0;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(json_object_get_string(json_object_array_get_idx(g->zero, i)), name))
            return true;
    return false;
}

static const GoldenTensor *compare(Golden *g, const char *name)
{
    const GoldenTensor *t = golden_get(g, name);
    if (t) {
        g->compared[t - g->tensors] = true;
        g->compares++;
    }
    return t;
}

static bool note(Golden *g, const GoldenTensor *t, double error, double tolerance)
{
    double ratio = tolerance > 0 ? error / tolerance : error > 0 ? INFINITY : 0;
    if (!(ratio <= g->worst) || !*g->worst_name) {
        g->worst = ratio;
        g->worst_error = error;
        snprintf(g->worst_name, sizeof g->worst_name, "%s", t->name);
    }
    if (ratio <= 1)
        return true;
    golden_fail(g, "%s: error %.3g, tolerance %.3g", t->name, error, tolerance);
    return false;
}

bool golden_check_except(Golden *g, const char *name, const float *got,
                         bool (*skip_it)(size_t i, size_t count))
{
    const GoldenTensor *t = compare(g, name);
    if (!t)
        return false;
    if (strcmp(t->dtype, "F32") || !got) {
        golden_fail(g, "%s: %s", name, got ? "is not F32" : "nothing to compare with");
        return false;
    }
    if (isnan(g->tolerance)) {
        golden_fail(g, "%s: compared as numbers, but the file holds statistics", name);
        return false;
    }
    const float *want = t->data;
    double worst = 0, scale = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (skip_it && skip_it(i, t->count))
            continue;
        double d = fabs((double)got[i] - want[i]);
        worst = d <= worst ? worst : d; /* a NaN sticks */
        if (isnan(d)) {
            worst = INFINITY;
            break;
        }
        scale = fmax(scale, fabs(want[i]));
    }
    if (is_exactly_zero(g, name))
        scale = g->largest;
    return note(g, t, scale > 0 ? worst / scale : worst, g->tolerance);
}

void golden_allow(Golden *g, double tolerance)
{
    if (g->tolerance < tolerance)
        g->tolerance = tolerance;
}

bool golden_check(Golden *g, const char *name, const float *got)
{
    return golden_check_except(g, name, got, NULL);
}

bool golden_check_within(Golden *g, const char *name, const float *got, const double *allowed)
{
    const GoldenTensor *t = compare(g, name);
    if (!t || strcmp(t->dtype, "F32")) {
        golden_fail(g, "%s: is not F32", name);
        return false;
    }
    bool good = true;
    for (size_t i = 0; i < t->count; i++)
        good = note(g, t, fabs((double)got[i] - ((const float *)t->data)[i]), allowed[i]) && good;
    return good;
}

bool golden_check_scalar(Golden *g, const char *name, double got)
{
    const GoldenTensor *t = golden_find(g, name);
    float value = (float)got;
    if (t && t->count != 1) {
        golden_fail(g, "%s has %zu elements, not one", name, t->count);
        return false;
    }
    return golden_check(g, name, &value);
}

bool golden_check_equal(Golden *g, const char *name, const void *got, size_t bytes)
{
    const GoldenTensor *t = compare(g, name);
    if (!t)
        return false;
    size_t each = !strcmp(t->dtype, "U8") ? 1 : !strcmp(t->dtype, "I64") ? 8 : 4;
    if (bytes != t->count * each) {
        golden_fail(g, "%s: %zu bytes, %zu wanted", name, bytes, t->count * each);
        return false;
    }
    size_t wrong = 0, first = 0;
    for (size_t i = t->count; i-- > 0;)
        if (memcmp((const char *)got + i * each, (const char *)t->data + i * each, each)) {
            wrong++;
            first = i;
        }
    if (!wrong)
        return note(g, t, 0, 0);
    if (each == 1)
        diag("%s: first difference at %zu: got %d, want %d", name, first, ((const uint8_t *)got)[first],
             ((const uint8_t *)t->data)[first]);
    golden_fail(g, "%s: %zu of %zu elements differ, the first at %zu", name, wrong, t->count, first);
    return false;
}

void golden_excuse(Golden *g, const char *pattern, const char *why)
{
    int n = 0;
    for (size_t i = 0; i < g->count; i++)
        if (!g->compared[i] && !fnmatch(pattern, g->tensors[i].name, 0)) {
            g->compared[i] = true;
            n++;
        }
    if (n)
        diag("%s: %s not compared (%d): %s", g->name, pattern, n, why);
}

/* ---------------------------------------------------------------- one file */

static bool is_result(const char *name)
{
    return !strncmp(name, "out.", 4) || !strncmp(name, "grad.", 5);
}

static int read_tensors(Golden *g)
{
    g->count = safetensors_count(g->st);
    g->tensors = calloc(g->count + 1, sizeof *g->tensors);
    g->compared = calloc(g->count + 1, sizeof *g->compared);
    if (!g->tensors || !g->compared)
        return err_set(ERR_MEMORY, "%s: out of memory", g->path);
    for (size_t i = 0; i < g->count; i++) {
        const StoredTensor *s = safetensors_at(g->st, i);
        GoldenTensor *t = &g->tensors[i];
        *t = (GoldenTensor){ .name = s->name, .ndim = s->ndim, .data = s->data,
                             .count = s->bytes / stored_type_size(s->dtype) };
        snprintf(t->dtype, sizeof t->dtype, "%s", stored_type_name(s->dtype));
        memcpy(t->shape, s->shape, sizeof t->shape);
        if (strncmp(t->name, "grad.", 5) || s->dtype != STORED_F32)
            continue;
        for (size_t j = 0; j < t->count; j++)
            g->largest = fmax(g->largest, fabs(((const float *)t->data)[j]));
    }
    return 0;
}

static int read_meta(Golden *g)
{
    const char *config = safetensors_meta(g->st, "config"), *zero = safetensors_meta(g->st, "exactly_zero");
    const char *tolerance = safetensors_meta(g->st, "tolerance");
    if (!(g->name = safetensors_meta(g->st, "case")))
        return err_set(ERR_DATA, "%s: no `case` in its metadata", g->path);
    g->config = config ? json_tokener_parse(config) : NULL;
    if (!g->config || !json_object_is_type(g->config, json_type_object))
        return err_set(ERR_DATA, "%s: no `config` in its metadata", g->path);
    g->zero = zero ? json_tokener_parse(zero) : NULL;
    if (g->zero && !json_object_is_type(g->zero, json_type_array))
        return err_set(ERR_DATA, "%s: `exactly_zero` is not a list", g->path);
    char *end = NULL;
    g->tolerance = tolerance ? strtod(tolerance, &end) : NAN;
    if (!tolerance || end == tolerance)
        g->tolerance = NAN;
    return 0;
}

static void run_file(const char *path)
{
    Golden g = { .path = path };
    if (!(g.st = safetensors_open(path)) || read_meta(&g) || read_tensors(&g)) {
        ok(false, "%s", path);
        diag("%s", err_text());
        goto out;
    }
    void (*run)(Golden *) = case_function(g.name);
    if (!run) {
        skip("this case is not built", "%s", g.name);
        goto out;
    }
    err_clear();
    run(&g);
    int missed = 0;
    for (size_t i = 0; i < g.count; i++)
        if (is_result(g.tensors[i].name) && !g.compared[i] && !missed++)
            golden_fail(&g, "%s was never compared", g.tensors[i].name);
    if (missed > 1)
        diag("%s: nor were %d more", g.name, missed - 1);
    if (!g.compares)
        golden_fail(&g, "nothing was compared");
    if (g.failures && err_code())
        diag("%s: last error: %s", g.name, err_text());
    if (*g.worst_name && isnan(g.tolerance))
        ok(!g.failures, "%s: %d compared, worst %s at %.2g of its sampling error's bound", g.name, g.compares,
           g.worst_name, g.worst);
    else if (*g.worst_name)
        ok(!g.failures, "%s: %d compared, worst %s %.2g of %.2g", g.name, g.compares, g.worst_name,
           g.worst_error, g.tolerance);
    else
        ok(!g.failures, "%s: %d compared", g.name, g.compares);
out:
    json_object_put(g.config);
    json_object_put(g.zero);
    free(g.tensors);
    free(g.compared);
    safetensors_close(g.st);
}

/* ---------------------------------------------------------------- directories */

static int wanted(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 12 && !strcmp(e->d_name + n - 12, ".safetensors");
}

static void run_directory(const char *dir)
{
    struct dirent **names;
    int n = scandir(dir, &names, wanted, alphasort);
    if (n < 0) {
        ok(false, "%s: cannot be read", dir);
        return;
    }
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        run_file(path);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: golden DIRECTORY|FILE...\n");
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (!stat(argv[i], &st) && !S_ISDIR(st.st_mode))
            run_file(argv[i]);
        else
            run_directory(argv[i]);
    }
    return tap_done();
}
