/* Where a run comes from: what shaped its records, views and arithmetic, kept in the run's fact "provenance",
 * so that another stream is noticed when it goes on, and the commands that made it can be told.
 *
 * One table has all facts. What stages upstream of the trainer know travels in a stream's welcome under the
 * fact's key (hssl-stream(7)); the rest the trainer adds. Each is kept as the text that its option takes.
 * Both a stream and a run's file are foreign input: texts are bounded, and those that are not names of files
 * are printable ASCII. */
#ifndef HSSL_PROVENANCE_H
#define HSSL_PROVENANCE_H

#include "stream/message.h"

#include <json-c/json.h>
#include <stdbool.h>

typedef enum { STAGE_LOAD, STAGE_PLAN, STAGE_RENDER, STAGE_TRAIN } ProvenanceStage;

typedef enum {
    FACT_IS_WHOLE,
    FACT_IS_FLAG, /* "true" or "false"; 1 or 0 in a welcome */
    FACT_IS_REAL,
    FACT_IS_WORD, /* up to 128 bytes of printable ASCII */
    FACT_IS_NAME  /* of a file: up to 4096 bytes of any kind */
} ProvenanceType;

typedef struct {
    const char *key;
    ProvenanceStage stage;
    ProvenanceType type;
    const char *option;   /* of that stage's program, without dashes; NULL: none */
    const char *what;     /* in messages, where there is no option */
    const char *variable; /* of the environment, that sets it; or NULL */
    bool decides;         /* another value makes other views: it may not change while a run is trained */
} ProvenanceFact;

enum { PROVENANCE_FACTS = 35 };

/* Facts by their number, 0 to PROVENANCE_FACTS - 1: those of a stage in the order in which its options are
 * shown. */
const ProvenanceFact *provenance_fact(int i);

typedef struct {
    char *text[PROVENANCE_FACTS]; /* NULL: not known */
    json_object *changes;         /* an array, see provenance_change(); or NULL: none */
} Provenance;

/* What a welcome says; *p is empty before. Facts of the wrong type, size or alphabet are ERR_DATA, and what
 * isn't there stays unknown. 0, or -1; *p is to be freed in either case. */
int provenance_from_stream(Provenance *p, const Message *welcome);
void provenance_free(Provenance *p);

/* key: one of the table's. text NULL: not known. 0, or -1 with ERR_DATA where it is of another type. */
int provenance_set(Provenance *p, const char *key, const char *text);
/* NULL where it is not known. */
const char *provenance_get(const Provenance *p, const char *key);

/* As one JSON object (malloc'd), and back (as provenance_from_stream). Names that are not UTF-8 are objects
 * with one member, hex. Unknown members are left alone. */
char *provenance_to_json(const Provenance *p);
int provenance_from_json(Provenance *p, const char *json);

/* Compare what decides: how many facts differ, and, in words, which (`--seed 0 of hssl-load, here 77; ...`).
 * A fact that was not known differs from nothing, but *unchecked is set. */
int provenance_compare(const Provenance *was, const Provenance *now, char *words, size_t size,
                       bool *unchecked);

/* A run goes on at `step` with another value of a fact, or of an option of hssl-train. NULL: not known.
 * 0, or -1. */
int provenance_change(Provenance *p, int64_t step, const char *key, const char *was, const char *now);
/* The stream's facts become those of `now`; what differs among those that decide is put down as a change.
 * 0, or -1. */
int provenance_follow(Provenance *p, int64_t step, const Provenance *now);

#endif
