/* The emulated device: the whole CUDA backend, kernels and host, over stand-ins for CUDA's runtime, cuBLASLt, cuDNN
 * and NCCL. Loaded in place of the CUDA backend (HSSL_BACKEND). */
#include "tensor/cuda/cuda.h"

#include "memory.h"

#include <string.h>

extern "C" {
#include "tensor/cuda/plugin.h"
/* The real hssl_backend, under this name in this library. */
Backend *real_backend(const char *name);
}

namespace {

/* Memory that rests is somebody else's: what still relies on it must show. */
void rest(Backend *, void *p, size_t bytes)
{
    memset(p, 0xff, bytes);
}

} // namespace

extern "C" Backend *hssl_backend(const char *name)
{
    Backend *be = real_backend(name);
    if (!be || !strcmp(be->name, "emulated"))
        return be;
    be->name = "emulated";
    be->chunk = (size_t)1 << 20;
    be->rest = rest;
    memory_guard(be);
    return be;
}
