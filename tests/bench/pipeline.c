/* The data path as a whole: hssl-load DB | hssl-augment -jN | a consumer that copies the views into a batch and
 * acknowledges them, as the trainer does.
 *
 *     build/bench/pipeline DATASET [GLOBAL_SIZE LOCALS LOCAL_SIZE [SECONDS [FLOOR]]]
 *
 * FLOOR: images/s of the renderer alone on one core (build/bench/augment), for comparison. The tools are those of
 * $PATH. Each of -j1 and -j2 is measured several times in turn, and the fastest counts: what else the machine does
 * disturbs the rest. Prints a table and a JSON line each: images and views a second, processor time an image of
 * each process, how busy a worker was; and two workers beside one, by the clock and where only workers are the
 * limit, which the clock shows on a machine that has a core for each process. */
#include "stream/sink.h"
#include "util/err.h"
#include "util/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TURNS = 3, MOST_WORKERS = 2, BATCH = 64 << 20, CREDIT = 1024 };
enum { LOADER, HUB, WORKER, CONSUMER, ROLES };
static const char *const roles[ROLES] = { "load", "hub", "worker", "consumer" };

typedef struct {
    double images, cpu[ROLES]; /* a second; seconds an image, workers together */
    double busy;               /* part of the time that a worker had a processor */
} Result;

static const char *dataset, *global_size = "224", *locals = "10", *local_size = "96";
static double seconds = 2, floor_rate;
static uint8_t *batch;

/* ---------------------------------------------------------------- processes */

