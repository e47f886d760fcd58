/* lib/store and lib/util/fault: files that somebody shortens or overwrites in place while they are read or written. Whoever has
 * one open must end with a line that names it, and take nothing of what lies there now for its own. */
#include "../tap.h"

#include "store/dataset.h"
#include "store/run.h"
#include "store/safetensors.h"
#include "util/err.h"
#include "util/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IMAGES = 300, BYTES = 3000, LINES = 2000, WEIGHTS = 1 << 16, SEEDS = 6 };

static char dir[] = "/tmp/hssl-in-place.XXXXXX";

static char *in_dir(char to[128], const char *name)
{
    snprintf(to, 128, "%s/%s", dir, name);
    return to;
}

static uint64_t noise(uint64_t *state)
{
    return *state = *state * 6364136223846793005 + 1442695040888963407;
}

/* ---------------------------------------------------------------- files */

static int make_dataset(const char *path, int images, uint64_t seed)
{
    unsigned char bytes[BYTES];
    char name[32];
    DatasetWriter *w = dataset_create(path, false);
    for (int i = 0; w && i < images; i++) {
        snprintf(name, sizeof name, "%llu-%d", (unsigned long long)seed, i);
        for (int k = 0; k < BYTES; k++)
            bytes[k] = (unsigned char)(noise(&seed) >> 56);
        Record r = { .bytes = bytes, .size = sizeof bytes, .name = name, .label = -1 };
        if (dataset_put(w, &r) || (i % 50 == 0 && dataset_commit(w)))
            return -1;
    }
    return w ? dataset_finish(w) : -1;
}

static float weights[WEIGHTS];
static const StoredTensor tensors[] = {
    { "a", STORED_F32, 1, { WEIGHTS }, weights, sizeof weights },
    { "b", STORED_F32, 1, { WEIGHTS / 2 }, weights, sizeof weights / 2 },
};

static int make_run(const char *path, int saves, int first)
{
    char line[64];
    Run *run = run_create(path, "{}", false);
    for (int i = 0; run && i < LINES; i++) {
        snprintf(line, sizeof line, "{\"step\":%d}", first + i);
        if (run_log(run, line))
            return -1;
    }
    for (int i = 0; run && i < saves; i++)
        if (run_save(run, (uint64_t)i, "{}", tensors, 2, 0))
            return -1;
    return run ? run_close(run) : -1;
}

