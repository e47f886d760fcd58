#include "stream.h"

#include <stdint.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

struct EmulatedStream {
    std::mutex guard;
    std::condition_variable changed;
    std::deque<std::function<void()>> jobs;
    uint64_t issued = 0, done = 0;
    bool ending = false;
    std::thread thread;
    EmulatedGraph *recording = nullptr;
};

struct EmulatedGraph {
    std::vector<std::function<void()>> work;
};

struct EmulatedEvent {
    cudaStream_t stream;
    uint64_t issued; /* of its jobs, by then */
};

namespace {

void work_on(EmulatedStream *s)
{
    std::unique_lock<std::mutex> lock(s->guard);
    for (;;) {
        s->changed.wait(lock, [s] { return s->ending || !s->jobs.empty(); });
        if (s->jobs.empty())
            return;
        auto job = s->jobs.front();
        s->jobs.pop_front();
        lock.unlock();
        job();
        lock.lock();
        s->done++;
        s->changed.notify_all();
    }
}

void await(EmulatedStream *s, uint64_t issued)
{
    std::unique_lock<std::mutex> lock(s->guard);
    s->changed.wait(lock, [s, issued] { return s->done >= issued; });
}

} // namespace

void stream_do(cudaStream_t s, std::function<void()> work)
{
    std::lock_guard<std::mutex> lock(s->guard);
    if (!s->thread.joinable())
        s->thread = std::thread(work_on, s);
    s->jobs.push_back(work);
    s->issued++;
    s->changed.notify_all();
}

/* ---- recordings */

static int recordings;

void stream_issue(cudaStream_t s, std::function<void()> work)
{
    if (s && s->recording)
        s->recording->work.push_back(work);
    else
        work();
}

bool stream_records(cudaStream_t s)
{
    return s && s->recording;
}

bool streams_record()
{
    return recordings > 0;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (!s || s->recording)
        return cudaErrorInvalidResourceHandle;
    s->recording = new EmulatedGraph;
    recordings++;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    if (!s || !s->recording)
        return cudaErrorInvalidResourceHandle;
    *graph = s->recording;
    s->recording = nullptr;
    recordings--;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new EmulatedGraph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t s)
{
    return exec && s && !s->recording ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    if (!exec || !s || s->recording)
        return cudaErrorInvalidResourceHandle;
    for (auto &work : exec->work)
        work();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

/* ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new EmulatedStream;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    {
        std::lock_guard<std::mutex> lock(s->guard);
        s->ending = true;
        s->changed.notify_all();
    }
    if (s->thread.joinable())
        s->thread.join();
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (!s || s->recording)
        return cudaErrorInvalidResourceHandle;
    await(s, s->issued);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new EmulatedEvent{ NULL, 0 };
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (!s)
        return cudaErrorInvalidResourceHandle;
    std::lock_guard<std::mutex> lock(s->guard);
    *e = { s, s->issued };
    return cudaSuccess;
}

/* What follows on `s` is done at once, and so waits here. */
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    if (!s)
        return cudaErrorInvalidResourceHandle;
    if (e->stream && e->stream != s)
        await(e->stream, e->issued);
    return cudaSuccess;
}
