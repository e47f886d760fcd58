#include "stream/gauges.h"

#include "stream/sockdir.h"
#include "util/err.h"
#include "util/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(GaugePage) == GAUGES_BYTES, "the page has its size");
_Static_assert(offsetof(GaugePage, program) == 56 && offsetof(GaugePage, name) == 88 &&
               offsetof(GaugePage, value) == 2048, "the page has its layout");

enum { TRIES = 100 };

/* The address never changes once it is there, so nobody needs a lock to count: opening puts the file below it,
 * closing an anonymous page. */
static _Atomic(GaugePage *) page;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static int users;
static bool published;
static pthread_t owner;
static char path[300];

uint64_t gauges_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static GaugePage *map_page(void *at, int fd)
{
    void *p = mmap(at, GAUGES_BYTES, PROT_READ | PROT_WRITE,
                   (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | (at ? MAP_FIXED : 0), fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* All of the file must be there before it is mapped: on a full disk a later write would be SIGBUS. */
static int make_file(void)
{
    static const char zeros[GAUGES_BYTES];
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && pwrite(fd, zeros, sizeof zeros, 0) != sizeof zeros) {
        close(fd);
        unlink(path);
        fd = -1;
    }
    return fd;
}

static void begin(GaugePage *p, const char *program)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    memset(p, 0, sizeof *p);
    p->version = GAUGES_VERSION;
    p->bytes = GAUGES_BYTES;
    p->pid = getpid();
    p->started = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    p->since = gauges_now();
    p->state = GAUGE_BUSY;
    snprintf(p->program, sizeof p->program, "%s", program);
    atomic_thread_fence(memory_order_release);
    memcpy(p->magic, GAUGES_MAGIC, sizeof p->magic);
}

static void publish(const char *program)
{
    GaugePage *p = page;
    fault_guard();
    if (!p && !(p = map_page(NULL, -1)))
        return;
    owner = pthread_self();
    atomic_store(&page, p);
    if (!sockdir_file("gauges", path, sizeof path)) {
        int fd = make_file();
        published = fd >= 0 && map_page(p, fd);
        if (fd >= 0)
            close(fd);
        if (!published) {
            unlink(path);
            sockdir_release();
        }
    }
    err_clear();
    begin(p, program);
}

void gauges_open(const char *program)
{
    pthread_mutex_lock(&guard);
    if (!users++)
        publish(program);
    pthread_mutex_unlock(&guard);
}

void gauges_close(void)
{
    pthread_mutex_lock(&guard);
    if (users && --users == 0 && published) {
        map_page(page, -1);
        unlink(path);
        sockdir_release();
        published = false;
    }
    pthread_mutex_unlock(&guard);
}

void gauges_name(GaugeName which, const char *text)
{
    GaugePage *p = page;
    if (!p)
        return;
    pthread_mutex_lock(&guard);
    atomic_fetch_add(&p->serial, 1);
    snprintf(p->name[which], sizeof p->name[which], "%s", text);
    atomic_fetch_add(&p->serial, 1);
    pthread_mutex_unlock(&guard);
}

void gauge_add(Gauge g, int64_t n)
{
    GaugePage *p = atomic_load_explicit(&page, memory_order_relaxed);
    if (p)
        atomic_fetch_add_explicit(&p->value[g], (uint64_t)n, memory_order_relaxed);
}

void gauge_set(Gauge g, uint64_t value)
{
    GaugePage *p = atomic_load_explicit(&page, memory_order_relaxed);
    if (p)
        atomic_store_explicit(&p->value[g], value, memory_order_relaxed);
}

void gauge_set_real(Gauge g, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    gauge_set(g, bits);
}

void gauge_state(GaugeState s)
{
    GaugePage *p = atomic_load_explicit(&page, memory_order_relaxed);
    if (!p || p->state == s || !pthread_equal(owner, pthread_self()))
        return;
    uint64_t now = gauges_now(), before = p->since;
    atomic_fetch_add(&p->serial, 1);
    atomic_fetch_add_explicit(&p->value[GAUGE_TIME + p->state], now - before, memory_order_relaxed);
    p->since = now;
    p->state = s;
    atomic_fetch_add(&p->serial, 1);
}

/* ---------------------------------------------------------------- reading another's */

/* It may be shown on a terminal. */
static void make_text(char *s, size_t size)
{
    s[size - 1] = 0;
    for (; *s; s++)
        if (*s < ' ' || *s > '~')
            *s = '?';
}

static int check(GaugePage *p, const char *file)
{
    if (memcmp(p->magic, GAUGES_MAGIC, sizeof p->magic))
        return err_set(ERR_DATA, "%s: no gauges", file);
    if (p->version != GAUGES_VERSION || p->bytes != GAUGES_BYTES)
        return err_set(ERR_DATA, "%s: gauges of version %u, this program knows %d", file, p->version, GAUGES_VERSION);
    if (p->pid < 1 || p->pid > INT32_MAX || p->state >= GAUGE_STATES)
        return err_set(ERR_DATA, "%s: damaged", file);
    make_text(p->program, sizeof p->program);
    for (int i = 0; i < GAUGE_NAMES; i++)
        make_text(p->name[i], sizeof p->name[i]);
    return 0;
}

int gauges_read(const char *dir, GaugePage *out)
{
    char file[400];
    struct stat st;
    int rc = 0;
    if ((size_t)snprintf(file, sizeof file, "%s/gauges", dir) >= sizeof file)
        return err_set(ERR_DATA, "%.100s...: the name is too long", dir);
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st)) {
        rc = err_system("%s", file);
    } else if (!S_ISREG(st.st_mode) || st.st_size != GAUGES_BYTES) {
        rc = err_set(ERR_DATA, "%s: no gauges", file);
    } else {
        /* Not mapped: a file that shrinks would be SIGBUS. What changes meanwhile is read again, within reason. */
        for (int i = 0; i < TRIES && !rc; i++) {
            uint64_t before = 0, after = 1;
            off_t at = (off_t)offsetof(GaugePage, serial);
            if (pread(fd, &before, sizeof before, at) != sizeof before ||
                pread(fd, out, sizeof *out, 0) != sizeof *out || pread(fd, &after, sizeof after, at) != sizeof after)
                rc = err_set(ERR_DATA, "%s: no gauges", file);
            if (before == after && !(before & 1))
                break;
        }
    }
    if (fd >= 0)
        close(fd);
    if (rc || check(out, file))
        return -1;
    uint64_t now = gauges_now();
    if (now > out->since)
        out->value[GAUGE_TIME + out->state] += now - out->since;
    return 0;
}
