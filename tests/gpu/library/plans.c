/* What the real cuDNN says to each graph that the backend asks it for, without a GPU: the library plans for one that is described
 * to it. Everything is the backend's own but the device; a plan that was compiled and cannot be loaded here is a plan.
 * Linked with --wrap for the functions below, see the Makefile. */
#include "../../tap.h"

#include "tensor/cuda/products.h"
#include "util/err.h"

#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the device */

static const char *const about =
    "{\"version\":1,\"deviceName\":\"%s\",\"deviceVer\":%d,\"driverVer\":13000,\"cudaDeviceId\":0,"
    "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,"
    "\"multiProcessorCount\":%d,\"smClockRateKHz\":1980000,\"memClockRateKHz\":3201000,\"l2CacheSize\":62914560,"
    "\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"pciDeviceId\":0,\"maxCtasPerSM\":32,"
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"isTccDriver\":0,\"supportCoopLaunch\":1,"
    "\"totalGlobalMem\":150000000000}";
static const struct { const char *name; int version, processors, shared; } gpus[] = {
    { "NVIDIA H200", 900, 132, 232448 },
    { "NVIDIA A100", 800, 108, 166912 },
};

static cudnnBackendDescriptor_t gpu;

/* 0, or what the library lacks. */
static const char *describe(int which)
{
    char text[1024];
    int n = snprintf(text, sizeof text, about, gpus[which].name, gpus[which].version, gpus[which].processors, gpus[which].shared);
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &gpu) ||
        cudnnBackendSetAttribute(gpu, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, n, text) ||
        cudnnBackendFinalize(gpu))
        return "this cuDNN plans on a GPU only";
    return NULL;
}

/* ---- the library's functions, for a device that is described */

enum { MOST = 4096 };
static struct { cudnnBackendDescriptor_t part; int kind; } parts[MOST];
static int made;

static int kind_of(cudnnBackendDescriptor_t part)
{
    for (int i = made - 1; i >= 0; i--)
        if (parts[i].part == part)
            return parts[i].kind;
    return -1;
}

#define REAL(type, name, ...)      \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

REAL(cudnnStatus_t, cudnnCreate, cudnnHandle_t *h)
{
    *h = NULL;
    return CUDNN_STATUS_SUCCESS;
}

REAL(cudnnStatus_t, cudnnDestroy, cudnnHandle_t h)
{
    (void)h;
    return CUDNN_STATUS_SUCCESS;
}

REAL(cudnnStatus_t, cudnnSetStream, cudnnHandle_t h, cudaStream_t s)
{
    (void)h, (void)s;
    return CUDNN_STATUS_SUCCESS;
}

REAL(cudnnStatus_t, cudnnBackendCreateDescriptor, cudnnBackendDescriptorType_t kind, cudnnBackendDescriptor_t *out)
{
    cudnnStatus_t s = __real_cudnnBackendCreateDescriptor(kind, out);
    if (!s && made < MOST) {
        parts[made].part = *out;
        parts[made++].kind = (int)kind;
    }
    return s;
}

REAL(cudnnStatus_t, cudnnBackendSetAttribute, cudnnBackendDescriptor_t part, cudnnBackendAttributeName_t name,
     cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    return type == CUDNN_TYPE_HANDLE ? CUDNN_STATUS_SUCCESS : __real_cudnnBackendSetAttribute(part, name, type, count, values);
}

