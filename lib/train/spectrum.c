#include "train/spectrum.h"

#include "util/err.h"

#include <math.h>
#include <stdlib.h>

/* Products of all pairs of rows (n <= c) or columns: m [k, k], k = min(n, c), with the squares of the
 * singular values. */
static void products(const float *x, int64_t n, int64_t c, double *m)
{
    if (n <= c) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j <= i; j++) {
                double sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t k = 0; k < c; k++)
                    sum += (double)x[i * c + k] * x[j * c + k];
                m[i * n + j] = m[j * n + i] = sum;
            }
        return;
    }
    for (int64_t i = 0; i < c * c; i++)
        m[i] = 0;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < c; i++) {
            double of = x[r * c + i];
            for (int64_t j = 0; j < c; j++)
                m[i * c + j] += of * x[r * c + j];
        }
}

/* Householder's reflections make the symmetric m tridiagonal: d its diagonal, e [1 ... k - 1] beside it. */
static void tridiagonal(double *m, int64_t k, double *d, double *e, double *p)
{
    for (int64_t at = k - 1; at > 0; at--) {
        double *u = m + at * k, length = 0, h,
               dot = 0; /* the row left of the diagonal, which becomes the reflection */
        d[at] = u[at];
        for (int64_t j = 0; j < at; j++)
            length += u[j] * u[j];
        length = sqrt(length);
        e[at] = u[at - 1] > 0 ? -length : length;
        h = length * (length + fabs(u[at - 1])); /* |u|^2 / 2, once it is the reflection */
        if (h <= 0)
            continue;
        u[at - 1] -= e[at];
        for (int64_t i = 0; i < at; i++) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < at; j++)
                sum += m[i * k + j] * u[j];
            p[i] = sum / h;
            dot += p[i] * u[i];
        }
        for (int64_t i = 0; i < at; i++)
            p[i] -= dot / (2 * h) * u[i];
        for (int64_t i = 0; i < at; i++)
            for (int64_t j = 0; j < at; j++)
                m[i * k + j] -= u[i] * p[j] + p[i] * u[j];
    }
    d[0] = m[0];
}

/* The eigenvalues of a tridiagonal matrix take the place of d: QL steps with implicit shifts. */
static void eigenvalues(double *d, double *e, int64_t k)
{
    for (int64_t i = 1; i < k; i++)
        e[i - 1] = e[i];
    e[k - 1] = 0;
    for (int64_t from = 0; from < k; from++)
        for (int round = 0; round < 60; round++) {
            int64_t to = from;
            while (to < k - 1 && fabs(e[to]) > 1e-15 * (fabs(d[to]) + fabs(d[to + 1])))
                to++;
            if (to == from)
                break;
            double g = (d[from + 1] - d[from]) / (2 * e[from]), r = hypot(g, 1), s = 1, c = 1, p = 0;
            g = d[to] - d[from] + e[from] / (g + copysign(r, g));
            int64_t i = to - 1;
            for (; i >= from; i--) {
                double f = s * e[i], b = c * e[i];
                r = hypot(f, g);
                e[i + 1] = r;
                if (r <= 0) {
                    d[i + 1] -= p;
                    e[to] = 0;
                    break;
                }
                s = f / r;
                c = g / r;
                g = d[i + 1] - p;
                r = (d[i] - g) * s + 2 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
            }
            if (i >= from)
                continue;
            d[from] -= p;
            e[from] = g;
            e[to] = 0;
        }
}

double effective_rank(const float *x, int64_t n, int64_t c)
{
    int64_t k = n < c ? n : c;
    double *m = malloc((size_t)(k * k + 3 * k + 1) * sizeof *m), sum = 0, entropy = 0;
    if (!m)
        return err_set(ERR_MEMORY, "no memory for the products of %lld features", (long long)k);
    double *d = m + k * k, *e = d + k;
    for (int64_t i = 0; i < n * c; i++)
        sum += x[i];
    if (k < 1 || !isfinite(sum)) {
        free(m);
        return 0;
    }
    products(x, n, c, m);
    tridiagonal(m, k, d, e, e + k);
    eigenvalues(d, e, k);
    sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += d[i] = d[i] > 0 ? sqrt(d[i]) : 0;
    for (int64_t i = 0; i < k; i++)
        if (d[i] > 0)
            entropy -= d[i] / sum * log(d[i] / sum);
    free(m);
    return sum > 0 ? exp(entropy) : 0;
}
