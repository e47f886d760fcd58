/* Matrix products by cuBLASLt. Row-major c = op(a) op(b) is column-major c^T = op(b)^T op(a)^T, so b goes first. The
 * choice of the algorithm is kept for each shape: made once, the same in every run. */
#include "tensor/cuda/products.h"

#include "util/err.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACE = 32 << 20 };

/* All that the choice depends on. */
typedef struct {
    int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
    int type, type_c, ta, tb, bias;
} Shape;

typedef struct Plan {
    struct Plan *next;
    Shape shape;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} Plan;

struct Blas {
    cublasLtHandle_t handle;
    Plan *plans[256];
};

static int blas_check(cublasStatus_t s, const char *what)
{
    return s == CUBLAS_STATUS_SUCCESS ? 0 : err_set(ERR_SYSTEM, "cuBLASLt: %s: %s", what, cublasLtGetStatusString(s));
}

static cudaDataType_t data_type(int type)
{
    return type == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static int make_layout(cublasLtMatrixLayout_t *l, int type, int64_t rows, int64_t cols, int64_t ld, int64_t batch,
                       int64_t stride)
{
    int32_t count = (int32_t)batch;
    if (blas_check(cublasLtMatrixLayoutCreate(l, data_type(type), (uint64_t)rows, (uint64_t)cols, ld), "a layout"))
        return -1;
    if (batch <= 1)
        return 0;
    return blas_check(cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
                      "a batch") ||
                   blas_check(cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                                               sizeof stride),
                              "a stride")
               ? -1
               : 0;
}

static int set_product(Plan *p, cublasLtMatmulDescAttributes_t name, const void *value, size_t size)
{
    return blas_check(cublasLtMatmulDescSetAttribute(p->product, name, value, size), "a property of a product");
}

/* Sums in F32 in all cases; TF32 rounds the operands of F32 products. */
static int describe(const CudaDevice *d, Plan *p)
{
    const Shape *s = &p->shape;
    cublasOperation_t first = s->tb ? CUBLAS_OP_T : CUBLAS_OP_N, second = s->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t compute = d->precision == CUDA_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasLtEpilogue_t epilogue = s->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cudaDataType_t bias = CUDA_R_32F;
    if (blas_check(cublasLtMatmulDescCreate(&p->product, compute, CUDA_R_32F), "a product") ||
        set_product(p, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first) ||
        set_product(p, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second) ||
        set_product(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue) ||
        (s->bias && set_product(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias, sizeof bias)))
        return -1;
    /* Stored: a [m,k] or [k,m], b [k,n] or [n,k], each row-major; read as columns their sides change places. */
    return make_layout(&p->a, s->type, s->tb ? s->k : s->n, s->tb ? s->n : s->k, s->ldb, s->batch, s->stride_b) ||
                   make_layout(&p->b, s->type, s->ta ? s->m : s->k, s->ta ? s->k : s->m, s->lda, s->batch, s->stride_a) ||
                   make_layout(&p->c, s->type_c, s->n, s->m, s->ldc, s->batch, s->stride_c)
               ? -1
               : 0;
}

static int choose(CudaDevice *d, Plan *p)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = WORKSPACE;
    int found = 0;
    if (blas_check(cublasLtMatmulPreferenceCreate(&preference), "a preference"))
        return -1;
    /* Sums of parts in place come in any order. */
    uint32_t schemes = d->varies ? CUBLASLT_REDUCTION_SCHEME_MASK
                                 : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    int rc = blas_check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                             &schemes, sizeof schemes),
                        "a preference") ||
             blas_check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                             &workspace, sizeof workspace),
                        "a preference") ||
             blas_check(cublasLtMatmulAlgoGetHeuristic(d->blas->handle, p->product, p->a, p->b, p->c, p->c, preference, 1,
                                                       &result, &found),
                        "no algorithm");
    cublasLtMatmulPreferenceDestroy(preference);
    if (rc)
        return -1;
    if (!found)
        return err_set(ERR_SYSTEM, "cuBLASLt: no algorithm for a product of %lld x %lld x %lld", (long long)p->shape.m,
                       (long long)p->shape.n, (long long)p->shape.k);
    p->algorithm = result.algo;
    return 0;
}

static void free_plan(Plan *p)
{
    cublasLtMatrixLayoutDestroy(p->a);
    cublasLtMatrixLayoutDestroy(p->b);
    cublasLtMatrixLayoutDestroy(p->c);
    cublasLtMatmulDescDestroy(p->product);
    free(p);
}

