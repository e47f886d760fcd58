/* lib/util: random numbers, options, errors. */
#include "../tap.h"

#include "util/err.h"
#include "util/idset.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/output.h"
#include "util/rng.h"
#include "util/text.h"

#include <dirent.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static void plain_is(const char *in, const char *want)
{
    char got[64];
    is_str(text_plain(in, got, sizeof got), want, "fit for a terminal");
}

static char *json_of(void (*put)(FILE *, const char *), const char *in)
{
    static char text[256];
    FILE *f = fmemopen(text, sizeof text, "w");
    if (f) {
        put(f, in);
        fclose(f);
    }
    return text;
}

static void test_controls(void)
{
    char small[6], itself[] = "a\xc2\x9b\033" "b";
    plain_is("tab\there\033[2J\177", "tab?here?[2J?");
    plain_is("C1 in UTF-8: \xc2\x80 \xc2\x9b \xc2\x9f, and \xc2\xa0", "C1 in UTF-8: ? ? ?, and \xc2\xa0");
    plain_is("bare \x9b \x80 \x9f, \xe9 stays", "bare ? ? ?, \xe9 stays");
    plain_is("h\xc3\xb6ren \xe2\x82\xac \xf0\x9f\x98\x80", "h\xc3\xb6ren \xe2\x82\xac \xf0\x9f\x98\x80");
    plain_is("broken off \xe2\x82", "broken off \xe2?");
    is_str(text_plain("abcd\xc3\xb6", small, sizeof small), "abcd", "cut before a character, not in it");
    is_str(text_plain(itself, itself, sizeof itself), "a??b", "in place");
    is_str(json_of(text_put_string, "\"\\ \033 \xc2\x9b \x9b \xc3\xb6 \177\n"),
           "\"\\\"\\\\ \\u001b \\u009b \xef\xbf\xbd \xc3\xb6 \\u007f\\u000a\"", "a JSON string");
    is_str(json_of(text_put_json, "{\"a\":\"\xc2\x9b\177\xc3\xb6\"}"), "{\"a\":\"\\u009b\\u007f\xc3\xb6\"}",
           "JSON that somebody else wrote");
}

/* ---------------------------------------------------------------- files that are written whole */

static char dir[] = "/tmp/hssl-output.XXXXXX";

static char *in_dir(char to[128], const char *name)
{
    snprintf(to, 128, "%s/%s", dir, name);
    return to;
}
#define IN(name) in_dir((char[128]){ 0 }, name)

static void holds(const char *path, const char *want, const char *what)
{
    char got[64] = "";
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(got, 1, sizeof got - 1, f) : 0;
    if (f)
        fclose(f);
    got[n] = 0;
    is_str(f ? got : "(not there)", want, what);
}