static int copy(const char *from, const char *to)
{
    char bytes[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ssize_t n;
    while ((n = read(in, bytes, sizeof bytes)) > 0)
        if (write(out, bytes, (size_t)n) != n)
            return -1;
    return n || close(in) || close(out) ? -1 : 0;
}

/* ---------------------------------------------------------------- what befalls them */

typedef enum { EMPTIED, CUT, OTHER, TWIN, NOISE, NOISE_BEHIND, WAYS } Way;
static const char *const ways[WAYS] = { "emptied", "cut", "another copied over it", "its like copied over it", "noise", "noise behind its head" };

static int befall(const char *path, const char *other, Way way, uint64_t seed)
{
    struct stat st;
    int fd = open(path, O_RDWR);
    uint64_t page[512];
    if (way == OTHER || way == TWIN)
        return copy(other, path) || close(fd);
    if (fd < 0 || fstat(fd, &st) || way == EMPTIED || way == CUT)
        return fd < 0 || ftruncate(fd, way == CUT ? 3 * 4096 : 0) || close(fd);
    for (off_t at = way == NOISE ? 0 : 8192; at < st.st_size; at += 4096) {
        for (int i = 0; i < 512; i++)
            page[i] = noise(&seed);
        if (pwrite(fd, page, (size_t)(st.st_size - at < 4096 ? st.st_size - at : 4096), at) < 0)
            return -1;
    }
    return close(fd);
}

/* ---------------------------------------------------------------- who has them open */

/* Opens the file and, once happened() says so, uses it in its way. 0: all was as it should be, which can't be; -1. */
typedef int User(const char *path, void (*happens)(void));

static int sum(const void *bytes, size_t n)
{
    unsigned x = 0;
    for (size_t i = 0; i < n; i++)
        x += ((const unsigned char *)bytes)[i];
    return x == 1; /* it never is, but nobody knows */
}

static int read_all(Dataset *ds)
{
    Record r;
    for (uint64_t i = 0; i < dataset_count(ds); i++)
        if (dataset_get(ds, i, &r) || dataset_verify(ds, &r))
            return -1;
    return 0;
}

static int held_dataset(const char *path, void (*happens)(void))
{
    Record r;
    Dataset *ds = dataset_open(path);
    if (!ds || dataset_get(ds, 0, &r))
        exit(3);
    happens();
    return read_all(ds);
}

static int rested_dataset(const char *path, void (*happens)(void))
{
    Dataset *ds = dataset_open(path);
    if (!ds || read_all(ds))
        exit(3);
    dataset_rest(ds);
    happens();
    return read_all(ds);
}

static int taking_dataset(const char *path, void (*happens)(void))
{
    Record r;
    Dataset *ds = dataset_open(path);
    if (!ds || dataset_get(ds, 0, &r))
        exit(3);
    happens();
    for (uint64_t i = 0; i < dataset_count(ds); i++)
        if (dataset_take(ds, i, &r) < 0)
            return -1;
    return 0; /* a bad image is no overwritten file */
}

static void *read_in_thread(void *arg)
{
    const Record *r = arg;
    sum(r->bytes, r->size);
    return NULL;
}

/* Bytes that were handed out, read by another thread. */
static int thread_of_dataset(const char *path, void (*happens)(void))
{
    Record r;
    pthread_t thread;
    Dataset *ds = dataset_open(path);
    if (!ds || dataset_get(ds, IMAGES - 1, &r))
        exit(3);
    happens();
    if (!pthread_create(&thread, NULL, read_in_thread, &r))
        pthread_join(thread, NULL);
    return read_all(ds);
}

static int read_tensor(const StoredTensor *t, void *arg)
{
    (void)arg;
    return sum(t->data, t->bytes);
}

static int held_checkpoint(const char *path, void (*happens)(void))
{
    Run *run = run_open(path, false);
    Checkpoint *cp = run ? run_checkpoint(run, -1) : NULL;
    if (!cp)
        exit(3);
    happens();
    return checkpoint_each(cp, read_tensor, NULL) || checkpoint_verify(cp) ? -1 : 0;
}

static int no_line(int64_t number, const char *line, void *arg)
{
    (void)number, (void)arg;
    return *line != '{';
}

static int reader_of_run(const char *path, void (*happens)(void))
{
    uint64_t *steps;
    Run *run = run_open(path, false);
    if (!run || run_log_each(run, 0, no_line, NULL))
        exit(3);
    happens();
    if (run_log_each(run, 0, no_line, NULL) || run_steps(run, &steps) < 0)
        return -1;
    free(steps);
    return 0;
}

static int writer_of_run(const char *path, void (*happens)(void))
{
    Run *run = run_open(path, true);
    if (!run || run_log(run, "{}") || run_flush(run))
        exit(3);
    happens();
    return run_log(run, "{}") || run_flush(run) || run_save(run, 77, "{}", tensors, 2, 0) ? -1 : 0;
}

static int reader_of_safetensors(const char *path, void (*happens)(void))
{
    SafeTensors *st = safetensors_open(path);
    if (!st)
        exit(3);
    happens();
    safetensors_each(st, read_tensor, NULL);
    return safetensors_intact(st);
}

static const struct {
    const char *what;
    User *use;
    char kind; /* d: dataset, r: run, s: safetensors */
} users[] = {
    { "a dataset, its snapshot held", held_dataset, 'd' },      { "a dataset that rests", rested_dataset, 'd' },
    { "a dataset whose bad images are skipped", taking_dataset, 'd' },
    { "a dataset's image in another thread", thread_of_dataset, 'd' }, { "a checkpoint", held_checkpoint, 'r' },
    { "a run's log", reader_of_run, 'r' },                      { "a run that is written", writer_of_run, 'r' },
    { "a safetensors file", reader_of_safetensors, 's' },
};

/* ---------------------------------------------------------------- the tests */

static int ready[2], go[2];

static void wait_for_it(void)
{
    char c;
    if (write(ready[1], "", 1) != 1 || read(go[0], &c, 1) != 1)
        exit(4);
}

/* What is wrong with the way in which a child ended, or NULL. */
static const char *wrong(int status, const char *said, const char *path)
{
    if (WIFSIGNALED(status))
        return "a signal ended it";
    if (WEXITSTATUS(status) != 1)
        return "it did not end with 1";
    if (!strstr(said, path))
        return "it did not name the file";
    const char *end = strchr(said, '\n');
    return !end || end[1] ? "not one line" : NULL;
}

static void child(const char *path, User *use, const char *errors)
{
    char name[] = "user";
    int fd = open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(fd, STDERR_FILENO);
    log_name(name);
    int rc = use(path, wait_for_it);
    if (rc)
        log_error("%s", err_text());
    _exit(rc ? 1 : 0);
}

/* Prints what is wrong; whether all is well. */
static bool one(const char *from, const char *other, User *use, Way way, uint64_t seed)
{
    const char *path = in_dir((char[128]){ 0 }, "victim.db"), *errors = in_dir((char[128]){ 0 }, "errors");
    char said[8192], c;
    int status;
    unlink(path);
    unlink(in_dir((char[128]){ 0 }, "victim.db-lock"));
    if (copy(from, path) || pipe(ready) || pipe(go))
        return false;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid)
        child(path, use, errors);
    close(ready[1]);
    bool began = read(ready[0], &c, 1) == 1 && !befall(path, other, way, seed) && write(go[1], "", 1) == 1;
    close(ready[0]);
    close(go[0]);
    close(go[1]);
    waitpid(pid, &status, 0);
    int fd = open(errors, O_RDONLY);
    ssize_t n = read(fd, said, sizeof said - 1);
    close(fd);
    said[n < 0 ? 0 : n] = 0;
    const char *bad = began ? wrong(status, said, path) : "it did not come to reading";
    if (bad)
        diag("%s, seed %llu: %s: status 0x%x: %s", ways[way], (unsigned long long)seed, bad, (unsigned)status, said);
    return !bad;
}

