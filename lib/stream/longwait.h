/* What somebody waits for in vain is said, once: else a pipeline that was put together wrongly looks like one
 * that works.
 *
 *     LongWait w = { 0 };
 *     while (!<it is there>)
 *         poll(..., long_wait(&w, "nobody has connected yet"));
 */
#ifndef HSSL_LONGWAIT_H
#define HSSL_LONGWAIT_H

#include <stdbool.h>

typedef struct {
    double since; /* 0: not begun */
    bool said;
} LongWait;

/* Seconds after which it is said: 10. The tests change it. */
extern double long_wait_s;

/* It is waited for, since the first of these calls; the message goes to the log when that is long ago.
 * Returns the milliseconds after which to call again, -1: there is nothing more to say. */
int long_wait(LongWait *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
