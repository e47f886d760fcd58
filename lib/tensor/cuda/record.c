/* Work that is recorded once and issued again and again, as a CUDA graph. */
#include "tensor/cuda/cuda.h"

#include "util/err.h"

#include <stdlib.h>

typedef struct {
    cudaGraphExec_t work;
    unsigned era; /* of the scratch memory that it uses */
} Recording;

/* Constants are written once while a recording is made, so nobody may still use what lies there. */
static int record(Backend *be)
{
    CudaDevice *d = (CudaDevice *)be;
    if (cuda_check(cudaStreamSynchronize(d->stream), "wait") ||
        cuda_check(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeRelaxed), "begin to record"))
        return -1;
    d->recording = true;
    return 0;
}

static int recorded(Backend *be, void **recording)
{
    CudaDevice *d = (CudaDevice *)be;
    cudaGraph_t graph = NULL;
    Recording *r = NULL;
    d->recording = false;
    if (cuda_check(cudaStreamEndCapture(d->stream, &graph), "record") || !recording)
        goto out;
    if (!(r = calloc(1, sizeof *r))) {
        err_set(ERR_MEMORY, "out of memory for a recording");
        goto out;
    }
    r->era = d->era;
    /* What the device needs for it is taken now: later there would be no way back. */
    if (cuda_check(cudaGraphInstantiateWithFlags(&r->work, graph, 0), "keep a recording") ||
        cuda_check(cudaGraphUpload(r->work, d->stream), "keep a recording") ||
        cuda_check(cudaStreamSynchronize(d->stream), "keep a recording")) {
        if (r->work)
            cudaGraphExecDestroy(r->work);
        free(r);
        r = NULL;
    }
out:
    if (graph)
        cudaGraphDestroy(graph);
    if (recording)
        *recording = r;
    return r || !recording ? 0 : -1;
}

static int repeat(Backend *be, void *recording)
{
    const Recording *r = recording;
    CudaDevice *d = (CudaDevice *)be;
    if (r->era != d->era)
        return 1;
    return cuda_check(cudaGraphLaunch(r->work, d->stream), "repeat what was recorded");
}

static void forget(Backend *be, void *recording)
{
    Recording *r = recording;
    cudaStreamSynchronize(cuda_stream(be)); /* it may be running */
    cudaGraphExecDestroy(r->work);
    free(r);
}

void cuda_record_table(Backend *be)
{
    be->record = record;
    be->recorded = recorded;
    be->repeat = repeat;
    be->forget = forget;
}
