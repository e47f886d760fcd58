/* Checkpoints of a run. A tensor's value:
 *
 *    0  element type, "F32" and so on, padded with zeros (8)
 *    8  number of dimensions (4)                12  zero (4)
 *   16  shape, 8 extents, the unused ones zero (64)
 *   80  bytes of data (8)                       88  XXH3-64 of the data (8)
 *   96  XXH3-64 of bytes 0..95 and the key (8)  104  zero (8)
 *  112  data
 *
 * A large value begins 16 bytes into a page, so the data of large tensors is aligned to 128 bytes.
 *
 * A checkpoint, the removal of the one it replaces and of those no longer kept, is one transaction. LMDB has the
 * pages of large values in memory until the transaction ends: saving takes as much memory as the checkpoint has. */
#include "store/run.h"

#include "store/run_layout.h"
#include "util/err.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { TENSOR_SEAL = 96, TENSOR_HEAD = 112, STEP_DIGITS = 16, TENSOR_NAME_MAX = 480, KEY_SIZE = 512,
       CHECKPOINT_HEAD = 16 };

struct Checkpoint {
    Run *run;
    MDB_txn *txn;
    uint64_t step, count, bytes;
    char *meta;
    void **copies; /* data that was not aligned where it lay */
    size_t n_copies;
};

static size_t make_key(uint64_t step, const char *name, char *key)
{
    return (size_t)snprintf(key, KEY_SIZE, "%016" PRIx64 "/%s", step, name);
}

static uint64_t seal_tensor(const unsigned char *head, const char *key, size_t n)
{
    return XXH3_64bits_withSeed(key, n, XXH3_64bits(head, TENSOR_SEAL));
}

static int put_tensor(Run *run, MDB_txn *txn, uint64_t step, const StoredTensor *t)
{
    char key[KEY_SIZE];
    size_t n = make_key(step, t->name, key);
    MDB_val k = { n, key }, v = { TENSOR_HEAD + t->bytes, NULL };
    int rc = mdb_put(txn, run->tensors, &k, &v, MDB_RESERVE | MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST)
        return err_set(ERR_USAGE, "%s: tensor %s twice in one checkpoint", run->env.path, t->name);
    if (rc)
        return store_error(&run->env, rc);
    unsigned char *p = v.mv_data;
    memset(p, 0, TENSOR_HEAD);
    memcpy(p, stored_type_name(t->dtype), strlen(stored_type_name(t->dtype)));
    store32(p + 8, (uint32_t)t->ndim);
    for (int i = 0; i < t->ndim; i++)
        store64(p + 16 + 8 * i, (uint64_t)t->shape[i]);
    store64(p + 80, t->bytes);
    store64(p + 88, XXH3_64bits(t->data, t->bytes));
    store64(p + TENSOR_SEAL, seal_tensor(p, key, n));
    if (t->bytes)
        memcpy(p + TENSOR_HEAD, t->data, t->bytes);
    return 0;
}

typedef struct {
    uint64_t step, count, bytes;
    const char *meta;
    size_t meta_size;
} Entry;

static int parse_entry(const Run *run, const MDB_val *k, const MDB_val *v, Entry *e)
{
    const void *bytes = NULL;
    size_t n = 0;
    if (sealed_parse(&run->env, v, &bytes, &n))
        return -1;
    if (n < CHECKPOINT_HEAD)
        return err_set(ERR_DATA, "%s: damaged: a checkpoint's head of %zu bytes", run->env.path, n);
    const unsigned char *p = bytes;
    *e = (Entry){ load64(k->mv_data), load64(p), load64(p + 8), (const char *)p + CHECKPOINT_HEAD,
                  n - CHECKPOINT_HEAD };
    return 0;
}

static int collect(Run *run, MDB_txn *txn, Entry **out, size_t *n_out)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    Entry *list = NULL;
    size_t n = 0;
    int rc = mdb_cursor_open(txn, run->checkpoints, &cursor);
    if (rc)
        return store_error(&run->env, rc);
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); !rc; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        Entry *grown = realloc(list, (n + 1) * sizeof *list);
        if (!grown) {
            rc = err_set(ERR_MEMORY, "%s: no memory for a list of checkpoints", run->env.path);
            goto out;
        }
        list = grown;
        rc = parse_entry(run, &k, &v, &list[n]);
        if (rc)
            goto out;
        n++;
    }
    rc = rc == MDB_NOTFOUND ? 0 : store_error(&run->env, rc);
out:
    mdb_cursor_close(cursor);
    if (rc) {
        free(list);
        return -1;
    }
    *out = list;
    *n_out = n;
    return 0;
}

