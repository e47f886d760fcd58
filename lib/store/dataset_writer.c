#include "store/dataset.h"

#include "store/dataset_layout.h"
#include "util/err.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

/* A transaction ends after so many bytes, records or seconds. Each record may touch a few pages of each tree. */
enum { COMMIT_BYTES = 32 << 20, COMMIT_RECORDS = 4096, COMMIT_SECONDS = 5, PAGES_A_RECORD = 16, PAGES_SPARE = 256 };

typedef struct {
    char *name;
    uint64_t images;
    bool changed;
} Class;

struct DatasetWriter {
    StoreEnv env;
    MDB_txn *txn;
    DatasetDbs dbs;
    StoreHeader head;
    uint64_t count, bytes, digest;
    size_t pending_bytes, pending;
    time_t began;
    Class *classes;
    size_t n_classes, room;
    uint32_t *slots; /* open addressing: class number + 1 */
    size_t n_slots;  /* a power of two, more than twice the classes */
    int32_t last;    /* class asked for last */
    bool whole;      /* not to be seen before it is finished */
    bool known;      /* dbs are open */
    bool failed;     /* what was put since the last commit is lost */
};

static time_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

static size_t find_slot(const DatasetWriter *w, const char *name, size_t length)
{
    size_t i = XXH3_64bits(name, length) & (w->n_slots - 1);
    while (w->slots[i]) {
        const char *other = w->classes[w->slots[i] - 1].name;
        if (!strncmp(other, name, length) && !other[length])
            break;
        i = (i + 1) & (w->n_slots - 1);
    }
    return i;
}

static int grow_classes(DatasetWriter *w)
{
    size_t room = w->room ? w->room * 2 : 64, n_slots = room * 4;
    Class *classes = realloc(w->classes, room * sizeof *classes);
    if (classes)
        w->classes = classes;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!classes || !slots) {
        free(slots);
        return err_set(ERR_MEMORY, "%s: no memory for %zu classes", w->env.path, room);
    }
    free(w->slots);
    w->slots = slots;
    w->n_slots = n_slots;
    w->room = room;
    for (size_t i = 0; i < w->n_classes; i++)
        slots[find_slot(w, classes[i].name, strlen(classes[i].name))] = (uint32_t)i + 1;
    return 0;
}

static int add_class(DatasetWriter *w, const char *name, size_t length, uint64_t images, bool changed)
{
    if (w->n_classes == w->room && grow_classes(w))
        return -1;
    char *copy = strndup(name, length);
    if (!copy)
        return err_set(ERR_MEMORY, "%s: no memory for class names", w->env.path);
    w->slots[find_slot(w, name, length)] = (uint32_t)w->n_classes + 1;
    w->classes[w->n_classes++] = (Class){ copy, images, changed };
    return 0;
}

static int known_class(uint64_t number, uint64_t images, const char *name, size_t length, void *arg)
{
    DatasetWriter *w = arg;
    if (w->n_slots && w->slots[find_slot(w, name, length)])
        return err_set(ERR_DATA, "%s: damaged: class %" PRIu64 " has another's name", w->env.path, number);
    return add_class(w, name, length, images, false);
}

static void abandon(DatasetWriter *w)
{
    if (w->txn)
        mdb_txn_abort(w->txn);
    w->txn = NULL;
    w->failed = true;
}

static int begin(DatasetWriter *w, size_t size)
{
    if (w->failed)
        return err_set(ERR_STORE, "%s: an earlier write failed", w->env.path);
    size_t pages = PAGES_SPARE + COMMIT_RECORDS * (size_t)PAGES_A_RECORD;
    if (store_begin_write(&w->env, pages * w->env.page + 2 * (size_t)COMMIT_BYTES + 2 * size, &w->txn))
        return -1;
    w->pending = w->pending_bytes = 0;
    w->began = now();
    if (w->known || !w->count)
        return 0;
    if (dataset_open_dbs(&w->env, w->txn, 0, &w->dbs)) {
        abandon(w);
        return -1;
    }
    w->known = true;
    return 0;
}

static const char *class_of(const void *arg, int32_t number)
{
    const DatasetWriter *w = arg;
    return w->classes[number].name;
}

