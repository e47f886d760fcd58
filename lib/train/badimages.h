/* Images that cannot be used: how many there may be, and what a run keeps of them. */
#ifndef HSSL_BADIMAGES_H
#define HSSL_BADIMAGES_H

#include "stream/batch.h"
#include "train/journal.h"
#include "util/opt.h"

#define BAD_OPT(v) \
    OPT_AMOUNT("max-bad", 0, v, -1, 9e15, "N|P%", \
               "give up after more than N bad images, or P% of all (-1: never)")

/* 0 while `bad` different images of `whole` are not too many; else -1 with ERR_DATA. remedy: what the user
 * can do, besides raising the limit; for instance "hssl-info --bad run.db lists them". */
int bad_allowed(const OptAmount *most, int64_t bad, int64_t whole, const char *remedy);

/* A training's: put into the run's quarantine, into the log, counted. */
typedef struct {
    Journal *journal; /* its run has to be there by the first call of bad_take() */
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
