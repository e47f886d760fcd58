/* The inside of the CPU backend. */
#ifndef HSSL_CPU_H
#define HSSL_CPU_H

#include "tensor/backend.h"
#include "tensor/cpu/simd/kernels.h"

#include <omp.h>

/* The loops for this processor. */
extern CpuKernels cpu;

/* Memory of the calling thread that stays until the thread ends: each slot is one buffer of at least count
 * floats, whose contents last until the slot is asked for again. NULL with an error. */
enum { SCRATCH_A, SCRATCH_B, SCRATCH_C, SCRATCH_D, SCRATCH_E, SCRATCH_PARTIAL, SCRATCH_WEIGHT,
       SCRATCH_PACK1, SCRATCH_PACK2, SCRATCH_SLOTS };
float *cpu_scratch(int slot, int64_t count);

/* Below this many elements (or multiply-adds / 16) a second thread does not pay. */
enum { CPU_SERIAL = 16384 };

/* c[m,n] = op(a) op(b) + beta c by oneDNN; threaded outside of a parallel region, serial within one. */
int cpu_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
             int64_t ldb, float beta, float *c, int64_t ldc);

/* b, [k,n] or with tb [n,k], packed by all threads into scratch of the caller's, for cpu.gemm_product in any
 * thread. Pays from about CPU_PACK_ROWS rows on. NULL with an error. */
enum { CPU_PACK_ROWS = 384 };
const float *cpu_pack(int slot, const float *b, int64_t ldb, bool tb, int64_t n, int64_t k);

/* The share [*from, *to) of thread i among n, in order. */
static inline void cpu_share(int64_t count, int i, int n, int64_t *from, int64_t *to)
{
    int64_t each = count / n, rest = count % n;
    *from = i * each + (i < rest ? i : rest);
    *to = *from + each + (i < rest);
}

/* The same in units of 8 rows, which matrix products like. */
static inline void cpu_share_rows(int64_t rows, int i, int n, int64_t *from, int64_t *to)
{
    cpu_share((rows + 7) / 8, i, n, from, to);
    *from = *from * 8 < rows ? *from * 8 : rows;
    *to = *to * 8 < rows ? *to * 8 : rows;
}

/* Each file fills its part of the table. */
void cpu_linear_table(Backend *be);
void cpu_mlp_table(Backend *be);
void cpu_attention_table(Backend *be);
void cpu_conv_table(Backend *be);
void cpu_layout_table(Backend *be);
void cpu_point_table(Backend *be);
void cpu_row_table(Backend *be);
void cpu_loss_table(Backend *be);
void cpu_train_table(Backend *be);

/* An array of the table's, F32 on this device, from its element `at` on; NULL for NULL. */
static inline float *floats(const void *array, int64_t at)
{
    return array ? (float *)(uintptr_t)array + at : NULL;
}

#endif