/* Moves the cursor to the first tensor of a step at or after *k, or from there to the next. 0, MDB_NOTFOUND after the
 * last one, or LMDB's error. */
static int next_tensor(MDB_cursor *cursor, MDB_cursor_op op, const char *prefix, MDB_val *k, MDB_val *v)
{
    int rc = mdb_cursor_get(cursor, k, v, op);
    return !rc && (k->mv_size <= STEP_DIGITS + 1 || memcmp(k->mv_data, prefix, STEP_DIGITS + 1)) ? MDB_NOTFOUND : rc;
}

/* ---------------------------------------------------------------- saving */

/* Removes a checkpoint, if there is one of that step. */
static int drop(Run *run, MDB_txn *txn, uint64_t step)
{
    char prefix[KEY_SIZE];
    MDB_cursor *cursor;
    MDB_val at = { sizeof step, &step }, k = { make_key(step, "", prefix), prefix }, v;
    int rc = mdb_del(txn, run->checkpoints, &at, NULL);
    if (rc && rc != MDB_NOTFOUND)
        return store_error(&run->env, rc);
    rc = mdb_cursor_open(txn, run->tensors, &cursor);
    if (rc)
        return store_error(&run->env, rc);
    /* After a deletion the cursor stands on the next one already, which MDB_NEXT then gives. */
    rc = next_tensor(cursor, MDB_SET_RANGE, prefix, &k, &v);
    while (!rc && !(rc = mdb_cursor_del(cursor, 0)))
        rc = next_tensor(cursor, MDB_NEXT, prefix, &k, &v);
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : store_error(&run->env, rc);
}

static int drop_old(Run *run, MDB_txn *txn, int keep)
{
    Entry *list = NULL;
    size_t n = 0;
    int rc = keep > 0 ? collect(run, txn, &list, &n) : 0;
    for (size_t i = 0; !rc && i + (size_t)keep < n; i++)
        rc = drop(run, txn, list[i].step);
    free(list);
    return rc;
}

static int put_entry(Run *run, MDB_txn *txn, const Entry *e)
{
    size_t n = CHECKPOINT_HEAD + e->meta_size;
    unsigned char *p = malloc(n);
    uint64_t step = e->step;
    MDB_val k = { sizeof step, &step };
    if (!p)
        return err_set(ERR_MEMORY, "%s: no memory for %zu bytes", run->env.path, n);
    store64(p, e->count);
    store64(p + 8, e->bytes);
    memcpy(p + CHECKPOINT_HEAD, e->meta, e->meta_size);
    int rc = sealed_put(&run->env, txn, run->checkpoints, &k, p, n);
    free(p);
    return rc;
}

static int save_locked(Run *run, const Entry *e, const StoredTensor *tensors, int keep)
{
    size_t page = run->env.page, pages = 1024 + e->meta_size / page;
    MDB_txn *txn;
    for (size_t i = 0; i < e->count; i++)
        pages += tensors[i].bytes / page + 4;
    pages += pages / 64; /* the list of pages that become free */
    if (run_flush_locked(run) || store_begin_write(&run->env, pages * page, &txn))
        return -1;
    int rc = drop(run, txn, e->step);
    for (size_t i = 0; i < e->count && !rc; i++)
        rc = put_tensor(run, txn, e->step, &tensors[i]);
    rc = rc || put_entry(run, txn, e) || drop_old(run, txn, keep) ? -1 : 0;
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = store_commit(&run->env, txn);
#ifdef __GLIBC__
    malloc_trim(0); /* it would keep the transaction's pages for the next one */
#endif
    return rc;
}

int run_save(Run *run, uint64_t step, const char *meta_json, const StoredTensor *tensors, size_t n, int keep)
{
    Entry e = { .step = step, .count = n, .meta = meta_json, .meta_size = strlen(meta_json) };
    if (step > INT64_MAX)
        return err_set(ERR_USAGE, "%s: no step can be %" PRIu64, run->env.path, step);
    for (size_t i = 0; i < n; i++) {
        if (stored_check(&tensors[i]))
            return err_prefix("%s", run->env.path);
        if (strlen(tensors[i].name) > TENSOR_NAME_MAX)
            return err_set(ERR_USAGE, "%s: a tensor's name has more than %d bytes", run->env.path, TENSOR_NAME_MAX);
        if (tensors[i].bytes > UINT32_MAX - TENSOR_HEAD)
            return err_set(ERR_DATA, "%s: %s: %zu bytes; a tensor has less than 4 GiB here", run->env.path,
                           tensors[i].name, tensors[i].bytes);
        e.bytes += tensors[i].bytes;
    }
    pthread_mutex_lock(&run->lock);
    int rc = save_locked(run, &e, tensors, keep);
    pthread_mutex_unlock(&run->lock);
    return rc;
}

