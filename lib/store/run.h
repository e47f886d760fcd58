/* A run: configuration, log, small facts and checkpoints of one training, in one LMDB file. Format: hssl-run(5).
 *
 * Several processes may have a run open, to read and to write: each call that writes is a transaction of its
 * own. Within a process a file is opened at most once at a time; calls on one Run may come from several threads.
 * A handle does not survive fork(). */
#ifndef HSSL_RUN_H
#define HSSL_RUN_H

#include "store/stored.h"

#include <stdbool.h>

typedef struct Run Run;

/* A new run with its configuration, a JSON object, claimed by this process. An existing file is ERR_EXISTS unless it is
 * empty, or force is given and it is a run: then the new one takes its place when it has got its configuration. ERR_BUSY:
 * another process is making a run of that name, or has the old one open. */
Run *run_create(const char *path, const char *config_json, bool force) __attribute__((warn_unused_result));
/* The same, and a fact (see run_set) is in it as soon as it is there. */
Run *run_create_with(const char *path, const char *config_json, const char *key, const char *text, bool force)
    __attribute__((warn_unused_result));
/* NULL: ERR_ABSENT (no such file), ERR_DATA (not a run, damaged, or of a newer version; to write: a file with several
 * hard links), ERR_BUSY (see hssl-run(5), Locks), ERR_STORE. */
Run *run_open(const char *path, bool write) __attribute__((warn_unused_result));
/* Be the one who trains an open run, until it is closed. 0, or -1: ERR_BUSY where another process is. */
int run_claim(Run *run) __attribute__((warn_unused_result));
/* Flushes the log and closes; NULL is harmless. 0, or -1 if the last lines could not be written. */
int run_close(Run *run);
const char *run_path(const Run *run);
/* JSON text, until run_close. */
const char *run_config(const Run *run);

/* Small facts, by key (at most 400 bytes): for instance "teacher_ticket", where the live teacher is to be found.
 * run_set with NULL removes the key. run_get: malloc'd text, or NULL with ERR_ABSENT or another error. */
int run_set(Run *run, const char *key, const char *text) __attribute__((warn_unused_result));
char *run_get(Run *run, const char *key) __attribute__((warn_unused_result));

/* Replace the configuration and set a fact, in one transaction: for settings that change while a run goes on,
 * and what is known of the change. What run_config returned before is gone. */
int run_configure(Run *run, const char *config_json, const char *key, const char *text)
    __attribute__((warn_unused_result));

/* Append one JSON object (no newline inside) to the log. Lines are committed at once, but at most once a second:
 * those in between wait in memory for the next line, run_flush, run_save or run_close. */
int run_log(Run *run, const char *json_line) __attribute__((warn_unused_result));
int run_flush(Run *run) __attribute__((warn_unused_result));
/* Number of committed lines; -1 on error. */
int64_t run_log_count(Run *run);
/* Call cb for the lines from number `from` on (negative: counted from the end). A result other than 0 ends the
 * walk and is returned. The line is good during the call. No snapshot is held meanwhile: lines are read a few hundred
 * kilobytes at a time, up to the one that was the last when the walk began. */
int run_log_each(Run *run, int64_t from, int (*cb)(int64_t number, const char *line, void *arg), void *arg);

/* Store a checkpoint, in one transaction: all of it becomes visible or none of it; it is on the disk when the
 * call returns. Replaces one of the same step. meta_json: a JSON object. keep > 0: afterwards only the last
 * `keep` checkpoints stay. Takes as much memory again as the checkpoint has, and gives it back. */
int run_save(Run *run, uint64_t step, const char *meta_json, const StoredTensor *tensors, size_t n, int keep)
    __attribute__((warn_unused_result));

/* Steps that have a checkpoint, ascending, malloc'd through *steps; returns their number or -1. */
int64_t run_steps(Run *run, uint64_t **steps);

typedef struct Checkpoint Checkpoint;

/* step -1: the last one. It stays readable until closed, even if the trainer drops it meanwhile; close it before
 * the run. NULL: ERR_ABSENT or another error. */
Checkpoint *run_checkpoint(Run *run, int64_t step) __attribute__((warn_unused_result));
void checkpoint_close(Checkpoint *cp);
uint64_t checkpoint_step(const Checkpoint *cp);
const char *checkpoint_meta(const Checkpoint *cp); /* JSON text */
size_t checkpoint_count(const Checkpoint *cp);     /* tensors */
uint64_t checkpoint_bytes(const Checkpoint *cp);   /* their data, all together */
/* Name and data are borrowed until checkpoint_close; data is aligned to 16 bytes. -1 with ERR_ABSENT or ERR_DATA. */
int checkpoint_get(Checkpoint *cp, const char *name, StoredTensor *t) __attribute__((warn_unused_result));
/* In the order of names. */
int checkpoint_each(Checkpoint *cp, StoredEach *cb, void *arg);
/* Recompute every checksum: 0, or -1 with ERR_DATA that names the first bad tensor. */
int checkpoint_verify(Checkpoint *cp) __attribute__((warn_unused_result));

#endif
