#include "util/plugin.h"

#include "util/err.h"
#include "util/log.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *plugin_load(const char *file, const char *variable, bool global, const char *made)
{
    static const char *const places[] = { "", "../", "../lib/hssl/" };
    const char *given = getenv(variable);
    char self[PATH_MAX] = "", path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = n > 0 ? strrchr(self, '/') : NULL;
    if (slash)
        *slash = 0;
    for (size_t i = 0; i < (given ? 1 : sizeof places / sizeof *places); i++) {
        if (given)
            snprintf(path, sizeof path, "%s", given);
        else
            snprintf(path, sizeof path, "%s/%s%s", self, places[i], file);
        if (access(path, F_OK))
            continue;
        void *library = dlopen(path, RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL));
        if (!library)
            err_set(ERR_USAGE, "%s", dlerror());
        else
            log_debug("plugin", "%s", path);
        return library;
    }
    err_set(ERR_USAGE, "this build has no %s%s%s (%s builds it)", file, given ? " at " : "", given ? given : "", made);
    return NULL;
}

void *plugin_symbol(void *library, const char *name)
{
    void *p = dlsym(library, name);
    if (!p)
        err_set(ERR_USAGE, "%s", dlerror());
    return p;
}
