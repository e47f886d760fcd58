#include "stream/sockdir.h"

#include "util/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PATH_IN_SOCKET = 90, GRACE_SECONDS = 60, DEAD_SECONDS = 1 };

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static char dir[256];
static int users, lock_fd = -1;
static pid_t owner;

/* The lock goes last: a directory without one could be somebody's who is just making it. */
static void remove_dir(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "lock"))
            unlinkat(dirfd(d), e->d_name, 0);
    unlinkat(dirfd(d), "lock", 0);
    closedir(d);
    rmdir(path);
}

static struct flock whole_file(void)
{
    return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
}

/* It never came to make a lock: the process that its name tells is dead, or it had more than enough time. */
static bool unfinished(const char *path)
{
    struct stat st;
    const char *name = strrchr(path, '/');
    long pid = 0;
    if (stat(path, &st) || !name || sscanf(name, "/hssl-%*d-%ld-", &pid) != 1 || pid < 1)
        return false;
    double age = difftime(time(NULL), st.st_mtime);
    return age > GRACE_SECONDS || (age > DEAD_SECONDS && kill((pid_t)pid, 0) && errno == ESRCH);
}

/* The lock is asked for and not taken, so that two who look at once don't see each other. */
bool sockdir_abandoned(const char *path)
{
    char lock[512];
    struct flock l = whole_file();
    snprintf(lock, sizeof lock, "%s/lock", path);
    int fd = open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT && unfinished(path);
    bool gone = !fcntl(fd, F_OFD_GETLK, &l) && l.l_type == F_UNLCK;
    close(fd);
    return gone;
}

int sockdir_sweep(const char *base)
{
    char prefix[32];
    int removed = 0;
    DIR *d = opendir(base);
    if (!d)
        return 0;
    snprintf(prefix, sizeof prefix, "hssl-%ld-", (long)getuid());
    for (struct dirent *e; (e = readdir(d));) {
        char path[400];
        struct stat st;
        if (strncmp(e->d_name, prefix, strlen(prefix)) ||
            (size_t)snprintf(path, sizeof path, "%s/%s", base, e->d_name) >= sizeof path)
            continue;
        if (!lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == getuid() && sockdir_abandoned(path)) {
            remove_dir(path);
            removed++;
        }
    }
    closedir(d);
    return removed;
}

static void remove_own(void)
{
    if (dir[0] && getpid() == owner) {
        remove_dir(dir);
        if (lock_fd >= 0)
            close(lock_fd);
    }
    lock_fd = -1;
    dir[0] = 0;
}

enum { BASES = 3 };

static const char *base_of(int i)
{
    const char *base = i == 0 ? getenv("XDG_RUNTIME_DIR") : i == 1 ? getenv("TMPDIR") : "/tmp";
    return base && base[0] == '/' ? base : NULL;
}

void sockdir_tidy(void)
{
    for (int i = 0; i < BASES; i++)
        if (base_of(i))
            sockdir_sweep(base_of(i));
}

static int make_dir(void)
{
    static bool registered;
    for (int i = 0; i < BASES; i++) {
        char lock[300], fresh[300];
        const char *base = base_of(i);
        if (!base || strlen(base) > MAX_PATH_IN_SOCKET - 40 || access(base, W_OK | X_OK))
            continue;
        sockdir_sweep(base);
        snprintf(dir, sizeof dir, "%s/hssl-%ld-%ld-XXXXXX", base, (long)getuid(), (long)getpid());
        if (!mkdtemp(dir))
            continue;
        owner = getpid();
        snprintf(lock, sizeof lock, "%s/lock", dir);
        snprintf(fresh, sizeof fresh, "%s/lock.new", dir);
        /* It gets its name when it is locked: whoever sweeps meanwhile would take a free one for a dead owner's. */
        lock_fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        struct flock l = whole_file();
        if (lock_fd >= 0 && !fcntl(lock_fd, F_OFD_SETLK, &l) && !rename(fresh, lock)) {
            if (!registered)
                registered = !atexit(remove_own);
            return 0;
        }
        remove_own();
    }
    dir[0] = 0;
    return err_system("no directory for sockets (tried XDG_RUNTIME_DIR, TMPDIR, /tmp)");
}

static int acquire(const char *name, const char *suffix, char *path, size_t size)
{
    int rc = 0;
    pthread_mutex_lock(&guard);
    if (!users)
        rc = make_dir();
    if (!rc) {
        users++;
        snprintf(path, size, "%s/%s%s", dir, name, suffix);
    }
    pthread_mutex_unlock(&guard);
    return rc;
}

int sockdir_acquire(const char *name, char *path, size_t size)
{
    static _Atomic unsigned serial;
    char suffix[16];
    snprintf(suffix, sizeof suffix, "-%u", serial++);
    return acquire(name, suffix, path, size);
}

int sockdir_file(const char *name, char *path, size_t size)
{
    return acquire(name, "", path, size);
}

void sockdir_release(void)
{
    pthread_mutex_lock(&guard);
    if (users && --users == 0)
        remove_own();
    pthread_mutex_unlock(&guard);
}
