#include "util/isa.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = { "base", "avx2", "avx512" };

static Isa processor_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return ISA_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        return ISA_AVX2;
#endif
    return ISA_BASE;
}

Isa isa_best(void)
{
    Isa best = processor_isa();
    const char *wish = getenv("HSSL_ISA");
    for (int i = ISA_BASE; wish && i < (int)best; i++)
        if (!strcmp(wish, names[i]))
            return i;
    return best;
}

const char *isa_name(Isa isa)
{
    return names[isa];
}
