/* Memory shared with a process on the same host, without a name that could outlive anybody.
 *
 * The owner makes an anonymous memory file (memfd), sealed against shrinking, and tells its peer
 * {pid, fd, size}; the peer of the same user opens /proc/PID/fd/FD and maps it. When the last of both has
 * gone, however it went, the kernel frees it. Where this fails (another host, another user, no /proc) the
 * caller sends the bytes inline instead. */
#ifndef HSSL_SHM_H
#define HSSL_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ShmBlock {
    void *mem;   /* page-aligned, zeroed when new */
    size_t size; /* as asked for */
    int fd;
    int64_t pid; /* the owner */
    bool owner, writable;
} ShmBlock;

/* Returns the block, or NULL. */
ShmBlock *shm_create(size_t size);
/* Map another process's block (or one's own, again). The descriptor is foreign input: it must be a sealed
 * memory file of at least size bytes, of this user or of root. NULL with ERR_PEER: use inline bytes. */
ShmBlock *shm_attach(int64_t pid, int64_t fd, uint64_t size, bool writable);
void shm_free(ShmBlock **block);

#endif
