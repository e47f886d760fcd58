/* A dataset's databases:
 *
 *  meta     "header" -> sealed: "HSSLDATA", version (4), images (8), bytes of images (8), digest (8), flags (8), more
 *  images   id (8) -> record, below
 *  names    XXH3-128 of the name, canonical (16) -> id (8)
 *  classes  number (8), in order of first use -> sealed: images that have it (8), name
 *
 * A record:
 *
 *   0  class number, or -1 (4)        4  width (4)        8  height (4)
 *  12  length of the name (2)        14  reading (2)
 *  16  XXH3-64 of the image (8)      24  size of the image (4)
 *  28  lower half of XXH3-64 of bytes 0..27 and the name (4)
 *  32  the name, a zero byte, the image
 *
 * The digest is 0 without records; each record in turn makes it the XXH3-64 of the digest so far (8), the
 * checksum of the image (8), the name, a zero byte, the name of the class (none: empty), a zero byte, and
 * where the reading is not 0 the reading (2). Flags 1 and 2 are the rule; 4: classes are numbers, which are
 * their labels. Who meets a flag that he does not know must not go on. Fields behind the flags are kept as they
 * are. A file of version 1 has neither digest nor flags.
 *
 * sealed: behind the XXH3-64 of what follows (8). All numbers are little-endian. */
#include "store/dataset.h"

#include "store/dataset_layout.h"
#include "util/err.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct {
    char *name;
    uint64_t images;
    uint32_t number;
} Class;

enum { QUICK = 16 }; /* of so many looks at the file one is thorough */

struct Dataset {
    StoreEnv env;
    MDB_txn *txn; /* a snapshot, between dataset_rest()s */
    MDB_dbi images;
    pthread_mutex_t lock; /* a transaction is for one thread at a time; what it handed out stays good */
    atomic_uint reads;
    StoreHeader head;
    Class *classes; /* by label */
    int32_t *label; /* class number -> label */
    int n_classes;  /* labels are below it */
    int n_stored;   /* class numbers are */
};

int dataset_open_dbs(StoreEnv *e, MDB_txn *txn, unsigned flags, DatasetDbs *dbs)
{
    int rc = mdb_dbi_open(txn, "meta", flags, &dbs->meta);
    rc = rc ? rc : mdb_dbi_open(txn, "images", flags | MDB_INTEGERKEY, &dbs->images);
    rc = rc ? rc : mdb_dbi_open(txn, "classes", flags | MDB_INTEGERKEY, &dbs->classes);
    if (!rc && e->write)
        rc = mdb_dbi_open(txn, "names", flags, &dbs->names);
    if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
        return err_set(ERR_DATA, "%s: not a dataset", e->path);
    return rc ? store_error(e, rc) : 0;
}

int dataset_check_header(const StoreEnv *e, const StoreHeader *h)
{
    if (h->version == 1 ? h->n != HEAD_BYTES + 1 : h->n < HEAD_FIELDS)
        return err_set(ERR_DATA, "%s: damaged: its header has %zu fields", e->path, h->n);
    uint64_t strange = h->field[HEAD_FLAGS] & ~(uint64_t)FLAGS_KNOWN;
    if (strange)
        return err_set(ERR_DATA, "%s: a dataset with flags 0x%" PRIx64 " that this program does not know: use a newer one",
                       e->path, strange);
    return 0;
}

int dataset_read_header(StoreEnv *e, MDB_txn *txn, const DatasetDbs *dbs, StoreHeader *h)
{
    MDB_stat stat;
    int rc = store_header_get(e, txn, dbs->meta, DATASET_KIND, DATASET_VERSION, "dataset", h);
    if (rc == MDB_NOTFOUND)
        return err_set(ERR_DATA, "%s: not a dataset: no header", e->path);
    if (rc || dataset_check_header(e, h))
        return -1;
    rc = mdb_stat(txn, dbs->images, &stat);
    if (rc)
        return store_error(e, rc);
    if (stat.ms_entries != h->field[HEAD_IMAGES])
        return err_set(ERR_DATA, "%s: damaged: %zu images where %" PRIu64 " are announced: hssl-import --repair sets that "
                       "right where the images are sound", e->path, stat.ms_entries, h->field[HEAD_IMAGES]);
    return 0;
}

uint32_t dataset_record_seal(const unsigned char *record, const char *name, size_t length)
{
    return (uint32_t)XXH3_64bits_withSeed(name, length, XXH3_64bits(record, RECORD_SEAL));
}