/* ---------------------------------------------------------------- reading */

int64_t run_steps(Run *run, uint64_t **steps)
{
    MDB_txn *txn;
    Entry *list = NULL;
    size_t n = 0;
    int64_t rc = -1;
    *steps = NULL;
    pthread_mutex_lock(&run->lock);
    if (!store_begin_read(&run->env, &txn)) {
        if (!collect(run, txn, &list, &n)) {
            *steps = malloc((n + 1) * sizeof **steps);
            if (*steps)
                for (size_t i = 0; i < n; i++)
                    (*steps)[i] = list[i].step;
            rc = *steps ? (int64_t)n : err_set(ERR_MEMORY, "%s: out of memory", run->env.path);
            free(list);
        }
        store_end_read(&run->env, txn);
    }
    pthread_mutex_unlock(&run->lock);
    return rc;
}

static int find_entry(Run *run, MDB_txn *txn, int64_t step, Entry *e)
{
    uint64_t wanted = (uint64_t)step;
    MDB_cursor *cursor;
    MDB_val k = { sizeof wanted, &wanted }, v;
    int rc = mdb_cursor_open(txn, run->checkpoints, &cursor);
    if (rc)
        return store_error(&run->env, rc);
    rc = mdb_cursor_get(cursor, &k, &v, step < 0 ? MDB_LAST : MDB_SET_KEY);
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND && step < 0)
        return err_set(ERR_ABSENT, "%s: no checkpoint yet", run->env.path);
    if (rc == MDB_NOTFOUND)
        return err_set(ERR_ABSENT, "%s: no checkpoint of step %" PRId64, run->env.path, step);
    return rc ? store_error(&run->env, rc) : parse_entry(run, &k, &v, e);
}

Checkpoint *run_checkpoint(Run *run, int64_t step)
{
    Entry e = { 0 };
    Checkpoint *cp = calloc(1, sizeof *cp);
    if (!cp) {
        err_set(ERR_MEMORY, "%s: out of memory", run->env.path);
        return NULL;
    }
    cp->run = run;
    pthread_mutex_lock(&run->lock);
    int rc = store_begin_read(&run->env, &cp->txn);
    rc = rc ? rc : find_entry(run, cp->txn, step, &e);
    pthread_mutex_unlock(&run->lock);
    if (!rc) {
        cp->step = e.step;
        cp->count = e.count;
        cp->bytes = e.bytes;
        cp->meta = strndup(e.meta, e.meta_size);
        if (cp->meta)
            return cp;
        err_set(ERR_MEMORY, "%s: out of memory", run->env.path);
    }
    checkpoint_close(cp);
    return NULL;
}

void checkpoint_close(Checkpoint *cp)
{
    if (!cp)
        return;
    pthread_mutex_lock(&cp->run->lock);
    store_end_read(&cp->run->env, cp->txn);
    pthread_mutex_unlock(&cp->run->lock);
    for (size_t i = 0; i < cp->n_copies; i++)
        free(cp->copies[i]);
    free(cp->copies);
    free(cp->meta);
    free(cp);
}

uint64_t checkpoint_step(const Checkpoint *cp)
{
    return cp->step;
}

const char *checkpoint_meta(const Checkpoint *cp)
{
    return cp->meta;
}

size_t checkpoint_count(const Checkpoint *cp)
{
    return cp->count;
}

uint64_t checkpoint_bytes(const Checkpoint *cp)
{
    return cp->bytes;
}

static int keep_copy(Checkpoint *cp, void *copy)
{
    if (!(cp->n_copies & (cp->n_copies + 1))) { /* full at 2^k - 1 */
        void **grown = realloc(cp->copies, (2 * cp->n_copies + 1) * sizeof *grown);
        if (!grown)
            return -1;
        cp->copies = grown;
    }
    cp->copies[cp->n_copies++] = copy;
    return 0;
}

