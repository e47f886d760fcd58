#include "store/env.h"

#include "store/pages.h"
#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

size_t store_map_reserve = (size_t)1 << 36;

uint64_t load64(const void *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

uint32_t load32(const void *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

uint16_t load16(const void *p)
{
    uint16_t x;
    memcpy(&x, p, 2);
    return x;
}

void store64(void *p, uint64_t x)
{
    memcpy(p, &x, 8);
}

void store32(void *p, uint32_t x)
{
    memcpy(p, &x, 4);
}

void store16(void *p, uint16_t x)
{
    memcpy(p, &x, 2);
}

_Static_assert(sizeof(size_t) == 8 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are 64-bit little-endian");

int store_error(const StoreEnv *e, int rc)
{
    if (rc == MDB_MAP_FULL)
        return err_set(ERR_STORE, "%s: no address space to let the file grow", e->path);
    /* LMDB's own codes are negative; the others are errno. */
    return err_set(rc < 0 ? ERR_STORE : ERR_SYSTEM, "%s: %s", e->path, mdb_strerror(rc));
}

/* What can be said before LMDB sees the file. Creates it for STORE_CREATE. *size: its size. */
static int look(const char *path, StoreMode mode, const char *what, off_t *size)
{
    struct stat st = { 0 };
    int flags = mode == STORE_CREATE ? O_RDWR | O_CREAT : O_RDONLY, rc = -1;
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666); /* a pipe without a writer must not hang us */
    if (fd < 0 && errno == ENOENT && mode != STORE_CREATE)
        return err_set(ERR_ABSENT, "%s: no such %s", path, what);
    if (fd < 0)
        return err_system("%s", path);
    if (fstat(fd, &st))
        err_system("%s", path);
    else if (!S_ISREG(st.st_mode))
        err_set(ERR_DATA, "%s: not a %s but %s", path, what, S_ISDIR(st.st_mode) ? "a directory" : "a special file");
    else if (mode == STORE_CREATE && st.st_size)
        err_set(ERR_EXISTS, "%s: exists already", path);
    else if (mode == STORE_CREATE)
        rc = 0;
    else if (!st.st_size)
        err_set(ERR_DATA, "%s: not a %s: the file is empty", path, what);
    else
        rc = pages_check_head(fd, path, what);
    *size = st.st_size;
    close(fd);
    return rc;
}

static int open_env(StoreEnv *e, StoreMode mode)
{
    unsigned flags = MDB_NOSUBDIR | MDB_NOTLS | (mode == STORE_READ ? MDB_RDONLY : 0);
    for (;;) {
        int rc = mdb_env_create(&e->mdb);
        if (rc)
            return store_error(e, rc);
        mdb_env_set_maxdbs(e->mdb, 8);
        mdb_env_set_maxreaders(e->mdb, 1022);
        mdb_env_set_mapsize(e->mdb, e->map);
        rc = mdb_env_open(e->mdb, e->path, flags, 0666);
        if (!rc)
            return 0;
        mdb_env_close(e->mdb);
        e->mdb = NULL;
        if ((rc == ENOMEM || rc == EINVAL) && e->map > (size_t)1 << 24) {
            e->map = (e->map / 2 + 0xffff) & ~(size_t)0xffff; /* a limit on address space; valgrind says EINVAL */
        } else if ((rc == EACCES || rc == EROFS) && mode == STORE_READ && !(flags & MDB_NOLOCK)) {
            flags |= MDB_NOLOCK; /* somebody else's directory: nobody writes there while we read */
        } else {
            return store_error(e, rc);
        }
    }
}

static int check(StoreEnv *e, const char *skip)
{
    for (int i = 0;; i++) {
        MDB_txn *txn;
        if (store_begin_read(e, &txn))
            return -1;
        int rc = pages_check_tree(e, txn, e->write, skip);
        store_end_read(e, txn);
        if (!rc || err_code() != ERR_EXISTS || i == 100)
            return rc;
        usleep(1000);
    }
}

/* Removes a file that was begun, unless something is stored in it: pages 0 and 1 hold nothing. */
static void remove_begun(const char *path, MDB_env *mdb, size_t page)
{
    MDB_envinfo info = { .me_last_txnid = 0 };
    char lock[4096];
    struct stat st;
    if (mdb)
        mdb_env_info(mdb, &info);
    if (info.me_last_txnid || stat(path, &st) || !S_ISREG(st.st_mode) || (!mdb && (size_t)st.st_size > 2 * page))
        return;
    unlink(path);
    if (snprintf(lock, sizeof lock, "%s-lock", path) < (int)sizeof lock)
        unlink(lock);
}

void store_undo_create(StoreEnv *e)
{
    if (e->path)
        remove_begun(e->path, e->mdb, e->page);
    store_close(e);
}

int store_open(StoreEnv *e, const char *path, StoreMode mode, const char *what, const char *skip)
{
    off_t size = 0;
    int dead;
    MDB_stat stat;
    *e = (StoreEnv){ .write = mode != STORE_READ };
    if (look(path, mode, what, &size))
        return -1;
    e->page = (size_t)sysconf(_SC_PAGESIZE);
    e->path = strdup(path);
    if (!e->path) {
        if (mode == STORE_CREATE)
            remove_begun(path, NULL, e->page);
        return err_set(ERR_MEMORY, "%s: out of memory", path);
    }
    e->map = ((size_t)size + store_map_reserve + 0xffff) & ~(size_t)0xffff;
    if (open_env(e, mode))
        goto fail;
    mdb_env_stat(e->mdb, &stat);
    e->page = stat.ms_psize;
    mdb_reader_check(e->mdb, &dead); /* readers that were killed would keep old pages from being used again */
    if (mode != STORE_CREATE && check(e, skip))
        goto fail;
    return 0;
fail:
    if (mode == STORE_CREATE)
        store_undo_create(e);
    store_close(e);
    return -1;
}

void store_close(StoreEnv *e)
{
    if (e->mdb)
        mdb_env_close(e->mdb);
    free(e->path);
    *e = (StoreEnv){ 0 };
}

/* size 0: as large as another process made it. */
static int resize(StoreEnv *e, size_t size)
{
    MDB_envinfo info;
    if (e->readers)
        return err_set(ERR_STORE, "%s: the map has to grow while it is read here", e->path);
    int rc = mdb_env_set_mapsize(e->mdb, size);
    if (rc)
        return store_error(e, rc);
    mdb_env_info(e->mdb, &info);
    e->map = info.me_mapsize;
    return 0;
}

static int begin(StoreEnv *e, unsigned flags, MDB_txn **txn)
{
    int rc = mdb_txn_begin(e->mdb, NULL, flags, txn);
    if (rc == MDB_MAP_RESIZED) {
        if (resize(e, 0))
            return -1;
        rc = mdb_txn_begin(e->mdb, NULL, flags, txn);
    }
    return rc ? store_error(e, rc) : 0;
}

int store_begin_read(StoreEnv *e, MDB_txn **txn)
{
    *txn = NULL;
    if (begin(e, MDB_RDONLY, txn))
        return -1;
    e->readers++;
    return 0;
}

void store_end_read(StoreEnv *e, MDB_txn *txn)
{
    if (!txn)
        return;
    mdb_txn_abort(txn);
    e->readers--;
}

int store_begin_write(StoreEnv *e, size_t need, MDB_txn **txn)
{
    *txn = NULL;
    if (!e->write)
        return err_set(ERR_USAGE, "%s: opened for reading only", e->path);
    for (;;) {
        MDB_envinfo info;
        if (begin(e, 0, txn))
            return -1;
        mdb_env_info(e->mdb, &info); /* nobody else can write now */
        size_t used = (info.me_last_pgno + 1) * e->page;
        if (used <= info.me_mapsize && need <= info.me_mapsize - used)
            return 0;
        mdb_txn_abort(*txn);
        *txn = NULL;
        size_t grown = info.me_mapsize * 2;
        if (grown < used + need)
            grown = used + need;
        if (resize(e, (grown + 0xffff) & ~(size_t)0xffff))
            return -1;
    }
}

int store_commit(StoreEnv *e, MDB_txn *txn)
{
    int rc = mdb_txn_commit(txn);
    return rc ? store_error(e, rc) : 0;
}

int sealed_put(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, MDB_val *key, const void *bytes, size_t n)
{
    MDB_val v = { n + 8, NULL };
    int rc = mdb_put(txn, dbi, key, &v, MDB_RESERVE);
    if (rc)
        return store_error(e, rc);
    store64(v.mv_data, XXH3_64bits(bytes, n));
    if (n)
        memcpy((char *)v.mv_data + 8, bytes, n);
    return 0;
}

int sealed_parse(const StoreEnv *e, const MDB_val *v, const void **bytes, size_t *n)
{
    if (v->mv_size < 8)
        return err_set(ERR_DATA, "%s: damaged: a value of %zu bytes", e->path, v->mv_size);
    *bytes = (const char *)v->mv_data + 8;
    *n = v->mv_size - 8;
    if (XXH3_64bits(*bytes, *n) != load64(v->mv_data))
        return err_set(ERR_DATA, "%s: damaged: a value's checksum is wrong", e->path);
    return 0;
}

int sealed_get(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, MDB_val *key, const void **bytes, size_t *n)
{
    MDB_val v;
    int rc = mdb_get(txn, dbi, key, &v);
    if (rc == MDB_NOTFOUND)
        return rc;
    if (rc)
        return store_error(e, rc);
    return sealed_parse(e, &v, bytes, n);
}

int store_header_put(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, const char kind[8], const StoreHeader *h)
{
    unsigned char head[12 + 8 * STORE_FIELDS];
    MDB_val key = { 6, (void *)"header" };
    memcpy(head, kind, 8);
    store32(head + 8, h->version);
    for (size_t i = 0; i < h->n; i++)
        store64(head + 12 + 8 * i, h->field[i]);
    return sealed_put(e, txn, dbi, &key, head, 12 + 8 * h->n);
}

int store_header_get(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, const char kind[8], uint32_t newest, const char *what,
                     StoreHeader *h)
{
    const void *bytes = NULL;
    size_t n = 0;
    MDB_val key = { 6, (void *)"header" };
    *h = (StoreHeader){ 0 };
    int rc = sealed_get(e, txn, dbi, &key, &bytes, &n);
    if (rc)
        return rc;
    if (n < 12)
        return err_set(ERR_DATA, "%s: damaged: its header has %zu bytes", e->path, n);
    if (memcmp(bytes, kind, 8))
        return err_set(ERR_DATA, "%s: not a %s", e->path, what);
    h->version = load32((const char *)bytes + 8);
    if (h->version > newest)
        return err_set(ERR_DATA, "%s: a %s of format version %" PRIu32 "; this program knows versions up to %" PRIu32
                       ": use a newer one", e->path, what, h->version, newest);
    if (!h->version || (n - 12) % 8 || n > 12 + 8 * STORE_FIELDS)
        return err_set(ERR_DATA, "%s: damaged: its header has %zu bytes", e->path, n);
    h->n = (n - 12) / 8;
    for (size_t i = 0; i < h->n; i++)
        h->field[i] = load64((const char *)bytes + 12 + 8 * i);
    return 0;
}
