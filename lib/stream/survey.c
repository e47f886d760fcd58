#include "stream/survey.h"

#include "stream/sockdir.h"
#include "util/err.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- finding */

static double resident_bytes(int64_t pid)
{
    char path[64];
    long total, pages;
    snprintf(path, sizeof path, "/proc/%lld/statm", (long long)pid);
    FILE *f = fopen(path, "r");
    int got = f ? fscanf(f, "%ld %ld", &total, &pages) : 0;
    if (f)
        fclose(f);
    return got == 2 ? (double)pages * (double)sysconf(_SC_PAGESIZE) : -1;
}

/* A directory may be found under several names. */
static int add(Survey *s, const char *dir, const struct stat *is, const GaugePage *page)
{
    for (int i = 0; i < s->n; i++)
        if (s->stage[i].device == is->st_dev && s->stage[i].inode == is->st_ino)
            return 0;
    SurveyStage *bigger = realloc(s->stage, (size_t)(s->n + 1) * sizeof *bigger);
    if (!bigger)
        return err_set(ERR_MEMORY, "out of memory");
    s->stage = bigger;
    SurveyStage *st = &s->stage[s->n++];
    *st = (SurveyStage){ .up = -1, .device = is->st_dev, .inode = is->st_ino };
    memcpy(&st->page, page, sizeof st->page);
    snprintf(st->dir, sizeof st->dir, "%s", dir);
    st->worker = !strcmp(page->name[GAUGE_KIND], "worker");
    st->resident = resident_bytes(page->pid);
    return 0;
}

static int look_into(Survey *s, const char *base)
{
    char prefix[32];
    int rc = 0;
    DIR *d = base && base[0] == '/' ? opendir(base) : NULL;
    if (!d)
        return 0;
    snprintf(prefix, sizeof prefix, "hssl-%ld-", (long)getuid());
    for (struct dirent *e; !rc && (e = readdir(d));) {
        char path[400];
        struct stat st;
        GaugePage page;
        if (strncmp(e->d_name, prefix, strlen(prefix)) ||
            (size_t)snprintf(path, sizeof path, "%s/%s", base, e->d_name) >= sizeof path || lstat(path, &st) ||
            !S_ISDIR(st.st_mode) || st.st_uid != getuid() || sockdir_abandoned(path))
            continue;
        if (!gauges_read(path, &page))
            rc = add(s, path, &st, &page);
        else
            err_clear(); /* of another version, or not ready yet */
    }
    closedir(d);
    return rc;
}

/* ---------------------------------------------------------------- joining */

static void join(Survey *s)
{
    for (int i = 0; i < s->n; i++) {
        SurveyStage *me = &s->stage[i];
        const char *reads = me->page.name[GAUGE_READS];
        for (int j = 0; j < s->n && reads[0] && me->up < 0; j++)
            if (j != i && !strcmp(reads, s->stage[j].page.name[me->worker ? GAUGE_WORK : GAUGE_SERVES]))
                me->up = j;
    }
}

const SurveyStage *survey_find(const Survey *s, int64_t pid, const char *endpoint)
{
    for (int i = 0; i < s->n; i++) {
        const GaugePage *p = &s->stage[i].page;
        if (p->pid == pid || (endpoint && (!strcmp(p->name[GAUGE_SERVES], endpoint) ||
                                           (p->name[GAUGE_WORK][0] && !strcmp(p->name[GAUGE_WORK], endpoint)))))
            return &s->stage[i];
    }
    return NULL;
}

/* The root of i, which foreign pages could have made a circle of: then i itself, cut loose. */
static int root_of(Survey *s, int i, int *depth)
{
    int at = i;
    for (*depth = 0; s->stage[at].up >= 0; at = s->stage[at].up)
        if (++*depth > s->n) {
            s->stage[i].up = -1;
            *depth = 0;
            return i;
        }
    return at;
}

typedef struct {
    const Survey *survey;
    int *order, n;
} Walk;

static void walk(Walk *w, int at)
{
    w->order[w->n++] = at;
    for (int workers = 1; workers >= 0; workers--)
        for (int i = 0; i < w->survey->n; i++)
            if (w->survey->stage[i].up == at && w->survey->stage[i].worker == (workers == 1))
                walk(w, i);
}

