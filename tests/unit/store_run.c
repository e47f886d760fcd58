/* lib/store: runs and their checkpoints. */
#include "../tap.h"

#include "store/env.h"
#include "store/run.h"
#include "util/err.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__has_feature)
#define SANITIZED __has_feature(address_sanitizer)
#else
#define SANITIZED 0
#endif

static char dir[] = "/tmp/hssl-run.XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

enum { BIG = 1 << 20 };

/* Tensors whose every byte depends on the step. */
typedef struct {
    float *big, small[6];
    int64_t steps[1];
    StoredTensor t[4];
} State;

static void make_state(State *s, uint64_t step)
{
    if (!s->big)
        s->big = malloc(BIG * sizeof *s->big);
    for (int i = 0; i < BIG; i++)
        s->big[i] = (float)step;
    for (int i = 0; i < 6; i++)
        s->small[i] = (float)step + (float)i;
    s->steps[0] = (int64_t)step;
    s->t[0] = (StoredTensor){ "student.blocks.0.attn.qkv.weight", STORED_F32, 2, { 1024, BIG / 1024 }, s->big, 4 * BIG };
    s->t[1] = (StoredTensor){ "student.norm.weight", STORED_F32, 1, { 6 }, s->small, 24 };
    s->t[2] = (StoredTensor){ "adamw.steps", STORED_I64, 0, { 0 }, s->steps, 8 };
    s->t[3] = (StoredTensor){ "queue", STORED_F32, 2, { 0, 256 }, NULL, 0 };
}

static bool state_is(Run *run, int64_t step, uint64_t want)
{
    StoredTensor t;
    bool good = false;
    Checkpoint *cp = run_checkpoint(run, step);
    if (cp && checkpoint_step(cp) == want && checkpoint_count(cp) == 4 &&
        !checkpoint_get(cp, "student.blocks.0.attn.qkv.weight", &t)) {
        const float *x = t.data;
        good = t.ndim == 2 && t.shape[0] == 1024 && t.bytes == 4 * BIG;
        for (int i = 0; good && i < BIG; i++)
            good = x[i] == (float)want;
        good = good && !checkpoint_get(cp, "adamw.steps", &t) && t.ndim == 0 && *(const int64_t *)t.data == (int64_t)want;
        good = good && !checkpoint_get(cp, "queue", &t) && t.bytes == 0 && t.shape[1] == 256;
        good = good && !checkpoint_verify(cp);
    }
    checkpoint_close(cp);
    return good;
}

static int last_line(int64_t number, const char *line, void *arg)
{
    snprintf(arg, 64, "%lld %s", (long long)number, line);
    return 0;
}

/* At most three lines are there when the walk begins. */
static int write_meanwhile(int64_t number, const char *line, void *arg)
{
    (void)line;
    return number > 2 || run_log(arg, "{\"step\":9}") || run_flush(arg);
}

static int count_lines(int64_t number, const char *line, void *arg)
{
    (void)number, (void)line;
    return ++*(int *)arg == 3 ? 7 : 0;
}