int dataset_each_class(StoreEnv *e, MDB_txn *txn, const DatasetDbs *dbs,
                       int (*cb)(uint64_t number, uint64_t images, const char *name, size_t length, void *arg),
                       void *arg)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    uint64_t expected = 0;
    int rc = mdb_cursor_open(txn, dbs->classes, &cursor);
    if (rc)
        return store_error(e, rc);
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); !rc; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        const void *p = NULL;
        size_t n = 0;
        if (sealed_parse(e, &v, &p, &n))
            goto fail;
        if (load64(k.mv_data) != expected++ || n < 9 || n > 8 + DATASET_NAME_MAX ||
            memchr((const char *)p + 8, 0, n - 8)) {
            err_set(ERR_DATA, "%s: damaged: its table of classes", e->path);
            goto fail;
        }
        if (cb(load64(k.mv_data), load64(p), (const char *)p + 8, n - 8, arg))
            goto fail;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : store_error(e, rc);
fail:
    mdb_cursor_close(cursor);
    return -1;
}

int32_t dataset_class_number(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    if (!digits || digits > 6 || name[digits] || (*name == '0' && digits > 1))
        return -1;
    int32_t n = (int32_t)strtol(name, NULL, 10);
    return n <= DATASET_NUMBER_MAX ? n : -1;
}

static int add_class(uint64_t number, uint64_t images, const char *name, size_t length, void *arg)
{
    Dataset *ds = arg;
    ds->classes[number] = (Class){ strndup(name, length), images, (uint32_t)number };
    if (!ds->classes[number].name)
        return err_set(ERR_MEMORY, "%s: no memory for class names", ds->env.path);
    ds->n_stored++;
    ds->n_classes++;
    return 0;
}

/* Numbered classes move to where their numbers say; the numbers between them are classes without images. */
static int spread_classes(Dataset *ds)
{
    int n = 0;
    for (int i = 0; i < ds->n_stored; i++) {
        ds->label[i] = dataset_class_number(ds->classes[i].name);
        if (ds->label[i] < 0)
            return err_set(ERR_DATA, "%s: damaged: class %s is not a number", ds->env.path,
                           ds->classes[i].name);
        n = ds->label[i] < n ? n : ds->label[i] + 1;
    }
    Class *spread = calloc((size_t)n + 1, sizeof *spread);
    if (!spread)
        return err_set(ERR_MEMORY, "%s: no memory for %d classes", ds->env.path, n);
    for (int i = 0; i < ds->n_stored; i++) {
        Class *to = &spread[ds->label[i]];
        if (to->name) {
            err_set(ERR_DATA, "%s: damaged: class %s twice", ds->env.path, to->name);
            free(spread);
            return -1;
        }
        *to = ds->classes[i];
    }
    free(ds->classes);
    ds->classes = spread;
    ds->n_classes = n;
    for (int i = 0; i < n; i++)
        if (!spread[i].name && asprintf(&spread[i].name, "%d", i) < 0) {
            spread[i].name = NULL;
            return err_set(ERR_MEMORY, "%s: no memory for class names", ds->env.path);
        }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const Class *)a)->name, ((const Class *)b)->name);
}

static int read_classes(Dataset *ds, const DatasetDbs *dbs)
{
    MDB_stat stat;
    int rc = mdb_stat(ds->txn, dbs->classes, &stat);
    if (rc)
        return store_error(&ds->env, rc);
    if (stat.ms_entries > DATASET_CLASSES_MAX)
        return err_set(ERR_DATA, "%s: damaged: %zu classes", ds->env.path, stat.ms_entries);
    ds->classes = calloc(stat.ms_entries + 1, sizeof *ds->classes);
    ds->label = calloc(stat.ms_entries + 1, sizeof *ds->label);
    if (!ds->classes || !ds->label)
        return err_set(ERR_MEMORY, "%s: no memory for %zu classes", ds->env.path, stat.ms_entries);
    if (dataset_each_class(&ds->env, ds->txn, dbs, add_class, ds))
        return -1;
    if (ds->head.field[HEAD_FLAGS] & FLAG_NUMBERED)
        return spread_classes(ds);
    qsort(ds->classes, (size_t)ds->n_classes, sizeof *ds->classes, by_name);
    for (int i = 0; i < ds->n_classes; i++) {
        if (i && !strcmp(ds->classes[i].name, ds->classes[i - 1].name))
            return err_set(ERR_DATA, "%s: damaged: class %s twice", ds->env.path, ds->classes[i].name);
        ds->label[ds->classes[i].number] = i;
    }
    return 0;
}

