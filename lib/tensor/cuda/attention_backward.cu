/* The backward pass of attention by heads of 64, in BF16, over any number of tokens, by tiles [Dao 2023, Alg. 2].
 * A block has a head of a sample and each of its warps 16 keys, with their gradients in registers, which take queries from
 * shared memory: all of few, else 64 at a time while the next ones come. So each product is made once, and no sum depends
 * on who comes first: gradients of scores go by way of shared memory to the warps that make dq. Where a head has a
 * processor for itself, its block goes on with another one, whose rows come meanwhile. Where the warps hold not all keys,
 * the rest follow, with the sums of dq so far in F32 in between. Pieces of 16 keys or queries beyond the last token are
 * left out.
 * Floor, n tokens: q, k, v, y, dy read, dq, dk, dv written once, 640 n^2 operations a head. 1536 heads of 197: 310 MB and
 * 38 GFLOP, on an H200 0.07 ms from memory; the operands' way from shared memory to registers, at 128 bytes a clock, takes
 * 0.11 ms. */
#include "tensor/cuda/attention.cuh"

enum { MOST_TOKENS = 4096, MOST_GRID = 65535 /* in y and z */, MOST_WARPS = 16 };
enum { MOST_QUERIES = 64, MOST_AT_ONCE = 80, UNIT = 32 };

/* How a head is done: by warps with 16 keys each, `blocks` of these one after the other, with `chunks` of queries. */
struct Plan {
    int warps, keys, block, blocks, queries, chunks;
    int come, ds, stats;    /* where in shared memory, in elements: q and dy; dS; stat, -delta. Keys and values come first */
    int ahead;              /* where those of the next head are; 0: nowhere */
    int next_come, next_ds; /* from a chunk's to the next one's, which take turns */
    int ld_s;               /* of dS [keys, queries] */
    int bytes;
};

static Plan plan_of(int pieces, int blocks, bool ahead)
{
    Plan p = {};
    p.warps = (pieces + blocks - 1) / blocks;
    p.blocks = (pieces + p.warps - 1) / p.warps;
    p.keys = p.warps * MMA;
    p.queries = pieces * MMA <= MOST_AT_ONCE ? pieces * MMA : MOST_QUERIES;
    p.chunks = (pieces * MMA + p.queries - 1) / p.queries;
    p.ld_s = p.queries + 8;
    p.ahead = ahead ? 2 * p.keys * LD : 0;
    p.come = 2 * p.keys * LD + p.ahead;
    p.next_come = 2 * p.queries * LD;
    p.next_ds = p.keys * p.ld_s;
    p.ds = p.come + p.next_come * (p.chunks > 1 ? 2 : 1);
    p.stats = p.ds + p.next_ds * (p.chunks > 1 ? 2 : 1);
    p.bytes = p.stats * (int)sizeof(bf16) + 2 * p.chunks * p.queries * (int)sizeof(float);
    return p;
}

/* As few blocks as a GPU's shared memory allows. Where one head after the other has a processor for itself, the next one's
 * keys and values come meanwhile. */
static Plan plan_for(Backend *be, const AttentionArgs *a)
{
    int pieces = (int)((a->tokens + MMA - 1) / MMA), most = ((CudaDevice *)be)->shared_memory;
    Plan p = plan_of(pieces, 1, true);
    if (p.warps > MOST_WARPS / 2 && p.warps <= MOST_WARPS && p.bytes <= most)
        return p;
    for (int blocks = (pieces + MOST_WARPS - 1) / MOST_WARPS; blocks < pieces; blocks++) {
        p = plan_of(pieces, blocks, false);
        if (p.bytes <= most)
            return p;
    }
    return plan_of(pieces, pieces, false);
}

/* The first token of a head's sample. */
__device__ static int64_t place_of(const AttentionArgs &a, unsigned head)
{
    return head / (unsigned)a.heads * a.tokens;
}

