#include "nn/schedule.h"

#include <math.h>

double schedule_cosine(double base, double final, int64_t warmup, int64_t total, int64_t step)
{
    if (step < warmup)
        return warmup > 1 ? base * (double)step / (double)(warmup - 1) : 0;
    if (total <= warmup)
        return base;
    return final +
           0.5 * (base - final) * (1 + cos(M_PI * (double)(step - warmup) / (double)(total - warmup)));
}

double schedule_ramp(double start, double final, int64_t warmup, int64_t epoch)
{
    if (epoch >= warmup)
        return final;
    return warmup > 1 ? start + (final - start) * (double)epoch / (double)(warmup - 1) : start;
}
