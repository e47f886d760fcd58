/* What reader and writer of a dataset share; the layout is at the head of dataset.c. Private to lib/store. */
#ifndef HSSL_DATASET_LAYOUT_H
#define HSSL_DATASET_LAYOUT_H

#include "store/dataset.h"
#include "store/env.h"

#define DATASET_KIND "HSSLDATA"
enum { DATASET_VERSION = 2, DATASET_CLASSES_MAX = 1 << 24, RECORD_SEAL = 28, RECORD_HEAD = 32 };
/* Fields of the header. Version 1 has the first two. */
enum { HEAD_IMAGES, HEAD_BYTES, HEAD_DIGEST, HEAD_FLAGS, HEAD_FIELDS };
/* Bits of HEAD_FLAGS that are known: those of the rule, and this one. */
enum { FLAG_NUMBERED = 4, FLAGS_KNOWN = DATASET_RULE | FLAG_NUMBERED };

typedef struct {
    MDB_dbi meta, images, names, classes; /* names: for writers only */
} DatasetDbs;

int dataset_open_dbs(StoreEnv *e, MDB_txn *txn, unsigned flags, DatasetDbs *dbs);
/* Whether this program knows what such a header says. */
int dataset_check_header(const StoreEnv *e, const StoreHeader *h);
int dataset_read_header(StoreEnv *e, MDB_txn *txn, const DatasetDbs *dbs, StoreHeader *h);
uint32_t dataset_record_seal(const unsigned char *record, const char *name, size_t length);
/* rec->label becomes the number of the class, which must be below n_classes. 0, or -1 with ERR_DATA. */
int dataset_parse_record(const char *path, uint64_t id, const MDB_val *v, int64_t n_classes, Record *rec);
/* The digest of a dataset with one more record. Of an empty one it is 0. class_name NULL: none. */
uint64_t dataset_digest_add(uint64_t digest, const Record *rec, uint64_t checksum, const char *class_name);
/* The digest of all records, from their heads. class_name(arg, number) names a class. 0, or -1. */
int dataset_digest_walk(StoreEnv *e, MDB_txn *txn, MDB_dbi images, int64_t n_classes,
                        const char *(*class_name)(const void *arg, int32_t number), const void *arg, uint64_t *digest);
/* In the order of their numbers, which run from 0 without gaps. */
int dataset_each_class(StoreEnv *e, MDB_txn *txn, const DatasetDbs *dbs,
                       int (*cb)(uint64_t number, uint64_t images, const char *name, size_t length, void *arg),
                       void *arg);

#endif
