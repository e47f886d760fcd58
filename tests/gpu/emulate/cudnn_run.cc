/* Convolutions and attention as their descriptors say, by plain loops. */
#include "cudnn_graph.h"

#include "memory.h"
#include "numbers.h"

#include <math.h>

namespace {

/* A tensor of four dimensions in memory. */
struct View {
    char *p = nullptr;
    bool half = false;
    std::vector<int64_t> dim, stride;

    int64_t at(int64_t a, int64_t b, int64_t c, int64_t d) const
    {
        return a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
    }
    float get(int64_t a, int64_t b, int64_t c, int64_t d) const { return number(p, half, at(a, b, c, d)); }
    void set(int64_t a, int64_t b, int64_t c, int64_t d, float v) const { set_number(p, half, at(a, b, c, d), v); }
    bool same(const View &o) const { return dim == o.dim; }
};

const char *fault;

View view(const Descriptor &op, int name, const Operands &memory)
{
    View v;
    const Descriptor *t = op.part(name);
    v.half = t->half();
    v.dim = t->numbers(CUDNN_ATTR_TENSOR_DIMENSIONS);
    v.stride = t->numbers(CUDNN_ATTR_TENSOR_STRIDES);
    if (v.dim.size() != 4 || t->has(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
        fault = "tensors of four dimensions in memory";
        return v;
    }
    auto found = memory.find(t->value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID));
    bool by_value = t->has(CUDNN_ATTR_TENSOR_IS_BY_VALUE) && t->value<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE);
    if (found == memory.end() || !found->second) {
        fault = "memory for each tensor";
        return v;
    }
    v.p = (char *)found->second;
    size_t bytes = (size_t)(v.at(v.dim[0] - 1, v.dim[1] - 1, v.dim[2] - 1, v.dim[3] - 1) + 1) * (v.half ? 2 : 4);
    if (by_value ? !memory_lacks(v.p, bytes) : !memory_holds(v.p, bytes))
        fault = by_value ? "scalars in the host's memory" : "tensors in the device's memory";
    if (!by_value && (uintptr_t)v.p % (uintptr_t)t->value<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT))
        fault = "aligned tensors";
    return v;
}

