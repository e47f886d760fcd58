#include "tensor/backend.h"

#include "util/err.h"
#include "util/plugin.h"

#include <string.h>

/* The CUDA backend is a library of its own, so that programs start at once and run where CUDA is not installed. */
static Backend *backend_cuda(const char *device)
{
    typedef Backend *Open(const char *);
    static void *library;
    Open *open_device = NULL;
    if (library || (library = plugin_load("hssl-cuda.so", "HSSL_BACKEND", false, "make CUDA=1")))
        *(void **)&open_device = plugin_symbol(library, "hssl_backend");
    if (!open_device) {
        err_prefix("device '%s'", device);
        return NULL;
    }
    return open_device(device);
}

Backend *backend_open(const char *device)
{
    if (!strcmp(device, "cpu"))
        return backend_cpu();
    if (!strncmp(device, "cuda", 4) && (!device[4] || strchr(":,", device[4])))
        return backend_cuda(device);
    if (!strncmp(device, "dry,", 4))
        return backend_dry(device + 4);
    err_set(ERR_USAGE, "no device '%s'; there are: cpu, cuda, cuda:N", device);
    return NULL;
}
