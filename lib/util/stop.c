#include "util/stop.h"

#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t stop_seen;
static int stop_pipe[2] = { -1, -1 };

static void on_signal(int signal_number)
{
    static volatile sig_atomic_t came;
    int saved = errno;
    if (came == signal_number) { /* asked twice: end at once, as the signal does */
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
    came = signal_number;
    stop_request(signal_number);
    errno = saved;
}

void stop_request(int signal_number)
{
    stop_seen = signal_number;
    if (stop_pipe[1] >= 0 && write(stop_pipe[1], "", 1) < 0) {
        /* the pipe is full: it is readable already */
    }
}

int stop_install(void)
{
    if (stop_pipe[0] < 0 && pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK))
        return err_system("pipe");
    struct sigaction act = { .sa_handler = on_signal };
    sigemptyset(&act.sa_mask);
    /* A signal that is ignored from the start (nohup, a background job of sh) stays ignored. */
    const int signals[] = { SIGINT, SIGTERM };
    for (int i = 0; i < 2; i++) {
        struct sigaction old;
        if (sigaction(signals[i], NULL, &old))
            return err_system("sigaction");
        if (old.sa_handler != SIG_IGN && sigaction(signals[i], &act, NULL))
            return err_system("sigaction");
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    return 0;
}

int stop_signal(void)
{
    return stop_seen;
}

int stop_fd(void)
{
    return stop_pipe[0];
}

int stop_status(void)
{
    return stop_seen ? 128 + stop_seen : 0;
}
