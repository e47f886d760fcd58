/* cuDNN's descriptors, heuristics and plans. Convolutions and attention are done by plain loops over what the tensors'
 * descriptors say (cudnn_run.cc), and so are products with what comes behind them (cudnn_pointwise.cc). Of two engines the
 * first is not deterministic: who takes it gets other numbers. */
#include "cudnn_graph.h"

#include "memory.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>

struct cudnnContext {
    cudaStream_t stream;
};

namespace {

const char *last = "";

cudnnStatus_t bad(const char *what)
{
    last = what;
    return CUDNN_STATUS_BAD_PARAM;
}

size_t size_of(int type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    case CUDNN_TYPE_INT64: return sizeof(int64_t);
    case CUDNN_TYPE_DOUBLE: return sizeof(double);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return sizeof(void *);
    }
    return sizeof(int);
}

/* Which descriptor takes an attribute, and of which type. */
struct Rule {
    int first, last, kind, type;
};
const Rule rules[] = {
    { CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE },
    { CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64 },
    { CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_BOOLEAN },
    { CUDNN_ATTR_POINTWISE_MODE, CUDNN_ATTR_POINTWISE_MODE, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_TYPE_POINTWISE_MODE },
    { CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
      CUDNN_TYPE_DATA_TYPE },
    { CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_DYDESC,
      CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE },
    { CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
      CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
      CUDNN_TYPE_INT64 },
    { CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
      CUDNN_TYPE_DATA_TYPE },
    { CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
      CUDNN_TYPE_CONVOLUTION_MODE },
    { CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
      CUDNN_TYPE_INT64 },
    { CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
      CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
      CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_TYPE_DOUBLE },
    { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
      CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
      CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_TYPE_DOUBLE },
    { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
      CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
      CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_TYPE_DOUBLE },
    { CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC,
      CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_BACKEND_REDUCTION_DESCRIPTOR,
      CUDNN_TYPE_REDUCTION_OPERATOR_TYPE },
    { CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_BACKEND_REDUCTION_DESCRIPTOR,
      CUDNN_TYPE_DATA_TYPE },
    { CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_ATTR_OPERATION_REDUCTION_DESC,
      CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_ATTR_OPERATION_RESHAPE_YDESC,
      CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
      CUDNN_TYPE_HANDLE },
    { CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
      CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
      CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_TYPE_HEUR_MODE },
    { CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
      CUDNN_TYPE_HANDLE },
    { CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
      CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR },
    { CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
      CUDNN_TYPE_VOID_PTR },
    { CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
      CUDNN_TYPE_INT64 },
    { CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
      CUDNN_TYPE_VOID_PTR },
};

/* Attributes that a descriptor may lack. */
bool optional(int name)
{
    return name == CUDNN_ATTR_TENSOR_IS_BY_VALUE || name == CUDNN_ATTR_TENSOR_IS_VIRTUAL ||
           (name >= CUDNN_ATTR_OPERATION_POINTWISE_XDESC && name <= CUDNN_ATTR_OPERATION_POINTWISE_DYDESC) ||
           name == CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC;
}

bool complete(const Descriptor &d)
{
    for (const Rule &r : rules)
        for (int name = r.first; r.kind == d.kind && name <= r.last; name++)
            if (!d.has(name) && !optional(name))
                return false;
    for (const auto &a : d.attributes)
        for (int64_t i = 0; a.second.type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < a.second.count; i++)
            if (!d.part(a.first, i)->final)
                return false;
    return true;
}

cudnnStatus_t check_tensor(const Descriptor &d)
{
    size_t dims = d.numbers(CUDNN_ATTR_TENSOR_DIMENSIONS).size();
    if (dims != d.numbers(CUDNN_ATTR_TENSOR_STRIDES).size() || (dims != 3 && dims != 4))
        return bad("dimensions and strides");
    if (d.has(CUDNN_ATTR_TENSOR_IS_VIRTUAL) && d.has(CUDNN_ATTR_TENSOR_IS_BY_VALUE))
        return bad("a virtual tensor by value");
    for (int64_t n : d.numbers(CUDNN_ATTR_TENSOR_DIMENSIONS))
        if (n < 1)
            return bad("a dimension");
    return CUDNN_STATUS_SUCCESS;
}

/* Several operations go together behind a product, or in a formula that is known. */
cudnnStatus_t check_graph(const Descriptor &d)
{
    const char *fault = formula_is(d)                                               ? formula_fault(d)
                        : fusion_is(d)                                                ? fusion_fault(d)
                        : d.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).count > 1 ? "operations that go together"
                                                                                   : NULL;
    return fault ? bad(fault) : CUDNN_STATUS_SUCCESS;
}

/* What the library has engines for: convolutions of one type, attention in BF16 only, of heads whose size is a multiple of 8 up
 * to 256. */
bool supported(const Descriptor &graph)
{
    if (formula_is(graph))
        return formula_supported(graph);
    if (fusion_is(graph))
        return fusion_supported(graph);
    const Descriptor &op = *graph.part(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    if (op.kind != CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR) {
        int halves = 0, tensors = 0;
        for (const auto &a : op.attributes)
            if (a.second.type == CUDNN_TYPE_BACKEND_DESCRIPTOR && op.part(a.first)->kind == CUDNN_BACKEND_TENSOR_DESCRIPTOR) {
                tensors++;
                halves += op.part(a.first)->half();
            }
        return !halves || halves == tensors;
    }
    const Descriptor *q = op.part(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC);
    int64_t dim = q->numbers(CUDNN_ATTR_TENSOR_DIMENSIONS)[3];
    return q->half() && dim % 8 == 0 && dim <= 256 && !getenv("HSSL_EMULATE_NO_SDPA");
}

enum { WORKSPACE = 640 };

} // namespace

