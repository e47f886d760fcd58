/* Every kernel of the table against the processor's: odd shapes, none at all, leading dimensions, sums onto what is
 * there; outputs poisoned before the call. */
#include "both.h"

#include "../device.h"

#include <string.h>

static const int64_t sizes[] = { 0, 1, 3, 17, 65, 1000 };
enum { SIZES = sizeof sizes / sizeof *sizes };
static const bool both_ways[] = { false, true };

static int most(void)
{
    return both_slow() ? SIZES - 1 : SIZES;
}

/* ---- products */

/* gelu after the product, with what lies before it or without; or the product times gelu's slope. */
typedef enum { PLAIN, PRE, GELU, SLOPE } Epilogue;

static void test_product(int i, int64_t m, int64_t n, int64_t k, int64_t batch, bool ta, bool tb, bool bias, Epilogue how,
                         bool add, int type_c)
{
    static const char *const what[] = { "", ", gelu and before it", ", gelu", ", times gelu's slope" };
    int64_t lda = (ta ? m : k) + 8, ldb = (tb ? k : n) + 8, ldc = n + 8, ra = ta ? k : m, rb = tb ? n : k;
    int64_t b = batch ? batch : 1;
    input(0, DT_REAL, b * ra * lda);
    input(1, DT_REAL, b * rb * ldb);
    input(2, DT_F32, n);
    output(3, type_c, b * m * ldc, true); /* what lies between the rows must stay */
    output(4, type_c, b * m * ldc, true);
    BOTH(matmul, MatmulArgs, .type = T(0), .type_c = T(3), .m = m, .n = n, .k = k, .a = P(0), .b = P(1), .c = P(3), .lda = lda,
         .ldb = ldb, .ldc = ldc, .ta = ta, .tb = tb, .add = add, .bias = bias ? P(2) : NULL,
         .gelu = how == PRE || how == GELU, .pre = how == PRE ? P(4) : NULL, .gelu_at = how == SLOPE ? P(4) : NULL,
         .batch = batch, .stride_a = ra * lda, .stride_b = rb * ldb, .stride_c = m * ldc);
    same(3, "matmul %d%s: %dx%dx%d%s", i, type_c == DT_F32 ? " to F32" : "", (int)m, (int)n, (int)k, what[how]);
    if (how == PRE || how == SLOPE)
        same(4, "matmul %d%s: %s", i, type_c == DT_F32 ? " to F32" : "", how == PRE ? "before gelu" : "where the slope is");
    both_clear();
}

