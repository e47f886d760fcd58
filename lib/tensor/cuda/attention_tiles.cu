/* Attention by heads of 64, in BF16, over any number of tokens, by tiles [Dao 2023, Alg. 1].
 * A block has up to 128 queries of a head, a warp 32 of them in registers, which take keys and values from shared memory,
 * 64 at a time while the next ones come. Pieces of 16 keys beyond the last token are left out.
 * Floor, n tokens: q, k, v read and y written once, 256 n^2 operations a head. 1536 heads of 197: 155 MB and 15 GFLOP, on
 * an H200 0.035 ms from memory; the operands' way from shared memory to registers, at 128 bytes a clock, takes 0.02 ms. */
#include "tensor/cuda/attention.cuh"

enum { KEYS = 64, STEP = 32, QUERIES = 32, MOST_WARPS = 4, SLACK = 8 };

/* What 32 queries have seen so far: y and sum are to be divided by each other; most: of the scores before scale, or less, by
 * a factor of up to 2^SLACK in y and sum, which then stay as they are. */
struct Seen {
    FragmentC y[2][DIM / 8];
    float most[2][2], sum[2][2]; /* rows g, g + 8 of each 16; sum: of this lane's columns */
};

/* 16 N more keys, of which `left` there are, for N_Q x 16 queries. */
template <int N, int N_Q>
__device__ inline void see(Seen &seen, const FragmentA (*q)[DIM / MMA], const bf16 *k, const bf16 *v, int left, float scale)
{
    FragmentC s[N_Q][2 * N] = {};
    UNROLL
    for (int d = 0; d < DIM / MMA; d++) {
        UNROLL
        for (int j = 0; j < N; j++) {
            FragmentB keys = b_of_columns(k + MMA * j * LD + MMA * d, LD);
            UNROLL
            for (int r = 0; r < N_Q; r++)
                multiply(s[r] + 2 * j, q[r][d], keys);
        }
    }
    if (left < N * MMA) {
        UNROLL
        for (int r = 0; r < N_Q; r++) {
            UNROLL
            for (int e = 0; e < 8 * N; e++)
                if (8 * (e / 4) + (int)lane_pair() + e % 2 >= left)
                    s[r][e / 4].v[e % 4] = -INFINITY;
        }
    }
    float most[N_Q][2];
    bool more = false;
    UNROLL
    for (int r = 0; r < N_Q; r++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            most[r][half] = seen.most[r][half];
            UNROLL
            for (int j = 0; j < 2 * N; j++)
                most[r][half] = fmaxf(most[r][half], fmaxf(s[r][j].v[2 * half], s[r][j].v[2 * half + 1]));
            most[r][half] = row_max(most[r][half]);
            more = more || scale * (most[r][half] - seen.most[r][half]) > SLACK;
        }
    }
    if (__any_sync(0xffffffffu, more)) {
        UNROLL
        for (int r = 0; r < N_Q; r++) {
            float factor[2];
            UNROLL
            for (int half = 0; half < 2; half++) {
                factor[half] = exp2_of(scale * (seen.most[r][half] - most[r][half]));
                seen.most[r][half] = most[r][half];
                seen.sum[r][half] *= factor[half];
            }
            scale_rows<DIM / 8>(seen.y[r], factor[0], factor[1]);
        }
    }
    UNROLL
    for (int r = 0; r < N_Q; r++) {
        UNROLL
        for (int e = 0; e < 8 * N; e++) {
            float &p = s[r][e / 4].v[e % 4];
            p = exp2_of(scale * p - scale * seen.most[r][e % 4 / 2]);
            seen.sum[r][e % 4 / 2] += p;
        }
    }
    UNROLL
    for (int j = 0; j < N; j++) {
        FragmentA p[N_Q];
        UNROLL
        for (int r = 0; r < N_Q; r++)
            p[r] = a_of_results(s[r][2 * j], s[r][2 * j + 1]);
        UNROLL
        for (int n = 0; n < DIM / 8; n += 2) {
            FragmentB values = b_of_rows(v + MMA * j * LD + 8 * n, LD);
            UNROLL
            for (int r = 0; r < N_Q; r++)
                multiply(seen.y[r] + n, p[r], values);
        }
    }
}

