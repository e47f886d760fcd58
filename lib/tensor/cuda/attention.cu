/* Attention over few tokens by heads of 64, in BF16: cuDNN's kernels take 128 queries at a time, of which 37 or 65 leave
 * most idle.
 * A block has a head of a sample, all of it in shared memory, and each of its warps 16 rows [Dao 2022, Alg. 1, with one
 * tile]; scores stay in registers, rounded to BF16 where they are operands.
 * Floor: q, k, v read and y written once. */
#include "tensor/cuda/attention.cuh"

enum { MOST_TILES = 5 };

/* A grid of heads, samples. */
template <int TILES>
__global__ void __launch_bounds__(TILES *WARP) k_attention(AttentionArgs a)
{
    enum { ROWS = TILES * MMA };
    __shared__ Pack<bf16> memory[3][ROWS * LD / 8];
    bf16 *q = memory[0]->v, *k = memory[1]->v, *v = memory[2]->v;
    int64_t sample = blockIdx.y * a.tokens, at_head = blockIdx.x * DIM, head = (int64_t)blockIdx.y * a.heads + blockIdx.x;
    int tokens = (int)a.tokens, c = a.heads * DIM, first = (int)(threadIdx.x / WARP) * MMA;
    const bf16 *qkv = (const bf16 *)a.qkv + sample * 3 * c + at_head;
    copy_rows(q, qkv, 3 * c, tokens, ROWS);
    copy_rows(k, qkv + c, 3 * c, tokens, ROWS);
    copy_rows(v, qkv + 2 * c, 3 * c, tokens, ROWS);
    copies_wait();
    __syncthreads();

    FragmentC s[2 * TILES] = {}, y[DIM / 8] = {};
    UNROLL
    for (int d = 0; d < DIM; d += MMA) {
        FragmentA rows = a_of_rows(q + first * LD + d, LD);
        UNROLL
        for (int j = 0; j < TILES; j++)
            multiply(s + 2 * j, rows, b_of_columns(k + MMA * j * LD + d, LD));
    }
    float scale = LOG2_E * a.scale, factor[2];
    UNROLL
    for (int half = 0; half < 2; half++) { /* rows g, g + 8 */
        float most = -INFINITY, sum = 0;
        UNROLL
        for (int j = 0; j < 2 * TILES; j++) {
            UNROLL
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                if (j >= 2 * TILES - 2 && 8 * j + (int)lane_pair() + e % 2 >= tokens)
                    s[j].v[e] = -INFINITY;
                most = fmaxf(most, s[j].v[e]);
            }
        }
        most = scale * row_max(most);
        UNROLL
        for (int j = 0; j < 2 * TILES; j++) {
            UNROLL
            for (int e = 2 * half; e < 2 * half + 2; e++)
                sum += s[j].v[e] = exp2_of(scale * s[j].v[e] - most);
        }
        sum = row_sum(sum);
        factor[half] = 1 / sum;
        int row = first + (int)lane_row() + 8 * half;
        if (a.stat && lane_pair() == 0 && row < tokens)
            a.stat[head * tokens + row] = most / LOG2_E + logf(sum);
    }
    UNROLL
    for (int i = 0; i < TILES; i++) {
        FragmentA p = a_of_results(s[2 * i], s[2 * i + 1]);
        UNROLL
        for (int n = 0; n < DIM / 8; n += 2)
            multiply(y + n, p, b_of_rows(v + MMA * i * LD + 8 * n, LD));
    }
    scale_rows<DIM / 8>(y, factor[0], factor[1]);
    store_rows<2>((bf16 *)a.y + sample * c + at_head, c, first, tokens, y, false);
}

bool cuda_few_tokens(const AttentionArgs *a)
{
    return a->tokens <= MOST_TILES * MMA;
}

int cuda_few_attention(Backend *be, const AttentionArgs *a)
{
    dim3 heads((unsigned)a->heads, (unsigned)a->batch);
    switch ((a->tokens + MMA - 1) / MMA) {
    case 1: return LAUNCH(be, k_attention<1>, heads, 1 * WARP, *a);
    case 2: return LAUNCH(be, k_attention<2>, heads, 2 * WARP, *a);
    case 3: return LAUNCH(be, k_attention<3>, heads, 3 * WARP, *a);
    case 4: return LAUNCH(be, k_attention<4>, heads, 4 * WARP, *a);
    default: return LAUNCH(be, k_attention<5>, heads, 5 * WARP, *a);
    }
}
