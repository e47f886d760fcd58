/* lib/store: damaged LMDB files lead to errors, never to a crash. Meant for the sanitizers, too. */
#include "../tap.h"

#include "store/dataset.h"
#include "store/quarantine.h"
#include "store/run.h"
#include "util/err.h"
#include "util/rng.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/hssl-damage.XXXXXX";
static char path[64], lock[80];
static unsigned sum;

enum { ROOM = 4 << 20, IMAGES = 300 };
static unsigned char good[ROOM], bad[ROOM];

static size_t read_file(void)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, good, ROOM);
    close(fd);
    return n > 0 ? (size_t)n : 0;
}

static void write_file(size_t n)
{
    unlink(lock);
    unlink(path); /* a truncated file that is written anew is flushed to the disk by some file systems */
    int fd = open(path, O_WRONLY | O_CREAT, 0666);
    if (write(fd, bad, n) != (ssize_t)n)
        exit(1);
    close(fd);
}

static bool make_dataset(void)
{
    static unsigned char bytes[20000];
    DatasetWriter *w = dataset_create(path, DATASET_NEW);
    bool fine = w;
    for (unsigned i = 0; fine && i < IMAGES; i++) {
        char name[64], class[16];
        snprintf(name, sizeof name, "c%u/%u.jpg", i % 7, i);
        snprintf(class, sizeof class, "c%u", i % 7);
        memset(bytes, (int)i, sizeof bytes);
        Record r = { .bytes = bytes, .size = 1 + i * 613 % 9000, .name = name, .label = dataset_class(w, class) };
        fine = !dataset_put(w, &r);
        if (i % 100 == 99)
            fine = fine && !dataset_commit(w);
    }
    return !dataset_finish(w) && fine;
}

/* Opens and reads everything there is. 0: nothing was found wrong. */
static int use_dataset(void)
{
    Dataset *ds = dataset_open(path);
    Record r;
    int wrong = !ds;
    for (uint64_t i = 0; ds && i < dataset_count(ds) && i < 2 * IMAGES; i++) {
        int rc = dataset_take(ds, i, &r);
        if (rc) {
            wrong = 1;
            for (size_t j = 0; rc > 0 && j < r.size; j++) /* what was salvaged can be read */
                sum += ((const unsigned char *)r.bytes)[j];
            sum += rc > 0 ? (unsigned)strlen(r.name) : 0;
            continue;
        }
        sum += (unsigned)strlen(r.name) + ((const unsigned char *)r.bytes)[r.size - 1];
        wrong |= r.label < 0 || r.label >= dataset_classes(ds);
    }
    dataset_close(ds);
    return wrong;
}

static int write_dataset(void)
{
    DatasetWriter *w = dataset_create(path, DATASET_RESUME);
    Record r = { .bytes = "12345", .size = 5, .name = "new", .label = -1 };
    int wrong = !w || dataset_put(w, &r);
    return dataset_finish(w) || wrong;
}

static bool make_run(void)
{
    static float big[30000];
    const StoredTensor t[] = { { "a.weight", STORED_F32, 2, { 100, 300 }, big, sizeof big },
                               { "a.bias", STORED_F32, 1, { 5 }, big, 20 },
                               { "steps", STORED_I64, 0, { 0 }, big, 8 } };
    Run *run = run_create(path, "{\"arch\":\"vit_nano\"}", false);
    bool fine = run && !run_set(run, "ticket", "x");
    for (uint64_t step = 1; fine && step < 5; step++) {
        for (int i = 0; i < 100; i++)
            fine = fine && !run_log(run, "{\"step\":1,\"loss\":3.25}");
        const BadImage b = { .id = step, .name = "cat/1.jpg", .why = "JPEG: no end", .size = 700 * step,
                             .bytes = big, .kept = 700 * step };
        fine = fine && !run_save(run, step, "{}", t, 3, 2) && !run_bad_put(run, &b, 1);
    }
    return !run_close(run) && fine;
}

static int touch_line(int64_t number, const char *line, void *arg)
{
    (void)arg;
    sum += (unsigned)strlen(line) + (unsigned)number;
    return 0;
}

static int touch_tensor(const StoredTensor *t, void *arg)
{
    (void)arg;
    for (size_t i = 0; i < t->bytes; i++)
        sum += ((const unsigned char *)t->data)[i];
    return 0;
}

