/* Signals: no handler runs anywhere, one thread waits for them; and the standard descriptors. Each case is a process of
 * its own. */
#include "../tap.h"

#include "util/descriptors.h"
#include "util/err.h"
#include "util/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNKNOWN = 99 };

/* The status of a case as a shell gives it: 0 where it went well. */
static int in_process(int (*run)(void))
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid)
        _exit(run());
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return UNKNOWN;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void await_stop(void)
{
    poll(&(struct pollfd){ .fd = stop_fd(), .events = POLLIN }, 1, -1);
}

/* A line of /proc/self/task/TID/status that holds a set of signals: of the thread that asks. */
static unsigned long long signals_of(const char *name)
{
    char path[64], line[256];
    unsigned long long set = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)gettid());
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name)))
            sscanf(line + strlen(name), ": %llx", &set);
    if (f)
        fclose(f);
    return set;
}

static unsigned long long bit(int signal)
{
    return 1ULL << (signal - 1);
}

/* ---------------------------------------------------------------- cases */

static void *look_at_mask(void *arg)
{
    *(unsigned long long *)arg = signals_of("SigBlk");
    return NULL;
}

static int no_handlers(void)
{
    const unsigned long long of_libc = bit(32) | bit(33); /* of threads; nobody sends them here */
    unsigned long long before = signals_of("SigCgt"), blocked = 0,
                       all = bit(SIGINT) | bit(SIGTERM) | bit(SIGHUP) | bit(SIGUSR1) | bit(SIGUSR2);
    pthread_t thread;
    if (stop_install() || pthread_create(&thread, NULL, look_at_mask, &blocked) || pthread_join(thread, NULL))
        return UNKNOWN;
    if ((signals_of("SigCgt") & ~of_libc) != (before & ~of_libc)) /* the sanitizers have some */
        return 1;
    return (signals_of("SigBlk") & all) != all ? 2 : (blocked & all) != all ? 3 : 0;
}

static int terminated(void)
{
    if (stop_install() || stop_signal() || stop_status())
        return UNKNOWN;
    kill(getpid(), SIGTERM);
    await_stop();
    return stop_signal() == SIGTERM ? stop_status() : UNKNOWN;
}

static int hung_up(void)
{
    if (stop_install())
        return UNKNOWN;
    kill(getpid(), SIGHUP);
    await_stop();
    return stop_status();
}

static int marks[2];

static void mark(int signal)
{
    (void)signal;
    if (write(marks[1], "x", 1) != 1)
        _exit(UNKNOWN);
}

static int twice_at_once(void)
{
    char c;
    stop_same_request = 1e6;
    stop_hear(SIGWINCH, mark);
    if (pipe(marks) || stop_install())
        return UNKNOWN;
    kill(getpid(), SIGTERM);
    await_stop();
    kill(getpid(), SIGINT);
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGWINCH); /* of those that wait the lowest comes first: this one last */
    return read(marks[0], &c, 1) == 1 && stop_signal() == SIGTERM ? 0 : 1;
}

static int twice_later(void)
{
    stop_same_request = 0;
    if (stop_install())
        return UNKNOWN;
    kill(getpid(), SIGTERM);
    await_stop();
    kill(getpid(), SIGINT);
    for (;;)
        pause();
}

static atomic_int heard_by; /* of what was heard: the thread's id, negative for the main thread */
static pthread_t main_thread;

static void hear(int signal)
{
    heard_by = pthread_equal(pthread_self(), main_thread) ? -signal : signal;
    stop_request(SIGTERM);
}

static int hears_others(void)
{
    main_thread = pthread_self();
    stop_hear(SIGUSR2, hear);
    stop_hear(SIGWINCH, hear);
    if (stop_install())
        return UNKNOWN;
    kill(getpid(), SIGUSR1); /* nobody cares */
    kill(getpid(), SIGWINCH);
    await_stop();
    return heard_by == SIGWINCH ? 0 : 1;
}

static int ignored_stays_ignored(void)
{
    signal(SIGTERM, SIG_IGN);
    if (stop_install())
        return UNKNOWN;
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGINT);
    await_stop();
    return stop_signal() == SIGINT ? 0 : 1;
}

static int storm(void)
{
    if (stop_install())
        return UNKNOWN;
    for (int i = 0; i < 100000; i++)
        kill(getpid(), i % 2 ? SIGUSR1 : SIGUSR2);
    return stop_signal();
}

static int read_ends(void)
{
    int p[2];
    char c;
    if (pipe(p) || stop_install() || write(p[1], "x", 1) != 1 || stop_read(p[0], &c, 1) != 1 || c != 'x')
        return UNKNOWN;
    kill(getpid(), SIGTERM);
    return stop_read(p[0], &c, 1) == -1 && errno == EINTR ? 0 : 1;
}

static bool is_null(int fd)
{
    struct stat a, b;
    return !fstat(fd, &a) && !stat("/dev/null", &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int descriptors(void)
{
    char c;
    close(0);
    close(1);
    close(2);
    if (standard_descriptors() || !is_null(0) || !is_null(1) || !is_null(2))
        return 1;
    if (read(0, &c, 1) != 0 || write(2, "x", 1) != 1)
        return 2;
    return write(1, "x", 1) == -1 && errno == EBADF ? 0 : 3;
}

static int open_descriptors(void)
{
    int p[2];
    char c;
    if (pipe(p) || dup2(p[1], 1) != 1)
        return UNKNOWN;
    close(0);
    if (standard_descriptors() || !is_null(0) || write(1, "x", 1) != 1 || read(p[0], &c, 1) != 1)
        return 1;
    return fcntl(2, F_GETFD) < 0;
}

int main(void)
{
    is_int(in_process(no_handlers), 0, "no handler is installed, and threads begin with the signals blocked");
    is_int(in_process(terminated), 128 + SIGTERM, "SIGTERM wakes and is told");
    is_int(in_process(hung_up), 128 + SIGHUP, "SIGHUP, too");
    is_int(in_process(twice_at_once), 0, "signals soon after the first count as the first");
    is_int(in_process(twice_later), 128 + SIGINT, "a later one ends the process at once");
    is_int(in_process(hears_others), 0, "other signals are heard on another thread");
    is_int(in_process(ignored_stays_ignored), 0, "what is ignored from the start stays ignored");
    is_int(in_process(storm), 0, "100,000 of SIGUSR1 and SIGUSR2 do nothing");
    is_int(in_process(read_ends), 0, "a signal ends a read that waits");
    is_int(in_process(descriptors), 0, "closed descriptors become /dev/null, and output to it fails");
    is_int(in_process(open_descriptors), 0, "open ones stay");
    return tap_done();
}
