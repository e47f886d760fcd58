#include "stream/crew.h"

#include "stream/process.h"
#include "util/err.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FAILURES = 8, FIRST_DELAY_MS = 50, LAST_DELAY_MS = 2000, GRACE_MS = 2000, LOOK_MS = 250 };

extern char **environ;

typedef struct {
    pid_t pid;    /* 0: none runs */
    int life;     /* writing end of its standard input */
    int gone;     /* pidfd: readable when it has ended */
    double start; /* not before, where none runs; seconds */
    int failures; /* starts in a row that came to nothing */
} Child;

struct Crew {
    char *ticket, **argv;
    Child *child;
    int n, running, ended; /* ended: epoll of the pidfds */
    long restarts;
    bool failed, dismissed;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int spawn(Crew *c, Child *k)
{
    int pipe_ends[2];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    if (pipe2(pipe_ends, O_CLOEXEC))
        return err_system("pipe");
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[0], STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    errno = posix_spawn(&k->pid, "/proc/self/exe", &actions, &attr, c->argv, environ);
    int failed = errno;
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    close(pipe_ends[0]);
    if (failed) {
        k->pid = 0;
        close(pipe_ends[1]);
        return err_system("cannot start %s", c->argv[0]);
    }
    k->life = pipe_ends[1];
    k->gone = process_watch(k->pid);
    if (k->gone >= 0)
        epoll_ctl(c->ended, EPOLL_CTL_ADD, k->gone, &(struct epoll_event){ .events = EPOLLIN });
    c->running++;
    /* A pipe takes a line at once. A child that has ended already, or finds no ticket, is reaped as any other. */
    size_t n = strlen(c->ticket);
    if (write(k->life, c->ticket, n) != (ssize_t)n)
        close_fd(&k->life);
    return 0;
}

static void forget(Crew *c, Child *k)
{
    k->pid = 0;
    close_fd(&k->life);
    process_forget(&k->gone); /* and so out of the epoll */
    c->running--;
}

Crew *crew_start(const char *ticket_line, const char *const argv[], int n)
{
    int args = 0;
    Crew *c = calloc(1, sizeof *c);
    if (!c)
        goto memory;
    c->ended = -1;
    while (argv[args])
        args++;
    c->ticket = strdup(ticket_line);
    c->argv = calloc((size_t)args + 1, sizeof *c->argv);
    c->child = calloc((size_t)n, sizeof *c->child);
    if (!c->ticket || !c->argv || !c->child)
        goto memory;
    for (int i = 0; i < args; i++)
        if (!(c->argv[i] = strdup(argv[i])))
            goto memory;
    for (; c->n < n; c->n++)
        c->child[c->n] = (Child){ .life = -1, .gone = -1 };
    if ((c->ended = epoll_create1(EPOLL_CLOEXEC)) < 0) {
        err_system("epoll");
        goto fail;
    }
    for (int i = 0; i < n; i++)
        if (spawn(c, &c->child[i]))
            goto fail;
    return c;
memory:
    err_set(ERR_MEMORY, "out of memory");
fail:
    crew_stop(&c);
    return NULL;
}

int crew_fd(const Crew *c)
{
    return c->ended;
}

bool crew_has(const Crew *c, pid_t pid)
{
    for (int i = 0; c && i < c->n; i++)
        if (pid > 0 && c->child[i].pid == pid)
            return true;
    return false;
}

int crew_running(const Crew *c)
{
    return c->running;
}

long crew_restarts(const Crew *c)
{
    return c->restarts;
}

void crew_praise(Crew *c, pid_t pid)
{
    for (int i = 0; i < c->n; i++)
        if (c->child[i].pid == pid)
            c->child[i].failures = 0;
}

bool crew_failed(const Crew *c)
{
    if (c->failed)
        err_set(ERR_PEER, "%s: workers end as soon as they start", c->argv[0]);
    return c->failed;
}

void crew_dismiss(Crew *c)
{
    c->dismissed = true;
}

bool crew_reap(Crew *c, pid_t *pid, int *status)
{
    for (int i = 0; i < c->n; i++) {
        Child *k = &c->child[i];
        if (!k->pid || waitpid(k->pid, status, WNOHANG) != k->pid)
            continue;
        *pid = k->pid;
        forget(c, k);
        int delay = k->failures ? FIRST_DELAY_MS << (k->failures < 7 ? k->failures - 1 : 6) : 0;
        bool killed = WIFSIGNALED(*status) && (WTERMSIG(*status) == SIGKILL || WTERMSIG(*status) == SIGTERM);
        if (++k->failures > MAX_FAILURES && !killed) /* whoever is killed from outside is not to blame */
            c->failed = true;
        k->start = log_seconds() + 1e-3 * (delay < LAST_DELAY_MS ? delay : LAST_DELAY_MS);
        return true;
    }
    return false;
}

int crew_patience(Crew *c)
{
    int wait = -1;
    double now = log_seconds();
    for (int i = 0; i < c->n && !c->dismissed && !c->failed; i++) {
        Child *k = &c->child[i];
        if (k->pid) {
            if (k->gone < 0) /* no descriptor was free to watch it by */
                wait = wait < 0 || wait > LOOK_MS ? LOOK_MS : wait;
            continue;
        }
        double left = k->start - now;
        if (left <= 0) {
            c->restarts++;
            if (!spawn(c, k))
                continue;
            k->failures++;
            k->start = now + 1e-3 * LAST_DELAY_MS;
            left = 1e-3 * LAST_DELAY_MS;
        }
        int ms = (int)(1000 * left) + 1;
        wait = wait < 0 || ms < wait ? ms : wait;
    }
    return wait;
}

void crew_stop(Crew **crew)
{
    Crew *c = *crew;
    int status;
    if (!c)
        return;
    for (int i = 0; i < c->n; i++)
        close_fd(&c->child[i].life);
    double until = log_seconds() + 1e-3 * GRACE_MS;
    for (int i = 0; i < c->n; i++) {
        Child *k = &c->child[i];
        while (k->pid && waitpid(k->pid, &status, WNOHANG) == 0) {
            int left = (int)(1000 * (until - log_seconds()));
            if (left <= 0) {
                kill(k->pid, SIGKILL); /* also ends one that is stopped */
                waitpid(k->pid, &status, 0);
                break;
            }
            if (k->gone >= 0)
                poll(&(struct pollfd){ .fd = k->gone, .events = POLLIN }, 1, left);
            else
                poll(NULL, 0, 10);
        }
        process_forget(&k->gone);
    }
    for (char **a = c->argv; a && *a; a++)
        free(*a);
    free(c->argv);
    free(c->ticket);
    free(c->child);
    close_fd(&c->ended);
    free(c);
    *crew = NULL;
}
