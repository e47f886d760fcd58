/* LMDB files that are damaged, for the targets of datasets and runs. Input:
 *
 *   mode (1): bit 0: values, else pages; bit 1: also write to the file
 *   pages:  bytes of a sound file to change: page (1), offset (2), how many (1), the bytes; and so on. A page of 255
 *           cuts the file off there: page (1), offset (2).
 *   values: entries of an otherwise sound file: where (1: bits 0-1 the database, bit 2 leave the seal wrong, bits 3-4
 *           the key: a number, "header", "config" or text), key (2, or text: length (1) and bytes), length (2), the value.
 *
 * Checksums inside values are made right, since a checksum stops accidents and no bad intent. */
#ifndef HSSL_DAMAGE_H
#define HSSL_DAMAGE_H

#include "fuzz.h"

#include <stdbool.h>

typedef struct {
    int (*make)(const char *path); /* a sound file to damage */
    struct {
        const char *name;
        unsigned flags; /* of LMDB */
        bool plain;     /* values without the checksum in front; seal() knows them */
    } db[4];
    /* Put the checksums right that lie in a value of a plain database. */
    void (*seal)(uint8_t *value, size_t n, const void *key, size_t key_size);
    /* "header" and "config" where the input has none: value into out, returns its length; 0: none. count: entries in
     * the databases. */
    size_t (*usual)(const char *key, const size_t count[4], uint8_t *out);
} StoreShape;

/* The path of the damaged file. */
const char *damage_file(FuzzInput *in, unsigned mode, const StoreShape *shape);

#endif