static int read_back(DatasetWriter *w)
{
    StoreHeader *h = &w->head;
    if (dataset_open_dbs(&w->env, w->txn, 0, &w->dbs) || dataset_read_header(&w->env, w->txn, &w->dbs, h) ||
        dataset_each_class(&w->env, w->txn, &w->dbs, known_class, w))
        return -1;
    w->count = h->field[HEAD_IMAGES];
    w->bytes = h->field[HEAD_BYTES];
    w->digest = h->field[HEAD_DIGEST];
    if (h->version == 1 &&
        dataset_digest_walk(&w->env, w->txn, w->dbs.images, (int64_t)w->n_classes, class_of, w, &w->digest))
        return err_prefix("no digest can be made, so nothing is added");
    /* Ids must be the numbers below count, or the next one would collide. */
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(w->txn, w->dbs.images, &cursor);
    if (rc)
        return store_error(&w->env, rc);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
    uint64_t next = rc ? 0 : load64(k.mv_data) + 1;
    mdb_cursor_close(cursor);
    if (rc && rc != MDB_NOTFOUND)
        return store_error(&w->env, rc);
    return next == w->count ? 0 : err_set(ERR_DATA, "%s: damaged: its image numbers have gaps", w->env.path);
}

/* A file that LMDB made but that never saw our first commit: an import killed in its first moments. */
static bool untouched(DatasetWriter *w)
{
    MDB_dbi main;
    MDB_stat stat;
    return !mdb_dbi_open(w->txn, NULL, 0, &main) && !mdb_stat(w->txn, main, &stat) && !stat.ms_entries;
}

static int begin_new(DatasetWriter *w)
{
    w->head.field[HEAD_FLAGS] = DATASET_RULE;
    return dataset_open_dbs(&w->env, w->txn, MDB_CREATE, &w->dbs);
}

static int open_old(DatasetWriter *w, const char *path)
{
    if (store_open(&w->env, path, STORE_WRITE, "dataset", NULL) || store_claim(&w->env, "imports into") || begin(w, 0))
        return -1;
    return untouched(w) ? begin_new(w) : read_back(w);
}

static int make_new(DatasetWriter *w, const char *path, unsigned how)
{
    if (store_create(&w->env, path, "dataset", "images", how & DATASET_REPLACE) || begin(w, 0))
        return -1;
    return begin_new(w);
}

DatasetWriter *dataset_create(const char *path, unsigned how)
{
    enum { TRIES = 10 };
    struct stat st;
    for (int i = 0;; i++) {
        DatasetWriter *w = calloc(1, sizeof *w);
        if (!w) {
            err_set(ERR_MEMORY, "%s: out of memory", path);
            return NULL;
        }
        w->last = -1;
        w->whole = how & DATASET_WHOLE;
        bool old = how & DATASET_RESUME && !stat(path, &st) && st.st_size;
        int rc = old ? open_old(w, path) : make_new(w, path, how);
        w->known = !rc;
        if (!rc)
            return w;
        dataset_discard(w);
        /* One that has come or gone since we looked is taken as it is now. */
        if (!(how & DATASET_RESUME) || err_code() != (old ? ERR_ABSENT : ERR_EXISTS) || i == TRIES)
            return NULL;
    }
}

static void empty(DatasetWriter *w)
{
    abandon(w);
    store_close(&w->env);
    for (size_t i = 0; i < w->n_classes; i++)
        free(w->classes[i].name);
    free(w->classes);
    free(w->slots);
}

void dataset_discard(DatasetWriter *w)
{
    if (!w)
        return;
    empty(w);
    free(w);
}

unsigned dataset_writer_rule(const DatasetWriter *w)
{
    return (unsigned)w->head.field[HEAD_FLAGS] & DATASET_RULE;
}

void dataset_set_rule(DatasetWriter *w, unsigned rule)
{
    assert(!w->count);
    uint64_t *flags = &w->head.field[HEAD_FLAGS];
    *flags = (*flags & ~(uint64_t)DATASET_RULE) | rule;
}

static int publish(DatasetWriter *w)
{
    w->known = false;
    w->failed = store_publish(&w->env);
    return w->failed ? -1 : 0;
}

int dataset_finish(DatasetWriter *w)
{
    int rc = w && (w->txn || w->failed) ? dataset_commit(w) : 0;
    if (w && !rc && w->env.fresh)
        rc = publish(w);
    dataset_discard(w);
    return rc;
}

