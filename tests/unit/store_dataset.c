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
    DatasetWriter *w = dataset_create(path, false);
    bool good = w;
    for (uint64_t i = 0; good && i < 1000; i++)
        good = !put(w, i);
    ok(good, "a thousand images go in") || (diag("%s", err_text()), 0);
    ok(put(w, 5) < 0 && err_code() == ERR_EXISTS, "a name that is there already is refused");
    ok(dataset_has(w, "class0/2.jpg") == 1 && dataset_has(w, "class0/2.jpeg") == 0, "names are known");
    ok(!dataset_finish(w), "finish");
    ok(!dataset_create(path, false) && err_code() == ERR_EXISTS, "an existing file is not overwritten");

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

    w = dataset_create(path, true);
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
    DatasetWriter *w = dataset_create(path, false);
    ok(w && !dataset_finish(w), "an empty dataset");
    Dataset *ds = dataset_open(path);
    ok(ds && !dataset_count(ds) && !dataset_classes(ds), "opens");
    dataset_close(ds);

    w = dataset_create(path, true);
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
    ok(!dataset_create(in_dir("text"), true) && err_code() == ERR_DATA, "and nothing is imported into it");
}

/* The file grows although its map was small. */
static void test_growth(void)
{
    size_t reserve = store_map_reserve;
    unsigned char *big = calloc(1, 3 << 20);
    char name[32];
    bool good = true;
    store_map_reserve = 1 << 20;
    DatasetWriter *w = dataset_create(in_dir("grown.db"), false);
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
    bool good = true;
    for (int round = 0; good && round < 4; round++) {
        int commits[2];
        char byte;
        if (pipe(commits))
            break;
        pid_t child = fork();
        if (!child) {
            close(commits[0]);
            DatasetWriter *w = dataset_create(path, true);
            for (uint64_t i = w ? dataset_written(w) : 0; w; i++)
                if (put(w, i) || (i % 50 == 0 && (dataset_commit(w) || (i && write(commits[1], "", 1) != 1))))
                    break;
            _exit(1);
        }
        close(commits[1]);
        good = read(commits[0], &byte, 1) == 1;
        usleep(7000 * (unsigned)round);
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
}

static void test_version(void)
{
    const char *path = in_dir("newer.db");
    StoreEnv e;
    MDB_txn *txn;
    MDB_dbi meta;
    uint64_t extra[2] = { 0, 0 };
    DatasetWriter *w = dataset_create(path, false);
    bool good = w && !dataset_finish(w) && !store_open(&e, path, STORE_WRITE, "dataset", NULL) &&
                !store_begin_write(&e, 1 << 20, &txn) && !mdb_dbi_open(txn, "meta", 0, &meta) &&
                !store_header_put(&e, txn, meta, "HSSLDATA", 2, extra, 2) && !store_commit(&e, txn);
    store_close(&e);
    ok(good && !dataset_open(path) && err_code() == ERR_DATA && strstr(err_text(), "version 2"),
       "a newer version is refused with a sentence");
    diag("%s", err_text());
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    test_round_trip();
    test_edges();
    test_growth();
    test_killed();
    test_version();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) ? 1 : tap_done();
}
