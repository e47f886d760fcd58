#include "store/kind.h"

#include "store/env.h"
#include "store/pickle.h"
#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static FileKind kind_of_store(const char *path)
{
    StoreEnv e;
    MDB_txn *txn;
    MDB_dbi dbi;
    FileKind kind = KIND_UNKNOWN;
    if (store_open(&e, path, STORE_READ, "dataset or run", "names"))
        return KIND_UNKNOWN;
    if (!store_begin_read(&e, &txn)) {
        if (!mdb_dbi_open(txn, "images", MDB_INTEGERKEY, &dbi))
            kind = KIND_DATASET;
        else if (!mdb_dbi_open(txn, "checkpoints", MDB_INTEGERKEY, &dbi))
            kind = KIND_RUN;
        else
            err_set(ERR_DATA, "%s: an LMDB file, but neither a dataset nor a run", path);
        store_end_read(&e, txn);
    }
    store_close(&e);
    return kind;
}

FileKind kind_of_file(const char *path)
{
    unsigned char head[PICKLE_HEAD] = { 0 };
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st)) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        errno = why;
        if (why == ENOENT)
            err_set(ERR_ABSENT, "%s: no such file", path);
        else
            err_system("%s", path);
        return KIND_UNKNOWN;
    }
    ssize_t n = S_ISREG(st.st_mode) ? read(fd, head, sizeof head) : 0;
    close(fd);
    if (!S_ISREG(st.st_mode)) {
        err_set(ERR_DATA, "%s: %s", path, S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
        return KIND_UNKNOWN;
    }
    if (n >= 5 && !memcmp(head, "hssl/", 5))
        return KIND_TICKET;
    if (n >= 20 && load32(head + 16) == 0xBEEFC0DEu)
        return kind_of_store(path);
    if (n >= 10 && load64(head) < 100000000 && head[8] == '{')
        return KIND_SAFETENSORS;
    if (!pickle_refuse(path, head, n > 0 ? (size_t)n : 0))
        err_set(ERR_DATA, "%s: neither a dataset, a run, a safetensors file nor a ticket", path);
    return KIND_UNKNOWN;
}
