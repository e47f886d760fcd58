#include "tensor/tape_state.h"

#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t tensor_count(const Tensor *x)
{
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++)
        n *= x->shape[i];
    return n;
}

size_t tensor_bytes(const Tensor *x)
{
    return (size_t)tensor_count(x) * dtype_size(x->dtype);
}

int64_t tensor_dim(const Tensor *x, int axis)
{
    if (axis < 0)
        axis += x->ndim;
    return axis >= 0 && axis < x->ndim ? x->shape[axis] : 1;
}

int64_t tensor_rows(const Tensor *x)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < x->ndim; i++)
        n *= x->shape[i];
    return n;
}

Tape *tape_new(const char *device)
{
    Backend *be = backend_open(device);
    if (!be)
        return NULL;
    Tape *t = calloc(1, sizeof *t);
    if (!t) {
        err_set(ERR_MEMORY, "out of memory for a tape");
        return NULL;
    }
    t->be = be;
    return t;
}

void tape_free(Tape *t)
{
    if (!t)
        return;
    arena_free(&t->arena, t->be);
    arena_free(&t->small, t->be);
    arena_free(&t->operands, t->be);
    pool_free(&t->pool, t->be);
    for (HostBlock *b = t->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(t->casts);
    free(t->with_grad);
    free(t);
}

Backend *tape_backend(Tape *t)
{
    return t->be;
}

static void drop_grads(Tape *t)
{
    for (size_t i = 0; i < t->grads; i++) {
        pool_drop(&t->pool, t->with_grad[i]->buffer);
        t->with_grad[i]->buffer = NULL;
        t->with_grad[i]->pub.grad = NULL;
    }
    t->grads = 0;
}

void tape_begin(Tape *t, bool record)
{
    drop_grads(t);
    arena_rewind(&t->arena, 0);
    arena_rewind(&t->small, 0);
    arena_rewind(&t->operands, 0);
    t->together.copy = NULL;
    t->ncasts = 0;
    for (HostBlock *b = t->blocks; b; b = b->next)
        b->used = 0;
    t->block = t->blocks;
    t->last = NULL;
    t->record = record;
    t->failed = false;
}

void tape_rest(Tape *t)
{
    tape_begin(t, false);
    arena_rest(&t->arena, t->be);
    arena_rest(&t->operands, t->be);
    pool_rest(&t->pool, t->be);
}

bool tape_recording(const Tape *t)
{
    return t->record;
}

bool tape_failed(const Tape *t)
{
    return t->failed;
}

Tensor *tape_fail(Tape *t)
{
    t->failed = true;
    return NULL;
}

Tensor *tape_bad_shape(Tape *t, const char *op, const char *what, const Tensor *x)
{
    char shape[128] = "";
    size_t used = 0;
    for (int i = 0; x && i < x->ndim && used < sizeof shape; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%lld", i ? ", " : "",
                                 (long long)x->shape[i]);
    err_set(ERR_SHAPE, "%s: %s, got [%s]", op, what, shape);
    return tape_fail(t);
}

void *tape_host(Tape *t, size_t bytes)
{
    bytes = (bytes + 15) / 16 * 16;
    while (t->block && t->block->bytes - t->block->used < bytes && t->block->next)
        t->block = t->block->next;
    if (!t->block || t->block->bytes - t->block->used < bytes) {
        size_t room = bytes > HOST_BLOCK ? bytes : HOST_BLOCK;
        HostBlock *b = malloc(sizeof *b + room);
        if (!b) {
            err_set(ERR_MEMORY, "out of memory for the tape's record");
            t->failed = true;
            return NULL;
        }
        *b = (HostBlock){ .bytes = room };
        if (t->block)
            t->block->next = b;
        else
            t->blocks = b;
        t->block = b;
    }
    void *p = t->block->data + t->block->used;
    t->block->used += bytes;
    return memset(p, 0, bytes);
}

static Tensor *new_result(Tape *t, DType dtype, int ndim, const int64_t *shape, void *data, bool own)
{
    if (t->failed)
        return NULL;
    if (ndim < 0 || ndim > TENSOR_DIMS) {
        err_set(ERR_SHAPE, "a tensor of %d dimensions", ndim);
        return tape_fail(t);
    }
    int64_t count = 1;
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0 || (shape[i] && count > (INT64_MAX / 16) / shape[i])) {
            err_set(ERR_SHAPE, "a tensor with a dimension of %lld", (long long)shape[i]);
            return tape_fail(t);
        } else
            count *= shape[i];
    Result *r = tape_host(t, sizeof *r);
    if (!r)
        return NULL;
    r->pub.dtype = dtype;
    r->pub.ndim = ndim;
    for (int i = 0; i < ndim; i++)
        r->pub.shape[i] = shape[i];
    r->pub.tape_private = r;
    size_t bytes = (size_t)count * dtype_size(dtype);
    if (own && !(data = arena_take(bytes <= SMALL_BYTES ? &t->small : &t->arena, t->be, bytes)))
        return tape_fail(t);
    r->pub.data = data;
    return &r->pub;
}

