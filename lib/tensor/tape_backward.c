/* What a tape records, and how it runs backwards. */
#include "tensor/tape_state.h"

#include "util/err.h"

#include <stdlib.h>
#include <string.h>

/* ---- recording */

bool tape_wants(Tape *t, int n, Tensor *const *inputs)
{
    bool wants = false;
    for (int i = 0; t->record && i < n; i++)
        if (inputs[i] && inputs[i]->needs_grad) {
            wants = true;
            if (!inputs[i]->tape_private && !inputs[i]->grad) {
                err_set(ERR_SHAPE, "a parameter needs a gradient and has no tensor for it");
                t->failed = true;
                return false;
            }
        }
    return wants;
}

void *tape_record(Tape *t, size_t size, int (*backward)(Tape *, Node *, const void *), Tensor *out)
{
    Node *node = t->failed ? NULL : tape_host(t, size);
    if (!node)
        return NULL;
    node->before = t->last;
    node->backward = backward;
    node->out = out;
    node->end = t->arena.top;
    out->needs_grad = true;
    t->last = node;
    return node;
}

static int hold(Tape *t, Result *r, Buffer *b)
{
    if (t->grads == t->grads_room) {
        size_t room = t->grads_room ? 2 * t->grads_room : 256;
        Result **grown = realloc(t->with_grad, room * sizeof *grown);
        if (!grown) {
            t->failed = true;
            return err_set(ERR_MEMORY, "out of memory for gradients");
        }
        t->with_grad = grown;
        t->grads_room = room;
    }
    t->with_grad[t->grads++] = r;
    r->buffer = b;
    r->grad = r->pub;
    r->grad.data = b->data;
    r->grad.grad = NULL;
    r->grad.needs_grad = false;
    r->pub.grad = &r->grad;
    return 0;
}

void *tape_grad(Tape *t, Tensor *x, bool *add)
{
    bool dummy;
    if (!add)
        add = &dummy;
    *add = false;
    if (!x || !x->needs_grad || t->failed)
        return NULL;
    if (!x->tape_private) {
        *add = true;
        return x->grad->data;
    }
    Result *r = x->tape_private;
    if (r->buffer && r->buffer->refs == 1) {
        *add = true;
        return r->buffer->data;
    }
    Buffer *b = pool_take(&t->pool, t->be, tensor_bytes(x));
    if (!b) {
        t->failed = true;
        return NULL;
    }
    if (!r->buffer) {
        if (hold(t, r, b) < 0)
            return NULL;
    } else {
        /* Somebody else still reads the shared gradient: go on with a copy. */
        if (t->be->move(t->be, b->data, r->buffer->data, tensor_bytes(x)) < 0) {
            t->failed = true;
            return NULL;
        }
        pool_drop(&t->pool, r->buffer);
        r->buffer = b;
        r->grad.data = b->data;
        *add = true;
    }
    return b->data;
}

int tape_grad_pass(Tape *t, Tensor *x, Tensor *out)
{
    if (!x || !x->needs_grad)
        return 0;
    Result *from = out->tape_private;
    Result *to = x->tape_private;
    if (to && !to->buffer && x->dtype == out->dtype) {
        from->buffer->refs++;
        return hold(t, to, from->buffer);
    }
    CastArgs c = { .from = out->dtype, .to = x->dtype, .n = tensor_count(x), .x = from->buffer->data };
    c.out = tape_grad(t, x, &c.add);
    return c.out ? t->be->cast(t->be, &c) : -1;
}

void *tape_grad_own(Tape *t, Tensor *x, Tensor *out, bool *add)
{
    Result *to = x ? x->tape_private : NULL, *from = out->tape_private;
    if (to && to != from && x->needs_grad && to->buffer == from->buffer && to->buffer->refs == 2 &&
        !from->retained) {
        *add = true;
        return to->buffer->data;
    }
    return tape_grad(t, x, add);
}

void *tape_grad_added(Tape *t, Tensor *x)
{
    bool add;
    void *dx = tape_grad(t, x, &add);
    if (dx && !add && t->be->zero(t->be, dx, tensor_bytes(x)) < 0)
        t->failed = true;
    return dx;
}

int tape_grad_give(Tape *t, Tensor *x, void *gradient)
{
    Result *r = x->tape_private;
    /* Other memory of the arena would be given up before the gradient is read. */
    if (r && !r->buffer && !r->retained && gradient == x->data) {
        Buffer *b = tape_host(t, sizeof *b); /* none of the pool's, to which it does not return */
        if (!b)
            return -1;
        *b = (Buffer){ .data = gradient, .refs = 1 };
        return hold(t, r, b);
    }
    CastArgs c = { .from = x->dtype, .to = x->dtype, .n = tensor_count(x), .x = gradient };
    c.out = tape_grad(t, x, &c.add);
    return c.out ? t->be->cast(t->be, &c) : -1;
}

void tape_set_spent(Tensor *x)
{
    ((Result *)x->tape_private)->spent = true;
}

bool tape_spent(const Tensor *x)
{
    const Result *r = x->tape_private;
    return r && r->spent;
}

void tape_retain(Tape *t, Tensor *x)
{
    (void)t;
    if (x && x->tape_private)
        ((Result *)x->tape_private)->retained = true;
}

int tape_run_backward(Tape *t)
{
    for (Node *n = t->last; n && !t->failed; n = n->before) {
        Result *r = n->out->tape_private;
        if (!r->buffer)
            continue;
        arena_rewind(&t->arena, n->end);
        Buffer *b = r->buffer;
        if (n->backward(t, n, b->data) < 0)
            t->failed = true;
        /* Its consumers came before it in this order, so nobody will ask for the gradient again. The entry
         * stays in with_grad with its buffer gone. */
        if (!r->retained) {
            pool_drop(&t->pool, r->buffer);
            r->buffer = NULL;
            r->pub.grad = NULL;
        }
    }
    t->last = NULL;
    return t->failed ? -1 : 0;
}

