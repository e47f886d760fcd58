/* Elements of F32 and BF16 arrays. */
#ifndef EMULATE_NUMBERS_H
#define EMULATE_NUMBERS_H

#include "cuda_bf16.h"

static inline float number(const void *x, bool half, int64_t i)
{
    return half ? __bfloat162float(((const __nv_bfloat16 *)x)[i]) : ((const float *)x)[i];
}

static inline void set_number(void *x, bool half, int64_t i, float v)
{
    if (half)
        ((__nv_bfloat16 *)x)[i] = __float2bfloat16(v);
    else
        ((float *)x)[i] = v;
}

#endif
