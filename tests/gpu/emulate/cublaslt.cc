/* cuBLASLt's products by plain loops: out = alpha op(a) op(b) + beta c, all by columns, for each of a batch. */
#include "cublasLt.h"

#include "memory.h"
#include "numbers.h"
#include "stream.h"

#include <stdlib.h>

#include <algorithm>
#include <vector>

struct EmulatedLayout {
    cudaDataType_t type;
    int64_t rows, cols, ld, stride;
    int32_t batch;
};

struct EmulatedProduct {
    cublasOperation_t ta, tb;
    cublasLtEpilogue_t epilogue;
    void *vector;
    int vector_type; /* -1: the result's */
};

struct EmulatedPreference {
    uint32_t schemes;
    size_t workspace;
    uint32_t alignment[4]; /* of a, b, c, out */
};

namespace {

const uint64_t ALGORITHM = 0x616c676f;

typedef std::vector<float> Floats;

/* op(x) by rows. */
Floats matrix(const void *x, const EmulatedLayout &l, int64_t batch, bool turned)
{
    int64_t rows = turned ? l.cols : l.rows, cols = turned ? l.rows : l.cols;
    Floats out((size_t)(rows * cols));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            out[(size_t)(r * cols + c)] = number(x, l.type == CUDA_R_16BF, batch * l.stride + (turned ? r * l.ld + c : c * l.ld + r));
    return out;
}

bool covers(const EmulatedLayout &l, const void *x)
{
    int64_t n = (l.batch - 1) * l.stride + (l.cols - 1) * l.ld + l.rows;
    return memory_holds(x, (size_t)n * (l.type == CUDA_R_16BF ? 2 : 4));
}

cublasStatus_t consistent(const EmulatedProduct &d, const EmulatedLayout &a, const EmulatedLayout &b, const EmulatedLayout &c)
{
    int64_t m = d.ta == CUBLAS_OP_T ? a.cols : a.rows, k = d.ta == CUBLAS_OP_T ? a.rows : a.cols;
    int64_t n = d.tb == CUBLAS_OP_T ? b.rows : b.cols, l = d.tb == CUBLAS_OP_T ? b.cols : b.rows;
    if (m != c.rows || n != c.cols || k != l || a.batch != b.batch || a.batch != c.batch || m < 1 || n < 1 || k < 1 ||
        a.ld < a.rows || b.ld < b.rows || c.ld < c.rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a.type != b.type || (a.type == CUDA_R_32F && c.type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d.epilogue == CUBLASLT_EPILOGUE_DEFAULT)
        return CUBLAS_STATUS_SUCCESS;
    if (getenv("HSSL_EMULATE_NO_EPILOGUE") || (d.vector_type >= 0 && d.vector_type != (int)c.type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

template <typename V> cublasStatus_t take(V *to, const void *value, size_t size)
{
    if (size != sizeof *to)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy((void *)to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

const char *cublasLtGetStatusString(cublasStatus_t s)
{
    static const char *const names[] = { "success", "no memory", "invalid value", "not supported" };
    return names[s];
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = (cublasLtHandle_t)new int;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    delete (int *)h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t, cudaDataType_t scale)
{
    *d = new EmulatedProduct{ CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL, -1 };
    return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name, const void *value,
                                              size_t size)
{
    switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(&d->ta, value, size);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(&d->tb, value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(&d->epilogue, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(&d->vector, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return take(&d->vector_type, value, size);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols,
                                          int64_t ld)
{
    *l = new EmulatedLayout{ type, (int64_t)rows, (int64_t)cols, ld, 0, 1 };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t size)
{
    return name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT ? take(&l->batch, value, size) : take(&l->stride, value, size);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    *p = new EmulatedPreference{ CUBLASLT_REDUCTION_SCHEME_MASK, 0, { 256, 256, 256, 256 } };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t size)
{
    if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        return take(&p->schemes, value, size);
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return take(&p->workspace, value, size);
    return take(&p->alignment[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    *found = 0;
    cublasStatus_t s = c->type == out->type && wanted > 0 ? consistent(*d, *a, *b, *out) : CUBLAS_STATUS_INVALID_VALUE;
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    *found = 1;
    results->state = s;
    results->workspaceSize = p->workspace;
    results->algo = { { ALGORITHM, (uint64_t)(p->schemes & CUBLASLT_REDUCTION_SCHEME_INPLACE), (uint64_t)d->epilogue,
                        p->alignment[0], p->alignment[1], p->alignment[2], p->alignment[3] } };
    return s;
}

static void multiply(const EmulatedProduct &d, float factor, const void *a, const EmulatedLayout &la, const void *b,
                     const EmulatedLayout &lb, float old, void *out, const EmulatedLayout &lout)
{
    bool sums = d.epilogue == CUBLASLT_EPILOGUE_BGRADB, bias = d.epilogue == CUBLASLT_EPILOGUE_BIAS;
    int64_t m = lout.rows, n = lout.cols, k = d.ta == CUBLAS_OP_T ? la.rows : la.cols;
    bool half = lout.type == CUDA_R_16BF;
    for (int64_t t = 0; t < lout.batch; t++) {
        Floats x = matrix(a, la, t, d.ta != CUBLAS_OP_T), y = matrix(b, lb, t, d.tb == CUBLAS_OP_T); /* x by columns */
        Floats column((size_t)m);
        for (int64_t j = 0; j < n; j++) {
            std::fill(column.begin(), column.end(), 0.0f);
            for (int64_t i = 0; i < k; i++) {
                const float *from = &x[(size_t)(i * m)], by = y[(size_t)(i * n + j)];
                for (int64_t r = 0; r < m; r++)
                    column[(size_t)r] += from[r] * by;
            }
            for (int64_t r = 0; r < m; r++) {
                int64_t at = t * lout.stride + j * lout.ld + r;
                float v = factor * column[(size_t)r] + (old != 0 ? old * number(out, half, at) : 0);
                set_number(out, half, at, v + (bias ? number(d.vector, half, r) : 0));
            }
            float sum = 0;
            for (int64_t i = 0; sums && i < k; i++)
                sum += y[(size_t)(i * n + j)];
            if (sums)
                set_number(d.vector, half, j, sum);
        }
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *c, cublasLtMatrixLayout_t lc, void *out, cublasLtMatrixLayout_t lout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    float factor = *(const float *)alpha, old = *(const float *)beta;
    cublasStatus_t s = consistent(*d, *la, *lb, *lout);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    bool bias = d->epilogue == CUBLASLT_EPILOGUE_BIAS, sums = d->epilogue == CUBLASLT_EPILOGUE_BGRADB;
    if (algorithm->data[0] != ALGORITHM || algorithm->data[2] != (uint64_t)d->epilogue || c != out || !covers(*la, a) ||
        !covers(*lb, b) || !covers(*lc, c) || !memory_holds(workspace, workspace_bytes) || ((bias || sums) && !d->vector))
        return CUBLAS_STATUS_INVALID_VALUE;
    const void *const operands[] = { a, b, c, out };
    for (int i = 0; i < 4; i++) /* an algorithm for better aligned matrices reads beside these */
        if ((uintptr_t)operands[i] % algorithm->data[3 + i])
            return CUBLAS_STATUS_INVALID_VALUE;
    stream_issue(stream, [=, p = *d, x = *la, y = *lb, z = *lout] {
        memset(workspace, 0xff, std::min(workspace_bytes, (size_t)4096));
        multiply(p, factor, a, x, b, y, old, out, z);
    });
    return s;
}
