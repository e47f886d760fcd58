/* lib/store: who may have a file open together with whom, new files in their places, and repair. */
#include "../tap.h"

#include "store/claim.h"
#include "store/dataset.h"
#include "store/dataset_layout.h"
#include "store/env.h"
#include "store/run.h"
#include "util/err.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/hssl-claim.XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[8][128];
    static int i;
    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

/* ok() that tells the error where it fails. */
static bool says(bool good, const char *name)
{
    if (!ok(good, "%s", name))
        diag("%d: %s", (int)err_code(), err_text());
    return good;
}

/* The last error is that of somebody's being in the way, and tells who. */
static bool busy_with(pid_t pid)
{
    char number[32];
    snprintf(number, sizeof number, "process %d ", (int)pid);
    return err_code() == ERR_BUSY && strstr(err_text(), number);
}

/* A process that calls act(path), and then waits to be killed. */
static pid_t start(bool (*act)(const char *path), const char *path)
{
    int out[2];
    char byte = 'n';
    fflush(stdout);
    if (pipe(out))
        abort();
    pid_t pid = fork();
    if (!pid) {
        close(out[0]);
        bool good = act(path);
        if (!good)
            fprintf(stderr, "# %s\n", err_text());
        if (write(out[1], good ? "y" : "n", 1) == 1)
            pause();
        _exit(1);
    }
    close(out[1]);
    ok(pid > 0 && read(out[0], &byte, 1) == 1 && byte == 'y', "another process is there");
    close(out[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static bool put(DatasetWriter *w, int i)
{
    char name[32];
    snprintf(name, sizeof name, "%d.jpg", i);
    Record r = { .bytes = name, .size = strlen(name), .name = name, .label = w ? dataset_class(w, i & 1 ? "odd" : "even") : 0 };
    return w && !dataset_put(w, &r);
}

static bool make_set(const char *path, int images)
{
    DatasetWriter *w = dataset_create(path, DATASET_NEW);
    bool good = w;
    for (int i = 0; good && i < images; i++)
        good = put(w, i);
    return !dataset_finish(w) && good;
}

static int count(const char *path)
{
    Dataset *ds = dataset_open(path);
    int n = ds && !dataset_verify_all(ds) ? (int)dataset_count(ds) : -1;
    dataset_close(ds);
    return n;
}

static bool leaves_nothing(const char *name)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, ".%s.hssl-new", name);
    return access(in_dir(fresh), F_OK);
}

static bool train(const char *path)
{
    return run_create(path, "{}", false);
}

static bool open_run(const char *path)
{
    return run_open(path, true);
}

static bool import(const char *path)
{
    DatasetWriter *w = dataset_create(path, DATASET_RESUME);
    return put(w, 1000) && !dataset_commit(w);
}

static bool begin_import(const char *path)
{
    return dataset_create(path, DATASET_RESUME);
}

static bool read_set(const char *path)
{
    return dataset_open(path);
}

/* ---------------------------------------------------------------- one at a time */

static void test_runs(void)
{
    const char *path = in_dir("run.db");
    ok(!claim_held(path) && !claim_check_free(path), "a run that is not there is nobody's");
    pid_t trainer = start(train, path);
    ok(claim_held(path), "a run is claimed by who makes it");
    says(claim_check_free(path) && busy_with(trainer), "and not free");
    Run *run = run_open(path, true);
    says(run && run_claim(run) && busy_with(trainer), "nobody else trains it");
    says(!run_create(path, "{}", false) && busy_with(trainer), "nor makes it");
    says(!run_create(path, "{}", true) && busy_with(trainer), "nor by force");
    says(!run_set(run, "x", "y"), "others may write to it");
    ok(!run_close(run), "close");
    end(trainer);
    ok(!claim_held(path) && !claim_check_free(path), "it is free when that process is killed");
    run = run_open(path, true);
    says(run && !run_claim(run), "and can be claimed");
    ok(claim_held(path), "which others see");
    char *x = run ? run_get(run, "x") : NULL;
    ok(x && !strcmp(x, "y"), "it is the same run");
    free(x);
    ok(!run_close(run) && !claim_held(path), "it is free when it is closed");

    pid_t other = start(open_run, path);
    says(!run_create(path, "{}", true) && busy_with(other), "a run that somebody has open is not replaced");
    end(other);
    run = run_create(path, "{\"a\":1}", true);
    says(run && !run_get(run, "x") && !strcmp(run_config(run), "{\"a\":1}"), "else it is");
    ok(claim_held(path) && !run_close(run) && leaves_nothing("run.db"), "and nothing is left beside it");
}

static void test_datasets(void)
{
    const char *path = in_dir("set.db");
    pid_t first = start(begin_import, path);
    ok(access(path, F_OK), "a dataset is not there before its first image");
    says(!dataset_create(path, DATASET_RESUME) && busy_with(first), "but another importer sees who makes it");
    end(first);
    first = start(import, path);
    ok(count(path) == 1, "what was left of it is out of the way");
    says(!dataset_create(path, DATASET_RESUME) && busy_with(first), "one imports at a time");
    says(!dataset_create(path, DATASET_REPLACE) && busy_with(first), "nor is it replaced meanwhile");
    end(first);
    DatasetWriter *w = dataset_create(path, DATASET_RESUME);
    says(w && dataset_written(w) == 1 && put(w, 1) && !dataset_finish(w) && count(path) == 2, "then another goes on");

    pid_t reader = start(read_set, path);
    says(!dataset_create(path, DATASET_REPLACE) && busy_with(reader), "what is read is not replaced");
    says((w = dataset_create(path, DATASET_RESUME)) && put(w, 2) && !dataset_finish(w), "but it may grow");
    end(reader);

    w = dataset_create(path, DATASET_REPLACE);
    says(w && count(path) == 3, "an old one stays until the new one has an image");
    reader = start(read_set, path);
    says(put(w, 0) && dataset_commit(w) && busy_with(reader), "also if somebody has come to read it");
    dataset_discard(w);
    end(reader);
    says(count(path) == 3 && leaves_nothing("set.db"), "then the new one goes");
    w = dataset_create(path, DATASET_REPLACE | DATASET_WHOLE);
    says(put(w, 0) && !dataset_commit(w) && count(path) == 3, "one that is to be whole waits");
    says(!dataset_finish(w) && count(path) == 1, "until it is finished");
    w = dataset_create(path, DATASET_REPLACE);
    says(put(w, 7) && put(w, 8) && !dataset_commit(w) && put(w, 9) && !dataset_finish(w) && count(path) == 3, "or not");

    const char *empty = in_dir("empty.db");
    int fd = open(empty, O_WRONLY | O_CREAT, 0666);
    ok(fd >= 0 && !close(fd), "an empty file");
    says(make_set(empty, 2) && count(empty) == 2, "gives way without force");
    says(!dataset_create(empty, DATASET_NEW) && err_code() == ERR_EXISTS, "one with images does not");
}

/* ---------------------------------------------------------------- names */

static void test_names(void)
{
    const char *path = in_dir("named.db"), *soft = in_dir("soft.db"), *hard = in_dir("hard.db");
    ok(make_set(path, 5) && !symlink("named.db", soft), "a symbolic link");
    pid_t other = start(import, soft);
    ok(access(in_dir("soft.db-lock"), F_OK), "has no lock file of its own");
    says(!dataset_create(path, DATASET_RESUME) && busy_with(other), "who imports by it is seen from the other name");
    end(other);
    struct stat st;
    DatasetWriter *w = dataset_create(soft, DATASET_REPLACE);
    says(put(w, 0) && !dataset_finish(w) && !lstat(soft, &st) && S_ISLNK(st.st_mode) && count(path) == 1,
         "-f replaces what a link leads to");
    ok(!symlink("nowhere.db", in_dir("dangling.db")), "a link that leads nowhere");
    says(!dataset_create(in_dir("dangling.db"), DATASET_RESUME) && strstr(err_text(), "leads nowhere"), "is refused");

    other = start(import, path);
    ok(!link(path, hard), "a hard link, made during an import");
    says(!dataset_open(hard) && busy_with(other), "is not read while that goes on");
    end(other);
    says(!dataset_create(hard, DATASET_RESUME) && strstr(err_text(), "2 names") &&
             !dataset_create(path, DATASET_RESUME) && strstr(err_text(), "2 names"), "nothing is imported by either name");
    other = start(read_set, hard);
    says(count(path) == 2 && count(hard) == 2 && access(in_dir("hard.db-lock"), F_OK), "both are read");
    ok(!unlink(path), "one is removed");
    says(!dataset_create(hard, DATASET_RESUME) && busy_with(other), "who came by two names is waited for");
    end(other);
    w = dataset_create(hard, DATASET_RESUME);
    says(put(w, 77) && !dataset_finish(w) && count(hard) == 3, "then the last name is as good as any");
}

static void test_moved(void)
{
    const char *path = in_dir("moved.db"), *away = in_dir("away.db");
    DatasetWriter *w = dataset_create(path, DATASET_NEW);
    says(put(w, 0) && !dataset_commit(w) && put(w, 1) && !unlink(path) && dataset_finish(w),
         "a dataset that was removed is an error");
    ok(strstr(err_text(), "removed, moved or replaced"), "of its own: %s", err_text());
    w = dataset_create(path, DATASET_NEW);
    says(put(w, 0) && !dataset_commit(w) && !rename(path, away) && !put(w, 1), "or moved");
    dataset_discard(w);
    says(count(away) == 1, "which is sound");
    unlink(in_dir("moved.db-lock"));

    Run *run = run_create(path, "{}", false);
    says(run && !rename(away, path) && run_set(run, "x", "y"), "or a run that was replaced");
    run_close(run);
    unlink(path);
    unlink(in_dir("moved.db-lock"));
    w = dataset_create(path, DATASET_NEW);
    says(put(w, 0) && !unlink(in_dir(".moved.db.hssl-new")) && dataset_finish(w), "or a new one that is gone");

    const char *made = in_dir("made.db");
    w = dataset_create(made, DATASET_NEW | DATASET_WHOLE);
    int fd = open(made, O_WRONLY | O_CREAT, 0666);
    says(put(w, 0) && fd >= 0 && write(fd, "mine", 4) == 4 && !close(fd) && dataset_finish(w) && err_code() == ERR_EXISTS,
         "what a stranger put in the place stays");
    char text[5] = "";
    fd = open(made, O_RDONLY);
    ok(read(fd, text, 4) == 4 && !strcmp(text, "mine") && !close(fd), "as it was");

    const char *victim = in_dir("victim"), *planted = in_dir("planted.db");
    fd = open(victim, O_WRONLY | O_CREAT, 0666);
    ok(write(fd, "precious", 8) == 8 && !close(fd) && make_set(planted, 1), "a dataset");
    unlink(in_dir("planted.db-lock"));
    says(!symlink("victim", in_dir("planted.db-lock")) && !dataset_open(planted) && strstr(err_text(), "not a regular file"),
         "a lock file that is a link is not followed");
    ok(!symlink("victim", in_dir(".new.db.hssl-new")) && !dataset_create(in_dir("new.db"), DATASET_NEW) &&
             strstr(err_text(), ".new.db.hssl-new is in its way: remove that"), "nor the new file's");
    struct stat st;
    ok(!stat(victim, &st) && st.st_size == 8, "what it leads to stays");
}

/* ---------------------------------------------------------------- repair */

typedef bool Break(StoreEnv *e, MDB_txn *txn);

static bool store_broken(const char *path, Break *how)
{
    StoreEnv e;
    MDB_txn *txn;
    bool good = !store_open(&e, path, STORE_WRITE, "dataset", NULL) && !store_begin_write(&e, 1 << 20, &txn) &&
                how(&e, txn) && !store_commit(&e, txn);
    store_close(&e);
    return good;
}

static bool header_of(StoreEnv *e, MDB_txn *txn, MDB_dbi *meta, StoreHeader *h)
{
    return !mdb_dbi_open(txn, "meta", 0, meta) && !store_header_get(e, txn, *meta, "HSSLDATA", 2, "dataset", h);
}

static bool wrong_count(StoreEnv *e, MDB_txn *txn)
{
    MDB_dbi meta;
    StoreHeader h;
    bool good = header_of(e, txn, &meta, &h);
    h.field[0] -= 3;
    return good && !store_header_put(e, txn, meta, "HSSLDATA", &h);
}

static bool wrong_digest(StoreEnv *e, MDB_txn *txn)
{
    MDB_dbi meta;
    StoreHeader h;
    bool good = header_of(e, txn, &meta, &h);
    h.field[2]++;
    return good && !store_header_put(e, txn, meta, "HSSLDATA", &h);
}

static bool wrong_seal(StoreEnv *e, MDB_txn *txn)
{
    (void)e;
    MDB_dbi meta;
    MDB_val k = { 6, (void *)"header" }, v;
    unsigned char bytes[256];
    if (mdb_dbi_open(txn, "meta", 0, &meta) || mdb_get(txn, meta, &k, &v) || v.mv_size > sizeof bytes)
        return false;
    memcpy(bytes, v.mv_data, v.mv_size);
    bytes[0] ^= 1;
    v.mv_data = bytes;
    return !mdb_put(txn, meta, &k, &v, 0);
}

static bool wrong_class(StoreEnv *e, MDB_txn *txn)
{
    MDB_dbi classes;
    uint64_t number = 1;
    MDB_val k = { sizeof number, &number };
    unsigned char value[11] = { 200 };
    memcpy(value + 8, "odd", 3);
    return !mdb_dbi_open(txn, "classes", MDB_INTEGERKEY, &classes) && !sealed_put(e, txn, classes, &k, value, 11);
}

static bool lost_name(StoreEnv *e, MDB_txn *txn)
{
    (void)e;
    MDB_dbi names;
    MDB_cursor *cursor = NULL;
    MDB_val k, v;
    bool good = !mdb_dbi_open(txn, "names", 0, &names) && !mdb_cursor_open(txn, names, &cursor) &&
                !mdb_cursor_get(cursor, &k, &v, MDB_FIRST) && !mdb_cursor_del(cursor, 0);
    mdb_cursor_close(cursor);
    return good;
}

static bool lost_image(StoreEnv *e, MDB_txn *txn)
{
    (void)e;
    MDB_dbi images;
    uint64_t id = 4;
    MDB_val k = { sizeof id, &id };
    return !mdb_dbi_open(txn, "images", MDB_INTEGERKEY, &images) && !mdb_del(txn, images, &k, NULL);
}

static bool bad_image(StoreEnv *e, MDB_txn *txn)
{
    (void)e;
    MDB_dbi images;
    uint64_t id = 4;
    MDB_val k = { sizeof id, &id }, v;
    unsigned char bytes[256];
    if (mdb_dbi_open(txn, "images", MDB_INTEGERKEY, &images) || mdb_get(txn, images, &k, &v) || v.mv_size > sizeof bytes)
        return false;
    memcpy(bytes, v.mv_data, v.mv_size);
    bytes[v.mv_size - 1] ^= 1;
    v.mv_data = bytes;
    return !mdb_put(txn, images, &k, &v, 0);
}

/* All checksums are right, as whoever makes such a file for us would have them. */
static bool long_name(StoreEnv *e, MDB_txn *txn)
{
    enum { LONG = 60000, IMAGE = 256 };
    static unsigned char p[RECORD_HEAD + LONG + 1 + IMAGE];
    (void)e;
    MDB_dbi images;
    uint64_t id = 4;
    MDB_val k = { sizeof id, &id }, v;
    if (mdb_dbi_open(txn, "images", MDB_INTEGERKEY, &images) || mdb_get(txn, images, &k, &v))
        return false;
    const unsigned char *was = v.mv_data;
    size_t head = RECORD_HEAD + load16(was + 12) + 1, size = v.mv_size - head;
    if (size > IMAGE)
        return false;
    memcpy(p, was, RECORD_HEAD);
    memset(p + RECORD_HEAD, 'x', LONG);
    memcpy(p + RECORD_HEAD + LONG + 1, was + head, size);
    store16(p + 12, LONG);
    store32(p + RECORD_SEAL, dataset_record_seal(p, (const char *)p + RECORD_HEAD, LONG));
    v = (MDB_val){ RECORD_HEAD + LONG + 1 + size, p };
    return !mdb_put(txn, images, &k, &v, 0);
}

static void test_repair(void)
{
    static const struct {
        const char *name;
        Break *how;
        bool hopeless;
    } kinds[] = {
        { "a wrong count", wrong_count, false }, { "a wrong digest", wrong_digest, false },
        { "a header of wrong checksum", wrong_seal, false }, { "a wrong count of a class", wrong_class, false },
        { "a name that was lost", lost_name, false }, { "a lost image", lost_image, true }, { "a bad image", bad_image, true },
        { "a name longer than there may be", long_name, true },
    };
    const char *path = in_dir("broken.db");
    char want[17] = "", got[17] = "";
    ok(make_set(path, 9), "a dataset");
    Dataset *ds = dataset_open(path);
    ok(ds && !dataset_digest(ds, want), "has a digest");
    dataset_close(ds);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        uint64_t announced = 0;
        says(!dataset_repair(path, &announced) && announced == 9, "there is nothing to repair");
        says(store_broken(path, kinds[i].how), kinds[i].name);
        int rc = dataset_repair(path, &announced);
        if (kinds[i].hopeless) {
            says(rc < 0 && err_code() == ERR_DATA && strstr(err_text(), "import the images anew"), "is beyond repair");
            unlink(path);
            unlink(in_dir("broken.db-lock"));
            ok(make_set(path, 9), "another one");
            continue;
        }
        says(rc == 1, "is repaired");
        ds = dataset_open(path);
        says(ds && !dataset_verify_all(ds) && dataset_count(ds) == 9 && dataset_class_count(ds, 0) == 5 &&
                 dataset_class_count(ds, 1) == 4 && !dataset_digest(ds, got) && !strcmp(got, want), "and as it was");
        dataset_close(ds);
        DatasetWriter *w = dataset_create(path, DATASET_RESUME);
        bool known = w;
        for (int k = 0; known && k < 9; k++) {
            char name[32];
            snprintf(name, sizeof name, "%d.jpg", k);
            known = dataset_has(w, name) == 1;
        }
        says(known, "with all its names");
        dataset_discard(w);
    }
    pid_t other = start(import, path);
    uint64_t announced;
    says(dataset_repair(path, &announced) < 0 && busy_with(other), "nothing is repaired while somebody imports");
    end(other);
}

/* --broken PATH: makes a dataset whose header has a wrong count, for the shell tests. */
int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--broken"))
        return !make_set(argv[2], 9) || !store_broken(argv[2], wrong_count);
    if (!mkdtemp(dir))
        return 1;
    test_runs();
    test_datasets();
    test_names();
    test_moved();
    test_repair();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) ? 1 : tap_done();
}
