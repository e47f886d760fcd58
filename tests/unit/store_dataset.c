/* lib/store: datasets. */
#include "../tap.h"

#include "store/dataset.h"
#include "store/env.h"
#include "util/err.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/hssl-store.XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

/* Record i of a made-up dataset; its bytes depend on i alone. */
static Record made_up(uint64_t i, unsigned char *bytes, char *name)
{
    size_t size = 1 + (size_t)(i * 7919 % 9000);
    for (size_t k = 0; k < size; k++)
        bytes[k] = (unsigned char)(i * 31 + k * 7);
    snprintf(name, 64, "class%llu/%llu.jpg", (unsigned long long)(2 - i % 3), (unsigned long long)i);
    return (Record){ .bytes = bytes, .size = size, .name = name, .label = -1, .width = (uint32_t)i + 1, .height = 9 };
}

static int put(DatasetWriter *w, uint64_t i)
{
    unsigned char bytes[9001];
    char name[64], class[16];
    Record r = made_up(i, bytes, name);
    snprintf(class, sizeof class, "class%llu", (unsigned long long)(2 - i % 3));
    r.label = dataset_class(w, class);
    return r.label < 0 ? -1 : dataset_put(w, &r);
}

static bool same(Dataset *ds, uint64_t i)
{
    unsigned char bytes[9001];
    char name[64];
    Record want = made_up(i, bytes, name), got;
    return !dataset_get(ds, i, &got) && !dataset_verify(ds, &got) && got.size == want.size &&
           !memcmp(got.bytes, want.bytes, want.size) && !strcmp(got.name, want.name) &&
           got.label == (int32_t)(2 - i % 3) && got.width == want.width && got.height == 9;
}

static void test_round_trip(void)
{
    const char *path = in_dir("a.db");
    DatasetWriter *w = dataset_create(path, DATASET_NEW);
    bool good = w;
    for (uint64_t i = 0; good && i < 1000; i++)
        good = !put(w, i);
    ok(good, "a thousand images go in") || (diag("%s", err_text()), 0);
    ok(put(w, 5) < 0 && err_code() == ERR_EXISTS, "a name that is there already is refused");
    ok(dataset_has(w, "class0/2.jpg") == 1 && dataset_has(w, "class0/2.jpeg") == 0, "names are known");
    ok(!dataset_finish(w), "finish");
    ok(!dataset_create(path, DATASET_NEW) && err_code() == ERR_EXISTS, "an existing file is not overwritten");

    Dataset *ds = dataset_open(path);
    ok(ds && dataset_count(ds) == 1000, "open again") || (diag("%s", err_text()), 0);
    Record first, r;
    good = ds && !dataset_get(ds, 0, &first);
    for (uint64_t i = 0; good && i < 1000; i++)
        good = same(ds, i);
    ok(good, "every image is as it was");
    ok(good && !strcmp(first.name, "class2/0.jpg"), "a record stays good while others are read");
    ok(dataset_get(ds, 1000, &r) < 0 && err_code() == ERR_ABSENT, "there is no image behind the last");
    ok(dataset_classes(ds) == 3 && !strcmp(dataset_class_name(ds, 0), "class0") &&
           !strcmp(dataset_class_name(ds, 2), "class2") && !dataset_class_name(ds, 3), "class names are sorted");
    ok(dataset_class_count(ds, 2) == 334 && dataset_class_count(ds, 0) == 333, "classes count their images");
    dataset_close(ds);

    w = dataset_create(path, DATASET_RESUME);
    good = w && dataset_written(w) == 1000 && dataset_has(w, "class0/2.jpg") == 1;
    for (uint64_t i = 1000; good && i < 1100; i++)
        good = !put(w, i);
    ok(good && !dataset_finish(w), "an import goes on");
    ds = dataset_open(path);
    good = ds && dataset_count(ds) == 1100;
    for (uint64_t i = 0; good && i < 1100; i++)
        good = same(ds, i);
    ok(good, "and everything is there");
    dataset_close(ds);
}

