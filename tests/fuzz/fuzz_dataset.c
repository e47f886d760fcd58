/* Datasets; the input is described in damage.h. */
#include "damage.h"

#include "store/dataset.h"

#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static int make(const char *path)
{
    static uint8_t bytes[9000];
    DatasetWriter *w = dataset_create(path, DATASET_NEW);
    int rc = !w;
    for (unsigned i = 0; !rc && i < 60; i++) {
        char name[64], class[16];
        snprintf(name, sizeof name, "c%u/%u.jpg", i % 3, i);
        snprintf(class, sizeof class, "c%u", i % 3);
        memset(bytes, (int)i, sizeof bytes);
        Record r = { .bytes = bytes, .size = 1 + i * 613 % 5000, .name = name, .label = dataset_class(w, class) };
        rc = dataset_put(w, &r) || (i == 30 && dataset_commit(w));
    }
    return dataset_finish(w) || rc;
}

static void seal(uint8_t *v, size_t n, const void *key, size_t key_size)
{
    enum { SEAL = 28, HEAD = 32 };
    (void)key;
    (void)key_size;
    if (n < HEAD)
        return;
    size_t length = v[12] | (size_t)v[13] << 8;
    if (length > n - HEAD)
        return;
    uint32_t sum = (uint32_t)XXH3_64bits_withSeed(v + HEAD, length, XXH3_64bits(v, SEAL));
    memcpy(v + SEAL, &sum, 4);
}

static size_t usual(const char *key, const size_t count[4], uint8_t *out)
{
    uint64_t n[2] = { count[1], count[1] * 100 };
    if (strcmp(key, "header"))
        return 0;
    memcpy(out, "HSSLDATA\1\0\0", 12);
    memcpy(out + 12, n, 16);
    return 28;
}

static const StoreShape shape = {
    .make = make,
    .db = { { "meta", 0, false }, { "images", MDB_INTEGERKEY, true }, { "classes", MDB_INTEGERKEY, false },
            { "names", 0, true } },
    .seal = seal,
    .usual = usual
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    FuzzInput in = { bytes, bytes + n };
    unsigned mode = fuzz_take(&in, 1), sum = 0;
    const char *path = damage_file(&in, mode, &shape);
    Dataset *ds = dataset_open(path);
    for (uint64_t i = 0; ds && i <= dataset_count(ds) && i < 200; i++) {
        Record r;
        if (dataset_get(ds, i, &r))
            continue;
        sum += (unsigned)dataset_verify(ds, &r) + (unsigned)strlen(r.name);
        for (size_t k = 0; k < r.size; k++)
            sum += ((const uint8_t *)r.bytes)[k];
        MUST(r.label >= -1 && r.label < dataset_classes(ds));
    }
    for (int i = 0; ds && i < dataset_classes(ds); i++)
        sum += (unsigned)strlen(dataset_class_name(ds, i)) + (unsigned)dataset_class_count(ds, i);
    dataset_close(ds);
    if (mode & 2) {
        DatasetWriter *w = dataset_create(path, DATASET_RESUME);
        Record r = { .bytes = "12345", .size = 5, .name = "new", .label = w ? dataset_class(w, "c") : -1 };
        sum += (unsigned)(w && dataset_put(w, &r));
        sum += (unsigned)dataset_finish(w);
    }
    fuzz_sink = sum;
    return 0;
}
