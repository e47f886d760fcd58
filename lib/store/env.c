#include "store/env.h"

#include "store/claim.h"
#include "store/pages.h"
#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

/* LMDB says EIO of a write that was cut short. The reason is that of the next one in the same folder. */
static int short_write(const StoreEnv *e)
{
    char block[4096] = { 0 };
    struct rlimit most;
    struct stat st;
    if (!getrlimit(RLIMIT_FSIZE, &most) && !fstat(e->fd, &st) &&
        (rlim_t)st.st_size + sizeof block > most.rlim_cur)
        return EFBIG;
    int rc = EIO, fd = openat(e->dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    for (int i = 0; fd >= 0 && i < 256; i++)
        if (write(fd, block, sizeof block) != sizeof block) {
            rc = errno == EDQUOT ? EDQUOT : ENOSPC;
            break;
        }
    if (fd >= 0)
        close(fd);
    return rc;
}

int store_error(const StoreEnv *e, int rc)
{
    if (rc == EIO && e->write)
        rc = short_write(e);
    if (rc == MDB_MAP_FULL)
        return err_set(ERR_STORE, "%s: no address space to let the file grow", e->path);
    /* LMDB's own codes are negative; the others are errno. */
    return err_set(rc < 0 ? ERR_STORE : ERR_SYSTEM, "%s: %s", e->path, mdb_strerror(rc));
}

const char *store_name(const StoreEnv *e)
{
    return strrchr(e->real, '/') + 1;
}

bool store_is_named(const StoreEnv *e, const char *name, int fd)
{
    struct stat named, open;
    return !fstatat(e->dir, name, &named, AT_SYMLINK_NOFOLLOW) && !fstat(fd, &open) && named.st_ino == open.st_ino &&
           named.st_dev == open.st_dev;
}

/* Where a file that is not there would be. */
static char *real_of_missing(const char *path)
{
    struct stat st;
    char *real = NULL, *dir;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!lstat(path, &st)) {
        err_set(ERR_DATA, "%s: a symbolic link that leads nowhere", path);
        return NULL;
    }
    if (!*name) {
        err_set(ERR_ABSENT, "%s: no such file", path);
        return NULL;
    }
    char *up = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    dir = up ? realpath(up, NULL) : NULL;
    if (!dir || asprintf(&real, "%s/%s", strcmp(dir, "/") ? dir : "", name) < 0) {
        err_system("%s", path);
        real = NULL;
    }
    free(up);
    free(dir);
    return real;
}

int store_resolve(StoreEnv *e, const char *path, bool may_miss)
{
    *e = (StoreEnv){ .dir = -1, .fd = -1, .old = -1, .page = (size_t)sysconf(_SC_PAGESIZE) };
    bool there = (e->real = realpath(path, NULL));
    if (!there && (!may_miss || errno != ENOENT))
        return errno == ENOENT ? 1 : err_system("%s", path);
    if (!there && !(e->real = real_of_missing(path)))
        return -1;
    e->path = strdup(path);
    char *dir = e->path ? strdup(e->real) : NULL;
    if (!dir) {
        free(e->real);
        free(e->path);
        *e = (StoreEnv){ 0 };
        return err_set(ERR_MEMORY, "%s: out of memory", path);
    }
    dir[store_name(e) - e->real] = 0;
    e->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (e->dir < 0)
        err_system("%s", path);
    free(dir);
    return e->dir < 0 ? -1 : !there;
}

