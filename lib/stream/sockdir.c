#include "stream/sockdir.h"

#include "util/err.h"
#include "util/log.h"

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
static int users, dir_fd = -1, lock_fd = -1; /* dir_fd: kept, so that to remove it nothing has to be opened */
static pid_t owner;

static bool trusted(uid_t who)
{
    return who == geteuid() || who == 0;
}

static int open_dir(const char *path, int how)
{
    return open(path, how | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* fd: of the directory; closed here. The lock goes last: a directory without one could be somebody's who is just making
 * it. */
static void remove_dir(const char *path, int fd)
{
    struct stat st;
    DIR *d = fd >= 0 && !fstat(fd, &st) && st.st_uid == geteuid() ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
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
            remove_dir(path, open_dir(path, O_RDONLY));
            removed++;
        }
    }
    closedir(d);
    return removed;
}

static void remove_own(void)
{
    if (dir[0] && getpid() == owner) {
        remove_dir(dir, dir_fd >= 0 ? dir_fd : open_dir(dir, O_RDONLY));
        if (lock_fd >= 0)
            close(lock_fd);
    }
    dir_fd = lock_fd = -1;
    dir[0] = 0;
}

enum { BASES = 3 };

static const char *const base_name[BASES] = { "XDG_RUNTIME_DIR", "TMPDIR" };

static const char *base_of(int i)
{
    const char *base = base_name[i] ? getenv(base_name[i]) : "/tmp";
    return base && base[0] == '/' ? base : NULL;
}

/* The owner of a directory can rename what is in it. In a user namespace the system's files belong to nobody that has a
 * number there, as / does. What another user left in the environment (su without -) is passed over, with a word. */
static bool good_base(int i, const char *base)
{
    static bool said[BASES];
    struct stat st, root;
    if (stat(base, &st) || access(base, W_OK | X_OK))
        return false;
    if (trusted(st.st_uid) || (!stat("/", &root) && st.st_uid == root.st_uid))
        return true;
    if (!said[i])
        log_warn("%s%s%s belongs to user %ld, not to you: no socket is made there; set %s to a directory of yours",
                 base_name[i] ? base_name[i] : "", base_name[i] ? "=" : "", base, (long)st.st_uid,
                 base_name[i] ? base_name[i] : "TMPDIR");
    said[i] = true;
    return false;
}

/* The directory that was just made, as it is and not as it is called. */
static int own_dir(const char *path)
{
    struct stat st;
    int fd = open_dir(path, O_RDONLY);
    if (fd >= 0 && !fstat(fd, &st) && st.st_uid == geteuid() && (st.st_mode & 0777) == 0700)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int sockdir_check(const char *path)
{
    char above[256];
    struct stat d, s;
    const char *name = strrchr(path, '/');
    int n = name ? snprintf(above, sizeof above, "%.*s", name > path ? (int)(name - path) : 1, path) : -1;
    if (n < 0 || (size_t)n >= sizeof above)
        return err_set(ERR_PEER, "%.100s: not the path of a socket", path);
    int rc = 0, fd = open_dir(above, O_PATH);
    if (fd < 0)
        return errno == ENOENT ? 0
               : errno == ENOTDIR || errno == ELOOP
                   ? err_set(ERR_PEER, "%s is a symbolic link, or no directory: its stream cannot be joined", above)
                   : err_set(ERR_PEER, "%s: %s: its stream cannot be joined", above, strerror(errno));
    bool is = !fstatat(fd, name + 1, &s, AT_SYMLINK_NOFOLLOW), none = !is && errno == ENOENT;
    if (!is && errno == EACCES && !fstat(fd, &d))
        rc = err_set(ERR_PEER,
                     "%s: %s: the stream is of user %ld (run as that user, or give it with --listen)", path,
                     strerror(EACCES), (long)d.st_uid);
    else if (fstat(fd, &d) || (!is && !none))
        rc = err_set(ERR_PEER, "%s: %s", path, strerror(errno));
    else if (!trusted(d.st_uid) || (is && !trusted(s.st_uid)))
        rc = err_set(ERR_PEER, "%s belongs to user %ld, not to you: who serves there is not who gave this ticket "
                               "(run as that user, or give the stream with --listen)",
                     trusted(d.st_uid) ? path : above, (long)(trusted(d.st_uid) ? s.st_uid : d.st_uid));
    else if (d.st_mode & 077)
        rc = err_set(ERR_PEER, "%s is open to other users (mode %03o): no stream is served there", above,
                     d.st_mode & 0777);
    close(fd);
    return rc;
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
        const char *base = base_of(i);
        if (!base || strlen(base) > MAX_PATH_IN_SOCKET - 40 || !good_base(i, base))
            continue;
        sockdir_sweep(base);
        snprintf(dir, sizeof dir, "%s/hssl-%ld-%ld-XXXXXX", base, (long)getuid(), (long)getpid());
        if (!mkdtemp(dir))
            continue;
        owner = getpid();
        dir_fd = own_dir(dir);
        /* It gets its name when it is locked: whoever sweeps meanwhile would take a free one for a dead owner's. */
        lock_fd = dir_fd >= 0 ? openat(dir_fd, "lock.new", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600) : -1;
        struct flock l = whole_file();
        bool made = lock_fd >= 0 && !fcntl(lock_fd, F_OFD_SETLK, &l) && !renameat(dir_fd, "lock.new", dir_fd, "lock");
        if (made) {
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
