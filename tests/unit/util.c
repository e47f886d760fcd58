/* lib/util: random numbers, options, errors. */
#include "../tap.h"

#include "util/err.h"
#include "util/opt.h"
#include "util/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void test_rng(void)
{
    /* Known answer of Philox4x32-10 for counter and key zero, from the Random123 distribution. */
    Rng zero = { 0 };
    ok(rng_u32(&zero) == 0x6627e8d5u && rng_u32(&zero) == 0xe169c58du && rng_u32(&zero) == 0xbc57ac4cu &&
           rng_u32(&zero) == 0x9b00dbd8u, "Philox4x32-10 known answer");

    double sum = 0, square = 0;
    Rng r = rng_make(7, RNG_TEST, 1, 2);
    for (int i = 0; i < 100000; i++) {
        double x = rng_normal(&r);
        sum += x;
        square += x * x;
    }
    ok(fabs(sum / 1e5) < 0.015 && fabs(square / 1e5 - 1) < 0.02, "normal draws have mean 0 and variance 1");

    bool below = true;
    for (int i = 0; i < 10000; i++)
        below = below && rng_below(&r, 7) < 7;
    ok(below, "rng_below stays below");

    for (uint64_t n = 1; n < 3000; n = n * 3 + 1) {
        char *seen = calloc(n, 1);
        bool good = true;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t p = rng_permute(3, 5, i, n);
            good = good && p < n && !seen[p]++;
        }
        ok(good, "permutation of %llu is a bijection", (unsigned long long)n);
        free(seen);
    }
    int moved = 0;
    for (uint64_t i = 0; i < 1000; i++)
        moved += rng_permute(3, 5, i, 1000) != rng_permute(3, 6, i, 1000);
    ok(moved > 950, "another epoch has another order");
}

static void test_opt(void)
{
    int64_t jobs = 1, bytes = 0;
    double lr = 0.5, scale[2] = { 0, 1 };
    const char *out = NULL, *kind = "a";
    bool fast = false, keep = true;
    const Opt opts[] = {
        OPT_INT("jobs", 'j', &jobs, 0, 64, "N", "threads"), OPT_REAL("base-lr", 0, &lr, 0, 1, "X", "rate"),
        OPT_STR("output", 'o', &out, "FILE", "file"), OPT_FLAG("fast", 'f', &fast, "fast"),
        OPT_FLAG("keep", 0, &keep, "keep"), OPT_SIZE("memory", 'm', &bytes, 0, 1e12, "BYTES", "memory"),
        OPT_PAIR("scale", 0, scale, 0, 1, "A,B", "scale"), OPT_CHOICE("kind", 0, &kind, "a|bc|d", "kind"),
        OPT_END
    };
    const OptProgram program = { "test", "", "test", opts, NULL };
    char words[][16] = { "test", "x", "-fj8", "--base_lr=0.25", "--no-keep", "-m", "2M", "--scale", "0.1,0.5",
                         "--kind", "bc", "-oF", "--", "-y" };
    char *argv[15] = { 0 };
    for (int i = 0; i < 14; i++)
        argv[i] = words[i];
    int n = opt_parse(&program, 14, argv);
    ok(n == 2 && !strcmp(argv[1], "x") && !strcmp(argv[2], "-y"), "operands are left, in order");
    ok(fast && jobs == 8 && !keep && bytes == 2 << 20 && lr == 0.25, "flags, bundles, sizes, underscores");
    ok(scale[0] == 0.1 && scale[1] == 0.5 && !strcmp(kind, "bc") && !strcmp(out, "F"), "pairs, choices, strings");
    is_str(opt_origin(opts, "jobs"), "flag", "origin of a given option");
    ok(opt_set(opts, "jobs", "65") == -1 && strstr(err_text(), "at most 64"), "range is checked");
    ok(opt_set(opts, "kind", "b") == -1 && opt_set(opts, "base-lr", "nan") == -1 &&
           opt_set(opts, "jobs", "1.5") == -1 && opt_set(opts, "jobs", "") == -1, "bad values are refused");
    char text[64];
    is_str(opt_format(&opts[6], text, sizeof text), "0.1,0.5", "a value prints as it is read");
}

int main(void)
{
    test_rng();
    test_opt();
    err_set(ERR_DATA, "inner");
    err_prefix("outer");
    ok(err_code() == ERR_DATA && !strcmp(err_text(), "outer: inner"), "errors nest");
    return tap_done();
}
