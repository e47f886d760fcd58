/* Weighted k-NN against a plain computation over whole matrices. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../tap.h"
#include "eval/knn.h"
#include "util/err.h"
#include "util/rng.h"

enum { M = 1100, N = 2500, C = 19, CLASSES = 7 }; /* more than a tile of each */

static float queries[M * C], bank[N * C];
static int32_t query_labels[M], bank_labels[N];

/* Labels that features tell only in part. */
static void fill(Rng *r, float *x, int32_t *labels, int n)
{
    for (int i = 0; i < n; i++) {
        labels[i] = (int32_t)rng_below(r, CLASSES);
        for (int c = 0; c < C; c++)
            x[i * C + c] = rng_normal(r) + (c == labels[i] ? 2.f : 0);
    }
}

static double similarity(const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;

    for (int c = 0; c < C; c++) {
        ab += (double)a[c] * b[c];
        aa += (double)a[c] * a[c];
        bb += (double)b[c] * b[c];
    }
    return ab / sqrt(aa) / sqrt(bb);
}

typedef struct {
    double similarity;
    int at;
} Pair;

static int nearer(const void *pa, const void *pb)
{
    const Pair *a = pa, *b = pb;

    return a->similarity != b->similarity ? (a->similarity < b->similarity ? 1 : -1) : a->at - b->at;
}

static void plain_votes(const float *query, int k, int leave_out, double *votes)
{
    static Pair all[N];

    for (int j = 0; j < N; j++)
        all[j] = (Pair){ j == leave_out ? -9 : similarity(query, bank + j * C), j };
    qsort(all, N, sizeof *all, nearer);
    memset(votes, 0, CLASSES * sizeof *votes);
    for (int j = 0; j < k; j++)
        votes[bank_labels[all[j].at]] += exp(all[j].similarity / 0.07);
}

static Knn *start(int64_t m, int nearest)
{
    KnnConfig c = { .queries = m, .dim = C, .classes = CLASSES, .nearest = nearest, .temperature = 0.07,
                    .device = "cpu" };
    return knn_new(&c);
}

static void test_votes(void)
{
    Knn *k = start(M, 50);
    double got[CLASSES], want[CLASSES], worst = 0;

    if (!ok(k && knn_queries(k, 100, queries, NULL) == 0 &&
                knn_queries(k, M - 100, queries + 100 * C, NULL) == 0 &&
                knn_bank(k, 7, bank, bank_labels, NULL) == 0 &&
                knn_bank(k, N - 7, bank + 7 * C, bank_labels + 7, NULL) == 0,
            "queries and a bank in pieces"))
        return;
    is_int(knn_bank_size(k), N, "the bank is counted");
    int top1 = 0, rows = 0;
    for (int q = 0; q < M; q += 37, rows++)
        for (int pass = 0; pass < 2; pass++) {
            int count = pass ? 50 : 5, best = 0;
            plain_votes(queries + q * C, count, -1, want);
            if (knn_votes(k, q, count, got) < 0)
                ok(false, "votes: %s", err_text());
            for (int c = 0; c < CLASSES; c++) {
                worst = fmax(worst, fabs(got[c] - want[c]) / (want[c] + 1));
                best = want[c] > want[best] ? c : best;
            }
            top1 += pass && best == query_labels[q];
        }
    ok(worst < 1e-4, "votes agree with the plain computation (%.1e)", worst);

    int list[] = { 5, 50, 100000 };
    KnnScore s[3] = { { 0 } };
    ok(knn_score(k, query_labels, list, 3, s) == 0, "scores");
    ok(s[2].k == 100000 && s[2].used == 50 && s[0].used == 5, "k as asked, and as there were neighbours: %d",
       s[2].used);
    ok(s[1].top1 > M / 2 && s[1].top1 < M && s[1].top5 > s[1].top1, "top-1 %lld, top-5 %lld of %lld",
       (long long)s[1].top1, (long long)s[1].top5, (long long)s[1].queries);
    ok(fabs((double)s[1].top1 / M - (double)top1 / rows) < 0.2, "about as many as the plain computation");
    knn_free(k);
}

