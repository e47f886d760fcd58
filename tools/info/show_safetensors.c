/* A safetensors file: its metadata and tensors. */
#include "show.h"
#include "store/safetensors.h"

#include <stdio.h>

static int sum_bytes(const StoredTensor *t, void *arg)
{
    *(uint64_t *)arg += t->bytes;
    return 0;
}

int show_safetensors(const char *path, const Wanted *w)
{
    uint64_t bytes = 0;
    const char *value;
    SafeTensors *st = safetensors_open(path);
    if (!st)
        return -1;
    safetensors_each(st, sum_bytes, &bytes);
    if (w->json) {
        json_object *j = json_object_new_object(), *list = json_object_new_array(), *meta = json_object_new_object();
        json_object_object_add(j, "file", text_json(path));
        json_object_object_add(j, "kind", text_json("safetensors"));
        json_object_object_add(j, "bytes", number_json(bytes));
        for (size_t i = 0; i < safetensors_meta_count(st); i++) {
            const char *key = safetensors_meta_at(st, i, &value);
            json_object_object_add(meta, key, text_json(value));
        }
        json_object_object_add(j, "metadata", meta);
        safetensors_each(st, tensor_json, list);
        json_object_object_add(j, "tensors", list);
        print_json(j);
    } else {
        printf("%s: safetensors, %zu tensors, %s\n", safe_text(path), safetensors_count(st), nice_bytes(bytes));
        for (size_t i = 0; i < safetensors_meta_count(st); i++) {
            const char *key = safetensors_meta_at(st, i, &value);
            printf("  %s = %s\n", safe_text(key), safe_text(value));
        }
        safetensors_each(st, print_tensor, stdout);
    }
    safetensors_close(st);
    return 0;
}
