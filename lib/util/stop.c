#include "util/stop.h"

#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { WAITER_STACK = 256 << 10 };

double stop_same_request = 1;

static atomic_int seen;
enum { ON_ITS_WAY_MS = 5000 };

static int wake[2] = { -1, -1 };
static _Atomic(const char *) notice;
static sigset_t heard;
static void (*acts[NSIG])(int signal);

static bool asks_to_stop(int signal)
{
    return signal == SIGINT || signal == SIGTERM || signal == SIGHUP;
}

static void end_as_the_signal_does(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(signal);
}

/* Without waiting for whoever reads standard error, if anybody does. */
static bool can_be_said(void)
{
    return poll(&(struct pollfd){ .fd = STDERR_FILENO, .events = POLLOUT }, 1, 0) == 1;
}

static void *wait_for_signals(void *arg)
{
    double first = 0;
    int signal;
    (void)arg;
    for (;;) {
        if (sigwait(&heard, &signal))
            continue;
        if (!asks_to_stop(signal)) {
            if (acts[signal])
                acts[signal](signal);
            continue;
        }
        double now = log_seconds();
        if (first && now - first > stop_same_request)
            end_as_the_signal_does(signal);
        if (first)
            continue;
        first = now;
        const char *text = atomic_load(&notice);
        if (text && can_be_said())
            log_info("%s", text);
        stop_request(signal);
    }
    return NULL;
}

static int start_waiter(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, WAITER_STACK);
    errno = pthread_create(&thread, &attr, wait_for_signals, NULL);
    int rc = errno ? err_system("cannot start a thread") : 0;
    pthread_attr_destroy(&attr);
    return rc;
}

int stop_install(void)
{
    static const int stops[] = { SIGINT, SIGTERM, SIGHUP };
    if (wake[0] >= 0)
        return 0;
    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK))
        return err_system("pipe");
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&heard);
    sigaddset(&heard, SIGUSR1);
    sigaddset(&heard, SIGUSR2);
    for (int i = 1; i < NSIG; i++)
        if (acts[i])
            sigaddset(&heard, i);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct sigaction old;
        if (sigaction(stops[i], NULL, &old))
            return err_system("sigaction");
        if (old.sa_handler != SIG_IGN) /* the kernel would keep what is both ignored and blocked */
            sigaddset(&heard, stops[i]);
    }
    errno = pthread_sigmask(SIG_BLOCK, &heard, NULL);
    return errno ? err_system("cannot block signals") : start_waiter();
}

void stop_hear(int signal, void (*act)(int signal))
{
    acts[signal] = act;
}

void stop_notice(const char *text)
{
    atomic_store(&notice, text);
}

void stop_request(int signal)
{
    atomic_store(&seen, signal);
    if (wake[1] >= 0 && write(wake[1], "", 1) < 0) {
        /* the pipe is full: it is readable already */
    }
}

int stop_signal(void)
{
    return atomic_load(&seen);
}

int stop_fd(void)
{
    return wake[0];
}

int stop_status(void)
{
    int signal = stop_signal();
    return signal ? 128 + signal : 0;
}

/* One that has been sent, and that the waiting thread has not come to take yet. */
static bool on_its_way(void)
{
    sigset_t sent;
    return !sigpending(&sent) && ((sigismember(&sent, SIGINT) && sigismember(&heard, SIGINT)) ||
                                  (sigismember(&sent, SIGTERM) && sigismember(&heard, SIGTERM)) ||
                                  (sigismember(&sent, SIGHUP) && sigismember(&heard, SIGHUP)));
}

bool stop_within(int ms)
{
    struct pollfd p = { .fd = stop_fd(), .events = POLLIN };
    if (stop_signal())
        return true;
    return p.fd >= 0 && (poll(&p, 1, ms) > 0 || (on_its_way() && poll(&p, 1, ON_ITS_WAY_MS) > 0));
}

ssize_t stop_read(int fd, void *to, size_t n)
{
    struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = stop_fd(), .events = POLLIN } };
    while (poll(p, 2, -1) < 0)
        if (errno != EINTR)
            return -1;
    if (p[1].revents) {
        errno = EINTR;
        return -1;
    }
    return read(fd, to, n);
}
