#include "store/safetensors.h"

#include "util/err.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Both take value over. json-c drops what it has no memory for. 0, or -1. */
static int add(json_object *o, const char *key, json_object *value)
{
    if (value && !json_object_object_add(o, key, value))
        return 0;
    json_object_put(value);
    return -1;
}

static int append(json_object *array, uint64_t x)
{
    json_object *value = json_object_new_int64((int64_t)x);
    if (value && !json_object_array_add(array, value))
        return 0;
    json_object_put(value);
    return -1;
}

static json_object *describe(const StoredTensor *t, size_t begin)
{
    json_object *o = json_object_new_object(), *shape = json_object_new_array(), *offsets = json_object_new_array();
    int rc = !o || !shape || !offsets || add(o, "dtype", json_object_new_string(stored_type_name(t->dtype)));
    for (int i = 0; i < t->ndim && !rc; i++)
        rc = append(shape, (uint64_t)t->shape[i]);
    rc = rc || append(offsets, begin) || append(offsets, begin + t->bytes) ||
         add(o, "shape", json_object_get(shape)) || add(o, "data_offsets", json_object_get(offsets));
    json_object_put(shape);
    json_object_put(offsets);
    if (!rc)
        return o;
    json_object_put(o);
    return NULL;
}

/* The header's text; tensors in the order of `order`. */
static json_object *make_header(const StoredTensor *tensors, const size_t *order, size_t n, const char *const meta[][2],
                                size_t n_meta)
{
    size_t at = 0;
    json_object *header = json_object_new_object(), *strings = n_meta ? json_object_new_object() : NULL;
    if (!header || (n_meta && !strings))
        goto fail;
    for (size_t i = 0; i < n_meta; i++)
        if (add(strings, meta[i][0], json_object_new_string(meta[i][1])))
            goto fail;
    if (strings && add(header, "__metadata__", json_object_get(strings)))
        goto fail;
    for (size_t i = 0; i < n; i++) {
        const StoredTensor *t = &tensors[order[i]];
        json_object *o = describe(t, at);
        if (!o)
            goto fail;
        if (json_object_object_get_ex(header, t->name, NULL)) {
            err_set(ERR_USAGE, "tensor %s twice in one file", t->name);
            json_object_put(o);
            json_object_put(strings);
            json_object_put(header);
            return NULL;
        }
        if (add(header, t->name, o))
            goto fail;
        at += t->bytes;
    }
    json_object_put(strings);
    return header;
fail:
    json_object_put(header);
    json_object_put(strings);
    err_set(ERR_MEMORY, "no memory for the header of %zu tensors", n);
    return NULL;
}

static int write_file(Output *o, json_object *header, const StoredTensor *tensors, const size_t *order, size_t n)
{
    static const char spaces[8] = { ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ' };
    const char *text = json_object_to_json_string_ext(header, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    if (!text)
        return err_set(ERR_MEMORY, "safetensors: out of memory");
    size_t length = strlen(text), pad = (8 - length % 8) % 8;
    uint64_t announced = length + pad;
    if (output_write(o, &announced, 8) || output_write(o, text, length) || output_write(o, spaces, pad))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (output_write(o, tensors[order[i]].data, tensors[order[i]].bytes))
            return -1;
    return 0;
}

/* Indices by falling element size, otherwise as given. */
static size_t *lay_out(const StoredTensor *tensors, size_t n)
{
    size_t *order = malloc((n + 1) * sizeof *order), at = 0;
    for (size_t size = 8; order && size; size /= 2)
        for (size_t i = 0; i < n; i++)
            if (stored_type_size(tensors[i].dtype) == size)
                order[at++] = i;
    return order;
}

int safetensors_put(Output *o, const StoredTensor *tensors, size_t n, const char *const meta[][2], size_t n_meta)
{
    for (size_t i = 0; i < n; i++)
        if (stored_check(&tensors[i]))
            return -1;
    size_t *order = lay_out(tensors, n);
    json_object *header = order ? make_header(tensors, order, n, meta, n_meta) : NULL;
    int rc = !order ? err_set(ERR_MEMORY, "safetensors: out of memory")
             : header ? write_file(o, header, tensors, order, n) : -1;
    json_object_put(header);
    free(order);
    return rc;
}

int safetensors_write(const char *path, const StoredTensor *tensors, size_t n, const char *const meta[][2],
                      size_t n_meta)
{
    Output *o = output_open(path, NULL, OUTPUT_LASTING);
    if (!o)
        return -1;
    if (!safetensors_put(o, tensors, n, meta, n_meta))
        return output_commit(&o);
    output_cancel(&o);
    return err_prefix("%s", path);
}