/* Of each query of a head stat, in powers of 2, and -delta = -rowsum(dy y); zeros follow to the end of the last chunk. */
__device__ static void load_stats(const AttentionArgs &a, const Plan &plan, unsigned head, Pack<float, 2> *to)
{
    enum { AT_ONCE = 4 }; /* in most cases all that a thread has */
    int c = (int)(threadIdx.x % ROW_PACKS * 8), step = (int)(blockDim.x / ROW_PACKS);
    int row = a.heads * DIM, tokens = (int)a.tokens, rows = plan.chunks * plan.queries;
    int64_t place = place_of(a, head) * row + head % a.heads * DIM;
    const bf16 *y = (const bf16 *)a.y + place, *dy = (const bf16 *)a.dy + place;
    const float *stat = a.stat + head * a.tokens;
    for (int first = (int)(threadIdx.x / ROW_PACKS); first < rows; first += AT_ONCE * step) {
        Pack<bf16> one[AT_ONCE], other[AT_ONCE];
        float log[AT_ONCE];
        UNROLL
        for (int i = 0; i < AT_ONCE; i++) {
            int r = first + i * step;
            one[i] = r < tokens ? load<Pack<bf16>>(dy, (int64_t)r * row + c) : Pack<bf16>();
            other[i] = r < tokens ? load<Pack<bf16>>(y, (int64_t)r * row + c) : Pack<bf16>();
            log[i] = r < tokens && c == 0 ? stat[r] : 0;
        }
        UNROLL
        for (int i = 0; i < AT_ONCE; i++) {
            int r = first + i * step;
            float sum = 0;
            UNROLL
            for (int k = 0; k < 8; k++)
                sum += get(one[i].v, k) * get(other[i].v, k);
            sum = row_sum(sum);
            sum += __shfl_xor_sync(0xffffffffu, sum, 4);
            if (c == 0 && r < rows)
                to[r] = { { LOG2_E * log[i], -sum } };
        }
    }
}

/* 16 keys, this warp's rows, with 16 queries: dS = P (dy v^T - delta) with P = exp(scale q k^T - stat) is returned, and
 * dv += P^T dy, dk += dS^T q. Of the keys and those after them `left` are tokens. */
__device__ static FragmentA score_gradients(const FragmentA *k, const bf16 *v, const bf16 *q, const bf16 *dy,
                                            const Pack<float, 2> *stats, float scale, int left, FragmentC *dk,
                                            FragmentC *dv)
{
    FragmentC s[2] = {}, ds[2];
    UNROLL
    for (int d = 0; d < DIM / MMA; d++)
        multiply(s, k[d], b_of_columns(q + MMA * d, LD));
    UNROLL
    for (int j = 0; j < 2; j++) {
        Pack<float, 4> both = load<Pack<float, 4>>(stats[8 * j + lane_pair()].v, 0);
        UNROLL
        for (int e = 0; e < 4; e++) {
            s[j].v[e] = exp2_of(scale * LOG2_E * s[j].v[e] - both.v[2 * (e % 2)]);
            ds[j].v[e] = both.v[2 * (e % 2) + 1];
        }
    }
    if (left < MMA) {
        UNROLL
        for (int e = 0; e < 8; e++)
            if ((int)lane_row() + 8 * (e / 2 % 2) >= left)
                s[e / 4].v[e % 4] = 0;
    }
    UNROLL
    for (int d = 0; d < DIM / MMA; d++)
        multiply(ds, a_of_rows(v + MMA * d, LD), b_of_columns(dy + MMA * d, LD));
    UNROLL
    for (int j = 0; j < 2; j++) {
        UNROLL
        for (int e = 0; e < 4; e++)
            ds[j].v[e] *= s[j].v[e];
    }
    FragmentA p = a_of_results(s[0], s[1]), gradient = a_of_results(ds[0], ds[1]);
    UNROLL
    for (int n = 0; n < DIM / 8; n += 2) {
        multiply(dv + n, p, b_of_rows(dy + 8 * n, LD));
        multiply(dk + n, gradient, b_of_rows(q + 8 * n, LD));
    }
    return gradient;
}

/* Of this head's dq so far, in F32 [.., DIM]: the lane that stores them loads them. */
__device__ static float *sums_of(const Plan &plan, unsigned head, float *partial, int query, int column)
{
    return partial + ((int64_t)head * plan.chunks * plan.queries + query) * DIM + column;
}

