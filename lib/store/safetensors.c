/* A safetensors file:
 *
 *  1. The length n of the header (8, little-endian), at most 100 MB.
 *  2. The header, n bytes: a JSON object, perhaps with spaces behind it. Each member but one is a tensor, by its name:
 *     {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, counted from the end of the header.
 *  3. The member "__metadata__", if there is one, maps strings to strings.
 *  4. The data. Sorted by begin, the tensors follow each other without overlap or hole, and end with the file.
 *
 * All of this is checked before a tensor is handed out. */
#include "store/safetensors.h"

#include "store/pickle.h"
#include "util/err.h"
#include "util/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_MAX = 100000000, JSON_DEPTH = 6 };

struct SafeTensors {
    char *path;
    unsigned char *map;
    size_t size, data; /* of the file; where the data begins */
    int fd;
    struct stat was;
    StoredTensor *tensors;
    size_t count;
    void **copies; /* data that is not aligned in the file, by tensor */
    json_object *header, *meta;
};

static int wrong(const SafeTensors *st, const char *name, const char *what)
{
    return err_set(ERR_DATA, "%s: not a sound safetensors file: %s%s%.200s", st->path, what, *name ? ": " : "", name);
}

static int parse_json(SafeTensors *st, size_t length)
{
    json_tokener *tok = json_tokener_new_ex(JSON_DEPTH);
    const char *text = (const char *)st->map + 8;
    int rc = -1;
    if (!tok)
        return err_set(ERR_MEMORY, "%s: out of memory", st->path);
    st->header = json_tokener_parse_ex(tok, text, (int)length);
    size_t end = json_tokener_get_parse_end(tok);
    while (end < length && text[end] == ' ')
        end++;
    if (json_tokener_get_error(tok) == json_tokener_continue)
        wrong(st, "", "its header ends too early");
    else if (json_tokener_get_error(tok) == json_tokener_error_depth)
        wrong(st, "", "its header is nested too deeply");
    else if (!st->header || !json_object_is_type(st->header, json_type_object))
        wrong(st, json_tokener_get_error(tok) ? json_tokener_error_desc(json_tokener_get_error(tok)) : "",
              "its header is not a JSON object");
    else if (end != length)
        wrong(st, "", "something stands behind its header's object");
    else
        rc = 0;
    json_tokener_free(tok);
    return rc;
}

/* A whole number >= 0 without rounding or clamping. */
static int parse_number(json_object *o, uint64_t *x)
{
    if (!json_object_is_type(o, json_type_int))
        return -1;
    int64_t v = json_object_get_int64(o);
    if (v < 0 || v == INT64_MAX)
        return -1;
    *x = (uint64_t)v;
    return 0;
}

static int parse_tensor(SafeTensors *st, const char *name, json_object *o, StoredTensor *t, uint64_t *begin)
{
    json_object *dtype, *shape, *offsets;
    uint64_t end, extent;
    size_t bytes;
    if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, "dtype", &dtype) ||
        !json_object_object_get_ex(o, "shape", &shape) || !json_object_object_get_ex(o, "data_offsets", &offsets) ||
        !json_object_is_type(dtype, json_type_string) || !json_object_is_type(shape, json_type_array) ||
        !json_object_is_type(offsets, json_type_array) || json_object_array_length(offsets) != 2)
        return wrong(st, name, "a tensor without dtype, shape or data_offsets");
    int type = stored_type(json_object_get_string(dtype));
    if (type < 0)
        return err_prefix("%s: %.200s", st->path, name);
    if (json_object_array_length(shape) > STORED_DIMS)
        return wrong(st, name, "a tensor of too many dimensions");
    *t = (StoredTensor){ .name = name, .dtype = (StoredType)type, .ndim = (int)json_object_array_length(shape) };
    for (int i = 0; i < t->ndim; i++) {
        if (parse_number(json_object_array_get_idx(shape, (size_t)i), &extent))
            return wrong(st, name, "an extent that is not a whole number");
        t->shape[i] = (int64_t)extent;
    }
    if (stored_count(t->dtype, t->ndim, t->shape, &bytes) < 0)
        return err_prefix("%s: %.200s", st->path, name);
    if (parse_number(json_object_array_get_idx(offsets, 0), begin) ||
        parse_number(json_object_array_get_idx(offsets, 1), &end) || *begin > end || end > st->size - st->data)
        return wrong(st, name, "data_offsets outside the file (is it truncated?)");
    if (end - *begin != bytes)
        return wrong(st, name, "dtype, shape and data_offsets disagree");
    t->bytes = bytes;
    t->data = st->map + st->data + *begin;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const StoredTensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const StoredTensor *)a)->name, ((const StoredTensor *)b)->name);
}

static int check_places(SafeTensors *st)
{
    const unsigned char *at = st->map + st->data;
    qsort(st->tensors, st->count, sizeof *st->tensors, by_place);
    for (size_t i = 0; i < st->count; i++) {
        if (st->tensors[i].data != at)
            return wrong(st, st->tensors[i].name,
                         (const unsigned char *)st->tensors[i].data < at ? "tensors overlap" : "a hole before a tensor");
        at += st->tensors[i].bytes;
    }
    if (at != st->map + st->size)
        return wrong(st, "", "there is data behind the last tensor");
    return 0;
}

