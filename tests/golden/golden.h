/* Golden vectors: files of inputs, parameters, outputs and gradients of the reference implementations.
 *
 * The runner opens every file of the directories it is given, finds by the `case` of the file's metadata
 * a function that recomputes it, and compares what the function hands back tensor by tensor within the
 * tolerance the file states. It knows no file by name; a case nobody registered is skipped by name.
 *
 * A file of cases looks like this:
 *
 *     static void run_gelu(Golden *g)
 *     {
 *         const GoldenTensor *x = golden_get(g, "in.x");   // NULL when absent: g is failed then
 *         if (!x) return;
 *         ... compute y and dx ...
 *         golden_check(g, "out.y", y);
 *         golden_check(g, "grad.in.x", dx);
 *     }
 *     static const GoldenCase cases[] = { { "layer_gelu", run_gelu }, { "layer_conv*", run_conv }, { 0 } };
 *     GOLDEN_REGISTER(cases)
 *
 * A file passes when nothing failed and every out.* and grad.* tensor was compared or excused with a
 * reason: what a case forgets to compare is an error, not a pass. */
#ifndef HSSL_GOLDEN_H
#define HSSL_GOLDEN_H

#include "../tap.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Golden Golden;

/* A stored tensor; borrowed from the file, good until the case's function returns. */
typedef struct {
    const char *name;
    char dtype[8]; /* "F32", "I64", "I32", "U8" */
    int ndim;
    int64_t shape[8];
    size_t count; /* elements */
    const void *data;
} GoldenTensor;

typedef struct {
    const char *pattern; /* glob (fnmatch) on the case's name; the first match of a longer pattern wins */
    void (*run)(Golden *g);
} GoldenCase;

void golden_register(const GoldenCase *cases);
#define GOLDEN_REGISTER(cases)                                                       \
    __attribute__((constructor)) static void golden_register_##cases(void)           \
    {                                                                                \
        golden_register(cases);                                                      \
    }

const char *golden_name(const Golden *g); /* the case */
double golden_tolerance(const Golden *g);

/* Configuration of the case. _has tells presence; the others give the fallback when absent. _list copies at
 * most max numbers and returns how many there are. */
json_object *golden_config(const Golden *g);
bool golden_has(const Golden *g, const char *key);
int golden_int(const Golden *g, const char *key, int fallback);
double golden_real(const Golden *g, const char *key, double fallback);
const char *golden_text(const Golden *g, const char *key, const char *fallback);
int golden_list(const Golden *g, const char *key, double *out, int max);

/* Tensors by name. _get fails the case when there is none; _find doesn't. _at walks all, in the
 * file's order. */
const GoldenTensor *golden_find(const Golden *g, const char *name);
const GoldenTensor *golden_findf(const Golden *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const GoldenTensor *golden_get(Golden *g, const char *name);
const GoldenTensor *golden_at(const Golden *g, size_t i);
/* Values as floats; NULL (and the case failed) when absent or not F32. */
const float *golden_f32(Golden *g, const char *name);

/* Compare with the stored tensor of that name; the data has as many elements as the stored one. F32: max |a -
 * b| / max |b| within the tolerance (exactly_zero gradients: relative to the file's largest gradient).
 * Returns whether it agreed. */
bool golden_check(Golden *g, const char *name, const float *got);
/* Allow relative errors up to this, where the file allows less: for devices that compute with fewer digits. */
void golden_allow(Golden *g, double tolerance);
bool golden_check_scalar(Golden *g, const char *name, double got);
/* The same, leaving out elements where skip(i) tells so. */
bool golden_check_except(Golden *g, const char *name, const float *got, bool (*skip)(size_t i, size_t count));
/* Statistics of random draws: |got[i] - stored[i]| <= allowed[i]. */
bool golden_check_within(Golden *g, const char *name, const float *got, const double *allowed);
/* U8, I32 or I64: equality. bytes is the size of what is handed over, and must be the stored one's. */
bool golden_check_equal(Golden *g, const char *name, const void *got, size_t bytes);

/* Don't require tensors whose names match the glob; the reason is printed. */
void golden_excuse(Golden *g, const char *pattern, const char *why);
void golden_fail(Golden *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