static int by_age(const void *a, const void *b)
{
    const SurveyStage *x = a, *y = b;
    if (x->page.started != y->page.started)
        return x->page.started < y->page.started ? -1 : 1;
    return (x->page.pid > y->page.pid) - (x->page.pid < y->page.pid);
}

static int arrange(Survey *s)
{
    if (!s->n)
        return 0;
    qsort(s->stage, (size_t)s->n, sizeof *s->stage, by_age);
    join(s);
    int *order = malloc(2 * (size_t)s->n * sizeof *order);
    SurveyStage *sorted = malloc((size_t)s->n * sizeof *sorted);
    if (!order || !sorted) {
        free(order);
        free(sorted);
        return err_set(ERR_MEMORY, "out of memory");
    }
    Walk w = { s, order, 0 };
    int *place = order + s->n;
    for (int i = 0; i < s->n; i++)
        root_of(s, i, &s->stage[i].depth);
    for (int i = 0; i < s->n; i++)
        if (s->stage[i].up < 0) {
            int first = w.n;
            walk(&w, i);
            for (int k = first; k < w.n; k++)
                s->stage[order[k]].pipeline = s->pipelines;
            s->pipelines++;
        }
    for (int k = 0; k < w.n; k++) {
        place[order[k]] = k;
        sorted[k] = s->stage[order[k]];
    }
    for (int k = 0; k < w.n; k++)
        if (sorted[k].up >= 0)
            sorted[k].up = place[sorted[k].up];
    free(order);
    free(s->stage);
    s->stage = sorted;
    s->n = w.n;
    return 0;
}

int survey_take(Survey *s, const char *dir)
{
    const char *bases[] = { getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp" };
    *s = (Survey){ .at = gauges_now() };
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++) {
        rc = look_into(s, dir ? dir : bases[i]);
        if (dir)
            break;
    }
    if (!rc)
        rc = arrange(s);
    if (rc)
        survey_free(s);
    return rc;
}

void survey_free(Survey *s)
{
    free(s->stage);
    *s = (Survey){ 0 };
}

/* ---------------------------------------------------------------- comparing */

const char *survey_name(const SurveyStage *s)
{
    return s->worker ? "worker" : s->page.program;
}

uint64_t survey_held(const SurveyStage *s)
{
    uint64_t held = s->page.value[GAUGE_HELD];
    return held > INT64_MAX ? 0 : held;
}

static const SurveyStage *same(const Survey *s, const SurveyStage *of)
{
    for (int i = 0; s && i < s->n; i++)
        if (!strcmp(s->stage[i].dir, of->dir) && s->stage[i].page.started == of->page.started)
            return &s->stage[i];
    return NULL;
}

static double grown(const SurveyStage *now, const SurveyStage *before, int g)
{
    uint64_t a = before ? before->page.value[g] : 0, b = now->page.value[g];
    return b > a ? (double)(b - a) : 0;
}

void survey_compare(Survey *s, const Survey *before)
{
    for (int i = 0; i < s->n; i++) {
        SurveyStage *st = &s->stage[i];
        const SurveyStage *b = same(before, st);
        double in = grown(st, b, GAUGE_TIME + GAUGE_WAITS_IN), out = grown(st, b, GAUGE_TIME + GAUGE_WAITS_OUT),
               busy = grown(st, b, GAUGE_TIME + GAUGE_BUSY), all = in + out + busy;
        double records = grown(st, b, GAUGE_RECORDS_OUT);
        if (st->page.value[GAUGE_STEPS])
            records = grown(st, b, GAUGE_IMAGES);
        else if (!st->page.name[GAUGE_SERVES][0] && !st->worker)
            records = grown(st, b, GAUGE_RECORDS_IN);
        st->seconds = 1e-9 * all;
        st->rate = all > 0 ? records / st->seconds : 0;
        st->in = all > 0 ? in / all : 0;
        st->out = all > 0 ? out / all : 0;
        st->busy = all > 0 ? busy / all : 0;
    }
}

/* ---------------------------------------------------------------- the limit */

bool survey_last(const Survey *s, int i)
{
    for (int k = 0; k < s->n; k++)
        if (s->stage[k].up == i && !s->stage[k].worker)
            return false;
    return !s->stage[i].worker;
}

