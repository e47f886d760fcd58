/* Products on tensor cores: c [16,8] += a [16,16] b [16,8] by the lanes of a warp together, BF16 with its sums in F32
 * [PTX ISA, mma.m16n8k16]. CUDA C++.
 *
 * With g = lane / 4 and t = lane % 4, a lane holds of a and b pairs of neighbours along k:
 *   a: rows g, g + 8 at k = 2t, then the same at k = 2t + 8;  b: column g at k = 2t, 2t + 8;
 *   c: row g at columns 2t, 2t + 1, then row g + 8 there.
 * The functions below take matrices in shared memory, by the first element and the elements between their lines. A line of
 * 8 (mod 16) elements keeps the lanes on different banks. */
#ifndef HSSL_CUDA_MMA_H
#define HSSL_CUDA_MMA_H

#include "tensor/cuda/kernel.cuh"

enum { MMA = 16 }; /* rows, and k */

typedef Pack<bf16, 2> Pair;

struct FragmentA {
    Pair v[4];
};

struct FragmentB {
    Pair v[2];
};

struct FragmentC {
    float v[4];
};

__device__ inline Pair pair(float x, float y)
{
    return { { __float2bfloat16(x), __float2bfloat16(y) } };
}

__device__ inline unsigned lane_row()
{
    return threadIdx.x % WARP / 4;
}

__device__ inline unsigned lane_pair()
{
    return threadIdx.x % 4 * 2;
}

/* a where its rows are lines: x[row * ld + k]. */
__device__ inline FragmentA a_of_rows(const bf16 *x, int ld)
{
    unsigned g = lane_row(), t = lane_pair();
    return { { load<Pair>(x, g * ld + t), load<Pair>(x, (g + 8) * ld + t), load<Pair>(x, g * ld + t + 8),
               load<Pair>(x, (g + 8) * ld + t + 8) } };
}

/* a where its columns are: x[k * ld + row]. */
__device__ inline FragmentA a_of_columns(const bf16 *x, int ld)
{
    unsigned g = lane_row(), t = lane_pair();
    const bf16 *one = x + t * ld + g, *next = one + 8 * ld;
    return { { { { one[0], one[ld] } }, { { one[8], one[ld + 8] } }, { { next[0], next[ld] } }, { { next[8], next[ld + 8] } } } };
}

/* b where its columns are lines: x[column * ld + k]. */
__device__ inline FragmentB b_of_columns(const bf16 *x, int ld)
{
    unsigned g = lane_row(), t = lane_pair();
    return { { load<Pair>(x, g * ld + t), load<Pair>(x, g * ld + t + 8) } };
}

/* b where its rows are: x[k * ld + column]. */
__device__ inline FragmentB b_of_rows(const bf16 *x, int ld)
{
    const bf16 *one = x + lane_pair() * ld + lane_row(), *next = one + 8 * ld;
    return { { { { one[0], one[ld] } }, { { next[0], next[ld] } } } };
}

/* Two neighbouring results [16,8] as an operand [16,16]. */
__device__ inline FragmentA a_of_results(const FragmentC &left, const FragmentC &right)
{
    return { { pair(left.v[0], left.v[1]), pair(left.v[2], left.v[3]), pair(right.v[0], right.v[1]),
               pair(right.v[2], right.v[3]) } };
}

__device__ inline void multiply(FragmentC &c, const FragmentA &a, const FragmentB &b)
{
#ifdef __CUDACC__
    uint32_t x[4], y[2];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c.v[0]), "+f"(c.v[1]), "+f"(c.v[2]), "+f"(c.v[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
#else
    emulate_mma(c.v, &a.v->v[0], &b.v->v[0]);
#endif
}

#endif
