#include "store/claim.h"

#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { NAP_MS = 5 };

/* Where the bytes of a part begin. */
static off_t area(ClaimPart part)
{
    return ((off_t)1 << 61) + ((off_t)part << 32);
}

static struct flock lock_of(ClaimPart part, short type)
{
    return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = area(part), .l_len = getpid() };
}

/* A lock that reaches to the end is of a program that did not tell who it was. */
static pid_t holder_of(const struct flock *lock)
{
    return lock->l_start < area(0) || lock->l_len <= 0 ? 0 : (pid_t)lock->l_len;
}

bool claim_seen(int fd, ClaimPart part, pid_t *holder)
{
    struct flock lock = lock_of(part, F_WRLCK);
    bool seen = !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
    *holder = seen ? holder_of(&lock) : 0;
    return seen;
}

int claim_lock(int fd, ClaimPart part, bool exclusive, int wait_ms, const char *path, pid_t *holder)
{
    short type = exclusive ? F_WRLCK : F_RDLCK;
    for (;; wait_ms -= NAP_MS) {
        struct flock lock = lock_of(part, type);
        if (!fcntl(fd, F_OFD_SETLK, &lock))
            return 0;
        if (errno != EAGAIN && errno != EACCES)
            return err_system("%s: it can't be locked", path);
        lock = lock_of(part, type);
        *holder = !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK ? holder_of(&lock) : 0;
        if (wait_ms <= 0)
            return 1;
        usleep(NAP_MS * 1000);
    }
}

void claim_unlock(int fd, ClaimPart part)
{
    struct flock lock = lock_of(part, F_UNLCK);
    fcntl(fd, F_OFD_SETLK, &lock);
}

const char *claim_process(pid_t holder)
{
    static _Thread_local char text[32];
    if (!holder)
        return "another process";
    snprintf(text, sizeof text, "process %d", (int)holder);
    return text;
}

bool claim_held(const char *path)
{
    pid_t holder;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool held = claim_seen(fd, CLAIM_WORK, &holder);
    close(fd);
    return held;
}

int claim_check_free(const char *path)
{
    pid_t holder;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0;
    bool busy = claim_seen(fd, CLAIM_WORK, &holder);
    for (int ms = 0; !busy && (busy = claim_seen(fd, CLAIM_USE, &holder)) && ms < CLAIM_PATIENCE_MS; ms += NAP_MS) {
        busy = false;
        usleep(NAP_MS * 1000);
    }
    if (busy)
        rc = err_set(ERR_BUSY, "%s: %s uses it: stop that first, or name another file", path, claim_process(holder));
    close(fd);
    return rc;
}
