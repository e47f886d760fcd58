/* Matrix products by cuBLASLt. Row-major c = op(a) op(b) is column-major c^T = op(b)^T op(a)^T, so b goes first. The
 * choice of the algorithm is kept for each shape: made once, the same in every run. */
#include "tensor/cuda/products.h"

#include "util/err.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACE = 32 << 20 };

/* What a product does beside: nothing, a bias, or the sums of its first matrix. Exact GELU and its gradient are kernels of
 * ours, or cuDNN's (fused_gelu.c), since this library's are those of the approximation by tanh. */
typedef enum { EXTRA_NONE, EXTRA_BIAS, EXTRA_SUM } Extra;

/* All that the choice depends on. */
typedef struct {
    int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
    int type, type_c, ta, tb, extra;
    uint32_t align_a, align_b, align_c, align_vector; /* bytes that the addresses are multiples of, up to 256 */
} Shape;

typedef struct Plan {
    struct Plan *next;
    Shape shape;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    bool none; /* the library has nothing for it */
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
    /* Our first matrix is the library's second. */
    static const cublasLtEpilogue_t epilogues[] = { CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                                    CUBLASLT_EPILOGUE_BGRADB };
    cudaDataType_t vector = data_type(s->type_c);
    if (blas_check(cublasLtMatmulDescCreate(&p->product, compute, CUDA_R_32F), "a product") ||
        set_product(p, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first) ||
        set_product(p, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second) ||
        set_product(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogues[s->extra], sizeof epilogues[s->extra]) ||
        (s->extra && set_product(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &vector, sizeof vector)))
        return -1;
    /* Stored: a [m,k] or [k,m], b [k,n] or [n,k], each row-major; read as columns their sides change places. */
    return make_layout(&p->a, s->type, s->tb ? s->k : s->n, s->tb ? s->n : s->k, s->ldb, s->batch, s->stride_b) ||
                   make_layout(&p->b, s->type, s->ta ? s->m : s->k, s->ta ? s->k : s->m, s->lda, s->batch, s->stride_a) ||
                   make_layout(&p->c, s->type_c, s->n, s->m, s->ldc, s->batch, s->stride_c)
               ? -1
               : 0;
}

static int prefer(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name, const void *value, size_t size)
{
    return blas_check(cublasLtMatmulPreferenceSetAttribute(p, name, value, size), "a preference");
}

static int choose(CudaDevice *d, Plan *p)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = WORKSPACE;
    int found = 0;
    if (blas_check(cublasLtMatmulPreferenceCreate(&preference), "a preference"))
        return -1;
    /* Not sums of parts in place: that they come in a fixed order is for the library to say. */
    uint32_t schemes = d->varies ? CUBLASLT_REDUCTION_SCHEME_MASK
                                 : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    /* Our first matrix is the library's second. */
    const Shape *s = &p->shape;
    int rc = prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes) ||
             prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace) ||
             prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s->align_b, sizeof s->align_b) ||
             prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s->align_a, sizeof s->align_a) ||
             prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s->align_c, sizeof s->align_c) ||
             prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->align_c, sizeof s->align_c);
    if (!rc)
        p->none = cublasLtMatmulAlgoGetHeuristic(d->blas->handle, p->product, p->a, p->b, p->c, p->c, preference, 1, &result,
                                                 &found) != CUBLAS_STATUS_SUCCESS ||
                  !found;
    cublasLtMatmulPreferenceDestroy(preference);
    if (!rc && !p->none)
        p->algorithm = result.algo;
    return rc ? -1 : 0;
}

static void free_plan(Plan *p)
{
    cublasLtMatrixLayoutDestroy(p->a);
    cublasLtMatrixLayoutDestroy(p->b);
    cublasLtMatrixLayoutDestroy(p->c);
    cublasLtMatmulDescDestroy(p->product);
    free(p);
}

static Plan *find_plan(CudaDevice *d, const Shape *shape, const void *vector)
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
    /* The choice looks at the vector's address, too. */
    if (describe(d, p) || (shape->extra && set_product(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector, sizeof vector)) ||
        choose(d, p)) {
        free_plan(p);
        return NULL;
    }
    p->next = *bucket;
    return *bucket = p;
}

/* The plan with what is wanted beside the product, or without where the library has none. */
static Plan *find_best(CudaDevice *d, Shape *s, const void *vector)
{
    Plan *p = find_plan(d, s, vector);
    if (p && p->none && s->extra) {
        s->extra = EXTRA_NONE;
        s->align_vector = 0;
        p = find_plan(d, s, NULL);
    }
    if (p && p->none) {
        err_set(ERR_SYSTEM, "cuBLASLt: no algorithm for a product of %lld x %lld x %lld", (long long)s->m, (long long)s->n,
                (long long)s->k);
        return NULL;
    }
    return p;
}