Tensor *tape_tensor(Tape *t, DType dtype, int ndim, const int64_t *shape)
{
    return new_result(t, dtype, ndim, shape, NULL, true);
}

Tensor *tape_zeros(Tape *t, DType dtype, int ndim, const int64_t *shape)
{
    Tensor *x = tape_tensor(t, dtype, ndim, shape);
    if (x && t->be->zero(t->be, x->data, tensor_bytes(x)) < 0)
        return tape_fail(t);
    return x;
}

Tensor *tape_wrap(Tape *t, DType dtype, int ndim, const int64_t *shape, void *data)
{
    return new_result(t, dtype, ndim, shape, data, false);
}

Tensor *tape_like(Tape *t, const Tensor *x)
{
    return tape_tensor(t, x->dtype, x->ndim, x->shape);
}

void *tape_elements(Tape *t, DType dtype, int64_t count)
{
    void *p = arena_take(&t->arena, t->be, (size_t)count * dtype_size(dtype));
    if (!p)
        t->failed = true;
    return p;
}

float *tape_floats(Tape *t, int64_t count)
{
    return tape_elements(t, DT_F32, count);
}

void *tape_upload(Tape *t, const void *host, size_t bytes)
{
    void *p = arena_take(&t->operands, t->be, bytes);
    if (!p || t->be->write(t->be, p, host, bytes) < 0) {
        t->failed = true;
        return NULL;
    }
    return p;
}

