#include "tensor/backend.h"

#include "util/err.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The CUDA backend is a library of its own, loaded when it is asked for: programs start at once and run where CUDA is
 * not installed. It lies beside the programs where they were built, and in lib/hssl where they were installed. */
static void *load(const char *device)
{
    static const char *const places[] = { "hssl-cuda.so", "../hssl-cuda.so", "../lib/hssl/hssl-cuda.so" };
    const char *given = getenv("HSSL_BACKEND");
    char self[PATH_MAX] = "", path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = n > 0 ? strrchr(self, '/') : NULL;
    if (slash)
        *slash = 0;
    for (size_t i = 0; i < (given ? 1 : sizeof places / sizeof *places); i++) {
        if (given)
            snprintf(path, sizeof path, "%s", given);
        else
            snprintf(path, sizeof path, "%s/%s", self, places[i]);
        if (access(path, F_OK))
            continue;
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library)
            err_set(ERR_USAGE, "device '%s': %s", device, dlerror());
        return library;
    }
    err_set(ERR_USAGE, "device '%s': this build has no CUDA backend%s%s (make CUDA=1 builds it)", device,
            given ? " at " : "", given ? given : "");
    return NULL;
}

static Backend *backend_cuda(const char *device)
{
    typedef Backend *Open(const char *);
    static void *library;
    if (!library && !(library = load(device)))
        return NULL;
    Open *open_device;
    *(void **)&open_device = dlsym(library, "hssl_backend");
    if (!open_device) {
        err_set(ERR_USAGE, "device '%s': the backend's library has no hssl_backend", device);
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
    err_set(ERR_USAGE, "no device '%s'; there are: cpu, cuda, cuda:N", device);
    return NULL;
}
