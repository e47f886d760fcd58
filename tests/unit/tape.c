/* The tape: memory that repeats from step to step, gradients that are shared and taken apart, errors that
 * stick. */
#include "../tap.h"

#include "tensor/ops.h"
#include "tensor/tape.h"
#include "util/err.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N = 6, C = 96 };

static float data[4][64 * C * C], grads[4][64 * C * C];
static Tensor gradient[4];

static Tensor parameter(int i, int ndim, const int64_t *shape, float step)
{
    gradient[i] = (Tensor){ .ndim = ndim, .data = grads[i] };
    Tensor x = { .ndim = ndim, .data = data[i], .grad = &gradient[i], .needs_grad = true };
    memcpy(x.shape, shape, (size_t)ndim * sizeof *shape);
    memcpy(gradient[i].shape, shape, (size_t)ndim * sizeof *shape);
    for (int64_t k = 0; k < tensor_count(&x); k++)
        data[i][k] = sinf((float)k * step + (float)i);
    memset(grads[i], 0, sizeof grads[i]);
    return x;
}

static Tensor *network(Tape *t, Tensor *x, Tensor *w)
{
    size_t mark = tape_mark(t);
    for (int i = 0; i < 4; i++) {
        Tensor *y = op_layer_norm(t, x, NULL, NULL, 1e-6f);
        x = tape_keep(t, mark, op_residual(t, x, op_gelu(t, op_linear(t, y, w, NULL)), NULL));
    }
    return x;
}

/* Pages of the range that have memory behind them. */
static int pages_in(const void *p, size_t bytes)
{
    unsigned char in[64];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = bytes / page, count = 0;
    if (n > sizeof in || mincore((void *)((uintptr_t)p / page * page), n * page, in))
        return -1;
    for (size_t i = 0; i < n; i++)
        count += in[i] & 1;
    return (int)count;
}

static void test_rest(Tape *t)
{
    enum { BIG = 4 << 20 };
    Tensor x = parameter(0, 1, (int64_t[]){ 100 }, 0.1f);
    float got[100];
    void *where[2];
    for (int i = 0; i < 2; i++) {
        tape_begin(t, true);
        Tensor *big = tape_zeros(t, DT_F32, 1, (int64_t[]){ BIG / 4 }), *y = op_scale(t, &x, 2);
        where[i] = big ? big->data : NULL;
        ok(big && pages_in(big->data, 65536) == 16 && !tape_read(t, y, got) && got[7] == 2 * data[0][7], "step %d", i);
        tape_rest(t);
        is_int(pages_in(where[i], 65536), 0, "at rest its memory is somebody else's");
    }
    ok(where[0] == where[1], "and comes back to the same address");
}

static void test_memory(Tape *t)
{
    Tensor w = parameter(0, 2, (int64_t[]){ C, C }, 0.01f), x = parameter(1, 2, (int64_t[]){ N, C }, 0.1f);
    void *where[2][2];
    size_t peak[2];
    float first[C * C];
    for (int i = 0; i < 2; i++) {
        memset(grads[0], 0, sizeof grads[0]);
        tape_begin(t, true);
        Tensor *y = network(t, &x, &w), *loss = op_mean(t, y);
        where[i][0] = y ? y->data : NULL;
        where[i][1] = loss ? loss->data : NULL;
        ok(tape_backward(t, loss) == 0, "backward, step %d", i);
        peak[i] = tape_peak_bytes(t);
        if (i)
            ok(!memcmp(first, grads[0], sizeof first), "the same gradients, to the bit");
        memcpy(first, grads[0], sizeof first);
    }
    ok(where[0][0] == where[1][0] && where[0][1] == where[1][1], "addresses repeat");
    ok(peak[0] == peak[1], "no more memory in the second step");

    tape_begin(t, true);
    float kept[N * C], value;
    Tensor *y = network(t, &x, &w);
    memcpy(kept, y->data, sizeof kept);
    size_t used = tape_mark(t);
    tape_begin(t, false);
    y = network(t, &x, &w);
    ok(y && !memcmp(kept, y->data, sizeof kept), "inference gives the same numbers");
    ok(tape_mark(t) * 8 < used, "and keeps only the result");
    ok(!y->needs_grad, "and wants no gradient");

    tape_begin(t, true);
    Tensor *loss = op_mean(t, network(t, &x, &w));
    float before;
    tape_read(t, loss, &before);
    tape_backward(t, loss);
    tape_read(t, loss, &value);
    ok(before == value, "the loss can be read after backward");
}

/* Pieces of an arena that are alive, each filled with its number. */
enum { PIECES = 64, PIECE = 5000 };

