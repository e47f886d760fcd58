/* One LMDB file of ours: opening it with care, transactions, growth of its map. Private to lib/store.
 *
 * The map is address space, not disk space: it is chosen large, and grown where even that is too small. */
#ifndef HSSL_STORE_ENV_H
#define HSSL_STORE_ENV_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    MDB_env *mdb;
    char *path;
    bool write;
    int readers; /* read transactions of this process: the map can't move while there are any */
    size_t map, page;
} StoreEnv;

typedef enum { STORE_READ, STORE_WRITE, STORE_CREATE } StoreMode;

/* Address space for a file's map beyond its size. The tests make it small. */
extern size_t store_map_reserve;

/* Open `path`, which should be a `what` ("dataset", "run"). STORE_CREATE: the file must not exist, or be empty.
 * Its pages are checked first (pages.h), all of them but those of the named database `skip`. */
int store_open(StoreEnv *e, const char *path, StoreMode mode, const char *what, const char *skip);
void store_close(StoreEnv *e);
/* Instead of store_close, where what STORE_CREATE opened could not be given its first contents: the file goes away,
 * so that nothing half made is left. A file in which somebody has stored something meanwhile stays. */
void store_undo_create(StoreEnv *e);

/* A read transaction; end it with store_end_read. */
int store_begin_read(StoreEnv *e, MDB_txn **txn);
void store_end_read(StoreEnv *e, MDB_txn *txn);
/* A write transaction with room for at least `need` more bytes of pages. */
int store_begin_write(StoreEnv *e, size_t need, MDB_txn **txn);
/* mdb_txn_commit as 0 or -1. */
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

/* Little-endian numbers at any address. */
uint64_t load64(const void *p);
uint32_t load32(const void *p);
uint16_t load16(const void *p);
void store64(void *p, uint64_t x);
void store32(void *p, uint32_t x);
void store16(void *p, uint16_t x);

#endif
