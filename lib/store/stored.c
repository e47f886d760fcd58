#include "store/stored.h"

#include "util/err.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[STORED_TYPES] = {
    [STORED_F32] = { "F32", 4 }, [STORED_U8] = { "U8", 1 },     [STORED_I32] = { "I32", 4 },
    [STORED_I64] = { "I64", 8 }, [STORED_F64] = { "F64", 8 },   [STORED_F16] = { "F16", 2 },
    [STORED_BF16] = { "BF16", 2 }, [STORED_I16] = { "I16", 2 }, [STORED_I8] = { "I8", 1 },
    [STORED_U16] = { "U16", 2 }, [STORED_U32] = { "U32", 4 },   [STORED_U64] = { "U64", 8 },
    [STORED_BOOL] = { "BOOL", 1 },
};

const char *stored_type_name(StoredType t)
{
    return (unsigned)t < STORED_TYPES ? types[t].name : "?";
}

size_t stored_type_size(StoredType t)
{
    return (unsigned)t < STORED_TYPES ? types[t].size : 0;
}

int stored_type(const char *name)
{
    for (int t = 0; t < STORED_TYPES; t++)
        if (!strcmp(types[t].name, name))
            return t;
    return err_set(ERR_DATA, "unknown element type '%.16s'", name);
}

int64_t stored_count(StoredType dtype, int ndim, const int64_t *shape, size_t *bytes)
{
    size_t size = stored_type_size(dtype);
    int64_t count = 1, total;
    bool empty = false;
    if (!size)
        return err_set(ERR_DATA, "unknown element type %d", (int)dtype);
    if (ndim < 0 || ndim > STORED_DIMS)
        return err_set(ERR_DATA, "%d dimensions; at most %d are known", ndim, STORED_DIMS);
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return err_set(ERR_DATA, "dimension %d is %" PRId64, i, shape[i]);
        empty = empty || shape[i] == 0;
    }
    for (int i = 0; i < ndim && !empty; i++)
        if (__builtin_mul_overflow(count, shape[i], &count))
            return err_set(ERR_DATA, "the product of the shape overflows");
    if (empty)
        count = 0;
    if (__builtin_mul_overflow(count, (int64_t)size, &total))
        return err_set(ERR_DATA, "the product of the shape overflows");
    if (bytes)
        *bytes = (size_t)total;
    return count;
}

int stored_check(const StoredTensor *t)
{
    size_t bytes;
    if (!t->name || !*t->name)
        return err_set(ERR_DATA, "a tensor without a name");
    if (stored_count(t->dtype, t->ndim, t->shape, &bytes) < 0)
        return err_prefix("%s", t->name);
    if (bytes != t->bytes)
        return err_set(ERR_DATA, "%s: shape and type make %zu bytes, but there are %zu", t->name, bytes, t->bytes);
    if (bytes && !t->data)
        return err_set(ERR_DATA, "%s: no data", t->name);
    return 0;
}

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* IEEE half precision; 0x1p-24 is the smallest subnormal's value, and 112 the difference of the biases. */
static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (!exponent)
        return (sign ? -0x1p-24f : 0x1p-24f) * (float)fraction;
    return from_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

int stored_to_f32(const StoredTensor *t, float *out)
{
    size_t n = t->bytes / stored_type_size(t->dtype);
    const uint16_t *half = t->data;
    const double *wide = t->data;
    if (t->dtype == STORED_F32 && n)
        memcpy(out, t->data, t->bytes);
    else if (t->dtype == STORED_F16)
        for (size_t i = 0; i < n; i++)
            out[i] = from_half(half[i]);
    else if (t->dtype == STORED_BF16)
        for (size_t i = 0; i < n; i++)
            out[i] = from_bits((uint32_t)half[i] << 16);
    else if (t->dtype == STORED_F64)
        for (size_t i = 0; i < n; i++)
            out[i] = (float)wide[i];
    else if (t->dtype != STORED_F32)
        return err_set(ERR_DATA, "%s: elements of type %s, not of real numbers", t->name,
                       stored_type_name(t->dtype));
    return 0;
}
