/* What the kernels of attention by heads of 64 share. CUDA C++. */
#ifndef HSSL_CUDA_ATTENTION_H
#define HSSL_CUDA_ATTENTION_H

#include "tensor/cuda/mma.cuh"

enum { DIM = 64, LD = DIM + 8, ROW_PACKS = DIM / 8 };

static const float LOG2_E = 1.44269504f;

/* To within 2 units of the last place, 0 for what is too small to be normal. */
__device__ inline float exp2_of(float x)
{
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/* ---- rows of a head, from and to global memory */

/* Pack i of x, or zeros, to shared memory without a stop in registers: there when this thread has waited, for others
 * after a barrier. */
__device__ inline void copy_pack(bf16 *to, const bf16 *x, int64_t i, bool zeros)
{
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
                 "l"(__cvta_generic_to_global(x + i)), "r"(zeros ? 0 : 16)
                 : "memory");
#else
    emulate_copy(to, x + i, zeros);
#endif
}

__device__ inline void copies_wait()
{
#ifdef __CUDACC__
    asm volatile("cp.async.wait_all;" ::: "memory");
#else
    emulate_copies_wait();
#endif
}

/* The first `tokens` of x [.., DIM], at least one, at these row lengths to shared memory; zeros follow up to `rows`. */
__device__ inline void copy_rows(bf16 *to, const bf16 *x, int row, int tokens, int rows)
{
    int c = (int)(threadIdx.x % ROW_PACKS * 8);
    for (int r = (int)(threadIdx.x / ROW_PACKS); r < rows; r += (int)(blockDim.x / ROW_PACKS))
        copy_pack(to + r * LD + c, x, r < tokens ? (int64_t)r * row + c : 0, r >= tokens);
}

/* Of packs 0 ... 3 of a row of results lane t has pair t of each. Returns all of pack t. */
__device__ inline Pack<bf16> exchange_pairs(const Pair *of)
{
    unsigned t = threadIdx.x % 4;
    uint32_t v[4];
    memcpy(v, of, sizeof v);
    UNROLL
    for (unsigned bit = 1; bit < 4; bit *= 2) {
        UNROLL
        for (unsigned i = 0; i < 4; i++) {
            if (i & bit)
                continue;
            uint32_t low = v[i], high = v[i | bit], other = __shfl_xor_sync(0xffffffffu, t & bit ? low : high, (int)bit);
            v[i] = t & bit ? other : low;
            v[i | bit] = t & bit ? high : other;
        }
    }
    Pack<bf16> all;
    memcpy(&all, v, sizeof all);
    return all;
}

/* 16 rows of results, 32 N columns; `first` is their first token. */
template <int N> __device__ inline void store_rows(bf16 *to, int row, int first, int tokens, const FragmentC *x, bool add)
{
    UNROLL
    for (int half = 0; half < 2; half++) { /* rows g, g + 8 */
        int token = first + (int)lane_row() + 8 * half;
        UNROLL
        for (int n = 0; n < N; n++) {
            Pair v[4];
            UNROLL
            for (int i = 0; i < 4; i++)
                v[i] = pair(x[4 * n + i].v[2 * half], x[4 * n + i].v[2 * half + 1]);
            Pack<bf16> out = exchange_pairs(v);
            if (token >= tokens)
                continue;
            int64_t at = (int64_t)token * row + 32 * n + threadIdx.x % 4 * 8;
            Pack<bf16> there = add ? load<Pack<bf16>>(to, at) : out;
            UNROLL
            for (int k = 0; add && k < 8; k++)
                set(out.v, k, get(there.v, k) + get(out.v, k));
            store(to, at, out);
        }
    }
}

/* Rows g, g + 8 of results, times a factor each. */
template <int N> __device__ inline void scale_rows(FragmentC *x, float upper, float lower)
{
    UNROLL
    for (int n = 0; n < N; n++) {
        x[n].v[0] *= upper;
        x[n].v[1] *= upper;
        x[n].v[2] *= lower;
        x[n].v[3] *= lower;
    }
}

/* Over the lanes that share rows of a result. */
__device__ inline float row_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

__device__ inline float row_sum(float v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

#endif
