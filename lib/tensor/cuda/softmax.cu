/* Softmax of attention scores, for the path by products.
 * One block a row of scores, in place.
 * Floor: the scores read and written once (backward: two matrices read, one written). */
#include "tensor/cuda/kernel.cuh"

__global__ void k_scaled_softmax(int64_t tokens, int heads, int head, float scale, float *p, float *stat)
{
    int64_t row = blockIdx.x;
    float *x = p + row * tokens, most = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < tokens; i += blockDim.x)
        most = fmaxf(most, scale * x[i]);
    most = block_max(most);
    for (int64_t i = threadIdx.x; i < tokens; i += blockDim.x)
        sum += expf(scale * x[i] - most);
    sum = block_sum(sum);
    for (int64_t i = threadIdx.x; i < tokens; i += blockDim.x)
        x[i] = expf(scale * x[i] - most) / sum;
    if (stat && threadIdx.x == 0)
        stat[(row / tokens * heads + head) * tokens + row % tokens] = most + logf(sum);
}

int cuda_scaled_softmax(Backend *be, const AttentionArgs *a, int head, float *p, float *stat)
{
    return LAUNCH(be, k_scaled_softmax, (unsigned)(a->batch * a->tokens), ROW_BLOCK, a->tokens, a->heads, head, a->scale,
                  p, stat);
}

/* dp becomes scale p (dp - <p, dp>). */
__global__ void k_scaled_softmax_backward(int64_t tokens, float scale, const float *p, float *dp)
{
    const float *y = p + blockIdx.x * tokens;
    float *d = dp + blockIdx.x * tokens, s = 0;
    for (int64_t i = threadIdx.x; i < tokens; i += blockDim.x)
        s += y[i] * d[i];
    s = block_sum(s);
    for (int64_t i = threadIdx.x; i < tokens; i += blockDim.x)
        d[i] = scale * y[i] * (d[i] - s);
}

int cuda_scaled_softmax_backward(Backend *be, const AttentionArgs *a, const float *p, float *dp)
{
    return LAUNCH(be, k_scaled_softmax_backward, (unsigned)(a->batch * a->tokens), ROW_BLOCK, a->tokens, a->scale, p, dp);
}
