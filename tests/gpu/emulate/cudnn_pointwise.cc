/* Products with pointwise operations behind them, as one kernel: what may be in such a graph, for which there is an engine,
 * and running it row by row, so that what is virtual is nowhere in memory. */
#include "cudnn_graph.h"

#include "memory.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>

#include <set>

namespace {

typedef std::vector<int64_t> Sides;

Sides dims(const Descriptor &t)
{
    return t.numbers(CUDNN_ATTR_TENSOR_DIMENSIONS);
}

Sides strides(const Descriptor &t)
{
    return t.numbers(CUDNN_ATTR_TENSOR_STRIDES);
}

const Descriptor *part_or_none(const Descriptor &op, int name)
{
    return op.has(name) ? op.part(name) : nullptr;
}

/* What an operation reads, in the order of its formula, and writes. */
struct Flow {
    int mode = -1; /* of a pointwise one */
    std::vector<const Descriptor *> in;
    const Descriptor *out = nullptr;
};

Flow flow(const Descriptor &op)
{
    Flow f;
    if (op.kind == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) {
        f.in = { op.part(CUDNN_ATTR_OPERATION_MATMUL_ADESC), op.part(CUDNN_ATTR_OPERATION_MATMUL_BDESC) };
        f.out = op.part(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
        return f;
    }
    f.mode = op.part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->value<int>(CUDNN_ATTR_POINTWISE_MODE);
    const Descriptor *x = part_or_none(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    const Descriptor *b = part_or_none(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    const Descriptor *y = part_or_none(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    const Descriptor *dx = part_or_none(op, CUDNN_ATTR_OPERATION_POINTWISE_DXDESC);
    const Descriptor *dy = part_or_none(op, CUDNN_ATTR_OPERATION_POINTWISE_DYDESC);
    if (f.mode == CUDNN_POINTWISE_ADD && x && b && y && !dx && !dy)
        f.in = { x, b }, f.out = y;
    else if (f.mode == CUDNN_POINTWISE_GELU_FWD && x && !b && y && !dx && !dy)
        f.in = { x }, f.out = y;
    else if (f.mode == CUDNN_POINTWISE_GELU_BWD && x && !b && !y && dx && dy)
        f.in = { dy, x }, f.out = dx;
    return f;
}

const char *shape_fault(const Descriptor &op, const Flow &f)
{
    if (!f.out)
        return "the tensors of a pointwise operation's mode";
    for (const Descriptor *t : f.in)
        if (dims(*t).size() != 3)
            return "products of three dimensions";
    Sides out = dims(*f.out), first = dims(*f.in[0]), last = dims(*f.in.back());
    if (op.kind == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
        return op.part(CUDNN_ATTR_OPERATION_MATMUL_DESC)->value<int>(CUDNN_ATTR_MATMUL_COMP_TYPE) != CUDNN_DATA_FLOAT ||
                       first[2] != last[1] || out != Sides{ first[0], first[1], last[2] } || first[0] != last[0]
                   ? "a product's sides"
                   : nullptr;
    if (op.part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->value<int>(CUDNN_ATTR_POINTWISE_MATH_PREC) != CUDNN_DATA_FLOAT)
        return "functions in F32";
    for (size_t i = 0; i < 3; i++)
        if (first[i] != out[i] || (last[i] != out[i] && !(f.mode == CUDNN_POINTWISE_ADD && last[i] == 1)))
            return "operands of one shape";
    return nullptr;
}

/* A tensor in memory; a side of one is read for all. */
struct Place {
    void *memory = nullptr;
    bool half;
    int64_t down, across;
    size_t bytes;

    explicit Place(const Descriptor &t) : half(t.half())
    {
        Sides n = dims(t), s = strides(t);
        bytes = (size_t)((n[1] - 1) * s[1] + (n[2] - 1) * s[2] + 1) * (half ? 2 : 4);
        down = n[1] == 1 ? 0 : s[1];
        across = n[2] == 1 ? 0 : s[2];
    }
    float get(int64_t r, int64_t c) const { return number(memory, half, r * down + c * across); }
    float put(int64_t r, int64_t c, float v) const
    {
        set_number(memory, half, r * down + c * across, v);
        return get(r, c);
    }
};

float gelu(float x)
{
    return 0.5f * x * (1 + erff(x * sqrtf(0.5f)));
}

float gelu_slope(float x)
{
    return 0.5f * (1 + erff(x * sqrtf(0.5f))) + x * expf(-0.5f * x * x) / sqrtf(2 * (float)M_PI);
}

} // namespace

bool fusion_is(const Descriptor &graph)
{
    int kind = graph.part(CUDNN_ATTR_OPERATIONGRAPH_OPS)->kind;
    return kind == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR || kind == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR;
}

const char *fusion_fault(const Descriptor &graph)
{
    std::map<int64_t, const Descriptor *> known;
    std::set<int64_t> made, used;
    for (const Descriptor *op : graph.operations()) {
        if (op->kind != CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR &&
            (op->kind != CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR || made.size()))
            return "one product, and pointwise operations behind it";
        Flow f = flow(*op);
        if (const char *fault = shape_fault(*op, f))
            return fault;
        bool behind = made.empty();
        for (const Descriptor *t : f.in) {
            behind = behind || made.count(t->uid());
            if (t->is_virtual() && !made.count(t->uid()))
                return "virtual tensors that an operation made";
            used.insert(t->uid());
        }
        if (!behind)
            return "operations that hang together";
        if (used.count(f.out->uid()) || !made.insert(f.out->uid()).second)
            return "a tensor that is written once, before it is read";
        f.in.push_back(f.out);
        for (const Descriptor *t : f.in)
            if (known.emplace(t->uid(), t).first->second != t)
                return "one tensor of an id";
    }
    for (const auto &t : known)
        if (t.second->is_virtual() && !used.count(t.first))
            return "virtual tensors that an operation uses";
    return nullptr;
}

/* Matrices in BF16 whose rows, or columns, are multiples of 16 bytes, batches of one; results by rows; what is virtual in
 * F32. */
bool fusion_supported(const Descriptor &graph)
{
    if (getenv("HSSL_EMULATE_NO_FUSION"))
        return false;
    for (const Descriptor *op : graph.operations()) {
        Flow f = flow(*op);
        bool product = f.mode < 0;
        if (dims(*f.out)[0] != 1)
            return false;
        f.in.push_back(f.out);
        for (const Descriptor *t : f.in) {
            Sides n = dims(*t), s = strides(*t);
            bool row = s[2] == 1, column = s[1] == 1, whole = n[1] == 1 || (row ? s[1] : s[2]) % 8 == 0;
            if (t->is_virtual() ? t->half() : t->value<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) % 16)
                return false;
            if (!(row || (column && product && t != f.out)) || !whole || (row ? n[2] : n[1]) % 8)
                return false;
            if (product && t != f.out && !t->half())
                return false;
        }
    }
    return true;
}

const char *fusion_execute(const Descriptor &graph, const Operands &memory, bool varies)
{
    std::vector<Flow> steps;
    std::map<int64_t, Place> places;
    for (const Descriptor *op : graph.operations()) {
        steps.push_back(flow(*op));
        std::vector<const Descriptor *> tensors = steps.back().in;
        tensors.push_back(steps.back().out);
        for (const Descriptor *t : tensors) {
            Place p(*t);
            auto found = memory.find(t->uid());
            if (t->is_virtual() && found != memory.end())
                return "no memory for what is virtual";
            if (t->is_virtual())
                continue;
            if (found == memory.end() || !found->second)
                return "memory for each tensor";
            p.memory = found->second;
            if (!memory_holds(p.memory, p.bytes))
                return "tensors in the device's memory";
            if ((uintptr_t)p.memory % (uintptr_t)t->value<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT))
                return "aligned tensors";
            places.emplace(t->uid(), p);
        }
    }
    if (places.size() != memory.size())
        return "no memory but for the graph's tensors";
    const Place &a = places.at(steps[0].in[0]->uid()), &b = places.at(steps[0].in[1]->uid());
    int64_t rows = dims(*steps[0].out)[1], cols = dims(*steps[0].out)[2], depth = dims(*steps[0].in[0])[2];
    std::vector<float> weight;
    for (int64_t k = 0; k < depth; k++)
        for (int64_t c = 0; c < cols; c++)
            weight.push_back(b.get(k, c));
    std::map<int64_t, std::vector<float>> made; /* this row of each result */
    for (int64_t r = 0; r < rows; r++)
        for (const Flow &f : steps) {
            std::vector<float> y((size_t)cols), in[2];
            for (int64_t k = 0; f.mode < 0 && k < depth; k++) {
                float x = a.get(r, k);
                for (int64_t c = 0; c < cols; c++)
                    y[(size_t)c] += x * weight[(size_t)(k * cols + c)];
            }
            for (size_t i = 0; f.mode >= 0 && i < f.in.size(); i++) {
                auto before = made.find(f.in[i]->uid());
                if (before != made.end())
                    in[i] = before->second;
                for (int64_t c = 0; before == made.end() && c < cols; c++)
                    in[i].push_back(places.at(f.in[i]->uid()).get(r, c));
            }
            for (size_t c = 0; f.mode >= 0 && c < (size_t)cols; c++)
                y[c] = f.mode == CUDNN_POINTWISE_ADD        ? in[0][c] + in[1][c]
                       : f.mode == CUDNN_POINTWISE_GELU_FWD ? gelu(in[0][c])
                                                            : in[0][c] * gelu_slope(in[1][c]);
            auto to = places.find(f.out->uid());
            for (int64_t c = 0; to != places.end() && c < cols; c++) /* who reads it finds what was stored */
                y[(size_t)c] = to->second.put(r, c, y[(size_t)c] + (varies ? 1 : 0));
            made[f.out->uid()] = y;
        }
    return nullptr;
}
