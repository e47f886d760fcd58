/* Who uses a file of ours: a run, a dataset.
 *
 * LMDB keeps readers and writers of a file apart by a second one, NAME-lock. That does not tell who trains a run or
 * imports into a dataset, which nobody else may do meanwhile; it fails those who may not write NAME-lock; and it is
 * bound to a name, where the file may get another, or the name another file. So whoever opens a file also holds locks on
 * the file itself, whatever its name: open file description locks, which the kernel drops when the process ends, however
 * it ends, and which LMDB's own opening and closing of the file leaves alone. They cover bytes far beyond any content.
 *
 * Each lock is as many bytes long as its holder's process number says, so that who is refused can be told by whom. */
#ifndef HSSL_CLAIM_H
#define HSSL_CLAIM_H

#include <stdbool.h>
#include <sys/types.h>

typedef enum {
    CLAIM_WORK,   /* exclusive: who trains the run or imports into the dataset */
    CLAIM_USE,    /* shared: all who have the file open; exclusive: who puts another in its place */
    CLAIM_CHANGE, /* shared: all who have it open to write */
    CLAIM_BARE,   /* shared: readers whom NAME-lock doesn't know. Of those and writers there is one kind only at a time */
} ClaimPart;

enum { CLAIM_PATIENCE_MS = 1000 }; /* how long a reader may be in the way: most are gone in a moment */

/* Lock a part of the open file, waiting at most so many milliseconds. Exclusive locks need a descriptor to write. path:
 * for messages. 0; 1: somebody else has it, *holder is his process number or 0; -1: an error. */
int claim_lock(int fd, ClaimPart part, bool exclusive, int wait_ms, const char *path, pid_t *holder)
    __attribute__((warn_unused_result));
void claim_unlock(int fd, ClaimPart part);
/* Whether somebody else has locked a part, exclusively or not. */
bool claim_seen(int fd, ClaimPart part, pid_t *holder);
/* "process 17", or "another process" where its number is not known; borrowed until the thread's next call. */
const char *claim_process(pid_t holder);

/* Whether somebody trains the run or imports into the dataset; not so where there is no such file. */
bool claim_held(const char *path);
/* For who wants to put something else in a file's place: 0: nobody uses it, or it is not there; -1: ERR_BUSY. */
int claim_check_free(const char *path) __attribute__((warn_unused_result));

#endif
