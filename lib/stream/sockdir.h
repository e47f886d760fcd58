/* The directory of this process's ipc sockets: hssl-UID-PID-XXXXXX, mode 0700, below $XDG_RUNTIME_DIR,
 * $TMPDIR or /tmp. Private to lib/stream.
 *
 * A file `lock` in it stays locked while the process lives, so whoever can lock it knows that its owner
 * is gone, kill -9 and process-id namespaces included, and removes the directory. */
#ifndef HSSL_SOCKDIR_H
#define HSSL_SOCKDIR_H

#include <stddef.h>

/* Make the directory on first use and write "DIR/name" into path. Each acquire wants one release; the last one,
 * or the process's exit(), removes the directory with all that is in it. */
int sockdir_acquire(const char *name, char *path, size_t size);
void sockdir_release(void);

/* Remove the directories of dead processes of this user below base. Returns how many. */
int sockdir_sweep(const char *base);

#endif
