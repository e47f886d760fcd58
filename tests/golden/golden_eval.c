/* Evaluation: weighted k-NN. */
#include <stdlib.h>

#include "eval/knn.h"
#include "golden.h"
#include "util/err.h"

static int32_t *as_labels(const GoldenTensor *t)
{
    int32_t *out = malloc((t->count + 1) * sizeof *out);

    for (size_t i = 0; out && i < t->count; i++)
        out[i] = (int32_t)((const int64_t *)t->data)[i];
    return out;
}

/* The bank in uneven blocks: the result must not depend on the cut. */
static int show_bank(Knn *k, const GoldenTensor *bank, const int32_t *labels)
{
    int64_t n = bank->shape[0], dim = bank->shape[1], step = 1;

    for (int64_t at = 0; at < n; at += step, step += 6) {
        int64_t now = n - at < step ? n - at : step;
        if (knn_bank(k, now, (const float *)bank->data + at * dim, labels + at, NULL) < 0)
            return -1;
    }
    return 0;
}

static void check_votes(Golden *g, const Knn *k, int classes)
{
    const GoldenTensor *want = golden_get(g, "out.votes");

    if (!want || want->ndim != 2 || want->shape[1] != classes)
        return;
    float *got = malloc(want->count * sizeof *got);
    double *votes = malloc((size_t)classes * sizeof *votes);
    for (int64_t q = 0; q < want->shape[0]; q++) {
        if (knn_votes(k, q, golden_int(g, "votes_k", 10), votes) < 0)
            golden_fail(g, "%s", err_text());
        for (int c = 0; c < classes; c++)
            got[q * classes + c] = (float)votes[c];
    }
    golden_check(g, "out.votes", got);
    free(got);
    free(votes);
}

static void check_scores(Golden *g, const Knn *k, const int32_t *labels, const GoldenTensor *ks)
{
    enum { MOST = 16 };
    int list[MOST] = { 0 }, n = ks->count < MOST ? (int)ks->count : MOST;
    KnnScore scores[MOST] = { 0 };
    float top1[MOST], top5[MOST];

    for (int i = 0; i < n; i++)
        list[i] = (int)((const int64_t *)ks->data)[i];
    if (knn_score(k, labels, list, n, scores) < 0)
        golden_fail(g, "%s", err_text());
    for (int i = 0; i < n; i++) {
        top1[i] = 100 * (float)scores[i].top1 / (float)scores[i].queries;
        top5[i] = 100 * (float)scores[i].top5 / (float)scores[i].queries;
    }
    golden_check(g, "out.top1", top1);
    golden_check(g, "out.top5", top5);
    golden_check(g, "out.top5_reference", top5);
}

static void run_knn(Golden *g)
{
    const GoldenTensor *train = golden_get(g, "in.train_features"), *test = golden_get(g, "in.test_features");
    const GoldenTensor *train_labels = golden_get(g, "in.train_labels"), *test_labels = golden_get(g, "in.test_labels");
    const GoldenTensor *ks = golden_get(g, "in.k");

    if (!train || !test || !train_labels || !test_labels || !ks)
        return;
    KnnConfig c = { .queries = test->shape[0], .dim = (int)test->shape[1], .classes = golden_int(g, "classes", 0),
                    .nearest = 1, .temperature = golden_real(g, "T", 0.07), .device = "cpu" };
    for (size_t i = 0; i < ks->count; i++)
        if (((const int64_t *)ks->data)[i] > c.nearest)
            c.nearest = (int)((const int64_t *)ks->data)[i];

    int32_t *bank_labels = as_labels(train_labels), *labels = as_labels(test_labels);
    Knn *k = knn_new(&c);
    if (!k || !bank_labels || !labels || knn_queries(k, c.queries, test->data, NULL) < 0 ||
        show_bank(k, train, bank_labels) < 0) {
        golden_fail(g, "%s", err_text());
    } else {
        check_scores(g, k, labels, ks);
        check_votes(g, k, c.classes);
    }
    knn_free(k);
    free(bank_labels);
    free(labels);
}

static const GoldenCase cases[] = { { "eval_knn", run_knn }, { 0 } };
GOLDEN_REGISTER(cases)