static void test_facts_and_log(void)
{
    const char *path = in_dir("a.db");
    char line[64] = "";
    int lines = 0;
    Run *run = run_create(path, "{\"lr\":0.5}", false);
    ok(run && !strcmp(run_config(run), "{\"lr\":0.5}"), "create") || (diag("%s", err_text()), 0);
    ok(!run_create(path, "{}", false) && err_code() == ERR_BUSY, "nobody makes a run that is being trained");
    ok(!run_create(path, "{}", true) && err_code() == ERR_BUSY, "nor by force");
    ok(!run_get(run, "ticket") && err_code() == ERR_ABSENT, "no fact yet");
    ok(!run_set(run, "ticket", "hssl/1 targets ipc:///x\n"), "set a fact");
    char *text = run_get(run, "ticket");
    is_str(text, "hssl/1 targets ipc:///x\n", "and read it");
    free(text);
    ok(!run_set(run, "ticket", NULL) && !run_get(run, "ticket"), "and remove it");

    ok(!run_log(run, "{\"step\":0}") && !run_log(run, "{\"step\":1}") && !run_log(run, "{\"step\":2}") &&
           !run_flush(run), "log");
    ok(run_log(run, "no JSON") < 0 && run_log(run, "{\n}") < 0, "a line is one JSON object");
    is_int(run_log_count(run), 3, "lines");
    ok(!run_log_each(run, -1, last_line, line), "walk");
    is_str(line, "2 {\"step\":2}", "the last line");
    ok(run_log_each(run, 0, count_lines, &lines) == 7 && lines == 3, "a walk can be ended");
    ok(run_log_each(run, 0, write_meanwhile, run) == 0 && run_log_count(run) == 6,
       "while a line is looked at the run may be used, and what comes meanwhile is not walked over");
    ok(!run_log(run, "{\"step\":3}") && !run_close(run), "closing flushes");

    run = run_open(path, false);
    ok(run && run_log_count(run) == 7 && !strcmp(run_config(run), "{\"lr\":0.5}"), "open again");
    ok(run_set(run, "x", "y") < 0 && err_code() == ERR_USAGE, "a reader can't write");
    ok(!run_checkpoint(run, -1) && err_code() == ERR_ABSENT, "no checkpoint yet");
    ok(!run_close(run), "close");
    ok(!run_create(path, "{}", false) && err_code() == ERR_EXISTS, "an existing run is not overwritten");
    run = run_open(path, false);
    ok(run_configure(run, "{}", "x", "y") < 0 && err_code() == ERR_USAGE &&
           !strcmp(run_config(run), "{\"lr\":0.5}"),
       "a reader can't configure");
    ok(!run_close(run), "close");
    run = run_open(path, true);
    ok(!run_configure(run, "{\"lr\":0.25}", "why", "slower") && !strcmp(run_config(run), "{\"lr\":0.25}"),
       "configure");
    ok(run_configure(run, "{}", "", "y") < 0 && !strcmp(run_config(run), "{\"lr\":0.25}"),
       "without a key nothing changes");
    ok(!run_close(run), "close");
    run = run_open(path, false);
    text = run_get(run, "why");
    ok(!strcmp(run_config(run), "{\"lr\":0.25}") && text && !strcmp(text, "slower"), "both are there");
    free(text);
    ok(!run_close(run), "close");
    run = run_create_with(path, "{}", "why", "new", true);
    text = run_get(run, "why");
    is_str(text, "new", "a new run has its fact from the start");
    free(text);
    ok(!run_close(run), "close");
    run = run_create(path, "{}", true);
    ok(run && run_log_count(run) == 0, "force makes a new one");
    ok(!run_close(run), "close");
    ok(!run_create("/dev/null", "{}", true), "but not of what is no run");
}

static void test_checkpoints(void)
{
    const char *path = in_dir("b.db");
    State s = { 0 };
    uint64_t *steps;
    bool good = true;
    Run *run = run_create(path, "{}", false);
    for (uint64_t step = 10; good && step <= 50; step += 10) {
        make_state(&s, step);
        good = !run_save(run, step, "{\"epoch\":1}", s.t, 4, 2);
    }
    ok(good, "save five checkpoints, keep two") || (diag("%s", err_text()), 0);
    ok(run_steps(run, &steps) == 2 && steps[0] == 40 && steps[1] == 50, "the last two are there");
    free(steps);
    ok(state_is(run, -1, 50) && state_is(run, 40, 40), "and are what was saved");
    ok(!run_checkpoint(run, 30) && err_code() == ERR_ABSENT, "an older one is not");

    Checkpoint *held = run_checkpoint(run, 40);
    StoredTensor t;
    ok(held && !checkpoint_get(held, "student.blocks.0.attn.qkv.weight", &t), "a reader holds one");
    for (uint64_t step = 60; good && step <= 80; step += 10) {
        make_state(&s, step);
        good = !run_save(run, step, "{}", s.t, 4, 1);
    }
    ok(good && *(const float *)t.data == 40 && !checkpoint_verify(held), "which lasts while newer ones replace it");
    checkpoint_close(held);

    make_state(&s, 81);
    ok(!run_save(run, 80, "{}", s.t, 4, 0), "a checkpoint is replaced by one of the same step");
    held = run_checkpoint(run, 80);
    ok(held && !checkpoint_get(held, "student.norm.weight", &t) && *(const float *)t.data == 81, "the new one counts");
    checkpoint_close(held);

    s.t[1].name = s.t[0].name;
    ok(run_save(run, 90, "{}", s.t, 4, 0) < 0, "a name twice is refused");
    make_state(&s, 91);
    s.t[1].bytes = 20;
    ok(run_save(run, 90, "{}", s.t, 4, 0) < 0 && err_code() == ERR_DATA, "a shape that does not fit the bytes is refused");
    ok(run_steps(run, &steps) == 1 && steps[0] == 80, "and nothing came of them");
    free(steps);
    ok(!run_close(run), "close");
    free(s.big);
}

