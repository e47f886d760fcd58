/* Inside of the emulated cuDNN: descriptors, and running what they describe. */
#ifndef EMULATE_CUDNN_GRAPH_H
#define EMULATE_CUDNN_GRAPH_H

#include "cudnn.h"

#include <string.h>

#include <map>
#include <vector>

struct Attribute {
    int type;
    int64_t count;
    std::vector<char> bytes;
};

struct Descriptor {
    int kind = 0;
    bool final = false, varies = false;
    Descriptor *graph = nullptr; /* of an engine's configuration */
    std::map<int, Attribute> attributes;

    bool has(int name) const { return attributes.count(name) != 0; }
    template <typename V> V value(int name, int64_t i = 0) const
    {
        V v;
        memcpy(&v, attributes.at(name).bytes.data() + (size_t)i * sizeof v, sizeof v);
        return v;
    }
    Descriptor *part(int name, int64_t i = 0) const { return value<Descriptor *>(name, i); }
    std::vector<int64_t> numbers(int name) const
    {
        std::vector<int64_t> n;
        for (int64_t i = 0; i < attributes.at(name).count; i++)
            n.push_back(value<int64_t>(name, i));
        return n;
    }
    bool is_virtual() const { return has(CUDNN_ATTR_TENSOR_IS_VIRTUAL) && value<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL); }
    int64_t uid() const { return value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID); }
    std::vector<const Descriptor *> operations() const /* of a graph */
    {
        std::vector<const Descriptor *> all;
        for (int64_t i = 0; i < attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).count; i++)
            all.push_back(part(CUDNN_ATTR_OPERATIONGRAPH_OPS, i));
        return all;
    }
    bool half() const { return value<int>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_BFLOAT16; }
};

typedef std::map<int64_t, void *> Operands; /* memory by a tensor's id */

/* One operation. NULL, or what is wrong. varies: by an engine that gives other numbers. */
const char *graph_execute(const Descriptor &operation, const Operands &memory, bool varies);

/* Attention's backward pass as a formula: cudnn_formula.cc. */
bool formula_is(const Descriptor &graph);
const char *formula_fault(const Descriptor &graph); /* NULL, or what is wrong with its operations */
bool formula_supported(const Descriptor &graph);
const char *formula_execute(const Descriptor &graph, const Operands &memory, bool varies);

/* Graphs of a product and pointwise operations: cudnn_pointwise.cc. */
bool fusion_is(const Descriptor &graph);
const char *fusion_fault(const Descriptor &graph); /* NULL, or what is wrong with its operations */
bool fusion_supported(const Descriptor &graph);
const char *fusion_execute(const Descriptor &graph, const Operands &memory, bool varies);

#endif
