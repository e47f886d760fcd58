/* New files. One is made under a fresh name in the folder it is for, claimed before anything is written to it, and takes its
 * place by rename when it is whole enough: so the place never has half a file, of two who make one at once one wins, and
 * an old file stays as it was until then.
 *
 * The fresh name is that of the target with a dot before and ".hssl-new" behind it. Who makes one holds its claim; so one
 * that is not claimed was left by a process that was killed, and is removed. Only the holder of that claim takes the
 * target's place, hence what he has found there stays true.
 *
 * An old file's place is taken while nobody has it open. Then nobody has its lock file open either, and LMDB makes one that
 * it is the first to open anew: a lock file serves no two files, and a file has no two. */
#include "store/env.h"

#include "store/claim.h"
#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 1000, NAP_US = 1000 };

/* 1: the name was somebody else's for a moment, try again. */
static int take_name(StoreEnv *e, const char *name)
{
    struct stat st;
    pid_t holder;
    int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    int fd = openat(e->dir, name, flags | O_CREAT | O_EXCL, 0666);
    bool made = fd >= 0;
    if (!made && errno == EEXIST)
        fd = openat(e->dir, name, flags);
    bool link = fd < 0 && errno == ELOOP;
    if (fd < 0 && !link)
        return errno == ENOENT ? 1 : err_system("%s: %s", e->path, name);
    e->fd = fd;
    if (!link && fstat(fd, &st))
        return err_system("%s", e->path);
    if (link || !S_ISREG(st.st_mode))
        return err_set(ERR_DATA, "%s: %s is in its way: remove that", e->path, name);
    int rc = claim_lock(fd, CLAIM_WORK, true, 0, e->path, &holder);
    if (rc > 0 && !made && store_is_named(e, name, fd))
        return err_set(ERR_BUSY, "%s: %s is making it", e->path, claim_process(holder));
    if (rc)
        return rc;
    if (!store_is_named(e, name, fd))
        return 1;
    if (!made) {
        unlinkat(e->dir, name, 0);
        return 1;
    }
    /* Nobody shall have it open before it is in its place. */
    rc = claim_lock(fd, CLAIM_USE, true, 0, e->path, &holder);
    e->fresh = rc ? NULL : strdup(name);
    if (!e->fresh)
        unlinkat(e->dir, name, 0);
    return rc || e->fresh ? rc : err_set(ERR_MEMORY, "%s: out of memory", e->path);
}

static int take_fresh(StoreEnv *e)
{
    char *name;
    int rc = 1;
    if (asprintf(&name, ".%s.hssl-new", store_name(e)) < 0)
        return err_set(ERR_MEMORY, "%s: out of memory", e->path);
    for (int i = 0; rc > 0 && i < TRIES; i++) {
        if (e->fd >= 0) {
            close(e->fd);
            e->fd = -1;
            usleep(NAP_US);
        }
        rc = take_name(e, name);
    }
    free(name);
    return rc <= 0 ? rc : err_set(ERR_BUSY, "%s: others are making it", e->path);
}

/* Whether the old file is one that may go. */
static int check_kind(const char *path, const char *what, const char *mark)
{
    StoreEnv old;
    MDB_txn *txn = NULL;
    MDB_dbi dbi;
    int rc = store_open(&old, path, STORE_READ, what, NULL);
    if (!rc) {
        rc = store_begin_read(&old, &txn);
        if (!rc && mdb_dbi_open(txn, mark, 0, &dbi))
            rc = err_set(ERR_DATA, "%s: not a %s", path, what);
        store_end_read(&old, txn);
        store_close(&old);
    }
    return rc ? err_set(err_code(), "%s; it is not replaced", err_text()) : 0;
}

/* Nobody may have the old file open, from now on until it is unlocked. */
static int shut_out(StoreEnv *e)
{
    pid_t holder;
    int rc = claim_lock(e->old, CLAIM_USE, true, CLAIM_PATIENCE_MS, e->path, &holder);
    if (rc > 0)
        return err_set(ERR_BUSY, "%s: %s uses it: stop that first, or name another file", e->path, claim_process(holder));
    return rc;
}

