/* Graphs of cuDNN's backend interface: built once for each set of shapes, then run by their execution plan. */
#include "tensor/cuda/products.h"

#include "util/err.h"

#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PARTS = 128, MOST_OPERATIONS = 20, MOST_TENSORS = 3 };

struct Graph {
    Graph *next;
    GraphKey key;
    GraphBuild *build;
    cudnnBackendDescriptor_t part[MOST_PARTS]; /* all that was made, in order */
    cudnnBackendDescriptor_t operation[MOST_OPERATIONS], plan;
    int parts, operations;
    size_t workspace;
};

struct Dnn {
    cudnnHandle_t handle;
    Graph *graphs;
};

static int dnn_check(cudnnStatus_t s, const char *what)
{
    char last[256] = "";
    if (s == CUDNN_STATUS_SUCCESS)
        return 0;
    cudnnGetLastErrorString(last, sizeof last);
    return err_set(ERR_SYSTEM, "cuDNN: %s: %s%s%s", what, cudnnGetErrorString(s), *last ? ": " : "", last);
}

int graph_open(CudaDevice *d)
{
    if (!(d->dnn = calloc(1, sizeof *d->dnn)))
        return err_set(ERR_MEMORY, "out of memory");
    return dnn_check(cudnnCreate(&d->dnn->handle), "start") ||
                   dnn_check(cudnnSetStream(d->dnn->handle, d->stream), "its stream")
               ? -1
               : 0;
}

static void free_graph(Graph *g)
{
    while (g->parts)
        cudnnBackendDestroyDescriptor(g->part[--g->parts]);
    free(g);
}

void graph_close(CudaDevice *d)
{
    if (!d->dnn)
        return;
    for (Graph *g = d->dnn->graphs, *next; g; g = next) {
        next = g->next;
        free_graph(g);
    }
    if (d->dnn->handle)
        cudnnDestroy(d->dnn->handle);
    free(d->dnn);
    d->dnn = NULL;
}

static cudnnBackendDescriptor_t begin(Graph *g, cudnnBackendDescriptorType_t kind)
{
    cudnnBackendDescriptor_t part = NULL;
    if (g->parts == MOST_PARTS) {
        err_set(ERR_SYSTEM, "cuDNN: a graph of more than %d parts", MOST_PARTS);
        return NULL;
    }
    if (dnn_check(cudnnBackendCreateDescriptor(kind, &part), "a descriptor"))
        return NULL;
    return g->part[g->parts++] = part;
}

static int set(cudnnBackendDescriptor_t part, int name, int type, int64_t count, const void *value)
{
    return dnn_check(cudnnBackendSetAttribute(part, (cudnnBackendAttributeName_t)name, (cudnnBackendAttributeType_t)type,
                                              count, value),
                     "an attribute");
}

void *graph_describe(Graph *g, int kind, int n, const GraphAttribute *a)
{
    cudnnBackendDescriptor_t part = begin(g, (cudnnBackendDescriptorType_t)kind);
    for (int i = 0; part && i < n; i++)
        if (set(part, a[i].attribute, a[i].type, a[i].count, a[i].value))
            return NULL;
    return part && !dnn_check(cudnnBackendFinalize(part), "a description") ? part : NULL;
}

void *graph_tensor(Graph *g, const GraphTensor *t)
{
    cudnnDataType_t type = t->type == DT_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    int64_t alignment = t->scalar ? 4 : 16;
    bool yes = true;
    const GraphAttribute a[] = {
        { CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type },
        { CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, t->dims, t->dim },
        { CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, t->dims, t->stride },
        { CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &t->uid },
        { CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment },
        { t->scalar ? CUDNN_ATTR_TENSOR_IS_BY_VALUE : CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes },
    };
    return graph_describe(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR, t->scalar || t->within ? 6 : 5, a);
}

int graph_operation(Graph *g, int kind, int n, const GraphAttribute *a)
{
    if (g->operations == MOST_OPERATIONS)
        return err_set(ERR_SYSTEM, "cuDNN: a graph of more than %d operations", MOST_OPERATIONS);
    void *op = graph_describe(g, kind, n, a);
    if (!op)
        return -1;
    g->operation[g->operations++] = op;
    return 0;
}

/* ---- operations */

typedef struct {
    int name; /* what the operation calls the tensor: cudnnBackendAttributeName_t */
    void *tensor;
} Role;

/* An operation on n tensors; how: what else it is described by, under the name `by`, unless that is 0. */
static int operation(Graph *g, int kind, int by, void *how, int n, const Role *roles)
{
    GraphAttribute a[MOST_TENSORS + 1];
    for (int i = 0; i < n; i++) {
        if (!roles[i].tensor)
            return -1;
        a[i] = (GraphAttribute){ roles[i].name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &roles[i].tensor };
    }
    if (by && !how)
        return -1;
    a[n] = (GraphAttribute){ by, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how };
    return graph_operation(g, kind, by ? n + 1 : n, a);
}

static const cudnnDataType_t compute = CUDNN_DATA_FLOAT;

int graph_matmul(Graph *g, void *a, void *b, void *c)
{
    void *how = graph_describe(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR, 1,
                               &(GraphAttribute){ CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute });
    return operation(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_DESC, how, 3,
                     (Role[]){ { CUDNN_ATTR_OPERATION_MATMUL_ADESC, a },
                               { CUDNN_ATTR_OPERATION_MATMUL_BDESC, b },
                               { CUDNN_ATTR_OPERATION_MATMUL_CDESC, c } });
}