int dataset_commit(DatasetWriter *w)
{
    if (!w->txn && begin(w, 0))
        return -1;
    for (uint64_t i = 0; i < w->n_classes; i++) {
        unsigned char value[8 + DATASET_NAME_MAX];
        size_t n = strlen(w->classes[i].name);
        MDB_val k = { sizeof i, &i };
        if (!w->classes[i].changed)
            continue;
        store64(value, w->classes[i].images);
        memcpy(value + 8, w->classes[i].name, n);
        if (sealed_put(&w->env, w->txn, w->dbs.classes, &k, value, 8 + n))
            goto fail;
    }
    w->head.version = DATASET_VERSION;
    w->head.n = w->head.n < HEAD_FIELDS ? HEAD_FIELDS : w->head.n;
    w->head.field[HEAD_IMAGES] = w->count;
    w->head.field[HEAD_BYTES] = w->bytes;
    w->head.field[HEAD_DIGEST] = w->digest;
    if (store_header_put(&w->env, w->txn, w->dbs.meta, DATASET_KIND, &w->head))
        goto fail;
    MDB_txn *txn = w->txn;
    w->txn = NULL;
    if (store_commit(&w->env, txn)) {
        w->failed = true;
        return -1;
    }
    for (size_t i = 0; i < w->n_classes; i++)
        w->classes[i].changed = false;
    return w->env.fresh && w->count && !w->whole ? publish(w) : 0;
fail:
    abandon(w);
    return -1;
}

int dataset_number_classes(DatasetWriter *w)
{
    uint64_t *flags = &w->head.field[HEAD_FLAGS];
    if (w->n_classes && !(*flags & FLAG_NUMBERED))
        return err_set(ERR_USAGE,
                       "its class is a number, those of %s have names: it wants a dataset of its own",
                       w->env.path);
    *flags |= FLAG_NUMBERED;
    return 0;
}

int32_t dataset_class(DatasetWriter *w, const char *name)
{
    size_t n = strlen(name);
    if (w->last >= 0 && !strcmp(w->classes[w->last].name, name))
        return w->last;
    if (!n || n > DATASET_NAME_MAX)
        return err_set(ERR_USAGE, "a class name of %zu bytes; 1 to %d are possible", n, DATASET_NAME_MAX);
    if (w->head.field[HEAD_FLAGS] & FLAG_NUMBERED && dataset_class_number(name) < 0)
        return err_set(ERR_USAGE,
                       "its class is %.60s, those of %s are numbers from 0 to %d: it wants a dataset "
                       "of its own",
                       name, w->env.path, DATASET_NUMBER_MAX);
    if (!w->n_slots && grow_classes(w))
        return -1;
    uint32_t known = w->slots[find_slot(w, name, n)];
    if (!known) {
        if (w->n_classes >= DATASET_CLASSES_MAX)
            return err_set(ERR_DATA, "%s: more than %d classes", w->env.path, DATASET_CLASSES_MAX);
        if (add_class(w, name, n, 0, true))
            return -1;
        known = (uint32_t)w->n_classes;
    }
    return w->last = (int32_t)known - 1;
}

static void name_key(const char *name, size_t length, XXH128_canonical_t *key)
{
    XXH128_canonicalFromHash(key, XXH3_128bits(name, length));
}

static int find_name(DatasetWriter *w, const char *name, MDB_val *id)
{
    XXH128_canonical_t key;
    MDB_val k = { sizeof key, &key };
    name_key(name, strlen(name), &key);
    if (!w->txn && begin(w, 0))
        return -1;
    int rc = mdb_get(w->txn, w->dbs.names, &k, id);
    if (rc && rc != MDB_NOTFOUND)
        return store_error(&w->env, rc);
    return !rc;
}

int dataset_has(DatasetWriter *w, const char *name)
{
    MDB_val id;
    return find_name(w, name, &id);
}

int dataset_find(DatasetWriter *w, const char *name, const char **class_name)
{
    MDB_val id, v;
    int rc = find_name(w, name, &id);
    *class_name = NULL;
    if (rc <= 0)
        return rc;
    rc = id.mv_size == 8 ? mdb_get(w->txn, w->dbs.images, &id, &v) : MDB_NOTFOUND;
    if (rc && rc != MDB_NOTFOUND)
        return store_error(&w->env, rc);
    int32_t number = rc || v.mv_size <= RECORD_HEAD ? INT32_MAX : (int32_t)load32(v.mv_data);
    if (number < -1 || number >= (int64_t)w->n_classes)
        return err_set(ERR_DATA, "%s: damaged: the record of %s", w->env.path, name);
    *class_name = number < 0 ? NULL : w->classes[number].name;
    return 1;
}

