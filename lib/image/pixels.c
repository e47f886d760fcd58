#include "image/pixels.h"

static PixelKernels kernels;
static const PixelKernels *used = &kernels;

void pixels_for(Isa isa, int vnni, PixelKernels *k)
{
#if defined(__x86_64__)
    if (isa == ISA_AVX512) {
        resample_kernels_avx512(k);
        plane_kernels_avx512(k);
        color_kernels_avx512(k);
        blur_kernels_avx512(k);
        if (vnni)
            vnni_kernels_avx512(k);
        return;
    }
    if (isa == ISA_AVX2) {
        resample_kernels_avx2(k);
        plane_kernels_avx2(k);
        color_kernels_avx2(k);
        blur_kernels_avx2(k);
        return;
    }
#endif
    (void)isa;
    (void)vnni;
    resample_kernels_base(k);
    plane_kernels_base(k);
    color_kernels_base(k);
    blur_kernels_base(k);
}

__attribute__((constructor)) static void pick_kernels(void)
{
    pixels_for(isa_best(), 1, &kernels);
}

const PixelKernels *pixels(void)
{
    return used;
}

void pixels_use(const PixelKernels *k)
{
    used = k ? k : &kernels;
}
