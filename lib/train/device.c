#include "train/device.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <stdio.h>
#include <string.h>

const char *device_name(DeviceOptions *d, const char *on_gpu)
{
    bool given = strcmp(d->precision, "auto") != 0;
    if (!strncmp(d->device, "dry", 3)) { /* it would learn nothing */
        err_set(ERR_USAGE, "no device '%s'; there are: cpu, cuda, cuda:N", d->device);
        return NULL;
    }
    if (!strncmp(d->device, "cuda", 4) && !strchr(d->device, ',')) {
        snprintf(d->name, sizeof d->name, "%.40s,%s%s", d->device, given ? d->precision : on_gpu,
                 d->deterministic ? "" : ",any");
    } else {
        snprintf(d->name, sizeof d->name, "%s", d->device);
        if (given && strcmp(d->precision, "fp32")) {
            err_set(ERR_USAGE, "--precision %s: device %s computes in fp32", d->precision, d->device);
            return NULL;
        }
    }
    return backend_open(d->name) ? d->name : NULL;
}

const char *memory_remedy(void)
{
    return err_code() == ERR_MEMORY ? "; a smaller --batch-size, fewer local views, --recompute or, on a GPU, "
                                      "--precision bf16 need less"
                                    : "";
}
