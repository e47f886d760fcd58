/* A library for LD_PRELOAD that makes chosen calls fail, for tests only.
 *
 *   HSSL_FAULT=CALL:HOW:N[,...]  the Nth call (from 1) of CALL fails; N+: that and all later ones.
 *                                HOW: EIO ENOSPC ENOMEM EINTR EAGAIN EMFILE; "short": half the bytes only;
 *                                "STOP": it does not fail, but the process stops before it, until SIGCONT
 *   HSSL_FAULT_PROGRAM=NAME      only in programs of that name
 *   HSSL_FAULT_HIT=FILE          a line for each fault that happened; without + there is one, whichever process
 *                                comes first
 *
 * Calls: open read pread write pwrite fsync (also fdatasync, msync) ftruncate mmap memfd malloc (also calloc, realloc,
 * strdup ...) pipe spawn, and zmq_ctx_new zmq_socket zmq_bind zmq_connect zmq_msg_init_size zmq_msg_send zmq_msg_recv
 * zmq_poll.
 * Of memory only what the program itself asks for, or one of the libraries in `ours`: C++ libraries abort, and
 * libarchive 3.6 and json-c 0.16 do not look at every calloc of their own. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define REAL(type, name, args) \
    static type(*real) args; \
    if (!real) \
        *(void **)&real = dlsym(RTLD_NEXT, name)

typedef enum { C_OPEN, C_READ, C_PREAD, C_WRITE, C_PWRITE, C_FSYNC, C_FTRUNCATE, C_MMAP, C_MEMFD, C_MALLOC, C_PIPE,
               C_SPAWN, C_ZMQ_CTX_NEW, C_ZMQ_SOCKET, C_ZMQ_BIND, C_ZMQ_CONNECT, C_ZMQ_MSG_INIT_SIZE, C_ZMQ_MSG_SEND,
               C_ZMQ_MSG_RECV, C_ZMQ_POLL, CALLS } Call;
static const char *const names[CALLS] = { "open", "read", "pread", "write", "pwrite", "fsync", "ftruncate", "mmap",
    "memfd", "malloc", "pipe", "spawn", "zmq_ctx_new", "zmq_socket", "zmq_bind", "zmq_connect", "zmq_msg_init_size",
    "zmq_msg_send", "zmq_msg_recv", "zmq_poll" };
static const struct {
    const char *name;
    int number;
} errors[] = { { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "ENOMEM", ENOMEM }, { "EINTR", EINTR }, { "EAGAIN", EAGAIN },
               { "EMFILE", EMFILE } };
static const char *const ours[] = { "liblmdb", "libjpeg", "libpng" };

enum { SHORT = -1, STOP = -2, RANGES = 64 };
static struct {
    int how; /* errno, SHORT, STOP; 0: never */
    long first;
    bool on;
    atomic_long seen;
} fault[CALLS];
static bool ready;
static struct {
    char *from, *to;
    bool zmq;
} range[RANGES];
static int ranges;

static int add_ranges(struct dl_phdr_info *info, size_t size, void *arg)
{
    bool wanted = !*info->dlpi_name, zmq = strstr(info->dlpi_name, "libzmq") != NULL;
    (void)size;
    (void)arg;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        wanted = wanted || strstr(info->dlpi_name, ours[i]);
    for (int i = 0; (wanted || zmq) && i < info->dlpi_phnum && ranges < RANGES; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        range[ranges].from = (char *)info->dlpi_addr + p->p_vaddr;
        range[ranges].to = range[ranges].from + p->p_memsz;
        range[ranges].zmq = zmq;
        ranges++;
    }
    return 0;
}

static bool called_by(void *address, bool zmq)
{
    for (int i = 0; i < ranges; i++)
        if ((char *)address >= range[i].from && (char *)address < range[i].to)
            return range[i].zmq == zmq;
    return false;
}

static bool called_by_us(void *address)
{
    return called_by(address, false);
}

/* libzmq aborts when what it asks for itself fails. */
#define BY_ZMQ (ready && called_by(__builtin_return_address(0), true))

__attribute__((constructor)) static void start(void)
{
    const char *p = getenv("HSSL_FAULT"), *only = getenv("HSSL_FAULT_PROGRAM");
    if (!p || (only && *only && strcmp(only, program_invocation_short_name)))
        return;
    while (*p) {
        char call[32], how[32];
        long n = 0;
        int used = 0, c = 0;
        if (sscanf(p, "%31[^:]:%31[^:]:%ld%n", call, how, &n, &used) != 3)
            break;
        while (c < CALLS && strcmp(names[c], call))
            c++;
        int number = !strcmp(how, "short") ? SHORT : !strcmp(how, "STOP") ? STOP : 0;
        for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
            if (!strcmp(errors[i].name, how))
                number = errors[i].number;
        if (c == CALLS || !number)
            break;
        p += used;
        fault[c].how = number;
        fault[c].first = n;
        fault[c].on = *p == '+';
        p += *p == '+';
        if (*p == ',')
            p++;
    }
    if (*p) {
        static const char text[] = "inject: HSSL_FAULT is not CALL:HOW:N\n";
        syscall(SYS_write, 2, text, sizeof text - 1);
        _exit(99);
    }
    dl_iterate_phdr(add_ranges, NULL);
    ready = true;
}

