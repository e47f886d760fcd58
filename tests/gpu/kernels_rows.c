/* As kernels.c: what works elementwise, by rows, on losses, and what trains. */
#include "both.h"

#include <math.h>
#include <stdio.h>

static const int64_t sizes[] = { 0, 1, 3, 17, 65, 1000 };
static const bool both_ways[] = { false, true };

static int most(void)
{
    return both_slow() ? 5 : 6;
}

/* Elements that no pack of 16 bytes begins with, operand by operand. */
static void test_unaligned(void)
{
    enum { N = 1000 };
    for (int odd = 0; odd < 4; odd++) { /* 3: none */
        int64_t x = odd == 0, y = odd == 1, out = odd == 2;
        input(0, DT_REAL, N + 1);
        input(1, DT_REAL, N + 1);
        output(2, DT_REAL, N + 1, true);
        BOTH(add, PointArgs, .type = T(0), .n = N, .x = FROM(0, x), .y = FROM(1, y), .out = FROM(2, out), .factor = 2);
        same(2, "x + f y where operand %d begins anywhere", odd);
        output(2, DT_REAL, N + 1, true);
        BOTH(residual, ResidualArgs, .type = T(0), .samples = 5, .stride = N / 5, .x = FROM(0, x), .y = FROM(1, y),
             .out = FROM(2, out));
        same(2, "a residual where operand %d does", odd);
        input(3, DT_F32, N + 1);
        output(4, DT_REAL, N + 1, true);
        BOTH(cast, CastArgs, .from = T(3), .to = T(4), .n = N, .x = FROM(3, x), .out = FROM(4, out));
        same(4, "a cast where operand %d does", odd);
        input(5, DT_F32, 40);
        input(6, DT_F32, 40);
        output(7, DT_REAL, N + 1, true);
        output(8, DT_F32, 2 * N / 40, false);
        output(9, DT_REAL, N + 1, true);
        for (int s = 0; s < 2; s++) {
            RowArgs a = { .type = T(0), .rows = N / 40, .cols = 40, .x = FROM(0, x), .y = FROM(7, out), .dy = FROM(1, y),
                          .dx = FROM(9, out), .add = odd == 1, .eps = 1e-6f, .gamma = P(5), .beta = P(6), .stat = P(8) };
            both_called(s, "layer_norm", side[s]->layer_norm(side[s], &a));
            both_called(s, "layer_norm_backward", side[s]->layer_norm_backward(side[s], &a));
        }
        same_within(9, 1e-3, "its gradient where operand %d does", odd);
        same(7, "a layer norm where operand %d does", odd);
        both_clear();
    }
}

static void test_points(void)
{
    for (int i = 0; i < most(); i++)
        for (size_t w = 0; w < 2; w++) {
            int64_t n = sizes[i] * 7;
            const char *how = w ? ", added" : "";
            bool add = both_ways[w];
            input(0, DT_REAL, n);
            input(1, DT_REAL, n);
            for (int o = 2; o < 8; o++)
                output(o, DT_REAL, n, add);
            BOTH(add, PointArgs, .type = T(0), .n = n, .x = P(0), .y = P(1), .out = P(2), .factor = -0.5f, .add = add);
            same(2, "x + f y, %d%s", (int)n, how);
            BOTH(add, PointArgs, .type = T(0), .n = n, .x = P(0), .out = P(3), .factor = 3, .add = add);
            same(3, "f x, %d%s", (int)n, how);
            BOTH(mul, PointArgs, .type = T(0), .n = n, .x = P(0), .y = P(1), .out = P(4), .factor = 2, .add = add);
            same(4, "f x y, %d%s", (int)n, how);
            if (!add) {
                BOTH(gelu, PointArgs, .type = T(0), .n = n, .x = P(0), .out = P(5));
                same(5, "gelu, %d", (int)n);
            }
            BOTH(gelu_backward, PointArgs, .type = T(0), .n = n, .x = P(0), .y = P(1), .out = P(6), .add = add);
            same_within(6, 1e-3, "its gradient, %d%s", (int)n, how);
            both_clear();
            input(0, DT_F32, 1);
            output(1, DT_REAL, n, add);
            BOTH(add_scalar, PointArgs, .type = T(1), .n = n, .y = P(0), .out = P(1), .factor = 0.25f, .add = add);
            same(1, "a number in each of %d%s", (int)n, how);
            both_clear();
            input_scaled(0, DT_F32, 1, add ? 0 : 1, 1);
            output(1, DT_REAL, n, true);
            BOTH(scale, PointArgs, .type = T(1), .n = n, .y = P(0), .out = P(1));
            same(1, "%d numbers, each %s", (int)n, add ? "times 1" : "times another");
            both_clear();
        }
    for (int64_t samples = 0; samples < 4; samples++)
        for (int how = 0; how < 4; how++) {
            input(0, DT_REAL, samples * 33);
            input(1, DT_REAL, samples * 33);
            input(2, DT_F32, samples);
            output(3, DT_REAL, samples * 33, false);
            BOTH(residual, ResidualArgs, .type = T(0), .samples = samples, .stride = 33, .x = how & 1 ? P(0) : NULL, .y = P(1),
                 .scale = how & 2 ? P(2) : NULL, .out = P(3));
            same(3, "residual of %d, %s %s", (int)samples, how & 1 ? "with x" : "alone", how & 2 ? "scaled" : "");
            both_clear();
        }
}