static int parse_tensor(Checkpoint *cp, const MDB_val *k, const MDB_val *v, StoredTensor *t)
{
    const unsigned char *p = v->mv_data;
    const char *path = cp->run->env.path, *key = k->mv_data;
    int n = (int)k->mv_size - STEP_DIGITS - 1;
    const char *name = key + STEP_DIGITS + 1;
    if (n < 1 || v->mv_size < TENSOR_HEAD || seal_tensor(p, key, k->mv_size) != load64(p + TENSOR_SEAL) || p[7])
        return err_set(ERR_DATA, "%s: damaged: the head of tensor %.*s", path, n < 1 ? 0 : n, name);
    int dtype = stored_type((const char *)p);
    uint32_t ndim = load32(p + 8);
    if (dtype < 0)
        return err_prefix("%s: %.*s", path, n, name);
    if (ndim > STORED_DIMS)
        return err_set(ERR_DATA, "%s: damaged: tensor %.*s has %" PRIu32 " dimensions", path, n, name, ndim);
    *t = (StoredTensor){ .dtype = (StoredType)dtype, .ndim = (int)ndim, .data = p + TENSOR_HEAD,
                          .bytes = load64(p + 80) };
    for (uint32_t i = 0; i < ndim; i++)
        t->shape[i] = (int64_t)load64(p + 16 + 8 * i);
    if (t->bytes != v->mv_size - TENSOR_HEAD)
        return err_set(ERR_DATA, "%s: damaged: tensor %.*s has %zu bytes of %zu", path, n, name, v->mv_size - TENSOR_HEAD,
                       t->bytes);
    char *copy = strndup(name, (size_t)n);
    if (!copy || keep_copy(cp, copy)) {
        free(copy);
        return err_set(ERR_MEMORY, "%s: out of memory", path);
    }
    t->name = copy;
    if (stored_check(t))
        return err_prefix("%s: damaged", path);
    if (t->bytes && (uintptr_t)t->data % 16) {
        void *aligned = aligned_alloc(16, (t->bytes + 15) & ~(size_t)15);
        if (!aligned || keep_copy(cp, aligned)) {
            free(aligned);
            return err_set(ERR_MEMORY, "%s: no memory for %zu bytes", path, t->bytes);
        }
        t->data = memcpy(aligned, t->data, t->bytes);
    }
    return store_intact(&cp->run->env, false);
}

int checkpoint_get(Checkpoint *cp, const char *name, StoredTensor *t)
{
    char key[KEY_SIZE];
    if (strlen(name) > TENSOR_NAME_MAX)
        return err_set(ERR_ABSENT, "%s: no tensor of that length of name", cp->run->env.path);
    MDB_val k = { make_key(cp->step, name, key), key }, v;
    int rc = mdb_get(cp->txn, cp->run->tensors, &k, &v);
    if (rc == MDB_NOTFOUND)
        return err_set(ERR_ABSENT, "%s: step %" PRIu64 " has no tensor %s", cp->run->env.path, cp->step, name);
    return rc ? store_error(&cp->run->env, rc) : parse_tensor(cp, &k, &v, t);
}

int checkpoint_each(Checkpoint *cp, StoredEach *cb, void *arg)
{
    char prefix[KEY_SIZE];
    MDB_cursor *cursor;
    MDB_val k = { make_key(cp->step, "", prefix), prefix }, v;
    uint64_t seen = 0;
    int rc = mdb_cursor_open(cp->txn, cp->run->tensors, &cursor);
    if (rc)
        return store_error(&cp->run->env, rc);
    rc = next_tensor(cursor, MDB_SET_RANGE, prefix, &k, &v);
    while (!rc) {
        StoredTensor t;
        int stop = parse_tensor(cp, &k, &v, &t);
        stop = stop ? stop : cb(&t, arg);
        if (stop) {
            mdb_cursor_close(cursor);
            return stop;
        }
        seen++;
        rc = next_tensor(cursor, MDB_NEXT, prefix, &k, &v);
    }
    mdb_cursor_close(cursor);
    if (rc && rc != MDB_NOTFOUND)
        return store_error(&cp->run->env, rc);
    if (store_intact(&cp->run->env, false)) /* of what the last callback saw */
        return -1;
    if (seen != cp->count)
        return err_set(ERR_DATA, "%s: damaged: step %" PRIu64 " has %" PRIu64 " of %" PRIu64 " tensors",
                       cp->run->env.path, cp->step, seen, cp->count);
    return 0;
}

static int verify_tensor(const StoredTensor *t, void *arg)
{
    Checkpoint *cp = arg;
    char key[KEY_SIZE];
    MDB_val k = { make_key(cp->step, t->name, key), key }, v;
    int rc = mdb_get(cp->txn, cp->run->tensors, &k, &v);
    if (rc)
        return store_error(&cp->run->env, rc);
    if (XXH3_64bits(t->data, t->bytes) != load64((const char *)v.mv_data + 88))
        return err_set(ERR_DATA, "%s: damaged: step %" PRIu64 ": tensor %s: its checksum is wrong", cp->run->env.path,
                       cp->step, t->name);
    return 0;
}

int checkpoint_verify(Checkpoint *cp)
{
    return checkpoint_each(cp, verify_tensor, cp);
}
