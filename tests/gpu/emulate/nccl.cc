/* NCCL between processes of one host: sums go through memory of rank 0 that all of them map, and that has no name to be left
 * behind. As there, a sum waits for ever for a rank that has gone, and one that is aborted ends with whatever is there by
 * then. */
#include "nccl.h"

#include "memory.h"
#include "stream.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

enum { MOST_RANKS = 8, PIECE = 1 << 16 };

struct Meeting {
    std::atomic<int> here, times; /* ranks that have come; how often all had */
    float slots[MOST_RANKS][PIECE];
};

struct EmulatedComm {
    Meeting *meeting;
    int rank, world;
    std::atomic<bool> aborted;
};

namespace {

/* All ranks have come here, or false. */
bool meet(EmulatedComm *c)
{
    Meeting *m = c->meeting;
    int times = m->times;
    if (++m->here == c->world) {
        m->here = 0;
        m->times++;
    }
    while (m->times == times) {
        if (c->aborted)
            return false;
        usleep(50);
    }
    return true;
}

void sum(EmulatedComm *c, float *x, size_t n)
{
    for (size_t at = 0; at < n; at += PIECE) {
        size_t some = std::min((size_t)PIECE, n - at);
        memcpy(c->meeting->slots[c->rank], x + at, some * sizeof *x);
        if (!meet(c))
            return;
        for (size_t i = 0; i < some; i++) {
            float all = 0;
            for (int r = 0; r < c->world; r++)
                all += c->meeting->slots[r][i];
            x[at + i] = all;
        }
        if (!meet(c))
            return;
    }
}

} // namespace

const char *ncclGetErrorString(ncclResult_t r)
{
    static const char *const names[] = { "no error", "unhandled system error", "invalid argument" };
    return names[r];
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 0, sizeof *id);
    int fd = memfd_create("emulated-nccl", MFD_CLOEXEC);
    if (fd < 0)
        return ncclSystemError;
    if (ftruncate(fd, sizeof(Meeting))) {
        close(fd);
        return ncclSystemError;
    }
    snprintf(id->internal, sizeof id->internal, "/proc/%d/fd/%d", (int)getpid(), fd);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int world, ncclUniqueId id, int rank)
{
    int pid, theirs, fd = rank < 0 || rank >= world || world > MOST_RANKS ? -1 : open(id.internal, O_RDWR | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(Meeting), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (p == MAP_FAILED)
        return ncclSystemError;
    EmulatedComm *c = new EmulatedComm{ (Meeting *)p, rank, world, { false } };
    meet(c);
    if (sscanf(id.internal, "/proc/%d/fd/%d", &pid, &theirs) == 2 && pid == (int)getpid())
        close(theirs); /* all have it */
    *comm = c;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    munmap(c->meeting, sizeof *c->meeting);
    delete c;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c)
{
    c->aborted = true; /* its sums may still be at it */
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t type, ncclRedOp_t how, ncclComm_t c,
                           cudaStream_t s)
{
    float *x = (float *)memory_beside(to, n * sizeof *x);
    if (from != to || !x || type != ncclFloat || how != ncclSum || !s)
        return ncclInvalidArgument;
    stream_do(s, [c, x, n] { sum(c, x, n); });
    return ncclSuccess;
}