enum { DX = 1, DGAMMA = 2, DBETA = 4, ALL_GRADIENTS = 7 };

/* A layer norm and the gradients that are wanted: y in 3, dx in 6, dgamma in 7, dbeta in 8. */
static void norm_both(int64_t rows, int64_t cols, int wanted, bool add)
{
    int64_t n = rows * cols;
    input_scaled(0, DT_REAL, n, 2, 0.5f);
    input(1, DT_F32, cols);
    input(2, DT_F32, cols);
    output(3, DT_REAL, n, false);
    output(4, DT_F32, 2 * rows, false);
    input(5, DT_REAL, n);
    output(6, DT_REAL, n, add);
    output(7, DT_F32, cols, true);
    output(8, DT_F32, cols, true);
    for (int s = 0; s < 2; s++) {
        RowArgs a = { .type = T(0), .type_y = T(3), .rows = rows, .cols = cols, .x = P(0), .y = P(3), .dy = P(5),
                      .dx = wanted & DX ? P(6) : NULL, .add = add, .eps = 1e-6f, .gamma = P(1), .beta = P(2), .stat = P(4),
                      .dgamma = wanted & DGAMMA ? P(7) : NULL, .dbeta = wanted & DBETA ? P(8) : NULL };
        both_called(s, "layer_norm", side[s]->layer_norm(side[s], &a));
        both_called(s, "layer_norm_backward", side[s]->layer_norm_backward(side[s], &a));
    }
}

static void test_rows(void)
{
    for (int r = 0; r < most(); r++)
        for (int c = 1; c < most(); c++) {
            int64_t rows = sizes[r], cols = sizes[c], n = rows * cols;
            bool add = (r + c) % 2;
            char what[64];
            snprintf(what, sizeof what, "%d x %d%s", (int)rows, (int)cols, add ? ", added" : "");
            if (rows > 65)
                continue;
            norm_both(rows, cols, ALL_GRADIENTS, add);
            if (cols > 3) { /* of one or two columns nothing is left but rounding, divided by eps */
                same(3, "layer norm, %s", what);
                same_within(6, 1e-3, "its gradient, %s", what);
                same_within(7, 1e-3, "of gamma, %s", what);
            }
            same_within(8, 1e-3, "of beta, %s", what);
            both_clear();

            input(0, DT_REAL, n);
            output(3, DT_REAL, n, false);
            output(4, DT_F32, rows, false);
            input(5, DT_REAL, n);
            output(6, DT_REAL, n, add);
            for (int s = 0; s < 2; s++) {
                RowArgs a = { .type = T(0), .type_y = T(3), .rows = rows, .cols = cols, .x = P(0), .y = P(3), .dy = P(5),
                              .dx = P(6), .add = add, .eps = 1e-12f, .stat = P(4) };
                both_called(s, "l2_normalize", side[s]->l2_normalize(side[s], &a));
                both_called(s, "l2_normalize_backward", side[s]->l2_normalize_backward(side[s], &a));
            }
            same(3, "unit length, %s", what);
            if (cols > 1)
                same_within(6, 1e-3, "its gradient, %s", what);
            both_clear();

            input(0, DT_F32, n);
            input(1, DT_F32, rows);
            output(3, DT_REAL, n, false);
            output(4, DT_F32, rows, false);
            input(5, DT_REAL, n);
            output(6, DT_F32, n, true);
            output(7, DT_F32, rows, true);
            for (int s = 0; s < 2; s++) {
                RowArgs a = { .type = DT_F32, .type_y = T(3), .rows = rows, .cols = cols, .x = P(0), .y = P(3), .dy = P(5),
                              .dx = P(6), .add = true, .gamma = P(1), .stat = P(4), .dgamma = P(7) };
                both_called(s, "weight_norm", side[s]->weight_norm(side[s], &a));
                both_called(s, "weight_norm_backward", side[s]->weight_norm_backward(side[s], &a));
            }
            same(3, "weight norm, %s", what);
            if (cols > 1)
                same_within(6, 1e-3, "its gradient, %s", what);
            same_within(7, 1e-3, "of its lengths, %s", what);
            both_clear();

            for (int log = 0; log < 2; log++) {
                input_scaled(0, DT_REAL, n, 3, 0);
                output(3, DT_REAL, n, false);
                input(5, DT_REAL, n);
                output(6, DT_REAL, n, add);
                for (int s = 0; s < 2; s++) {
                    RowArgs a = { .type = T(0), .type_y = T(3), .rows = rows, .cols = cols, .x = P(0), .y = P(3), .dy = P(5),
                                  .dx = P(6), .add = add };
                    Backend *be = side[s];
                    both_called(s, "softmax", log ? be->log_softmax(be, &a) : be->softmax(be, &a));
                    both_called(s, "softmax_backward", log ? be->log_softmax_backward(be, &a) : be->softmax_backward(be, &a));
                }
                if (cols > 1 || !log)
                    same(3, "%ssoftmax, %s", log ? "log " : "", what);
                if (cols > 1)
                    same_within(6, 1e-3, "its gradient, %s", what);
                both_clear();
            }
        }
}