static void test_edges(void)
{
    const char *path = in_dir("edge.db");
    Record r = { .bytes = "x", .size = 1, .name = "x", .label = -1 }, got;
    DatasetWriter *w = dataset_create(path, DATASET_NEW);
    ok(w && !dataset_finish(w), "an empty dataset");
    Dataset *ds = dataset_open(path);
    ok(ds && !dataset_count(ds) && !dataset_classes(ds), "opens");
    dataset_close(ds);

    w = dataset_create(path, DATASET_RESUME);
    char *long_name = malloc(DATASET_NAME_MAX + 2);
    memset(long_name, 'n', DATASET_NAME_MAX + 1);
    long_name[DATASET_NAME_MAX + 1] = 0;
    r.name = long_name;
    ok(dataset_put(w, &r) < 0 && err_code() == ERR_USAGE, "a name that is too long is refused");
    long_name[DATASET_NAME_MAX] = 0;
    ok(!dataset_put(w, &r), "the longest name is not");
    r.name = "y", r.label = 0;
    ok(dataset_put(w, &r) < 0 && err_code() == ERR_USAGE, "a class that nobody named is refused");
    r.label = -1, r.size = 0;
    ok(dataset_put(w, &r) < 0 && err_code() == ERR_DATA, "an image without bytes is refused");
    ok(!dataset_finish(w), "finish");
    ds = dataset_open(path);
    ok(ds && !dataset_get(ds, 0, &got) && !strcmp(got.name, long_name) && got.label == -1, "and comes back");
    dataset_close(ds);
    free(long_name);

    ok(!dataset_open(in_dir("none.db")) && err_code() == ERR_ABSENT, "no such file");
    ok(!dataset_open(dir) && err_code() == ERR_DATA, "a directory is no dataset");
    ok(!mkfifo(in_dir("pipe"), 0600) && !dataset_open(in_dir("pipe")) && err_code() == ERR_DATA,
       "nor is a pipe that nobody writes to");
    int fd = open(in_dir("text"), O_WRONLY | O_CREAT, 0666);
    ok(write(fd, "hello, this is no dataset at all\n", 33) == 33 && !close(fd), "a text file");
    ok(!dataset_open(in_dir("text")) && err_code() == ERR_DATA, "is no dataset");
    ok(!dataset_create(in_dir("text"), DATASET_RESUME) && err_code() == ERR_DATA, "and nothing is imported into it");
}

/* The file grows although its map was small. */
static void test_growth(void)
{
    size_t reserve = store_map_reserve;
    unsigned char *big = calloc(1, 3 << 20);
    char name[32];
    bool good = true;
    store_map_reserve = 1 << 20;
    DatasetWriter *w = dataset_create(in_dir("grown.db"), DATASET_NEW);
    for (int i = 0; good && i < 30; i++) {
        snprintf(name, sizeof name, "%d", i);
        Record r = { .bytes = big, .size = 3 << 20, .name = name, .label = -1 };
        big[0] = (unsigned char)i;
        good = w && !dataset_put(w, &r);
    }
    ok(good && !dataset_finish(w), "the map grows with the file") || (diag("%s", err_text()), 0);
    Dataset *ds = dataset_open(in_dir("grown.db"));
    Record r;
    ok(ds && !dataset_get(ds, 29, &r) && *(const unsigned char *)r.bytes == 29, "and the last image is there");
    dataset_close(ds);
    store_map_reserve = reserve;
    free(big);
}

