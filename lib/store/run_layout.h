/* What the files of a run's code share; the layout is at the heads of run.c and checkpoint.c. Private to lib/store. */
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
};

int run_flush_locked(Run *run);

#endif