static Plan *find_plan(CudaDevice *d, const Shape *shape)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *shape; i++)
        h = (h ^ ((const unsigned char *)shape)[i]) * 1099511628211u;
    Plan **bucket = &d->blas->plans[h % (sizeof d->blas->plans / sizeof *d->blas->plans)];
    for (Plan *p = *bucket; p; p = p->next)
        if (!memcmp(&p->shape, shape, sizeof *shape))
            return p;
    Plan *p = calloc(1, sizeof *p);
    if (!p) {
        err_set(ERR_MEMORY, "out of memory for a plan");
        return NULL;
    }
    p->shape = *shape;
    if (describe(d, p) || choose(d, p)) {
        free_plan(p);
        return NULL;
    }
    p->next = *bucket;
    return *bucket = p;
}

/* The epilogue takes an F32 bias beside an F32 result only; a BF16 result gets its bias as a residual of rows. */
static int add_bias(Backend *be, const MatmulArgs *m)
{
    return cuda_bias(be, m->type_c, m->m, m->n, m->ldc, m->bias, m->c);
}

static int matmul(Backend *be, const MatmulArgs *m)
{
    CudaDevice *d = (CudaDevice *)be;
    static const float one = 1, none = 0;
    Shape s;
    if (!m->m || !m->n)
        return 0;
    int64_t batch = m->batch > 1 ? m->batch : 1;
    if (!m->k) {
        for (int64_t i = 0; !m->add && i < batch * m->m; i++)
            if (be->zero(be, element(m->c, m->type_c, i / m->m * m->stride_c + i % m->m * m->ldc),
                         (size_t)m->n * dtype_size(m->type_c)))
                return -1;
    } else {
        memset(&s, 0, sizeof s); /* also what lies between its members: it is hashed */
        s.m = m->m, s.n = m->n, s.k = m->k, s.lda = m->lda, s.ldb = m->ldb, s.ldc = m->ldc, s.batch = batch;
        s.stride_a = m->stride_a, s.stride_b = m->stride_b, s.stride_c = m->stride_c;
        s.type = m->type, s.type_c = m->type_c, s.ta = m->ta, s.tb = m->tb;
        s.bias = m->bias && m->type_c == DT_F32 && m->type == DT_F32;
        Plan *p = find_plan(d, &s);
        void *workspace = cuda_scratch(be, CUDA_SCRATCH_WORKSPACE, WORKSPACE);
        if (!p || !workspace ||
            (s.bias && set_product(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &m->bias, sizeof m->bias)) ||
            blas_check(cublasLtMatmul(d->blas->handle, p->product, &one, m->b, p->a, m->a, p->b, m->add ? &one : &none,
                                      m->c, p->c, m->c, p->c, &p->algorithm, workspace, WORKSPACE, d->stream),
                       "a product"))
            return -1;
    }
    if (m->bias && !(m->k && s.bias) && add_bias(be, m))
        return -1;
    if (!m->pre)
        return 0;
    /* Exact GELU is a kernel of its own: the library's epilogue is the tanh approximation. */
    CopyArgs keep = { .type = m->type_c, .outer = m->m, .inner = 1, .n = m->n, .x = m->c, .out = m->pre,
                      .x_outer = m->ldc, .out_outer = m->ldc };
    PointArgs g = { .type = m->type_c, .n = m->m * m->ldc, .x = m->pre, .out = m->c };
    return be->copy(be, &keep) || be->gelu(be, &g) ? -1 : 0;
}

void cuda_linear_table(Backend *be)
{
    be->matmul = matmul;
}

int products_open(CudaDevice *d)
{
    if (!(d->blas = calloc(1, sizeof *d->blas)))
        return err_set(ERR_MEMORY, "out of memory");
    if (blas_check(cublasLtCreate(&d->blas->handle), "start"))
        return -1;
    return graph_open(d);
}

void products_close(CudaDevice *d)
{
    graph_close(d);
    for (size_t i = 0; d->blas && i < sizeof d->blas->plans / sizeof *d->blas->plans; i++)
        for (Plan *p = d->blas->plans[i], *next; p; p = next) {
            next = p->next;
            free_plan(p);
        }
    if (d->blas && d->blas->handle)
        cublasLtDestroy(d->blas->handle);
    free(d->blas);
    d->blas = NULL;
}
