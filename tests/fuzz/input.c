#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_ROOM = 320, LOCK_ROOM = 8 };

volatile unsigned fuzz_sink;

uint32_t fuzz_take(FuzzInput *in, int bytes)
{
    uint32_t x = 0;
    for (int i = 0; i < bytes && in->at < in->end; i++)
        x |= (uint32_t)*in->at++ << (8 * i);
    return x;
}

uint8_t *fuzz_block(FuzzInput *in, size_t n, size_t *got)
{
    size_t left = (size_t)(in->end - in->at);
    *got = n < left ? n : left;
    uint8_t *block = malloc(*got ? *got : 1);
    if (!block)
        abort();
    if (*got)
        memcpy(block, in->at, *got);
    in->at += *got;
    return block;
}

static char dir[256], paths[8][PATH_ROOM + LOCK_ROOM];
static int n_paths;

void fuzz_files_end(void)
{
    for (int i = 0; i < n_paths; i++) {
        unlink(paths[i]);
        unlink(strcat(paths[i], "-lock"));
    }
    if (*dir)
        rmdir(dir);
    *dir = 0;
    n_paths = 0;
}

const char *fuzz_file(const char *name, const void *bytes, size_t n)
{
    const char *tmp = getenv("TMPDIR");
    if (!*dir) {
        snprintf(dir, sizeof dir, "%s/hssl-fuzz.XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(dir))
            abort();
        atexit(fuzz_files_end);
    }
    int i = 0;
    size_t skip = strlen(dir) + 1;
    while (i < n_paths && strcmp(paths[i] + skip, name))
        i++;
    if (i == n_paths) {
        if (n_paths++ == 8)
            abort();
        snprintf(paths[i], PATH_ROOM, "%s/%s", dir, name);
    }
    /* A new file each time: some file systems flush one that is truncated and written again. */
    unlink(paths[i]);
    int fd = open(paths[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || close(fd))
        abort();
    return paths[i];
}
