/* The log of a training: one JSON object a line, into the run and, if wanted, into a file.
 *
 *     json_object *line = journal_line("step");        kind and time are in it
 *     journal_real(line, "loss", x);                   left out where it is not finite
 *     journal_write(j, line);                          takes the line */
#ifndef HSSL_JOURNAL_H
#define HSSL_JOURNAL_H

#include "store/run.h"

#include <json-c/json.h>
#include <stdio.h>

typedef struct {
    Run *run;   /* or NULL */
    FILE *file; /* or NULL */
} Journal;

json_object *journal_line(const char *kind);
void journal_int(json_object *line, const char *key, int64_t value);
void journal_real(json_object *line, const char *key, double value);
/* Bytes that aren't UTF-8 become U+FFFD. */
void journal_text(json_object *line, const char *key, const char *value);
/* 0, or -1. */
int journal_write(Journal *j, json_object *line);

/* An epoch's mean figures as a run's log has them; the last word on an epoch counts, since a resumed run
 * repeats steps. */
typedef struct {
    int64_t epoch, steps;
    double loss, d, d_role; /* NaN where absent */
} EpochMeans;

/* All epochs in order, malloc'd through *out; returns how many, or -1. */
int64_t journal_epochs(Run *run, EpochMeans **out);

/* Figures that lines of one kind have, in the order of their steps; a resumed run's last word on a step
 * counts. */
enum { JOURNAL_FIGURES = 4 };
typedef struct {
    int64_t step;
    double figure[JOURNAL_FIGURES]; /* NaN where absent */
} JournalPoint;

/* Those of lines of this kind, by keys (NULL: none), malloc'd through *out; returns how many, or -1. */
int64_t journal_points(Run *run, const char *kind, const char *const keys[JOURNAL_FIGURES],
                       JournalPoint **out);

/* A warning that a run's log has, and that has not ended. */
enum { JOURNAL_WARNINGS = 16 };
typedef struct {
    int64_t step, epoch; /* epoch from 0 */
    char what[32], text[160], remedy[200];
} JournalWarning;

/* Those that are on, in the order in which they began; returns how many, or -1. */
int journal_warnings(Run *run, JournalWarning out[JOURNAL_WARNINGS]);

#endif