static int align(SafeTensors *st)
{
    st->copies = calloc(st->count + 1, sizeof *st->copies);
    if (!st->copies)
        return err_set(ERR_MEMORY, "%s: out of memory", st->path);
    for (size_t i = 0; i < st->count; i++) {
        StoredTensor *t = &st->tensors[i];
        if (!t->bytes || (uintptr_t)t->data % stored_type_size(t->dtype) == 0)
            continue;
        st->copies[i] = malloc(t->bytes);
        if (!st->copies[i])
            return err_set(ERR_MEMORY, "%s: no memory for %zu bytes", st->path, t->bytes);
        t->data = memcpy(st->copies[i], t->data, t->bytes);
    }
    return 0;
}

static int parse(SafeTensors *st)
{
    uint64_t length = 0;
    if (st->size >= 8)
        memcpy(&length, st->map, 8);
    if (st->size < 10 || length < 2 || length > HEADER_MAX || length > st->size - 8 || st->map[8] != '{')
        return pickle_refuse(st->path, st->map, st->size)
                   ? -1
                   : wrong(st, "", "its header's length is impossible");
    st->data = 8 + (size_t)length;
    if (parse_json(st, (size_t)length))
        return -1;
    size_t members = (size_t)json_object_object_length(st->header);
    st->tensors = calloc(members + 1, sizeof *st->tensors);
    if (!st->tensors)
        return err_set(ERR_MEMORY, "%s: no memory for %zu tensors", st->path, members);
    json_object_object_foreach(st->header, name, member)
    {
        uint64_t begin;
        if (strcmp(name, "__metadata__")) {
            if (parse_tensor(st, name, member, &st->tensors[st->count], &begin))
                return -1;
            st->count++;
            continue;
        }
        if (!json_object_is_type(member, json_type_object))
            return wrong(st, "", "__metadata__ is not an object");
        json_object_object_foreach(member, key, value)
        {
            if (!json_object_is_type(value, json_type_string))
                return wrong(st, key, "__metadata__ holds something else than strings");
        }
        st->meta = member;
    }
    if (check_places(st))
        return -1;
    qsort(st->tensors, st->count, sizeof *st->tensors, by_name);
    return align(st);
}

SafeTensors *safetensors_open(const char *path)
{
    struct stat info;
    SafeTensors *st = calloc(1, sizeof *st);
    int fd = -1, rc = -1;
    if (st)
        st->fd = -1;
    if (!st || !(st->path = strdup(path))) {
        err_set(ERR_MEMORY, "%s: out of memory", path);
        goto out;
    }
    st->fd = fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hang us */
    if (fd < 0 || fstat(fd, &info)) {
        if (errno == ENOENT)
            err_set(ERR_ABSENT, "%s: no such file", path);
        else
            err_system("%s", path);
        goto out;
    }
    if (!S_ISREG(info.st_mode) || info.st_size < 10) {
        wrong(st, "", S_ISDIR(info.st_mode) ? "it is a folder; timm's have a model.safetensors in them"
                      : S_ISREG(info.st_mode) ? "it is too short" : "it is not a regular file");
        goto out;
    }
    st->size = (size_t)info.st_size;
    fault_guard();
    void *map = mmap(NULL, st->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        err_system("%s: mapping %zu bytes", path, st->size);
        goto out;
    }
    st->map = map;
    st->was = info;
    rc = parse(st);
out:
    if (rc) {
        safetensors_close(st);
        st = NULL;
    }
    return st;
}

void safetensors_close(SafeTensors *st)
{
    if (!st)
        return;
    for (size_t i = 0; st->copies && i < st->count; i++)
        free(st->copies[i]);
    free(st->copies);
    free(st->tensors);
    if (st->header)
        json_object_put(st->header);
    if (st->map)
        munmap(st->map, st->size);
    if (st->fd >= 0)
        close(st->fd);
    free(st->path);
    free(st);
}

int safetensors_intact(const SafeTensors *st)
{
    struct stat now;
    if (!fstat(st->fd, &now) && now.st_size == st->was.st_size && now.st_mtim.tv_sec == st->was.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == st->was.st_mtim.tv_nsec)
        return 0;
    return err_set(ERR_STORE, "%s: %s", st->path, fault_text);
}

const char *safetensors_path(const SafeTensors *st)
{
    return st->path;
}

size_t safetensors_count(const SafeTensors *st)
{
    return st->count;
}

const StoredTensor *safetensors_at(const SafeTensors *st, size_t i)
{
    return i < st->count ? &st->tensors[i] : NULL;
}

const StoredTensor *safetensors_get(const SafeTensors *st, const char *name)
{
    StoredTensor key = { .name = name };
    const StoredTensor *t = bsearch(&key, st->tensors, st->count, sizeof key, by_name);
    if (!t)
        err_set(ERR_ABSENT, "%s: no tensor %s", st->path, name);
    return t;
}

int safetensors_each(const SafeTensors *st, StoredEach *cb, void *arg)
{
    int rc = 0;
    for (size_t i = 0; i < st->count && !rc; i++)
        rc = cb(&st->tensors[i], arg);
    return rc;
}

const char *safetensors_meta(const SafeTensors *st, const char *key)
{
    json_object *value;
    return st->meta && json_object_object_get_ex(st->meta, key, &value) ? json_object_get_string(value) : NULL;
}

size_t safetensors_meta_count(const SafeTensors *st)
{
    return st->meta ? (size_t)json_object_object_length(st->meta) : 0;
}

const char *safetensors_meta_at(const SafeTensors *st, size_t i, const char **value)
{
    if (!st->meta)
        return NULL;
    json_object_object_foreach(st->meta, key, member)
    {
        if (!i--) {
            *value = json_object_get_string(member);
            return key;
        }
    }
    return NULL;
}
