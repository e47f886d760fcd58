#include "util/output.h"

#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 100 };

struct Output {
    char *path, *base; /* as given; its last part */
    int flags, fd, to; /* to: where it goes in the end, or -1: the name */
    int dir;           /* of path */
    char name[NAME_MAX + 1]; /* the file's own for the time being, in dir; "": it has none */
};

/* ---------------------------------------------------------------- what stands there */

/* By its name, too, where it is not there yet. */
static bool is_file(const char *path, const char *other)
{
    struct stat a, b;
    return !strcmp(path, other) ||
           (!stat(path, &a) && !stat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

/* -1 where the target is a source, or its lock file. */
static int refuse_sources(const char *path, const char *const sources[OUTPUT_SOURCES])
{
    char lock[PATH_MAX];
    for (int i = 0; sources && i < OUTPUT_SOURCES && sources[i]; i++) {
        snprintf(lock, sizeof lock, "%s-lock", sources[i]);
        if (is_file(path, sources[i]))
            return err_set(ERR_USAGE, "%s is the same file as %s: name another", path, sources[i]);
        if (is_file(path, lock))
            return err_set(ERR_USAGE, "%s is the lock file of %s: name another", path, sources[i]);
    }
    return 0;
}

/* A descriptor of this process that the path names, or -1: opened by its name, a file would be written from its start. */
static int own_descriptor(const char *path)
{
    static const char *const folders[] = { "/dev/fd/", "/proc/self/fd/" };
    char *end;
    if (!strcmp(path, "/dev/stdout"))
        return STDOUT_FILENO;
    if (!strcmp(path, "/dev/stderr"))
        return STDERR_FILENO;
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(folders[i]);
        long fd = strncmp(path, folders[i], n) ? -1 : strtol(path + n, &end, 10);
        if (fd >= 0 && fd <= INT_MAX && end != path + n && !*end)
            return (int)fd;
    }
    return -1;
}

/* *to: a descriptor to write to; -1: path is to be a regular file. */
static int find_target(const char *path, int flags, int *to)
{
    struct stat st;
    int fd = flags & OUTPUT_PLAIN ? -1 : own_descriptor(path);
    *to = -1;
    if (fd >= 0)
        return (*to = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0 ? err_system("%s", path) : 0;
    if (flags & OUTPUT_PLAIN ? lstat(path, &st) : stat(path, &st))
        return 0; /* nothing is there, or a link that leads nowhere */
    if (S_ISDIR(st.st_mode))
        return err_set(ERR_USAGE, "%s: a directory", path);
    if (flags & OUTPUT_PLAIN || S_ISREG(st.st_mode))
        return flags & OUTPUT_NEW ? err_set(ERR_EXISTS, "%s: there already", path) : 0;
    if (!S_ISCHR(st.st_mode) && !S_ISFIFO(st.st_mode))
        return err_set(ERR_USAGE, "%s: a %s, which is not written to", path, S_ISBLK(st.st_mode) ? "disk" : "socket");
    *to = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return *to < 0 ? err_system("%s", path) : 0;
}

/* ---------------------------------------------------------------- the file for the time being */

static int fresh_name(Output *o)
{
    uint64_t x;
    if (getrandom(&x, sizeof x, 0) != sizeof x)
        return -1;
    snprintf(o->name, sizeof o->name, ".%.*s.%016" PRIx64, NAME_MAX - 20, o->base, x);
    return 0;
}

static int open_named(Output *o, mode_t mode)
{
    for (int i = 0; i < TRIES; i++) {
        if (fresh_name(o))
            return -1;
        int fd = openat(o->dir, o->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

static int open_hidden(Output *o, const char *folder, mode_t mode)
{
    o->dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->dir < 0)
        return -1;
    int fd = openat(o->dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, mode);
    if (fd < 0 && (fd = open_named(o, mode)) < 0)
        o->name[0] = 0;
    return fd;
}

static int open_file(Output *o)
{
    const char *tmp = getenv("TMPDIR");
    char *copy = strdup(o->path);
    if (!copy)
        return err_set(ERR_MEMORY, "%s: out of memory", o->path);
    const char *folder = o->to < 0 ? dirname(copy) : tmp && *tmp ? tmp : "/tmp";
    o->fd = open_hidden(o, folder, o->to >= 0 || o->flags & OUTPUT_PRIVATE ? 0600 : 0666);
    if (o->fd < 0 && o->to < 0)
        err_system("%s", o->path);
    else if (o->fd < 0)
        err_system("%s: a temporary file in %s", o->path, folder);
    else if (o->to >= 0 && *o->name && !unlinkat(o->dir, o->name, 0))
        o->name[0] = 0;
    free(copy);
    return o->fd < 0 ? -1 : 0;
}

Output *output_open(const char *path, const char *const sources[OUTPUT_SOURCES], int flags)
{
    Output *o = calloc(1, sizeof *o);
    if (!o || !(o->path = strdup(path))) {
        free(o);
        err_set(ERR_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    o->fd = o->dir = o->to = -1;
    o->flags = flags;
    const char *slash = strrchr(path, '/');
    o->base = o->path + (slash ? slash + 1 - path : 0);
    if (!*o->base)
        err_set(ERR_USAGE, "%s: not the name of a file", path);
    else if (!refuse_sources(path, sources) && !find_target(path, flags, &o->to) && !open_file(o))
        return o;
    output_cancel(&o);
    return NULL;
}

/* ---------------------------------------------------------------- writing */

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n < (1u << 30) ? n : (1u << 30));
        if (done < 0 && errno != EINTR)
            return -1;
        p += done > 0 ? done : 0;
        n -= done > 0 ? (size_t)done : 0;
    }
    return 0;
}

int output_write(Output *o, const void *bytes, size_t n)
{
    return write_all(o->fd, bytes, n) ? err_system("%s", o->path) : 0;
}

static int pass_on(const Output *o)
{
    char piece[1 << 16];
    off_t at = 0;
    for (ssize_t n; (n = pread(o->fd, piece, sizeof piece, at)); at += n > 0 ? n : 0)
        if ((n < 0 && errno != EINTR) || (n > 0 && write_all(o->to, piece, (size_t)n)))
            return -1;
    return 0;
}

/* Gives a file that has no name one: the final one where nothing may be there, else a fresh one. */
static int give_name(Output *o)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", o->fd);
    if (o->flags & OUTPUT_NEW)
        return linkat(AT_FDCWD, self, o->dir, o->base, AT_SYMLINK_FOLLOW);
    for (int i = 0; i < TRIES; i++) {
        if (fresh_name(o) || !linkat(AT_FDCWD, self, o->dir, o->name, AT_SYMLINK_FOLLOW))
            return *o->name ? 0 : -1;
        o->name[0] = 0;
        if (errno != EEXIST)
            return -1;
    }
    return -1;
}

static int put_in_place(Output *o)
{
    if (o->flags & OUTPUT_LASTING && fsync(o->fd))
        return -1;
    if (!*o->name && give_name(o))
        return -1;
    if (*o->name && o->flags & OUTPUT_NEW) { /* also if it came while we wrote */
        if (!renameat2(o->dir, o->name, o->dir, o->base, RENAME_NOREPLACE))
            o->name[0] = 0;
        else if (errno != EINVAL || linkat(o->dir, o->name, o->dir, o->base, 0)) /* EINVAL: this one knows links only */
            return -1;
        else
            unlinkat(o->dir, o->name, 0);
    } else if (*o->name && renameat(o->dir, o->name, o->dir, o->base)) {
        return -1;
    }
    o->name[0] = 0;
    if (o->flags & OUTPUT_LASTING)
        fsync(o->dir); /* not every file system can */
    return 0;
}

int output_commit(Output **output)
{
    Output *o = *output;
    int rc = o->to < 0 ? put_in_place(o) : pass_on(o);
    if (!rc) {
        rc = close(o->fd); /* it is gone, whatever that says */
        o->fd = -1;
    }
    if (rc && errno == EEXIST)
        err_set(ERR_EXISTS, "%s: there already", o->path);
    else if (rc)
        err_system("%s", o->path);
    output_cancel(output);
    return rc;
}

void output_cancel(Output **output)
{
    Output *o = *output;
    if (!o)
        return;
    if (*o->name)
        unlinkat(o->dir, o->name, 0);
    if (o->fd >= 0)
        close(o->fd);
    if (o->to >= 0)
        close(o->to);
    if (o->dir >= 0)
        close(o->dir);
    free(o->path);
    free(o);
    *output = NULL;
}

int output_file(const char *path, int flags, const void *bytes, size_t n)
{
    Output *o = output_open(path, NULL, flags);
    if (!o)
        return -1;
    if (!output_write(o, bytes, n))
        return output_commit(&o);
    output_cancel(&o);
    return -1;
}

FILE *output_append(const char *path, const char *const sources[OUTPUT_SOURCES])
{
    struct stat st;
    if (refuse_sources(path, sources))
        return NULL;
    int own = own_descriptor(path);
    int fd = own >= 0 ? fcntl(own, F_DUPFD_CLOEXEC, 3)
                      : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
    FILE *f = NULL;
    if (fd >= 0 && !fstat(fd, &st) && S_ISBLK(st.st_mode))
        err_set(ERR_USAGE, "%s: a disk, which is not written to", path);
    else if (fd < 0 || !(f = fdopen(fd, "a")))
        err_system("%s", path);
    if (fd >= 0 && !f)
        close(fd);
    return f;
}
