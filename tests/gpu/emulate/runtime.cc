/* CUDA's runtime on the processor, but for streams (stream.cc). Copies that name the wrong side of the bus fail, as do frees of
 * what was not allocated. */
#include "cuda_runtime.h"

#include "memory.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>

#include <set>

namespace {

std::set<const void *> pinned;

} // namespace

const char *cudaGetErrorString(cudaError_t e)
{
    static const char *const names[] = { "no error", "invalid argument", "out of memory", "invalid resource handle",
                                         "emulated: this container refuses IPC" };
    return names[e];
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    const char *given = getenv("HSSL_EMULATE_GPUS");
    *n = given ? atoi(given) : 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int n)
{
    int all;
    cudaGetDeviceCount(&all);
    return n < 0 || n >= all ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr what, int)
{
    *value = what == cudaDevAttrMultiProcessorCount            ? 1
             : what == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 227 * 1024
             : what == cudaDevAttrComputeCapabilityMajor       ? 9
                                                               : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    if (streams_record())
        return cudaErrorNotSupported;
    *p = memory_take(bytes);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *p)
{
    if (streams_record())
        return cudaErrorNotSupported;
    return !p || memory_release(p) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    memory_left(left, all);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
    auto reads = kind == cudaMemcpyHostToDevice ? memory_lacks : memory_holds;
    auto writes = kind == cudaMemcpyDeviceToHost ? memory_lacks : memory_holds;
    const char *a = (const char *)from, *b = (const char *)to;
    if (!s || !reads(from, bytes) || !writes(to, bytes) || (a < b + bytes && b < a + bytes))
        return cudaErrorInvalidValue;
    if (stream_records(s) && kind != cudaMemcpyDeviceToDevice)
        return cudaErrorNotSupported;
    stream_issue(s, [=] { memcpy(to, from, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s)
{
    if (!s || !memory_holds(to, bytes))
        return cudaErrorInvalidValue;
    stream_issue(s, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t, unsigned)
{
    return pinned.insert(p).second ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaHostUnregister(void *p)
{
    return pinned.erase(p) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *p)
{
    return memory_lend(p, handle, sizeof *handle) ? cudaSuccess : cudaErrorNotSupported;
}

cudaError_t cudaIpcOpenMemHandle(void **p, cudaIpcMemHandle_t handle, unsigned)
{
    *p = memory_borrow(&handle);
    return *p ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t cudaIpcCloseMemHandle(void *p)
{
    return memory_give_back(p) ? cudaSuccess : cudaErrorInvalidValue;
}