static int append(DatasetWriter *w, const Record *rec, size_t length, uint64_t checksum)
{
    XXH128_canonical_t hash;
    uint64_t id = w->count;
    MDB_val name_k = { sizeof hash, &hash }, id_v = { sizeof id, &id };
    name_key(rec->name, length, &hash);
    int rc = mdb_put(w->txn, w->dbs.names, &name_k, &id_v, MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST)
        return err_set(ERR_EXISTS, "%s: is in %s already", rec->name, w->env.path);
    MDB_val k = { sizeof id, &id }, v = { RECORD_HEAD + length + 1 + rec->size, NULL };
    rc = rc ? rc : mdb_put(w->txn, w->dbs.images, &k, &v, MDB_RESERVE | MDB_APPEND);
    if (rc) {
        store_error(&w->env, rc);
        abandon(w); /* the transaction is spoilt, and with it the names put */
        return -1;
    }
    unsigned char *p = v.mv_data;
    store32(p, (uint32_t)rec->label);
    store32(p + 4, rec->width);
    store32(p + 8, rec->height);
    store16(p + 12, (uint16_t)length);
    store16(p + 14, rec->reading);
    store64(p + 16, checksum);
    store32(p + 24, (uint32_t)rec->size);
    store32(p + RECORD_SEAL, dataset_record_seal(p, rec->name, length));
    memcpy(p + RECORD_HEAD, rec->name, length + 1);
    memcpy(p + RECORD_HEAD + length + 1, rec->bytes, rec->size);
    return 0;
}

static int check_record(const Record *rec)
{
    size_t length = rec->name ? strlen(rec->name) : 0;
    if (!length || length > DATASET_NAME_MAX)
        return err_set(ERR_USAGE, "a name of %zu bytes; 1 to %d are possible", length, DATASET_NAME_MAX);
    if (!rec->size || rec->size > DATASET_IMAGE_MAX)
        return err_set(ERR_DATA, "%s: %zu bytes; 1 to %d are possible", rec->name, rec->size, DATASET_IMAGE_MAX);
    return 0;
}

int dataset_put(DatasetWriter *w, const Record *rec)
{
    if (check_record(rec))
        return -1;
    size_t length = strlen(rec->name);
    if (rec->label < -1 || rec->label >= (int64_t)w->n_classes)
        return err_set(ERR_USAGE, "%s: no class %" PRId32, rec->name, rec->label);
    if (w->txn && (w->pending_bytes + rec->size > COMMIT_BYTES || w->pending >= COMMIT_RECORDS ||
                   now() - w->began >= COMMIT_SECONDS) && dataset_commit(w))
        return -1;
    if (!w->txn && begin(w, rec->size))
        return -1;
    uint64_t checksum = XXH3_64bits(rec->bytes, rec->size);
    if (append(w, rec, length, checksum))
        return -1;
    w->digest =
        dataset_digest_add(w->digest, rec, checksum, rec->label < 0 ? NULL : w->classes[rec->label].name);
    w->count++;
    w->bytes += rec->size;
    w->pending++;
    w->pending_bytes += rec->size + length;
    if (rec->label >= 0) {
        w->classes[rec->label].images++;
        w->classes[rec->label].changed = true;
    }
    return 0;
}

int dataset_put_in(DatasetWriter *w, const Record *rec, const char *class_name)
{
    Record r = *rec;
    r.label = -1;
    if (check_record(rec))
        return -1;
    int there = dataset_has(w, rec->name);
    if (there)
        return there < 0 ? -1 : err_set(ERR_EXISTS, "%s: is in %s already", rec->name, w->env.path);
    if (class_name && (r.label = dataset_class(w, class_name)) < 0)
        return -1;
    return dataset_put(w, &r);
}

uint64_t dataset_written(const DatasetWriter *w)
{
    return w->count;
}

/* ---------------------------------------------------------------- repair */

/* What the header says, be its checksum right (*sealed) or not: kind, version and flags can't be made up anew. */
static int read_broken_header(DatasetWriter *w, bool *sealed)
{
    MDB_val k = { 6, (void *)"header" }, v;
    int rc = mdb_get(w->txn, w->dbs.meta, &k, &v);
    if (rc == MDB_NOTFOUND || (!rc && v.mv_size < 8))
        return err_set(ERR_DATA, "%s: not a dataset: no header", w->env.path);
    if (rc)
        return store_error(&w->env, rc);
    const unsigned char *p = v.mv_data;
    *sealed = XXH3_64bits(p + 8, v.mv_size - 8) == load64(p);
    if (store_header_parse(&w->env, p + 8, v.mv_size - 8, DATASET_KIND, DATASET_VERSION, "dataset", &w->head))
        return -1;
    return dataset_check_header(&w->env, &w->head);
}

