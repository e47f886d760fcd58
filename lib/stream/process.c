#include "stream/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

int process_watch(int64_t pid)
{
    if (pid <= 0 || pid > INT32_MAX)
        return -1;
    return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); /* close-on-exec by itself */
}

bool process_gone(int watch)
{
    struct pollfd p = { .fd = watch, .events = POLLIN };
    return watch >= 0 && poll(&p, 1, 0) > 0;
}

void process_forget(int *watch)
{
    if (*watch >= 0)
        close(*watch);
    *watch = -1;
}
