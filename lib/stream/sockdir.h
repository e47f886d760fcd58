/* The directory of this process's ipc sockets: hssl-UID-PID-XXXXXX, mode 0700, below $XDG_RUNTIME_DIR,
 * $TMPDIR or /tmp. Private to lib/stream.
 *
 * A file `lock` in it stays locked while the process lives, so whoever can lock it knows that its owner
 * is gone, kill -9 and process-id namespaces included, and removes the directory.
 *
 * Who is at the other end of an ipc socket. A path can outlive its process: in /tmp anybody may make the directory
 * that an old ticket names, and serve there. Three things keep other users out:
 *  - A directory is made only where its owner decides what it is called: below one of this user's, or the system's.
 *  - A consumer looks at directory and socket before it connects: of this user (or root), mode 0700, no symbolic link.
 *    From then on nobody else can put another socket into it.
 *  - What lies above it may be renamed in between, or before ZeroMQ connects again. So the connection itself is asked:
 *    the system says whose process bound the socket, or connected to it, and stream/gate.c ends one of another user,
 *    on both sides, before a byte is read or sent.
 * Root is let in everywhere, since it could read this process's memory as well. */
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

/* Whether what serves at this path is this user's, or root's: 0, also where there is nothing; -1 with ERR_PEER. */
int sockdir_check(const char *path) __attribute__((warn_unused_result));

/* Remove the directories of dead processes of this user below base. Returns how many. */
int sockdir_sweep(const char *base);
/* The same wherever such directories are made: for whoever knows that a process of its own was killed. */
void sockdir_tidy(void);
/* Whether the owner of such a directory is gone. */
bool sockdir_abandoned(const char *path);

#endif
