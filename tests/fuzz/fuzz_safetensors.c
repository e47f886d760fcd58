/* safetensors files. Input: the header's text; or, with a first byte of 0, a whole file behind that. */
#include "fuzz.h"

#include "store/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { DATA = 256 }; /* bytes of data behind a header alone */

static int touch(const StoredTensor *t, void *arg)
{
    unsigned *sum = arg;
    MUST(strlen(t->name) < 1 << 20);
    for (size_t i = 0; i < t->bytes; i++)
        *sum += ((const uint8_t *)t->data)[i];
    return stored_check(t) && *t->name;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const char *path, *value;
    unsigned sum = 0;
    if (n && !bytes[0]) {
        path = fuzz_file("x.safetensors", bytes + 1, n - 1);
    } else {
        uint8_t *file = calloc(1, 8 + n + DATA);
        if (!file)
            abort();
        for (int i = 0; i < 8; i++)
            file[i] = (uint8_t)(n >> (8 * i));
        if (n)
            memcpy(file + 8, bytes, n);
        path = fuzz_file("x.safetensors", file, 8 + n + DATA);
        free(file);
    }
    SafeTensors *st = safetensors_open(path);
    if (!st)
        return 0;
    MUST(!safetensors_each(st, touch, &sum));
    for (size_t i = 0; i < safetensors_count(st); i++)
        MUST(safetensors_get(st, safetensors_at(st, i)->name));
    for (size_t i = 0; i < safetensors_meta_count(st); i++) {
        const char *key = safetensors_meta_at(st, i, &value);
        MUST(safetensors_meta(st, key) && value);
    }
    safetensors_close(st);
    return 0;
}