/* Columns that take one to several packs of each lane, and more than it holds; what is asked for, and what is not. */
static void test_wide_norms(void)
{
    static const int64_t widths[] = { 8, 136, 264, 400, 520, 1000, 1032 };
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int how = 0; how < 4; how++) {
            static const char *const names[] = { "all", "parameters alone", "x alone, added", "beta and x" };
            static const int wanted[] = { ALL_GRADIENTS, DGAMMA | DBETA, DX, DX | DBETA };
            int64_t rows = 37, cols = widths[i];
            norm_both(rows, cols, wanted[how], how == 2);
            same(3, "layer norm of %d columns", (int)cols);
            if (how != 1)
                same_within(6, 1e-3, "its gradients, %s: x", names[how]);
            same_within(7, 1e-3, "its gradients, %s: gamma", names[how]);
            same_within(8, 1e-3, "its gradients, %s: beta", names[how]);
            both_clear();
        }
}

/* What the device does at once, where it does, is done by the processor one after the other. */
static void residual_norm(Backend *be, int s, const ResidualNormArgs *a)
{
    both_called(s, "residual_norm", be->residual_norm ? be->residual_norm(be, a)
                                                      : be->residual(be, &a->sum) || be->layer_norm(be, &a->norm));
}

static void residual_norm_backward(Backend *be, int s, const ResidualNormArgs *a)
{
    both_called(s, "residual_norm_backward",
                be->residual_norm_backward ? be->residual_norm_backward(be, a)
                                           : be->layer_norm_backward(be, &a->norm) || be->residual(be, &a->sum));
}

static void test_residual_norms(void)
{
    static const int64_t widths[] = { 7, 8, 136, 264, 520, 1000, 1032 };
    enum { SAMPLES = 3, EACH_HAS = 5, ROWS = SAMPLES * EACH_HAS };
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int how = 0; how < 4; how++) {
            int64_t cols = widths[i], n = ROWS * cols;
            bool scaled = how & 1, alone = how == 2;
            input(0, DT_REAL, n);
            input(1, DT_REAL, n);
            input(2, DT_F32, SAMPLES);
            output(3, DT_REAL, n, false); /* the sum */
            output(4, DT_REAL, n, false); /* its norm */
            output(5, DT_F32, 2 * ROWS, false);
            input(6, DT_F32, cols);
            input(7, DT_F32, cols);
            input(8, DT_REAL, n);
            output(9, DT_REAL, n, true); /* the sum's gradient */
            output(10, DT_REAL, n, false); /* the branch's */
            output(11, DT_F32, cols, true);
            output(12, DT_F32, cols, true);
            for (int s = 0; s < 2; s++) {
                ResidualNormArgs a = {
                    .sum = { .type = T(0), .samples = SAMPLES, .stride = n / SAMPLES, .x = alone ? NULL : P(0), .y = P(1),
                             .scale = scaled ? P(2) : NULL, .out = P(3) },
                    .norm = { .type = T(0), .type_y = T(0), .rows = ROWS, .cols = cols, .x = P(3), .y = P(4), .eps = 1e-6f,
                              .gamma = P(6), .beta = P(7), .stat = P(5) },
                };
                residual_norm(side[s], s, &a);
                a.norm.dy = P(8);
                a.norm.dx = P(9);
                a.norm.add = true;
                a.norm.dgamma = P(11);
                a.norm.dbeta = how == 3 ? NULL : P(12);
                a.sum.x = NULL;
                a.sum.y = P(9);
                a.sum.out = P(10);
                residual_norm_backward(side[s], s, &a);
            }
            same(3, "residual and norm, %d columns%s%s: the sum", (int)cols, scaled ? ", scaled" : "", alone ? ", alone" : "");
            same(4, "its norm");
            same_within(9, 1e-3, "the sum's gradient");
            same_within(10, 1e-3, "the branch's");
            same_within(11, 1e-3, "gamma's");
            same_within(12, 1e-3, "beta's");
            both_clear();
        }
}

