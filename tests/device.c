#include "device.h"

#include "tap.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

typedef struct Held {
    struct Held *next;
    Backend *be; /* NULL: of the host */
    void *p;
    size_t bytes;
} Held;

static Held *all;

static void *hold(Backend *be, void *p, size_t bytes)
{
    Held *h = p ? malloc(sizeof *h) : NULL;
    if (!h) {
        diag("%s", be ? err_text() : "out of memory");
        exit(1);
    }
    *h = (Held){ all, be, p, bytes };
    all = h;
    return p;
}

bool device_coarse(const Backend *be)
{
    const char *asked = getenv("HSSL_TEST_DEVICE");
    return be->real == DT_BF16 || (be != backend_cpu() && asked && strstr(asked, "tf32"));
}

static void must(int rc)
{
    if (rc) {
        diag("%s", err_text());
        exit(1);
    }
}

void *device_put(Backend *be, const void *host, size_t bytes)
{
    void *p = hold(be, be->alloc(be, bytes ? bytes : 1), bytes ? bytes : 1);
    must(host ? be->write(be, p, host, bytes) : be->zero(be, p, bytes));
    return p;
}

void *device_get(Backend *be, const void *device, size_t bytes)
{
    void *p = hold(NULL, malloc(bytes ? bytes : 1), bytes);
    must(be->read(be, p, device, bytes));
    return p;
}

float *device_floats(Backend *be, const void *device, size_t n)
{
    return device_get(be, device, n * sizeof(float));
}

void device_set(Backend *be, void *device, const void *host, size_t bytes)
{
    must(be->write(be, device, host, bytes));
}

void device_done(void)
{
    for (Held *h = all, *next; h; h = next) {
        next = h->next;
        if (h->be)
            h->be->release(h->be, h->p, h->bytes);
        else
            free(h->p);
        free(h);
    }
    all = NULL;
}