/* A grid of blocks of a head, heads, samples. */
__global__ void __launch_bounds__(MOST_WARPS *WARP, 3) k_tiled_attention(AttentionArgs a)
{
    __shared__ Pack<bf16> memory[2][2][KEYS * LD / 8]; /* keys and values; those that come */
    int64_t sample = blockIdx.z * a.tokens, at_head = blockIdx.y * DIM, head = (int64_t)blockIdx.z * a.heads + blockIdx.y;
    int tokens = (int)a.tokens, c = a.heads * DIM, warp = (int)(threadIdx.x / WARP);
    int queries = (int)(blockDim.x / WARP) * QUERIES, begin = (int)blockIdx.x * queries, first = begin + warp * QUERIES;
    const bf16 *qkv = (const bf16 *)a.qkv + sample * 3 * c + at_head;
    float scale = LOG2_E * a.scale;
    bf16 *own = memory[1][0]->v; /* queries are here before the second keys and values are */
    copy_rows(own, qkv + (int64_t)begin * 3 * c, 3 * c, tokens - begin, queries);
    copy_rows(memory[0][0]->v, qkv + c, 3 * c, tokens, KEYS);
    copy_rows(memory[0][1]->v, qkv + 2 * c, 3 * c, tokens, KEYS);
    copies_wait();
    __syncthreads();

    Seen seen = {};
    FragmentA q[2][DIM / MMA];
    UNROLL
    for (int r = 0; r < 2; r++) {
        UNROLL
        for (int d = 0; d < DIM / MMA; d++)
            q[r][d] = a_of_rows(own + (warp * QUERIES + r * MMA) * LD + MMA * d, LD);
        seen.most[r][0] = seen.most[r][1] = -INFINITY;
    }
    __syncthreads();
    for (int at = 0, stage = 0; at < tokens; at += KEYS, stage ^= 1) {
        int next = at + KEYS;
        if (next < tokens) {
            copy_rows(memory[stage ^ 1][0]->v, qkv + (int64_t)next * 3 * c + c, 3 * c, tokens - next, KEYS);
            copy_rows(memory[stage ^ 1][1]->v, qkv + (int64_t)next * 3 * c + 2 * c, 3 * c, tokens - next, KEYS);
        }
        for (int i = 0; i < KEYS && at + i < tokens && first < tokens; i += STEP) {
            const bf16 *k = memory[stage][0]->v + i * LD, *v = memory[stage][1]->v + i * LD;
            int left = tokens - at - i;
            if (left > MMA && first + MMA < tokens)
                see<2, 2>(seen, q, k, v, left, scale);
            else if (left > MMA)
                see<2, 1>(seen, q, k, v, left, scale);
            else
                see<1, 2>(seen, q, k, v, left, scale);
        }
        copies_wait();
        __syncthreads();
    }
    if (first >= tokens)
        return;
    UNROLL
    for (int r = 0; r < 2; r++) {
        float factor[2];
        UNROLL
        for (int half = 0; half < 2; half++) {
            float sum = row_sum(seen.sum[r][half]);
            int row = first + r * MMA + (int)lane_row() + 8 * half;
            factor[half] = 1 / sum;
            if (a.stat && lane_pair() == 0 && row < tokens)
                a.stat[head * tokens + row] = a.scale * seen.most[r][half] + logf(sum);
        }
        scale_rows<DIM / 8>(seen.y[r], factor[0], factor[1]);
        store_rows<2>((bf16 *)a.y + sample * c + at_head, c, first + r * MMA, tokens, seen.y[r], false);
    }
}

int cuda_tiled_attention(Backend *be, const AttentionArgs *a)
{
    int pieces = (int)((a->tokens + QUERIES - 1) / QUERIES), blocks = (pieces + MOST_WARPS - 1) / MOST_WARPS;
    unsigned warps = (unsigned)((pieces + blocks - 1) / blocks);
    return LAUNCH(be, k_tiled_attention, dim3((unsigned)blocks, (unsigned)a->heads, (unsigned)a->batch), warps * WARP, *a);
}