REAL(cudnnStatus_t, cudnnBackendFinalize, cudnnBackendDescriptor_t part)
{
    int kind = kind_of(part);
    if (kind == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
        __real_cudnnBackendSetAttribute(part, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &gpu);
    if (kind == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        __real_cudnnBackendSetAttribute(part, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &gpu);
    cudnnStatus_t s = __real_cudnnBackendFinalize(part);
    return kind == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && s == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER ? CUDNN_STATUS_SUCCESS : s;
}

REAL(cudnnStatus_t, cudnnBackendGetAttribute, cudnnBackendDescriptor_t part, cudnnBackendAttributeName_t name,
     cudnnBackendAttributeType_t type, int64_t room, int64_t *count, void *values)
{
    if (name != CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
        return __real_cudnnBackendGetAttribute(part, name, type, room, count, values);
    memset(values, 0, sizeof(int64_t));
    return CUDNN_STATUS_SUCCESS;
}

/* ---- what would reach for the device */

static int planned, others;

REAL(int, graph_run, CudaDevice *d, Graph *g, int n, const int64_t *uids, void *const *memory)
{
    (void)d, (void)g, (void)n, (void)uids, (void)memory;
    planned++;
    return 0;
}

REAL(void *, cuda_scratch, Backend *be, int slot, size_t bytes)
{
    (void)be, (void)slot, (void)bytes;
    return (void *)(uintptr_t)4096;
}

REAL(int, cuda_bias_gelu, Backend *be, DType type, int64_t rows, int64_t cols, int64_t ld, const float *bias, void *x, void *out)
{
    (void)be, (void)type, (void)rows, (void)cols, (void)ld, (void)bias, (void)x, (void)out;
    return 0;
}

static int transpose(Backend *be, const TransposeArgs *a)
{
    (void)be, (void)a;
    return 0;
}

static int cast(Backend *be, const CastArgs *a)
{
    (void)be, (void)a;
    return 0;
}

static int matmul(Backend *be, const MatmulArgs *a)
{
    (void)be, (void)a;
    others++;
    return -1;
}

static int colsum(Backend *be, const ColsumArgs *a)
{
    (void)be, (void)a;
    return 0;
}

/* ---- what is asked for */

static void *const somewhere = (void *)(uintptr_t)65536;

static void is_planned(int rc, const char *what, int graphs)
{
    ok(!rc && planned == graphs && !others, "%s: %s", what, rc || others ? err_text() : "planned");
    planned = others = 0;
    err_clear();
}

static void test_attention(Backend *be, int64_t tokens)
{
    AttentionArgs a = { .type = DT_BF16, .batch = 64, .tokens = tokens, .heads = 6, .dim = 64, .scale = 0.125f, .qkv = somewhere,
                        .y = somewhere };
    char what[64];
    snprintf(what, sizeof what, "attention of %d tokens, inference", (int)tokens);
    is_planned(be->attention(be, &a), what, 1);
    a.stat = somewhere;
    snprintf(what, sizeof what, "attention of %d tokens, training", (int)tokens);
    is_planned(be->attention(be, &a), what, 1);
    a.dy = a.dqkv = somewhere;
    snprintf(what, sizeof what, "attention of %d tokens, backward", (int)tokens);
    is_planned(be->attention_backward(be, &a), what, 1);
}

static void test_convolution(Backend *be, DType type)
{
    ConvArgs c = { .type = type, .batch = 8, .h = 14, .w = 14, .cin = 64, .cout = 64, .ho = 14, .wo = 14, .kh = 3, .kw = 3,
                   .stride = 1, .pad = 1, .groups = 1, .x = somewhere, .weight = somewhere, .y = somewhere };
    is_planned(be->conv(be, &c), type == DT_BF16 ? "convolution, bf16" : "convolution, fp32", 1);
    c.dy = c.dx = somewhere;
    c.dweight = somewhere;
    is_planned(be->conv_backward(be, &c), "and backward", 2);
}

static void test_gelu(Backend *be, int64_t rows, int64_t in, int64_t out)
{
    MatmulArgs m = { .type = DT_BF16, .type_c = DT_BF16, .m = rows, .n = out, .k = in, .lda = in, .ldb = in, .ldc = out, .tb = true,
                     .a = somewhere, .b = somewhere, .c = somewhere, .bias = somewhere, .gelu = true };
    is_planned(cuda_fused_gelu(be, &m), "product with gelu, inference", 1);
    m.pre = somewhere;
    is_planned(cuda_fused_gelu(be, &m), "product with gelu, training", 1);
    m = (MatmulArgs){ .type = DT_BF16, .type_c = DT_BF16, .m = rows, .n = out, .k = in, .lda = in, .ldb = out, .ldc = out,
                      .a = somewhere, .b = somewhere, .c = somewhere, .gelu_at = somewhere };
    is_planned(cuda_fused_gelu(be, &m), "product with gelu's slope", 1);
}

static void test_gpu(int which, CudaPrecision precision)
{
    CudaDevice d = { .precision = precision, .processors = gpus[which].processors };
    Backend *be = &d.table;
    diag("%s, %s", gpus[which].name, precision == CUDA_BF16 ? "bf16" : "fp32");
    cuda_attention_table(be);
    cuda_conv_table(be);
    be->transpose = transpose;
    be->cast = cast;
    be->matmul = matmul;
    be->colsum = colsum;
    if (graph_open(&d))
        return (void)ok(false, "cuDNN: %s", err_text());
    if (precision == CUDA_BF16) {
        test_attention(be, 37);
        test_attention(be, 197);
        test_gelu(be, 50432, 384, 1536);
        test_convolution(be, DT_BF16);
    } else {
        test_convolution(be, DT_F32);
    }
    graph_close(&d);
}

int main(void)
{
    setenv("HSSL_ATTENTION", "cudnn", 1);
    setenv("HSSL_GELU", "cudnn", 1);
    for (int i = 0; i < 2; i++) {
        const char *lacks = describe(i);
        if (lacks) {
            skip(lacks, "plans for GPUs that are not here");
            break;
        }
        test_gpu(i, CUDA_BF16);
        test_gpu(i, CUDA_FP32);
    }
    return tap_done();
}
