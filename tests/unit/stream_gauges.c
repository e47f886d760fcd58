/* Gauges: pages that are read while they are written, and that are not what they should be; what limits a pipeline. */
#include "../tap.h"

#include "stream/gauges.h"
#include "stream/sockdir.h"
#include "stream/survey.h"
#include "util/err.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[200], dir[460];

static bool find_dir(void)
{
    DIR *d = opendir(base);
    bool found = false;
    for (struct dirent *e; d && (e = readdir(d));)
        if (!strncmp(e->d_name, "hssl-", 5)) {
            snprintf(dir, sizeof dir, "%s/%s", base, e->d_name);
            found = true;
        }
    if (d)
        closedir(d);
    return found;
}

static void *count(void *arg)
{
    for (int i = 0; i < 200000; i++)
        gauge_add(GAUGE_RECORDS_IN, 1);
    return arg;
}

static void test_page(void)
{
    GaugePage p;
    struct stat st;
    char file[500];
    pthread_t t[2];
    gauge_add(GAUGE_RECORDS_OUT, 1); /* before there is a page: nothing */
    gauges_open("hssl-test");
    gauges_open("hssl-other");
    ok(find_dir(), "a socket directory is made");
    snprintf(file, sizeof file, "%s/gauges", dir);
    ok(!stat(file, &st) && (st.st_mode & 0777) == 0600 && st.st_size == GAUGES_BYTES, "with a file of mode 0600");
    gauges_name(GAUGE_KIND, "views\033[2J");
    gauge_set_real(GAUGE_LOSS, 1.5);
    ok(!gauges_read(dir, &p), "it can be read");
    is_str(p.program, "hssl-test", "the first name counts");
    is_str(p.name[GAUGE_KIND], "views?[2J", "what would move a terminal is shown as question marks");
    is_int(p.pid, getpid(), "the process");
    is_int((long long)p.value[GAUGE_RECORDS_OUT], 0, "counters begin at 0");

    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, count, NULL);
    uint64_t began = gauges_now(), torn = 0, last = 0;
    for (int i = 0; i < 20000; i++) {
        gauge_state(i % GAUGE_STATES);
        if (i % 10 == 0 && !gauges_read(dir, &p)) {
            uint64_t sum = p.value[0] + p.value[1] + p.value[2];
            torn += sum < last || sum > gauges_now() - began + 1000000000;
            last = sum;
        }
    }
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    is_int((long long)torn, 0, "what is read while it changes is of one moment");
    ok(!gauges_read(dir, &p) && p.value[GAUGE_RECORDS_IN] == 400000, "threads count together");
    gauges_close();
    ok(!gauges_read(dir, &p), "closed once, it is still there");
    gauges_close();
    ok(access(dir, F_OK), "closed twice, nothing is left");
    gauge_add(GAUGE_RECORDS_IN, 1);
    gauges_open("hssl-test");
    ok(find_dir() && !gauges_read(dir, &p) && !p.value[GAUGE_RECORDS_IN], "opened anew it begins at 0");
}

static void write_page(const void *bytes, size_t n)
{
    char file[500];
    snprintf(file, sizeof file, "%s/gauges", dir);
    unlink(file);
    FILE *f = fopen(file, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f))
        diag("cannot write %s", file);
}

static void test_garbage(void)
{
    GaugePage good, p;
    Survey s;
    uint8_t bytes[GAUGES_BYTES + 1];
    char file[500];
    gauges_read(dir, &good);
    memset(bytes, 0xa5, sizeof bytes);
    write_page(bytes, 0);
    ok(gauges_read(dir, &p), "an empty file is refused");
    write_page(bytes, GAUGES_BYTES);
    ok(gauges_read(dir, &p), "so are other bytes");
    write_page(&good, GAUGES_BYTES - 1);
    ok(gauges_read(dir, &p), "a page that breaks off");
    memcpy(&p, &good, sizeof p);
    p.version = 2;
    write_page(&p, sizeof p);
    ok(gauges_read(dir, &p) && strstr(err_text(), "version 2"), "another version");
    memcpy(&p, &good, sizeof p);
    p.state = 1000;
    write_page(&p, sizeof p);
    ok(gauges_read(dir, &p), "a state that there is not");
    memcpy(&p, &good, sizeof p);
    memset(p.name, 'x', sizeof p.name);
    memset(p.program, '\n', sizeof p.program);
    p.serial = 1;
    write_page(&p, sizeof p);
    ok(!gauges_read(dir, &p) && strlen(p.name[GAUGE_READS]) == 255 && strlen(p.program) == 31,
       "texts without an end get one, and a writer that died in the middle holds nobody up");
    snprintf(file, sizeof file, "%s/gauges", dir);
    unlink(file);
    if (mkfifo(file, 0600))
        diag("no fifo");
    ok(gauges_read(dir, &p), "a pipe holds nobody up");
    unlink(file);
    if (symlink("/dev/zero", file))
        diag("no link");
    ok(gauges_read(dir, &p), "links are not followed");

    /* One that reads from itself. */
    memcpy(&p, &good, sizeof p);
    snprintf(p.name[GAUGE_SERVES], 256, "ipc:///a");
    snprintf(p.name[GAUGE_READS], 256, "ipc:///a");
    write_page(&p, sizeof p);
    err_clear();
    ok(!survey_take(&s, base) && s.n == 1 && s.pipelines == 1, "a survey stands it");
    survey_compare(&s, NULL);
    survey_free(&s);
    unlink(file);
}

