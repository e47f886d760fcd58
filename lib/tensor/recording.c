#include "tensor/recording.h"

#include "util/err.h"
#include "util/log.h"

enum { MOST_FAILURES = 3 };

static int find(const Recordings *r, const void *first, const void *second)
{
    for (int i = 0; i < r->count; i++)
        if (r->made[i].at[0] == first && r->made[i].at[1] == second)
            return i;
    return -1;
}

bool recordings_any(const Recordings *r)
{
    return r->count > 0;
}

void recordings_forget(Recordings *r)
{
    for (int i = 0; i < r->count; i++)
        r->be->forget(r->be, r->made[i].work);
    r->count = r->runs = 0;
}

int recordings_repeat(Recordings *r, const void *first, const void *second)
{
    int i = find(r, first, second), rc = i < 0 ? 1 : r->be->repeat(r->be, r->made[i].work);
    if (i >= 0 && rc > 0) /* the device's memory is not what it was, and so for all */
        recordings_forget(r);
    return rc;
}

/* What was wrong is no error of the step. */
static int failed(Recordings *r)
{
    if (++r->failures < MOST_FAILURES)
        log_debug("tensor", "a piece of the step cannot be recorded yet: %s", err_text());
    else
        log_warn("the device does not repeat all of a step, which may be slower: %s", err_text());
    err_clear();
    return 1;
}

int recordings_make(Recordings *r, const void *first, const void *second, int (*piece)(void *arg), void *arg)
{
    Backend *be = r->be;
    if (!be || !be->record || !r->runs++ || r->count == RECORDINGS || r->failures >= MOST_FAILURES)
        return piece(arg);
    void *work = NULL;
    int known = find(r, first, second);
    if (known >= 0) { /* its other half has to be made anew, and so this */
        be->forget(be, r->made[known].work);
        r->made[known] = r->made[--r->count];
    }
    if (be->record(be))
        return failed(r);
    int rc = piece(arg);
    if (be->recorded(be, rc ? NULL : &work) || rc)
        return failed(r);
    r->failures = 0;
    r->made[r->count].at[0] = first;
    r->made[r->count].at[1] = second;
    r->made[r->count++].work = work;
    log_debug("tensor", "a piece of the step is recorded");
    return recordings_repeat(r, first, second);
}