/* The value alone; with the gradient beside the logits, or in their place. */
static void test_losses(void)
{
    typedef int Kernel(Backend *, const LossArgs *);
    static const int64_t ks[] = { 1, 17, 1000, 4101, 4104 };
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
        for (int how = 0; how < 3; how++)
            for (int which = 0; which < 4; which++) {
                static const char *const names[] = { "DINO's loss", "soft cross-entropy", "cross-entropy", "KL" };
                static const char *const hows[] = { "alone", "with its gradient", "with its gradient in place" };
                int64_t k = ks[i], batch = 1 + 2 * (how > 0), rows = which ? batch * 3 : 4 * batch;
                int64_t targets = which ? rows : 2 * batch, labels[12];
                for (int r = 0; r < 12; r++)
                    labels[r] = r == 1 ? (how == 1 ? 7 % k : -100) : r * 5 % k; /* ignored: any number */
                input_scaled(0, DT_REAL, rows * k, 2, 0);
                input(1, DT_F32, targets * k);
                output(9, DT_F32, targets * k, false);
                BOTH(softmax, RowArgs, .rows = targets, .cols = k, .x = P(1), .y = P(9));
                input_bytes(2, DT_I64, rows, labels);
                output(3, DT_F32, 1, false);
                output(4, DT_F32, 1, false);
                output(6, DT_REAL, rows * k, false);
                for (int s = 0; s < 2; s++) {
                    Backend *be = side[s];
                    Kernel *const kernel[] = { be->dino_loss, be->soft_ce, be->hard_ce, be->kl };
                    LossArgs a = { .type = T(0), .rows = rows, .k = k, .views = 4, .batch = (int)batch, .logits = P(0),
                                   .target = which == 3 ? P(1) : P(9), .label = P(2), .ignore = how == 1 ? 7 % k : -100,
                                   .temp = which < 2 ? 0.1f : 1, .weight = 0.5f, .loss = P(4), .value = how ? P(3) : NULL,
                                   .dlogits = !how ? NULL : P(how == 1 ? 6 : 0) };
                    both_called(s, names[which], kernel[which](be, &a));
                }
                if (k > 1)
                    same(4, "%s of %d x %d, %s", names[which], (int)rows, (int)k, hows[how]);
                if (k > 1 && how)
                    same(3, "without its weight");
                if (k > 1 && how)
                    same_within(how == 1 ? 6 : 0, 1e-3, "the gradient");
                both_clear();
            }
}

/* Spans of parameters: large and small ones, an empty one, more than one launch takes. */
enum { SPANS = 70, LARGE = 33 * 8192 + 5, COUNT = 5008 + LARGE + 3 + 16 * SPANS };

static void spans_make(ParamSpan *spans)
{
    static const ParamSpan first[] = { { 0, 1000, 1, 1, false }, { 1008, 1, 0, 7, false }, { 1024, 900, 1, 3, true },
                                       { 2000, 3000, 0, 100, false }, { 2000, 0, 0, 1, false }, { 5008, LARGE, 1, 2, false } };
    enum { FIRST = sizeof first / sizeof *first };
    for (int i = 0; i < SPANS; i++)
        spans[i] = i < FIRST ? first[i] : (ParamSpan){ 5008 + LARGE + 3 + 16 * (i - FIRST), 1 + i % 16, 1, i, i % 9 == 0 };
}

