#include "util/descriptors.h"

#include "util/err.h"

#include <fcntl.h>
#include <unistd.h>

int standard_descriptors(void)
{
    static const int modes[] = { [STDIN_FILENO] = O_RDONLY, [STDOUT_FILENO] = O_RDONLY, [STDERR_FILENO] = O_WRONLY };
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd) /* the lowest that is free: this one */
            return err_system("/dev/null");
    return 0;
}
