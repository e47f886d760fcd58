/* Signals: being asked to stop, and what else a program wants to hear of.
 *
 * No handler runs anywhere. stop_install() blocks the signals in the calling thread, and so in all threads that it
 * starts later, and one thread of its own waits for them with sigwait(). A handler would run on the stack of the
 * thread that is interrupted, and a thread in one of oneDNN's AVX-512 products has none: that code uses the stack
 * pointer as a general register, so the frame of a handler would land in the heap.
 *
 * A tool calls stop_install() before it starts a thread or has a library do so, looks at stop_signal() where it can
 * leave in order, cleans up, and returns stop_status() (129 after SIGHUP, 130 after SIGINT, 143 after SIGTERM). A
 * second signal within a second counts as the first (timeout(1) signals the program and its process group); a later
 * one ends the process at once, as the signal does. SIGPIPE is ignored: a reader that has gone is seen where it
 * matters. SIGUSR1 and SIGUSR2, which batch systems send to a whole pipeline and which mean the trainer alone, do
 * nothing unless stop_hear() was told otherwise. A signal that is ignored from the start (nohup, a background job of
 * sh) stays ignored. */
#ifndef HSSL_STOP_H
#define HSSL_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Seconds during which further signals count as the first. The tests change it. */
extern double stop_same_request;

/* 0, or -1 with ERR_SYSTEM. Calling it again does nothing. */
int stop_install(void);
/* Before stop_install(): have act(signal) called for a signal that does not ask to stop, on the thread that waits.
 * act sets a flag or wakes somebody; it shares memory with the other threads as threads do. */
void stop_hear(int signal, void (*act)(int signal));
/* What the first signal that asks to stop has the program say; NULL, as at first: nothing. text: a literal. */
void stop_notice(const char *text);
/* The signal that asked to stop, or 0. */
int stop_signal(void);
/* Becomes readable, and stays so, once a signal has asked to stop. -1 before stop_install(). */
int stop_fd(void);
/* 128 + the signal, or 0. */
int stop_status(void);
/* Whether a signal asks to stop, or does so within this time. For who sees a neighbour go: Ctrl-C reaches all of a
 * pipeline at once, and a neighbour may have gone because of it before it is seen here. */
bool stop_within(int ms);
/* As if the signal had come, but nothing is said and it can be asked for any number of times: for tests, and to pass
 * on another process's fate. From any thread. */
void stop_request(int signal);
/* read(), which also ends when a signal asks to stop: -1 with EINTR then. */
ssize_t stop_read(int fd, void *to, size_t n);

#endif
