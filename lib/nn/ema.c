#include "nn/ema.h"

#include "tensor/backend.h"

int ema_update(Backend *be, float *teacher, const float *student, size_t n, double m)
{
    return be->ema(be, &(EmaArgs){ .n = (int64_t)n, .teacher = teacher, .student = student, .momentum = m });
}
