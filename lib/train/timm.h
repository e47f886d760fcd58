/* A base model in timm's own words: all that timm.create_model and timm.data need to know to load its weights
 * and to prepare its images, so that nobody has to look it up. */
#ifndef HSSL_TIMM_H
#define HSSL_TIMM_H

#include "ssl/config.h"

/* JSON texts, malloc'd but for the first. */
typedef struct {
    const char *architecture; /* a name that timm has registered */
    char *model_args;     /* arguments of timm.create_model beside it, which say everything about the model's
                             shape */
    char *pretrained_cfg; /* preprocessing as hssl-knn does it: size, crop_pct, interpolation, mean, std */
    char *config;         /* all three as timm's config.json */
} TimmModel;

/* 0, or -1 with ERR_ABSENT (an architecture) or ERR_MEMORY; *t is then empty. */
int timm_describe(const TrainConfig *c, TimmModel *t) __attribute__((warn_unused_result));
void timm_free(TimmModel *t);

#endif
