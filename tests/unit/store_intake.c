/* lib/store: foreign collections. The command line tests (import) cover folders, lists and tars. */
#include "../tap.h"

#include "store/intake.h"
#include "util/err.h"
#include "util/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    Intake *in = intake_open(in_dir("data_batch_1.bin"), false);
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
    char text[16];
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
    Intake *in = intake_open(path, false);
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

    Intake *in = intake_open(in_dir("x.tar"), false);
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

static void test_others(void)
{
    write_file("x.txt", "cat/1.jpg\n", 10);
    ok(!intake_open(in_dir("x.txt"), false) && err_code() == ERR_DATA && strstr(err_text(), "standard input"),
       "a list as a file: the message says where it belongs");
    ok(!intake_open(in_dir("none"), false) && err_code() == ERR_ABSENT, "no such source");
    write_file("data_batch_1.bin", "short", 5);
    ok(!intake_open(in_dir("data_batch_1.bin"), false), "a CIFAR file of a wrong size");
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
    test_others();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) ? 1 : tap_done();
}