static void test_optimiser(void)
{
    ParamSpan spans[SPANS];
    spans_make(spans);
    /* Clipped; zeroing; gate open, gate shut; where no pack begins: one of the operands, or the spans. */
    for (int how = 0; how < 9; how++) {
        static const char *const names[] = { "plain", "clipped", "gate open", "gate shut", "parameters anywhere",
                                             "gradients anywhere", "first moments anywhere", "second moments anywhere",
                                             "spans anywhere" };
        for (int i = 0; how == 8 && i < SPANS; i++)
            spans[i].offset += 2;
        for (int i = 0; i < 4; i++)
            input(2 + i, DT_F32, COUNT + 2);
        input_scaled(5, DT_F32, COUNT + 2, 0, 0.01f);
        input_scaled(6, DT_F32, 1, 0, how == 3 ? NAN : 1);
        output(1, DT_F32, SPANS, false);
        BOTH(norms, NormArgs, .g = FROM(3, how == 5), .spans = spans, .nspans = SPANS, .norm = P(1));
        same(1, "norms of spans, %s", names[how]);
        BOTH(adamw, AdamwArgs, .p = FROM(2, how == 4), .g = FROM(3, how == 5), .m = FROM(4, how == 6), .v = FROM(5, how == 7),
             .spans = spans, .nspans = SPANS, .lr = 0.01, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8,
             .norm = P(1), .clip = how ? 1 : 0, .zero_grad = how > 0, .gate = how > 1 ? P(6) : NULL);
        same(2, "adamw, %s: parameters", names[how]);
        same(3, "adamw, %s: gradients", names[how]);
        same(4, "adamw, %s: first moments", names[how]);
        same(5, "adamw, %s: second moments", names[how]);
        if (how == 3) {
            bool finite = true;
            both_called(1, "all_finite", side[1]->all_finite(side[1], DT_F32, both_at(1, 2), COUNT, &finite));
            ok(finite, "what the gate kept is finite");
        }
        both_clear();
    }
}

static void test_training(void)
{
    for (int i = 0; i < most(); i++) {
        int64_t n = sizes[i] * 3, k = i == 2 ? 4100 : i % 2 ? 300 : 33, rows = sizes[i] < 65 ? sizes[i] : 65;
        input(0, DT_F32, n);
        output(1, DT_F32, n, true);
        BOTH(ema, EmaArgs, .n = n, .teacher = P(1), .student = P(0), .momentum = 0.996);
        same(1, "average of %d", (int)n);
        both_clear();
        input(0, DT_F32, rows * k);
        input(1, DT_F32, k);
        output(2, DT_F32, rows * k, false);
        output(3, DT_F32, rows * k, false);
        BOTH(targets, TargetsArgs, .rows = rows, .k = k, .logits = P(0), .center = P(1), .temp = 0.04, .q = P(2));
        same(2, "targets of %d rows", (int)rows);
        BOTH(targets, TargetsArgs, .rows = rows, .k = k, .logits = P(0), .temp = 0.07, .q = P(3));
        same(3, "without centre");
        BOTH(center, CenterArgs, .rows = rows, .k = k, .logits = P(0), .center = P(1), .momentum = 0.9);
        same(1, "the centre takes in %d rows", (int)rows);
        input(4, DT_F32, rows * k);
        input(5, DT_F32, k);
        output(6, DT_F32, 2, false);
        if (rows) {
            BOTH(discrepancy, DiscrepancyArgs, .rows = rows, .k = k, .base = P(0), .head = P(4), .center_base = P(1),
                 .center_head = P(5), .temp = 0.1, .student_temp = 0.2, .out = P(6));
            same(6, "D of %d rows", (int)rows);
        }
        both_clear();
    }
    for (int bad = 0; bad < 3; bad++) {
        bool finite = bad != 0;
        output(0, DT_REAL, 1000, true);
        if (bad) /* poison at the end */
            output(0, DT_REAL, 1000, false);
        both_called(1, "all_finite", side[1]->all_finite(side[1], both_type(1, 0), both_at(1, 0), bad == 2 ? 0 : 1000, &finite));
        ok(finite == (bad != 1), "%s", bad == 0 ? "all finite" : bad == 1 ? "not all finite" : "nothing is finite");
        both_clear();
    }
}

int main(void)
{
    both_open();
    test_unaligned();
    test_points();
    test_rows();
    test_wide_norms();
    test_residual_norms();
    test_losses();
    test_optimiser();
    test_training();
    return tap_done();
}