/* x [n,c,h,w], w [k,c,r,s], y [n,k,p,q]. each(n, k, p, q, c, r, s, h, w) for each product that y is made of. */
template <typename F> void convolve(const Descriptor &conv, const View &x, const View &w, const View &y, F each)
{
    auto pad = conv.numbers(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS), after = conv.numbers(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    auto step = conv.numbers(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), apart = conv.numbers(CUDNN_ATTR_CONVOLUTION_DILATIONS);
    for (int i = 0; i < 2; i++)
        if ((x.dim[2 + i] + pad[i] + after[i] - apart[i] * (w.dim[2 + i] - 1) - 1) / step[i] + 1 != y.dim[2 + i])
            fault = "the size of the result";
    if (x.dim[0] != y.dim[0] || x.dim[1] != w.dim[1] || w.dim[0] != y.dim[1] ||
        conv.value<int>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION)
        fault = "shapes that go together";
    for (int64_t n = 0; !fault && n < y.dim[0]; n++)
        for (int64_t p = 0; p < y.dim[2]; p++)
            for (int64_t q = 0; q < y.dim[3]; q++)
                for (int64_t r = 0; r < w.dim[2]; r++)
                    for (int64_t s = 0; s < w.dim[3]; s++) {
                        int64_t h = p * step[0] + r * apart[0] - pad[0], v = q * step[1] + s * apart[1] - pad[1];
                        if (h >= 0 && h < x.dim[2] && v >= 0 && v < x.dim[3])
                            for (int64_t k = 0; k < y.dim[1]; k++)
                                for (int64_t c = 0; c < x.dim[1]; c++)
                                    each(n, k, p, q, c, r, s, h, v);
                    }
}

/* Sums are made in F32 and rounded once. */
struct Sums {
    const View &to;
    std::vector<float> sum;

    explicit Sums(const View &v) : to(v), sum((size_t)(v.dim[0] * v.dim[1] * v.dim[2] * v.dim[3])) {}
    float &of(int64_t a, int64_t b, int64_t c, int64_t d)
    {
        return sum[(size_t)(((a * to.dim[1] + b) * to.dim[2] + c) * to.dim[3] + d)];
    }
    void store(bool varies)
    {
        for (int64_t a = 0; a < to.dim[0]; a++)
            for (int64_t b = 0; b < to.dim[1]; b++)
                for (int64_t c = 0; c < to.dim[2]; c++)
                    for (int64_t d = 0; d < to.dim[3]; d++)
                        to.set(a, b, c, d, of(a, b, c, d) + (varies ? 1 : 0));
    }
};

void convolution(const Descriptor &op, const Operands &memory, bool varies, int first)
{
    View x = view(op, first, memory), w = view(op, first + 1, memory), y = view(op, first + 2, memory);
    const Descriptor &conv = *op.part(first + 3);
    if (op.value<double>(first + 4) != 1 || op.value<double>(first + 5) != 0)
        fault = "alpha 1 and beta 0";
    if (fault)
        return;
    bool forward = op.kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
    bool data = op.kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
    Sums sums(forward ? y : data ? x : w);
    convolve(conv, x, w, y, [&](int64_t n, int64_t k, int64_t p, int64_t q, int64_t c, int64_t r, int64_t s, int64_t h, int64_t v) {
        if (forward)
            sums.of(n, k, p, q) += x.get(n, c, h, v) * w.get(k, c, r, s);
        else if (data)
            sums.of(n, c, h, v) += y.get(n, k, p, q) * w.get(k, c, r, s);
        else
            sums.of(k, c, r, s) += y.get(n, k, p, q) * x.get(n, c, h, v);
    });
    if (!fault)
        sums.store(varies);
}

void attention(const Descriptor &op, const Operands &memory, bool varies)
{
    View q = view(op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, memory), k = view(op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, memory);
    View v = view(op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, memory), o = view(op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, memory);
    View scale = view(op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, memory), stat;
    if (op.has(CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC))
        stat = view(op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, memory);
    if (!fault && (!q.same(o) || !k.same(v) || (stat.p && stat.half)))
        fault = "shapes that go together";
    if (fault)
        return;
    float factor = scale.get(0, 0, 0, 0);
    std::vector<float> p((size_t)k.dim[2]);
    for (int64_t b = 0; b < q.dim[0]; b++)
        for (int64_t h = 0; h < q.dim[1]; h++)
            for (int64_t i = 0; i < q.dim[2]; i++) {
                float most = -INFINITY, sum = 0;
                for (int64_t j = 0; j < k.dim[2]; j++) {
                    float s = 0;
                    for (int64_t d = 0; d < q.dim[3]; d++)
                        s += q.get(b, h, i, d) * k.get(b, h, j, d);
                    p[(size_t)j] = s * factor;
                    most = fmaxf(most, p[(size_t)j]);
                }
                for (float &x : p)
                    sum += x = expf(x - most);
                for (int64_t d = 0; d < q.dim[3]; d++) {
                    float y = varies ? 1 : 0;
                    for (int64_t j = 0; j < k.dim[2]; j++)
                        y += p[(size_t)j] / sum * v.get(b, h, j, d);
                    o.set(b, h, i, d, y);
                }
                if (stat.p)
                    stat.set(b, h, i, 0, most + logf(sum));
            }
}

} // namespace

const char *graph_execute(const Descriptor &op, const Operands &memory, bool varies)
{
    fault = NULL;
    switch (op.kind) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        convolution(op, memory, varies, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X);
        break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        convolution(op, memory, varies, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX);
        break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        convolution(op, memory, varies, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X);
        break;
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
        attention(op, memory, varies);
        break;
    default:
        fault = "an operation";
    }
    return fault;
}
