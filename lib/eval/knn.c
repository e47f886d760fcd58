#include "eval/knn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/ops.h"
#include "tensor/tensor.h"
#include "util/err.h"

/* Tiles of the similarity matrix: as many queries times as many bank vectors at a time. */
enum { QUERY_TILE = 1024, BANK_TILE = 1024 };

typedef struct {
    float similarity;
    int32_t label;
    int64_t order; /* position in the bank */
} Neighbour;

struct Knn {
    KnnConfig c;
    Tape *tape;
    float *queries;   /* [M, C] of length 1 */
    int64_t *keys;    /* [M] */
    Neighbour *heaps; /* [M, nearest]: a heap a query, the farthest on top */
    int *filled;      /* [M] */
    int64_t count;    /* queries so far */
    int64_t seen;     /* bank vectors so far */
    float *tile;      /* [QUERY_TILE, BANK_TILE] similarities */
    float *block;     /* [BANK_TILE, C] bank vectors of length 1 */
};

size_t knn_bytes(const KnnConfig *c)
{
    size_t dim = (size_t)c->dim, queries = c->queries < QUERY_TILE ? (size_t)c->queries : QUERY_TILE;
    size_t each = dim * sizeof(float) + sizeof(int64_t) + sizeof(int) + (size_t)c->nearest * sizeof(Neighbour);
    /* Tiles lie here and once more on the tape. */
    size_t tiles = 2 * sizeof(float) * (queries * BANK_TILE + BANK_TILE * dim) + sizeof(float) * queries * dim;

    return (size_t)c->queries * each + tiles;
}

Knn *knn_new(const KnnConfig *c)
{
    if (c->queries < 1 || c->dim < 1 || c->classes < 1 || c->nearest < 1 || !(c->temperature > 0) ||
        c->queries > INT64_MAX / 64 / c->dim / c->nearest) {
        err_set(ERR_USAGE, "k-NN with %lld queries of %d values, %d classes, %d neighbours, temperature %g",
                (long long)c->queries, c->dim, c->classes, c->nearest, c->temperature);
        return NULL;
    }
    Knn *k = calloc(1, sizeof *k);
    if (k) {
        size_t m = (size_t)c->queries, dim = (size_t)c->dim, rows = m < QUERY_TILE ? m : QUERY_TILE;
        k->c = *c;
        k->queries = calloc(m * dim, sizeof(float));
        k->keys = malloc(m * sizeof(int64_t));
        k->heaps = malloc(m * (size_t)c->nearest * sizeof(Neighbour));
        k->filled = calloc(m, sizeof(int));
        k->tile = malloc(rows * BANK_TILE * sizeof(float));
        k->block = malloc(BANK_TILE * dim * sizeof(float));
    }
    if (!k || !k->queries || !k->keys || !k->heaps || !k->filled || !k->tile || !k->block) {
        err_set(ERR_MEMORY, "no memory for %zu bytes of k-NN queries", knn_bytes(c));
        knn_free(k);
        return NULL;
    }
    k->tape = tape_new(c->device);
    if (!k->tape) {
        knn_free(k);
        return NULL;
    }
    return k;
}

void knn_free(Knn *k)
{
    if (!k)
        return;
    tape_free(k->tape);
    free(k->queries);
    free(k->keys);
    free(k->heaps);
    free(k->filled);
    free(k->tile);
    free(k->block);
    free(k);
}

int64_t knn_bank_size(const Knn *k)
{
    return k->seen;
}

/* out = x / max(|x|, 1e-12) by rows. */
static int normalize_rows(int64_t n, int dim, const float *in, float *out)
{
    int64_t bad = 0;

#pragma omp parallel for reduction(+ : bad)
    for (int64_t i = 0; i < n; i++) {
        const float *x = in + i * dim;
        double sum = 0;
        for (int c = 0; c < dim; c++)
            sum += (double)x[c] * x[c];
        bad += !isfinite(sum);
        float scale = (float)(1 / fmax(sqrt(sum), 1e-12));
        for (int c = 0; c < dim; c++)
            out[i * dim + c] = x[c] * scale;
    }
    return bad ? err_set(ERR_MATH, "%lld of %lld feature vectors are not finite", (long long)bad, (long long)n) : 0;
}

