/* The directory of this process's ipc sockets: hssl-UID-PID-XXXXXX, mode 0700, below $XDG_RUNTIME_DIR,
 * $TMPDIR or /tmp. Private to lib/stream.
 *
 * A file `lock` in it stays locked while the process lives, so whoever can lock it knows that its owner
 * is gone, kill -9 and process-id namespaces included, and removes the directory. */
#ifndef HSSL_SOCKDIR_H
#define HSSL_SOCKDIR_H

#include <stdbool.h>
#include <stddef.h>

/* Make the directory on first use and write "DIR/name" into path. Each acquire wants one release; the last one,
 * or the process's exit(), removes the directory with all that is in it. */
int sockdir_acquire(const char *name, char *path, size_t size);
/* The same for a file of exactly this name, of which there is one. */
int sockdir_file(const char *name, char *path, size_t size);
void sockdir_release(void);

/* Remove the directories of dead processes of this user below base. Returns how many. */
int sockdir_sweep(const char *base);
/* The same wherever such directories are made: for whoever knows that a process of its own was killed. */
void sockdir_tidy(void);
/* Whether the owner of such a directory is gone. */
bool sockdir_abandoned(const char *path);

#endif
