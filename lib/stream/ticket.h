/* Tickets: the one line of text that a producer prints and a consumer reads; see hssl-stream(7).
 *
 *     hssl/1 views ipc:///run/user/1000/hssl-1000-4711-x7Qk2m/views key=value ...
 *
 * In the line an endpoint and a value have %XX for each byte that is no visible ASCII, and for %; in a Ticket
 * they are plain, and hold no control character. Whoever has the ticket may connect. The line is foreign
 * input and is checked as such. */
#ifndef HSSL_TICKET_H
#define HSSL_TICKET_H

#include <stdbool.h>
#include <stddef.h>

enum { TICKET_VERSION = 1, TICKET_MAX_LINE = 2048, TICKET_MAX_PAIRS = 16 };

typedef struct {
    char kind[16];      /* "records", "plans", "views", "targets", "batches" */
    char endpoint[256]; /* ipc:///PATH or tcp://HOST:PORT */
    int pairs;
    struct {
        char key[24], value[200];
    } pair[TICKET_MAX_PAIRS];
} Ticket;

/* Parse a line, with or without its newline. -1 with ERR_DATA says what is wrong with it. */
int ticket_parse(const char *line, size_t n, Ticket *out);

/* Write the line with its newline into buf. Returns its length, or -1 with ERR_DATA when it does not fit. */
int ticket_format(const Ticket *t, char *buf, size_t size);

/* The value of a key, or NULL. */
const char *ticket_get(const Ticket *t, const char *key);
/* -1 with ERR_DATA: no room, or a control character. */
int ticket_set(Ticket *t, const char *key, const char *value);

/* Read the ticket on file descriptor fd (a pipe, a file), one byte at a time so that nothing behind it
 * is lost, and check that its kind is one of wanted ("records|plans"). Stops for stop_signal().
 * ERR_USAGE: a terminal, some other text, or a stream of the wrong kind; the text names the program that
 * belongs there. ERR_PEER: end of file, that is, the program before ended without giving a ticket. */
int ticket_read(int fd, const char *wanted, Ticket *out);

/* Whether kind is one of wanted ("records|plans"). */
bool ticket_kind_in(const char *kind, const char *wanted);

/* The program that makes streams of this kind ("views": "hssl-augment"), or NULL. */
const char *ticket_program(const char *kind);

#endif