typedef struct {
    Arena arena;
    Backend be;
    struct { unsigned char *at; size_t bytes; } piece[PIECES];
    int alive, damaged;
    unsigned seed;
} Play;

static unsigned draw(Play *p, unsigned below)
{
    return (p->seed = p->seed * 1664525u + 1013904223u) / 65536 % below;
}

static void take(Play *p)
{
    size_t bytes = 1 + draw(p, PIECE);
    unsigned char *at = arena_take(&p->arena, &p->be, bytes);
    for (int i = 0; i < p->alive; i++)
        for (size_t k = 0; k < p->piece[i].bytes; k++)
            p->damaged += p->piece[i].at[k] != i + 1;
    p->piece[p->alive].at = memset(at, p->alive + 1, bytes);
    p->piece[p->alive++].bytes = bytes;
}

/* A loop as those of networks: of each round one piece stays. Loops inside do the same. */
static void play(Play *p, int depth)
{
    size_t mark = arena_mark(&p->arena);
    int before = p->alive;
    for (int round = 0; round < 6; round++) {
        for (unsigned n = 1 + draw(p, 3); n; n--) {
            take(p);
            if (depth && draw(p, 2))
                play(p, depth - 1);
        }
        int kept = p->alive - 1 - (int)draw(p, (unsigned)(p->alive - before));
        p->piece[before] = p->piece[kept];
        p->alive = before + 1;
        memset(p->piece[before].at, p->alive, p->piece[before].bytes);
        arena_rewind(&p->arena, mark);
        if (arena_hold(&p->arena, p->piece[before].at, p->piece[before].bytes))
            p->damaged++;
    }
}

static void test_arena(void)
{
    Play p = { .be = *backend_cpu(), .seed = 1 };
    p.be.chunk = 1 << 14;
    for (int i = 0; i < 200; i++) {
        arena_rewind(&p.arena, 0);
        p.alive = 0;
        play(&p, 3);
    }
    is_int(p.damaged, 0, "what is held stays, whatever is taken around it");
    ok(p.arena.chunks > 1 && p.arena.peak < 40 * PIECE, "and what is not is taken again: %zu bytes", p.arena.peak);
    arena_free(&p.arena, &p.be);
}

/* d/dx of sum(x * (x + 2 y)) and so on: x feeds several ops, and the residual's gradient is shared by both of
 * its inputs and then added to. */
static void test_sharing(Tape *t)
{
    Tensor x = parameter(0, 1, (int64_t[]){ 5 }, 1), y = parameter(1, 1, (int64_t[]){ 5 }, 2);
    tape_begin(t, true);
    Tensor *a = op_scale(t, &x, 3), *b = op_scale(t, &y, 2);
    Tensor *s = op_add(t, a, b);        /* 3x + 2y */
    Tensor *p = op_mul(t, b, b);        /* uses b after s was made: runs backward before it */
    Tensor *z = op_add(t, op_add(t, s, p), a);
    tape_retain(t, b);
    ok(tape_backward(t, op_sum(t, z)) == 0, "backward through shared gradients");
    bool good = true, kept = b->grad != NULL;
    for (int i = 0; i < 5; i++) {
        float yi = data[1][i], db = 1 + 2 * (2 * yi);
        good = good && fabsf(grads[0][i] - 6) < 1e-6f && fabsf(grads[1][i] - 2 * db) < 1e-5f;
        kept = kept && fabsf(((float *)b->grad->data)[i] - db) < 1e-5f;
    }
    ok(good, "each input gets its own sum");
    ok(kept, "a retained gradient stays");
    tape_begin(t, true);
    ok(tape_backward(t, op_sum(t, op_add(t, &x, &x))) == 0 && fabsf(grads[0][0] - 8) < 1e-5f,
       "a parameter on both sides; gradients of two passes add up");
    Tensor *v = tape_view(t, &x, 2, (int64_t[]){ 1, -1 });
    ok(v && v->shape[1] == 5 && v->data == x.data, "a view shares its elements");
    tape_begin(t, true);
    v = tape_view(t, op_scale(t, &x, 2), 2, (int64_t[]){ 5, 1 });
    memset(grads[0], 0, sizeof grads[0]);
    ok(tape_backward(t, op_sum(t, op_mul(t, v, v))) == 0 && fabsf(grads[0][1] - 8 * data[0][1]) < 1e-5f,
       "gradients go through views");
    tape_begin(t, true);
    Tensor *unused = op_gelu(t, &x);
    memset(grads[0], 0, sizeof grads[0]);
    ok(unused && tape_backward(t, op_sum(t, &x)) == 0 && grads[0][0] == 1,
       "what the loss doesn't use adds nothing");
    x.needs_grad = false;
    memset(grads[0], 0, sizeof grads[0]);
    tape_begin(t, true);
    ok(tape_backward(t, op_sum(t, op_mul(t, &x, &y))) == 0 && grads[0][0] == 0,
       "what needs no gradient gets none");
}

