/* An emulated device: the CUDA backend's own kernels on fibers; products, attention and dense convolutions, which on a GPU
 * are cuBLASLt's and cuDNN's, by the CPU backend in F32. Loaded in place of the CUDA backend (HSSL_BACKEND). */
#include "tensor/cuda/cuda.h"

#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_bf16.h>

#include <vector>

extern "C" {
#include "tensor/cuda/plugin.h"
#include "util/err.h"
}

namespace {

Backend *cpu()
{
    return backend_cpu();
}

int put(Backend *, void *to, const void *from, size_t bytes)
{
    memmove(to, from, bytes);
    return 0;
}

int zero(Backend *, void *p, size_t bytes)
{
    memset(p, 0, bytes);
    return 0;
}

int sync(Backend *)
{
    return 0;
}

void close_device(Backend *)
{
}

void pin(Backend *, void *, size_t)
{
}

void unpin(Backend *, void *)
{
}

/* ---- F32 copies of operands */

typedef std::vector<float> Floats;

float *wide(DType type, const void *x, int64_t n, Floats &copy)
{
    if (!x || type == DT_F32)
        return (float *)x;
    copy.resize((size_t)n + 1);
    for (int64_t i = 0; i < n; i++)
        copy[(size_t)i] = __bfloat162float(((const __nv_bfloat16 *)x)[i]);
    return copy.data();
}

void narrow(DType type, void *x, const float *from, int64_t n)
{
    for (int64_t i = 0; x && type == DT_BF16 && i < n; i++)
        ((__nv_bfloat16 *)x)[i] = __float2bfloat16(from[i]);
}

int64_t extent(int64_t rows, int64_t cols, int64_t ld, int64_t batch, int64_t stride)
{
    return rows && cols ? (rows - 1) * ld + cols + (batch > 1 ? (batch - 1) * stride : 0) : 0;
}

int matmul(Backend *, const MatmulArgs *a)
{
    MatmulArgs m = *a;
    Floats x, y, z, p;
    int64_t na = extent(a->ta ? a->k : a->m, a->ta ? a->m : a->k, a->lda, a->batch, a->stride_a);
    int64_t nb = extent(a->tb ? a->n : a->k, a->tb ? a->k : a->n, a->ldb, a->batch, a->stride_b);
    int64_t nc = extent(a->m, a->n, a->ldc, a->batch, a->stride_c);
    m.type = m.type_c = DT_F32;
    m.a = wide(a->type, a->a, na, x);
    m.b = wide(a->type, a->b, nb, y);
    m.c = wide(a->type_c, a->c, nc, z);
    m.pre = wide(a->type_c, a->pre, nc, p);
    if (cpu()->matmul(cpu(), &m))
        return -1;
    narrow(a->type_c, a->c, (float *)m.c, nc);
    narrow(a->type_c, a->pre, (float *)m.pre, nc);
    return 0;
}

int attention(Backend *, const AttentionArgs *a)
{
    AttentionArgs f = *a;
    Floats qkv, y;
    int64_t n = a->batch * a->tokens * a->heads * a->dim;
    f.type = DT_F32;
    f.qkv = wide(a->type, a->qkv, 3 * n, qkv);
    f.y = wide(a->type, a->y, n, y);
    if (cpu()->attention(cpu(), &f))
        return -1;
    narrow(a->type, a->y, (float *)f.y, n);
    return 0;
}

int attention_backward(Backend *, const AttentionArgs *a)
{
    AttentionArgs f = *a;
    Floats qkv, y, dy, dqkv;
    int64_t n = a->batch * a->tokens * a->heads * a->dim;
    f.type = DT_F32;
    f.qkv = wide(a->type, a->qkv, 3 * n, qkv);
    f.y = wide(a->type, a->y, n, y);
    f.dy = wide(a->type, a->dy, n, dy);
    f.dqkv = wide(a->type, a->dqkv, 3 * n, dqkv);
    if (cpu()->attention_backward(cpu(), &f))
        return -1;
    narrow(a->type, a->dqkv, (float *)f.dqkv, 3 * n);
    return 0;
}

struct ConvFloats {
    Floats x, w, y, dy, dx;
    int64_t in, out;
    ConvArgs args;

    explicit ConvFloats(const ConvArgs *a) : in(a->batch * a->h * a->w * a->cin), out(a->batch * a->ho * a->wo * a->cout)
    {
        args = *a;
        args.type = DT_F32;
        args.x = wide(a->type, a->x, in, x);
        args.weight = wide(a->type, a->weight, a->cout * a->cin / a->groups * a->kh * a->kw, w);
        args.y = wide(a->type, a->y, out, y);
        args.dy = wide(a->type, a->dy, out, dy);
        args.dx = wide(a->type, a->dx, in, dx);
    }
};

int conv(Backend *be, const ConvArgs *a)
{
    if (a->groups > 1)
        return cuda_depthwise(be, a);
    ConvFloats f(a);
    if (cpu()->conv(cpu(), &f.args))
        return -1;
    narrow(a->type, a->y, (float *)f.args.y, f.out);
    return 0;
}

int conv_backward(Backend *be, const ConvArgs *a)
{
    if (a->groups > 1)
        return cuda_depthwise_backward(be, a);
    ConvFloats f(a);
    if (cpu()->conv_backward(cpu(), &f.args))
        return -1;
    narrow(a->type, a->dx, (float *)f.args.dx, f.in);
    return 0;
}

CudaDevice devices[2]; /* F32, BF16 */

} // namespace

int cuda_check(cudaError_t, const char *)
{
    return 0;
}

void *cuda_scratch(Backend *be, int slot, size_t bytes)
{
    CudaDevice *d = (CudaDevice *)be;
    if (d->scratch[slot].bytes < bytes) {
        memory_release(be, d->scratch[slot].p, d->scratch[slot].bytes);
        d->scratch[slot].p = memory_take(be, bytes);
        d->scratch[slot].bytes = bytes;
    }
    return d->scratch[slot].p;
}

extern "C" Backend *hssl_backend(const char *name)
{
    bool bf16 = strstr(name, ",bf16") != NULL;
    CudaDevice *d = &devices[bf16];
    Backend *be = &d->table;
    if (be->name)
        return be;
    d->processors = 1;
    be->name = "emulated";
    be->real = bf16 ? DT_BF16 : DT_F32;
    be->chunk = (size_t)1 << 20;
    be->alloc = memory_take;
    be->release = memory_release;
    be->rest = memory_rest;
    be->write = be->read = be->move = put;
    be->zero = zero;
    be->sync = sync;
    be->close = close_device;
    be->pin = pin;
    be->unpin = unpin;
    be->upload = put;
    be->uploaded = sync;
    be->lend = memory_lend;
    be->borrow = memory_borrow;
    be->give_back = memory_give_back;
    be->matmul = matmul;
    be->attention = attention;
    be->attention_backward = attention_backward;
    be->conv = conv;
    be->conv_backward = conv_backward;
    cuda_point_table(be);
    cuda_row_table(be);
    cuda_layout_table(be);
    cuda_reduce_table(be);
    cuda_loss_table(be);
    cuda_train_table(be);
    memory_guard(be);
    return be;
}
