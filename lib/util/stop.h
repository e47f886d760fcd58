/* Being asked to stop: SIGINT and SIGTERM set a flag and wake whoever polls stop_fd().
 *
 * A tool calls stop_install() first, looks at stop_signal() where it can leave in order, cleans up, and
 * returns stop_status() (130 after SIGINT, 143 after SIGTERM). A second signal of the same kind ends the
 * process at once. SIGPIPE is ignored: a reader that has gone is seen where it matters. So are SIGUSR1 and
 * SIGUSR2, which batch systems send to a whole pipeline, and which mean the trainer alone. */
#ifndef HSSL_STOP_H
#define HSSL_STOP_H

/* 0, or -1 with ERR_SYSTEM. */
int stop_install(void);
/* The signal that asked to stop, or 0. */
int stop_signal(void);
/* Becomes readable, and stays so, once a signal has come. -1 before stop_install(). */
int stop_fd(void);
/* 128 + the signal, or 0. */
int stop_status(void);
/* As if the signal had come: for tests, and to pass on a child's fate. */
void stop_request(int signal);

#endif