Dataset *dataset_open(const char *path)
{
    DatasetDbs dbs;
    Dataset *ds = calloc(1, sizeof *ds);
    if (!ds) {
        err_set(ERR_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    pthread_mutex_init(&ds->lock, NULL);
    /* Databases are opened in one transaction, to stay open; all else is seen in the next. */
    if (store_open(&ds->env, path, STORE_READ, "dataset", "names") || store_begin_read(&ds->env, &ds->txn) ||
        dataset_open_dbs(&ds->env, ds->txn, 0, &dbs))
        goto fail;
    int rc = store_keep_dbs(&ds->env, ds->txn);
    ds->txn = NULL;
    ds->images = dbs.images;
    if (!rc && !store_begin_read(&ds->env, &ds->txn) &&
        !dataset_read_header(&ds->env, ds->txn, &dbs, &ds->head) && !read_classes(ds, &dbs))
        return ds;
fail:
    dataset_close(ds);
    return NULL;
}

void dataset_rest(Dataset *ds)
{
    pthread_mutex_lock(&ds->lock);
    store_end_read(&ds->env, ds->txn);
    ds->txn = NULL;
    pthread_mutex_unlock(&ds->lock);
}

void dataset_close(Dataset *ds)
{
    if (!ds)
        return;
    store_end_read(&ds->env, ds->txn);
    store_close(&ds->env);
    for (int i = 0; ds->classes && i < ds->n_classes; i++)
        free(ds->classes[i].name);
    free(ds->classes);
    free(ds->label);
    pthread_mutex_destroy(&ds->lock);
    free(ds);
}

int dataset_parse_record(const char *path, uint64_t id, const MDB_val *v, int64_t n_classes, Record *rec)
{
    const unsigned char *p = v->mv_data;
    if (v->mv_size <= RECORD_HEAD)
        return err_set(ERR_DATA, "%s: damaged: image %" PRIu64 ": a record of %zu bytes", path, id, v->mv_size);
    size_t length = load16(p + 12), size = load32(p + 24);
    if (v->mv_size != RECORD_HEAD + length + 1 + size || length > DATASET_NAME_MAX || p[RECORD_HEAD + length])
        return err_set(ERR_DATA, "%s: damaged: image %" PRIu64 ": its sizes disagree", path, id);
    *rec = (Record){ .bytes = p + RECORD_HEAD + length + 1, .size = size, .name = (const char *)p + RECORD_HEAD,
                     .label = (int32_t)load32(p), .width = load32(p + 4), .height = load32(p + 8),
                     .reading = load16(p + 14), .checksum = load64(p + 16) };
    if (dataset_record_seal(p, rec->name, length) != load32(p + RECORD_SEAL) || memchr(rec->name, 0, length) ||
        rec->label < -1 || rec->label >= n_classes)
        return err_set(ERR_DATA, "%s: damaged: the head of image %" PRIu64, path, id);
    return 0;
}

/* 0, MDB_NOTFOUND, or -1. */
static int look_up(Dataset *ds, uint64_t id, MDB_val *v)
{
    MDB_val k = { sizeof id, &id };
    int rc = 0;
    pthread_mutex_lock(&ds->lock);
    if (!ds->txn)
        rc = store_begin_read(&ds->env, &ds->txn);
    if (!rc && (rc = mdb_get(ds->txn, ds->images, &k, v)) && rc != MDB_NOTFOUND)
        rc = store_error(&ds->env, rc);
    pthread_mutex_unlock(&ds->lock);
    return rc;
}

static int read_record(Dataset *ds, uint64_t id, Record *rec)
{
    MDB_val v;
    int rc = look_up(ds, id, &v);
    if (rc == MDB_NOTFOUND && id < dataset_count(ds))
        return err_set(ERR_DATA, "%s: damaged: image %" PRIu64 " is missing", ds->env.path, id);
    if (rc == MDB_NOTFOUND)
        return err_set(ERR_ABSENT, "%s: no image %" PRIu64 ": there are %" PRIu64, ds->env.path, id,
                       dataset_count(ds));
    if (rc || dataset_parse_record(ds->env.path, id, &v, ds->n_stored, rec))
        return -1;
    if (rec->label >= 0)
        rec->label = ds->label[rec->label];
    return 0;
}

int dataset_get(Dataset *ds, uint64_t id, Record *rec)
{
    int rc = read_record(ds, id, rec);
    /* Looked at last: then nothing of what was read came from another file that lies there now. */
    bool quick = !rc && atomic_fetch_add(&ds->reads, 1) % QUICK;
    return ds->txn && store_intact(&ds->env, quick) ? -1 : rc;
}

void dataset_salvage(Dataset *ds, uint64_t id, Record *rec)
{
    MDB_val v;
    *rec = (Record){ .bytes = "", .name = "", .label = -1 };
    if (look_up(ds, id, &v))
        return;
    const char *p = v.mv_data;
    size_t length = v.mv_size > RECORD_HEAD ? load16(p + 12) : 0;
    rec->bytes = p;
    rec->size = v.mv_size;
    if (v.mv_size < RECORD_HEAD + length + 2 || memchr(p + RECORD_HEAD, 0, length + 1) != p + RECORD_HEAD + length)
        return;
    rec->name = p + RECORD_HEAD;
    rec->bytes = p + RECORD_HEAD + length + 1;
    rec->size = v.mv_size - RECORD_HEAD - length - 1;
}

int dataset_verify(const Dataset *ds, const Record *rec)
{
    if (XXH3_64bits(rec->bytes, rec->size) != rec->checksum)
        return err_set(ERR_DATA, "%s: damaged: %s: its checksum is wrong", ds->env.path, rec->name);
    return 0;
}

int dataset_take(Dataset *ds, uint64_t id, Record *rec)
{
    if (!dataset_get(ds, id, rec))
        return dataset_verify(ds, rec) ? 1 : 0;
    if (err_code() != ERR_DATA)
        return -1;
    dataset_salvage(ds, id, rec);
    return 1;
}

uint64_t dataset_digest_add(uint64_t digest, const Record *rec, uint64_t checksum, const char *class_name)
{
    unsigned char link[16 + 2 * (DATASET_NAME_MAX + 1) + 2];
    size_t n = strlen(rec->name) + 1, m = class_name ? strlen(class_name) + 1 : 1, all = 16 + n + m;
    store64(link, digest);
    store64(link + 8, checksum);
    memcpy(link + 16, rec->name, n);
    memcpy(link + 16 + n, class_name ? class_name : "", m);
    if (rec->reading) {
        store16(link + all, rec->reading);
        all += 2;
    }
    return XXH3_64bits(link, all);
}

int dataset_digest_walk(StoreEnv *e, MDB_txn *txn, MDB_dbi images, int64_t n_classes,
                        const char *(*class_name)(const void *arg, int32_t number), const void *arg, uint64_t *digest)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    Record r = { .name = "" };
    int rc = mdb_cursor_open(txn, images, &cursor);
    if (rc)
        return store_error(e, rc);
    *digest = 0;
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); !rc; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        if (dataset_parse_record(e->path, load64(k.mv_data), &v, n_classes, &r))
            break;
        *digest = dataset_digest_add(*digest, &r, r.checksum, r.label < 0 ? NULL : class_name(arg, r.label));
    }
    mdb_cursor_close(cursor);
    return !rc ? -1 : rc == MDB_NOTFOUND ? 0 : store_error(e, rc);
}

