/* One trainer a run. Whoever trains a run holds a lock on its file, which the kernel drops when the process
 * ends, however it ends; so a trainer that was killed is never taken for one that works, whatever process has
 * its number now. */
#ifndef HSSL_CLAIM_H
#define HSSL_CLAIM_H

#include <stdbool.h>

/* Claim the run for this process, as long as it keeps the descriptor that is returned. -1: ERR_EXISTS when it
 * is claimed already, ERR_SYSTEM. */
int claim_take(const char *run) __attribute__((warn_unused_result));
/* Whether anybody has claimed it; not so where there is no such file. */
bool claim_held(const char *run);

#endif
