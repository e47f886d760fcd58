#include "util/fault.h"

#include "util/log.h"
#include "util/text.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STACK = 32 << 10, LINE = 4096 + 256, WATCHES = 64, PIECE = 4096 };

const char fault_text[] = "changed while it was read: it was shortened or overwritten in place, or its disk failed; "
                          "replace a file in use by renaming another over it";

static _Atomic(FaultWatch *) watches[WATCHES];
static struct sigaction before_bus, before_segv;

/* Up to the end only what signal(7) allows in a handler: no malloc, no stdio. */

static size_t put(char *line, size_t n, const char *text)
{
    for (; *text && n < LINE; text++)
        line[n++] = *text;
    return n;
}

_Noreturn void fault_end(const char *path)
{
    static char line[LINE], name[LINE - sizeof fault_text - 256];
    size_t n = put(line, 0, isatty(STDERR_FILENO) ? "\r\033[K" : "");
    n = put(line, n, log_program());
    n = put(line, n, ": ");
    n = put(line, n, text_plain(path, name, sizeof name));
    n = put(line, n, ": ");
    n = put(line, n, fault_text);
    n = put(line, n, "\n");
    if (write(STDERR_FILENO, line, n) < 0) {
        /* nobody hears us: nothing to be done */
    }
    _exit(1);
}

static uintptr_t number(const char **at)
{
    uintptr_t x = 0;
    for (; (**at >= '0' && **at <= '9') || (**at >= 'a' && **at <= 'f'); ++*at)
        x = x << 4 | (uintptr_t)(**at <= '9' ? **at - '0' : **at - 'a' + 10);
    return x;
}

/* The name in a line of /proc/self/maps, "FROM-TO RIGHTS OFFSET DEVICE INODE NAME", if it holds the address. */
static const char *name_in(const char *line, uintptr_t address)
{
    const char *at = line;
    uintptr_t from = number(&at);
    at += *at == '-';
    uintptr_t to = number(&at);
    if (address < from || address >= to)
        return NULL;
    for (int i = 0; i < 4; i++) {
        at += strspn(at, " ");
        at += strcspn(at, " ");
    }
    at += strspn(at, " ");
    return *at == '/' ? at : NULL;
}

/* The file that is mapped at an address, as the kernel calls it; NULL: none. */
static const char *mapped_at(uintptr_t address)
{
    static char text[2 * LINE + 1];
    size_t have = 0;
    const char *name = NULL;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && !name && (n = read(fd, text + have, sizeof text - 1 - have)) > 0;) {
        char *line = text, *end;
        have += (size_t)n;
        text[have] = 0;
        for (; !name && (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            name = name_in(line, address);
        }
        if (!name) {
            have = (size_t)(text + have - line);
            memmove(text, line, have);
        }
    }
    if (fd >= 0)
        close(fd);
    return name;
}

bool fault_same(const FaultWatch *w, int n)
{
    unsigned char there[PIECE];
    for (int i = 0; i < n && i < w->n; i++)
        for (size_t at = 0; at < w->page; at += PIECE) {
            size_t some = w->page - at < PIECE ? w->page - at : PIECE;
            if (pread(w->fd, there, some, w->at[i] + (off_t)at) != (ssize_t)some ||
                memcmp(there, w->bytes + (size_t)i * w->page + at, some))
                return false;
        }
    return true;
}

static const char *changed(void)
{
    for (int i = 0; i < WATCHES; i++) {
        FaultWatch *w = atomic_load(&watches[i]);
        if (w && atomic_load(&w->active) && !fault_same(w, FAULT_PAGES))
            return w->path;
    }
    return NULL;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    static atomic_flag busy = ATOMIC_FLAG_INIT; /* several threads may read the same file */
    bool sent = info->si_code <= 0; /* by kill() */
    const char *path = NULL;
    (void)context;
    while (atomic_flag_test_and_set(&busy))
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    if (!sent && sig == SIGBUS && (info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR))
        path = mapped_at((uintptr_t)info->si_addr);
    if (!sent && !path)
        path = changed();
    if (path)
        fault_end(path);
    /* The instruction faults again, and then what was there before us sees it. */
    sigaction(sig, sig == SIGBUS ? &before_bus : &before_segv, NULL);
    atomic_flag_clear(&busy);
    if (sent)
        raise(sig);
}

static void install(void)
{
    struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    sigfillset(&act.sa_mask); /* a fault of the handler's own ends the program at once, then */
    sigaction(SIGBUS, &act, &before_bus);
    sigaction(SIGSEGV, &act, &before_segv);
}

void fault_thread(void)
{
    static _Thread_local bool done;
    static _Thread_local char stack[STACK];
    stack_t now, own = { .ss_sp = stack, .ss_size = sizeof stack };
    sigset_t faults;
    if (done)
        return;
    done = true;
    sigemptyset(&faults);
    sigaddset(&faults, SIGBUS);
    sigaddset(&faults, SIGSEGV);
    pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
    /* The sanitizers give each thread one already, and take back what they find. */
    if (!sigaltstack(NULL, &now) && now.ss_flags & SS_DISABLE)
        sigaltstack(&own, NULL);
}

void fault_guard(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    fault_thread();
}

void fault_watch(FaultWatch *w)
{
    for (int i = 0; i < WATCHES; i++) {
        FaultWatch *none = NULL;
        if (atomic_compare_exchange_strong(&watches[i], &none, w))
            return;
    }
}

void fault_unwatch(FaultWatch *w)
{
    for (int i = 0; i < WATCHES; i++) {
        FaultWatch *mine = w;
        if (atomic_compare_exchange_strong(&watches[i], &mine, NULL))
            return;
    }
}
