/* --device and --precision, which read alike in every program that computes:
 *
 *     static DeviceOptions device = DEVICE_DEFAULT;
 *     static const Opt opts[] = { ..., DEVICE_OPTS(&device), OPT_END };
 *     const char *name = device_name(&device, "bf16");
 */
#ifndef HSSL_TRAIN_DEVICE_H
#define HSSL_TRAIN_DEVICE_H

#include "util/opt.h"

typedef struct {
    const char *device, *precision;
    bool deterministic;
    char name[64];
} DeviceOptions;

#define DEVICE_DEFAULT { .device = "cpu", .precision = "auto", .deterministic = true }
#define DEVICE_OPTS(d) \
    OPT_STR("device", 0, &(d)->device, "cpu|cuda[:N]", "compute on the processor, or on GPU N"), \
    OPT_CHOICE("precision", 0, &(d)->precision, "auto|bf16|tf32|fp32", "of products and activations, on a GPU"), \
    OPT_FLAG("deterministic", 0, &(d)->deterministic, "on a GPU: the same bits from run to run")

/* The two as one name for backend_open, kept in d: "cpu", "cuda:1,bf16", "cuda:1,bf16,any". on_gpu: what auto means there; on the processor
 * it is fp32, and nothing else is to be had. The device is opened, so that what is wrong with it shows first: NULL
 * with an error. */
const char *device_name(DeviceOptions *d, const char *on_gpu);

/* What to say behind err_text() where memory was short: which options need less. Else "". */
const char *memory_remedy(void);

#endif