/* argv[0] with in as its standard input, which is closed here; *out: the reading end of what it says. */
static pid_t start(const char *const argv[], int in, int *out)
{
    int fds[2];
    if (pipe(fds))
        die_with("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die_with("fork");
    if (!pid) {
        if (in >= 0)
            dup2(in, STDIN_FILENO);
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        execvp(argv[0], (char *const *)argv);
        die_with("%s: not in PATH", argv[0]);
    }
    close(fds[1]);
    if (in >= 0)
        close(in);
    *out = fds[0];
    return pid;
}

/* Processor time of all threads so far, to a nanosecond where the kernel's scheduler tells. */
static double cpu_of(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
        die_with("process %d has ended", (int)pid);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int children_of(pid_t pid, pid_t *child, int most)
{
    char path[64];
    long id;
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "r");
    while (f && n < most && fscanf(f, "%ld", &id) == 1)
        child[n++] = (pid_t)id;
    if (f)
        fclose(f);
    return n;
}

typedef struct {
    pid_t loader, hub, worker[MOST_WORKERS];
    int workers;
} Pipeline;

static void read_clocks(const Pipeline *p, double cpu[ROLES])
{
    cpu[LOADER] = cpu_of(p->loader);
    cpu[HUB] = cpu_of(p->hub);
    cpu[CONSUMER] = cpu_of(getpid());
    cpu[WORKER] = 0;
    for (int i = 0; i < p->workers; i++)
        cpu[WORKER] += cpu_of(p->worker[i]);
}

/* ---------------------------------------------------------------- measuring */

static void take(Sink *s)
{
    static size_t at;
    Message m;
    if (sink_next(s, &m, -1) != 1)
        die();
    for (int i = 0; i < m.tensors; i++) {
        size_t n = m.tensor[i].bytes;
        if (n > BATCH)
            die_with("views of %zu bytes", n);
        at = at + n > BATCH ? 0 : at;
        memcpy(batch + at, m.tensor[i].data, n);
        at += n;
    }
    sink_ack(s, m.seq);
    message_clear(&m);
}

static Result measure(int workers)
{
    char jobs[16];
    Pipeline p;
    Ticket t;
    Result r = { 0 };
    double before[ROLES], after[ROLES];
    int records, views;
    snprintf(jobs, sizeof jobs, "-j%d", workers);
    fflush(stdout);
    p.loader = start((const char *[]){ "hssl-load", dataset, NULL }, -1, &records);
    p.hub = start((const char *[]){ "hssl-augment", jobs, "--global-size", global_size, "--local", locals,
                                    "--local-size", local_size, NULL }, records, &views);
    if (ticket_read(views, "views", &t))
        die();
    Sink *s = sink_open(&t, &(SinkConfig){ .program = "pipeline", .kinds = "views", .credit = CREDIT,
                                           .limit = UINT64_MAX, .life = views });
    if (!s || !sink_welcome(s))
        die();
    for (double until = log_seconds() + 0.5; log_seconds() < until;) /* until all are at work */
        take(s);
    if ((p.workers = children_of(p.hub, p.worker, MOST_WORKERS)) != workers)
        die_with("%d workers instead of %d", p.workers, workers);
    read_clocks(&p, before);
    uint64_t n = 0;
    double began = log_seconds(), now = began;
    for (; now - began < seconds; now = log_seconds(), n++)
        take(s);
    read_clocks(&p, after);
    double passed = now - began;
    r.images = (double)n / passed;
    r.busy = (after[WORKER] - before[WORKER]) / passed / workers;
    for (int i = 0; i < ROLES; i++)
        r.cpu[i] = (after[i] - before[i]) / (double)n;
    sink_close(&s);
    close(views);
    while (wait(NULL) > 0)
        ;
    return r;
}

static void say(const Result *r, int workers, int views)
{
    char what[64];
    snprintf(what, sizeof what, "2x%s+%sx%s", global_size, locals, local_size);
    printf("%-14s -j%d %9.1f %9.0f", what, workers, r->images, r->images * views);
    for (int i = 0; i < ROLES; i++)
        printf(" %9.2f", 1e6 * r->cpu[i]);
    printf(" %5.0f%%", 100 * r->busy);
    if (floor_rate > 0)
        printf(" %8.2f", floor_rate * workers / r->images);
    printf("\n{\"bench\":\"pipeline\",\"views\":\"%s\",\"workers\":%d,\"images_per_s\":%.1f,\"views_per_s\":%.0f", what,
           workers, r->images, r->images * views);
    for (int i = 0; i < ROLES; i++)
        printf(",\"%s_cpu_us\":%.2f", roles[i], 1e6 * r->cpu[i]);
    printf(",\"worker_busy\":%.3f,\"images_per_worker_cpu_s\":%.1f", r->busy, 1 / r->cpu[WORKER]);
    if (floor_rate > 0)
        printf(",\"floor_images_per_s\":%.1f", floor_rate * workers);
    printf("}\n");
}

int main(int argc, char **argv)
{
    log_name("pipeline");
    signal(SIGPIPE, SIG_IGN);
    if (argc != 2 && (argc < 5 || argc > 7))
        die_with("usage: pipeline DATASET [GLOBAL_SIZE LOCALS LOCAL_SIZE [SECONDS [FLOOR]]]");
    dataset = argv[1];
    if (argc > 4) {
        global_size = argv[2];
        locals = argv[3];
        local_size = argv[4];
    }
    if (argc > 5)
        seconds = atof(argv[5]);
    if (argc > 6)
        floor_rate = atof(argv[6]);
    int views = 2 + atoi(locals);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (!(batch = malloc(BATCH)) || !(seconds > 0))
        die_with("SECONDS must be positive");
    memset(batch, 0, BATCH);

    double load[1] = { 0 };
    getloadavg(load, 1);
    printf("%ld cores, load %.1f; processor time in us an image, of all workers together\n", cores, load[0]);
    printf("%-14s %3s %9s %9s %9s %9s %9s %9s %6s %8s\n", "views", "", "images/s", "views/s", roles[LOADER], roles[HUB],
           roles[WORKER], roles[CONSUMER], "busy", floor_rate > 0 ? "x floor" : "");
    Result best[MOST_WORKERS] = { 0 };
    for (int turn = 0; turn < TURNS; turn++)
        for (int n = 1; n <= MOST_WORKERS; n++) {
            Result r = measure(n);
            if (r.images > best[n - 1].images)
                best[n - 1] = r;
        }
    for (int n = 1; n <= MOST_WORKERS; n++)
        say(&best[n - 1], n, views);
    /* Where two share what they cannot have more of, each of their images costs them more time. */
    double wall = best[1].images / best[0].images, workers = 2 * best[0].cpu[WORKER] / best[1].cpu[WORKER];
    printf("two workers do %.2f times the work of one by the clock; %.2f by their own processor time\n", wall, workers);
    printf("{\"bench\":\"pipeline-two-workers\",\"views\":\"2x%s+%sx%s\",\"cores\":%ld,\"ratio\":%.3f,"
           "\"ratio_of_workers\":%.3f,\"load\":%.1f}\n", global_size, locals, local_size, cores, wall, workers, load[0]);
    return 0;
}
