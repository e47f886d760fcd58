/* A look at this user's running pipelines from outside: the pages of their gauges, joined by who reads from whom.
 *
 *     Survey a, b = { 0 };  survey_take(&a, dir); <wait>; survey_take(&b, dir);
 *     survey_compare(&b, &a);                  rates and shares since a
 *     for (i < b.n) ... b.stage[i]; survey_limit(&b, b.stage[i].pipeline, ...)
 *     survey_free(&a); ...
 *
 * Nothing is sent to a pipeline, and nothing in its directories is changed. */
#ifndef HSSL_SURVEY_H
#define HSSL_SURVEY_H

#include "stream/gauges.h"

#include <stdbool.h>

typedef struct {
    GaugePage page;
    char dir[400];    /* its socket directory */
    uint64_t device, inode; /* of that */
    double resident;  /* bytes, shared ones included; -1: unknown */
    int up;           /* the stage that it reads from, or the hub that it works for; -1: not seen */
    bool worker;
    int pipeline;     /* number of its pipeline, 0 ... */
    int depth;        /* stages before it */
    /* Since an earlier survey, or since it began. */
    double seconds;
    double rate;      /* records, of a trainer images, a second */
    double in, out, busy; /* shares of the time, 0 to 1: waiting for input, for who takes the output, and the rest */
} SurveyStage;

/* In the order in which they are to be shown: pipeline by pipeline, a stage behind the one that it reads from, a hub's
 * workers behind the hub. */
typedef struct {
    SurveyStage *stage;
    int n, pipelines;
    uint64_t at; /* gauges_now() */
} Survey;

/* dir: where socket directories are looked for; NULL: $XDG_RUNTIME_DIR, $TMPDIR and /tmp. -1: ERR_MEMORY. */
int survey_take(Survey *s, const char *dir);
/* before: NULL, or an earlier survey. */
void survey_compare(Survey *s, const Survey *before);
void survey_free(Survey *s);

/* The stage of this process, or the one that serves consumers or workers at this endpoint; NULL: not here. */
const SurveyStage *survey_find(const Survey *s, int64_t pid, const char *endpoint);

/* What a process is: its program's name, for a worker "worker". */
const char *survey_name(const SurveyStage *s);
/* Records in custody, never less than 0. */
uint64_t survey_held(const SurveyStage *s);

/* What limits a pipeline. */
typedef struct {
    const SurveyStage *stage; /* NULL: nothing moves, or nobody asks */
    char text[240];           /* what was seen, and what would help */
    char help[16];            /* the same in a word: "worker", "host", "trainer", "loader", "stage", "consumer", "none" */
} SurveyLimit;

/* chain: a pipeline's stages from the first to one at its end, without workers. A pure function of the shares and rates
 * in them. processors: of this machine; workers of the chain's hubs are counted by their gauges. */
void survey_limit(const SurveyStage *const *chain, int n, int processors, SurveyLimit *l);
/* The chain that ends with stage i. Returns its length, at most `most`. */
int survey_chain(const Survey *s, int i, const SurveyStage **chain, int most);
/* Whether no other stage reads from stage i. */
bool survey_last(const Survey *s, int i);

#endif
