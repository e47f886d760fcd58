/* How hssl-info writes: numbers and names for a reader, the same as JSON, tensors. */
#include "show.h"
#include "util/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

const char *nice_bytes(uint64_t n)
{
    static char text[4][32];
    static int i;
    i = (i + 1) % 4;
    return text_bytes((double)n, text[i], sizeof text[i]);
}

/* Foreign text must not command the terminal. */
const char *safe_text(const char *s)
{
    static char text[2][4200];
    static int i;
    i = !i;
    return text_plain(s, text[i], sizeof text[i]);
}

void print_json(json_object *j)
{
    text_put_json(stdout, json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    putchar('\n');
    json_object_put(j);
}

/* Names may hold any byte, JSON may not. */
json_object *text_json(const char *s)
{
    char *proper = text_utf8(s);
    json_object *j = json_object_new_string(proper ? proper : "");
    free(proper);
    return j;
}

json_object *number_json(uint64_t n)
{
    return json_object_new_int64((int64_t)n);
}

/* JSON text as an object, or as a string where it isn't JSON. */
json_object *parsed_json(const char *s)
{
    json_object *j = json_tokener_parse(s);
    return j ? j : text_json(s);
}

static void shape_text(const StoredTensor *t, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < t->ndim && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%" PRId64, i ? ", " : "", t->shape[i]);
    if (n < size)
        snprintf(buf + n, size - n, "]");
}

int print_tensor(const StoredTensor *t, void *arg)
{
    char shape[STORED_DIMS * 22 + 4];
    shape_text(t, shape, sizeof shape);
    fprintf(arg, "  %-48s %-4s %s\n", safe_text(t->name), stored_type_name(t->dtype), shape);
    return 0;
}

int tensor_json(const StoredTensor *t, void *arg)
{
    json_object *j = json_object_new_object(), *shape = json_object_new_array();
    json_object_object_add(j, "name", text_json(t->name));
    json_object_object_add(j, "dtype", text_json(stored_type_name(t->dtype)));
    for (int i = 0; i < t->ndim; i++)
        json_object_array_add(shape, json_object_new_int64(t->shape[i]));
    json_object_object_add(j, "shape", shape);
    json_object_object_add(j, "bytes", number_json(t->bytes));
    json_object_array_add(arg, j);
    return 0;
}
