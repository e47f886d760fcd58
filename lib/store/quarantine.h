/* The quarantine of a run: images that a training could not use, with what is known of them and their bytes.
 *
 * Each image is there once, as it was met first. Bytes are bounded: an image of more than QUARANTINE_IMAGE
 * bytes, or one that would not fit into what is left of quarantine_most, keeps its head, and beyond
 * QUARANTINE_HEADS more of those nothing but its size. */
#ifndef HSSL_QUARANTINE_H
#define HSSL_QUARANTINE_H

#include "store/run.h"

enum {
    QUARANTINE_IMAGE = 16 << 20,
    QUARANTINE_HEAD = 4096,
    QUARANTINE_HEADS = 64 << 20,
    QUARANTINE_TEXT = 4096
};

/* Bytes of whole images that a run keeps: 256 MiB. The tests make it small. */
extern uint64_t quarantine_most;

typedef struct {
    uint64_t id;         /* of the image in its dataset */
    int32_t label;       /* -1: none */
    uint64_t seq, epoch; /* of the first record that had it */
    const char *name;    /* "" where unknown; at most QUARANTINE_TEXT bytes, like why */
    const char *why;
    uint64_t size;       /* bytes of the encoded image; 0 where they could not be read */
    uint64_t checksum;   /* XXH3-64 of all of them */
    const void *bytes;   /* the first `kept` of them; NULL where they were not asked for */
    uint64_t kept;
    void *held; /* what run_bad_get allocated */
} BadImage;

/* Add those that are not there yet, in order; on the disk when the call returns. `bytes` may hold less than
 * `size` already. Several images share a transaction, of at most 64 MiB. 0, or -1: none or only the first
 * ones were added. */
int run_bad_put(Run *run, const BadImage *list, size_t n) __attribute__((warn_unused_result));

/* Ids in ascending order, malloc'd through *ids; returns their number or -1. */
int64_t run_bad_ids(Run *run, uint64_t **ids);

/* What is known of an image; with its bytes, whose checksum is then recomputed, if with_bytes.
 * bad_image_free() it. 0, or -1 with ERR_ABSENT, ERR_DATA (damaged) or another error. */
int run_bad_get(Run *run, uint64_t id, bool with_bytes, BadImage *out) __attribute__((warn_unused_result));
void bad_image_free(BadImage *b);

#endif
