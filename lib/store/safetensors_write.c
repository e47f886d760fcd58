#include "store/safetensors.h"

#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static int write_all(int fd, const void *bytes, size_t n)
{
    for (const char *p = bytes; n;) {
        ssize_t done = write(fd, p, n < (1u << 30) ? n : (1u << 30));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

static int write_file(int fd, json_object *header, const StoredTensor *tensors, const size_t *order, size_t n)
{
    static const char spaces[8] = { ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ' };
    const char *text = json_object_to_json_string_ext(header, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    if (!text) {
        errno = ENOMEM;
        return -1;
    }
    size_t length = strlen(text), pad = (8 - length % 8) % 8;
    uint64_t announced = length + pad;
    if (write_all(fd, &announced, 8) || write_all(fd, text, length) || write_all(fd, spaces, pad))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (write_all(fd, tensors[order[i]].data, tensors[order[i]].bytes))
            return -1;
    return fsync(fd);
}

/* The name itself is durable only once its directory is. */
static void sync_directory(const char *path)
{
    char copy[PATH_MAX];
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy)
        return;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
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

int safetensors_write(const char *path, const StoredTensor *tensors, size_t n, const char *const meta[][2],
                      size_t n_meta)
{
    for (size_t i = 0; i < n; i++)
        if (stored_check(&tensors[i]))
            return err_prefix("%s", path);
    int rc = -1, fd = -1;
    json_object *header = NULL;
    size_t room = strlen(path) + 32, *order = lay_out(tensors, n);
    char *temporary = malloc(room);
    if (!order || !temporary) {
        err_set(ERR_MEMORY, "%s: out of memory", path);
        goto out;
    }
    snprintf(temporary, room, "%s.tmp.%ld", path, (long)getpid());
    header = make_header(tensors, order, n, meta, n_meta);
    if (!header) {
        err_prefix("%s", path);
        goto out;
    }
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        err_system("%s", temporary);
        goto out;
    }
    bool bad = write_file(fd, header, tensors, order, n);
    int why = errno;
    if (close(fd) && !bad) {
        bad = true;
        why = errno;
    }
    if (!bad && !rename(temporary, path)) {
        sync_directory(path);
        rc = 0;
        goto out;
    }
    errno = bad ? why : errno;
    err_system("%s", path);
    unlink(temporary);
out:
    json_object_put(header);
    free(temporary);
    free(order);
    return rc;
}
