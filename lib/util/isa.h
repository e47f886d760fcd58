/* Run-time choice among the variants of a file in a simd/ directory.
 *
 * The Makefile compiles such a file once for each instruction set with -DISA=base|avx2|avx512.
 * Everything in it is static except one entry whose name ISA_FN makes unique:
 *
 *     void ISA_FN(norm_kernels)(Backend *be) { ... }       // norm_kernels_avx2 and so on
 *
 * and a caller picks the best one this processor has with ISA_PICK(norm_kernels). The variable
 * HSSL_ISA=base|avx2|avx512 lowers the choice, for tests. */
#ifndef HSSL_ISA_H
#define HSSL_ISA_H

#define ISA_PASTE2(f, isa) f##_##isa
#define ISA_PASTE(f, isa) ISA_PASTE2(f, isa)
#define ISA_FN(f) ISA_PASTE(f, ISA)

typedef enum { ISA_BASE, ISA_AVX2, ISA_AVX512 } Isa;

Isa isa_best(void);
const char *isa_name(Isa isa);

#if defined(__x86_64__)
#define ISA_DECLARE(ret, f, args) ret f##_base args; ret f##_avx2 args; ret f##_avx512 args
#define ISA_PICK(f) (isa_best() == ISA_AVX512 ? f##_avx512 : isa_best() == ISA_AVX2 ? f##_avx2 : f##_base)
#else
#define ISA_DECLARE(ret, f, args) ret f##_base args
#define ISA_PICK(f) (f##_base)
#endif

#endif
