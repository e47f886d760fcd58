/* lib/util: random numbers, options, errors. */
#include "../tap.h"

#include "util/err.h"
#include "util/idset.h"
#include "util/opt.h"
#include "util/rng.h"
#include "util/text.h"

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
    OptAmount most = { 5, false };
    const Opt amount[] = { OPT_AMOUNT("most", 0, &most, -1, 1000, "N|P%", "most"), OPT_END };
    ok(opt_amount(&most, 10) == 5 && !opt_set(amount, "most", "0.5%") && most.percent && opt_amount(&most, 1399) == 6 &&
           opt_amount(&most, 1400) == 7, "an amount is a number or a share");
    is_str(opt_format(&amount[0], text, sizeof text), "0.5%", "and prints as it is read");
    ok(!opt_set(amount, "most", "-1") && opt_amount(&most, 10) == -1 && !opt_set(amount, "most", "100%") &&
           opt_amount(&most, 29) == 29 && !opt_set(amount, "most", "7%") && opt_amount(&most, 300) == 21,
       "over its range");
    ok(opt_set(amount, "most", "-2") && opt_set(amount, "most", "1001") && opt_set(amount, "most", "101%") &&
           opt_set(amount, "most", "-1%") && opt_set(amount, "most", "%") && opt_set(amount, "most", "1.5") &&
           opt_set(amount, "most", "nan%") && opt_set(amount, "most", "") && opt_set(amount, "most", "5%%"),
       "and not beyond: %s", err_text());
    is_str(opt_format(&opts[6], text, sizeof text), "0.1,0.5", "a value prints as it is read");
}

static void test_idset(void)
{
    IdSet s = { 0 };
    int wrong = idset_has(&s, 0);
    for (uint64_t i = 0; i < 1000; i++)
        wrong += idset_add(&s, i * i * 977) != 1;
    for (uint64_t i = 0; i < 1000; i++)
        wrong += idset_add(&s, i * i * 977) != 0 || !idset_has(&s, i * i * 977) || idset_has(&s, i * i * 977 + 1);
    ok(!wrong && s.count == 1000, "a set of ids");
    ok(!idset_has(&s, UINT64_MAX) && idset_add(&s, UINT64_MAX) == 1 && idset_add(&s, UINT64_MAX) == 0 &&
           idset_has(&s, UINT64_MAX) && s.count == 1001, "the last number, too");
    idset_free(&s);
}

static void text_is(const char *in, const char *want)
{
    char *got = text_utf8(in);
    is_str(got, want, "proper UTF-8");
    free(got);
}

static void file_is(const char *in, const char *want)
{
    char name[12];
    is_str(text_file_name(in, name, sizeof name), want, "a name for a file");
}

static void shell_is(const char *in, const char *want)
{
    char *got = text_shell(in);
    ok(!strcmp(got, want), "a word for a shell");
    free(got);
}

/* What sh makes of the word is what it was made of. */
static void test_shell(const char *in)
{
    char *word = text_shell(in), *command = NULL, back[256] = "";
    if (asprintf(&command, "printf %%s %s", word) < 0)
        exit(1);
    FILE *p = popen(command, "r");
    size_t n = p ? fread(back, 1, sizeof back - 1, p) : 0;
    back[n] = 0;
    ok(p && !pclose(p) && !strcmp(back, in), "sh gives back the bytes of a word of %zu", strlen(in));
    free(word);
    free(command);
}

static void test_words(void)
{
    char number[32], every[256];
    shell_is("photos.db", "photos.db");
    shell_is("", "''");
    shell_is("it's", "'it'\\''s'");
    shell_is("a b", "'a b'");
    shell_is("~", "'~'");
    shell_is("x=1", "'x=1'");
    shell_is("caf\xc3\xa9", "'caf\xc3\xa9'");
    shell_is("a\xe9\n", "'a'\"$(printf '\\351')\"'\n'");
    shell_is("\x1b[1m", "''\"$(printf '\\033')\"'[1m'");
    shell_is("\xc2\x9b" "1m", "''\"$(printf '\\302\\233')\"'1m'");
    for (int i = 0; i < 255; i++)
        every[i] = (char)(i + 1);
    every[255] = 0;
    test_shell(every);
    test_shell("\n\n");
    test_shell("-n `id` $(id) $HOME \\ \" ' ! * ? [a] {a,b} # & | ; < > ( ) %s \001\n\002\n");
    is_str(text_real(0.1, number, sizeof number), "0.1", "a number");
    is_str(text_real(0.1 + 0.2, number, sizeof number), "0.30000000000000004", "a number of 17 digits");
}

static void test_text(void)
{
    text_is("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    text_is("a\xff\xc3z", "a\xef\xbf\xbd\xef\xbf\xbdz");
    text_is("\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                                                     "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    file_is("cat/1.jpg", "cat_1.jpg");
    file_is("../../x", "_._.._x");
    file_is("..", "_.");
    file_is("-rf *", "_rf_");
    file_is("", "_");
    file_is("a\033\n/b", "a_b");
    file_is("folder/0123456.jpg", "0123456.jpg");
}

int main(void)
{
    test_idset();
    test_text();
    test_words();
    test_rng();
    test_opt();
    err_set(ERR_DATA, "inner");
    err_prefix("outer");
    ok(err_code() == ERR_DATA && !strcmp(err_text(), "outer: inner"), "errors nest");
    return tap_done();
}
