/* Attention over few tokens by heads of 64, in BF16: cuDNN's kernels take 128 queries at a time, of which 37 or 65 leave most
 * idle.
 * A block has a head of a sample, all of it in shared memory, and each of its warps 16 rows [Dao 2022, Alg. 1 and 4, with one
 * tile]; scores and their gradients stay in registers, rounded to BF16 where they are operands.
 * Floor: q, k, v read and y written once (backward: q, k, v, y, dy read, dq, dk, dv written). */
#include "tensor/cuda/mma.cuh"

#include <string.h>

enum { DIM = 64, LD = DIM + 8, MOST_TILES = 5 };

/* A row of a head in packs, of which a warp takes four rows at once. */
enum { ROW_PACKS = DIM / 8, ROWS_AT_ONCE = WARP / ROW_PACKS };

/* x [tokens, DIM] at these row lengths to shared memory; zeros follow up to `rows`. */
__device__ static void load_rows(bf16 *to, const bf16 *x, int64_t row, int tokens, int rows)
{
    for (int i = (int)threadIdx.x; i < rows * ROW_PACKS; i += (int)blockDim.x) {
        int r = i / ROW_PACKS, c = i % ROW_PACKS * 8;
        store(to, r * LD + c, r < tokens ? load<Pack<bf16>>(x, r * row + c) : Pack<bf16>());
    }
}

/* Sixteen rows of results go out by way of shared memory that is this warp's own: `first` is their first token. */
__device__ static void store_rows(bf16 *to, int64_t row, int first, int tokens, const FragmentC *x, bf16 *by,
                                  bool add)
{
    unsigned lane = threadIdx.x % WARP;
    __syncwarp();
    UNROLL
    for (int n = 0; n < DIM / 8; n++) {
        store(by, lane_row() * LD + 8 * n + lane_pair(), pair(x[n].v[0], x[n].v[1]));
        store(by, (lane_row() + 8) * LD + 8 * n + lane_pair(), pair(x[n].v[2], x[n].v[3]));
    }
    __syncwarp();
    for (unsigned r = lane / ROW_PACKS; r < MMA; r += ROWS_AT_ONCE) {
        int64_t at = (int64_t)(first + (int)r) * row + lane % ROW_PACKS * 8;
        if (first + (int)r >= tokens)
            break;
        Pack<bf16> out = load<Pack<bf16>>(by, r * LD + lane % ROW_PACKS * 8), there = add ? load<Pack<bf16>>(to, at) : out;
        UNROLL
        for (int k = 0; add && k < 8; k++)
            set(out.v, k, get(there.v, k) + get(out.v, k));
        store(to, at, out);
    }
}

/* Over the lanes that share rows of a result. */
__device__ static float row_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

__device__ static float row_sum(float v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

template <int TILES>
__global__ void __launch_bounds__(TILES *WARP) k_attention(AttentionArgs a)
{
    enum { ROWS = TILES * MMA };
    __shared__ Pack<bf16> memory[3][ROWS * LD / 8];
    bf16 *q = memory[0]->v, *k = memory[1]->v, *v = memory[2]->v;
    int64_t head = blockIdx.x, b = head / a.heads, h = head % a.heads, c = (int64_t)a.heads * DIM;
    int tokens = (int)a.tokens, first = (int)(threadIdx.x / WARP) * MMA;
    const bf16 *qkv = (const bf16 *)a.qkv + b * tokens * 3 * c + h * DIM;
    load_rows(q, qkv, 3 * c, tokens, ROWS);
    load_rows(k, qkv + c, 3 * c, tokens, ROWS);
    load_rows(v, qkv + 2 * c, 3 * c, tokens, ROWS);
    __syncthreads();

    FragmentC s[2 * TILES] = {}, y[DIM / 8] = {};
    UNROLL
    for (int d = 0; d < DIM; d += MMA) {
        FragmentA rows = a_of_rows(q + first * LD + d, LD);
        UNROLL
        for (int j = 0; j < TILES; j++)
            multiply(s + 2 * j, rows, b_of_columns(k + MMA * j * LD + d, LD));
    }
    float factor[2];
    UNROLL
    for (int half = 0; half < 2; half++) { /* rows g, g + 8 */
        float most = -INFINITY, sum = 0;
        UNROLL
        for (int j = 0; j < 2 * TILES; j++) {
            UNROLL
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                s[j].v[e] = 8 * j + (int)lane_pair() + e % 2 < tokens ? a.scale * s[j].v[e] : -INFINITY;
                most = fmaxf(most, s[j].v[e]);
            }
        }
        most = row_max(most);
        UNROLL
        for (int j = 0; j < 2 * TILES; j++) {
            UNROLL
            for (int e = 2 * half; e < 2 * half + 2; e++)
                sum += s[j].v[e] = expf(s[j].v[e] - most);
        }
        sum = row_sum(sum);
        factor[half] = 1 / sum;
        int row = first + (int)lane_row() + 8 * half;
        if (a.stat && lane_pair() == 0 && row < tokens)
            a.stat[head * tokens + row] = most + logf(sum);
    }
    UNROLL
    for (int j = 0; j < 2 * TILES; j++) {
        UNROLL
        for (int e = 0; e < 4; e++)
            s[j].v[e] *= factor[e / 2];
    }
    UNROLL
    for (int i = 0; i < TILES; i++) {
        FragmentA p = a_of_results(s[2 * i], s[2 * i + 1]);
        UNROLL
        for (int n = 0; n < DIM / 8; n += 2)
            multiply(y + n, p, b_of_rows(v + MMA * i * LD + 8 * n, LD));
    }
    store_rows((bf16 *)a.y + b * tokens * c + h * DIM, c, first, tokens, y, q + first * LD, false);
}