static int pointwise(Graph *g, int mode, int n, const Role *roles)
{
    cudnnPointwiseMode_t m = (cudnnPointwiseMode_t)mode;
    const GraphAttribute function[] = {
        { CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &m },
        { CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute },
    };
    void *how = graph_describe(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, 2, function);
    return operation(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how, n,
                     roles);
}

int graph_pointwise(Graph *g, int mode, void *x, void *b, void *y)
{
    return pointwise(g, mode, b ? 3 : 2, (Role[]){ { CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x },
                                                   { CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y },
                                                   { CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b } });
}

int graph_pointwise_backward(Graph *g, int mode, void *dy, void *x, void *dx)
{
    return pointwise(g, mode, 3, (Role[]){ { CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, dy },
                                           { CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x },
                                           { CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, dx } });
}

int graph_sum(Graph *g, void *x, void *y)
{
    cudnnReduceTensorOp_t sum = CUDNN_REDUCE_TENSOR_ADD;
    const GraphAttribute reduction[] = {
        { CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &sum },
        { CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute },
    };
    void *how = graph_describe(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, 2, reduction);
    return operation(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how, 2,
                     (Role[]){ { CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x }, { CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y } });
}

int graph_reshape(Graph *g, void *x, void *y)
{
    return operation(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, 0, NULL, 2,
                     (Role[]){ { CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x }, { CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y } });
}

/* ---- plans */

/* Whether an engine gives the same bits each time, where that is wanted, and F32 all its digits. Unknown counts as not. */
static bool suits(const CudaDevice *d, Graph *g, cudnnBackendDescriptor_t config)
{
    enum { NOTES = 16 };
    cudnnBackendNumericalNote_t notes[NOTES];
    int64_t found = 0;
    cudnnBackendDescriptor_t engine = begin(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (!engine ||
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &found, &engine) ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, NOTES, &found, notes))
        return false;
    for (int64_t i = 0; i < found && i < NOTES; i++)
        if ((notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC && !d->varies) ||
            (d->precision == CUDA_FP32 &&
             (notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)))
            return false;
    return true;
}

/* The first engine of one of the heuristic's lists that can be planned; g->plan NULL where there is none. */
static int plan_by(CudaDevice *d, Graph *g, void *graph, cudnnBackendHeurMode_t mode)
{
    enum { CONFIGS = 8 };
    cudnnBackendDescriptor_t configs[CONFIGS];
    int64_t found = 0;
    const GraphAttribute search[] = {
        { CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph },
        { CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode },
    };
    void *heuristic = graph_describe(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, 2, search);
    if (!heuristic)
        return -1;
    for (int i = 0; i < CONFIGS; i++)
        if (!(configs[i] = begin(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)))
            return -1;
    if (cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS, &found,
                                 configs) != CUDNN_STATUS_SUCCESS)
        return 0;
    for (int64_t i = 0; i < found && i < CONFIGS && !g->plan; i++) {
        const GraphAttribute how[] = {
            { CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &d->dnn->handle },
            { CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &configs[i] },
        };
        if (suits(d, g, configs[i]))
            g->plan = graph_describe(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, 2, how);
    }
    return 0;
}

static int plan(CudaDevice *d, Graph *g)
{
    int64_t found = 0, bytes = 0;
    const GraphAttribute whole[] = {
        { CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &d->dnn->handle },
        { CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->operations, g->operation },
    };
    void *graph = graph_describe(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, 2, whole);
    if (!graph)
        return -1;
    if (plan_by(d, g, graph, CUDNN_HEUR_MODE_A) || (!g->plan && plan_by(d, g, graph, CUDNN_HEUR_MODE_FALLBACK)))
        return -1;
    if (!g->plan)
        return err_set(ERR_SYSTEM, "cuDNN: no %sengine for these shapes", d->varies ? "" : "deterministic ");
    err_clear();
    if (dnn_check(cudnnBackendGetAttribute(g->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &found,
                                           &bytes),
                  "its workspace"))
        return -1;
    g->workspace = (size_t)bytes;
    return 0;
}

Graph *graph_find(CudaDevice *d, const GraphKey *key, GraphBuild *build, const void *args)
{
    for (Graph *g = d->dnn->graphs; g; g = g->next)
        if (g->build == build && !memcmp(&g->key, key, sizeof *key)) {
            if (!g->plan)
                err_set(ERR_SYSTEM, "cuDNN: no engine for these shapes");
            return g->plan ? g : NULL;
        }
    Graph *g = calloc(1, sizeof *g);
    if (!g) {
        err_set(ERR_MEMORY, "out of memory for a graph");
        return NULL;
    }
    g->key = *key;
    g->build = build;
    if (build(g, args) || plan(d, g))
        g->plan = NULL; /* kept, so that nobody looks for it again */
    g->next = d->dnn->graphs;
    d->dnn->graphs = g;
    return g->plan ? g : NULL;
}

int graph_run(CudaDevice *d, Graph *g, int n, const int64_t *uids, void *const *memory)
{
    cudnnBackendDescriptor_t pack = NULL;
    void *workspace = g->workspace ? cuda_scratch(&d->table, CUDA_SCRATCH_WORKSPACE, g->workspace) : NULL;
    if ((g->workspace && !workspace) ||
        dnn_check(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), "a pack"))
        return -1;
    int rc = set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, memory) ||
             set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uids) ||
             set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace) ||
             dnn_check(cudnnBackendFinalize(pack), "a pack") ||
             dnn_check(cudnnBackendExecute(d->dnn->handle, g->plan, pack), "run");
    cudnnBackendDestroyDescriptor(pack);
    return rc ? -1 : 0;
}
