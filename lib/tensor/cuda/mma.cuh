/* Products on tensor cores: c [16,16] += a [16,16] b [16,16] by the lanes of a warp together, BF16 with its sums in F32
 * [PTX ISA, mma.m16n8k16, ldmatrix]. CUDA C++.
 *
 * With g = lane / 4 and t = lane % 4, a lane holds of a and b pairs of neighbours along k:
 *   a: rows g, g + 8 at k = 2t, then the same at k = 2t + 8;  b: column g at k = 2t, 2t + 8, then column g + 8 there;
 *   c, in halves of 8 columns: row g at columns 2t, 2t + 1, then row g + 8 there.
 * The functions below take matrices in shared memory, by the first element and the elements between their lines. Lines begin
 * at multiples of 16 bytes; 8 (mod 64) elements from one to the next keep eight of them on different banks. */
#ifndef HSSL_CUDA_MMA_H
#define HSSL_CUDA_MMA_H

#include "tensor/cuda/kernel.cuh"

enum { MMA = 16 }; /* rows, and k */

typedef Pack<bf16, 2> Pair;

struct FragmentA {
    Pair v[4];
};

struct FragmentB {
    Pair v[4];
};

struct FragmentC {
    float v[4];
};

__device__ inline Pair pair(float x, float y)
{
#ifdef __CUDACC__ /* one instruction */
    __nv_bfloat162 both = __floats2bfloat162_rn(x, y);
    return { { both.x, both.y } };
#else
    return { { __float2bfloat16(x), __float2bfloat16(y) } };
#endif
}

__device__ inline unsigned lane_row()
{
    return threadIdx.x % WARP / 4;
}

__device__ inline unsigned lane_pair()
{
    return threadIdx.x % 4 * 2;
}

/* Four matrices [8,8] of which lane i brings line i % 8 of matrix i / 8: a lane gets of each a pair of line g, or,
 * transposed, of column g. */
template <bool TRANSPOSED> __device__ inline void load_matrices(Pair *to, const bf16 *line)
{
#ifdef __CUDACC__
    uint32_t v[4], at = (uint32_t)__cvta_generic_to_shared(line);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
    memcpy(to, v, sizeof v);
#else
    emulate_ldmatrix(&to->v[0], line, TRANSPOSED);
#endif
}

/* a where its rows are lines: x[row * ld + k]. */
__device__ inline FragmentA a_of_rows(const bf16 *x, int ld)
{
    unsigned lane = threadIdx.x % WARP;
    FragmentA a;
    load_matrices<false>(a.v, x + lane % 16 * ld + lane / 16 * 8);
    return a;
}

/* a where its columns are: x[k * ld + row]. */
__device__ inline FragmentA a_of_columns(const bf16 *x, int ld)
{
    unsigned lane = threadIdx.x % WARP;
    FragmentA a;
    load_matrices<true>(a.v, x + (lane % 8 + lane / 16 * 8) * ld + lane / 8 % 2 * 8);
    return a;
}

/* b where its columns are lines: x[column * ld + k]. */
__device__ inline FragmentB b_of_columns(const bf16 *x, int ld)
{
    unsigned lane = threadIdx.x % WARP;
    FragmentB b;
    load_matrices<false>(b.v, x + (lane % 8 + lane / 16 * 8) * ld + lane / 8 % 2 * 8);
    return b;
}

/* b where its rows are: x[k * ld + column]. */
__device__ inline FragmentB b_of_rows(const bf16 *x, int ld)
{
    unsigned lane = threadIdx.x % WARP;
    FragmentB b;
    load_matrices<true>(b.v, x + lane % 16 * ld + lane / 16 * 8);
    return b;
}

/* Two neighbouring results [16,8] as an operand [16,16]. */
__device__ inline FragmentA a_of_results(const FragmentC &left, const FragmentC &right)
{
    return { { pair(left.v[0], left.v[1]), pair(left.v[2], left.v[3]), pair(right.v[0], right.v[1]),
               pair(right.v[2], right.v[3]) } };
}

__device__ inline void multiply_half(FragmentC &c, const FragmentA &a, const Pair *b)
{
#ifdef __CUDACC__
    uint32_t x[4], y[2];
    memcpy(x, &a, sizeof x);
    memcpy(y, b, sizeof y);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c.v[0]), "+f"(c.v[1]), "+f"(c.v[2]), "+f"(c.v[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
#else
    emulate_mma(c.v, &a.v->v[0], &b->v[0]);
#endif
}

/* Onto c[0], c[1]. */
__device__ inline void multiply(FragmentC *c, const FragmentA &a, const FragmentB &b)
{
    multiply_half(c[0], a, b.v);
    multiply_half(c[1], a, b.v + 2);
}

#endif
