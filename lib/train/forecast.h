/* What a training will take on a machine: a pure function of the two. hssl-scale(7) has the formulas, by
 * these names. */
#ifndef HSSL_FORECAST_H
#define HSSL_FORECAST_H

#include "train/machine.h"
#include "train/workload.h"

#include <stdint.h>

/* The images: a dataset's, or what is assumed of one. */
typedef struct {
    double images;       /* an epoch of all ranks */
    double record_bytes; /* mean of the encoded images */
    double image_pixels; /* mean */
} ForecastData;

typedef struct {
    double epochs;
    double ranks;
    double per_host; /* ranks of a host; 0: as many as it has devices */
    double jobs;     /* workers of a rank's hssl-augment; 0: one a processor */
} ForecastRun;

typedef enum {
    STAGE_LOAD,
    STAGE_MULTICROP,
    STAGE_AUGMENT,
    STAGE_WORKERS,
    STAGE_UPLOAD,
    STAGE_TRAIN,
    STAGE_PROCESSORS,
    STAGES
} ForecastStage;

typedef struct {
    double seconds; /* of one processor an image; of the trainer's, of its step */
    double rate;    /* images a second of a rank, were it alone; 0: there is no such stage */
} StageForecast;

typedef struct {
    double hosts, per_host, rank_cores;
    StageForecast stage[STAGES];
    double receive_s; /* of the trainer's own processor time an image: views into the batch */
    /* seconds of a step */
    double student_s, teacher_s, update_s, allreduce_s, hidden_s, step_s;
    double rank_rate, rate; /* images a second: of a rank, of all */
    ForecastStage bound;
    double steps, hours;
    double flops_rate; /* of a device: flops a second over the whole time */
    double wanted;     /* workers a rank that keep the rest busy; 0: workers do not help */
    double spare;      /* processors that a rank would have to have for that */
    /* bytes */
    double device_need, device_have, host_need, host_have;
    bool fits;
    /* bytes a second through each hop of a rank */
    double records_hop, views_hop, weights_hop, targets_hop, gradients_hop;
} Forecast;

/* Passes over the weights' bytes in an update: AdamW, norms, the teacher's mean. */
enum { FORECAST_UPDATE_PASSES = 12 };

const char *forecast_stage_name(ForecastStage s);

void forecast(const Workload *w, const ForecastData *d, const ForecastRun *r, const Machine *m,
              Forecast *out);

/* One line: what bounds it and what would help. */
void forecast_advice(const Forecast *f, const ForecastRun *r, const Machine *m, char *text, int size);

/* Seconds of a ring: 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency. */
double forecast_ring(double n, double bytes, double bandwidth, double latency);

#endif
