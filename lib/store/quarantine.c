/* Two databases of a run:
 *
 *  bad        id (8) -> sealed, below
 *  bad_bytes  id (8) -> the bytes that are kept of the image
 *
 *   0  sequence number of the first record that had it (8)    8  its epoch (8)
 *  16  bytes of the encoded image (8)                        24  XXH3-64 of all of them (8)
 *  32  bytes kept (8)                                        40  XXH3-64 of those (8)
 *  48  label, or -1 (4)                                      52  length of the name (4)
 *  56  the name, a zero byte, the reason
 *
 * What is listed often and what is large lie apart. Both are written by one transaction: either is there, or
 * none. */
#include "store/quarantine.h"

#include "store/run_layout.h"
#include "util/err.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { BAD_HEAD = 56, CHUNK_BYTES = 64 << 20 };

uint64_t quarantine_most = (uint64_t)256 << 20;

int run_open_bad(Run *run, MDB_txn *txn, unsigned flags)
{
    if (run->has_bad)
        return 0;
    int rc = mdb_dbi_open(txn, "bad", flags | MDB_INTEGERKEY, &run->bad);
    rc = rc ? rc : mdb_dbi_open(txn, "bad_bytes", flags | MDB_INTEGERKEY, &run->bad_bytes);
    if (rc == MDB_INCOMPATIBLE)
        return err_set(ERR_DATA, "%s: damaged: its quarantine", run->env.path);
    return rc && rc != MDB_NOTFOUND ? store_error(&run->env, rc) : rc;
}

/* Parses an entry; the texts are borrowed from the value. */
static int parse(const Run *run, uint64_t id, const MDB_val *v, BadImage *b, uint64_t *kept_sum)
{
    const void *bytes = NULL;
    size_t n = 0;
    if (sealed_parse(&run->env, v, &bytes, &n))
        return -1;
    const char *p = bytes;
    size_t name = n >= BAD_HEAD ? load32(p + 52) : 0;
    if (n < BAD_HEAD + 1 || name > n - BAD_HEAD - 1 ||
        memchr(p + BAD_HEAD, 0, name + 1) != p + BAD_HEAD + name)
        return err_set(ERR_DATA, "%s: damaged: bad image %" PRIu64, run->env.path, id);
    *b = (BadImage){ .id = id, .label = (int32_t)load32(p + 48), .seq = load64(p), .epoch = load64(p + 8),
                     .name = p + BAD_HEAD, .why = p + BAD_HEAD + name + 1, .size = load64(p + 16),
                     .checksum = load64(p + 24), .kept = load64(p + 32) };
    *kept_sum = load64(p + 40);
    if (b->kept > b->size || b->kept > QUARANTINE_IMAGE)
        return err_set(ERR_DATA, "%s: damaged: bad image %" PRIu64 " keeps %" PRIu64 " of %" PRIu64 " bytes",
                       run->env.path, id, b->kept, b->size);
    return 0;
}

/* Walk over the entries: their number, ids and sum of bytes kept. */
static int survey(Run *run, MDB_txn *txn, uint64_t **ids, int64_t *count, uint64_t *kept)
{
    MDB_cursor *cursor;
    MDB_stat stat;
    MDB_val k, v;
    int rc = mdb_stat(txn, run->bad, &stat);
    rc = rc ? rc : mdb_cursor_open(txn, run->bad, &cursor);
    if (rc)
        return store_error(&run->env, rc);
    *count = 0;
    *kept = 0;
    if (ids && !(*ids = malloc((stat.ms_entries + 1) * sizeof **ids))) {
        mdb_cursor_close(cursor);
        return err_set(ERR_MEMORY, "%s: no memory for a list of %zu images", run->env.path, stat.ms_entries);
    }
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); !rc && (size_t)*count < stat.ms_entries;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        BadImage b;
        uint64_t sum;
        if (!ids && parse(run, load64(k.mv_data), &v, &b, &sum)) {
            mdb_cursor_close(cursor);
            return -1;
        }
        if (ids)
            (*ids)[*count] = load64(k.mv_data);
        else
            *kept += b.kept;
        ++*count;
    }
    mdb_cursor_close(cursor);
    return rc && rc != MDB_NOTFOUND ? store_error(&run->env, rc) : 0;
}

/* How much of an image to keep, where so much is kept already. */
static size_t share(const BadImage *b, uint64_t kept)
{
    uint64_t here = b->bytes ? b->kept : 0, head = here < QUARANTINE_HEAD ? here : QUARANTINE_HEAD;
    if (here <= QUARANTINE_IMAGE && kept + here <= quarantine_most)
        return here;
    return kept + head <= quarantine_most + QUARANTINE_HEADS ? head : 0;
}

static int put(Run *run, MDB_txn *txn, const BadImage *b, size_t kept)
{
    size_t name = strnlen(b->name ? b->name : "", QUARANTINE_TEXT), why = strnlen(b->why, QUARANTINE_TEXT);
    uint64_t id = b->id;
    MDB_val k = { sizeof id, &id }, v = { kept, (void *)b->bytes };
    char *p = malloc(BAD_HEAD + name + 1 + why);
    if (!p)
        return err_set(ERR_MEMORY, "%s: out of memory", run->env.path);
    store64(p, b->seq);
    store64(p + 8, b->epoch);
    store64(p + 16, b->size);
    store64(p + 24, b->checksum);
    store64(p + 32, kept);
    store64(p + 40, XXH3_64bits(b->bytes, kept));
    store32(p + 48, (uint32_t)b->label);
    store32(p + 52, (uint32_t)name);
    if (name)
        memcpy(p + BAD_HEAD, b->name, name);
    p[BAD_HEAD + name] = 0;
    memcpy(p + BAD_HEAD + name + 1, b->why, why);
    int rc = sealed_put(&run->env, txn, run->bad, &k, p, BAD_HEAD + name + 1 + why);
    free(p);
    if (rc || !kept)
        return rc;
    rc = mdb_put(txn, run->bad_bytes, &k, &v, 0);
    return rc ? store_error(&run->env, rc) : 0;
}

