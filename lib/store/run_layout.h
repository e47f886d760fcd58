/* What the files of a run's code share; the layout is at the heads of run.c, checkpoint.c
 * and quarantine.c. Private to lib/store. */
#ifndef HSSL_RUN_LAYOUT_H
#define HSSL_RUN_LAYOUT_H

#include "store/env.h"
#include "store/run.h"

#include <pthread.h>

#define RUN_KIND "HSSLRUN"
enum { RUN_VERSION = 1 };

struct Run {
    StoreEnv env;
    MDB_dbi facts, log, checkpoints, tensors;
    pthread_mutex_t lock;
    char *config;
    char *pending; /* log lines not yet committed */
    size_t pending_size;
    double flushed;
    MDB_dbi bad, bad_bytes; /* has_bad: they are open; a run of an older program has none */
    bool has_bad, bad_counted;
    uint64_t bad_kept; /* bytes that the quarantine holds; bad_counted: it is known */
};

int run_flush_locked(Run *run);
/* Open the quarantine's databases. 0, MDB_NOTFOUND or -1. The caller sets has_bad when he has committed. */
int run_open_bad(Run *run, MDB_txn *txn, unsigned flags);

#endif