/* With P = exp(scale q k^T - stat) and delta = rowsum(dy y): dS = scale P (dy v^T - delta), dv = P^T dy, dk = dS^T q, dq = dS k.
 * A warp has 16 keys, of all queries, and then 16 queries. */
template <int TILES>
__global__ void __launch_bounds__(TILES *WARP) k_attention_backward(AttentionArgs a)
{
    enum { ROWS = TILES * MMA, LD_S = ROWS + 8 };
    __shared__ Pack<bf16> memory[4][ROWS * LD / 8];
    __shared__ float stat[ROWS], delta[ROWS];
    bf16 *q = memory[0]->v, *dy = memory[1]->v, *k = memory[2]->v, *v = memory[3]->v;
    bf16 *ds = q; /* [keys, queries], over q and dy when those are done with */
    int64_t head = blockIdx.x, b = head / a.heads, h = head % a.heads, c = (int64_t)a.heads * DIM;
    int tokens = (int)a.tokens, first = (int)(threadIdx.x / WARP) * MMA;
    unsigned lane = threadIdx.x % WARP;
    int64_t at = b * tokens * 3 * c + h * DIM;
    const bf16 *qkv = (const bf16 *)a.qkv + at, *y = (const bf16 *)a.y + b * tokens * c + h * DIM;
    bf16 *dqkv = (bf16 *)a.dqkv + at;
    load_rows(q, qkv, 3 * c, tokens, ROWS);
    load_rows(k, qkv + c, 3 * c, tokens, ROWS);
    load_rows(v, qkv + 2 * c, 3 * c, tokens, ROWS);
    load_rows(dy, (const bf16 *)a.dy + b * tokens * c + h * DIM, c, tokens, ROWS);
    __syncthreads();
    for (int r = first + (int)(lane / ROW_PACKS); r < first + MMA; r += ROWS_AT_ONCE) {
        Pack<bf16> one = load<Pack<bf16>>(dy, r * LD + lane % ROW_PACKS * 8);
        Pack<bf16> other = r < tokens ? load<Pack<bf16>>(y, r * c + lane % ROW_PACKS * 8) : Pack<bf16>();
        float sum = 0;
        UNROLL
        for (int i = 0; i < 8; i++)
            sum += get(one.v, i) * get(other.v, i);
        sum = row_sum(sum);
        sum += __shfl_xor_sync(0xffffffffu, sum, 4);
        if (lane % ROW_PACKS == 0) {
            delta[r] = sum;
            stat[r] = r < tokens ? a.stat[head * tokens + r] : 0;
        }
    }
    __syncthreads();

    FragmentC dk[DIM / 8] = {}, dv[DIM / 8] = {};
    FragmentA gradient[TILES];
    UNROLL
    for (int i = 0; i < TILES; i++) { /* queries */
        FragmentC s[2] = {}, dp[2] = {};
        UNROLL
        for (int d = 0; d < DIM; d += MMA) {
            FragmentA keys = a_of_rows(k + first * LD + d, LD), values = a_of_rows(v + first * LD + d, LD);
            multiply(s, keys, b_of_columns(q + MMA * i * LD + d, LD));
            multiply(dp, values, b_of_columns(dy + MMA * i * LD + d, LD));
        }
        UNROLL
        for (int j = 0; j < 2; j++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                int key = first + (int)lane_row() + 8 * (e / 2), query = MMA * i + 8 * j + (int)lane_pair() + e % 2;
                float p = key < tokens ? expf(a.scale * s[j].v[e] - stat[query]) : 0;
                s[j].v[e] = p;
                dp[j].v[e] = a.scale * p * (dp[j].v[e] - delta[query]);
            }
        }
        FragmentA p = a_of_results(s[0], s[1]);
        gradient[i] = a_of_results(dp[0], dp[1]);
        UNROLL
        for (int n = 0; n < DIM / 8; n += 2) {
            multiply(dv + n, p, b_of_rows(dy + MMA * i * LD + 8 * n, LD));
            multiply(dk + n, gradient[i], b_of_rows(q + MMA * i * LD + 8 * n, LD));
        }
    }
    bf16 *own = v + first * LD;
    store_rows(dqkv + 2 * c, 3 * c, first, tokens, dv, own, a.add);
    store_rows(dqkv + c, 3 * c, first, tokens, dk, own, a.add);
    __syncthreads();
    UNROLL
    for (int i = 0; i < TILES; i++) {
        UNROLL
        for (int e = 0; e < 4; e++)
            store(ds, (first + (int)lane_row() + 8 * (e % 2)) * LD_S + MMA * i + (int)lane_pair() + 8 * (e / 2), gradient[i].v[e]);
    }
    __syncthreads();
    FragmentC dq[DIM / 8] = {};
    UNROLL
    for (int i = 0; i < TILES; i++) { /* keys */
        FragmentA rows = a_of_columns(ds + MMA * i * LD_S + first, LD_S);
        UNROLL
        for (int n = 0; n < DIM / 8; n += 2)
            multiply(dq + n, rows, b_of_rows(k + MMA * i * LD + 8 * n, LD));
    }
    store_rows(dqkv, 3 * c, first, tokens, dq, own, a.add);
}