/* A block with an inside, of the parameters that arg points at; fails where they are NULL. */
static Tensor *block(Tape *t, Tensor *x, const void *arg)
{
    Tensor *const *w = arg;
    if (!w[0])
        return tape_bad_shape(t, "block", "no weights", x);
    size_t mark = tape_mark(t);
    Tensor *y = op_layer_norm(t, x, NULL, NULL, 1e-6f);
    y = op_gelu(t, op_linear(t, op_gelu(t, op_linear(t, y, w[0], NULL)), w[1], NULL));
    return tape_keep(t, mark, op_residual(t, x, y, NULL));
}

static Tensor *itself(Tape *t, Tensor *x, const void *arg)
{
    (void)t;
    (void)arg;
    return x;
}

/* Blocks within blocks too. */
static Tensor *two_blocks(Tape *t, Tensor *x, const void *arg)
{
    x = tape_recompute(t, x, block, arg, 2 * sizeof(Tensor *));
    return tape_recompute(t, x, block, arg, 2 * sizeof(Tensor *));
}

/* Loss of six blocks; how: 0 as they are, 1 each recomputed, 2 pairs of them, recomputed again inside. */
static float blocks(Tape *t, Tensor *x, Tensor **w, int how)
{
    float loss = NAN;
    tape_begin(t, true);
    Tensor *z = op_scale(t, x, 1);
    for (int i = 0; i < 6; i += how == 2 ? 2 : 1)
        z = how == 0   ? block(t, z, w)
            : how == 1 ? tape_recompute(t, z, block, w, 2 * sizeof *w)
                       : tape_recompute(t, z, two_blocks, w, 2 * sizeof *w);
    Tensor *sum = op_sum(t, op_mul(t, z, z));
    return tape_backward(t, sum) || tape_read(t, sum, &loss) ? NAN : loss;
}

static void test_recompute(void)
{
    Tensor a = parameter(0, 2, (int64_t[]){ 4 * C, C }, 0.01f), b = parameter(1, 2, (int64_t[]){ C, 4 * C }, 0.02f),
           x = parameter(2, 2, (int64_t[]){ 64, C }, 0.1f);
    Tensor *w[2] = { &a, &b };
    static float want[3][4 * C * C];
    float loss[3];
    size_t peak[3];
    for (int how = 0; how < 3; how++) {
        Tape *t = tape_new(test_device());
        for (int round = 0; round < 2; round++) {
            memset(grads, 0, sizeof grads);
            loss[how] = blocks(t, &x, w, how);
        }
        peak[how] = tape_peak_bytes(t);
        tape_free(t);
        if (!how)
            for (int i = 0; i < 3; i++)
                memcpy(want[i], grads[i], sizeof want[i]);
        else
            ok(loss[how] == loss[0] && !memcmp(want[0], grads[0], sizeof want[0]) &&
                   !memcmp(want[1], grads[1], sizeof want[1]) && !memcmp(want[2], grads[2], sizeof want[2]),
               "blocks that are computed twice%s: the same bits", how == 2 ? ", and again inside" : "");
    }
    ok(peak[1] < peak[0] * 2 / 3, "they take less memory: %zu instead of %zu", peak[1], peak[0]);

    Tape *t = tape_new(test_device());
    memset(grads, 0, sizeof grads);
    x.needs_grad = false;
    ok(blocks(t, &x, w, 1) == loss[0] && !memcmp(want[0], grads[0], sizeof want[0]) && !grads[2][0],
       "an input without gradient gets none, the parameters theirs");
    x.needs_grad = true;
    tape_begin(t, true);
    Tensor *y = op_scale(t, &x, 2);
    ok(tape_recompute(t, y, itself, w, sizeof w) == y, "a body that does nothing");
    Tensor *none[2] = { NULL, NULL };
    tape_begin(t, true);
    ok(!tape_recompute(t, op_scale(t, &x, 2), block, none, sizeof none) && tape_failed(t), "a body that fails");
    tape_begin(t, false);
    ok(tape_recompute(t, &x, block, w, sizeof w) && !tape_failed(t), "without a record it is the body alone");
    tape_free(t);
}