static void test_matmul(void)
{
    static const struct {
        int64_t m, n, k, batch;
        bool ta, tb, bias;
        Epilogue how;
        bool add;
    } cases[] = {
        { 17, 65, 33, 0, false, true, true, PLAIN, false }, { 17, 65, 33, 0, false, true, true, PRE, false },
        { 65, 17, 130, 0, true, false, false, PLAIN, true }, { 1, 1, 1, 0, false, false, false, PLAIN, false },
        { 33, 64, 1, 0, true, true, false, PLAIN, false },  { 5, 7, 9, 3, false, true, false, PLAIN, false },
        { 5, 7, 9, 3, true, false, false, PLAIN, true },    { 0, 65, 33, 0, false, true, true, PLAIN, false },
        { 128, 256, 64, 0, false, true, true, PRE, false }, { 7, 3, 0, 0, false, false, false, PLAIN, false },
        { 17, 65, 33, 0, false, true, true, GELU, false },  { 17, 65, 33, 0, false, false, false, SLOPE, false },
        { 33, 24, 40, 0, false, true, false, PRE, false },  { 33, 24, 40, 0, false, false, false, GELU, false },
        { 128, 256, 64, 0, false, true, true, GELU, false }, { 128, 256, 64, 0, false, false, false, SLOPE, false },
        { 600, 40, 24, 0, false, true, true, GELU, false }, { 600, 40, 24, 0, false, true, false, SLOPE, false },
        { 24, 16, 64, 0, true, false, false, SLOPE, false }, { 9, 16, 0, 0, false, true, true, PRE, false },
        { 9, 16, 0, 0, false, true, true, GELU, false },    { 9, 16, 0, 0, false, true, false, SLOPE, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int logits = 0; logits < 2; logits++)
            test_product((int)i, cases[i].m, cases[i].n, cases[i].k, cases[i].batch, cases[i].ta, cases[i].tb, cases[i].bias,
                         cases[i].how, cases[i].add, logits ? (int)DT_F32 : (int)DT_REAL);
    for (int r = 0; r < most(); r++)
        for (size_t w = 0; w < 2; w++) {
            int64_t k = sizes[r], m = 33, n = 24;
            input(0, DT_REAL, k * m);
            input(1, DT_REAL, k * n);
            output(2, DT_F32, m * n, both_ways[w]);
            output(3, DT_F32, m, both_ways[w]);
            BOTH(matmul, MatmulArgs, .type = T(0), .type_c = DT_F32, .m = m, .n = n, .k = k, .a = P(0), .b = P(1), .c = P(2),
                 .lda = m, .ldb = n, .ldc = n, .ta = true, .add = both_ways[w], .sum = P(3), .add_sum = both_ways[w]);
            same_within(2, 1e-3, "gradient of a weight from %d rows%s", (int)k, w ? ", added" : "");
            same_within(3, 1e-3, "and of the bias");
            both_clear();
        }
    for (int r = 0; r < most(); r++)
        for (size_t w = 0; w < 2; w++) {
            input(0, DT_REAL, sizes[r] * 33);
            output(1, DT_F32, 33, both_ways[w]);
            BOTH(colsum, ColsumArgs, .type = T(0), .rows = sizes[r], .cols = 33, .x = P(0), .out = P(1), .add = both_ways[w]);
            same(1, "colsum of %d rows%s", (int)sizes[r], w ? ", added" : "");
            both_clear();
        }
}

/* At these the approximation by tanh is off by 6 % and its slope by 14 %, which BF16 shows. */
static void test_exact_gelu(void)
{
    enum { M = 16, N = 24, K = 8 };
    input_scaled(0, DT_REAL, M * K, 0, -2.75f);
    input_scaled(1, DT_REAL, N * K, 0, 1.0f / K);
    input_scaled(2, DT_REAL, M * N, 0, -3.5f);
    for (int slope = 0; slope < 2; slope++) {
        output(3, DT_REAL, M * N, false);
        BOTH(matmul, MatmulArgs, .type = T(0), .type_c = T(3), .m = M, .n = N, .k = K, .a = P(0), .b = P(1), .c = P(3), .lda = K,
             .ldb = K, .ldc = N, .tb = true, .gelu = !slope, .gelu_at = slope ? P(2) : NULL);
        same(3, "exact gelu%s", slope ? "'s slope" : "");
    }
    both_clear();
}

static void test_attention(void)
{
    static const struct {
        int64_t batch, tokens;
        int heads, dim;
        float scale;
    } cases[] = { { 2, 17, 3, 64, 0.2f }, { 1, 65, 2, 32, 0.2f },  { 3, 5, 1, 8, 0.2f },    { 2, 1, 2, 64, 0.2f },
                  { 0, 17, 2, 64, 0.2f }, { 1, 15, 2, 64, 0.2f },  { 2, 16, 1, 64, 0.2f },  { 2, 37, 2, 64, 0.2f },
                  { 1, 50, 2, 64, 0.2f }, { 1, 64, 1, 64, 0.2f },  { 1, 65, 3, 64, 0.2f },  { 2, 80, 1, 64, 0.2f },
                  { 2, 81, 2, 64, 0.2f }, { 1, 96, 1, 64, 0.2f },  { 1, 129, 1, 64, 0.2f }, { 1, 197, 2, 64, 0.2f },
                  { 1, 197, 1, 64, 1 },   { 1, 256, 1, 64, 0.2f }, { 2, 257, 1, 64, 0.2f } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t b = cases[i].batch, n = cases[i].tokens, h = cases[i].heads, d = cases[i].dim, c = h * d;
        for (size_t w = 0; w < 2; w++) {
            input(0, DT_REAL, b * n * 3 * c);
            output(1, DT_REAL, b * n * c, false);
            output(2, DT_F32, b * h * n, false);
            input(3, DT_REAL, b * n * c);
            output(4, DT_REAL, b * n * 3 * c, both_ways[w]);
            if (w == 0) { /* in inference */
                BOTH(attention, AttentionArgs, .type = T(0), .batch = b, .tokens = n, .heads = (int)h, .dim = (int)d,
                     .scale = cases[i].scale, .qkv = P(0), .y = P(1));
                same(1, "attention of %d tokens, heads of %d, for its result alone", (int)n, (int)d);
            }
            BOTH(attention, AttentionArgs, .type = T(0), .batch = b, .tokens = n, .heads = (int)h, .dim = (int)d,
                 .scale = cases[i].scale, .qkv = P(0), .y = P(1), .stat = P(2));
            same(1, "attention of %d tokens, heads of %d", (int)n, (int)d);
            same(2, "its statistics");
            BOTH(attention_backward, AttentionArgs, .type = T(0), .batch = b, .tokens = n, .heads = (int)h, .dim = (int)d,
                 .scale = cases[i].scale, .qkv = P(0), .y = P(1), .stat = P(2), .dy = P(3), .dqkv = P(4), .add = both_ways[w]);
            same_within(4, 1e-3, "its gradient%s", w ? ", added" : "");
            both_clear();
        }
    }
}

static void test_conv(void)
{
    static const struct {
        int64_t batch, h, w, cin, cout;
        int k, stride, pad, depthwise;
    } cases[] = { { 2, 9, 7, 8, 16, 3, 1, 1, 0 }, { 1, 8, 8, 3, 5, 2, 2, 0, 0 }, { 2, 14, 14, 24, 24, 7, 1, 3, 1 },
                  { 1, 5, 3, 65, 65, 7, 1, 3, 1 }, { 0, 5, 5, 8, 8, 3, 1, 1, 0 }, { 3, 1, 1, 16, 16, 7, 1, 3, 1 },
                  { 2, 17, 33, 40, 40, 7, 1, 3, 1 }, { 40, 9, 9, 3, 3, 7, 1, 3, 1 }, { 1, 8, 16, 32, 32, 7, 1, 3, 1 },
                  { 2, 9, 7, 33, 33, 5, 2, 1, 1 }, { 1, 6, 11, 4, 4, 7, 1, 2, 1 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t b = cases[i].batch, h = cases[i].h, w = cases[i].w, cin = cases[i].cin, cout = cases[i].cout;
        int k = cases[i].k, st = cases[i].stride, pad = cases[i].pad, groups = cases[i].depthwise ? (int)cin : 1;
        int64_t ho = (h + 2 * pad - k) / st + 1, wo = (w + 2 * pad - k) / st + 1, nw = cout * cin / groups * k * k;
        for (size_t add = 0; add < 2; add++) {
            input(0, DT_REAL, b * h * w * cin);
            input(1, DT_REAL, nw);
            input(2, DT_F32, cout);
            output(3, DT_REAL, b * ho * wo * cout, false);
            input(4, DT_REAL, b * ho * wo * cout);
            output(5, DT_REAL, b * h * w * cin, add);
            output(6, DT_F32, nw, true);
            output(7, DT_F32, cout, true);
            for (int s = 0; s < 2; s++) {
                ConvArgs a = { .type = T(0), .batch = b, .h = h, .w = w, .cin = cin, .cout = cout, .ho = ho, .wo = wo, .kh = k,
                               .kw = k, .stride = st, .pad = pad, .groups = groups, .x = P(0), .weight = P(1), .bias = P(2),
                               .y = P(3), .dy = P(4), .dx = P(5), .add = add, .dweight = P(6), .dbias = P(7) };
                both_called(s, "conv", side[s]->conv(side[s], &a));
                both_called(s, "conv_backward", side[s]->conv_backward(side[s], &a));
            }
            same(3, "convolution %d", (int)i);
            same_within(5, 1e-3, "convolution %d: gradient%s", (int)i, add ? ", added" : "");
            same_within(6, 1e-3, "convolution %d: of the filter", (int)i);
            same_within(7, 1e-3, "convolution %d: of the bias", (int)i);
            both_clear();
        }
    }
}

/* ---- layout */

/* Patches whose rows are whole numbers of 16 bytes, images whose rows are not. */
static void test_large_patches(void)
{
    static const int64_t shapes[][3] = { { 16, 32, 16 }, { 17, 24, 8 }, { 16, 20, 8 } };
    for (int i = 0; i < 3; i++) {
        int64_t h = shapes[i][0], w = shapes[i][1], p = shapes[i][2], n = h / p * (w / p) * 3 * p * p;
        input(0, DT_REAL, 2 * 3 * h * w);
        output(1, DT_REAL, 2 * n, false);
        BOTH(patches, PatchArgs, .type = T(0), .batch = 2, .channels = 3, .h = h, .w = w, .patch = p, .image = P(0), .rows = P(1));
        same(1, "patches of %d in %d x %d", (int)p, (int)h, (int)w);
        both_clear();
    }
}

static void test_layout(void)
{
    for (int64_t b = 0; b < 3; b++) {
        /* odd, as packs have it (with more than one block's pixels), and where no pack begins */
        static const struct { int64_t h, w, first; } images[] = { { 5, 7, 0 }, { 34, 36, 0 }, { 6, 8, 1 } };
        for (int i = 0; i < 3; i++) {
            int64_t h = images[i].h, w = images[i].w, n = b * h * w * 3, first = images[i].first;
            uint8_t pixels[2 * 34 * 36 * 3 + 1];
            for (size_t k = 0; k < sizeof pixels; k++)
                pixels[k] = (uint8_t)(k * 37);
            input_bytes(0, DT_U8, n + first, pixels);
            output(1, DT_REAL, n, false);
            BOTH(normalize_u8, NormalizeArgs, .type = T(1), .batch = b, .h = h, .w = w,
                 .x = first ? (const uint8_t *)P(0) + first : P(0), .out = P(1));
            same(1, "pixels of %d images of %d x %d", (int)b, (int)h, (int)w);
            both_clear();
        }
        for (size_t w = 0; w < 2; w++) {
            input(0, DT_REAL, b * 3 * 9 * 13);
            output(1, DT_REAL, b * 2 * 3 * 48, false);
            output(2, DT_REAL, b * 3 * 9 * 13, both_ways[w]);
            for (int s = 0; s < 2; s++) {
                PatchArgs a = { .type = T(0), .batch = b, .channels = 3, .h = 9, .w = 13, .patch = 4, .image = P(0),
                                .rows = P(1), .dimage = P(2), .add = both_ways[w] };
                both_called(s, "patches", side[s]->patches(side[s], &a));
                both_called(s, "patches_backward", side[s]->patches_backward(side[s], &a));
            }
            same(1, "patches of %d images", (int)b);
            same(2, "and back%s", w ? ", added" : "");
            both_clear();
            input(0, DT_REAL, b * 17 * 33);
            output(1, DT_REAL, b * 17 * 33, both_ways[w]);
            BOTH(transpose, TransposeArgs, .type = T(0), .batch = b, .a = 17, .b = 33, .x = P(0), .out = P(1),
                 .add = both_ways[w]);
            same(1, "transposed %d%s", (int)b, w ? ", added" : "");
            both_clear();
            input(0, DT_REAL, b * 5 * 24);
            output(1, DT_REAL, b * 7 * 30, true); /* gaps stay */
            BOTH(copy, CopyArgs, .type = T(0), .outer = b, .inner = 5, .n = 24, .x = P(0), .out = P(1), .x_outer = 5 * 24,
                 .x_inner = 24, .out_outer = 7 * 30, .out_inner = 30, .add = both_ways[w]);
            same(1, "copy of %d x 5 x 24%s", (int)b, w ? ", added" : "");
            both_clear();
            input(0, DT_REAL, b * 168);
            output(1, DT_REAL, b * 5 * 24, both_ways[w]);
            BOTH(copy, CopyArgs, .type = T(0), .outer = b, .inner = 5, .n = 24, .x = P(0), .out = P(1), .x_outer = 168,
                 .x_inner = 33, .out_outer = 5 * 24, .out_inner = 24, .add = both_ways[w]);
            same(1, "copy of %d x 5 x 24 from rows of 33%s", (int)b, w ? ", added" : "");
            both_clear();
            input(0, DT_REAL, b * 5 * 32);
            output(1, DT_REAL, b * 7 * 40, true);
            BOTH(copy, CopyArgs, .type = T(0), .outer = b, .inner = 5, .n = 24, .x = P(0), .out = P(1), .x_outer = 5 * 32,
                 .x_inner = 32, .out_outer = 7 * 40, .out_inner = 40, .add = both_ways[w]);
            same(1, "copy of %d x 5 x 24 from rows of 32%s", (int)b, w ? ", added" : "");
            both_clear();
            input(0, DT_REAL, 24);
            output(1, DT_REAL, b * 5 * 24, both_ways[w]);
            BOTH(copy, CopyArgs, .type = T(0), .outer = b, .inner = 5, .n = 24, .x = P(0), .out = P(1), .out_outer = 5 * 24,
                 .out_inner = 24, .add = both_ways[w]);
            same(1, "broadcast to %d%s", (int)b, w ? ", added" : "");
            both_clear();
            for (int r = 0; r < 4; r++) {
                input(0, DT_REAL, b * 20 * 33);
                output(1, DT_F32, b * 33, both_ways[w]);
                BOTH(reduce, ReduceArgs, .type = T(0), .type_out = DT_F32, .outer = b, .reduce = sizes[r], .n = 33, .x = P(0),
                     .x_outer = 20 * 33, .out = P(1), .factor = 0.5f, .add = both_ways[w]);
                same(1, "sum over %d of %d%s", (int)sizes[r], (int)b, w ? ", added" : "");
                both_clear();
            }
            input(0, DT_REAL, b * 400);
            output(1, DT_F32, b, both_ways[w]);
            BOTH(reduce, ReduceArgs, .type = T(0), .type_out = DT_F32, .outer = b, .reduce = 300, .n = 1, .x = P(0),
                 .x_outer = 400, .out = P(1), .factor = 2, .add = both_ways[w]);
            same(1, "sums of %d rows%s", (int)b, w ? ", added" : "");
            both_clear();
            input(0, DT_F32, b * 100);
            output(1, DT_REAL, b * 100, both_ways[w]);
            BOTH(cast, CastArgs, .from = T(0), .to = T(1), .n = b * 100, .x = P(0), .out = P(1), .add = both_ways[w]);
            same(1, "cast of %d%s", (int)b * 100, w ? ", added" : "");
            both_clear();
        }
        for (int how = 0; how < 5; how++) {
            int64_t cls = how % 2, dim = how < 2 ? 24 : how < 4 ? 25 : 8, first = how == 4;
            input(0, DT_REAL, b * 9 * dim + first);
            input(1, DT_F32, dim);
            input(2, DT_F32, (9 + cls) * dim);
            output(3, DT_REAL, b * (9 + cls) * dim, false);
            BOTH(tokens, TokensArgs, .type = T(0), .batch = b, .tokens = 9, .dim = dim, .patches = b ? FROM(0, first) : NULL,
                 .cls = cls ? P(1) : NULL, .pos = P(2), .out = P(3));
            same(3, "tokens of %d, %d wide%s", (int)b, (int)dim, cls ? ", with class" : "");
            both_clear();
        }
    }
    int32_t index_r[2 * 4] = { 0, 0, 1, 2, 1, 2, 2, 2 }, index_c[3 * 4] = { 0, 0, 1, 2, 0, 1, 2, 2, 1, 2, 2, 2 };
    input(0, DT_F32, (1 + 9) * 24);
    output(1, DT_F32, (1 + 6) * 24, false);
    input(2, DT_F32, 2 * 4);
    input(3, DT_F32, 3 * 4);
    input_bytes(4, DT_I32, 8, index_r);
    input_bytes(5, DT_I32, 12, index_c);
    BOTH(resize, ResizeArgs, .grid = 3, .rows = 2, .cols = 3, .dim = 24, .skip = 1, .x = P(0), .out = P(1), .weight_r = P(2),
         .weight_c = P(3), .index_r = P(4), .index_c = P(5));
    same(1, "positions for another grid");
    input(6, DT_F32, (1 + 6) * 24);
    output(7, DT_F32, (1 + 9) * 24, true);
    BOTH(resize_backward, ResizeArgs, .grid = 3, .rows = 2, .cols = 3, .dim = 24, .skip = 1, .x = P(6), .out = P(7),
         .weight_r = P(2), .weight_c = P(3), .index_r = P(4), .index_c = P(5));
    same_within(7, 1e-3, "and their gradient");
    both_clear();
}

static void test_memory(void)
{
    Backend *be = side[1];
    char host[300], back[300];
    for (size_t i = 0; i < sizeof host; i++)
        host[i] = (char)(i * 7);
    char *p = be->alloc(be, sizeof host);
    ok(p && (uintptr_t)p % 64 == 0, "memory is aligned");
    ok(!be->write(be, p, host, sizeof host) && !be->read(be, back, p, sizeof host) && !memcmp(host, back, sizeof host),
       "up and down");
    memmove(host + 13, host, 200);
    ok(!be->move(be, p + 13, p, 200) && !be->read(be, back, p, sizeof host) && !memcmp(host, back, sizeof host),
       "moved upwards onto itself");
    memmove(host, host + 9, 200);
    ok(!be->move(be, p, p + 9, 200) && !be->read(be, back, p, sizeof host) && !memcmp(host, back, sizeof host),
       "and downwards");
    memset(host + 5, 0, 100);
    ok(!be->zero(be, p + 5, 100) && !be->read(be, back, p, sizeof host) && !memcmp(host, back, sizeof host), "zeroed");
    be->pin(be, host, sizeof host);
    memset(host, 3, sizeof host);
    ok(!be->upload(be, p, host, sizeof host) && !be->uploaded(be) && !be->read(be, back, p, sizeof host) &&
           !memcmp(host, back, sizeof host),
       "beside the work");
    be->unpin(be, host);
    ok(!be->write(be, p, host, 0) && !be->read(be, host, p, 0) && !be->move(be, p, p, 0) && !be->zero(be, p, 0), "nothing");
    be->release(be, p, sizeof host);
    void *huge = be->alloc(be, (size_t)1 << 45);
    ok(!huge, "more memory than there is is refused");
}

static void test_recordings(void)
{
    Backend *be = side[1];
    enum { N = 2, WIDE = 1 << 18 };
    float y[N] = { 0 };
    void *work = NULL;
    float *x = device_put(be, (float[N]){ 1, 2 }, sizeof y), *out = device_put(be, NULL, sizeof y);
    PointArgs twice = { .type = DT_F32, .n = N, .x = x, .out = out, .factor = 2 };
    if (!be->record) {
        ok(true, "this device records nothing # SKIP");
        return;
    }
    ok(!be->record(be) && !be->add(be, &twice), "work is recorded");
    ok(be->read(be, y, out, sizeof y) < 0 && !be->alloc(be, 64), "meanwhile nothing can be read or allocated");
    ok(!be->write(be, x, (float[N]){ 3, 4 }, sizeof y), "but written");
    ok(!be->recorded(be, &work) && work && !be->read(be, y, out, sizeof y) && y[0] == 0 && y[1] == 0, "it is not done yet");
    ok(!be->repeat(be, work) && !be->read(be, y, out, sizeof y) && y[0] == 6 && y[1] == 8, "it is done on what was written");
    device_set(be, x, (float[N]){ -1, 0.5f }, sizeof y);
    ok(!be->repeat(be, work) && !be->read(be, y, out, sizeof y) && y[0] == -2 && y[1] == 1, "and again on something else");
    ColsumArgs large = { .type = DT_F32, .rows = 1, .cols = WIDE };
    large.x = device_put(be, NULL, WIDE * sizeof(float));
    large.out = device_put(be, NULL, WIDE * sizeof(float));
    ok(!be->colsum(be, &large) && be->repeat(be, work) == 1, "where scratch memory has moved it is void");
    be->forget(be, work);
    work = NULL;
    ok(!be->record(be) && !be->add(be, &twice) && !be->recorded(be, NULL), "a recording that nobody wants");
    ok(!be->record(be) && be->colsum(be, &(ColsumArgs){ .type = DT_F32, .rows = 1, .cols = 2 * WIDE, .x = large.x,
                                                         .out = large.out }) < 0 &&
           !be->recorded(be, NULL),
       "scratch memory cannot grow in one");
    device_done();
}

static void test_products(void)
{
    test_matmul();
    test_exact_gelu();
}

/* An argument picks one of them. */
int main(int argc, char **argv)
{
    static const struct { const char *name; void (*test)(void); } all[] = {
        { "memory", test_memory },     { "products", test_products },   { "attention", test_attention },
        { "convolution", test_conv },  { "patches", test_large_patches }, { "layout", test_layout },
        { "recordings", test_recordings },
    };
    both_open();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (argc < 2 || !strcmp(argv[1], all[i].name))
            all[i].test();
    return tap_done();
}