/* The vector that goes into the product or comes out of it, of the result's type; NULL with an error. */
static void *vector(Backend *be, const MatmulArgs *m, Extra extra)
{
    if (extra == EXTRA_BIAS && m->type_c == DT_F32)
        return (void *)(uintptr_t)m->bias;
    if (extra == EXTRA_SUM && !m->add_sum)
        return m->sum;
    void *p = cuda_scratch(be, CUDA_SCRATCH_BIAS, (size_t)(extra == EXTRA_BIAS ? m->n : m->m) * sizeof(float));
    CastArgs c = { .from = DT_F32, .to = m->type_c, .n = m->n, .x = m->bias, .out = p };
    return p && (extra != EXTRA_BIAS || !be->cast(be, &c)) ? p : NULL;
}

static int product(Backend *be, const MatmulArgs *m, void *c, Plan *p, Extra extra, void *v)
{
    CudaDevice *d = (CudaDevice *)be;
    static const float one = 1, none = 0;
    void *workspace = cuda_scratch(be, CUDA_SCRATCH_WORKSPACE, WORKSPACE);
    if (!workspace || (extra && set_product(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &v, sizeof v)) ||
        blas_check(cublasLtMatmul(d->blas->handle, p->product, &one, m->b, p->a, m->a, p->b, m->add ? &one : &none, c, p->c, c,
                                  p->c, &p->algorithm, workspace, WORKSPACE, d->stream),
                   "a product"))
        return -1;
    PointArgs sum = { .type = DT_F32, .n = m->m, .x = v, .factor = 1, .out = m->sum, .add = true };
    return extra == EXTRA_SUM && m->add_sum ? be->add(be, &sum) : 0;
}

static int zero_result(Backend *be, const MatmulArgs *m, void *c, int64_t batch)
{
    for (int64_t i = 0; !m->add && i < batch * m->m; i++)
        if (be->zero(be, element(c, m->type_c, i / m->m * m->stride_c + i % m->m * m->ldc), (size_t)m->n * dtype_size(m->type_c)))
            return -1;
    return 0;
}

/* c *= gelu'(gelu_at), row by row where those lie apart. */
static int times_slope(Backend *be, const MatmulArgs *m)
{
    int64_t rows = m->ldc == m->n ? 1 : m->m;
    for (int64_t i = 0; i < rows; i++) {
        void *c = element(m->c, m->type_c, i * m->ldc);
        PointArgs p = { .type = m->type_c, .n = m->m / rows * m->n, .x = element(m->gelu_at, m->type_c, i * m->ldc), .y = c,
                        .out = c };
        if (be->gelu_backward(be, &p))
            return -1;
    }
    return 0;
}

static uint32_t alignment(const void *p)
{
    uintptr_t lowest = (uintptr_t)p & -(uintptr_t)p;
    return lowest < 256 ? (uint32_t)lowest : 256;
}

static int matmul(Backend *be, const MatmulArgs *m)
{
    Shape s;
    if (!m->m || !m->n)
        return 0;
    int fused = m->gelu || m->gelu_at ? cuda_fused_gelu(be, m) : 1;
    if (fused <= 0)
        return fused;
    void *c = m->pre ? m->pre : m->c;
    int64_t batch = m->batch > 1 ? m->batch : 1;
    memset(&s, 0, sizeof s); /* also what lies between its members: it is hashed */
    s.m = m->m, s.n = m->n, s.k = m->k, s.lda = m->lda, s.ldb = m->ldb, s.ldc = m->ldc, s.batch = batch;
    s.stride_a = m->stride_a, s.stride_b = m->stride_b, s.stride_c = m->stride_c;
    s.type = m->type, s.type_c = m->type_c, s.ta = m->ta, s.tb = m->tb;
    s.extra = m->bias && batch == 1 ? EXTRA_BIAS : m->sum && m->type_c == DT_F32 ? EXTRA_SUM : EXTRA_NONE;
    if (m->k) {
        void *v = s.extra ? vector(be, m, (Extra)s.extra) : NULL;
        s.align_a = alignment(m->a), s.align_b = alignment(m->b), s.align_c = alignment(c), s.align_vector = v ? alignment(v) : 0;
        Plan *p = s.extra && !v ? NULL : find_best((CudaDevice *)be, &s, v);
        if (!p || product(be, m, c, p, (Extra)s.extra, v))
            return -1;
    } else {
        s.extra = EXTRA_NONE;
        if (zero_result(be, m, c, batch))
            return -1;
    }
    ColsumArgs sum = { .type = m->type, .rows = m->k, .cols = m->m, .x = m->a, .out = m->sum, .add = m->add_sum };
    if (m->sum && s.extra != EXTRA_SUM && be->colsum(be, &sum))
        return -1;
    if (m->gelu_at)
        return times_slope(be, m);
    return cuda_bias_gelu(be, m->type_c, batch * m->m, m->n, m->ldc, s.extra == EXTRA_BIAS ? NULL : m->bias, c,
                          m->gelu ? m->c : NULL);
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
