#include "damage.h"

#include "store/env.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static uint8_t *base, *bad;
static size_t base_size;

static void make_base(const StoreShape *shape)
{
    char path[512];
    snprintf(path, sizeof path, "%s", fuzz_file("base.db", "", 0));
    store_map_reserve = 1 << 24; /* a large map costs the address sanitizer time, each time */
    MUST(!shape->make(path));
    FILE *f = fopen(path, "rb");
    MUST(f && !fseek(f, 0, SEEK_END));
    base_size = (size_t)ftell(f);
    rewind(f);
    base = malloc(base_size);
    bad = malloc(base_size);
    MUST(base && bad && fread(base, 1, base_size, f) == base_size);
    fclose(f);
}

static const char *damage_pages(FuzzInput *in)
{
    size_t size = base_size;
    memcpy(bad, base, base_size);
    while (in->at < in->end) {
        uint32_t page = fuzz_take(in, 1);
        size_t at = fuzz_take(in, 2) % 4096;
        if (page == 255) {
            size = (fuzz_take(in, 1) * (size_t)4096 + at) % (base_size + 1);
            continue;
        }
        at += page % (base_size / 4096) * 4096;
        for (uint32_t n = fuzz_take(in, 1) % 64 + 1; n && in->at < in->end && at < base_size; n--)
            bad[at++] = *in->at++;
    }
    return fuzz_file("x.db", bad, size);
}

typedef struct {
    MDB_txn *txn;
    MDB_dbi dbi[4];
    size_t count[4];
    bool header, config;
} Build;

static void put(Build *b, const StoreShape *shape, int db, MDB_val key, const uint8_t *value, size_t n, bool sealed)
{
    uint8_t room[8 + 65536];
    MDB_val v = { n, room };
    if (shape->db[db].plain) {
        memcpy(room, value, n);
        if (sealed)
            shape->seal(room, n, key.mv_data, key.mv_size);
    } else {
        uint64_t sum = XXH3_64bits(value, n) + !sealed;
        memcpy(room, &sum, 8);
        memcpy(room + 8, value, n);
        v.mv_size += 8;
    }
    b->count[db] += !mdb_put(b->txn, b->dbi[db], &key, &v, MDB_NOOVERWRITE);
}

static void put_entry(Build *b, const StoreShape *shape, FuzzInput *in)
{
    uint32_t where = fuzz_take(in, 1);
    uint64_t number = 0;
    uint8_t text[256], value[65536];
    int db = where & 3, kind = where >> 3 & 3;
    MDB_val key = { sizeof number, &number };
    if (!shape->db[db].name)
        return;
    if (shape->db[db].flags & MDB_INTEGERKEY || kind == 0) {
        number = fuzz_take(in, 2);
        if (number > 0xff00)
            number = UINT64_MAX - (0xffff - number);
    } else if (kind < 3) {
        key = (MDB_val){ 6, (void *)(kind == 1 ? "header" : "config") };
        b->header |= kind == 1 && db == 0;
        b->config |= kind == 2 && db == 0;
    } else {
        key = (MDB_val){ 0, text };
        for (uint32_t n = fuzz_take(in, 1); key.mv_size < n; key.mv_size++)
            text[key.mv_size] = (uint8_t)fuzz_take(in, 1);
    }
    size_t n = fuzz_take(in, 2), i = 0;
    for (; i < n && in->at < in->end; i++)
        value[i] = *in->at++;
    if (key.mv_size)
        put(b, shape, db, key, value, i, !(where & 4));
}

static const char *damage_values(FuzzInput *in, const StoreShape *shape)
{
    static const char *const usual[] = { "header", "config" };
    MDB_env *env;
    Build b = { 0 };
    uint8_t value[4096];
    const char *path = fuzz_file("x.db", "", 0);
    MUST(!mdb_env_create(&env) && !mdb_env_set_maxdbs(env, 8) && !mdb_env_set_mapsize(env, 16 << 20));
    MUST(!mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOLOCK, 0600));
    MUST(!mdb_txn_begin(env, NULL, 0, &b.txn));
    for (int i = 0; i < 4; i++)
        MUST(!shape->db[i].name || !mdb_dbi_open(b.txn, shape->db[i].name, MDB_CREATE | shape->db[i].flags, &b.dbi[i]));
    while (in->at < in->end)
        put_entry(&b, shape, in);
    for (int i = 0; i < 2; i++) {
        size_t n = (i ? b.config : b.header) ? 0 : shape->usual(usual[i], b.count, value);
        if (n)
            put(&b, shape, 0, (MDB_val){ 6, (void *)usual[i] }, value, n, true);
    }
    MUST(!mdb_txn_commit(b.txn));
    mdb_env_close(env);
    return path;
}

const char *damage_file(FuzzInput *in, unsigned mode, const StoreShape *shape)
{
    if (!base)
        make_base(shape);
    return mode & 1 ? damage_values(in, shape) : damage_pages(in);
}