/* 0, or how this call fails. */
static int now(Call c)
{
    if (!ready || !fault[c].how)
        return 0;
    long n = ++fault[c].seen;
    if (n != fault[c].first && !(fault[c].on && n > fault[c].first))
        return 0;
    const char *path = getenv("HSSL_FAULT_HIT");
    int once = fault[c].on ? O_APPEND : O_EXCL;
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | once, 0666) : -1;
    if (path && fd < 0)
        return 0; /* another process had it */
    if (fd >= 0) {
        syscall(SYS_write, fd, names[c], strlen(names[c]));
        syscall(SYS_write, fd, "\n", 1);
        syscall(SYS_close, fd);
    }
    if (fault[c].how == STOP) {
        raise(SIGSTOP);
        return 0;
    }
    if (fault[c].how > 0)
        errno = fault[c].how;
    return fault[c].how;
}

/* ---------------------------------------------------------------- files */

EXPORT int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
    va_end(ap);
    return now(C_OPEN) > 0 ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
    va_end(ap);
    return now(C_OPEN) > 0 ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

/* What open() becomes under _FORTIFY_SOURCE where its flags are no constant. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
    return now(C_OPEN) > 0 ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
    va_end(ap);
    return now(C_OPEN) > 0 ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
}

#define HALF(how, n) ((how) == SHORT && (n) > 1 ? (n) / 2 : (n))

EXPORT ssize_t read(int fd, void *to, size_t n)
{
    int how = BY_ZMQ ? 0 : now(C_READ);
    return how > 0 ? -1 : syscall(SYS_read, fd, to, HALF(how, n));
}

EXPORT ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    int how = now(C_PREAD);
    return how > 0 ? -1 : syscall(SYS_pread64, fd, to, HALF(how, n), at);
}

EXPORT ssize_t pread64(int fd, void *to, size_t n, off64_t at)
{
    return pread(fd, to, n, at);
}

/* Messages on standard error are let through: they are what is tested. */
EXPORT ssize_t write(int fd, const void *from, size_t n)
{
    int how = fd == 2 || BY_ZMQ ? 0 : now(C_WRITE);
    return how > 0 ? -1 : syscall(SYS_write, fd, from, HALF(how, n));
}

EXPORT ssize_t pwrite(int fd, const void *from, size_t n, off_t at)
{
    int how = now(C_PWRITE);
    return how > 0 ? -1 : syscall(SYS_pwrite64, fd, from, HALF(how, n), at);
}

EXPORT ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at)
{
    return pwrite(fd, from, n, at);
}

EXPORT ssize_t writev(int fd, const struct iovec *v, int n)
{
    int how = fd == 2 || BY_ZMQ ? 0 : now(C_WRITE);
    return how > 0 ? -1 : syscall(SYS_writev, fd, v, HALF(how, n));
}

/* LMDB writes runs of pages so. */
EXPORT ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    int how = now(C_PWRITE);
    return how > 0 ? -1 : syscall(SYS_pwritev, fd, v, HALF(how, n), (long)at, 0L);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at)
{
    return pwritev(fd, v, n, at);
}

EXPORT int fsync(int fd)
{
    return now(C_FSYNC) > 0 ? -1 : (int)syscall(SYS_fsync, fd);
}

EXPORT int fdatasync(int fd)
{
    return now(C_FSYNC) > 0 ? -1 : (int)syscall(SYS_fdatasync, fd);
}

EXPORT int msync(void *p, size_t n, int flags)
{
    return now(C_FSYNC) > 0 ? -1 : (int)syscall(SYS_msync, p, n, flags);
}

EXPORT int ftruncate(int fd, off_t n)
{
    return now(C_FTRUNCATE) > 0 ? -1 : (int)syscall(SYS_ftruncate, fd, n);
}

EXPORT int ftruncate64(int fd, off64_t n)
{
    return ftruncate(fd, n);
}

/* ---------------------------------------------------------------- memory */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

#define NO_MEMORY (ready && called_by_us(__builtin_return_address(0)) && now(C_MALLOC))

EXPORT void *malloc(size_t n)
{
    return NO_MEMORY ? NULL : __libc_malloc(n);
}

