/* One LMDB file of ours: opening it with care, making a new one, transactions, growth of its map. Private to lib/store.
 *
 * Whoever opens a file holds locks on it (claim.h), and opens what its path leads to without symbolic links, so that
 * LMDB's lock file is the same one for all.
 *
 * The map is address space, not disk space: it is chosen large, and grown where even that is too small. */
#ifndef HSSL_STORE_ENV_H
#define HSSL_STORE_ENV_H

#include "util/fault.h"

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    MDB_env *mdb;
    char *path; /* as it was given; NULL: nothing is open */
    char *real; /* without symbolic links */
    char *fresh; /* of a new file that is not in its place yet: its name for now, in the same folder; or NULL */
    int dir, fd; /* the folder, and the file, which carries our locks */
    int old;     /* a file whose place the new one takes; -1: there is none */
    bool write;
    int readers; /* read transactions of this process: the map can't move while there are any */
    size_t map, page;
    FaultWatch watch; /* the roots of the snapshot's trees, the main one first: nobody writes there while it is held */
    uint64_t pinned;  /* the transaction that they belong to */
    bool sound;       /* its pages have been checked: what is wrong now has become so since */
} StoreEnv;

typedef enum { STORE_READ, STORE_WRITE } StoreMode;

/* Address space for a file's map beyond its size. The tests make it small. */
extern size_t store_map_reserve;

/* Open `path`, which should be a `what` ("dataset", "run"). Its pages are checked first (pages.h), all of them but
 * those of the named database `skip`. ERR_BUSY: others are in the way. */
int store_open(StoreEnv *e, const char *path, StoreMode mode, const char *what, const char *skip);
/* What is in no other place than its fresh one is removed. */
void store_close(StoreEnv *e);
/* Be the one who works on an open file. doing: for the message of ERR_BUSY, as "trains". */
int store_claim(StoreEnv *e, const char *doing);

/* A new file, open to write and claimed, under a fresh name; nobody else sees it before store_publish. Another file
 * may be there under `path` only if it is empty or, with force, a `what`, which is known by its database `mark`, and
 * nobody uses it; it stays until then, and nobody else can work on it. ERR_EXISTS, ERR_BUSY, ERR_DATA.
 * Until it is published there are no read transactions. */
int store_create(StoreEnv *e, const char *path, const char *what, const char *mark, bool force);
/* Put the new file in its place: all databases have to be opened anew then. On failure nothing is left but to close it. */
int store_publish(StoreEnv *e);

/* ---- between env.c and fresh.c */

enum { STORE_WAIT_MS = 5000 };
/* Path, real path and folder. 0, or -1; 1: there is no such file, which is no error with may_miss. */
int store_resolve(StoreEnv *e, const char *path, bool may_miss);
/* The last part of the real path. */
const char *store_name(const StoreEnv *e);
/* Whether the name, in the file's folder, still is that of fd. */
bool store_is_named(const StoreEnv *e, const char *name, int fd);
/* LMDB's part, with the locks that go with it. 1: another file has come in its place, try again. */
int store_open_env(StoreEnv *e);

/* A read transaction; end it with store_end_read. */
int store_begin_read(StoreEnv *e, MDB_txn **txn);
void store_end_read(StoreEnv *e, MDB_txn *txn);
/* Instead, where databases were opened in it: they stay open. 0 or -1. */
int store_keep_dbs(StoreEnv *e, MDB_txn *txn);
/* While a snapshot is held: 0, or -1 with ERR_STORE where the file was overwritten in place meanwhile, so that what was
 * read since may be anything. quick: only a file of the same shape, with the same number of transactions, passes for it. */
int store_intact(const StoreEnv *e, bool quick);
/* A write transaction with room for at least `need` more bytes of pages. */
int store_begin_write(StoreEnv *e, size_t need, MDB_txn **txn);
/* mdb_txn_commit as 0 or -1; -1 also where the file is not in its place any more. */
int store_commit(StoreEnv *e, MDB_txn *txn);

/* Record LMDB's result rc as this thread's error. Returns -1. */
int store_error(const StoreEnv *e, int rc);

/* Small values carry their own checksum: XXH3-64 of the rest in the first 8 bytes, little-endian. Lookups give 0,
 * MDB_NOTFOUND (nothing recorded) or -1. The value is borrowed from the transaction. */
int sealed_put(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, MDB_val *key, const void *bytes, size_t n);
int sealed_get(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, MDB_val *key, const void **bytes, size_t *n);
int sealed_parse(const StoreEnv *e, const MDB_val *value, const void **bytes, size_t *n);

/* The file's own header: kind of file, version of the format, and numbers that the kind gives a meaning. */
enum { STORE_FIELDS = 16 };
typedef struct {
    uint32_t version;
    size_t n; /* fields there are; the others are 0 */
    uint64_t field[STORE_FIELDS];
} StoreHeader;

int store_header_put(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, const char kind[8], const StoreHeader *h);
/* 0; MDB_NOTFOUND where there is none; -1: another kind, or a newer version than `newest`. */
int store_header_get(StoreEnv *e, MDB_txn *txn, MDB_dbi dbi, const char kind[8], uint32_t newest, const char *what,
                     StoreHeader *h);

/* The same of bytes at hand: 0 or -1. */
int store_header_parse(const StoreEnv *e, const void *bytes, size_t n, const char kind[8], uint32_t newest,
                       const char *what, StoreHeader *h);

/* Little-endian numbers at any address. */
uint64_t load64(const void *p);
uint32_t load32(const void *p);
uint16_t load16(const void *p);
void store64(void *p, uint64_t x);
void store32(void *p, uint32_t x);
void store16(void *p, uint16_t x);

#endif
