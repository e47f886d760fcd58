/* A run's databases:
 *
 *  facts        "header" -> sealed: "HSSLRUN\0", version (4)
 *               "config" -> sealed: JSON;  "fact/KEY" -> sealed: text
 *  log          number (8), from 0 -> sealed: one JSON object
 *  checkpoints  step (8) -> sealed: number of its tensors (8), bytes of their data (8), JSON
 *  tensors      step, 16 hexadecimal digits, "/", name -> tensor (checkpoint.c)
 *  bad, bad_bytes  id of an image (8) -> what is known of it; its bytes (quarantine.c)
 *
 * sealed: behind the XXH3-64 of what follows (8). All numbers are little-endian. */
#include "store/run.h"

#include "store/run_layout.h"
#include "util/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SMALL_WRITE = 1 << 20, KEY_MAX = 400, PENDING_MAX = 1 << 20, LINES_MOST = 1 << 18 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int open_dbs(Run *run, MDB_txn *txn, unsigned flags)
{
    int rc = mdb_dbi_open(txn, "facts", flags, &run->facts);
    rc = rc ? rc : mdb_dbi_open(txn, "log", flags | MDB_INTEGERKEY, &run->log);
    rc = rc ? rc : mdb_dbi_open(txn, "checkpoints", flags | MDB_INTEGERKEY, &run->checkpoints);
    rc = rc ? rc : mdb_dbi_open(txn, "tensors", flags, &run->tensors);
    if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
        return err_set(ERR_DATA, "%s: not a run", run->env.path);
    return rc ? store_error(&run->env, rc) : 0;
}

static Run *run_new(const char *path)
{
    Run *run = calloc(1, sizeof *run);
    if (run)
        pthread_mutex_init(&run->lock, NULL);
    else
        err_set(ERR_MEMORY, "%s: out of memory", path);
    return run;
}

static void run_free(Run *run)
{
    store_close(&run->env);
    pthread_mutex_destroy(&run->lock);
    free(run->config);
    free(run->pending);
    free(run);
}

/* malloc'd text of a sealed value; NULL with ERR_ABSENT where there is none. */
static char *get_text(Run *run, MDB_txn *txn, const char *name)
{
    const void *bytes = NULL;
    size_t n = 0;
    MDB_val k = { strlen(name), (void *)name };
    int rc = sealed_get(&run->env, txn, run->facts, &k, &bytes, &n);
    if (rc == MDB_NOTFOUND)
        err_set(ERR_ABSENT, "%s: no %s", run->env.path, name);
    if (rc)
        return NULL;
    char *text = malloc(n + 1);
    if (!text) {
        err_set(ERR_MEMORY, "%s: no memory for %zu bytes", run->env.path, n);
        return NULL;
    }
    memcpy(text, bytes, n);
    text[n] = 0;
    return text;
}

/* What is known of an open file: its databases, its configuration. */
static int attach(Run *run)
{
    MDB_txn *txn = NULL;
    StoreHeader head;
    if (store_begin_read(&run->env, &txn) || open_dbs(run, txn, 0))
        goto fail;
    int rc = store_header_get(&run->env, txn, run->facts, RUN_KIND, RUN_VERSION, "run", &head);
    if (rc == MDB_NOTFOUND)
        err_set(ERR_DATA, "%s: not a run: no header", run->env.path);
    if (rc)
        goto fail;
    run->config = get_text(run, txn, "config");
    if (!run->config)
        goto fail;
    int bad = run_open_bad(run, txn, 0);
    if (bad == -1)
        goto fail;
    /* Committing keeps the database handles; ending it otherwise would close them. */
    rc = store_keep_dbs(&run->env, txn);
    run->has_bad = !rc && !bad;
    return rc;
fail:
    store_end_read(&run->env, txn);
    return -1;
}

static int fact_name(const char *key, char *name, size_t size)
{
    if (!*key || strlen(key) > KEY_MAX)
        return err_set(ERR_USAGE, "a key of %zu bytes; 1 to %d are possible", strlen(key), KEY_MAX);
    snprintf(name, size, "fact/%s", key);
    return 0;
}

/* The configuration, and a fact or none (key NULL), in one transaction; first: that which makes the run. */
static int put_settings(Run *run, bool first, const char *config_json, const char *key, const char *text)
{
    char name[KEY_MAX + 8];
    MDB_txn *txn;
    MDB_val config = { 6, (void *)"config" };
    if ((key && fact_name(key, name, sizeof name)) ||
        store_begin_write(&run->env, SMALL_WRITE + strlen(config_json) + (key ? strlen(text) : 0), &txn))
        return -1;
    MDB_val fact = { key ? strlen(name) : 0, name };
    const StoreHeader head = { .version = RUN_VERSION };
    if ((first && (open_dbs(run, txn, MDB_CREATE) || run_open_bad(run, txn, MDB_CREATE) ||
                   store_header_put(&run->env, txn, run->facts, RUN_KIND, &head))) ||
        sealed_put(&run->env, txn, run->facts, &config, config_json, strlen(config_json)) ||
        (key && sealed_put(&run->env, txn, run->facts, &fact, text, strlen(text)))) {
        mdb_txn_abort(txn);
        return -1;
    }
    return store_commit(&run->env, txn);
}