static void test_killed(void)
{
    const char *path = in_dir("killed.db");
    State s = { 0 };
    const int kills = siege(5);
    bool good = true;
    uint64_t last = 0;
    Run *run = run_create(path, "{}", false);
    make_state(&s, 1);
    good = run && !run_save(run, 1, "{}", s.t, 4, 2) && !run_close(run);
    for (int round = 0; good && round < kills; round++) {
        pid_t child = fork();
        if (!child) {
            Run *mine = run_open(path, true);
            for (uint64_t step = last + 1; mine; step++) {
                make_state(&s, step);
                if (run_log(mine, "{\"event\":\"saving\"}") || run_save(mine, step, "{}", s.t, 4, 2))
                    break;
            }
            _exit(1);
        }
        usleep(30000 + 17000 * (unsigned)(round % 5));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        run = run_open(path, true);
        Checkpoint *cp = run ? run_checkpoint(run, -1) : NULL;
        good = cp && checkpoint_step(cp) >= last;
        last = cp ? checkpoint_step(cp) : 0;
        checkpoint_close(cp);
        good = good && state_is(run, -1, last) && !run_close(run);
    }
    ok(good, "killed in mid-checkpoint, the last whole one is there (step %llu)", (unsigned long long)last) ||
        (diag("%s", err_text()), 0);
    diag("%d kills, %llu steps", kills, (unsigned long long)last);
    free(s.big);
}

/* Two processes write at once, and the map of each is small, so that each sees the file outgrow it. */
static void test_shared(void)
{
    const char *path = in_dir("shared.db");
    State s = { 0 };
    bool good = true;
    store_map_reserve = 1 << 20;
    Run *run = run_create(path, "{}", false);
    ok(run && !run_close(run), "a small map");
    pid_t child = fork();
    if (!child) {
        Run *mine = run_open(path, true);
        int bad = !mine;
        for (int i = 0; !bad && i < 200; i++)
            bad = run_log(mine, "{\"from\":\"child\"}") || run_flush(mine);
        _exit(bad || run_close(mine));
    }
    run = run_open(path, true);
    for (uint64_t step = 1; good && step <= 6; step++) {
        make_state(&s, step);
        good = run && !run_save(run, step, "{}", s.t, 4, 0);
    }
    int status;
    waitpid(child, &status, 0);
    ok(good && state_is(run, -1, 6), "one saves") || (diag("%s", err_text()), 0);
    ok(WIFEXITED(status) && !WEXITSTATUS(status) && run_log_count(run) == 200, "while another logs");
    ok(!run_close(run), "close");
    free(s.big);
    store_map_reserve = (size_t)1 << 36;
}

static void die(int sig)
{
    (void)sig;
    kill(getpid(), SIGKILL);
}

/* Killed by its own kill -9 while run_save reads the data of one tensor, which can't be read. */
static void test_killed_within(void)
{
    const char *path = in_dir("within.db");
    State s = { 0 };
    void *trap = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    make_state(&s, 1);
    Run *run = run_create(path, "{}", false);
    bool good = run && !run_save(run, 1, "{}", s.t, 4, 1) && !run_close(run), killed = true;
    for (int at = 0; good && at < 3; at++) {
        pid_t child = fork();
        if (!child) {
            signal(SIGSEGV, die);
            make_state(&s, 2);
            s.t[at].data = trap;
            s.t[at].bytes = 8;
            s.t[at].ndim = 1;
            s.t[at].shape[0] = s.t[at].dtype == STORED_F32 ? 2 : 1;
            Run *mine = run_open(path, true);
            _exit(!mine || run_save(mine, 2, "{}", s.t, 4, 1));
        }
        int status;
        waitpid(child, &status, 0);
        killed = killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        run = run_open(path, false);
        good = run && state_is(run, -1, 1) && !run_close(run);
    }
    ok(killed && good, "killed at any tensor of a checkpoint: the one before is there") || (diag("%s", err_text()), 0);
    run = run_open(path, true);
    make_state(&s, 3);
    ok(run && !run_save(run, 3, "{}", s.t, 4, 1) && state_is(run, -1, 3) && !run_checkpoint(run, 1),
       "and the next one takes its place");
    ok(!run_close(run), "close");
    munmap(trap, 4096);
    free(s.big);
}