static int use_run(void)
{
    uint64_t *steps = NULL;
    Run *run = run_open(path, false);
    if (!run)
        return 1;
    int64_t n = run_steps(run, &steps);
    int wrong = n < 0 || run_log_each(run, 0, touch_line, NULL);
    for (int64_t i = 0; i < n; i++) {
        Checkpoint *cp = run_checkpoint(run, (int64_t)steps[i]);
        wrong |= !cp || checkpoint_each(cp, touch_tensor, NULL) || checkpoint_verify(cp);
        checkpoint_close(cp);
    }
    free(steps);
    n = run_bad_ids(run, &steps);
    wrong |= n < 0;
    for (int64_t i = 0; i < n; i++) {
        BadImage b;
        wrong |= run_bad_get(run, steps[i], true, &b);
        for (uint64_t j = 0; j < b.kept; j++)
            sum += ((const unsigned char *)b.bytes)[j];
        sum += b.name ? (unsigned)(strlen(b.name) + strlen(b.why)) : 0;
        bad_image_free(&b);
    }
    free(steps);
    return run_close(run) || wrong;
}

static int write_run(void)
{
    float x[3] = { 0 };
    const StoredTensor t = { "x", STORED_F32, 1, { 3 }, x, 12 };
    Run *run = run_open(path, true);
    if (!run)
        return 1;
    int wrong = run_log(run, "{}") || run_save(run, 99, "{}", &t, 1, 1);
    return run_close(run) || wrong;
}

/* Changes a few bytes, mostly where LMDB keeps its own: at the beginnings of pages and near offsets. */
static size_t damage(Rng *r, size_t n)
{
    memcpy(bad, good, n);
    if (rng_below(r, 8) == 0)
        return rng_below(r, (uint32_t)n);
    for (uint32_t k = 1 + rng_below(r, 4); k; k--) {
        size_t page = rng_below(r, (uint32_t)(n / 4096)) * (size_t)4096, at = page;
        if (rng_below(r, 4) == 0)
            page = at = rng_below(r, 2) * (size_t)4096;
        at += rng_below(r, rng_below(r, 3) ? 200 : 4096);
        switch (rng_below(r, 3)) {
        case 0: bad[at] ^= (unsigned char)(1 << rng_below(r, 8)); break;
        case 1: bad[at] = (unsigned char)rng_u32(r); break;
        default: memset(bad + at, rng_below(r, 2) ? 0xff : 0, n - at < 8 ? n - at : 8);
        }
    }
    return n;
}

/* Each round in a process of its own, so that a crash is seen and named. */
static void rounds(const char *what, int count, int (*use)(void))
{
    Rng r = rng_make(2, RNG_TEST, rng_hash(what), 0);
    size_t n = read_file();
    int found = 0, crashed = 0;
    for (int i = 0; i < count; i++) {
        write_file(damage(&r, n));
        pid_t child = fork();
        if (!child) {
            alarm(TAP_PATIENCE_S);
            _exit(use());
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) <= 1) {
            found += WEXITSTATUS(status);
        } else {
            crashed++;
            diag("round %d: %s %d", i, WIFSIGNALED(status) ? "signal" : "exit",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        }
    }
    ok(!crashed && found > 0, "%s: %d of %d damaged files are noticed, none crashes", what, found, count);
    diag("%s: %d damaged files, %d noticed, %d crashes", what, count, found, crashed);
    memcpy(bad, good, n);
    write_file(n);
    ok(!use(), "%s: the undamaged one is fine", what) || (diag("%s", err_text()), 0);
}

/* Every byte of an image and of its head is covered by a checksum. */
static void test_values(void)
{
    size_t n = read_file(), at = 0;
    int unnoticed = 0;
    for (size_t i = 0; i + 11 < n && !at; i++)
        if (!memcmp(good + i, "c3/101.jpg", 11))
            at = i;
    ok(at > 32, "found a record in the file");
    for (size_t i = at - 32; i < at + 40; i++) {
        if (i - (at - 32) == 14 || i - (at - 32) == 15)
            continue; /* two bytes that mean nothing */
        memcpy(bad, good, n);
        bad[i] ^= 0x10;
        write_file(n);
        unnoticed += !use_dataset();
    }
    is_int(unnoticed, 0, "changed bytes of a record that nobody noticed");
    memcpy(bad, good, n);
    write_file(n);
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/x.db", dir);
    snprintf(lock, sizeof lock, "%s-lock", path);
    ok(make_dataset(), "a dataset to damage");
    test_values();
    rounds("reading a dataset", siege(400), use_dataset);
    rounds("adding to a dataset", siege(150), write_dataset);
    unlink(path);
    unlink(lock);
    ok(make_run(), "a run to damage");
    rounds("reading a run", siege(400), use_run);
    rounds("adding to a run", siege(150), write_run);
    unlink(path);
    unlink(lock);
    rmdir(dir);
    return tap_done();
}