/* A writer killed at any moment leaves a file that opens, and whose images are whole. */
static void test_killed(void)
{
    const char *path = in_dir("killed.db");
    uint64_t before = 0;
    const int kills = siege(4);
    bool good = true;
    for (int round = 0; good && round < kills; round++) {
        int commits[2];
        char byte;
        if (pipe(commits))
            break;
        pid_t child = fork();
        if (!child) {
            close(commits[0]);
            DatasetWriter *w = dataset_create(path, DATASET_RESUME);
            for (uint64_t i = w ? dataset_written(w) : 0; w; i++)
                if (put(w, i) || (i % 50 == 0 && (dataset_commit(w) || (i && write(commits[1], "", 1) != 1))))
                    break;
            _exit(1);
        }
        close(commits[1]);
        good = read(commits[0], &byte, 1) == 1;
        usleep(7000 * (unsigned)(round % 4));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        close(commits[0]);
        Dataset *ds = dataset_open(path);
        good = good && ds && dataset_count(ds) > before;
        before = ds ? dataset_count(ds) : 0;
        for (uint64_t i = 0; good && i < before; i++)
            good = same(ds, i);
        dataset_close(ds);
    }
    ok(good && before > 0, "killed in mid-import, the file is whole (%llu images)", (unsigned long long)before) ||
        (diag("%s", err_text()), 0);
    diag("%d kills, %llu images", kills, (unsigned long long)before);
}

/* Images `from` to `to` go in, with a commit after each `every`. */
static bool import(const char *path, uint64_t from, uint64_t to, uint64_t every)
{
    DatasetWriter *w = dataset_create(path, DATASET_RESUME);
    bool good = w;
    for (uint64_t i = from; good && i < to; i++)
        good = !put(w, i) && ((i + 1) % every || !dataset_commit(w));
    return !dataset_finish(w) && good;
}

static const char *digest(const char *path)
{
    static char text[4][17];
    static int n;
    char *out = text[n = (n + 1) % 4];
    Dataset *ds = dataset_open(path);
    if (!ds || dataset_verify_all(ds) || dataset_digest(ds, out))
        snprintf(out, 17, "%.16s", err_text());
    dataset_close(ds);
    return out;
}

static bool put_header(const char *path, const StoreHeader *h)
{
    StoreEnv e;
    MDB_txn *txn;
    MDB_dbi meta;
    bool good = !store_open(&e, path, STORE_WRITE, "dataset", NULL) && !store_begin_write(&e, 1 << 20, &txn) &&
                !mdb_dbi_open(txn, "meta", 0, &meta) && !store_header_put(&e, txn, meta, "HSSLDATA", h) &&
                !store_commit(&e, txn);
    store_close(&e);
    return good;
}

static bool get_header(const char *path, StoreHeader *h)
{
    StoreEnv e;
    MDB_txn *txn = NULL;
    MDB_dbi meta;
    bool good = !store_open(&e, path, STORE_READ, "dataset", NULL) && !store_begin_read(&e, &txn) &&
                !mdb_dbi_open(txn, "meta", 0, &meta) && !store_header_get(&e, txn, meta, "HSSLDATA", 99, "dataset", h);
    store_end_read(&e, txn);
    store_close(&e);
    return good;
}

static void same_digest(const char *path, const char *want, const char *name)
{
    const char *got = digest(path);
    ok(!strcmp(got, want), "%s", name) || (diag("got %s, want %s", got, want), 0);
}

