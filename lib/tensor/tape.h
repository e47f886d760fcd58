/* The inside of a tape, for the ops. */
#ifndef HSSL_TAPE_H
#define HSSL_TAPE_H

#include "tensor/backend.h"
#include "tensor/tensor.h"

/* Device memory handed out from its low end, in chunks that are kept. A position is bytes from the start of
 * the first chunk, and going back to one releases all that came after it. Some of that can be held where it lies: what is
 * taken from then on goes around it, until the arena goes back to a position from before. */
typedef struct {
    struct { char *base; size_t start, bytes; } chunk[64];
    struct { size_t from, to, since; } held[16]; /* since: where the top was then; marks made later lie above */
    int chunks, current, holds;
    size_t top, peak;
} Arena;

void *arena_take(Arena *a, Backend *be, size_t bytes);
size_t arena_mark(Arena *a);
void arena_rewind(Arena *a, size_t position);
/* Hold p, of this arena, which was just released. -1 with an error. */
int arena_hold(Arena *a, const void *p, size_t bytes);
size_t arena_reserved(const Arena *a);
void arena_rest(Arena *a, Backend *be);
void arena_free(Arena *a, Backend *be);

/* Gradients: buffers that come and go in no order. Released ones are kept and given again, the smallest
 * that fits, so that the same requests get the same addresses in each step. */
typedef struct {
    void *data;
    size_t bytes;
    int refs; /* 0: free */
} Buffer;

typedef struct {
    Buffer **buffers;
    size_t count, room, live, peak;
} Pool;

Buffer *pool_take(Pool *p, Backend *be, size_t bytes);
void pool_drop(Pool *p, Buffer *b);
size_t pool_reserved(const Pool *p);
void pool_rest(Pool *p, Backend *be);
void pool_free(Pool *p, Backend *be);

/* One recorded op. Ops embed it as the first member of a struct of their own. */
typedef struct Node {
    struct Node *before;
    int (*backward)(Tape *t, struct Node *node, const void *dy); /* dy: gradient of out, of its dtype */
    Tensor *out;
    size_t end; /* of the arena when the op was done: what follows is dead when it runs backwards */
} Node;

/* Host memory until the next tape_begin, zeroed. */
void *tape_host(Tape *t, size_t bytes);
/* A result of x's shape. */
Tensor *tape_like(Tape *t, const Tensor *x);
/* F32 device memory in the step arena; in a backward function it lasts until that function returns. */
float *tape_floats(Tape *t, int64_t count);
/* The same of any dtype. */
void *tape_elements(Tape *t, DType dtype, int64_t count);
/* The contents of a host array on the device, until the next tape_begin: the same in each step, since a step that is
 * repeated (tensor/recording.h) does not upload it again. */
void *tape_upload(Tape *t, const void *host, size_t bytes);

/* What an op took of the step arena after the mark (tape_mark) is free again: no node may know it. */
void tape_release(Tape *t, size_t mark);

/* x as an operand of the device's products, of its `real` type: x's own memory or a copy, which is made once a step
 * where x is the caller's (a parameter). NULL after an error, and for NULL. */
const void *tape_operand(Tape *t, const Tensor *x);
/* The same of an array in the step arena. */
const void *tape_real(Tape *t, const void *x, DType dtype, int64_t count);

/* Whether an op on these inputs must be able to run backwards. An input that needs a gradient and has
 * no place for one is an error: then false, and the tape has failed. */
bool tape_wants(Tape *t, int n, Tensor *const *inputs);
#define TAPE_WANTS(t, ...)                                                            \
    tape_wants(t, (int)(sizeof((Tensor *[]){ __VA_ARGS__ }) / sizeof(Tensor *)), (Tensor *[]){ __VA_ARGS__ })

/* Record an op that was run and whose inputs want gradients: a zeroed struct of `size` bytes that starts with
 * a Node, linked to the tape, out->needs_grad set. NULL with the tape failed. */
void *tape_record(Tape *t, size_t size, int (*backward)(Tape *, Node *, const void *), Tensor *out);

/* Where the gradient of x goes, of x's dtype: NULL when it needs none (or on failure: check tape_failed). *add
 * tells whether something is there already. */
void *tape_grad(Tape *t, Tensor *x, bool *add);
/* Pass the gradient of out on to x unchanged, without a copy where possible. */
int tape_grad_pass(Tape *t, Tensor *x, Tensor *out);

/* tape_grad for a kernel that reads out's gradient before it writes x's, row by row: where that gradient was
 * passed on to x (tape_grad_pass), the two may be one buffer. */
void *tape_grad_own(Tape *t, Tensor *x, Tensor *out, bool *add);
/* A gradient that kernels only add to: new ones are cleared. */
void *tape_grad_added(Tape *t, Tensor *x);

/* A gradient of x, of its type, for the backward function that calls this: without a copy where it lies in x's own place and x
 * has no other. */
int tape_grad_give(Tape *t, Tensor *x, void *gradient);

/* Logits, which nobody reads but one loss: it may put their gradient in their place. */
void tape_set_spent(Tensor *x);
bool tape_spent(const Tensor *x);

/* The layer norm of a result, made ahead of its use, for op_layer_norm with the same gamma to take: tape_normed is NULL
 * where there is none. Inference keeps it with x. */
void tape_norm_ahead(Tensor *x, const Tensor *gamma, Tensor *normed);
Tensor *tape_normed(const Tensor *x, const Tensor *gamma);

/* err_set for ops: records a shape error and fails the tape. Returns NULL. */
Tensor *tape_bad_shape(Tape *t, const char *op, const char *what, const Tensor *x);

static inline int64_t tensor_last(const Tensor *x)
{
    return x->ndim ? x->shape[x->ndim - 1] : 1;
}

/* Of one shape and type. */
static inline bool tensor_alike(const Tensor *x, const Tensor *y)
{
    bool same = x->ndim == y->ndim && x->dtype == y->dtype;
    for (int i = 0; same && i < x->ndim; i++)
        same = x->shape[i] == y->shape[i];
    return same;
}

/* The memory of x or NULL. */
static inline void *data_of(const Tensor *x)
{
    return x ? x->data : NULL;
}

#endif
