#include "train/machine.h"

#include "util/err.h"
#include "util/output.h"
#include "util/text.h"

#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file's keys, in the order in which they are written. */
static const struct {
    const char *key;
    size_t at;
    enum { WANTED, ZERO_TOO, OPTIONAL } need;
} numbers[] = {
#define AT(field) #field, offsetof(Machine, field)
    {AT(cores), WANTED},      {AT(memory), WANTED},    {AT(devices), OPTIONAL}, {AT(decode), WANTED},
    {AT(render), WANTED},     {AT(copy), OPTIONAL},    {AT(message), OPTIONAL}, {AT(device_memory), OPTIONAL},
    {AT(peak), ZERO_TOO},     {AT(student), WANTED},   {AT(teacher), OPTIONAL}, {AT(update), OPTIONAL},
    {AT(overhead), ZERO_TOO}, {AT(busy), OPTIONAL},    {AT(upload), ZERO_TOO},  {AT(link), OPTIONAL},
    {AT(network), OPTIONAL},  {AT(latency), ZERO_TOO}, {AT(overlap), ZERO_TOO},
#undef AT
};
/* What MPI was seen to do between two processes of a host, each with a processor to itself and sleeping while
 * it waits. */
static const double MPI_LINK = 2e8;
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static double *field(Machine *m, int i)
{
    return (double *)(void *)((char *)m + numbers[i].at);
}

void machine_init(Machine *m)
{
    *m = (Machine){.devices = 1, .copy = 5e9, .message = 3e-6, .update = 1e10, .network = 1.25e9};
}

void machine_fill(Machine *m)
{
    if (!m->link)
        m->link = m->gpu ? 1e10 : MPI_LINK;
    if (!m->device_memory && !m->gpu)
        m->device_memory = m->memory;
    if (!m->teacher)
        m->teacher = m->student;
    if (!m->busy)
        m->busy = m->gpu ? 2 : m->cores;
}

static int read_text(const char *key, json_object *v, char *to, size_t size)
{
    if (!json_object_is_type(v, json_type_string))
        return err_set(ERR_DATA, "%s: not a text", key);
    snprintf(to, size, "%s", json_object_get_string(v));
    return 0;
}

static int read_key(Machine *m, const char *key, json_object *v)
{
    if (!strcmp(key, "name"))
        return read_text(key, v, m->name, sizeof m->name);
    if (!strcmp(key, "of"))
        return read_text(key, v, m->of, sizeof m->of);
    if (!strcmp(key, "gpu")) {
        if (!json_object_is_type(v, json_type_boolean))
            return err_set(ERR_DATA, "gpu: not true or false");
        m->gpu = json_object_get_boolean(v);
        return 0;
    }
    for (int i = 0; i < NUMBERS; i++) {
        if (strcmp(key, numbers[i].key))
            continue;
        if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double))
            return err_set(ERR_DATA, "%s: not a number", key);
        double x = json_object_get_double(v);
        if (!isfinite(x) || x < 0 || (x == 0 && numbers[i].need != ZERO_TOO))
            return err_set(ERR_DATA, "%s %g: out of range", key, x);
        *field(m, i) = x;
        return 0;
    }
    return err_set(ERR_DATA, "%.40s: no such key", key);
}

static int parse(json_object *root, Machine *m)
{
    if (!json_object_is_type(root, json_type_object))
        return err_set(ERR_DATA, "not a JSON object");
    machine_init(m);
    json_object_object_foreach(root, key, v)
    {
        if (read_key(m, key, v))
            return -1;
    }
    for (int i = 0; i < NUMBERS; i++)
        if (numbers[i].need == WANTED && !*field(m, i))
            return err_set(ERR_DATA, "%s is missing", numbers[i].key);
    if (m->overlap > 1)
        return err_set(ERR_DATA, "overlap %g: between 0 and 1", m->overlap);
    machine_fill(m);
    return 0;
}

int machine_read(const char *path, Machine *out)
{
    enum { MOST = 1 << 16 };
    char *text = malloc(MOST + 1);
    FILE *f = text ? fopen(path, "r") : NULL;
    size_t n = f ? fread(text, 1, MOST, f) : 0;
    int rc = -1;
    if (!text) {
        err_set(ERR_MEMORY, "out of memory");
    } else if (!f || ferror(f)) {
        err_system("%s", path);
    } else if (n == MOST) {
        err_set(ERR_DATA, "%s: too long for a machine", path);
    } else {
        text[n] = 0;
        enum json_tokener_error why;
        json_object *root = json_tokener_parse_verbose(text, &why);
        rc = root ? parse(root, out) : err_set(ERR_DATA, "not JSON: %s", json_tokener_error_desc(why));
        json_object_put(root);
        if (rc)
            err_prefix("%s", path);
    }
    if (f)
        fclose(f);
    free(text);
    return rc;
}

json_object *machine_json(const Machine *machine)
{
    Machine m = *machine;
    json_object *j = json_object_new_object();
    char *name = text_utf8(m.name), *of = text_utf8(m.of);
    if (j && name && of) {
        json_object_object_add(j, "name", json_object_new_string(name));
        json_object_object_add(j, "of", json_object_new_string(of));
        json_object_object_add(j, "gpu", json_object_new_boolean(m.gpu));
        for (int i = 0; i < NUMBERS; i++) {
            char number[32];
            double x = *field(&m, i);
            snprintf(number, sizeof number, "%.6g", x);
            if (x || numbers[i].need == ZERO_TOO)
                json_object_object_add(j, numbers[i].key, json_object_new_double_s(x, number));
        }
    } else {
        json_object_put(j);
        j = NULL;
        err_set(ERR_MEMORY, "out of memory");
    }
    free(name);
    free(of);
    return j;
}

int machine_write(const char *path, const Machine *m)
{
    json_object *j = machine_json(m);
    const int how = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE;
    const char *text = j ? json_object_to_json_string_ext(j, how) : NULL;
    Output *o = text ? output_open(path, NULL, 0) : NULL;
    int rc = !o || output_write(o, text, strlen(text)) || output_write(o, "\n", 1) ? -1 : output_commit(&o);
    if (j && !text)
        err_set(ERR_MEMORY, "out of memory");
    output_cancel(&o);
    json_object_put(j);
    return rc;
}
