/* Memory of any device for the tests. What these hand out lives until device_done(); a failure ends the program. */
#ifndef HSSL_TEST_DEVICE_H
#define HSSL_TEST_DEVICE_H

#include "tensor/backend.h"

/* Memory of the device with the contents of a host array, or zeros where that is NULL. */
void *device_put(Backend *be, const void *host, size_t bytes);
/* A host copy of memory of the device. */
void *device_get(Backend *be, const void *device, size_t bytes);
/* The same for so many floats. */
float *device_floats(Backend *be, const void *device, size_t n);
/* The device rounds operands of products to fewer digits than F32 has: BF16 or TF32. */
bool device_coarse(const Backend *be);
void device_set(Backend *be, void *device, const void *host, size_t bytes);

void device_done(void);

#endif
