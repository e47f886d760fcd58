#include "dist/mpi/mpi_sums.h"

#include "util/err.h"

#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum { QUEUE = 1024, NAP_US = 50, LOOK_MS = 20 };

typedef struct {
    enum { SUM, SHARE } what;
    void *memory;
    int64_t n; /* floats, or bytes */
} Job;

/* One thread makes all calls of MPI; what it is to do lies in a ring. */
static struct {
    pthread_t thread;
    bool started;
    pthread_mutex_t guard;
    pthread_cond_t changed;
    Job job[QUEUE];
    uint64_t begun, done;
    bool ready, leaving, in_order;
    int rank, world, failed; /* of MPI's error codes */
} s = { .guard = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void nap(int us)
{
    nanosleep(&(struct timespec){ .tv_nsec = us * 1000L }, NULL);
}

/* Ranks often share processors, so waiting is sleeping. Who leaves without order doesn't wait any more. */
static int finish(MPI_Request *request)
{
    for (int done = 0, rc;; nap(NAP_US)) {
        if ((rc = MPI_Test(request, &done, MPI_STATUS_IGNORE)) != MPI_SUCCESS || done)
            return rc;
        pthread_mutex_lock(&s.guard);
        bool give_up = s.leaving && !s.in_order;
        pthread_mutex_unlock(&s.guard);
        if (give_up)
            return MPI_ERR_OTHER;
    }
}

static int run_job(const Job *j)
{
    const int64_t most = INT64_C(1) << 30; /* MPI counts in int */
    int64_t size = j->what == SUM ? sizeof(float) : 1;
    for (int64_t at = 0; at < j->n; at += most) {
        MPI_Request request;
        int n = (int)(j->n - at < most ? j->n - at : most);
        char *p = (char *)j->memory + at * size;
        int rc = j->what == SUM ? MPI_Iallreduce(MPI_IN_PLACE, p, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &request)
                                : MPI_Ibcast(p, n, MPI_BYTE, 0, MPI_COMM_WORLD, &request);
        if (rc == MPI_SUCCESS)
            rc = finish(&request);
        if (rc != MPI_SUCCESS)
            return rc;
    }
    return MPI_SUCCESS;
}

static void begin(void)
{
    int given, rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given);
    if (rc == MPI_SUCCESS) {
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
        MPI_Comm_rank(MPI_COMM_WORLD, &s.rank);
        MPI_Comm_size(MPI_COMM_WORLD, &s.world);
    }
    s.failed = rc == MPI_SUCCESS ? 0 : rc;
    s.ready = true;
    pthread_cond_broadcast(&s.changed);
}

static void *work(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&s.guard);
    begin();
    for (;;) {
        while (s.done == s.begun && !s.leaving)
            pthread_cond_wait(&s.changed, &s.guard);
        if (s.leaving && (s.done == s.begun || !s.in_order))
            break;
        Job j = s.job[s.done % QUEUE];
        int rc = s.failed;
        pthread_mutex_unlock(&s.guard);
        if (!rc)
            rc = run_job(&j);
        pthread_mutex_lock(&s.guard);
        s.failed = rc;
        s.done++;
        pthread_cond_broadcast(&s.changed);
    }
    bool in_order = s.in_order;
    pthread_mutex_unlock(&s.guard);
    if (in_order)
        MPI_Finalize();
    return NULL;
}

static int failure(void)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(s.failed, text, &n);
    return err_set(ERR_PEER, "MPI: %s", text);
}

static int open_sums(int *rank, int *world)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&s.thread, NULL, work, NULL);
    s.started = !rc;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return err_set(ERR_SYSTEM, "cannot start a thread");
    pthread_mutex_lock(&s.guard);
    while (!s.ready)
        pthread_cond_wait(&s.changed, &s.guard);
    pthread_mutex_unlock(&s.guard);
    *rank = s.rank;
    *world = s.world;
    return s.failed ? failure() : 0;
}

static void post(Job j)
{
    pthread_mutex_lock(&s.guard);
    while (s.begun - s.done == QUEUE)
        pthread_cond_wait(&s.changed, &s.guard);
    s.job[s.begun++ % QUEUE] = j;
    pthread_cond_broadcast(&s.changed);
    pthread_mutex_unlock(&s.guard);
}

static int sum(float *x, int64_t n)
{
    post((Job){ SUM, x, n });
    return 0;
}

static int settle(bool (*over)(void *arg), void *arg)
{
    pthread_mutex_lock(&s.guard);
    while (s.done < s.begun && !(over && over(arg))) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&s.changed, &s.guard, &until);
    }
    bool all = s.done == s.begun;
    int failed = s.failed;
    pthread_mutex_unlock(&s.guard);
    return !all ? err_set(ERR_PEER, "another rank has ended") : failed ? failure() : 0;
}

static int share(void *bytes, size_t n)
{
    post((Job){ SHARE, bytes, (int64_t)n });
    return settle(NULL, NULL);
}

static void close_sums(bool in_order)
{
    pthread_mutex_lock(&s.guard);
    s.leaving = true;
    s.in_order = in_order;
    pthread_cond_broadcast(&s.changed);
    pthread_mutex_unlock(&s.guard);
    if (s.started)
        pthread_join(s.thread, NULL);
}

const MpiSums hssl_mpi_sums = { open_sums, share, sum, settle, close_sums };