/* BF16 is the upper half of an F32: to nearest, ties to even; what is not a number stays so. */
static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (x != x)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t x)
{
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static int keep_cast(Tape *t, const Tensor *x, const void *copy)
{
    if (t->ncasts == t->casts_room) {
        size_t room = t->casts_room ? 2 * t->casts_room : 256;
        Cast *grown = realloc(t->casts, room * sizeof *grown);
        if (!grown)
            return err_set(ERR_MEMORY, "out of memory for the tape's record");
        t->casts = grown;
        t->casts_room = room;
    }
    t->casts[t->ncasts++] = (Cast){ x, copy };
    return 0;
}

int tape_write(Tape *t, Tensor *x, const void *host)
{
    if (!x)
        return -1;
    if (x->dtype != DT_BF16)
        return t->be->write(t->be, x->data, host, tensor_bytes(x));
    uint16_t *half = malloc(tensor_bytes(x));
    if (!half && tensor_count(x))
        return err_set(ERR_MEMORY, "out of memory for a copy of a tensor");
    for (int64_t i = 0; i < tensor_count(x); i++)
        half[i] = to_bf16(((const float *)host)[i]);
    int rc = t->be->write(t->be, x->data, half, tensor_bytes(x));
    free(half);
    return rc;
}

int tape_read(Tape *t, const Tensor *x, void *host)
{
    if (!x)
        return -1;
    if (x->dtype != DT_BF16)
        return t->be->read(t->be, host, x->data, tensor_bytes(x));
    /* The halves come to the end of the host's array and are widened from its beginning. */
    int64_t n = tensor_count(x);
    float *wide = host;
    uint16_t *half = (uint16_t *)(wide + n) - n;
    if (t->be->read(t->be, half, x->data, tensor_bytes(x)) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        wide[i] = from_bf16(half[i]);
    return 0;
}

static const void *cast_into(Tape *t, Arena *a, const void *x, DType dtype, int64_t count)
{
    CastArgs c = { .from = dtype, .to = t->be->real, .n = count, .x = x };
    c.out = arena_take(a, t->be, (size_t)count * dtype_size(c.to));
    if (!c.out || t->be->cast(t->be, &c) < 0)
        t->failed = true;
    return t->failed ? NULL : c.out;
}

const void *tape_real(Tape *t, const void *x, DType dtype, int64_t count)
{
    return !x || t->failed || dtype == t->be->real ? x : cast_into(t, &t->arena, x, dtype, count);
}

void tape_operands(Tape *t, const float *first, size_t count)
{
    if (t->together.first == first && t->together.count == count)
        return;
    t->together.first = first;
    t->together.count = count;
    t->together.copy = NULL;
}

/* x's place in the copy of all, or NULL where it is not among them. */
static const void *operand_of_all(Tape *t, const Tensor *x)
{
    size_t at = ((uintptr_t)x->data - (uintptr_t)t->together.first) / sizeof(float);
    if (!t->together.first || at >= t->together.count)
        return NULL;
    if (!t->together.copy)
        t->together.copy = cast_into(t, &t->operands, t->together.first, DT_F32, (int64_t)t->together.count);
    return t->together.copy ? (const char *)t->together.copy + at * dtype_size(t->be->real) : NULL;
}

const void *tape_operand(Tape *t, const Tensor *x)
{
    if (!x || t->failed)
        return NULL;
    if (x->tape_private || x->dtype == t->be->real)
        return tape_real(t, x->data, x->dtype, tensor_count(x));
    const void *copy = operand_of_all(t, x);
    if (copy || t->failed)
        return copy;
    for (size_t i = 0; i < t->ncasts; i++)
        if (t->casts[i].x == x)
            return t->casts[i].copy;
    copy = cast_into(t, &t->operands, x->data, x->dtype, tensor_count(x));
    if (copy && keep_cast(t, x, copy) < 0)
        t->failed = true;
    return t->failed ? NULL : copy;
}

/* ---- inference */

size_t tape_mark(Tape *t)
{
    return arena_mark(&t->arena);
}

void tape_release(Tape *t, size_t mark)
{
    arena_rewind(&t->arena, mark);
}

Tensor *tape_keep(Tape *t, size_t mark, Tensor *y)
{
    if (!y || t->record || t->failed)
        return y;
    const Result *r = y->tape_private;
    const Tensor *normed = r ? r->norm.y : NULL;
    arena_rewind(&t->arena, mark);
    if (arena_hold(&t->arena, y->data, tensor_bytes(y)) < 0 ||
        (normed && arena_hold(&t->arena, normed->data, tensor_bytes(normed)) < 0))
        return tape_fail(t);
    return y;
}

void tape_norm_ahead(Tensor *x, const Tensor *gamma, Tensor *normed)
{
    Result *r = x->tape_private;
    if (r) {
        r->norm.gamma = gamma;
        r->norm.y = normed;
    }
}

Tensor *tape_normed(const Tensor *x, const Tensor *gamma)
{
    const Result *r = x->tape_private;
    return r && gamma && r->norm.gamma == gamma ? r->norm.y : NULL;
}

size_t tape_peak_bytes(const Tape *t)
{
    return t->arena.peak + t->small.peak + t->operands.peak + pool_reserved(&t->pool);
}

/* ---- views */

typedef struct {
    Node node;
    Tensor *x;
} ViewNode;

static int view_backward(Tape *t, Node *node, const void *dy)
{
    (void)dy;
    return tape_grad_pass(t, ((ViewNode *)node)->x, node->out);
}

Tensor *tape_view(Tape *t, Tensor *x, int ndim, const int64_t *shape)
{
    if (!x || t->failed)
        return NULL;
    int64_t s[TENSOR_DIMS], known = 1;
    int open = -1;
    if (ndim < 0 || ndim > TENSOR_DIMS)
        return tape_bad_shape(t, "view", "at most 5 dimensions", x);
    for (int i = 0; i < ndim; i++) {
        s[i] = shape[i];
        if (s[i] == -1 && open < 0)
            open = i;
        else
            known *= s[i];
    }
    int64_t count = tensor_count(x);
    if (open >= 0)
        s[open] = known ? count / known : 0;
    if ((open >= 0 ? known * s[open] : known) != count)
        return tape_bad_shape(t, "view", "the number of elements must stay", x);
    Tensor *y = tape_wrap(t, x->dtype, ndim, s, x->data);
    if (y && TAPE_WANTS(t, x)) {
        ViewNode *n = tape_record(t, sizeof *n, view_backward, y);
        if (!n)
            return NULL;
        n->x = x;
    }
    return t->failed ? NULL : y;
}