static void test_leave_out(void)
{
    static int64_t keys[N];
    int list[] = { 1 };
    KnnScore with = { 0 }, without = { 0 };
    Knn *k = start(N, 1);

    for (int i = 0; i < N; i++)
        keys[i] = i;
    ok(k && knn_queries(k, N, bank, NULL) == 0 && knn_bank(k, N, bank, bank_labels, NULL) == 0 &&
           knn_score(k, bank_labels, list, 1, &with) == 0 && with.top1 == N,
       "each image finds itself");
    knn_free(k);
    k = start(N, 1);
    ok(k && knn_queries(k, N, bank, keys) == 0 && knn_bank(k, N, bank, bank_labels, keys) == 0 &&
           knn_score(k, bank_labels, list, 1, &without) == 0 && without.top1 < N && without.top1 > N / 2,
       "unless it is left out");
    double got[CLASSES], want[CLASSES];
    plain_votes(bank + 11 * C, 1, 11, want);
    ok(knn_votes(k, 11, 1, got) == 0 && fabs(got[bank_labels[0]] - want[bank_labels[0]]) < 1e-3 * (want[0] + 1),
       "as in the plain computation");
    knn_free(k);
}

/* The only image of the bank is the query itself; and votes that have no double. */
static void test_few(void)
{
    int64_t key = 0;
    float two[2 * C] = { 0 };
    int32_t label = 1, labels[2] = { 3, 1 };
    int list[] = { 1, 2 };
    KnnScore s[2] = { { 0 } }, sharp[2] = { { 0 } };
    Knn *k = start(1, 1);

    two[0] = 1, two[1] = 0.1f, two[C] = 1;
    ok(k && knn_queries(k, 1, two + C, &key) == 0 && knn_bank(k, 1, two + C, &label, &key) == 0 &&
           knn_score(k, &label, list, 2, s) == 0, "an image alone in the bank");
    ok(s[0].alone == 1 && s[1].alone == 1 && s[1].used == 0 && s[1].k == 2 && s[0].top1 == 0 &&
           s[0].top5 == 0,
       "has nobody to vote");
    knn_free(k);
    k = knn_new(&(KnnConfig){
        .queries = 1, .dim = C, .classes = CLASSES, .nearest = 2, .temperature = 1e-3, .device = "cpu"});
    ok(k && knn_queries(k, 1, two + C, NULL) == 0 && knn_bank(k, 2, two, labels, NULL) == 0 &&
           knn_score(k, &label, list, 2, sharp) == 0 && sharp[0].top1 == 1 && sharp[1].top1 == 1 &&
           sharp[1].top5 == 1,
       "the nearest wins at a temperature of 0.001, too");
    labels[0] = 1, labels[1] = 3, label = 3;
    memset(sharp, 0, sizeof sharp);
    ok(knn_score(k, &label, list, 2, sharp) == 0 && sharp[1].top1 == 0, "and not the other");
    knn_free(k);
}

/* Two classes with the same votes: the lower index is first. A class without votes may count for top-5. */
static void test_ties(void)
{
    float one[2 * C] = { 0 };
    int32_t labels[2] = { 4, 2 }, want_low = 2, want_high = 4, unseen = 0, none = -1;
    int list[] = { 2 };
    KnnScore s[4] = { { 0 } };
    Knn *k = start(1, 2);

    one[0] = one[C] = 3;
    ok(k && knn_queries(k, 1, one, NULL) == 0 && knn_bank(k, 2, one, labels, NULL) == 0, "two equal neighbours");
    ok(knn_score(k, &want_low, list, 1, &s[0]) == 0 && s[0].top1 == 1, "the lower class wins");
    ok(knn_score(k, &want_high, list, 1, &s[1]) == 0 && s[1].top1 == 0 && s[1].top5 == 1, "the higher is second");
    ok(knn_score(k, &unseen, list, 1, &s[2]) == 0 && s[2].top5 == 0, "top-5 of two neighbours is top-2");
    ok(knn_score(k, &none, list, 1, &s[3]) == 0 && s[3].top5 == 0 && s[3].queries == 1,
       "a class the bank doesn't know is wrong");
    knn_free(k);
}

static void test_refusals(void)
{
    float x[C] = { NAN };
    int32_t label = CLASSES;
    Knn *k = start(1, 1);

    ok(k && knn_queries(k, 1, x, NULL) < 0 && err_code() == ERR_MATH, "NaN is refused");
    ok(knn_queries(k, 2, bank, NULL) < 0 && err_code() == ERR_USAGE, "too many queries are refused");
    ok(knn_bank(k, 1, bank, &label, NULL) < 0 && err_code() == ERR_DATA, "a label out of range is refused");
    knn_free(k);
    ok(!start(0, 1) && err_code() == ERR_USAGE, "no query is refused");
}

int main(void)
{
    Rng r = rng_make(3, RNG_TEST, 1, 0);

    fill(&r, queries, query_labels, M);
    fill(&r, bank, bank_labels, N);
    test_votes();
    test_leave_out();
    test_ties();
    test_few();
    test_refusals();
    return tap_done();
}
