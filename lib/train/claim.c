#include "train/claim.h"

#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Of the open file, not of the process: LMDB may open and close the file as it likes. */
static struct flock whole_file(void)
{
    return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
}

int claim_take(const char *run)
{
    struct flock lock = whole_file();
    int fd = open(run, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_system("%s", run);
    if (!fcntl(fd, F_OFD_SETLK, &lock))
        return fd;
    bool held = errno == EAGAIN || errno == EACCES;
    int rc = held ? err_set(ERR_EXISTS, "%s: another process trains it", run) : err_system("%s: lock", run);
    close(fd);
    return rc;
}

bool claim_held(const char *run)
{
    struct flock lock = whole_file();
    int fd = open(run, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool held = !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
    close(fd);
    return held;
}