/* Two that read from each other. */
static void test_circle(void)
{
    GaugePage p = { .magic = GAUGES_MAGIC, .version = GAUGES_VERSION, .bytes = GAUGES_BYTES, .pid = 1 };
    Survey s;
    char was[sizeof dir], lock[500];
    int fd[2];
    memcpy(was, dir, sizeof dir);
    for (int i = 0; i < 2; i++) {
        snprintf(dir, sizeof dir, "%s/hssl-%ld-%d-circle", base, (long)getuid(), i + 1);
        mkdir(dir, 0700); /* young, so not yet taken for a dead process's */
        snprintf(lock, sizeof lock, "%s/none", dir);
        snprintf(p.name[GAUGE_SERVES], 256, "ipc:///%d", i);
        snprintf(p.name[GAUGE_READS], 256, "ipc:///%d", 1 - i);
        write_page(&p, sizeof p);
        fd[i] = open(dir, O_RDONLY | O_DIRECTORY);
    }
    ok(!survey_take(&s, base) && s.n == 2 && s.pipelines == 1, "two that read from each other are cut apart");
    survey_free(&s);
    for (int i = 0; i < 2; i++) {
        unlinkat(fd[i], "gauges", 0);
        close(fd[i]);
        snprintf(dir, sizeof dir, "%s/hssl-%ld-%d-circle", base, (long)getuid(), i + 1);
        rmdir(dir);
    }
    memcpy(dir, was, sizeof dir);
}

/* ---------------------------------------------------------------- the rule */

static SurveyStage stage(const char *program, double in, double out)
{
    SurveyStage s = { .rate = 10, .in = in, .out = out, .busy = 1 - in - out };
    snprintf(s.page.program, sizeof s.page.program, "%s", program);
    if (strcmp(program, "hssl-train"))
        snprintf(s.page.name[GAUGE_SERVES], 256, "ipc:///%s", program);
    else
        s.page.value[GAUGE_STEPS] = 100;
    if (strcmp(program, "hssl-load"))
        snprintf(s.page.name[GAUGE_READS], 256, "ipc:///up");
    snprintf(s.page.name[GAUGE_KIND], 256, "%s", strcmp(program, "hssl-augment") ? "records" : "views");
    if (!strcmp(program, "hssl-augment")) {
        snprintf(s.page.name[GAUGE_WORK], 256, "ipc:///work");
        s.page.value[GAUGE_WORKERS] = 2;
    }
    return s;
}

static void limit(double load_out, double augment_in, double augment_out, double train_in, int processors,
                  const char *help, const char *words)
{
    SurveyStage s[] = { stage("hssl-load", 0, load_out), stage("hssl-augment", augment_in, augment_out),
                        stage("hssl-train", train_in, 0) };
    const SurveyStage *chain[] = { &s[0], &s[1], &s[2] };
    SurveyLimit l;
    survey_limit(chain, 3, processors, &l);
    is_str(l.help, help, words);
    if (!strstr(l.text, words))
        ok(false, "\"%s\" says: %s", l.text, words);
}

static void test_rule(void)
{
    limit(0.9, 0.05, 0.05, 0.31, 8, "worker", "hssl-train waits 31 % for views: add a worker to hssl-augment");
    limit(0.9, 0.05, 0.05, 0.31, 2, "host", "other hosts");
    limit(0.1, 0.90, 0.02, 0.60, 8, "loader", "hssl-load is the limit, busy 90 %");
    limit(0.9, 0.05, 0.90, 0.01, 8, "trainer", "hssl-train is the limit: it waits 1 % for input, hssl-augment waits 90 %");
    limit(0.9, 0.30, 0.60, 0.20, 8, "trainer", "hssl-train is the limit");
    SurveyStage alone = stage("hssl-load", 0, 1);
    const SurveyStage *chain[] = { &alone };
    SurveyLimit l;
    survey_limit(chain, 1, 8, &l);
    is_str(l.help, "consumer", "a loader that nobody reads from waits for a consumer");
    SurveyStage s[] = { stage("hssl-load", 0, 0.9), stage("hssl-train", 1, 0) };
    const SurveyStage *still[] = { &s[0], &s[1] };
    s[0].rate = s[1].rate = 0;
    survey_limit(still, 2, 8, &l);
    is_str(l.help, "none", "where nothing moves nothing is blamed");
    survey_limit(NULL, 0, 8, &l);
    ok(!l.stage, "no chain, no limit");
}

int main(void)
{
    snprintf(base, sizeof base, "%s/hssl-gauges-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(base))
        return 1;
    setenv("XDG_RUNTIME_DIR", base, 1);
    test_page();
    test_garbage();
    test_circle();
    test_rule();
    gauges_close();
    ok(!rmdir(base), "nothing is left behind");
    return tap_done();
}
