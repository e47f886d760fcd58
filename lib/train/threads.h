/* How many threads, and that they sleep when there is nothing to do.
 *
 * Trainer and teacher take turns on the same processors: a thread of one that spins while it waits for its
 * next loop would take the processor from the other. OpenMP's default is to spin for milliseconds. */
#ifndef HSSL_THREADS_H
#define HSSL_THREADS_H

/* Forbid the spinning by OpenMP's environment variables, unless the user has set one of them. GNU's runtime
 * reads them when it is loaded, so this runs the program anew, once, with the same arguments: call it before
 * any work and before anything is opened. Returns only if nothing had to be done or could be done. argv: as
 * main() got it. */
void threads_settle(char **argv);

/* Processors this process may use; at most OMP_NUM_THREADS when that is set. */
int threads_default(void);
/* Use n threads (0: threads_default()) for everything from here on. Returns how many. */
int threads_use(int n);

#endif