template <int N> __device__ inline void store_results(float *to, const FragmentC *x)
{
    UNROLL
    for (int n = 0; n < N; n++) {
        float *row = to + lane_row() * DIM + 8 * n + lane_pair();
        store(row, 0, Pack<float, 2>{ { x[n].v[0], x[n].v[1] } });
        store(row, 8 * DIM, Pack<float, 2>{ { x[n].v[2], x[n].v[3] } });
    }
}

template <int N> __device__ inline void load_results(FragmentC *x, const float *from)
{
    UNROLL
    for (int n = 0; n < N; n++) {
        const float *row = from + lane_row() * DIM + 8 * n + lane_pair();
        Pack<float, 2> upper = load<Pack<float, 2>>(row, 0), lower = load<Pack<float, 2>>(row, 8 * DIM);
        x[n] = { { upper.v[0], upper.v[1], lower.v[0], lower.v[1] } };
    }
}

/* dq = dS k for the chunk of queries from `at` on, in units of 16 queries and 32 columns by the warps in turn. */
__device__ static void query_gradients(const AttentionArgs &a, const Plan &plan, unsigned head, int at, const bf16 *ds,
                                       const bf16 *k, float *partial)
{
    int tokens = (int)a.tokens, keys = tokens - plan.block * plan.keys, unit = (int)(threadIdx.x / WARP);
    for (; unit < 2 * plan.queries / MMA && at + unit / 2 * MMA < tokens; unit += plan.warps) {
        int row = unit / 2 * MMA, column = unit % 2 * UNIT;
        FragmentC dq[UNIT / 8] = {};
        if (plan.block)
            load_results<UNIT / 8>(dq, sums_of(plan, head, partial, at + row, column));
        for (int i = 0; i < plan.keys && i < keys; i += MMA) {
            FragmentA rows = a_of_columns(ds + i * plan.ld_s + row, plan.ld_s);
            UNROLL
            for (int n = 0; n < UNIT / 8; n += 2)
                multiply(dq + n, rows, b_of_rows(k + i * LD + column + 8 * n, LD));
        }
        if (plan.block + 1 < plan.blocks) {
            store_results<UNIT / 8>(sums_of(plan, head, partial, at + row, column), dq);
            continue;
        }
        scale_rows<UNIT / 8>(dq, a.scale, a.scale);
        bf16 *to = (bf16 *)a.dqkv + place_of(a, head) * 3 * a.heads * DIM + head % a.heads * DIM + column;
        store_rows<1>(to, 3 * a.heads * DIM, at + row, tokens, dq, a.add);
    }
}

/* To shared memory: keys and values of a head; a chunk's queries and what came back for them. */
__device__ static void copy_keys(const AttentionArgs &a, const Plan &plan, unsigned head, bf16 *to)
{
    int c = a.heads * DIM, begin = plan.block * plan.keys;
    const bf16 *k = (const bf16 *)a.qkv + (place_of(a, head) + begin) * 3 * c + c + head % a.heads * DIM;
    copy_rows(to, k, 3 * c, (int)a.tokens - begin, plan.keys);
    copy_rows(to + plan.keys * LD, k + c, 3 * c, (int)a.tokens - begin, plan.keys);
}

__device__ static void copy_queries(const AttentionArgs &a, const Plan &plan, unsigned head, int at, bf16 *to)
{
    int c = a.heads * DIM;
    int64_t place = place_of(a, head) + at, column = head % a.heads * DIM;
    copy_rows(to, (const bf16 *)a.qkv + place * 3 * c + column, 3 * c, (int)a.tokens - at, plan.queries);
    copy_rows(to + plan.queries * LD, (const bf16 *)a.dy + place * c + column, c, (int)a.tokens - at, plan.queries);
}

