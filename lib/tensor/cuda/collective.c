/* Sums over the devices of several processes, by NCCL on a stream of its own: events order it with the work. */
#include "tensor/cuda/products.h"

#include "util/err.h"

#include <nccl.h>
#include <stdlib.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

struct Ranks {
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t issued, summed;
    pthread_mutex_t guard; /* of comm: it may be abandoned while sums are issued */
    bool abandoned;
    bool leaving; /* in order, or abandoned: whoever comes first */
};

_Static_assert(sizeof(ncclUniqueId) == BACKEND_TICKET, "a ticket holds what NCCL's ranks meet by");

static int nccl_check(ncclResult_t code, const char *what)
{
    return code == ncclSuccess ? 0 : err_set(ERR_PEER, "NCCL: %s: %s", what, ncclGetErrorString(code));
}

static int ticket(Backend *be, void *bytes)
{
    ncclUniqueId id;
    (void)be;
    if (nccl_check(ncclGetUniqueId(&id), "ticket"))
        return -1;
    memcpy(bytes, &id, sizeof id);
    return 0;
}

static void forget(CudaDevice *d)
{
    struct Ranks *r = d->ranks;
    if (!r)
        return;
    if (r->issued)
        cudaEventDestroy(r->issued);
    if (r->summed)
        cudaEventDestroy(r->summed);
    if (r->stream)
        cudaStreamDestroy(r->stream);
    if (r->comm)
        ncclCommDestroy(r->comm);
    pthread_mutex_destroy(&r->guard);
    free(r);
    d->ranks = NULL;
}

static int join(Backend *be, const void *bytes, int rank, int world)
{
    CudaDevice *d = (CudaDevice *)be;
    ncclUniqueId id;
    memcpy(&id, bytes, sizeof id);
    if (!(d->ranks = calloc(1, sizeof *d->ranks)))
        return err_set(ERR_MEMORY, "NCCL: out of memory");
    struct Ranks *r = d->ranks;
    pthread_mutex_init(&r->guard, NULL);
    if (nccl_check(ncclCommInitRank(&r->comm, world, id, rank), "join") ||
        cuda_check(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking), "make a stream") ||
        cuda_check(cudaEventCreateWithFlags(&r->issued, cudaEventDisableTiming), "make an event") ||
        cuda_check(cudaEventCreateWithFlags(&r->summed, cudaEventDisableTiming), "make an event")) {
        forget(d);
        return -1;
    }
    return 0;
}

static int sum(Backend *be, float *x, int64_t n)
{
    struct Ranks *r = ((CudaDevice *)be)->ranks;
    if (cuda_check(cudaEventRecord(r->issued, cuda_stream(be)), "order a sum") ||
        cuda_check(cudaStreamWaitEvent(r->stream, r->issued, 0), "order a sum"))
        return -1;
    pthread_mutex_lock(&r->guard);
    int rc = r->abandoned ? err_set(ERR_PEER, "NCCL: another rank has ended")
                          : nccl_check(ncclAllReduce(x, x, (size_t)n, ncclFloat, ncclSum, r->comm, r->stream), "sum");
    pthread_mutex_unlock(&r->guard);
    return rc;
}

static int summed(Backend *be)
{
    struct Ranks *r = ((CudaDevice *)be)->ranks;
    return cuda_check(cudaEventRecord(r->summed, r->stream), "order sums") ||
                   cuda_check(cudaStreamWaitEvent(cuda_stream(be), r->summed, 0), "order sums")
               ? -1
               : 0;
}

/* Aborting may wait for whatever NCCL waits for, and so may a sum that holds the communicator. */
static void *abort_sums(void *arg)
{
    enum { PATIENCE_S = 5 };
    struct Ranks *r = arg;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    bool locked = !pthread_mutex_timedlock(&r->guard, &until);
    r->abandoned = true;
    ncclCommAbort(r->comm);
    if (locked)
        pthread_mutex_unlock(&r->guard);
    return NULL;
}

static void abandon(Backend *be)
{
    struct Ranks *r = ((CudaDevice *)be)->ranks;
    pthread_t thread;
    if (r && !__atomic_exchange_n(&r->leaving, true, __ATOMIC_SEQ_CST) && !pthread_create(&thread, NULL, abort_sums, r))
        pthread_detach(thread);
}

/* What was abandoned stays: its thread may still use it, and the process ends. */
static void leave(Backend *be)
{
    CudaDevice *d = (CudaDevice *)be;
    if (d->ranks && !__atomic_exchange_n(&d->ranks->leaving, true, __ATOMIC_SEQ_CST))
        forget(d);
}

void cuda_collective_table(Backend *be)
{
    be->ticket = ticket;
    be->join = join;
    be->sum = sum;
    be->summed = summed;
    be->abandon = abandon;
    be->leave = leave;
}