int survey_chain(const Survey *s, int i, const SurveyStage **chain, int most)
{
    int n = 0;
    for (int at = i; at >= 0 && n < most; at = s->stage[at].up)
        n++;
    for (int at = i, k = n; k > 0; at = s->stage[at].up)
        chain[--k] = &s->stage[at];
    return n;
}

static void say(SurveyLimit *l, const SurveyStage *stage, const char *help)
{
    l->stage = stage;
    snprintf(l->help, sizeof l->help, "%s", help);
}

/* The end takes what it gets at its own pace. */
static void limit_is_last(const SurveyStage *const *chain, int n, SurveyLimit *l)
{
    const SurveyStage *last = chain[n - 1], *up = n > 1 ? chain[n - 2] : NULL;
    bool trainer = last->page.value[GAUGE_STEPS] > 0;
    say(l, last, trainer ? "trainer" : "consumer");
    if (up)
        snprintf(l->text, sizeof l->text, "%s is the limit: it waits %.0f %% for input, %s waits %.0f %% for it; %s",
                 survey_name(last), 100 * last->in, survey_name(up), 100 * up->out,
                 trainer ? "more workers won't help" : "what comes before it has room");
    else
        snprintf(l->text, sizeof l->text, "%s is the limit: it waits %.0f %% for input", survey_name(last),
                 100 * last->in);
}

static void limit_is_stage(const SurveyStage *last, const char *kind, const SurveyStage *st, int processors, SurveyLimit *l)
{
    bool hub = st->page.name[GAUGE_WORK][0];
    uint64_t workers = st->page.value[GAUGE_WORKERS];
    int k = snprintf(l->text, sizeof l->text, "%s waits %.0f %% for %.15s: ", survey_name(last), 100 * last->in, kind);
    char *rest = l->text + k;
    size_t room = sizeof l->text - (size_t)k;
    if (hub && (int64_t)workers < processors) {
        say(l, st, "worker");
        snprintf(rest, room, "add a worker to %s (a larger -j, or hssl-augment --join)", survey_name(st));
    } else if (hub) {
        say(l, st, "host");
        snprintf(rest, room, "add workers of other hosts to %s (hssl-augment --join); here all %d processor%s ha%s one",
                 survey_name(st), processors, processors == 1 ? "" : "s", processors == 1 ? "s" : "ve");
    } else if (!st->page.name[GAUGE_READS][0]) {
        say(l, st, "loader");
        snprintf(rest, room, "%s is the limit, busy %.0f %%; a disk or memory of more speed would help", survey_name(st),
                 100 * st->busy);
    } else {
        say(l, st, "stage");
        snprintf(rest, room, "%s is the limit, busy %.0f %%", survey_name(st), 100 * st->busy);
    }
}

void survey_limit(const SurveyStage *const *chain, int n, int processors, SurveyLimit *l)
{
    static const double IDLE = 0.05;
    bool moves = false;
    *l = (SurveyLimit){ .help = "none" };
    if (!n)
        return;
    for (int i = 0; i < n; i++)
        moves = moves || chain[i]->rate > 0;
    const SurveyStage *last = chain[n - 1];
    if (last->page.name[GAUGE_SERVES][0] && last->out > 0.5) {
        say(l, last, "consumer");
        snprintf(l->text, sizeof l->text,
                 "%s waits %.0f %% for whoever takes its %.15s: nobody has connected, or it is not to be "
                 "seen here",
                 survey_name(last), 100 * last->out, last->page.name[GAUGE_KIND]);
        return;
    }
    if (last->in < IDLE || (n > 1 && last->in < 0.5 && chain[n - 2]->out > last->in)) {
        limit_is_last(chain, n, l);
        return;
    }
    /* Upstream, past those that wait for input themselves more than they do anything else. */
    int at = n - 1;
    while (at > 0 && (at == n - 1 || (chain[at]->in > chain[at]->busy && chain[at]->in > chain[at]->out)))
        at--;
    if (!moves && chain[at]->busy < 0.5) {
        snprintf(l->text, sizeof l->text, "nothing moves: it begins, ends or has stalled");
        return;
    }
    if (n == 1)
        limit_is_last(chain, n, l);
    else
        limit_is_stage(last, chain[n - 2]->page.name[GAUGE_KIND], chain[at], processors, l);
}
