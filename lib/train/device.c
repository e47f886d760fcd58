#include "train/device.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <stdio.h>
#include <string.h>

const char *device_name(DeviceOptions *d, const char *on_gpu)
{
    bool given = strcmp(d->precision, "auto") != 0;
    if (!strncmp(d->device, "cuda", 4) && !strchr(d->device, ',')) {
        snprintf(d->name, sizeof d->name, "%.40s,%s", d->device, given ? d->precision : on_gpu);
    } else {
        snprintf(d->name, sizeof d->name, "%s", d->device);
        if (given && strcmp(d->precision, "fp32")) {
            err_set(ERR_USAGE, "--precision %s: device %s computes in fp32", d->precision, d->device);
            return NULL;
        }
    }
    return backend_open(d->name) ? d->name : NULL;
}