int tape_backward_from(Tape *t, int n, Tensor *const *outs, Tensor *const *gouts)
{
    for (int i = 0; i < n; i++) {
        if (t->failed || !outs[i] || !gouts[i])
            return -1;
        if (!outs[i]->needs_grad || !outs[i]->tape_private)
            continue;
        if (tensor_count(outs[i]) != tensor_count(gouts[i])) {
            tape_bad_shape(t, "backward", "a gradient must have its output's shape", gouts[i]);
            return -1;
        }
        CastArgs c = { .from = gouts[i]->dtype, .to = outs[i]->dtype, .n = tensor_count(outs[i]),
                       .x = gouts[i]->data };
        c.out = tape_grad(t, outs[i], &c.add);
        if (!c.out || t->be->cast(t->be, &c) < 0)
            return -1;
    }
    return tape_run_backward(t);
}

int tape_backward(Tape *t, Tensor *loss)
{
    if (t->failed || !loss)
        return -1;
    if (tensor_count(loss) != 1) {
        tape_bad_shape(t, "backward", "the loss must be one number", loss);
        return -1;
    }
    static const float one = 1;
    Tensor *seed = tape_tensor(t, DT_F32, loss->ndim, loss->shape);
    if (!seed || tape_write(t, seed, &one) < 0)
        return -1;
    return tape_backward_from(t, 1, &loss, &seed);
}

/* ---- recomputation */

typedef struct {
    Node node;
    Tensor *x;
    TapeBody *body;
    void *arg;
} RecomputeNode;

/* The gradient that `from` holds becomes to's, where nobody else wants it. */
static int hand_over(Tape *t, Result *from, Tensor *to)
{
    Result *r = to->tape_private;
    Buffer *b = from->buffer;
    if (!b)
        return 0;
    if (r && !r->buffer && from->pub.dtype == to->dtype && !from->retained) {
        from->buffer = NULL;
        from->pub.grad = NULL;
        return hold(t, r, b);
    }
    CastArgs c = { .from = from->pub.dtype, .to = to->dtype, .n = tensor_count(to), .x = b->data };
    c.out = tape_grad(t, to, &c.add);
    return c.out ? t->be->cast(t->be, &c) : -1;
}

/* Runs the body once more, this time recording, in a record of its own. */
static int recompute_backward(Tape *t, Node *node, const void *dy)
{
    RecomputeNode *n = (RecomputeNode *)node;
    Node *outer = t->last;
    (void)dy;
    t->last = NULL;
    Tensor *x = tape_wrap(t, n->x->dtype, n->x->ndim, n->x->shape, n->x->data);
    if (x)
        x->needs_grad = n->x->needs_grad;
    Tensor *y = x ? n->body(t, x, n->arg) : NULL;
    int rc = y ? 0 : -1;
    if (!rc && y->needs_grad)
        rc = hand_over(t, node->out->tape_private, y) || tape_run_backward(t) ? -1 : 0;
    t->last = outer;
    return rc || (x->needs_grad && hand_over(t, x->tape_private, n->x)) ? -1 : 0;
}

/* Release all that was made after the mark except y, which moves down there: what is recorded from here on is released from
 * its end backwards, and y comes last. */
static int settle(Tape *t, size_t mark, Tensor *y)
{
    size_t bytes = tensor_bytes(y);
    arena_rewind(&t->arena, mark);
    tape_norm_ahead(y, NULL, NULL);
    if (bytes <= SMALL_BYTES)
        return 0;
    void *to = arena_take(&t->arena, t->be, bytes);
    if (!to || (to != y->data && t->be->move(t->be, to, y->data, bytes) < 0))
        return -1;
    y->data = to;
    return 0;
}

Tensor *tape_recompute(Tape *t, Tensor *x, TapeBody *body, const void *arg, size_t bytes)
{
    if (!x || t->failed)
        return NULL;
    if (!t->record)
        return body(t, x, arg);
    size_t mark = tape_mark(t);
    t->record = false;
    Tensor *y = body(t, x, arg);
    t->record = true;
    if (!y || y == x)
        return y;
    if (t->failed || settle(t, mark, y) < 0)
        return tape_fail(t);
    RecomputeNode *n = tape_record(t, sizeof *n, recompute_backward, y);
    if (!n || !(n->arg = tape_host(t, bytes)))
        return NULL;
    n->x = x;
    n->body = body;
    memcpy(n->arg, arg, bytes);
    return y;
}

/* ---- milestones */

typedef struct {
    Node node;
    Tensor *x;
    int (*reached)(void *arg);
    void *arg;
} Milestone;

static int milestone_backward(Tape *t, Node *node, const void *dy)
{
    Milestone *n = (Milestone *)node;
    (void)dy;
    return tape_grad_pass(t, n->x, node->out) || n->reached(n->arg) ? -1 : 0;
}

Tensor *tape_milestone(Tape *t, Tensor *x, int (*reached)(void *arg), void *arg)
{
    if (!x || t->failed || !TAPE_WANTS(t, x))
        return t->failed ? NULL : x;
    Tensor *y = tape_wrap(t, x->dtype, x->ndim, x->shape, x->data);
    Milestone *n = y ? tape_record(t, sizeof *n, milestone_backward, y) : NULL;
    if (!n)
        return NULL;
    n->x = x;
    n->reached = reached;
    n->arg = arg;
    return y;
}
