/* Weighted k-nearest-neighbour classification of feature vectors [Wu 2018, section 3.4; Caron 2021, eval_knn].
 *
 * Features are divided by their length (at least 1e-12). The k most similar bank vectors vote for their
 * class with exp(similarity / T); classes are ranked by their sum of votes, the lower index first among
 * equals. Top-n counts a query whose class is among the first n, n at most the neighbours that voted.
 *
 * The bank is streamed: it is handed over in blocks of any size, and only the nearest of each query are
 * remembered, so memory is that of the queries and knn_bytes says how much. Among equally similar vectors
 * the earlier one is nearer. */
#ifndef HSSL_KNN_H
#define HSSL_KNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t queries; /* room for so many, M */
    int dim;         /* C */
    int classes;
    int nearest; /* how many neighbours to remember: the largest k that will be asked for */
    double temperature;
    const char *device; /* for tape_new */
} KnnConfig;

typedef struct Knn Knn;

/* Bytes that a Knn of this configuration takes. */
size_t knn_bytes(const KnnConfig *c);

/* NULL with ERR_USAGE or ERR_MEMORY. */
Knn *knn_new(const KnnConfig *c) __attribute__((warn_unused_result));
void knn_free(Knn *k);

/* Append n queries, features [n, C] of any length. keys: which bank vector is the same image and must not vote (-1:
 * none); keys NULL: none for all. All queries come before the first knn_bank. ERR_MATH when a vector is not finite,
 * ERR_USAGE when there is no room. */
int knn_queries(Knn *k, int64_t n, const float *features, const int64_t *keys) __attribute__((warn_unused_result));
int64_t knn_query_count(const Knn *k);

/* Show n more bank vectors [n, C] of any length, with labels in [0, classes). keys: what knn_queries' keys refer
 * to; NULL: the position in the bank. */
int knn_bank(Knn *k, int64_t n, const float *features, const int32_t *labels, const int64_t *keys)
    __attribute__((warn_unused_result));
int64_t knn_bank_size(const Knn *k);

/* Votes of a query's nearest `count` for each class: votes [classes]. 0, or -1 with ERR_MEMORY. */
int knn_votes(const Knn *k, int64_t query, int count, double *votes) __attribute__((warn_unused_result));

typedef struct {
    int k, used;                 /* neighbours asked for, and the most that a query had of them */
    int64_t queries, top1, top5; /* how many there were, how many were right */
    int64_t alone;               /* of the queries, those without a neighbour: never right */
} KnnScore;

/* Score every query against its label (one outside of [0, classes) is always wrong), for each k of the list in
 * ascending order. Adds to scores[i], which the caller clears first: queries may come in several rounds. */
int knn_score(const Knn *k, const int32_t *labels, const int *list, int n, KnnScore *scores)
    __attribute__((warn_unused_result));

#endif