static int entries(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    while (d && readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static bool refused(const char *path, const char *source, int flags, ErrCode code)
{
    const char *const sources[OUTPUT_SOURCES] = { source };
    Output *o = output_open(path, sources, flags);
    bool was = !o && err_code() == code && strstr(err_text(), path);
    if (!was)
        diag("%s: %s", path, o ? "not refused" : err_text());
    output_cancel(&o);
    return was;
}

/* What a program says, as far as fits. */
static void said(char *buf, size_t size, void (*says)(void))
{
    int p[2], old = dup(STDERR_FILENO);
    *buf = 0;
    if (old < 0 || pipe(p) || dup2(p[1], STDERR_FILENO) < 0)
        return;
    says();
    dup2(old, STDERR_FILENO);
    close(old);
    close(p[1]);
    ssize_t n = read(p[0], buf, size - 1);
    buf[n > 0 ? n : 0] = 0;
    close(p[0]);
}

static void says_all(void)
{
    Progress p;
    progress_start(&p, "import", "images", 10, 30);
    p.tty = false;
    p.started -= 40;
    p.shown -= 40; /* as if so many seconds had gone by */
    progress_update(&p, 20, "x\"y");
    progress_update(&p, 21, "not now");
    log_warn("caf\xe9 \033[2J");
    progress_end(&p);
}

static void test_log(void)
{
    char text[2048];
    unsetenv("HSSL_MESSAGES");
    log_name("prog");
    said(text, sizeof text, says_all);
    ok(!strncmp(text, "prog: progress what=import done=20 total=30 rate=0.", 51) && strstr(text, " eta_s=") &&
           strstr(text, " unit=images x\"y\nprog: warning: caf\xe9 ?[2J\n"),
       "lines of text, each of one form: %s", text);
    setenv("HSSL_MESSAGES", "json", 1);
    said(text, sizeof text, says_all);
    unsetenv("HSSL_MESSAGES");
    int lines = 0, objects = 0;
    for (char *rest = text, *line; (line = strtok_r(rest, "\n", &rest)); lines++) {
        json_object *o = json_tokener_parse(line), *v;
        objects +=
            o && json_object_object_get_ex(o, "time", &v) && json_object_object_get_ex(o, "program", &v) &&
            json_object_object_get_ex(o, "level", &v) &&
            (strcmp(json_object_get_string(v), "progress") ||
             (json_object_object_get_ex(o, "rate", &v) && json_object_object_get_ex(o, "eta_s", &v))) &&
            json_object_object_get_ex(o, "message", &v);
        json_object_put(o);
    }
    ok(lines == 2 && objects == 2, "with HSSL_MESSAGES=json every line is an object: %d of %d", objects,
       lines);
    err_set(ERR_DATA, "a.db: damaged");
    err_prefix("%s", "a.db");
    is_str(err_text(), "a.db: damaged", "a name stands once in front of an error");
    err_prefix("a");
    is_str(err_text(), "a: a.db: damaged", "another one is put there");
}

static void test_output(void)
{
    struct stat st;
    mode_t before = umask(027);
    if (!ok(mkdtemp(dir) != NULL, "a folder"))
        return;
    ok(!output_file(IN("a"), 0, "one", 3) && !stat(IN("a"), &st) && (st.st_mode & 0777) == 0640, "mode by umask");
    holds(IN("a"), "one", "a file");
    ok(!output_file(IN("p"), OUTPUT_PRIVATE, "key", 3) && !stat(IN("p"), &st) && (st.st_mode & 0777) == 0600, "for its owner");
    Output *o = output_open(IN("a"), NULL, 0);
    ok(o && !output_write(o, "two", 3), "begun");
    holds(IN("a"), "one", "which nobody sees");
    ok(entries() == 2, "nor any other file");
    output_cancel(&o);
    ok(!o && entries() == 2, "given up, nothing is left");
    ok(!output_file(IN("a"), OUTPUT_LASTING, "three", 5), "replaced");
    holds(IN("a"), "three", "as a whole");

    ok(refused(IN("a"), NULL, OUTPUT_NEW, ERR_EXISTS), "a new one is not put over another");
    o = output_open(IN("new"), NULL, OUTPUT_NEW);
    ok(o && !output_file(IN("new"), 0, "first", 5) && output_commit(&o) < 0 && err_code() == ERR_EXISTS && !o,
       "also if that came meanwhile");
    holds(IN("new"), "first", "which stays");

    ok(!symlink("a", IN("link")) && !link(IN("a"), IN("hard")) && !output_file(IN("a-lock"), 0, "lock", 4), "links");
    ok(refused(IN("a"), IN("a"), 0, ERR_USAGE) && refused(IN("link"), IN("a"), 0, ERR_USAGE) &&
           refused(IN("hard"), IN("a"), 0, ERR_USAGE) && refused(IN("a-lock"), IN("a"), 0, ERR_USAGE) &&
           refused(IN("a"), IN("link"), 0, ERR_USAGE), "the source itself is refused, under any name");
    const char *const sources[OUTPUT_SOURCES] = { IN("p"), IN("a") };
    ok(!output_append(IN("hard"), sources) && err_code() == ERR_USAGE, "also to append to");
    ok(!output_file(IN("link"), 0, "over", 4) && !lstat(IN("link"), &st) && S_ISREG(st.st_mode), "a link is replaced");
    holds(IN("a"), "three", "and not followed");
    ok(refused(dir, NULL, 0, ERR_USAGE), "a folder is refused");
    ok(refused(IN("none/x"), NULL, 0, ERR_SYSTEM), "a folder that is not there");

    ok(!output_file("/dev/null", OUTPUT_LASTING, "gone", 4) && !stat("/dev/null", &st) && S_ISCHR(st.st_mode),
       "a device is written to, not replaced");
    int fd = open(IN("fd"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char name[32];
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    ok(fd >= 0 && write(fd, "at ", 3) == 3 && !output_file(name, 0, "its place", 9) && !close(fd), "a descriptor of ours");
    holds(IN("fd"), "at its place", "is written to where it stands");
    ok(!mkfifo(IN("pipe"), 0600) && !output_file(IN("pipe"), OUTPUT_PLAIN, "file", 4), "a pipe where a file has to be");
    holds(IN("pipe"), "file", "is replaced");
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ok(!system(command), "clean");
    umask(before);
}

int main(void)
{
    test_idset();
    test_text();
    test_controls();
    test_output();
    test_log();
    test_words();
    test_rng();
    test_opt();
    err_set(ERR_DATA, "inner");
    err_prefix("outer");
    ok(err_code() == ERR_DATA && !strcmp(err_text(), "outer: inner"), "errors nest");
    err_prefix("%s", "outer");
    ok(!strcmp(err_text(), "outer: inner"), "a name that is there is not put there twice");
    err_prefix("out");
    is_str(err_text(), "out: outer: inner", "one that only begins alike is");
    return tap_done();
}
