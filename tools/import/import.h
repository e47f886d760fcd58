/* hssl-import in parts: how many images each class has, what was skipped, and what the classes look like at
 * the end. */
#ifndef HSSL_IMPORT_IMPORT_H
#define HSSL_IMPORT_IMPORT_H

#include "store/dataset.h"

#include <stdint.h>

/* Images of a class that are stored, to be counted on; NULL: of those without one. Ends the program without
 * memory. */
int64_t *tally_of(const char *class_name);
void tally_free(void);

/* Names an image that is skipped, and why. Of one kind, which is the reason but for its numbers, a few are
 * named and the rest is counted; HSSL_DEBUG=import names all. */
void skip(const char *name, const char *why);
int64_t skips(void);
/* A line for each kind of which not all were named. */
void skips_end(void);

/* One kind of thing to be counted, of which the first is named. */
typedef struct {
    int64_t n;
    char first[256];
} Count;
void count_one(Count *c, const char *name);

/* Warns of classes that are hardly meant: none, a single one, parts of a data set. level: intake_level(); 0:
 * the classes come from elsewhere, as origin says. */
void look_at_classes(const Dataset *ds, int level, const char *origin);

#endif
