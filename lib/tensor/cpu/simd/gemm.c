/* Rows of a matrix times a matrix that was packed once: c[m,n] = a[m,k] b[k,n] (+ c).
 *
 * A general library packs the weights again for each chunk of rows it is given; here they are packed once
 * for all chunks and threads. A panel of PANEL columns stays in the first cache while the rows go past it,
 * and a tile of TILE rows of it in registers. */
#include "tensor/cpu/simd/kernels.h"

#include <string.h>

#if defined(__AVX512F__)
enum { WIDTH = 16, VECTORS = 3, TILE = 8 };
#elif defined(__AVX2__)
enum { WIDTH = 8, VECTORS = 2, TILE = 6 };
#else
enum { WIDTH = 4, VECTORS = 2, TILE = 4 };
#endif
/* DEPTH rows of a panel at a time, so that it fits in 48 KiB with room for the rest. */
enum { PANEL = WIDTH * VECTORS, DEPTH = 192 };

typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4), may_alias));

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

static int64_t packed_size(int64_t n, int64_t k)
{
    return (n + PANEL - 1) / PANEL * PANEL * k;
}

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

static inline void transpose4(const float *from, int64_t ld, float *to)
{
    Four a = *(const Four *)from, b = *(const Four *)(from + ld);
    Four c = *(const Four *)(from + 2 * ld), d = *(const Four *)(from + 3 * ld);
    Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    Four cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(Four *)to = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(Four *)(to + PANEL) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(Four *)(to + 2 * PANEL) = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
    *(Four *)(to + 3 * PANEL) = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
}

/* Panels from..to-1 of b, stored [k,n] or, with tb, [n,k]. Within a panel: k rows of PANEL numbers. */
static void pack(const float *b, int64_t ldb, bool tb, int64_t n, int64_t k, int64_t from, int64_t to,
                 float *packed)
{
    for (int64_t p = from; p < to; p++) {
        float *out = packed + p * PANEL * k;
        int64_t at = p * PANEL, cols = n - at < PANEL ? n - at : PANEL;
        if (cols < PANEL)
            memset(out, 0, (size_t)(PANEL * k) * sizeof *out);
        if (!tb) {
            for (int64_t i = 0; i < k; i++)
                memcpy(out + i * PANEL, b + i * ldb + at, (size_t)cols * sizeof *out);
            continue;
        }
        int64_t i4 = k / 4 * 4, j4 = cols / 4 * 4;
        for (int64_t j = 0; j < j4; j += 4)
            for (int64_t i = 0; i < i4; i += 4)
                transpose4(b + (at + j) * ldb + i, ldb, out + i * PANEL + j);
        for (int64_t j = 0; j < cols; j++)
            for (int64_t i = j < j4 ? i4 : 0; i < k; i++)
                out[i * PANEL + j] = b[(at + j) * ldb + i];
    }
}

/* rows x vectors of c; element (i, p) of a lies at a[i * lda + p], or at a[p * lda + i] when it is
 * transposed. All of rows, vectors and transposed are constants at each call, so that the sums are registers.
 */
static inline __attribute__((always_inline)) void tile(int rows, int vectors, bool transposed, int64_t k,
                                                       const float *a, int64_t lda, const float *b, float *c,
                                                       int64_t ldc, bool add)
{
    Vector sum[TILE][VECTORS];
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int j = 0; j < vectors; j++)
            sum[i][j] = add ? *(const Vector *)(c + i * ldc + j * WIDTH) : (Vector){ 0 };
    for (int64_t p = 0; p < k; p++, b += PANEL) {
        Vector row[VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++)
            row[j] = *(const Vector *)(b + j * WIDTH);
        UNROLL
        for (int i = 0; i < rows; i++) {
            float x = transposed ? a[p * lda + i] : a[i * lda + p];
            UNROLL
            for (int j = 0; j < vectors; j++)
                sum[i][j] += x * row[j];
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int j = 0; j < vectors; j++)
            *(Vector *)(c + i * ldc + j * WIDTH) = sum[i][j];
}

typedef struct {
    int64_t k, lda, ldc;
    const float *b;
    bool add;
} Panel;

static inline __attribute__((always_inline)) void column(const Panel *p, int vectors, bool transposed,
                                                         int64_t rows, const float *a, float *c)
{
    int64_t next = transposed ? 1 : p->lda;
    for (; rows >= TILE; rows -= TILE, a += TILE * next, c += TILE * p->ldc)
        tile(TILE, vectors, transposed, p->k, a, p->lda, p->b, c, p->ldc, p->add);
    if (rows >= TILE / 2) {
        tile(TILE / 2, vectors, transposed, p->k, a, p->lda, p->b, c, p->ldc, p->add);
        rows -= TILE / 2, a += TILE / 2 * next, c += TILE / 2 * p->ldc;
    }
    for (; rows > 0; rows--, a += next, c += p->ldc)
        tile(1, vectors, transposed, p->k, a, p->lda, p->b, c, p->ldc, p->add);
}

static void columns(const Panel *p, int vectors, bool transposed, int64_t rows, const float *a, float *c)
{
    switch (vectors * 2 + transposed) {
    case 2: column(p, 1, false, rows, a, c); break;
    case 3: column(p, 1, true, rows, a, c); break;
    case 4: column(p, 2, false, rows, a, c); break;
    case 5: column(p, 2, true, rows, a, c); break;
    case 6: column(p, VECTORS, false, rows, a, c); break;
    case 7: column(p, VECTORS, true, rows, a, c); break;
    default: break;
    }
}

static void product(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, bool transposed,
                    const float *packed, bool add, float *c, int64_t ldc)
{
    for (int64_t p0 = 0; p0 < k || p0 == 0; p0 += DEPTH) {
        int64_t depth = k - p0 < DEPTH ? k - p0 : DEPTH;
        const float *from = a + (transposed ? p0 * lda : p0);
        for (int64_t at = 0; at < n; at += PANEL) {
            Panel p = { depth, lda, ldc, packed + at * k + p0 * PANEL, add || p0 > 0 };
            int64_t cols = n - at < PANEL ? n - at : PANEL;
            int vectors = (int)((cols + WIDTH - 1) / WIDTH);
            if (cols % WIDTH == 0) {
                columns(&p, vectors, transposed, m, from, c + at);
                continue;
            }
            /* The last columns go by way of full vectors. */
            p.ldc = PANEL;
            for (int64_t i = 0; i < m; i += TILE) {
                float edge[TILE * PANEL];
                int64_t rows = m - i < TILE ? m - i : TILE;
                for (int64_t r = 0; r < rows; r++) {
                    memset(edge + r * PANEL, 0, sizeof(float) * PANEL);
                    if (p.add)
                        memcpy(edge + r * PANEL, c + (i + r) * ldc + at, (size_t)cols * sizeof *edge);
                }
                columns(&p, vectors, transposed, rows, from + i * (transposed ? 1 : lda), edge);
                for (int64_t r = 0; r < rows; r++)
                    memcpy(c + (i + r) * ldc + at, edge + r * PANEL, (size_t)cols * sizeof *edge);
            }
        }
    }
}

void ISA_FN(cpu_gemm_kernels)(CpuKernels *k)
{
    k->gemm_panel = PANEL;
    k->gemm_packed_size = packed_size;
    k->gemm_pack = pack;
    k->gemm_product = product;
}
