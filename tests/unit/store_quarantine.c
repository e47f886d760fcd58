/* lib/store: a run's quarantine of bad images. */
#include "../tap.h"

#include "store/env.h"
#include "store/quarantine.h"
#include "util/err.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

static char dir[] = "/tmp/hssl-quarantine.XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

enum { ROOM = QUARANTINE_IMAGE + 10 };
static unsigned char bytes[ROOM];

static BadImage image(uint64_t id, uint64_t size)
{
    memset(bytes, (int)(id + 1), size);
    return (BadImage){ .id = id, .label = (int32_t)id - 1, .seq = 100 + id, .epoch = 2, .name = "cat/1.jpg",
                       .why = "JPEG: no end", .size = size, .checksum = XXH3_64bits(bytes, size), .bytes = bytes,
                       .kept = size };
}

static int put(Run *run, uint64_t id, uint64_t size)
{
    BadImage b = image(id, size);
    return run_bad_put(run, &b, 1);
}

/* Whether an image is there as image() made it, with so many of its bytes. */
static bool is_there(Run *run, uint64_t id, uint64_t size, uint64_t kept)
{
    BadImage b;
    if (run_bad_get(run, id, true, &b)) {
        diag("%s", err_text());
        return false;
    }
    bool good = b.id == id && b.label == (int32_t)id - 1 && b.seq == 100 + id && b.epoch == 2 && b.size == size &&
                b.kept == kept && !strcmp(b.name, "cat/1.jpg") && !strcmp(b.why, "JPEG: no end");
    for (uint64_t i = 0; good && i < kept; i++)
        good = ((const unsigned char *)b.bytes)[i] == (unsigned char)(id + 1);
    good = good && (kept < size || b.checksum == XXH3_64bits(b.bytes, kept));
    if (!good)
        diag("image %llu: %llu of %llu bytes", (unsigned long long)id, (unsigned long long)b.kept,
             (unsigned long long)b.size);
    bad_image_free(&b);
    return good;
}

static int64_t count(Run *run)
{
    uint64_t *ids;
    int64_t n = run_bad_ids(run, &ids);
    for (int64_t i = 1; i < n; i++)
        if (ids[i] <= ids[i - 1])
            n = -2;
    free(ids);
    return n;
}

static void test_basics(void)
{
    const char *path = in_dir("a.db");
    BadImage b, list[3] = { image(7, 50), image(3, 0), image(9, 0) };
    Run *run = run_create(path, "{}", false);
    ok(run && count(run) == 0, "a new run has none") || (diag("%s", err_text()), 0);
    ok(run_bad_get(run, 1, true, &b) < 0 && err_code() == ERR_ABSENT, "nothing there");
    list[1].bytes = NULL;
    list[2].name = NULL;
    list[2].label = -1;
    memset(bytes, 8, 50);
    ok(!run_bad_put(run, list, 3) && count(run) == 3, "three at once") || (diag("%s", err_text()), 0);
    ok(is_there(run, 7, 50, 50), "with bytes");
    ok(is_there(run, 3, 0, 0), "without");
    ok(!run_bad_get(run, 9, false, &b) && b.label == -1 && !*b.name && !b.bytes, "without a name or a label");
    bad_image_free(&b);
    list[0].why = "another reason";
    list[0].seq = 1;
    ok(!run_bad_put(run, list, 1) && count(run) == 3 && is_there(run, 7, 50, 50), "the first report of an image stays");
    ok(!run_close(run), "close");

    run = run_open(path, false);
    ok(run && count(run) == 3 && is_there(run, 7, 50, 50), "open again, to read");
    ok(put(run, 1, 5) < 0 && err_code() == ERR_USAGE, "a reader can't write");
    ok(!run_close(run), "close");
    run = run_open(path, true);
    ok(run && !put(run, 7, 50) && !put(run, 8, 0) && count(run) == 4, "a resumed run adds what is new");
    static char text[3 * QUARANTINE_TEXT];
    memset(text, 'x', sizeof text - 1);
    b = image(20, 1);
    b.name = b.why = text;
    ok(!run_bad_put(run, &b, 1) && !run_bad_get(run, 20, false, &b) && strlen(b.name) == QUARANTINE_TEXT &&
           strlen(b.why) == QUARANTINE_TEXT, "long texts are cut");
    bad_image_free(&b);
    ok(!run_close(run), "close");
}