/* A grid of heads, or of those that a GPU does at once, which do the rest after that. */
__global__ void __launch_bounds__(MOST_WARPS *WARP) k_attention_backward(AttentionArgs a, Plan plan, float *partial)
{
    SHARED_OF_LAUNCH(Pack<bf16>, memory);
    int tokens = (int)a.tokens, c = a.heads * DIM, warp = (int)(threadIdx.x / WARP);
    int first = plan.block * plan.keys + warp * MMA;
    unsigned stage = 0, heads = (unsigned)(a.batch * a.heads);
    bf16 *base = memory->v, *k = base, *k_next = base + plan.ahead;
    Pack<float, 2> *stats = (Pack<float, 2> *)(base + plan.stats);
    copy_keys(a, plan, blockIdx.x, k);
    copy_queries(a, plan, blockIdx.x, 0, base + plan.come);
    load_stats(a, plan, blockIdx.x, stats);
    copies_wait();
    __syncthreads();
    for (unsigned head = blockIdx.x; head < heads; head += gridDim.x) {
        bool more = head + gridDim.x < heads;
        FragmentC dk[DIM / 8] = {}, dv[DIM / 8] = {};
        int at = 0;
        for (; at < tokens; at += plan.queries, stage ^= 1) {
            int next = at + plan.queries;
            if (next < tokens || more)
                copy_queries(a, plan, next < tokens ? head : head + gridDim.x, next < tokens ? next : 0,
                             base + plan.come + (stage ^ 1) * plan.next_come);
            if (at == 0 && more)
                copy_keys(a, plan, head + gridDim.x, k_next);
            if (at)
                query_gradients(a, plan, head, at - plan.queries, base + plan.ds + (stage ^ 1) * plan.next_ds, k, partial);
            FragmentA own[DIM / MMA]; /* keys; values in registers, too, would be more of these than there are */
            UNROLL
            for (int d = 0; d < DIM / MMA; d++)
                own[d] = a_of_rows(k + warp * MMA * LD + MMA * d, LD);
            const bf16 *q = base + plan.come + stage * plan.next_come;
            bf16 *ds = base + plan.ds + stage * plan.next_ds + (warp * MMA + (int)lane_row()) * plan.ld_s + lane_pair();
            for (int query = at; query < next && query < tokens && first < tokens; query += MMA) {
                FragmentA gradient = score_gradients(own, k + (plan.keys + warp * MMA) * LD, q, q + plan.queries * LD,
                                                     stats + query, a.scale, tokens - first, dk, dv);
                UNROLL
                for (int e = 0; e < 4; e++)
                    store(ds, query - at + e % 2 * 8 * plan.ld_s + e / 2 * 8, gradient.v[e]);
                q += MMA * LD;
            }
            copies_wait();
            __syncthreads();
        }
        scale_rows<DIM / 8>(dk, a.scale, a.scale);
        bf16 *to = (bf16 *)a.dqkv + place_of(a, head) * 3 * c + head % a.heads * DIM;
        store_rows<2>(to + 2 * c, 3 * c, first, tokens, dv, a.add);
        store_rows<2>(to + c, 3 * c, first, tokens, dk, a.add);
        if (more)
            load_stats(a, plan, head + gridDim.x, stats);
        query_gradients(a, plan, head, at - plan.queries, base + plan.ds + (stage ^ 1) * plan.next_ds, k, partial);
        bf16 *done = k;
        k = k_next;
        k_next = done;
        __syncthreads();
    }
}

bool cuda_own_suits(Backend *be, const AttentionArgs *a)
{
    return a->type == DT_BF16 && a->dim == DIM && a->scale > 0 && a->tokens <= MOST_TOKENS && a->batch <= MOST_GRID &&
           a->heads <= MOST_GRID && plan_for(be, a).bytes <= ((CudaDevice *)be)->shared_memory &&
           packs_fit(0, (const bf16 *)a->qkv, (const bf16 *)a->y, (const bf16 *)a->dy, (const bf16 *)a->dqkv);
}

int cuda_own_attention_backward(Backend *be, const AttentionArgs *a)
{
    Plan plan = plan_for(be, a);
    size_t sums = (size_t)(a->batch * a->heads * plan.chunks * plan.queries * DIM);
    float *partial = plan.blocks > 1 ? (float *)cuda_scratch(be, CUDA_SCRATCH_SCORES, sums * sizeof(float)) : NULL;
    if (plan.blocks > 1 && !partial)
        return -1;
    unsigned heads = (unsigned)(a->batch * a->heads), processors = (unsigned)((CudaDevice *)be)->processors;
    unsigned grid = plan.ahead && heads > processors ? processors : heads;
    for (; plan.block < plan.blocks; plan.block++)
        if (LAUNCH_SHARED(be, k_attention_backward, grid, (unsigned)plan.warps * WARP, (size_t)plan.bytes, *a, plan,
                          partial))
            return -1;
    return 0;
}
