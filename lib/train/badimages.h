/* Images that cannot be used: how many there may be, and what a run keeps of them. */
#ifndef HSSL_BADIMAGES_H
#define HSSL_BADIMAGES_H

#include "store/dataset.h"
#include "stream/batch.h"
#include "train/journal.h"
#include "util/idset.h"
#include "util/opt.h"

#define BAD_OPT(v) \
    OPT_AMOUNT("max-bad", 0, v, -1, 9e15, "N|P%", \
               "give up after more than N bad images, or P% of all (-1: never)")

/* An evaluation's: named on standard error, counted. It leaves no run behind that could keep them. */
typedef struct {
    const OptAmount *most;
    int64_t whole;  /* images of the datasets together */
    int64_t count;  /* different ones so far */
    IdSet named[2]; /* by dataset */
} BadNames;

/* An image of dataset 0 or 1 can't be used; it may be met again. 0, or -1: too many now (ERR_DATA), or
 * ERR_MEMORY. */
int bad_name(BadNames *b, int dataset, const Record *rec, uint64_t id, const char *why);
void bad_names_free(BadNames *b);

/* A training's: put into the run's quarantine, into the log, counted. */
typedef struct {
    Journal *journal; /* its run has to be there by the first call of bad_take(); without one they are only named */
    const OptAmount *most;
    int64_t whole; /* images of the dataset */
    int64_t count; /* of the run so far */
} BadImages;

/* A resumed run's images that are known already: ids for BatchesConfig.known, malloc'd. Returns how many, or
 * -1. */
int64_t bad_resume(BadImages *b, Run *run, uint64_t **ids);
/* The dataset is known now: sets whole, from what the stream says of it. -1 when there are too many
 * already. */
int bad_begin(BadImages *b, const Message *welcome);
/* The callback of BatchesConfig, whose arg is a BadImages *. */
int bad_take(void *arg, const BadRecord *list, size_t n);

#endif