static const char *class_of(const void *arg, int32_t number)
{
    const Dataset *ds = arg;
    return ds->classes[ds->label[number]].name;
}

static int walk(Dataset *ds, uint64_t *digest)
{
    pthread_mutex_lock(&ds->lock);
    int rc = ds->txn ? 0 : store_begin_read(&ds->env, &ds->txn);
    rc = rc ? rc : dataset_digest_walk(&ds->env, ds->txn, ds->images, ds->n_stored, class_of, ds, digest);
    pthread_mutex_unlock(&ds->lock);
    return rc;
}

int dataset_digest(Dataset *ds, char out[17])
{
    uint64_t digest = ds->head.field[HEAD_DIGEST];
    if (ds->head.version == 1 && walk(ds, &digest))
        return -1;
    snprintf(out, 17, "%016" PRIx64, digest);
    return 0;
}

int dataset_verify_all(Dataset *ds)
{
    Record r;
    uint64_t digest = 0;
    for (uint64_t i = 0; i < dataset_count(ds); i++)
        if (dataset_get(ds, i, &r) || dataset_verify(ds, &r))
            return -1;
    if (walk(ds, &digest))
        return -1;
    if (ds->head.version > 1 && digest != ds->head.field[HEAD_DIGEST])
        return err_set(ERR_DATA, "%s: damaged: its digest is %016" PRIx64 " where %016" PRIx64 " is announced",
                       ds->env.path, digest, ds->head.field[HEAD_DIGEST]);
    return 0;
}

const char *dataset_path(const Dataset *ds)
{
    return ds->env.path;
}

uint64_t dataset_count(const Dataset *ds)
{
    return ds->head.field[HEAD_IMAGES];
}

uint64_t dataset_bytes(const Dataset *ds)
{
    return ds->head.field[HEAD_BYTES];
}

unsigned dataset_rule(const Dataset *ds)
{
    return (unsigned)ds->head.field[HEAD_FLAGS] & DATASET_RULE;
}

int dataset_classes(const Dataset *ds)
{
    return ds->n_classes;
}

const char *dataset_class_name(const Dataset *ds, int label)
{
    return label >= 0 && label < ds->n_classes ? ds->classes[label].name : NULL;
}

uint64_t dataset_class_count(const Dataset *ds, int label)
{
    return label >= 0 && label < ds->n_classes ? ds->classes[label].images : 0;
}
