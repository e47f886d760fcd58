#include "both.h"

#include "../device.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    DType type; /* on the device; floats are F32 on the processor */
    int64_t n;
    void *at[2];
    float *read; /* a copy of the device's */
} Buf;

Backend *side[2];
static Buf bufs[BUFFERS];
static uint32_t draws;

void both_open(void)
{
    const char *asked = getenv("HSSL_TEST_DEVICE");
    side[0] = backend_cpu();
    side[1] = backend_open(asked ? asked : "cuda");
    if (side[1])
        return;
    if (asked)
        ok(false, "%s: %s", asked, err_text());
    else
        skip(err_text(), "everything that needs a GPU");
    exit(tap_done());
}

bool both_slow(void)
{
    return !strcmp(side[1]->name, "emulated");
}

static float half(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &u, sizeof x);
    return x;
}

static bool is_float(DType t)
{
    return t == DT_F32 || t == DT_BF16;
}

static void drop(Buf *b)
{
    if (!b->at[0])
        return;
    free(b->at[0]);
    free(b->read);
    side[1]->release(side[1], b->at[1], (size_t)b->n * dtype_size(b->type) + 64);
    *b = (Buf){ .n = 0 };
}

/* New memory on both sides, filled with ones, for what was there. */
static Buf *make(int i, int type, int64_t n)
{
    Buf *b = &bufs[i];
    drop(b);
    size_t each = is_float((DType)type) || type == DT_REAL ? sizeof(float) : dtype_size((DType)type);
    *b = (Buf){ .type = type == DT_REAL ? side[1]->real : (DType)type, .n = n };
    size_t bytes = (size_t)n * dtype_size(b->type);
    b->at[0] = aligned_alloc(64, ((size_t)n * each + 127) / 64 * 64);
    b->at[1] = side[1]->alloc(side[1], bytes + 64);
    char *poison = malloc(bytes + 64);
    if (!b->at[0] || !b->at[1] || !poison)
        exit(1);
    memset(b->at[0], 0xff, (size_t)n * each);
    memset(poison, 0xff, bytes + 64);
    if (side[1]->write(side[1], b->at[1], poison, bytes + 64) || side[1]->sync(side[1]))
        exit(1);
    free(poison);
    return b;
}

static void put_floats(Buf *b)
{
    float *x = b->at[0];
    uint16_t *h = malloc((size_t)b->n * sizeof *h + 1);
    for (int64_t i = 0; b->type == DT_BF16 && i < b->n; i++) {
        uint32_t u;
        x[i] = half(x[i]);
        memcpy(&u, &x[i], sizeof u);
        h[i] = (uint16_t)(u >> 16);
    }
    const void *from = b->type == DT_BF16 ? (void *)h : (void *)x;
    if (side[1]->write(side[1], b->at[1], from, (size_t)b->n * dtype_size(b->type)) || side[1]->sync(side[1]))
        exit(1);
    free(h);
}

void input_scaled(int i, int type, int64_t n, float scale, float shift)
{
    Buf *b = make(i, type, n);
    Rng r = rng_make(7, RNG_TEST, ++draws, (uint32_t)i);
    for (int64_t k = 0; k < n; k++)
        ((float *)b->at[0])[k] = shift + scale * rng_normal(&r);
    put_floats(b);
}

void input(int i, int type, int64_t n)
{
    input_scaled(i, type, n, 1, 0);
}

void input_bytes(int i, DType type, int64_t n, const void *contents)
{
    Buf *b = make(i, type, n);
    size_t bytes = (size_t)n * dtype_size(type);
    memcpy(b->at[0], contents, bytes);
    if (side[1]->write(side[1], b->at[1], contents, bytes) || side[1]->sync(side[1]))
        exit(1);
}

void output(int i, int type, int64_t n, bool add)
{
    if (add)
        input(i, type, n);
    else
        make(i, type, n);
}

void *both_at(int s, int i)
{
    return bufs[i].n ? bufs[i].at[s] : NULL;
}

void *both_from(int s, int i, int64_t first)
{
    return (char *)bufs[i].at[s] + (size_t)first * dtype_size(both_type(s, i));
}

DType both_type(int s, int i)
{
    return s ? bufs[i].type : DT_F32;
}

void both_called(int s, const char *entry, int rc)
{
    if (rc)
        ok(false, "%s on %s: %s", entry, side[s]->name, err_text());
}

const float *both_floats(int s, int i)
{
    Buf *b = &bufs[i];
    if (!s)
        return b->at[0];
    free(b->read);
    b->read = malloc((size_t)b->n * sizeof(float) + 1);
    uint16_t *h = malloc((size_t)b->n * sizeof *h + 1);
    void *to = b->type == DT_BF16 ? (void *)h : (void *)b->read;
    if (side[1]->read(side[1], to, b->at[1], (size_t)b->n * dtype_size(b->type)))
        ok(false, "read: %s", err_text());
    for (int64_t k = 0; b->type == DT_BF16 && k < b->n; k++) {
        uint32_t u = (uint32_t)h[k] << 16;
        memcpy(&b->read[k], &u, sizeof u);
    }
    free(h);
    return b->read;
}

static bool compare(int i, double tolerance, const char *name)
{
    const Buf *b = &bufs[i];
    return is_close(both_floats(1, i), b->at[0], (size_t)b->n, device_coarse(side[1]) ? 0.02 : tolerance, "%s", name);
}

bool same(int i, const char *fmt, ...)
{
    char name[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return compare(i, 1e-4, name);
}

bool same_within(int i, double tolerance, const char *fmt, ...)
{
    char name[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return compare(i, tolerance, name);
}

void both_clear(void)
{
    for (int i = 0; i < BUFFERS; i++)
        drop(&bufs[i]);
}
