/* lib/store: foreign collections. The command line tests (import) cover folders, lists and tars. */
#include "../tap.h"

#include "store/intake_kinds.h"
#include "util/err.h"
#include "util/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const IntakeHow plain = { .nul = false };
static char dir[] = "/tmp/hssl-intake.XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static void write_file(const char *name, const void *bytes, size_t n)
{
    unlink(in_dir(name));
    FILE *f = fopen(in_dir(name), "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f))
        exit(1);
}

static void test_cifar(void)
{
    static unsigned char records[2 * 3073];
    IntakeItem item;
    IntakeImage image;
    for (size_t i = 0; i < sizeof records; i++)
        records[i] = (unsigned char)(i * 13 + i / 256);
    records[0] = 3;
    records[3073] = 11;
    write_file("data_batch_1.bin", records, sizeof records);
    Intake *in = intake_open(in_dir("data_batch_1.bin"), &plain);
    ok(in && intake_total(in) == 2 && !strcmp(intake_kind(in), "CIFAR binary"), "a CIFAR file is known by its size");
    bool good = intake_next(in, &item) == 1 && !strcmp(item.name, "data_batch_1/00000.png") &&
                !strcmp(item.class_name, "3") && !intake_load(in, &image) && image.width == 32 && image.height == 32;
    ok(good, "its first image");
    const unsigned char *rgb = image.bytes;
    for (int i = 0; good && i < 1024; i++)
        for (int k = 0; k < 3; k++)
            good = good && rgb[3 * i + k] == records[1 + 1024 * k + i];
    ok(good, "planes become pixels");
    free(image.bytes);
    ok(intake_next(in, &item) == 1 && intake_load(in, &image) < 0 && err_code() == ERR_DATA, "a label out of range");
    ok(intake_next(in, &item) == 0 && intake_next(in, &item) == 0, "the end");
    intake_close(in);
}

static void octal(char *field, int digits, unsigned long value)
{
    char text[24];
    snprintf(text, sizeof text, "%0*lo", digits, value);
    memcpy(field, text, (size_t)digits);
}

static void seal(unsigned char *head)
{
    unsigned sum = 0;
    memset(head + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += head[i];
    octal((char *)head + 148, 6, sum);
    head[154] = 0;
}

static void tar_entry(unsigned char *head, const char *name, char type, size_t size)
{
    memset(head, 0, 512);
    snprintf((char *)head, 100, "%s", name);
    octal((char *)head + 100, 7, 0644);
    octal((char *)head + 124, 11, size);
    head[156] = (unsigned char)type;
    memcpy(head + 257, "ustar\0" "00", 8);
    seal(head);
}

/* Reads all of it; what comes out does not matter as long as it ends. */
static int drain(const char *path)
{
    IntakeItem item;
    IntakeImage image;
    int n = 0, rc;
    Intake *in = intake_open(path, &plain);
    if (!in)
        return -1;
    while ((rc = intake_next(in, &item)) > 0) {
        if (!intake_load(in, &image))
            free(image.bytes);
        n++;
    }
    intake_close(in);
    return rc < 0 ? -1 : n;
}

static void test_tar(void)
{
    static unsigned char tar[10240], bad[10240];
    IntakeItem item;
    IntakeImage image;
    /* A name in a pax header, a GNU long name, and plain ones. */
    char pax[] = "25 path=cat/pax name.jpg\n";
    tar_entry(tar, "PaxHeader", 'x', 25);
    memcpy(tar + 512, pax, 25);
    tar_entry(tar + 1024, "short", '0', 3);
    memcpy(tar + 1536, "one", 3);
    tar_entry(tar + 2048, "././@LongLink", 'L', 301);
    memset(tar + 2560, 'd', 300);
    memcpy(tar + 2560, "./dog/", 6);
    tar_entry(tar + 3072, "short", '0', 4);
    memcpy(tar + 3584, "four", 4);
    tar_entry(tar + 4096, "dog/", '5', 0);
    tar_entry(tar + 4608, "dog/.hidden.jpg", '0', 0);
    tar_entry(tar + 5120, "flat.jpg", '0', 600);
    write_file("x.tar", tar, sizeof tar);

    Intake *in = intake_open(in_dir("x.tar"), &plain);
    ok(in && !strcmp(intake_kind(in), "tar"), "a tar is known by its content") || (diag("%s", err_text()), 0);
    ok(intake_next(in, &item) == 1 && item.class_name && !strcmp(item.class_name, "cat"), "a pax name");
    ok(!intake_load(in, &image) && image.size == 3 && !memcmp(image.bytes, "one", 3), "its bytes");
    free(image.bytes);
    ok(intake_next(in, &item) == 1 && strlen(item.name) == 298 && item.class_name && !strcmp(item.class_name, "dog"), "a long name");
    ok(intake_next(in, &item) == 1 && !strcmp(item.name, "flat.jpg") && !item.class_name, "an image without a folder");
    ok(!intake_load(in, &image) && image.size == 600, "its bytes");
    free(image.bytes);
    ok(intake_next(in, &item) == 0, "the end");
    intake_close(in);

    Rng r = rng_make(3, RNG_TEST, 0, 0);
    int read = 0;
    for (int i = 0; i < 2000; i++) {
        memcpy(bad, tar, sizeof tar);
        size_t n = rng_below(&r, 4) ? sizeof bad : rng_below(&r, sizeof bad);
        for (uint32_t k = rng_below(&r, 5); k; k--)
            bad[rng_below(&r, 5632)] = rng_below(&r, 2) ? (unsigned char)('0' + rng_below(&r, 10)) : (unsigned char)rng_u32(&r);
        /* With checksums made right again, what was changed is believed. */
        for (size_t at = 0; at < 5632 && rng_below(&r, 4); at += 512)
            if (!memcmp(bad + at + 257, "ustar", 5))
                seal(bad + at);
        write_file("bad.tar", bad, n);
        read += drain(in_dir("bad.tar")) >= 0;
    }
    ok(read > 0 && read < 2000, "two thousand damaged tars: %d can be read to the end", read);
    unlink(in_dir("bad.tar"));
}

/* ---------------------------------------------------------------- folders in names */

static void folder_is(const char *name, int level, const char *want)
{
    char *got = NULL;
    int rc = intake_folder_at(name, level, &got);
    ok(!rc && (want ? got && !strcmp(got, want) : !got), "%s: level %d is %s", name, level,
       want ? want : "none") ||
        (diag("%s", got ? got : "none"), 0);
    free(got);
}

static int always(void *arg)
{
    ++*(int *)arg;
    return 1;
}

static int never(void *arg)
{
    ++*(int *)arg;
    return 0;
}

/* names: images, and with a ! before it another file. */
static void parts_at(int want, int most_asked, const char *what, const char *const *names)
{
    IntakeParting p = { .chain = NULL };
    int asked = 0, rc = 0;
    for (; *names && !rc; names++)
        rc = **names == '!' ? intake_parting_see(&p, *names + 1, never, &asked)
                            : intake_parting_see(&p, *names, always, &asked);
    int level = intake_parting_level(&p);
    ok(!rc && level == want && asked <= most_asked, "%s: level %d, and %d files were looked into", what, want,
       asked) ||
        (diag("level %d", level), 0);
    intake_parting_free(&p);
}
#define NAMES(...) (const char *const[]){ __VA_ARGS__, NULL }

static void test_names(void)
{
    folder_is("a/b/c.jpg", 1, "a");
    folder_is("a/b/c.jpg", 2, "b");
    folder_is("a/b/c.jpg", 3, NULL);
    folder_is("a/b/c.jpg", -1, "b");
    folder_is("a/b/c.jpg", -2, "a");
    folder_is("a/b/c.jpg", -3, NULL);
    folder_is("c.jpg", 1, NULL);
    folder_is("c.jpg", -1, NULL);
    folder_is("/c.jpg", -1, NULL);
    folder_is(".././/a//./b/../c.jpg", 2, "b");
    folder_is("", -1, NULL);
    is_int(intake_folders("./a//b/../c"), 2, "folders of a name");

    parts_at(1, 3, "classes", NAMES("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "eel/1.jpg", "eel/2.jpg"));
    parts_at(2, 4, "a folder around them", NAMES("p/cat/1.jpg", "p/dog/1.jpg", "p/dog/2.jpg"));
    parts_at(1, 4, "Tiny-ImageNet's", NAMES("n1/images/1.jpg", "n1/images/2.jpg", "n2/images/1.jpg"));
    parts_at(2, 4, "and a folder around them", NAMES("train/n1/images/1.jpg", "train/n2/images/1.jpg"));
    parts_at(2, 5, "files that are no images",
             NAMES("!classes.txt", "train/cat/1.jpg", "!train/README", "train/dog/1.jpg"));
    parts_at(1, 5, "parts of a data set",
             NAMES("!classes.txt", "train/cat/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"));
    parts_at(1, 2, "a single class", NAMES("cat/1.jpg", "cat/2.jpg", "cat/3.jpg"));
    parts_at(2, 2, "a single class, further below", NAMES("train/cat/1.jpg", "train/cat/2.jpg"));
    parts_at(1, 1, "no folders", NAMES("1.jpg", "2.jpg", "3.jpg"));
    parts_at(1, 3, "images beside folders", NAMES("1.jpg", "cat/2.jpg", "dog/3.jpg"));
    parts_at(1, 3, "and behind them", NAMES("cat/2.jpg", "cat/3.jpg", "1.jpg"));
    parts_at(2, 4, "images of various depths", NAMES("p/a/b/c/1.jpg", "p/a/2.jpg", "p/d/e/3.jpg"));
    parts_at(2, 5, "a folder in the only class", NAMES("cat/1.jpg", "cat/2.jpg", "cat/small/1.jpg"));
    parts_at(1, 5, "but not one without images", NAMES("cat/1.jpg", "cat/2.jpg", "!cat/small/1.txt"));
    parts_at(1, 2, "no images at all", NAMES("!a/1.txt", "!a/2.txt"));

    is_int((long long)intake_key("a.b/c.left.jpg"), 5, "the key of a sample");
    is_int((long long)intake_key("a.b/c"), 5, "without a suffix");
    ok(intake_is_mark("a/b.cls") && !intake_is_mark("a/b.c.cls") && !intake_is_mark("b.cls/c.jpg"), "marks");
    char *mark = intake_mark(" \t 7\n", 5), *bad = intake_mark("a\0b", 3), *none = intake_mark(NULL, 0),
         *dark = intake_mark(NULL, -1);
    ok(mark && !strcmp(mark, "7") && bad && !strcmp(bad, "a\1b") && none && !*none && dark &&
           !strcmp(dark, "\1"),
       "what is in them");
    free(mark);
    free(bad);
    free(none);
    free(dark);
}

/* "name:class:mark " of all items; dashes for none. */
static const char *all_of(const char *source, const IntakeHow *how)
{
    static char text[4096];
    IntakeItem item;
    size_t n = 0;
    Intake *in = intake_open(source, how);
    *text = 0;
    while (in && n < sizeof text && intake_next(in, &item) > 0)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s:%s:%s ", item.name,
                              item.class_name ? item.class_name : "-", item.mark ? item.mark : "-");
    intake_close(in);
    return text;
}

static void test_marks(void)
{
    static const IntakeHow marks = { .marks = true };
    static const struct {
        const char *name, *bytes;
    } files[] = {
        { "a.cls", "3\n" },
        { "a.left.jpg", "\xff\xd8\xff" },
        { "a.right.jpg", "\xff\xd8\xff" },
        { "b.jpg", "\xff\xd8\xff" },
        { "b.json", "{}" },
        { "b.cls", "14" },
        { "c.jpg", "\xff\xd8\xff" },
        { "d.cls", "\n" },
        { "d.jpg", "\xff\xd8\xff" },
        { "x/d.jpg", "\xff\xd8\xff" },
        { "x/e.jpg", "\xff\xd8\xff" },
        { "x/e.cls", "0" },
    };
    enum { FILES = sizeof files / sizeof *files };
    static unsigned char tar[(2 * FILES + 2) * 512];
    mkdir(in_dir("marks"), 0777);
    mkdir(in_dir("marks/x"), 0777);
    for (size_t i = 0; i < FILES; i++) {
        char path[64];
        size_t n = strlen(files[i].bytes);
        snprintf(path, sizeof path, "marks/%s", files[i].name);
        write_file(path, files[i].bytes, n);
        tar_entry(tar + 1024 * i, files[i].name, '0', n);
        memcpy(tar + 1024 * i + 512, files[i].bytes, n);
    }
    write_file("marks.tar", tar, sizeof tar);
    const char *want =
        "a.left.jpg:-:3 a.right.jpg:-:3 b.jpg:-:14 b.json:-:14 c.jpg:-:- d.jpg:-: x/d.jpg:x:- x/e.jpg:x:0 ";
    is_str(all_of(in_dir("marks.tar"), &marks), want, "marks of a tar, before and behind their images");
    is_str(all_of(in_dir("marks"), &marks), want, "marks of a folder");
    ok(strstr(all_of(in_dir("marks"), &plain), "a.cls:-:- a.left.jpg:-:- "),
       "they are files where nobody asks for them");

    /* A sample of more files than are waited for. */
    static unsigned char many[2 * 200 * 512 + 2048];
    IntakeItem item;
    int n = 0, marked = 0;
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, i == 100 ? "s.cls" : "s.%d.jpg", i);
        tar_entry(many + (size_t)i * 1024, name, '0', 1);
        many[(size_t)i * 1024 + 512] = '5';
    }
    write_file("many.tar", many, sizeof many);
    Intake *in = intake_open(in_dir("many.tar"), &marks);
    while (in && intake_next(in, &item) > 0) {
        n++;
        marked += item.mark && !strcmp(item.mark, "5");
    }
    intake_close(in);
    ok(n == 199 && marked >= 99 && marked < 199, "of a sample without end nothing is lost: %d, %d marked", n,
       marked);
}

/* Eight folders, each with links to all others and to a folder outside, which links back. */
static void test_links(void)
{
    char path[64], to[64];
    mkdir(in_dir("cross"), 0777);
    mkdir(in_dir("outside"), 0777);
    write_file("outside/0.jpg", "\xff\xd8\xff", 3);
    if (symlink("../cross", in_dir("outside/back")))
        exit(1);
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "cross/d%d", i);
        mkdir(in_dir(path), 0777);
        snprintf(path, sizeof path, "cross/d%d/0.jpg", i);
        write_file(path, "\xff\xd8\xff", 3);
        for (int k = 0; k < 8; k++) {
            snprintf(path, sizeof path, "cross/d%d/a%d", i, k);
            snprintf(to, sizeof to, "../d%d", k);
            if (symlink(to, in_dir(path)))
                exit(1);
        }
        snprintf(path, sizeof path, "cross/d%d/out", i);
        snprintf(to, sizeof to, "cross/d%d/same.jpg", i);
        if (symlink("../../outside", in_dir(path)) || symlink("../d0/0.jpg", in_dir(to)))
            exit(1);
    }
    is_str(all_of(in_dir("cross"), &plain),
           "d0/0.jpg:d0:- d0/out/0.jpg:d0:- d0/same.jpg:d0:- d1/0.jpg:d1:- d1/same.jpg:d1:- d2/0.jpg:d2:- "
           "d2/same.jpg:d2:- d3/0.jpg:d3:- d3/same.jpg:d3:- d4/0.jpg:d4:- d4/same.jpg:d4:- d5/0.jpg:d5:- "
           "d5/same.jpg:d5:- d6/0.jpg:d6:- d6/same.jpg:d6:- d7/0.jpg:d7:- d7/same.jpg:d7:- ",
           "each folder is read once, under its own name, and links to files are files");
    Intake *in = intake_open(in_dir("cross"), &plain);
    is_int(in ? intake_detours(in) : -1, 8 * 8 + 7 + 1, "the other ways are counted");
    intake_close(in);
}

static void test_others(void)
{
    write_file("x.txt", "cat/1.jpg\n", 10);
    ok(!intake_open(in_dir("x.txt"), &plain) && err_code() == ERR_DATA &&
           strstr(err_text(), "standard input"),
       "a list as a file: the message says where it belongs");
    ok(!intake_open(in_dir("none"), &plain) && err_code() == ERR_ABSENT, "no such source");
    write_file("data_batch_1.bin", "short", 5);
    ok(!intake_open(in_dir("data_batch_1.bin"), &plain), "a CIFAR file of a wrong size");
    mkdir(in_dir("loop"), 0777);
    if (symlink("..", in_dir("loop/up")))
        exit(1);
    int n = drain(in_dir("loop"));
    ok(n >= 0 && n < 100, "a link that leads back up ends");
}

int main(void)
{
    char command[128];
    if (!mkdtemp(dir))
        return 1;
    test_cifar();
    test_tar();
    test_names();
    test_marks();
    test_links();
    test_others();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) ? 1 : tap_done();
}
