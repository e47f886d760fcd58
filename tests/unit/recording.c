/* When pieces of a step are run, recorded, repeated and forgotten: on a device that only counts. */
#include "../tap.h"
#include "tensor/recording.h"
#include "util/err.h"

#include <string.h>

static int begun, ended, dropped, repeated, forgotten, ran, stale;
static bool refuses, fails;
static int work[8];

static int begin(Backend *be)
{
    (void)be;
    begun++;
    return refuses ? err_set(ERR_SYSTEM, "not now") : 0;
}

static int end(Backend *be, void **recording)
{
    (void)be;
    ended++;
    if (recording)
        *recording = &work[ended % 8];
    else
        dropped++;
    return 0;
}

static int again(Backend *be, void *recording)
{
    (void)be;
    (void)recording;
    repeated++;
    return stale;
}

static void forget(Backend *be, void *recording)
{
    (void)be;
    (void)recording;
    forgotten++;
}

static int piece(void *arg)
{
    (void)arg;
    ran++;
    return fails ? err_set(ERR_MEMORY, "no") : 0;
}

/* What a step does. */
static int step(Recordings *r, const void *at)
{
    int rc = recordings_repeat(r, at, NULL);
    return rc > 0 ? recordings_make(r, at, NULL, piece, NULL) : rc;
}

int main(void)
{
    Backend device = { .record = begin, .recorded = end, .repeat = again, .forget = forget }, none = { 0 };
    Recordings r = { .be = &device };
    char x[RECORDINGS + 1];
    ok(!recordings_any(&r) && !step(&r, x) && ran == 1 && !begun, "the first time a piece is run");
    ok(!step(&r, x) && ran == 2 && begun == 1 && ended == 1 && repeated == 1, "then recorded, which does nothing yet, and repeated");
    ok(!step(&r, x) && ran == 2 && repeated == 2 && recordings_any(&r), "then repeated alone");
    ok(!step(&r, x + 1) && ran == 3 && begun == 2 && !step(&r, x) && !step(&r, x + 1) && ran == 3, "other addresses, another recording");
    for (int i = 2; i <= RECORDINGS; i++)
        step(&r, x + i);
    int so_far = begun;
    ok(begun == RECORDINGS && !step(&r, x + RECORDINGS) && begun == so_far && ran == RECORDINGS + 3, "of too many the last are run");
    stale = 1;
    ok(!step(&r, x) && forgotten == RECORDINGS && !recordings_any(&r) && begun == so_far,
       "where memory has moved all are forgotten, and the piece is run");
    stale = 0;
    ok(!step(&r, x) && begun == so_far + 1 && recordings_any(&r), "and recorded anew");
    recordings_forget(&r);
    ok(forgotten == RECORDINGS + 1 && !recordings_any(&r), "all is given back");

    step(&r, x);
    step(&r, x);
    so_far = forgotten;
    ok(!recordings_make(&r, x, NULL, piece, NULL) && forgotten == so_far + 1 && r.count == 1, "one made again replaces the first");
    recordings_forget(&r);

    fails = true;
    ok(recordings_make(&r, x, NULL, piece, NULL) == -1 && err_code() == ERR_MEMORY, "a piece that fails is an error of the step");
    so_far = begun;
    ok(recordings_make(&r, x, NULL, piece, NULL) == 1 && dropped == 1 && !recordings_any(&r) && err_code() == ERR_NONE,
       "one that cannot be recorded is the caller's to run");
    fails = false;
    refuses = true;
    int before = ran;
    ok(recordings_make(&r, x, NULL, piece, NULL) == 1 && recordings_make(&r, x, NULL, piece, NULL) == 1 && ran == before,
       "as is one of a device that refuses");
    refuses = false;
    so_far = begun;
    ok(!step(&r, x) && !step(&r, x) && begun == so_far, "after three failures nothing is recorded any more");
    Recordings nobody = { .be = NULL }, plain = { .be = &none };
    before = ran;
    for (int i = 0; i < 3; i++)
        ok(!step(&nobody, x) && !step(&plain, x), "a device that cannot record");
    ok(ran == before + 6, "runs each time");
    return tap_done();
}
