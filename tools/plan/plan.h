/* hssl-plan in parts: what a plan is made of, and how it is printed. */
#ifndef HSSL_PLAN_PLAN_H
#define HSSL_PLAN_PLAN_H

#include "train/forecast.h"

typedef struct {
    TrainConfig config;
    Workload work;
    ForecastData data;
    ForecastRun run;
    Machine machine;
    Forecast forecast;
    bool measured; /* on this machine, just now */
    double took;   /* seconds that this took */
} Plan;

/* 0, or -1 where it could not be written. */
int print_table(const Plan *p);
int print_plan_json(const Plan *p);

#endif