int knn_queries(Knn *k, int64_t n, const float *features, const int64_t *keys)
{
    if (n < 0 || n > k->c.queries - k->count)
        return err_set(ERR_USAGE, "%lld more k-NN queries behind %lld: there is room for %lld", (long long)n,
                       (long long)k->count, (long long)k->c.queries);
    if (normalize_rows(n, k->c.dim, features, k->queries + k->count * k->c.dim) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        k->keys[k->count++] = keys ? keys[i] : -1;
    return 0;
}

int64_t knn_query_count(const Knn *k)
{
    return k->count;
}

static inline bool farther(const Neighbour *a, const Neighbour *b)
{
    return a->similarity < b->similarity || (a->similarity == b->similarity && a->order > b->order);
}

static void offer(Knn *k, int64_t query, Neighbour x)
{
    Neighbour *heap = k->heaps + query * k->c.nearest;
    int n = k->filled[query];

    if (n < k->c.nearest) {
        int at = n;
        for (int up; at > 0 && farther(&x, &heap[up = (at - 1) / 2]); at = up)
            heap[at] = heap[up];
        heap[at] = x;
        k->filled[query] = n + 1;
    } else if (farther(&heap[0], &x)) {
        int at = 0;
        for (int down; (down = 2 * at + 1) < n; at = down) {
            if (down + 1 < n && farther(&heap[down + 1], &heap[down]))
                down++;
            if (!farther(&heap[down], &x))
                break;
            heap[at] = heap[down];
        }
        heap[at] = x;
    }
}

/* k->tile [m, n] = similarities of m queries with the n vectors of k->block. */
static int similarities(Knn *k, int64_t first, int64_t m, int64_t n)
{
    int64_t qs[2] = { m, k->c.dim }, bs[2] = { n, k->c.dim };

    tape_begin(k->tape, false);
    Tensor *q = tape_tensor(k->tape, DT_F32, 2, qs), *b = tape_tensor(k->tape, DT_F32, 2, bs);
    if (!q || !b || tape_write(k->tape, q, k->queries + first * k->c.dim) < 0 ||
        tape_write(k->tape, b, k->block) < 0)
        return -1;
    Tensor *s = op_logits(k->tape, q, b, NULL, DT_F32); /* in F32 at any precision */
    return s ? tape_read(k->tape, s, k->tile) : -1;
}

static void offer_tile(Knn *k, int64_t first, int64_t m, int64_t n, const int32_t *labels, const int64_t *keys)
{
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = 0; i < m; i++) {
        const float *row = k->tile + i * n;
        int64_t query = first + i, own = k->keys[query];
        const Neighbour *heap = k->heaps + query * k->c.nearest;
        for (int64_t j = 0; j < n; j++) {
            /* A later vector loses against an equally similar one. Most of the bank ends here. */
            if (k->filled[query] == k->c.nearest && row[j] <= heap[0].similarity)
                continue;
            if (own >= 0 && own == (keys ? keys[j] : k->seen + j))
                continue;
            offer(k, query, (Neighbour){ row[j], labels[j], k->seen + j });
        }
    }
}

int knn_bank(Knn *k, int64_t n, const float *features, const int32_t *labels, const int64_t *keys)
{
    for (int64_t j = 0; j < n; j++)
        if (labels[j] < 0 || labels[j] >= k->c.classes)
            return err_set(ERR_DATA, "label %d of a bank vector: there are %d classes", labels[j], k->c.classes);
    for (int64_t at = 0; at < n; at += BANK_TILE) {
        int64_t now = n - at < BANK_TILE ? n - at : BANK_TILE;
        if (normalize_rows(now, k->c.dim, features + at * k->c.dim, k->block) < 0)
            return -1;
        for (int64_t q = 0; q < k->count; q += QUERY_TILE) {
            int64_t m = k->count - q < QUERY_TILE ? k->count - q : QUERY_TILE;
            if (similarities(k, q, m, now) < 0)
                return -1;
            offer_tile(k, q, m, now, labels + at, keys ? keys + at : NULL);
        }
        k->seen += now;
    }
    return 0;
}

static int nearer_first(const void *a, const void *b)
{
    return farther(a, b) ? 1 : -1;
}

/* Copy the query's neighbours to sorted, nearest first; returns how many. */
static int sort_neighbours(const Knn *k, int64_t query, Neighbour *sorted)
{
    int n = k->filled[query];

    memcpy(sorted, k->heaps + query * k->c.nearest, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, nearer_first);
    return n;
}

/* Where exp would overflow, votes are divided by that of the nearest: their order is the same. */
static void add_votes(const Knn *k, const Neighbour *sorted, int from, int to, double *votes)
{
    double nearest = k->c.temperature < 1.0 / 512 && to > from ? sorted[0].similarity : 0;

    for (int i = from; i < to; i++)
        votes[sorted[i].label] += exp((sorted[i].similarity - nearest) / k->c.temperature);
}

int knn_votes(const Knn *k, int64_t query, int count, double *votes)
{
    Neighbour *sorted = malloc((size_t)k->c.nearest * sizeof *sorted);

    if (!sorted)
        return err_set(ERR_MEMORY, "no memory for %d neighbours", k->c.nearest);
    int n = sort_neighbours(k, query, sorted);
    memset(votes, 0, (size_t)k->c.classes * sizeof *votes);
    add_votes(k, sorted, 0, count < n ? count : n, votes);
    free(sorted);
    return 0;
}

/* How many classes come before this one. */
static int rank_of(const double *votes, int classes, int label)
{
    int before = 0;

    for (int c = 0; c < classes; c++)
        before += votes[c] > votes[label] || (votes[c] == votes[label] && c < label);
    return before;
}

int knn_score(const Knn *k, const int32_t *labels, const int *list, int n, KnnScore *scores)
{
    Neighbour *sorted = malloc((size_t)k->c.nearest * sizeof *sorted);
    double *votes = malloc((size_t)k->c.classes * sizeof *votes);

    if (!sorted || !votes) {
        free(sorted);
        free(votes);
        return err_set(ERR_MEMORY, "no memory for %d neighbours and %d classes", k->c.nearest, k->c.classes);
    }
    for (int i = 0; i < n; i++) {
        scores[i].k = list[i];
        scores[i].queries += k->count;
    }
    for (int64_t q = 0; q < k->count; q++) {
        int near = sort_neighbours(k, q, sorted), voted = 0;
        for (int i = 0; i < n; i++) {
            int used = list[i] < near ? list[i] : near;
            scores[i].used = used > scores[i].used ? used : scores[i].used;
            scores[i].alone += !near;
        }
        if (labels[q] < 0 || labels[q] >= k->c.classes)
            continue;
        memset(votes, 0, (size_t)k->c.classes * sizeof *votes);
        for (int i = 0; i < n; i++) {
            int upto = list[i] < near ? list[i] : near;
            add_votes(k, sorted, voted, upto, votes);
            voted = upto;
            int rank = rank_of(votes, k->c.classes, labels[q]);
            scores[i].top1 += rank == 0 && upto > 0;
            scores[i].top5 += rank < (upto < 5 ? upto : 5);
        }
    }
    free(sorted);
    free(votes);
    return 0;
}
