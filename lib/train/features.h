/* Feature vectors of a dataset's images.
 *
 * Their centred views go through a network of a run in batches, without recording. Memory is that of one
 * batch; the dataset is streamed. */
#ifndef HSSL_FEATURES_H
#define HSSL_FEATURES_H

#include "ssl/config.h"
#include "train/evalviews.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const char *run; /* path; may be NULL for pixels */
    int64_t step;    /* of the checkpoint; -1: the last */
    bool student;    /* else the teacher */
    bool aux;        /* the auxiliary head's image vector, else the base model's */
    bool random_init; /* the run's network as it was before the first step */
    bool pixels;      /* no network: the normalised pixels themselves */
    int image_size;   /* side of the square; 0: as the run was trained, or 32 without a run */
    int resize;       /* shorter side before the crop; 0: features_resize(image_size) */
    int batch;
    const char *device; /* for tape_new */
} FeatureConfig;

typedef struct Extractor Extractor;

/* 256 for 224, and so in proportion; below 96 the shorter side is the crop's. */
int features_resize(int image_size);

/* NULL with an error: of the run, of its checkpoint, or ERR_MEMORY. */
Extractor *extractor_open(const FeatureConfig *c) __attribute__((warn_unused_result));
void extractor_close(Extractor *e);
int extractor_dim(const Extractor *e); /* C; with pixels 3 side side */
int extractor_image_size(const Extractor *e);
int extractor_resize(const Extractor *e);
/* For instance "teacher base of vit_nano at step 400". */
const char *extractor_text(const Extractor *e);
int64_t extractor_step(const Extractor *e); /* -1 for baselines */

typedef struct {
    int64_t n;
    const float *features; /* [n, dim] */
    const int64_t *ids;    /* [n] */
    const int32_t *labels; /* [n]; never -1 */
} FeatureBatch;

typedef struct {
    /* Takes a batch, which is good during the call. A result below 0 ends the walk. */
    int (*batch)(void *arg, const FeatureBatch *b);
    EvalBad *bad; /* NULL: skip silently */
    void *arg;
} FeatureSink;

/* Features of the labelled images among ids[0 .. n - 1], in this order. ids NULL: 0 .. n - 1. Which images
 * are bad, and which errors end the walk, is said in train/evalviews.h. */
int extractor_each(Extractor *e, Dataset *ds, const int64_t *ids, int64_t n, const FeatureSink *sink)
    __attribute__((warn_unused_result));

#endif