static void test_overwritten(void)
{
    for (size_t u = 0; u < sizeof users / sizeof *users; u++) {
        char from[128], other[128], twin[128];
        in_dir(twin, users[u].kind == 'd' ? "twin.db" : users[u].kind == 'r' ? "twin-r.db" : "twin.safetensors");
        in_dir(from, users[u].kind == 'd' ? "a.db" : users[u].kind == 'r' ? "r.db" : "a.safetensors");
        in_dir(other, users[u].kind == 'd' ? "b.db" : users[u].kind == 'r' ? "q.db" : "b.safetensors");
        for (Way way = 0; way < WAYS; way++) {
            bool good = true;
            for (uint64_t seed = 1; seed <= (way < NOISE ? 1 : SEEDS); seed++)
                good = one(from, way == TWIN ? twin : other, users[u].use, way, seed) && good;
            ok(good, "%s: %s", users[u].what, ways[way]);
        }
    }
}

/* Faults that no file explains do what they did: nobody may take them for a changed file. */
static void test_own_faults(void)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGSEGV };
    for (int i = 0; i < 3; i++) {
        int status;
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) {
            int fd = open(in_dir((char[128]){ 0 }, "errors"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
            dup2(fd, STDERR_FILENO);
            Record r;
            Dataset *ds = dataset_open(in_dir((char[128]){ 0 }, "a.db"));
            if (!ds || dataset_get(ds, 0, &r))
                _exit(3);
            if (i < 2)
                raise(faults[i]);
            *(volatile char *)mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) = 1;
            _exit(0);
        }
        waitpid(pid, &status, 0);
        char said[8192];
        int fd = open(in_dir((char[128]){ 0 }, "errors"), O_RDONLY);
        ssize_t n = read(fd, said, sizeof said - 1);
        close(fd);
        said[n < 0 ? 0 : n] = 0;
        /* A sanitizer reports it and exits with a status of its own. */
        ok(!strstr(said, "changed while") && (WIFSIGNALED(status) ? WTERMSIG(status) == faults[i] : WEXITSTATUS(status) > 0),
           "a fault of the program's own, %d", i) || (diag("status 0x%x: %.300s", (unsigned)status, said), 0);
    }
}

int main(void)
{
    const char *const names[] = { "a.db", "b.db", "r.db", "q.db", "twin.db", "twin-r.db", "victim.db" };
    if (!mkdtemp(dir))
        return 1;
    for (int i = 0; i < WEIGHTS; i++)
        weights[i] = (float)i;
    ok(!make_dataset(in_dir((char[128]){ 0 }, "a.db"), IMAGES, 1) && !make_dataset(in_dir((char[128]){ 0 }, "b.db"), 3 * IMAGES, 2) &&
           !make_dataset(in_dir((char[128]){ 0 }, "twin.db"), IMAGES, 3) && !make_run(in_dir((char[128]){ 0 }, "r.db"), 2, 10000) &&
           !make_run(in_dir((char[128]){ 0 }, "q.db"), 7, 0) && !make_run(in_dir((char[128]){ 0 }, "twin-r.db"), 2, 20000) &&
           !safetensors_write(in_dir((char[128]){ 0 }, "twin.safetensors"), tensors, 2, NULL, 0) &&
           !safetensors_write(in_dir((char[128]){ 0 }, "a.safetensors"), tensors, 2, NULL, 0) &&
           !safetensors_write(in_dir((char[128]){ 0 }, "b.safetensors"), tensors, 1, NULL, 0), "files to overwrite") ||
        (diag("%s", err_text()), 0);
    test_overwritten();
    test_own_faults();
    for (int i = 0; i < 7; i++) {
        char lock[64];
        snprintf(lock, sizeof lock, "%s-lock", names[i]);
        unlink(in_dir((char[128]){ 0 }, names[i]));
        unlink(in_dir((char[128]){ 0 }, lock));
    }
    unlink(in_dir((char[128]){ 0 }, "a.safetensors"));
    unlink(in_dir((char[128]){ 0 }, "b.safetensors"));
    unlink(in_dir((char[128]){ 0 }, "twin.safetensors"));
    unlink(in_dir((char[128]){ 0 }, "errors"));
    rmdir(dir);
    return tap_done();
}