/* Opens the file as far as it is possible without LMDB. 1: another has come in its place meanwhile. */
static int open_file(StoreEnv *e, const char *what)
{
    struct stat st;
    pid_t holder;
    if (fstatat(e->dir, store_name(e), &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 1 : err_system("%s", e->path);
    if (!S_ISREG(st.st_mode))
        return err_set(ERR_DATA, "%s: not a %s but %s", e->path, what, S_ISDIR(st.st_mode) ? "a directory" : "a special file");
    /* A pipe that has come in its place must not hang us. */
    e->fd = openat(e->dir, store_name(e), (e->write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (e->fd < 0)
        return errno == ENOENT ? 1 : err_system("%s", e->path);
    int rc = claim_lock(e->fd, CLAIM_USE, false, STORE_WAIT_MS, e->path, &holder);
    if (rc > 0)
        return err_set(ERR_BUSY, "%s: %s is about to replace it", e->path, claim_process(holder));
    if (rc)
        return rc;
    /* From here on nobody who asks for that lock puts another file or another lock file in place of these. */
    if (!store_is_named(e, store_name(e), e->fd) || fstat(e->fd, &st))
        return 1;
    if (!st.st_size)
        return err_set(ERR_DATA, "%s: not a %s: the file is empty", e->path, what);
    if (pages_check_head(e->fd, e->path, what))
        return -1;
    if (e->write && st.st_nlink > 1)
        return err_set(ERR_DATA, "%s: has %lu names (hard links), and LMDB has a lock for each: remove the others, or copy it",
                       e->path, (unsigned long)st.st_nlink);
    e->map = ((size_t)st.st_size + store_map_reserve + 0xffff) & ~(size_t)0xffff;
    return 0;
}

/* Take `mine`, which does not go together with another's `other`; who is there only for a moment is waited for. 0; 1: he
 * stays; or -1. */
static int take_if_none(const StoreEnv *e, ClaimPart mine, ClaimPart other, pid_t *holder)
{
    enum { NAP_MS = 5 };
    for (int ms = 0;; ms += NAP_MS) {
        int rc = claim_lock(e->fd, mine, false, 0, e->path, holder);
        if (rc || !claim_seen(e->fd, other, holder))
            return rc;
        claim_unlock(e->fd, mine);
        if (ms >= CLAIM_PATIENCE_MS)
            return 1;
        usleep(NAP_MS * 1000);
    }
}

/* Read without LMDB's lock file: safe as long as nobody writes. */
static int read_bare(const StoreEnv *e)
{
    pid_t holder;
    int rc = take_if_none(e, CLAIM_BARE, CLAIM_CHANGE, &holder);
    return rc <= 0 ? rc : err_set(ERR_BUSY, "%s: %s writes it; until that ends it can be read only by who may write %s-lock, "
                                  "and under the file's only name", e->path, claim_process(holder), e->path);
}

static int change(const StoreEnv *e)
{
    pid_t holder;
    int rc = take_if_none(e, CLAIM_CHANGE, CLAIM_BARE, &holder);
    return rc <= 0 ? rc : err_set(ERR_BUSY, "%s: %s reads it without right to write %s-lock: wait until it ends", e->path,
                                  claim_process(holder), e->path);
}

static bool has_names(const StoreEnv *e)
{
    struct stat st;
    return !fstat(e->fd, &st) && st.st_nlink > 1;
}

/* Whether LMDB may open the lock file: not what somebody has planted there. */
static int check_lock_file(const StoreEnv *e)
{
    struct stat st;
    char *name;
    if (asprintf(&name, "%s-lock", store_name(e)) < 0)
        return err_set(ERR_MEMORY, "%s: out of memory", e->path);
    bool bad = !fstatat(e->dir, name, &st, AT_SYMLINK_NOFOLLOW) && !S_ISREG(st.st_mode);
    free(name);
    return bad ? err_set(ERR_DATA, "%s-lock: not a regular file: remove it", e->path) : 0;
}

/* The pages were sound when the file was opened. */
static void on_assert(MDB_env *mdb, const char *what)
{
    const StoreEnv *e = mdb_env_get_userctx(mdb);
    (void)what;
    fault_end(e->path);
}

static int call_lmdb(StoreEnv *e, const char *path, unsigned flags)
{
    for (;;) {
        int rc = mdb_env_create(&e->mdb);
        if (rc)
            return store_error(e, rc);
        mdb_env_set_userctx(e->mdb, e);
        mdb_env_set_assert(e->mdb, on_assert);
        mdb_env_set_maxdbs(e->mdb, 8);
        mdb_env_set_maxreaders(e->mdb, 1022);
        mdb_env_set_mapsize(e->mdb, e->map);
        rc = mdb_env_open(e->mdb, path, flags, 0666);
        if (!rc)
            return 0;
        mdb_env_close(e->mdb);
        e->mdb = NULL;
        if ((rc == ENOMEM || rc == EINVAL) && e->map > (size_t)1 << 24) {
            e->map = (e->map / 2 + 0xffff) & ~(size_t)0xffff; /* a limit on address space; valgrind says EINVAL */
        } else if ((rc == EACCES || rc == EROFS) && !e->write && !(flags & MDB_NOLOCK)) {
            flags |= MDB_NOLOCK; /* somebody else's folder */
            if (read_bare(e))
                return -1;
        } else if (rc == EACCES) { /* the file itself could be opened */
            errno = rc;
            return err_system("%s-lock, LMDB's lock", e->path);
        } else {
            return store_error(e, rc);
        }
    }
}

/* A fresh file is opened twice. */
static int watch(StoreEnv *e)
{
    if (e->watch.bytes)
        return 0;
    e->watch.bytes = malloc(FAULT_PAGES * e->page);
    if (!e->watch.bytes)
        return err_set(ERR_MEMORY, "%s: out of memory", e->path);
    e->watch.path = e->path;
    e->watch.fd = e->fd;
    e->watch.page = e->page;
    fault_watch(&e->watch);
    return 0;
}

int store_open_env(StoreEnv *e)
{
    int fd, dead;
    char *fresh = NULL;
    MDB_stat stat;
    unsigned flags = MDB_NOSUBDIR | MDB_NOTLS | (e->write ? 0 : MDB_RDONLY);
    fault_guard();
    if (e->fresh) {
        flags |= MDB_NOLOCK; /* nobody else knows it */
        if (asprintf(&fresh, "%.*s%s", (int)(store_name(e) - e->real), e->real, e->fresh) < 0)
            return err_set(ERR_MEMORY, "%s: out of memory", e->path);
    } else if (!e->write && has_names(e)) {
        flags |= MDB_NOLOCK; /* a lock file beside this name would tell nobody */
        if (read_bare(e))
            return -1;
    } else if (check_lock_file(e) || (e->write && change(e))) {
        return -1;
    }
    int rc = call_lmdb(e, fresh ? fresh : e->real, flags);
    free(fresh);
    if (rc)
        return rc;
    if (mdb_env_get_fd(e->mdb, &fd) || !store_is_named(e, e->fresh ? e->fresh : store_name(e), fd) ||
        !store_is_named(e, e->fresh ? e->fresh : store_name(e), e->fd))
        return 1;
    mdb_env_stat(e->mdb, &stat);
    e->page = stat.ms_psize;
    e->sound = e->sound || e->fresh;
    if (watch(e))
        return -1;
    mdb_reader_check(e->mdb, &dead); /* readers that were killed would keep old pages from being used again */
    return 0;
}

int store_claim(StoreEnv *e, const char *doing)
{
    pid_t holder;
    int rc = claim_lock(e->fd, CLAIM_WORK, true, 0, e->path, &holder);
    return rc <= 0 ? rc : err_set(ERR_BUSY, "%s: %s %s it: wait until that ends", e->path, claim_process(holder), doing);
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

int store_open(StoreEnv *e, const char *path, StoreMode mode, const char *what, const char *skip)
{
    for (int i = 0;; i++) {
        int rc = store_resolve(e, path, false);
        if (rc > 0) {
            store_close(e);
            return err_set(ERR_ABSENT, "%s: no such %s", path, what);
        }
        e->write = mode == STORE_WRITE;
        rc = rc ? rc : open_file(e, what);
        rc = rc ? rc : store_open_env(e);
        rc = rc ? rc : check(e, skip);
        e->sound = !rc;
        if (!rc)
            return 0;
        store_close(e);
        if (rc < 0)
            return rc;
        if (i == 100)
            return err_set(ERR_BUSY, "%s: is replaced too fast to be opened", path);
    }
}

void store_close(StoreEnv *e)
{
    fault_unwatch(&e->watch);
    free(e->watch.bytes);
    if (e->mdb)
        mdb_env_close(e->mdb);
    if (e->path) {
        if (e->fresh)
            unlinkat(e->dir, e->fresh, 0);
        const int fds[] = { e->fd, e->old, e->dir };
        for (int i = 0; i < 3; i++)
            if (fds[i] >= 0)
                close(fds[i]);
    }
    free(e->fresh);
    free(e->path);
    free(e->real);
    *e = (StoreEnv){ 0 };
}

/* What is written to a file that has left its place is lost to those who look there, and readers under its new name would
 * not be known to us. */
static int check_place(const StoreEnv *e)
{
    if (store_is_named(e, e->fresh ? e->fresh : store_name(e), e->fd))
        return 0;
    return err_set(ERR_STORE, "%s: was removed, moved or replaced while it is written to", e->path);
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

static int changed(const StoreEnv *e)
{
    return err_set(ERR_STORE, "%s: %s", e->path, fault_text);
}

/* LMDB takes the last transaction's number from its lock file, and all else from the file. Where the file has not
 * got that transaction, a writer was faster than we; or somebody copied another over it, and then it never has. */
static int begin(StoreEnv *e, unsigned flags, MDB_txn **txn)
{
    for (int i = 0; i < 100; i++) {
        int rc = mdb_txn_begin(e->mdb, NULL, flags, txn);
        if (rc == MDB_MAP_RESIZED) {
            if (resize(e, 0))
                return -1;
            rc = mdb_txn_begin(e->mdb, NULL, flags, txn);
        }
        if (rc)
            return store_error(e, rc);
        if (pages_pin(e, mdb_txn_id(*txn) - (flags & MDB_RDONLY ? 0 : 1), !e->readers))
            return 0;
        mdb_txn_abort(*txn);
        *txn = NULL;
        usleep(1000);
    }
    return changed(e);
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
    if (!--e->readers)
        atomic_store(&e->watch.active, false);
    mdb_txn_abort(txn);
}

int store_keep_dbs(StoreEnv *e, MDB_txn *txn)
{
    if (!--e->readers)
        atomic_store(&e->watch.active, false);
    int rc = mdb_txn_commit(txn);
    return rc ? store_error(e, rc) : 0;
}

int store_intact(const StoreEnv *e, bool quick)
{
    return fault_same(&e->watch, quick ? 1 : FAULT_PAGES) ? 0 : changed(e);
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
        if (check_place(e)) {
            mdb_txn_abort(*txn);
            *txn = NULL;
            return -1;
        }
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
    if (!e->readers)
        atomic_store(&e->watch.active, false); /* the page is free now */
    uint64_t id = mdb_txn_id(txn);
    int rc = mdb_txn_commit(txn);
    if (rc)
        return store_error(e, rc);
    if (!e->readers) {
        pages_pin(e, id, true); /* unless another writer was faster */
        atomic_store(&e->watch.active, false);
    }
    return check_place(e);
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

int store_header_parse(const StoreEnv *e, const void *bytes, size_t n, const char kind[8], uint32_t newest,
                       const char *what, StoreHeader *h)
{
    *h = (StoreHeader){ 0 };
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

int store_header_get(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, const char kind[8], uint32_t newest, const char *what,
                     StoreHeader *h)
{
    const void *bytes = NULL;
    size_t n = 0;
    MDB_val key = { 6, (void *)"header" };
    int rc = sealed_get(e, txn, dbi, &key, &bytes, &n);
    return rc ? rc : store_header_parse(e, bytes, n, kind, newest, what, h);
}