/* Room of dropped checkpoints is used again. */
static void test_size(void)
{
    const char *path = in_dir("size.db");
    State s = { 0 };
    struct stat early = { 0 }, late = { 0 };
    bool good = true;
    Run *run = run_create(path, "{}", false);
    for (uint64_t step = 1; good && step <= 24; step++) {
        make_state(&s, step);
        good = run && !run_save(run, step, "{}", s.t, 4, 2) && !stat(path, step == 6 ? &early : &late);
    }
    ok(good && late.st_size == early.st_size, "24 checkpoints take no more room than 6 (%lld bytes)",
       (long long)late.st_size);
    ok(!run_close(run), "close");
    free(s.big);
}

#if defined(__SANITIZE_ADDRESS__) || SANITIZED
static void test_memory(void)
{
    skip("sanitizers hold on to freed memory", "memory of a large checkpoint");
}
#else
/* Memory of this process's own now, in MB: pages of the file that it has mapped are the system's. */
static long own_memory(void)
{
    char line[128];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %ld", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return kb / 1024;
}

/* A checkpoint of 250 MB from one buffer of 4 MB: not more than its size, and nothing for long. */
static void test_memory(void)
{
    enum { N = 100, BYTES = 4 << 20 };
    StoredTensor t[N];
    char names[N][16];
    struct rusage used;
    void *data = malloc(BYTES);
    memset(data, 1, BYTES);
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        t[i] = (StoredTensor){ names[i], STORED_U8, 1, { BYTES / 4 * (1 + i % 4) }, data, BYTES / 4 * (1 + i % 4) };
    }
    Run *run = run_create(in_dir("large.db"), "{}", false);
    long before = own_memory();
    bool good = run && !run_save(run, 1, "{}", t, N, 1);
    getrusage(RUSAGE_SELF, &used);
    long peak = used.ru_maxrss / 1024 - before;
    ok(good && peak < 275, "saving 250 MB takes %ld MB", peak);
    ok(!run_save(run, 2, "{}", t, N, 1), "once more") || (diag("%s", err_text()), 0);
    ok(own_memory() - before < 8, "and gives them back");
    ok(!run_close(run), "close");
    free(data);
}
#endif

/* A small run for the tests of the programs. */
static int make_sample(const char *path)
{
    State s = { 0 };
    char line[32];
    Run *run = run_create(path, "{\"arch\":\"vit_nano\"}", false);
    int bad = !run || run_set(run, "teacher_ticket", "hssl/1 targets ipc:///nobody");
    for (uint64_t step = 10; !bad && step <= 50; step += 10) {
        make_state(&s, step);
        snprintf(line, sizeof line, "{\"step\":%d}", (int)step);
        bad = run_log(run, line) || run_save(run, step, "{\"epoch\":5}", s.t, 4, 2);
    }
    free(s.big);
    return run_close(run) || bad;
}

/* N lines more in its log, N checkpoints more of which 2 are kept; or a checkpoint that is held until standard input ends. */
static int use_sample(const char *how, const char *path, int n)
{
    State s = { 0 };
    bool hold = !strcmp(how, "--hold"), log = !strcmp(how, "--log");
    Run *run = run_open(path, !hold);
    Checkpoint *cp = run && hold ? run_checkpoint(run, -1) : NULL;
    int bad = !run || (hold && !cp);
    if (hold && !bad) {
        puts("held");
        fflush(stdout);
        while (getchar() != EOF)
            ;
    }
    for (int i = 0; i < n && !hold && !bad; i++) {
        make_state(&s, 100 + (uint64_t)i);
        bad = log ? run_log(run, "{\"step\":60,\"what\":\"a line among many\"}")
                  : run_save(run, 100 + (uint64_t)i, "{\"epoch\":5}", s.t, 4, 2);
    }
    checkpoint_close(cp);
    free(s.big);
    return run_close(run) || bad;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--make"))
        return make_sample(argv[2]);
    if (argc == 4)
        return use_sample(argv[1], argv[2], atoi(argv[3]));
    if (!mkdtemp(dir))
        return 1;
    test_facts_and_log();
    test_checkpoints();
    test_killed();
    test_killed_within();
    test_size();
    test_shared();
    test_memory();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) ? 1 : tap_done();
}