/* 1: the name was not known, or as another image's. */
static int recall_name(DatasetWriter *w, const Record *r, uint64_t id)
{
    XXH128_canonical_t key;
    MDB_val k = { sizeof key, &key }, v;
    name_key(r->name, strlen(r->name), &key);
    int rc = mdb_get(w->txn, w->dbs.names, &k, &v);
    if (!rc && v.mv_size == 8 && load64(v.mv_data) == id)
        return 0;
    v = (MDB_val){ sizeof id, &id };
    if (!rc || rc == MDB_NOTFOUND)
        rc = mdb_put(w->txn, w->dbs.names, &k, &v, 0);
    return rc ? store_error(&w->env, rc) : 1;
}

/* Counts what there is, into w; images[] of each class. Returns how many names were wrong, or -1. */
static int64_t count_records(DatasetWriter *w, uint64_t *images)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    Record r = { .name = "" };
    int64_t wrong = 0;
    int rc = mdb_cursor_open(w->txn, w->dbs.images, &cursor);
    if (rc)
        return store_error(&w->env, rc);
    w->count = w->bytes = w->digest = 0;
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); !rc; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        if (load64(k.mv_data) != w->count) {
            err_set(ERR_DATA, "%s: damaged: image %" PRIu64 " is missing", w->env.path, w->count);
            break;
        }
        if (dataset_parse_record(w->env.path, w->count, &v, (int64_t)w->n_classes, &r))
            break;
        if (XXH3_64bits(r.bytes, r.size) != r.checksum) {
            err_set(ERR_DATA, "%s: damaged: %s: its checksum is wrong", w->env.path, r.name);
            break;
        }
        w->bytes += r.size;
        w->digest =
            dataset_digest_add(w->digest, &r, r.checksum, r.label < 0 ? NULL : w->classes[r.label].name);
        if (r.label >= 0)
            images[r.label]++;
        int name = recall_name(w, &r, w->count++);
        if (name < 0)
            break;
        wrong += name;
    }
    mdb_cursor_close(cursor);
    return !rc ? -1 : rc == MDB_NOTFOUND ? wrong : store_error(&w->env, rc);
}

/* 1: w holds what is to be written; 0: there is nothing to write. */
static int look_through(DatasetWriter *w, uint64_t *announced)
{
    bool sealed = false;
    MDB_stat stat;
    if (dataset_open_dbs(&w->env, w->txn, 0, &w->dbs) || read_broken_header(w, &sealed) ||
        dataset_each_class(&w->env, w->txn, &w->dbs, known_class, w))
        return -1;
    uint64_t *images = calloc(w->n_classes + 1, sizeof *images);
    if (!images)
        return err_set(ERR_MEMORY, "%s: no memory to count %zu classes", w->env.path, w->n_classes);
    int64_t wrong = count_records(w, images);
    for (size_t i = 0; wrong >= 0 && i < w->n_classes; i++) {
        w->classes[i].changed = w->classes[i].images != images[i];
        w->classes[i].images = images[i];
        wrong += w->classes[i].changed;
    }
    free(images);
    if (wrong < 0)
        return -1;
    int rc = mdb_stat(w->txn, w->dbs.names, &stat);
    if (rc)
        return store_error(&w->env, rc);
    if (stat.ms_entries != w->count)
        return err_set(ERR_DATA, "%s: damaged: %zu names of %" PRIu64 " images", w->env.path, stat.ms_entries, w->count);
    const StoreHeader *h = &w->head;
    *announced = h->field[HEAD_IMAGES];
    return !sealed || wrong || w->count != *announced || w->bytes != h->field[HEAD_BYTES] ||
           (h->version > 1 && w->digest != h->field[HEAD_DIGEST]);
}

int dataset_repair(const char *path, uint64_t *announced)
{
    DatasetWriter w = { .last = -1, .known = true };
    int rc = store_open(&w.env, path, STORE_WRITE, "dataset", NULL) || store_claim(&w.env, "imports into") ||
             begin(&w, 0) ? -1 : 0;
    if (!rc) {
        rc = look_through(&w, announced);
        if (rc < 0 && err_code() == ERR_DATA)
            err_set(ERR_DATA, "%s; that can't be repaired: import the images anew", err_text());
    }
    if (rc > 0 && dataset_commit(&w))
        rc = -1;
    empty(&w);
    return rc;
}