/* ---- the interface */

cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    *h = new cudnnContext{ NULL };
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t h)
{
    delete h;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s)
{
    h->stream = s;
    return CUDNN_STATUS_SUCCESS;
}

const char *cudnnGetErrorString(cudnnStatus_t s)
{
    static const char *const names[] = { "success", "bad parameter", "not supported" };
    return names[s];
}

void cudnnGetLastErrorString(char *text, size_t size)
{
    strncpy(text, last, size - 1);
    text[size - 1] = 0;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t kind, cudnnBackendDescriptor_t *out)
{
    Descriptor *d = new Descriptor;
    d->kind = kind;
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    delete (Descriptor *)d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    Descriptor *d = (Descriptor *)descriptor;
    if (d->final || count < 1 || !values)
        return bad("an attribute that cannot be set");
    for (const Rule &r : rules)
        if (name >= r.first && name <= r.last && r.kind == d->kind && r.type == (int)type) {
            const char *from = (const char *)values;
            d->attributes[name] = { type, count, std::vector<char>(from, from + (size_t)count * size_of(type)) };
            return CUDNN_STATUS_SUCCESS;
        }
    return bad("an attribute of another descriptor or type");
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    Descriptor *d = (Descriptor *)descriptor;
    if (d->final || !complete(*d))
        return bad("a descriptor that lacks something");
    if (d->kind == CUDNN_BACKEND_TENSOR_DESCRIPTOR && check_tensor(*d) != CUDNN_STATUS_SUCCESS)
        return CUDNN_STATUS_BAD_PARAM;
    if (d->kind == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR && check_graph(*d) != CUDNN_STATUS_SUCCESS)
        return CUDNN_STATUS_BAD_PARAM;
    if (d->kind == CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR &&
        d->attributes[CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS].count != d->attributes[CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS].count)
        return bad("as many pointers as ids");
    d->final = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room, int64_t *count, void *values)
{
    Descriptor *d = (Descriptor *)descriptor;
    *count = 0;
    if (!d->final)
        return bad("a descriptor that is not finalized");
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        Descriptor *graph = d->part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
        bool any = supported(*graph) && !d->value<int>(CUDNN_ATTR_ENGINEHEUR_MODE);
        for (; any && *count < 2 && *count < room; ++*count) {
            Descriptor *config = ((Descriptor **)values)[*count];
            if (config->kind != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || config->final)
                return bad("room for the heuristic's results");
            config->graph = graph;
            config->varies = *count == 0;
            config->final = true;
        }
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_ENGINECFG_ENGINE && d->kind == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR) {
        Descriptor *engine = *(Descriptor **)values;
        if (engine->kind != CUDNN_BACKEND_ENGINE_DESCRIPTOR)
            return bad("room for an engine");
        engine->varies = d->varies;
        engine->final = true;
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && type == CUDNN_TYPE_NUMERICAL_NOTE) {
        cudnnBackendNumericalNote_t notes[] = { CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC };
        *count = std::min<int64_t>(room, d->varies ? 2 : 0);
        memcpy(values, notes, (size_t)*count * sizeof *notes);
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64) {
        *(int64_t *)values = WORKSPACE;
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    }
    return bad("an attribute that cannot be asked for");
}

/* Whether a tensor of the graph is a number of the host's, read when the graph runs. */
static bool by_value(const Descriptor &graph, int64_t id)
{
    for (const Descriptor *op : graph.operations())
        for (const auto &a : op->attributes)
            for (int64_t k = 0; a.second.type == CUDNN_TYPE_BACKEND_DESCRIPTOR && k < a.second.count; k++) {
                const Descriptor *t = op->part(a.first, k);
                if (t->kind == CUDNN_BACKEND_TENSOR_DESCRIPTOR && t->uid() == id && t->has(CUDNN_ATTR_TENSOR_IS_BY_VALUE))
                    return t->value<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE);
            }
    return false;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
    Descriptor *p = (Descriptor *)plan, *v = (Descriptor *)pack;
    if (p->kind != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR || !p->final || v->kind != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR ||
        !v->final)
        return bad("a plan and a pack");
    void *workspace = v->value<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (!memory_holds(workspace, WORKSPACE))
        return bad("its workspace");
    const Descriptor *config = p->part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const Descriptor *graph = config->graph;
    bool recorded = stream_records(h->stream);
    Operands memory;
    auto scalars = std::make_shared<std::map<int64_t, float>>(); /* as they are now */
    auto ids = v->numbers(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    for (size_t i = 0; i < ids.size(); i++) {
        void *x = v->value<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, (int64_t)i);
        if (by_value(*graph, ids[i]))
            x = &((*scalars)[ids[i]] = *(const float *)x);
        memory[ids[i]] = x;
    }
    auto fault = std::make_shared<const char *>((const char *)NULL);
    stream_issue(h->stream, [=, varies = config->varies] {
        (void)scalars; /* live as long as this */
        memset(workspace, 0xff, WORKSPACE);
        *fault = formula_is(*graph)  ? formula_execute(*graph, memory, varies)
                 : fusion_is(*graph) ? fusion_execute(*graph, memory, varies)
                                     : graph_execute(*graph->part(CUDNN_ATTR_OPERATIONGRAPH_OPS), memory, varies);
        if (*fault && recorded)
            abort(); /* nobody looks at what a recording returns */
    });
    return *fault ? bad(*fault) : CUDNN_STATUS_SUCCESS;
}
