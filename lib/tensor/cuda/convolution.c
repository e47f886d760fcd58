/* Convolutions: depthwise ones by kernels of our own, the others by cuDNN, channels last on both sides. cuDNN wants
 * filters with their channels last, too: ours, as PyTorch holds them, are transposed on the way. */
#include "tensor/cuda/products.h"

#include "util/err.h"

#include <cudnn.h>

enum { X = 1, W, Y };

/* A tensor [n,c,h,w] whose memory is [n,h,w,c]. */
static GraphTensor channels_last(int64_t uid, DType type, int64_t n, int64_t c, int64_t h, int64_t w)
{
    return (GraphTensor){ .uid = uid, .type = type, .dims = 4, .dim = { n, c, h, w },
                          .stride = { h * w * c, 1, w * c, c } };
}

typedef struct {
    const ConvArgs *args;
    int kind; /* which of the three operations */
} Job;

static int build(Graph *g, const void *arg)
{
    const Job *j = arg;
    const ConvArgs *a = j->args;
    GraphTensor tx = channels_last(X, a->type, a->batch, a->cin, a->h, a->w);
    GraphTensor tw = channels_last(W, a->type, a->cout, a->cin, a->kh, a->kw);
    GraphTensor ty = channels_last(Y, a->type, a->batch, a->cout, a->ho, a->wo);
    cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t dims = 2, stride[2] = { a->stride, a->stride }, pad[2] = { a->pad, a->pad }, apart[2] = { 1, 1 };
    double alpha = 1, beta = 0;
    const GraphAttribute how[] = {
        { CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims },
        { CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute },
        { CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode },
        { CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad },
        { CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad },
        { CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride },
        { CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, apart },
    };
    void *x = graph_tensor(g, &tx), *w = graph_tensor(g, &tw), *y = graph_tensor(g, &ty);
    void *conv = graph_describe(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, 7, how);
    if (!x || !w || !y || !conv)
        return -1;
    /* The names of the three operations' attributes differ and mean the same, in this order. */
    static const int names[3][6] = {
        { CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA },
        { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA },
        { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA },
    };
    static const int kinds[3] = { CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                  CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                  CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR };
    const int *name = names[j->kind];
    const GraphAttribute operation[] = {
        { name[0], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x },    { name[1], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w },
        { name[2], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y },    { name[3], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &conv },
        { name[4], CUDNN_TYPE_DOUBLE, 1, &alpha },            { name[5], CUDNN_TYPE_DOUBLE, 1, &beta },
    };
    return graph_operation(g, kinds[j->kind], 6, operation);
}

static int run(Backend *be, const ConvArgs *a, int kind, const void *x, const void *w, const void *y)
{
    CudaDevice *d = (CudaDevice *)be;
    Job j = { a, kind };
    GraphKey key = { { a->type, a->batch, a->h, a->w, a->cin, a->cout, a->ho, a->wo, a->kh, a->kw, a->stride, a->pad,
                       kind } };
    Graph *g = graph_find(d, &key, build, &j);
    return g ? graph_run(d, g, 3, (int64_t[]){ X, W, Y },
                         (void *[]){ (void *)(uintptr_t)x, (void *)(uintptr_t)w, (void *)(uintptr_t)y })
             : -1;
}

static int64_t filter_count(const ConvArgs *a)
{
    return a->cout * a->cin * a->kh * a->kw;
}

/* The filter with its channels last, in scratch memory. */
static const void *turned_filter(Backend *be, const ConvArgs *a)
{
    TransposeArgs t = { .type = a->type, .batch = a->cout, .a = a->cin, .b = (int64_t)a->kh * a->kw, .x = a->weight };
    t.out = cuda_scratch(be, CUDA_SCRATCH_FILTER, (size_t)filter_count(a) * dtype_size(a->type));
    return t.out && !be->transpose(be, &t) ? t.out : NULL;
}

static int conv(Backend *be, const ConvArgs *a)
{
    if (a->groups > 1)
        return cuda_depthwise(be, a);
    if (!a->batch)
        return 0;
    const void *w = turned_filter(be, a);
    if (!w || run(be, a, 0, a->x, w, a->y))
        return -1;
    return cuda_bias_gelu(be, a->type, a->batch * a->ho * a->wo, a->cout, a->cout, a->bias, a->y, NULL);
}

/* cuDNN has no engine for one in F32 of operands in BF16. */
static int filter_gradient(Backend *be, const ConvArgs *a)
{
    int64_t n = filter_count(a), aligned = (n + 63) / 64 * 64;
    float *dw = cuda_scratch(be, CUDA_SCRATCH_FILTER, 2 * (size_t)aligned * sizeof *dw);
    void *real = a->type == DT_F32 ? (void *)dw : dw + aligned;
    CastArgs wide = { .from = a->type, .to = DT_F32, .n = n, .x = real, .out = dw };
    TransposeArgs t = { .type = DT_F32, .batch = a->cout, .a = (int64_t)a->kh * a->kw, .b = a->cin, .add = true, .x = dw,
                        .out = a->dweight };
    if (!dw || run(be, a, 2, a->x, real, a->dy) || (real != dw && be->cast(be, &wide)))
        return -1;
    return be->transpose(be, &t);
}

static int conv_backward(Backend *be, const ConvArgs *a)
{
    if (a->groups > 1)
        return cuda_depthwise_backward(be, a);
    int64_t in = a->batch * a->h * a->w * a->cin;
    if (!a->batch)
        return 0;
    if (a->dx) {
        const void *w = turned_filter(be, a);
        void *dx = a->add ? cuda_scratch(be, CUDA_SCRATCH_SCORES, (size_t)in * dtype_size(a->type)) : a->dx;
        CastArgs sum = { .from = a->type, .to = a->type, .n = in, .x = dx, .out = a->dx, .add = true };
        if (!w || !dx || run(be, a, 1, dx, w, a->dy) || (a->add && be->cast(be, &sum)))
            return -1;
    }
    if (a->dweight && filter_gradient(be, a))
        return -1;
    ColsumArgs bias = { .type = a->type, .rows = a->batch * a->ho * a->wo, .cols = a->cout, .x = a->dy, .out = a->dbias,
                        .add = true };
    return a->dbias ? be->colsum(be, &bias) : 0;
}

void cuda_conv_table(Backend *be)
{
    be->conv = conv;
    be->conv_backward = conv_backward;
}