static void test_bounds(void)
{
    const char *path = in_dir("bounds.db");
    const uint64_t head = QUARANTINE_HEAD;
    bool good = true;
    Run *run = run_create(path, "{}", false);
    ok(!put(run, 0, QUARANTINE_IMAGE) && is_there(run, 0, QUARANTINE_IMAGE, QUARANTINE_IMAGE), "the largest image");
    ok(!put(run, 1, ROOM) && is_there(run, 1, ROOM, head), "of a larger one the head");
    quarantine_most = QUARANTINE_IMAGE + 3 * head;
    ok(!put(run, 2, 2 * head) && is_there(run, 2, 2 * head, 2 * head), "what just fits");
    ok(!put(run, 3, head + 1) && is_there(run, 3, head + 1, head), "of what no longer fits the head");
    ok(!run_close(run), "close");
    run = run_open(path, true);
    ok(run && !put(run, 4, 9000) && is_there(run, 4, 9000, head), "the bound holds over reopening");
    quarantine_most = 0; /* what is kept by now leaves room for less than QUARANTINE_HEADS of heads */
    int heads = (QUARANTINE_HEADS - QUARANTINE_IMAGE - 5 * QUARANTINE_HEAD) / QUARANTINE_HEAD;
    BadImage *list = calloc((size_t)heads + 1, sizeof *list);
    for (int i = 0; i <= heads; i++)
        list[i] = image(1000, 9000), list[i].id = 1000 + (uint64_t)i, list[i].seq = 1100 + (uint64_t)i,
        list[i].label = 999 + i;
    BadImage last;
    good = !run_bad_put(run, list, (size_t)heads + 1) && count(run) == heads + 6;
    ok(good, "many at once") || (diag("%s", err_text()), 0);
    ok(!run_bad_get(run, 999 + (uint64_t)heads, true, &last) && last.kept == head, "heads, too, are bounded");
    bad_image_free(&last);
    ok(!run_bad_get(run, 1000 + (uint64_t)heads, true, &last) && last.kept == 0 && last.size == 9000, "beyond: the size");
    bad_image_free(&last);
    free(list);
    quarantine_most = (uint64_t)256 << 20;
    ok(!run_close(run), "close");
}

/* A run that an older program made has no such databases. */
static void test_older(void)
{
    const char *path = in_dir("older.db");
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    Run *run = run_create(path, "{}", false);
    ok(run && !run_log(run, "{}") && !run_close(run), "a run");
    mdb_env_create(&env);
    mdb_env_set_maxdbs(env, 8);
    bool good = !mdb_env_open(env, path, MDB_NOSUBDIR, 0666) && !mdb_txn_begin(env, NULL, 0, &txn) &&
                !mdb_dbi_open(txn, "bad", 0, &dbi) && !mdb_drop(txn, dbi, 1) && !mdb_dbi_open(txn, "bad_bytes", 0, &dbi) &&
                !mdb_drop(txn, dbi, 1) && !mdb_txn_commit(txn);
    mdb_env_close(env);
    run = run_open(path, false);
    BadImage b;
    ok(good && run && count(run) == 0 && run_bad_get(run, 1, true, &b) < 0 && err_code() == ERR_ABSENT,
       "one of an older program has no quarantine") || (diag("%s", err_text()), 0);
    ok(!run_close(run), "close");
    run = run_open(path, true);
    ok(run && count(run) == 0 && !put(run, 5, 500) && !put(run, 6, 10) && is_there(run, 5, 500, 500) && count(run) == 2,
       "until it gets one");
    ok(!run_close(run), "close");
}

static void test_damage(void)
{
    const char *path = in_dir("damage.db");
    Run *run = run_create(path, "{}", false);
    ok(run && !put(run, 5, 20000) && !put(run, 6, 10) && !run_close(run), "a run");
    /* A byte of the large image, found by its content. */
    FILE *f = fopen(path, "r+b");
    int run_length = 0, c;
    while ((c = getc(f)) != EOF && run_length < 9000)
        run_length = c == 6 ? run_length + 1 : 0;
    fseek(f, -100, SEEK_CUR);
    putc('x', f);
    fclose(f);
    BadImage b;
    run = run_open(path, false);
    ok(run && run_bad_get(run, 5, true, &b) < 0 && err_code() == ERR_DATA, "a changed byte is noticed: %s", err_text());
    ok(!run_bad_get(run, 5, false, &b) && b.size == 20000, "what is known of the image is there");
    bad_image_free(&b);
    ok(is_there(run, 6, 10, 10), "and the other image");
    ok(!run_close(run), "close");
}

/* Two processes: one is killed again and again while it adds; what it had added is there, whole. */
static void test_killed(void)
{
    const char *path = in_dir("killed.db");
    const int kills = siege(5);
    bool good = true;
    int64_t before = 0, n = 0;
    Run *run = run_create(path, "{}", false);
    good = run && !run_close(run);
    for (int round = 0; good && round < kills; round++) {
        pid_t child = fork();
        if (!child) {
            Run *mine = run_open(path, true);
            for (uint64_t id = 0; mine && !put(mine, id, 30000 + id); id++) {
            }
            _exit(1);
        }
        usleep(20000 + 11000 * (unsigned)(round % 5));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        run = run_open(path, false);
        n = run ? count(run) : -1;
        good = n >= before;
        for (int64_t id = 0; id < n && good; id++)
            good = is_there(run, (uint64_t)id, 30000 + (uint64_t)id, 30000 + (uint64_t)id);
        good = good && !run_close(run);
        before = n;
    }
    ok(good, "killed while it adds, all that was added is whole (%lld images)", (long long)n) ||
        (diag("%s", err_text()), 0);
    diag("%d kills, %lld images", kills, (long long)n);
}

int main(void)
{
    char command[128];
    if (!mkdtemp(dir))
        return 1;
    test_basics();
    test_bounds();
    test_older();
    test_damage();
    test_killed();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) ? 1 : tap_done();
}
