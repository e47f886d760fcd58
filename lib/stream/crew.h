/* Child processes that are kept running: each gets a ticket on its standard input, which is also its life line.
 *
 *     Crew *c = crew_start(ticket_line, argv, 4);
 *     poll crew_fd(c);  while (crew_reap(c, &pid, &status)) ...
 *     crew_stop(&c);
 *
 * A child that ends is replaced. One that goes on ending as soon as it starts is a mistake that no restart
 * mends, and crew_failed() says so. */
#ifndef HSSL_CREW_H
#define HSSL_CREW_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct Crew Crew;

/* Start n copies of the running program with these arguments (argv[0] included, NULL-terminated). Their standard
 * output is /dev/null. The strings are copied. NULL with ERR_SYSTEM, ERR_MEMORY. */
Crew *crew_start(const char *ticket_line, const char *const argv[], int n);

/* Becomes readable when a child has ended. */
int crew_fd(const Crew *c);
/* One that has ended since, and how (as waitpid(2) says it); its successor has been started, or will be: see
 * crew_patience(). */
bool crew_reap(Crew *c, pid_t *pid, int *status);
/* Start those whose time has come. Returns milliseconds until there is one more to start, -1: none. */
int crew_patience(Crew *c);
/* A child proved useful: what came before does not count as failure any more. */
void crew_praise(Crew *c, pid_t pid);
/* ERR_PEER is recorded and true returned when children end at once, again and again. */
bool crew_failed(const Crew *c);
bool crew_has(const Crew *c, pid_t pid);
/* Children running, and how many were started in place of others. */
int crew_running(const Crew *c);
long crew_restarts(const Crew *c);
/* No successors from now on: those who end have ended. */
void crew_dismiss(Crew *c);

/* Close the life lines, wait for the children to end, end by force those that do not within two seconds. */
void crew_stop(Crew **c);

#endif
