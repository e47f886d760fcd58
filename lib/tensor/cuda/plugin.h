/* What a backend that is loaded on demand must hold. */
#ifndef HSSL_PLUGIN_H
#define HSSL_PLUGIN_H

#include "tensor/backend.h"

/* device as for backend_open. NULL with an error. */
__attribute__((visibility("default"))) Backend *hssl_backend(const char *device);

#endif