static bool has(Run *run, MDB_txn *txn, uint64_t id, int *rc)
{
    MDB_val k = { sizeof id, &id }, v;
    int found = mdb_get(txn, run->bad, &k, &v);
    *rc = found && found != MDB_NOTFOUND ? store_error(&run->env, found) : 0;
    return !found;
}

/* One transaction from image i on; *i: the first that it did not take. */
static int put_some(Run *run, const BadImage *list, size_t n, size_t *i)
{
    MDB_txn *txn;
    int64_t count;
    size_t end = *i, bytes = 0;
    for (; end < n && (end == *i || bytes + list[end].kept <= CHUNK_BYTES); end++)
        bytes += list[end].kept + 3 * QUARANTINE_TEXT + 8 * run->env.page;
    if (store_begin_write(&run->env, ((size_t)1 << 20) + 2 * bytes, &txn))
        return -1;
    int rc = run_open_bad(run, txn, MDB_CREATE);
    uint64_t kept = run->bad_kept;
    if (!rc && !run->bad_counted)
        rc = survey(run, txn, NULL, &count, &kept);
    for (; !rc && *i < end; ++*i) {
        if (has(run, txn, list[*i].id, &rc) || rc)
            continue;
        size_t take = share(&list[*i], kept);
        kept += take;
        rc = put(run, txn, &list[*i], take);
    }
    if (rc) {
        mdb_txn_abort(txn);
        return -1;
    }
    if (store_commit(&run->env, txn)) {
        run->bad_counted = false;
        return -1;
    }
    run->has_bad = run->bad_counted = true;
    run->bad_kept = kept;
    return 0;
}

int run_bad_put(Run *run, const BadImage *list, size_t n)
{
    int rc = 0;
    pthread_mutex_lock(&run->lock);
    for (size_t i = 0; i < n && !rc;)
        rc = put_some(run, list, n, &i);
    pthread_mutex_unlock(&run->lock);
    return rc;
}

int64_t run_bad_ids(Run *run, uint64_t **ids)
{
    MDB_txn *txn;
    int64_t count = 0;
    uint64_t kept;
    int rc = -1;
    *ids = NULL;
    pthread_mutex_lock(&run->lock);
    if (!store_begin_read(&run->env, &txn)) {
        rc = run_open_bad(run, txn, 0);
        if (rc == MDB_NOTFOUND) /* a run of an older program */
            rc = (*ids = calloc(1, sizeof **ids)) ? 0
                                                   : err_set(ERR_MEMORY, "%s: out of memory", run->env.path);
        else if (!rc)
            rc = survey(run, txn, ids, &count, &kept);
        store_end_read(&run->env, txn);
    }
    pthread_mutex_unlock(&run->lock);
    if (!rc)
        return count;
    free(*ids);
    *ids = NULL;
    return -1;
}

static int get(Run *run, MDB_txn *txn, uint64_t id, bool with_bytes, BadImage *out)
{
    MDB_val k = { sizeof id, &id }, v, bytes = { 0, NULL };
    BadImage b;
    uint64_t sum;
    int rc = run_open_bad(run, txn, 0);
    rc = rc ? rc : mdb_get(txn, run->bad, &k, &v);
    if (rc == MDB_NOTFOUND)
        return err_set(ERR_ABSENT, "%s: no bad image %" PRIu64, run->env.path, id);
    if (rc)
        return rc == -1 ? -1 : store_error(&run->env, rc);
    if (parse(run, id, &v, &b, &sum))
        return -1;
    if (with_bytes && b.kept) {
        rc = mdb_get(txn, run->bad_bytes, &k, &bytes);
        if (rc && rc != MDB_NOTFOUND)
            return store_error(&run->env, rc);
        if (rc || bytes.mv_size != b.kept || XXH3_64bits(bytes.mv_data, b.kept) != sum)
            return err_set(ERR_DATA, "%s: damaged: the bytes of bad image %" PRIu64, run->env.path, id);
    }
    size_t name = strlen(b.name), why = v.mv_size - 8 - BAD_HEAD - name - 1;
    char *p = malloc(name + why + 2 + bytes.mv_size);
    if (!p)
        return err_set(ERR_MEMORY, "%s: no memory for %zu bytes", run->env.path,
                       name + why + 2 + bytes.mv_size);
    memcpy(p, b.name, name + 1);
    memcpy(p + name + 1, b.why, why);
    p[name + 1 + why] = 0;
    if (bytes.mv_size)
        memcpy(p + name + why + 2, bytes.mv_data, bytes.mv_size);
    b.held = p;
    b.why = p + name + 1;
    b.name = p;
    b.bytes = with_bytes ? p + name + why + 2 : NULL;
    *out = b;
    return 0;
}

int run_bad_get(Run *run, uint64_t id, bool with_bytes, BadImage *out)
{
    MDB_txn *txn;
    int rc = -1;
    *out = (BadImage){ 0 };
    pthread_mutex_lock(&run->lock);
    if (!store_begin_read(&run->env, &txn)) {
        rc = get(run, txn, id, with_bytes, out);
        store_end_read(&run->env, txn);
    }
    pthread_mutex_unlock(&run->lock);
    return rc;
}

void bad_image_free(BadImage *b)
{
    free(b->held);
    *b = (BadImage){ 0 };
}