/* 1: there is a file that may go, as far as can be seen from outside; 0: there is none. */
static int may_replace(const StoreEnv *e, const char *what, bool force)
{
    struct stat st;
    if (fstatat(e->dir, store_name(e), &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : err_system("%s", e->path);
    if (!S_ISREG(st.st_mode))
        return err_set(ERR_DATA, "%s: not a %s but %s", e->path, what, S_ISDIR(st.st_mode) ? "a directory" : "a special file");
    if (!st.st_size || force)
        return 1;
    if (claim_held(e->path) && claim_check_free(e->path))
        return -1;
    return err_set(ERR_EXISTS, "%s: exists already", e->path);
}

/* Take hold of what is there under the name already. 1: it has changed while it was looked at. */
static int look_at_old(StoreEnv *e, const char *what, const char *mark, bool force)
{
    struct stat st;
    pid_t holder;
    if (e->old >= 0)
        close(e->old);
    e->old = -1;
    int there = may_replace(e, what, force);
    if (there <= 0)
        return there;
    e->old = openat(e->dir, store_name(e), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (e->old < 0)
        return errno == ENOENT ? 1 : err_system("%s", e->path);
    int rc = claim_lock(e->old, CLAIM_WORK, true, 0, e->path, &holder);
    if (rc > 0)
        return err_set(ERR_BUSY, "%s: %s uses it: stop that first, or name another file", e->path, claim_process(holder));
    if (rc)
        return rc;
    if (!store_is_named(e, store_name(e), e->old) || fstat(e->old, &st))
        return 1;
    if (!st.st_size)
        return 0;
    if (!force)
        return 1;
    if (check_kind(e->path, what, mark) || shut_out(e))
        return -1;
    claim_unlock(e->old, CLAIM_USE); /* it may be read until the new one is there */
    return 0;
}

int store_create(StoreEnv *e, const char *path, const char *what, const char *mark, bool force)
{
    int rc = store_resolve(e, path, true);
    e->write = true;
    e->map = (store_map_reserve + 0xffff) & ~(size_t)0xffff;
    if (rc >= 0)
        rc = may_replace(e, what, force) < 0 ? -1 : 0; /* before a file is made beside /dev/null */
    if (!rc)
        rc = take_fresh(e);
    for (int i = 0; !rc && (rc = look_at_old(e, what, mark, force)) > 0; rc = 0)
        if (i++ == TRIES)
            rc = err_set(ERR_BUSY, "%s: is replaced again and again", path);
    rc = rc ? rc : store_open_env(e);
    if (!rc)
        return 0;
    if (rc > 0)
        err_set(ERR_BUSY, "%s: somebody moved it while it was made", path);
    store_close(e);
    return -1;
}

/* A rename that does not replace; a link where the file system can't do that. */
static int rename_new(StoreEnv *e)
{
    int rc = renameat2(e->dir, e->fresh, e->dir, store_name(e), RENAME_NOREPLACE);
    if (rc && (errno == EINVAL || errno == ENOSYS)) {
        rc = linkat(e->dir, e->fresh, e->dir, store_name(e), 0);
        if (!rc)
            unlinkat(e->dir, e->fresh, 0);
    }
    if (rc && errno == EEXIST)
        return err_set(ERR_EXISTS, "%s: was made by somebody else meanwhile", e->path);
    return rc ? err_system("%s", e->path) : 0;
}

static int rename_over(StoreEnv *e)
{
    if (shut_out(e))
        return -1;
    if (!store_is_named(e, store_name(e), e->old))
        return err_set(ERR_BUSY, "%s: was removed, moved or replaced meanwhile", e->path);
    return renameat(e->dir, e->fresh, e->dir, store_name(e)) ? err_system("%s", e->path) : 0;
}

static int take_place(StoreEnv *e)
{
    char *lock;
    if (!store_is_named(e, e->fresh, e->fd))
        return err_set(ERR_BUSY, "%s: somebody removed it while it was made", e->path);
    if (asprintf(&lock, "%s-lock", store_name(e)) < 0)
        return err_set(ERR_MEMORY, "%s: out of memory", e->path);
    int rc = e->old < 0 ? rename_new(e) : rename_over(e);
    if (!rc) {
        unlinkat(e->dir, lock, 0);
        free(e->fresh);
        e->fresh = NULL;
    }
    free(lock);
    return rc;
}

int store_publish(StoreEnv *e)
{
    pid_t holder;
    mdb_env_close(e->mdb);
    e->mdb = NULL;
    int rc = take_place(e);
    rc = rc ? rc : store_open_env(e);
    if (rc > 0)
        return err_set(ERR_BUSY, "%s: somebody replaced it at once", e->path);
    if (rc || claim_lock(e->fd, CLAIM_USE, false, 0, e->path, &holder)) /* others may come now */
        return -1;
    if (e->old >= 0)
        close(e->old);
    e->old = -1;
    return 0;
}