static void test_digest(void)
{
    StoreHeader h;
    char want[17];
    const char *one = in_dir("one.db");
    ok(import(one, 0, 300, 1000), "an import in one go");
    strcpy(want, digest(one));
    ok(strlen(want) == 16 && strspn(want, "0123456789abcdef") == 16 && strcmp(want, "0000000000000000"),
       "has a digest: %s", want);

    const char *two = in_dir("two.db");
    ok(import(two, 0, 120, 7) && import(two, 120, 300, 50), "the same in two");
    same_digest(two, want, "has the same digest");

    const char *other = in_dir("other.db");
    DatasetWriter *w = dataset_create(other, DATASET_NEW);
    Record r = { .bytes = "x", .size = 1, .name = "x", .label = -1 };
    ok(w && !dataset_put(w, &r) && !dataset_finish(w), "an image");
    const char *bare = digest(other);
    remove(other);
    w = dataset_create(other, DATASET_NEW);
    r.label = w ? dataset_class(w, "c") : -1;
    ok(w && !dataset_put(w, &r) && !dataset_finish(w) && strcmp(digest(other), bare), "its class counts for the digest");
    remove(other);
    w = dataset_create(other, DATASET_NEW);
    r.label = -1, r.name = "y";
    ok(w && !dataset_put(w, &r) && !dataset_finish(w) && strcmp(digest(other), bare), "its name does");
    remove(other);
    w = dataset_create(other, DATASET_NEW);
    r.bytes = "y", r.name = "x";
    ok(w && !dataset_put(w, &r) && !dataset_finish(w) && strcmp(digest(other), bare), "its bytes do");

    /* What a program of version 1 left. */
    ok(import(two = in_dir("v1.db"), 0, 200, 1000) && get_header(two, &h) && h.version == 2 && h.n == 4, "a header");
    h.version = 1, h.n = 2;
    ok(put_header(two, &h), "as version 1 has it");
    ok(import(one = in_dir("v2.db"), 0, 200, 1000), "the same of version 2");
    same_digest(two, digest(one), "its digest is computed");
    ok(get_header(two, &h) && h.version == 1, "reading leaves it as it is");
    ok(import(two, 200, 300, 1000) && get_header(two, &h) && h.version == 2, "who adds to it makes it version 2");
    same_digest(two, want, "with the digest it should have");

    h.n = 6, h.field[5] = 77;
    ok(put_header(two, &h) && import(two, 300, 310, 1000) && get_header(two, &h) && h.n == 6 && h.field[5] == 77 &&
           h.field[0] == 310, "fields that are not known stay");
    h.field[2]++;
    ok(put_header(two, &h), "a digest that is wrong");
    Dataset *ds = dataset_open(two);
    ok(ds && dataset_verify_all(ds) && err_code() == ERR_DATA && strstr(err_text(), "its digest is"), "is found") ||
        (diag("%s", err_text()), 0);
    dataset_close(ds);
}

/* A dataset of one image, read as it is said; its digest. */
static const char *digest_read(unsigned rule, uint16_t reading)
{
    const char *path = in_dir("rule.db");
    Record
        r = {.bytes = "x", .size = 1, .name = "x", .label = -1, .width = 3, .height = 2, .reading = reading},
        got;
    DatasetWriter *w = dataset_create(path, DATASET_REPLACE);
    ok(w && dataset_writer_rule(w) == DATASET_RULE, "a new dataset has today's rule");
    dataset_set_rule(w, rule);
    ok(!dataset_put(w, &r) && !dataset_finish(w), "another is given to it before its first image");
    Dataset *ds = dataset_open(path);
    ok(ds && dataset_rule(ds) == rule && !dataset_get(ds, 0, &got) && got.reading == reading &&
           got.width == 3 && !dataset_verify_all(ds),
       "rule %u and reading %u come back", rule, (unsigned)reading);
    dataset_close(ds);
    w = dataset_create(path, DATASET_RESUME);
    ok(w && dataset_writer_rule(w) == rule, "who adds to it finds its rule");
    r.name = "y";
    ok(w && !dataset_put(w, &r) && !dataset_finish(w) && (ds = dataset_open(path)) &&
           dataset_rule(ds) == rule,
       "and leaves it");
    dataset_close(ds);
    return digest(path);
}

static void test_rule(void)
{
    char plain[17], turned[17];
    uint64_t announced;
    snprintf(plain, sizeof plain, "%s", digest_read(0, 0));
    is_str(plain, "d8178f0bd82e35e7", "without readings the digest is what it was before there were any");
    is_str(digest_read(DATASET_RULE, 0), plain, "whatever the rule");
    snprintf(turned, sizeof turned, "%s", digest_read(DATASET_RULE, 6));
    ok(strcmp(turned, plain), "a reading is part of it");
    ok(strcmp(digest_read(DATASET_SCALED, 16), turned), "and which");
    is_int(dataset_repair(in_dir("rule.db"), &announced), 0, "nothing is to be repaired in it");
    Dataset *ds = dataset_open(in_dir("rule.db"));
    ok(ds && dataset_rule(ds) == DATASET_SCALED, "its rule stays");
    dataset_close(ds);
}