static void test_errors(Tape *t)
{
    Tensor w = parameter(0, 2, (int64_t[]){ 3, 4 }, 1), x = parameter(1, 2, (int64_t[]){ 2, 5 }, 1);
    tape_begin(t, true);
    Tensor *y = op_linear(t, &x, &w, NULL);
    ok(!y && tape_failed(t) && err_code() == ERR_SHAPE, "shapes that don't fit are refused");
    ok(strstr(err_text(), "linear") && strstr(err_text(), "[2, 5]"), "the error names the op and the shape");
    ok(!op_gelu(t, y) && !op_gelu(t, &x), "a failed tape makes nothing more");
    ok(tape_backward(t, y) < 0, "nor does it run backwards");
    tape_begin(t, true);
    ok(op_gelu(t, &x) && !tape_failed(t), "tape_begin clears the failure");
    w.grad = NULL;
    ok(!op_gelu(t, &w) && err_code() == ERR_SHAPE, "a parameter without a place for its gradient is refused");
    tape_begin(t, true);
    int64_t label[2] = { 0, 7 };
    Tensor *l = tape_wrap(t, DT_I64, 1, (int64_t[]){ 2 }, label);
    ok(!op_cross_entropy(t, &x, l, -1) && strstr(err_text(), "label 7"), "a label out of range is refused");
    tape_begin(t, true);
    ok(tape_backward(t, op_scale(t, &x, 1)) < 0, "backward wants one number");
    tape_begin(t, true);
    ok(!tape_tensor(t, DT_F32, 3, (int64_t[]){ INT64_MAX / 2, 8, 8 }), "a size that overflows is refused");
    ok(!tape_new("tpu") && err_code() == ERR_USAGE, "an unknown device is refused");
}

/* An update against the textbook in double. */
static void test_adamw(Tape *t)
{
    enum { COUNT = 40000 };
    static float p[COUNT], g[COUNT], m[COUNT], v[COUNT], norm[3];
    ParamSpan spans[3] = {{0, 1001, 1, 3, false}, {1001, 5, 0, 1, true}, {1006, COUNT - 1006, 0, 7, false}};
    for (int i = 0; i < COUNT; i++) {
        p[i] = sinf((float)i);
        g[i] = cosf((float)i * 0.7f);
        m[i] = 0.1f * cosf((float)i * 0.3f);
        v[i] = 0.01f + 0.01f * sinf((float)i * 0.2f);
    }
    Backend *be = tape_backend(t);
    double want[3];
    int probe[3] = { 1000, 1003, COUNT - 1 };
    be->norms(be, &(NormArgs){ .g = g, .spans = spans, .nspans = 3, .norm = norm });
    for (int k = 0; k < 3; k++) {
        int i = probe[k];
        double clip = fmin(1, 3 / ((double)norm[k] + 1e-6)), d = clip * (double)g[i],
               kk = (double)spans[k].step;
        double mi = 0.9 * (double)m[i] + 0.1 * d, vi = 0.999 * (double)v[i] + 0.001 * d * d;
        double hat = mi / (1 - pow(0.9, kk)) / (sqrt(vi / (1 - pow(0.999, kk))) + 1e-8);
        want[k] =
            k == 1 ? (double)p[i] : (double)p[i] * (1 - 0.01 * 0.1 * (double)spans[k].decay) - 0.01 * hat;
    }
    double sum = 0;
    for (int i = 0; i < 1001; i++)
        sum += (double)g[i] * (double)g[i];
    ok(fabs((double)norm[0] - sqrt(sum)) < 1e-4 * sqrt(sum), "the norm of a tensor's gradient");
    AdamwArgs a = {.p = p,
                   .g = g,
                   .m = m,
                   .v = v,
                   .spans = spans,
                   .nspans = 3,
                   .lr = 0.01,
                   .weight_decay = 0.1,
                   .beta1 = 0.9,
                   .beta2 = 0.999,
                   .eps = 1e-8,
                   .norm = norm,
                   .clip = 3,
                   .zero_grad = true};
    be->adamw(be, &a);
    for (int k = 0; k < 3; k++)
        ok(fabs((double)p[probe[k]] - want[k]) < 1e-6 && g[probe[k]] == 0, "AdamW with clipping, span %d", k);
    bool finite = false;
    be->all_finite(be, DT_F32, p, COUNT, &finite);
    ok(finite, "finite numbers are");
    p[COUNT - 2] = -INFINITY;
    be->all_finite(be, DT_F32, p, COUNT, &finite);
    ok(!finite, "an infinity is found");
    p[COUNT - 2] = NAN;
    be->all_finite(be, DT_F32, p, COUNT, &finite);
    ok(!finite, "a NaN is found");
}

int main(void)
{
    omp_set_num_threads(2);
    Tape *t = tape_new(test_device());
    if (!ok(t != NULL, "a tape on the CPU"))
        return tap_done();
    test_memory(t);
    test_arena();
    test_rest(t);
    test_sharing(t);
    test_recompute();
    test_errors(t);
    test_adamw(t);
    tape_free(t);
    return tap_done();
}
