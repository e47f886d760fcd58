/* Runs and their checkpoints; the input is described in damage.h. */
#include "damage.h"

#include "store/run.h"

#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int make(const char *path)
{
    static float big[3000];
    const StoredTensor t[] = { { "a.weight", STORED_F32, 2, { 100, 30 }, big, sizeof big },
                               { "a.bias", STORED_F32, 1, { 5 }, big, 20 },
                               { "steps", STORED_I64, 0, { 0 }, big, 8 } };
    Run *run = run_create(path, "{\"arch\":\"vit_nano\"}", false);
    int rc = !run || run_set(run, "ticket", "x");
    for (uint64_t step = 1; !rc && step < 4; step++) {
        for (int i = 0; i < 30; i++)
            rc = rc || run_log(run, "{\"step\":1,\"loss\":3.25}");
        rc = rc || run_save(run, step, "{}", t, 3, 2);
    }
    return run_close(run) || rc;
}

static void seal(uint8_t *v, size_t n, const void *key, size_t key_size)
{
    enum { DATA_SUM = 88, SEAL = 96, HEAD = 112 };
    if (n < HEAD)
        return;
    uint64_t sum = XXH3_64bits(v + HEAD, n - HEAD);
    memcpy(v + DATA_SUM, &sum, 8);
    sum = XXH3_64bits_withSeed(key, key_size, XXH3_64bits(v, SEAL));
    memcpy(v + SEAL, &sum, 8);
}

static size_t usual(const char *key, const size_t count[4], uint8_t *out)
{
    (void)count;
    if (!strcmp(key, "config")) {
        memcpy(out, "{}", 2);
        return 2;
    }
    memcpy(out, "HSSLRUN\0\1\0\0\0\7\0\0\0\0\0\0", 20);
    return 20;
}

static const StoreShape shape = {
    .make = make,
    .db = { { "facts", 0, false }, { "log", MDB_INTEGERKEY, false }, { "checkpoints", MDB_INTEGERKEY, false },
            { "tensors", 0, true } },
    .seal = seal,
    .usual = usual
};

static int line(int64_t number, const char *text, void *arg)
{
    *(unsigned *)arg += (unsigned)strlen(text);
    return number < 0;
}

static int touch(const StoredTensor *t, void *arg)
{
    MUST(*t->name);
    for (size_t i = 0; i < t->bytes; i++)
        *(unsigned *)arg += ((const uint8_t *)t->data)[i];
    return 0;
}

static void look(Run *run, unsigned *sum)
{
    uint64_t *steps = NULL;
    StoredTensor t;
    int64_t n = run_steps(run, &steps);
    *sum += (unsigned)strlen(run_config(run));
    run_log_each(run, -20, line, sum);
    free(run_get(run, "ticket"));
    for (int64_t i = 0; i < n && i < 20; i++) {
        Checkpoint *cp = run_checkpoint(run, (int64_t)steps[i]);
        if (cp) {
            *sum += (unsigned)checkpoint_each(cp, touch, sum) + (unsigned)checkpoint_verify(cp);
            *sum += (unsigned)checkpoint_get(cp, "a.bias", &t) + (unsigned)strlen(checkpoint_meta(cp));
        }
        checkpoint_close(cp);
    }
    free(steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    FuzzInput in = { bytes, bytes + n };
    unsigned mode = fuzz_take(&in, 1), sum = 0;
    const char *path = damage_file(&in, mode, &shape);
    Run *run = run_open(path, false);
    if (run)
        look(run, &sum);
    sum += (unsigned)run_close(run);
    if (mode & 2 && (run = run_open(path, true))) {
        float x[3] = { 0 };
        const StoredTensor t = { "x", STORED_F32, 1, { 3 }, x, 12 };
        sum += (unsigned)run_log(run, "{}") + (unsigned)run_save(run, 99, "{}", &t, 1, 1);
        sum += (unsigned)run_close(run);
    }
    fuzz_sink = sum;
    return 0;
}
