/* hssl-info in parts: what is wanted of a file, a function for each kind of file, and how they all write.
 * Functions print to standard output; those that return int return 0, or else -1 with err set. */
#ifndef HSSL_INFO_SHOW_H
#define HSSL_INFO_SHOW_H

#include "store/run.h"
#include "store/stored.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

/* The options. */
typedef struct {
    bool json, list, log, verify, bad, command, curve;
    bool lines_given;    /* --lines is not the default */
    const char *extract; /* a directory, or NULL */
    int64_t lines;       /* of a run's log, from its end */
    int64_t step;        /* of a checkpoint, or -1: the last */
    int64_t image;       /* an id, or -1 */
} Wanted;

int show_dataset(const char *path, const Wanted *w);
int show_run(const char *path, const Wanted *w);
int show_safetensors(const char *path, const Wanted *w);
int show_ticket(const char *path, const Wanted *w); /* "-": standard input */

/* ---- a run's quarantine ---- */

/* How many there are; -1. */
int64_t count_bad(Run *run);
/* Verify all; say what is wrong with the first damaged one. */
int verify_bad(Run *run, const Wanted *w);
/* List all, after writing each to a file where w->extract names a directory, which is made if need be. */
int list_bad(Run *run, const Wanted *w);

/* ---- how a run learns ---- */

/* Draw it. */
int show_curve(Run *run);
/* A line for each warning that is on; the same as a JSON array. 0, or -1. */
int print_warnings(Run *run);
int warnings_json(Run *run, json_object *list);

/* ---- where a run comes from ---- */

/* Print the commands that made it. */
int show_command(Run *run, const Wanted *w);
/* A line for each thing that is known; the same as JSON, or NULL where nothing is. */
void print_provenance(Run *run);
json_object *provenance_json(Run *run);

/* ---- text: the functions that return const char * keep it in static memory, for a few calls ---- */

/* "1.5 MB". Good for 4 calls. */
const char *nice_bytes(uint64_t n);
/* Foreign text, without what would command the terminal. Good for 2 calls; cut at 4199 bytes. */
const char *safe_text(const char *s);
/* One line to arg, a FILE *; a checkpoint_each or safetensors_each function. */
int print_tensor(const StoredTensor *t, void *arg);

/* ---- JSON: the caller owns what is returned ---- */

/* Names may hold any byte, JSON may not: text_utf8 makes them proper. */
json_object *text_json(const char *s);
json_object *number_json(uint64_t n);
/* JSON text as an object, or as a string where it isn't JSON. */
json_object *parsed_json(const char *s);
/* Append the tensor to arg, a JSON array. As print_tensor. */
int tensor_json(const StoredTensor *t, void *arg);
/* One line; releases j. */
void print_json(json_object *j);

#endif
