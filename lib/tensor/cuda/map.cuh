/* Elementwise kernels: a function of up to two operands. A thread has 16 bytes of elements where they are so aligned, else
 * one; grid-stride. CUDA C++. */
#ifndef HSSL_CUDA_MAP_H
#define HSSL_CUDA_MAP_H

#include "tensor/cuda/kernel.cuh"

/* out = f(x, y, f.at(i)), or with add out += that: x and y are 0 where they are NULL, i is the pack's first element. */
template <typename T, typename F>
__global__ void k_map(int64_t n, int64_t packed, const T *x, const T *y, T *out, bool add, F f)
{
    typedef Pack<T> P;
    for (EACH(p, packed / P::SIZE)) {
        int64_t i = p * P::SIZE;
        float at = f.at(i);
        P a = x ? load<P>(x, i) : P(), b = y ? load<P>(y, i) : P(), c = add ? load<P>(out, i) : P();
        UNROLL
        for (int k = 0; k < P::SIZE; k++)
            put(c.v, k, f(x ? get(a.v, k) : 0, y ? get(b.v, k) : 0, at), add);
        store(out, i, c);
    }
    for (EACH(j, n - packed)) {
        int64_t i = packed + j;
        put(out, i, f(x ? get(x, i) : 0, y ? get(y, i) : 0, f.at(i)), add);
    }
}

/* f.at gives one value to `period` elements: whole packs of them, or no packs. out may be x or y. */
template <typename T, typename F>
static int map(Backend *be, int64_t n, const T *x, const T *y, T *out, bool add, F f, int64_t period = 0)
{
    enum { SIZE = Pack<T>::SIZE };
    if (!n)
        return 0;
    int64_t packed = packs_fit(period, x, y, out) ? n / SIZE * SIZE : 0;
    return LAUNCH(be, (k_map<T, F>), grid_for(be, packed ? n / SIZE + 1 : n, BLOCK), BLOCK, n, packed, x, y, out, add, f);
}

#endif
