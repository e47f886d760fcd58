/* Attention's backward pass, which cuDNN knows by its formula: a graph of just these operations on tensors of four dimensions.
 * They are checked and computed one by one as the descriptors say, what is virtual in memory of the host. */
#include "cudnn_graph.h"

#include "memory.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>

#include <memory>
#include <set>

namespace {

typedef std::vector<int64_t> Sides;

enum { PRODUCT = 100, SUM, SHAPE }; /* beside the modes of pointwise operations */

const int formula[] = { CUDNN_POINTWISE_MUL, SUM, CUDNN_POINTWISE_MUL, PRODUCT, CUDNN_POINTWISE_MUL, CUDNN_POINTWISE_SUB,
                        CUDNN_POINTWISE_EXP, SHAPE, PRODUCT, PRODUCT, CUDNN_POINTWISE_SUB, CUDNN_POINTWISE_MUL,
                        CUDNN_POINTWISE_MUL, SHAPE, PRODUCT, SHAPE, PRODUCT };

struct Step {
    int what = -1;
    const Descriptor *x = nullptr, *b = nullptr, *y = nullptr; /* b or NULL */
};

Step step(const Descriptor &op)
{
    Step s;
    switch (op.kind) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        if (op.part(CUDNN_ATTR_OPERATION_MATMUL_DESC)->value<int>(CUDNN_ATTR_MATMUL_COMP_TYPE) == CUDNN_DATA_FLOAT)
            s.what = PRODUCT;
        s.x = op.part(CUDNN_ATTR_OPERATION_MATMUL_ADESC);
        s.b = op.part(CUDNN_ATTR_OPERATION_MATMUL_BDESC);
        s.y = op.part(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
        break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        if (op.part(CUDNN_ATTR_OPERATION_REDUCTION_DESC)->value<int>(CUDNN_ATTR_REDUCTION_COMP_TYPE) == CUDNN_DATA_FLOAT)
            s.what = SUM;
        s.x = op.part(CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
        s.y = op.part(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
        break;
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        s.what = SHAPE;
        s.x = op.part(CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
        s.y = op.part(CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
        break;
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        if (!op.has(CUDNN_ATTR_OPERATION_POINTWISE_XDESC) || !op.has(CUDNN_ATTR_OPERATION_POINTWISE_YDESC))
            break;
        s.what = op.part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->value<int>(CUDNN_ATTR_POINTWISE_MODE);
        s.x = op.part(CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
        s.y = op.part(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
        if (op.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC))
            s.b = op.part(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
        break;
    }
    return s;
}

Sides dims(const Descriptor *t)
{
    return t->numbers(CUDNN_ATTR_TENSOR_DIMENSIONS);
}

Sides strides(const Descriptor *t)
{
    return t->numbers(CUDNN_ATTR_TENSOR_STRIDES);
}

int64_t count(const Sides &n)
{
    return n[0] * n[1] * n[2] * n[3];
}

bool shapes_fit(const Step &s)
{
    Sides x = dims(s.x), y = dims(s.y), b = s.b ? dims(s.b) : x;
    if (x.size() != 4 || y.size() != 4 || b.size() != 4)
        return false;
    switch (s.what) {
    case PRODUCT: return x[3] == b[2] && x[0] == b[0] && x[1] == b[1] && y == Sides{ x[0], x[1], x[2], b[3] };
    case SUM: return y == Sides{ x[0], x[1], x[2], 1 };
    case SHAPE: return count(x) == count(y);
    }
    bool unary = s.what == CUDNN_POINTWISE_EXP;
    for (int i = 0; i < 4; i++)
        if (x[(size_t)i] != y[(size_t)i] || (b[(size_t)i] != y[(size_t)i] && b[(size_t)i] != 1))
            return false;
    return unary == !s.b;
}

/* Numbers where a tensor's strides put them. */
struct Array {
    std::shared_ptr<std::vector<float>> at;
    Sides dim, stride;

    Array() = default;
    explicit Array(const Descriptor *t) : dim(dims(t)), stride(strides(t))
    {
        at = std::make_shared<std::vector<float>>((size_t)(place(dim[0] - 1, dim[1] - 1, dim[2] - 1, dim[3] - 1) + 1), NAN);
    }
    int64_t place(int64_t a, int64_t b, int64_t c, int64_t d) const
    {
        return a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
    }
    /* A side of one is read for all. */
    float &of(int64_t a, int64_t b, int64_t c, int64_t d) const
    {
        return (*at)[(size_t)place(dim[0] == 1 ? 0 : a, dim[1] == 1 ? 0 : b, dim[2] == 1 ? 0 : c, dim[3] == 1 ? 0 : d)];
    }
    template <typename F> void each(F f) const
    {
        for (int64_t a = 0; a < dim[0]; a++)
            for (int64_t b = 0; b < dim[1]; b++)
                for (int64_t c = 0; c < dim[2]; c++)
                    for (int64_t d = 0; d < dim[3]; d++)
                        f(a, b, c, d);
    }
};

Array compute(const Step &s, const Array &x, const Array &b)
{
    Array y(s.y);
    if (s.what == SHAPE) { /* the same memory, read another way */
        y.at = x.at;
        return y;
    }
    y.each([&](int64_t i, int64_t h, int64_t r, int64_t c) {
        float v = 0;
        switch (s.what) {
        case PRODUCT:
            for (int64_t k = 0; k < x.dim[3]; k++)
                v += x.of(i, h, r, k) * b.of(i, h, k, c);
            break;
        case SUM:
            for (int64_t k = 0; k < x.dim[3]; k++)
                v += x.of(i, h, r, k);
            break;
        case CUDNN_POINTWISE_MUL: v = x.of(i, h, r, c) * b.of(i, h, r, c); break;
        case CUDNN_POINTWISE_SUB: v = x.of(i, h, r, c) - b.of(i, h, r, c); break;
        case CUDNN_POINTWISE_EXP: v = expf(x.of(i, h, r, c)); break;
        }
        y.of(i, h, r, c) = v;
    });
    return y;
}

/* As if it had been stored. */
void round_to_half(const Array &x)
{
    for (float &v : *x.at) {
        __nv_bfloat16 h = __float2bfloat16(v);
        v = __bfloat162float(h);
    }
}

} // namespace

bool formula_is(const Descriptor &graph)
{
    for (const Descriptor *op : graph.operations())
        if (op->kind == CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
            return true;
    return false;
}

const char *formula_fault(const Descriptor &graph)
{
    std::map<int64_t, const Descriptor *> known;
    std::set<int64_t> made, used;
    for (const Descriptor *op : graph.operations()) {
        Step s = step(*op);
        if (s.what < 0 || !shapes_fit(s))
            return "operands that go together";
        for (const Descriptor *t : { s.x, s.b, s.y }) {
            if (t && known.emplace(t->uid(), t).first->second != t)
                return "one tensor of an id";
            if (t && t != s.y && t->is_virtual() && !made.count(t->uid()))
                return "virtual tensors that an operation made";
            if (t && t != s.y)
                used.insert(t->uid());
        }
        if (used.count(s.y->uid()) || !made.insert(s.y->uid()).second)
            return "a tensor that is written once, before it is read";
    }
    for (const auto &t : known)
        if (t.second->is_virtual() && !used.count(t.first))
            return "virtual tensors that an operation uses";
    return nullptr;
}

/* In BF16, of heads whose size is a multiple of 8 up to 256; within, F32 but for what is an operand turned round. */
bool formula_supported(const Descriptor &graph)
{
    std::vector<const Descriptor *> ops = graph.operations();
    if (ops.size() != sizeof formula / sizeof *formula || getenv("HSSL_EMULATE_NO_SDPA"))
        return false;
    for (size_t i = 0; i < ops.size(); i++) {
        Step s = step(*ops[i]);
        if (s.what != formula[i] || (s.y->is_virtual() && s.what != SHAPE && s.y->half()))
            return false;
        if (s.what == SHAPE && !s.y->half())
            return false;
        for (const Descriptor *t : { s.x, s.b, s.y })
            if (t && !t->is_virtual() && !t->half() && dims(t)[3] != 1)
                return false;
    }
    int64_t dim = dims(step(*ops[3]).x)[3];
    return dim % 8 == 0 && dim <= 256;
}

const char *formula_execute(const Descriptor &graph, const Operands &memory, bool varies)
{
    std::map<int64_t, Array> values;
    std::set<int64_t> in_memory;
    for (const Descriptor *op : graph.operations()) {
        Step s = step(*op);
        for (const Descriptor *t : { s.x, s.b, s.y }) {
            if (!t || values.count(t->uid()) || t->is_virtual())
                continue;
            auto found = memory.find(t->uid());
            if (found == memory.end() || !found->second)
                return "memory for each tensor";
            Array a(t);
            bool by_value = t->has(CUDNN_ATTR_TENSOR_IS_BY_VALUE);
            size_t bytes = a.at->size() * (t->half() ? 2 : 4);
            if (by_value ? !memory_lacks(found->second, bytes) : !memory_holds(found->second, bytes))
                return by_value ? "scalars in the host's memory" : "tensors in the device's memory";
            if (!by_value && (uintptr_t)found->second % (uintptr_t)t->value<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT))
                return "aligned tensors";
            a.each([&](int64_t i, int64_t h, int64_t r, int64_t c) {
                a.of(i, h, r, c) = number(found->second, t->half(), a.place(i, h, r, c));
            });
            values[t->uid()] = a;
            in_memory.insert(t->uid());
        }
        Array y = compute(s, values.at(s.x->uid()), s.b ? values.at(s.b->uid()) : Array());
        if (s.y->half() && s.what != SHAPE)
            round_to_half(y);
        if (s.what == SHAPE && !s.x->half()) { /* a copy in its own type */
            y.at = std::make_shared<std::vector<float>>(*y.at);
            round_to_half(y);
        }
        values[s.y->uid()] = y;
        if (!s.y->is_virtual())
            y.each([&](int64_t i, int64_t h, int64_t r, int64_t c) {
                set_number(memory.at(s.y->uid()), s.y->half(), y.place(i, h, r, c), y.of(i, h, r, c) + (varies ? 1 : 0));
            });
    }
    return in_memory.size() == memory.size() ? nullptr : "no memory but for the graph's tensors";
}
