/* What a training will take, once its first steps were measured, and a smaller one where that is out of
 * proportion. */
#ifndef HSSL_OUTLOOK_H
#define HSSL_OUTLOOK_H

#include "train/workload.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    double memory;    /* bytes of student and teacher; a GPU's where there is one */
    double available; /* bytes of that, before the training took any; 0: unknown */
    double step_s;    /* measured; waiting for views is part of it */
    double steps, epochs; /* that are left */
    int threads;
    bool gpu;
} Outlook;

/* Another training of as many images, for --global-size, --local-size and --arch; arch NULL: none. */
typedef struct {
    const char *arch;
    double global_size; /* 0: as now */
    double hours, memory;
} SmallerTraining;

/* Bytes that programs can take now without swapping: of the host, and of the group of processes where that
 * has a limit. 0: unknown. */
double memory_available(void);

double outlook_hours(const Outlook *o);
/* Whether it wants more memory than there is. */
bool outlook_swaps(const Outlook *o);
/* Whether nobody would wait for it: more than three days on processors, a month on GPUs; or it swaps. */
bool outlook_excessive(const Outlook *o);
/* The largest training, of a few that are tried, that fits and is done within a day; else the smallest. w:
 * what c's own is. Flops are taken to be as quick. 0, or -1. */
int outlook_smaller(const TrainConfig *c, const Workload *w, const Outlook *o, SmallerTraining *out);

/* "about 12.8 GB, 190 s a step, 5,300 h for 100 epochs on 2 threads". */
void outlook_text(const Outlook *o, const SmallerTraining *s, char *text, size_t size);

#endif