Run *run_create_with(const char *path, const char *config_json, const char *key, const char *text, bool force)
{
    Run *run = run_new(path);
    if (!run)
        return NULL;
    if (!store_create(&run->env, path, "run", "checkpoints", force) &&
        !put_settings(run, true, config_json, key, text) && !store_publish(&run->env) && !attach(run))
        return run;
    run_free(run);
    return NULL;
}

Run *run_create(const char *path, const char *config_json, bool force)
{
    return run_create_with(path, config_json, NULL, NULL, force);
}

Run *run_open(const char *path, bool write)
{
    Run *run = run_new(path);
    if (!run)
        return NULL;
    if (!store_open(&run->env, path, write ? STORE_WRITE : STORE_READ, "run", NULL) && !attach(run))
        return run;
    run_free(run);
    return NULL;
}

int run_claim(Run *run)
{
    return store_claim(&run->env, "trains");
}

int run_close(Run *run)
{
    if (!run)
        return 0;
    int rc = run->env.write ? run_flush(run) : 0;
    run_free(run);
    return rc;
}

const char *run_path(const Run *run)
{
    return run->env.path;
}

const char *run_config(const Run *run)
{
    return run->config;
}

int run_set(Run *run, const char *key, const char *text)
{
    char name[KEY_MAX + 8];
    MDB_txn *txn;
    int rc = -1;
    if (fact_name(key, name, sizeof name))
        return -1;
    MDB_val k = { strlen(name), name };
    pthread_mutex_lock(&run->lock);
    if (store_begin_write(&run->env, SMALL_WRITE + (text ? strlen(text) : 0), &txn))
        goto out;
    if (text) {
        rc = sealed_put(&run->env, txn, run->facts, &k, text, strlen(text));
    } else {
        rc = mdb_del(txn, run->facts, &k, NULL);
        rc = rc && rc != MDB_NOTFOUND ? store_error(&run->env, rc) : 0;
    }
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = store_commit(&run->env, txn);
out:
    pthread_mutex_unlock(&run->lock);
    return rc;
}

int run_configure(Run *run, const char *config_json, const char *key, const char *text)
{
    char *config = strdup(config_json);
    if (!config)
        return err_set(ERR_MEMORY, "%s: out of memory", run->env.path);
    pthread_mutex_lock(&run->lock);
    int rc = put_settings(run, false, config, key, text);
    if (!rc) {
        char *before = run->config;
        run->config = config;
        config = before;
    }
    pthread_mutex_unlock(&run->lock);
    free(config);
    return rc;
}

char *run_get(Run *run, const char *key)
{
    char name[KEY_MAX + 8], *text = NULL;
    MDB_txn *txn;
    if (fact_name(key, name, sizeof name))
        return NULL;
    pthread_mutex_lock(&run->lock);
    if (!store_begin_read(&run->env, &txn)) {
        text = get_text(run, txn, name);
        store_end_read(&run->env, txn);
    }
    pthread_mutex_unlock(&run->lock);
    return text;
}

/* ---------------------------------------------------------------- log */

static int log_next(Run *run, MDB_txn *txn, uint64_t *next)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, run->log, &cursor);
    if (rc)
        return store_error(&run->env, rc);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
    *next = rc ? 0 : load64(k.mv_data) + 1;
    mdb_cursor_close(cursor);
    return rc && rc != MDB_NOTFOUND ? store_error(&run->env, rc) : 0;
}

/* Lines wait in `pending`, each ended by a zero byte. */
int run_flush_locked(Run *run)
{
    MDB_txn *txn;
    uint64_t number;
    if (!run->pending_size)
        return 0;
    if (store_begin_write(&run->env, SMALL_WRITE + 16 * run->pending_size + 64 * run->env.page, &txn))
        return -1;
    if (log_next(run, txn, &number))
        goto fail;
    for (size_t at = 0; at < run->pending_size; at += strlen(run->pending + at) + 1, number++) {
        MDB_val k = { sizeof number, &number };
        if (sealed_put(&run->env, txn, run->log, &k, run->pending + at, strlen(run->pending + at)))
            goto fail;
    }
    if (store_commit(&run->env, txn))
        return -1;
    run->pending_size = 0;
    run->flushed = seconds();
    return 0;
fail:
    mdb_txn_abort(txn);
    return -1;
}

