#include "stream/shm.h"

#include "util/err.h"
#include "util/fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Shrinking would turn the peer's next access into SIGBUS. */
enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW };

static ShmBlock *map_block(int fd, size_t size, bool writable)
{
    ShmBlock *b = calloc(1, sizeof *b);
    if (!b) {
        err_set(ERR_MEMORY, "shared memory: out of memory");
        return NULL;
    }
    fault_guard(); /* the owner has sealed it against shrinking, but memory may be short */
    b->mem = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    if (b->mem == MAP_FAILED) {
        err_system("shared memory: cannot map %zu bytes", size);
        free(b);
        return NULL;
    }
    b->size = size;
    b->fd = fd;
    b->writable = writable;
    return b;
}

ShmBlock *shm_create(size_t size)
{
    if (!size || size > (size_t)1 << 46) {
        err_set(ERR_MEMORY, "shared memory: %zu bytes cannot be had", size);
        return NULL;
    }
    int fd = memfd_create("hssl", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        err_system("shared memory: memfd_create");
        return NULL;
    }
    ShmBlock *b = NULL;
    if (ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, SEALS))
        err_system("shared memory of %zu bytes", size);
    else
        b = map_block(fd, size, true);
    if (!b) {
        close(fd);
        return NULL;
    }
    b->pid = getpid();
    b->owner = true;
    return b;
}

ShmBlock *shm_attach(int64_t pid, int64_t remote_fd, uint64_t size, bool writable)
{
    char path[64];
    struct stat st;
    if (pid <= 0 || remote_fd < 0 || !size || size > (uint64_t)1 << 46) {
        err_set(ERR_PEER, "shared memory: not a proper descriptor");
        return NULL;
    }
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)pid, (long long)remote_fd);
    /* O_NONBLOCK: the descriptor is foreign and may be a FIFO. */
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        err_system("shared memory of process %lld", (long long)pid);
        return NULL;
    }
    ShmBlock *b = NULL;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size < 0 ||
        (uint64_t)st.st_size < size || (st.st_uid != geteuid() && st.st_uid != 0))
        err_set(ERR_PEER, "shared memory of process %lld: not a sealed memory file of %llu bytes", (long long)pid,
                (unsigned long long)size);
    else
        b = map_block(fd, size, writable);
    if (!b) {
        close(fd);
        return NULL;
    }
    b->pid = pid;
    return b;
}

void shm_free(ShmBlock **block)
{
    ShmBlock *b = *block;
    if (!b)
        return;
    munmap(b->mem, b->size);
    close(b->fd);
    free(b);
    *block = NULL;
}