EXPORT void *calloc(size_t n, size_t size)
{
    return NO_MEMORY ? NULL : __libc_calloc(n, size);
}

EXPORT void *realloc(void *p, size_t n)
{
    return NO_MEMORY ? NULL : __libc_realloc(p, n);
}

EXPORT void *aligned_alloc(size_t align, size_t n)
{
    return NO_MEMORY ? NULL : __libc_memalign(align, n);
}

EXPORT int posix_memalign(void **out, size_t align, size_t n)
{
    if (NO_MEMORY)
        return ENOMEM;
    *out = __libc_memalign(align, n);
    return *out ? 0 : ENOMEM;
}

static char *copy(const char *s, size_t n)
{
    char *p = __libc_malloc(n + 1);
    if (p) {
        memcpy(p, s, n);
        p[n] = 0;
    }
    return p;
}

EXPORT char *strdup(const char *s)
{
    return NO_MEMORY ? NULL : copy(s, strlen(s));
}

EXPORT char *strndup(const char *s, size_t n)
{
    return NO_MEMORY ? NULL : copy(s, strnlen(s, n));
}

static void *map(void *p, size_t n, int prot, int flags, int fd, off_t at, void *caller)
{
    if (ready && called_by_us(caller) && now(C_MMAP) > 0)
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, p, n, prot, flags, fd, at);
}

EXPORT void *mmap(void *p, size_t n, int prot, int flags, int fd, off_t at)
{
    return map(p, n, prot, flags, fd, at, __builtin_return_address(0));
}

EXPORT void *mmap64(void *p, size_t n, int prot, int flags, int fd, off64_t at)
{
    return map(p, n, prot, flags, fd, at, __builtin_return_address(0));
}

EXPORT int memfd_create(const char *name, unsigned flags)
{
    return now(C_MEMFD) > 0 ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

/* ---------------------------------------------------------------- ZeroMQ */

EXPORT void *zmq_ctx_new(void);
EXPORT void *zmq_socket(void *ctx, int type);
EXPORT int zmq_bind(void *s, const char *endpoint);
EXPORT int zmq_connect(void *s, const char *endpoint);
EXPORT int zmq_msg_init_size(void *m, size_t n);
EXPORT int zmq_msg_send(void *m, void *s, int flags);
EXPORT int zmq_msg_recv(void *m, void *s, int flags);

void *zmq_ctx_new(void)
{
    REAL(void *, "zmq_ctx_new", (void));
    return now(C_ZMQ_CTX_NEW) > 0 ? NULL : real();
}

void *zmq_socket(void *ctx, int type)
{
    REAL(void *, "zmq_socket", (void *, int));
    return !BY_ZMQ && now(C_ZMQ_SOCKET) > 0 ? NULL : real(ctx, type);
}

int zmq_bind(void *s, const char *endpoint)
{
    REAL(int, "zmq_bind", (void *, const char *));
    return !BY_ZMQ && now(C_ZMQ_BIND) > 0 ? -1 : real(s, endpoint);
}

int zmq_connect(void *s, const char *endpoint)
{
    REAL(int, "zmq_connect", (void *, const char *));
    return !BY_ZMQ && now(C_ZMQ_CONNECT) > 0 ? -1 : real(s, endpoint);
}

int zmq_msg_init_size(void *m, size_t n)
{
    REAL(int, "zmq_msg_init_size", (void *, size_t));
    return !BY_ZMQ && now(C_ZMQ_MSG_INIT_SIZE) > 0 ? -1 : real(m, n);
}

int zmq_msg_send(void *m, void *s, int flags)
{
    REAL(int, "zmq_msg_send", (void *, void *, int));
    return !BY_ZMQ && now(C_ZMQ_MSG_SEND) > 0 ? -1 : real(m, s, flags);
}

int zmq_msg_recv(void *m, void *s, int flags)
{
    REAL(int, "zmq_msg_recv", (void *, void *, int));
    return !BY_ZMQ && now(C_ZMQ_MSG_RECV) > 0 ? -1 : real(m, s, flags);
}

EXPORT int zmq_poll(void *items, int n, long timeout);
int zmq_poll(void *items, int n, long timeout)
{
    REAL(int, "zmq_poll", (void *, int, long));
    return now(C_ZMQ_POLL) > 0 ? -1 : real(items, n, timeout);
}

/* ---------------------------------------------------------------- processes */

EXPORT int pipe2(int ends[2], int flags)
{
    return now(C_PIPE) > 0 ? -1 : (int)syscall(SYS_pipe2, ends, flags);
}

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attr, char *const *argv, char *const *env)
{
    REAL(int, "posix_spawn", (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                              char *const *, char *const *));
    int how = now(C_SPAWN);
    return how > 0 ? how : real(pid, path, actions, attr, argv, env);
}