int run_flush(Run *run)
{
    pthread_mutex_lock(&run->lock);
    int rc = run_flush_locked(run);
    pthread_mutex_unlock(&run->lock);
    return rc;
}

int run_log(Run *run, const char *line)
{
    size_t n = strlen(line) + 1;
    int rc = 0;
    if (!run->env.write)
        return err_set(ERR_USAGE, "%s: opened for reading only", run->env.path);
    if (line[0] != '{' || strchr(line, '\n'))
        return err_set(ERR_USAGE, "%s: a line of the log is one JSON object", run->env.path);
    pthread_mutex_lock(&run->lock);
    char *grown = realloc(run->pending, run->pending_size + n);
    if (grown) {
        run->pending = grown;
        memcpy(run->pending + run->pending_size, line, n);
        run->pending_size += n;
        if (seconds() - run->flushed >= 1 || run->pending_size > PENDING_MAX)
            rc = run_flush_locked(run);
    } else {
        rc = err_set(ERR_MEMORY, "%s: no memory for %zu bytes of log", run->env.path, n);
    }
    pthread_mutex_unlock(&run->lock);
    return rc;
}

int64_t run_log_count(Run *run)
{
    MDB_txn *txn;
    uint64_t next;
    int64_t count = -1;
    pthread_mutex_lock(&run->lock);
    if (!store_begin_read(&run->env, &txn)) {
        if (!log_next(run, txn, &next))
            count = (int64_t)next;
        store_end_read(&run->env, txn);
    }
    pthread_mutex_unlock(&run->lock);
    return count;
}

typedef struct {
    char *text; /* lines, each behind its number (8) and ended by a zero byte */
    size_t size, room;
    uint64_t next, end; /* numbers: of the line to be read next, behind the last to be read */
} Lines;

static int add_line(Run *run, Lines *l, const MDB_val *k, const MDB_val *v)
{
    const void *bytes = NULL;
    size_t n = 0;
    if (sealed_parse(&run->env, v, &bytes, &n))
        return -1;
    n = strnlen(bytes, n);
    if (l->size + 8 + n + 1 > l->room) {
        size_t room = 2 * l->room + 8 + n + 1;
        char *grown = realloc(l->text, room);
        if (!grown)
            return err_set(ERR_MEMORY, "%s: no memory for %zu bytes of log", run->env.path, room);
        l->text = grown;
        l->room = room;
    }
    memcpy(l->text + l->size, k->mv_data, 8);
    memcpy(l->text + l->size + 8, bytes, n);
    l->text[l->size + 8 + n] = 0;
    l->size += 8 + n + 1;
    l->next = load64(k->mv_data) + 1;
    return 0;
}

/* Reads lines from l->next on, as many as LINES_MOST bytes hold. */
static int fill_lines(Run *run, MDB_txn *txn, Lines *l)
{
    MDB_cursor *cursor;
    MDB_val k = { sizeof l->next, &l->next }, v;
    int rc = mdb_cursor_open(txn, run->log, &cursor), failed = 0;
    if (rc)
        return store_error(&run->env, rc);
    l->size = 0;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (!rc && !failed && load64(k.mv_data) < l->end && l->size < LINES_MOST) {
        failed = add_line(run, l, &k, &v);
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND || (!rc && load64(k.mv_data) >= l->end))
        l->next = l->end;
    return failed || !rc || rc == MDB_NOTFOUND ? failed : store_error(&run->env, rc);
}

static int next_lines(Run *run, Lines *l, int64_t from)
{
    MDB_txn *txn;
    int rc;
    pthread_mutex_lock(&run->lock);
    rc = store_begin_read(&run->env, &txn);
    if (!rc && !l->end && !(rc = log_next(run, txn, &l->end))) /* what comes later is not waited for */
        l->next = from >= 0 ? (uint64_t)from : l->end > -(uint64_t)from ? l->end + (uint64_t)from : 0;
    rc = rc ? rc : fill_lines(run, txn, l);
    store_end_read(&run->env, txn);
    pthread_mutex_unlock(&run->lock);
    return rc;
}

int run_log_each(Run *run, int64_t from, int (*cb)(int64_t, const char *, void *), void *arg)
{
    Lines l = { 0 };
    int rc;
    do {
        rc = next_lines(run, &l, from);
        for (size_t at = 0; !rc && at < l.size; at += 8 + strlen(l.text + at + 8) + 1)
            rc = cb((int64_t)load64(l.text + at), l.text + at + 8, arg);
    } while (!rc && l.next < l.end);
    free(l.text);
    return rc;
}