static void test_version(void)
{
    const char *path = in_dir("newer.db");
    StoreHeader h;
    ok(import(path, 0, 1, 1) && get_header(path, &h), "a dataset");
    h.field[3] |= 8;
    ok(put_header(path, &h) && !dataset_open(path) && err_code() == ERR_DATA &&
           strstr(err_text(), "flags 0x8") && !dataset_create(path, DATASET_RESUME),
       "a flag that is not known is refused") ||
        (diag("%s", err_text()), 0);
    h.field[3] = 0, h.version = 3;
    ok(put_header(path, &h) && !dataset_open(path) && err_code() == ERR_DATA && strstr(err_text(), "version 3"),
       "a newer version is refused with a sentence") || (diag("%s", err_text()), 0);
}

static void test_classes(void)
{
    char long_name[DATASET_NAME_MAX + 2];
    const char *path = in_dir("classes.db"), *numbers = in_dir("numbers.db");
    Record r = { .bytes = "x", .size = 1, .name = "a" };
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;

    DatasetWriter *w = dataset_create(path, DATASET_NEW);
    bool good = w && !dataset_put_in(w, &r, "b");
    ok(good && dataset_put_in(w, &r, "a") < 0 && err_code() == ERR_EXISTS, "a name twice is refused");
    r.name = long_name;
    ok(dataset_put_in(w, &r, "c") < 0 && err_code() == ERR_USAGE, "a name that is too long");
    r.name = "b";
    ok(dataset_put_in(w, &r, long_name) < 0 && err_code() == ERR_USAGE, "a class name that is too long");
    ok(dataset_number_classes(w) < 0 && err_code() == ERR_USAGE, "named classes don't become numbers");
    ok(!dataset_put_in(w, &r, NULL) && !dataset_finish(w), "what follows is stored");
    Dataset *ds = dataset_open(path);
    ok(ds && dataset_count(ds) == 2 && dataset_classes(ds) == 1 && !strcmp(dataset_class_name(ds, 0), "b"),
       "refused records leave no class behind");
    dataset_close(ds);

    static const char *const bad[] = {
        "", "07", "-1", "+1", "65536", "1 ", "1.0", "99999999999999999999", "x"
    };
    int wrong = dataset_class_number("0") != 0 || dataset_class_number("65535") != DATASET_NUMBER_MAX;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        wrong += dataset_class_number(bad[i]) != -1;
    is_int(wrong, 0, "which names are numbers");
    for (int round = 0; round < 2; round++) {
        static const char *const put[2][3] = { { "10", "2", "10" }, { "7", "0", NULL } };
        w = dataset_create(numbers, DATASET_RESUME);
        good = w && (round || !dataset_number_classes(w));
        for (int i = 0; good && i < 3; i++) {
            char name[8];
            snprintf(name, sizeof name, "%d", 3 * round + i);
            r.name = name;
            good = !dataset_put_in(w, &r, put[round][i]);
        }
        r.name = "cat.jpg";
        ok(good && dataset_put_in(w, &r, "cat") < 0 && err_code() == ERR_USAGE,
           "numbered classes stay so: no cat among them");
        ok(!dataset_number_classes(w) && !dataset_finish(w), "and are asked for again");
    }
    static const int labels[6] = { 10, 2, 10, 7, 0, -1 };
    ds = dataset_open(numbers);
    good = ds && dataset_classes(ds) == 11 && dataset_class_count(ds, 10) == 2 &&
           !dataset_class_count(ds, 9) && !strcmp(dataset_class_name(ds, 9), "9") && !dataset_verify_all(ds);
    for (unsigned i = 0; good && i < 6; i++)
        good = !dataset_get(ds, i, &r) && r.label == labels[i];
    ok(good, "labels are the numbers");
    dataset_close(ds);
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    test_round_trip();
    test_edges();
    test_growth();
    test_killed();
    test_digest();
    test_rule();
    test_version();
    test_classes();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) ? 1 : tap_done();
}
