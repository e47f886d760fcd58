/* What reader and writer of a dataset share; the layout is at the head of dataset.c. Private to lib/store. */
#ifndef HSSL_DATASET_LAYOUT_H
#define HSSL_DATASET_LAYOUT_H

#include "store/env.h"

#define DATASET_KIND "HSSLDATA"
enum { DATASET_VERSION = 1, DATASET_CLASSES_MAX = 1 << 24, RECORD_SEAL = 28, RECORD_HEAD = 32 };

typedef struct {
    MDB_dbi meta, images, names, classes; /* names: for writers only */
} DatasetDbs;

int dataset_open_dbs(StoreEnv *e, MDB_txn *txn, unsigned flags, DatasetDbs *dbs);
int dataset_read_header(StoreEnv *e, MDB_txn *txn, const DatasetDbs *dbs, uint64_t *count, uint64_t *bytes);
uint32_t dataset_record_seal(const unsigned char *record, const char *name, size_t length);
/* In the order of their numbers, which run from 0 without gaps. */
int dataset_each_class(StoreEnv *e, MDB_txn *txn, const DatasetDbs *dbs,
                       int (*cb)(uint64_t number, uint64_t images, const char *name, size_t length, void *arg),
                       void *arg);

#endif