bool cuda_few_tokens(const AttentionArgs *a)
{
    return a->type == DT_BF16 && a->dim == DIM && a->tokens <= MOST_TILES * MMA && a->batch * a->heads <= INT32_MAX &&
           packs_fit(0, (const bf16 *)a->qkv, (const bf16 *)a->y, (const bf16 *)a->dy, (const bf16 *)a->dqkv);
}

int cuda_few_attention(Backend *be, const AttentionArgs *a)
{
    unsigned heads = (unsigned)(a->batch * a->heads);
    switch ((a->tokens + MMA - 1) / MMA) {
    case 1: return LAUNCH(be, k_attention<1>, heads, 1 * WARP, *a);
    case 2: return LAUNCH(be, k_attention<2>, heads, 2 * WARP, *a);
    case 3: return LAUNCH(be, k_attention<3>, heads, 3 * WARP, *a);
    case 4: return LAUNCH(be, k_attention<4>, heads, 4 * WARP, *a);
    default: return LAUNCH(be, k_attention<5>, heads, 5 * WARP, *a);
    }
}

int cuda_few_attention_backward(Backend *be, const AttentionArgs *a)
{
    unsigned heads = (unsigned)(a->batch * a->heads);
    switch ((a->tokens + MMA - 1) / MMA) {
    case 1: return LAUNCH(be, k_attention_backward<1>, heads, 1 * WARP, *a);
    case 2: return LAUNCH(be, k_attention_backward<2>, heads, 2 * WARP, *a);
    case 3: return LAUNCH(be, k_attention_backward<3>, heads, 3 * WARP, *a);
    case 4: return LAUNCH(be, k_attention_backward<4>, heads, 4 * WARP, *a);
    default: return LAUNCH(be, k_attention_backward<5>, heads, 5 * WARP, *a);
    }
}
