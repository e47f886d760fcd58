/* One centred view of each of a dataset's images, a batch at a time: what every evaluation starts from.
 *
 * Images are read and verified one after the other, then decoded, resized (bicubic, shorter side) and cropped
 * from the centre in threads. An image whose record is damaged, or that can't be decoded, is bad: whoever
 * keeps count hears of it, and the walk goes on. Any other error, such as of input or of memory, ends it. */
#ifndef HSSL_EVALVIEWS_H
#define HSSL_EVALVIEWS_H

#include "store/dataset.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct EvalViews EvalViews;

/* batch: views at a time; side: of the square, in pixels; resize: shorter side before the crop, at least
 * side. NULL: ERR_MEMORY. */
EvalViews *evalviews_new(int batch, int side, int resize) __attribute__((warn_unused_result));
void evalviews_free(EvalViews **v);

typedef struct {
    int n; /* at least 1 */
    const uint8_t *views;  /* [n, side, side, 3] */
    const int64_t *ids;    /* [n] */
    const int32_t *labels; /* [n]; -1: none */
} EvalBatch;

/* Hears of an image that can't be used. Of a damaged record it gets what dataset_take() salvages. A result
 * below 0, with the error set, ends the walk. */
typedef int EvalBad(void *arg, const Record *rec, uint64_t id, const char *why);

typedef struct {
    /* Takes a batch, which is good during the call. A result below 0 ends the walk. */
    int (*batch)(void *arg, const EvalBatch *b);
    EvalBad *bad; /* NULL: skip silently */
    void *arg;
    bool labelled; /* leave out images that have no label; a damaged record is bad, whatever label it had */
} EvalSink;

/* The images ids[0 .. n - 1], in this order, in which bad ones are reported, too. ids NULL: 0 .. n - 1.
 * 0 or -1. */
int evalviews_each(EvalViews *v, Dataset *ds, const int64_t *ids, int64_t n, const EvalSink *sink)
    __attribute__((warn_unused_result));

#endif
