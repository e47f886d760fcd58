#include "ssl/views.h"

#include "util/err.h"

int views_check(const ViewBatch *v)
{
    if (v->globals != 2 || v->batch < 1 || v->locals < 0 || v->global_size < 1 ||
        (v->locals && v->local_size < 1))
        return err_set(ERR_SHAPE, "views: %lld images of %lld global and %lld local views",
                       (long long)v->batch, (long long)v->globals, (long long)v->locals);
    if ((!v->global && !v->global_f32) || (v->locals && !v->local && !v->local_f32))
        return err_set(ERR_SHAPE, "views: no pixels");
    return 0;
}

bool views_same_shape(const ViewBatch *a, const ViewBatch *b)
{
    return a->batch == b->batch && a->globals == b->globals && a->locals == b->locals && a->global_size == b->global_size &&
           a->local_size == b->local_size && !a->global == !b->global && !a->local == !b->local;
}

const void *views_pixels(const ViewBatch *v, int group)
{
    const float *f32 = group ? v->local_f32 : v->global_f32;
    return f32 ? (const void *)f32 : group ? v->local : v->global;
}

Tensor *views_tensor(Tape *t, const ViewBatch *v, int group)
{
    int64_t rows = (group ? v->locals : v->globals) * v->batch, size = group ? v->local_size : v->global_size;
    const float *f32 = group ? v->local_f32 : v->global_f32;
    int64_t planar[] = { rows, 3, size, size }, packed[] = { rows, size, size, 3 };
    /* Only read from: the op that takes it makes no gradient for it. */
    return tape_wrap(t, f32 ? DT_F32 : DT_U8, 4, f32 ? planar : packed, (void *)(uintptr_t)views_pixels(v, group));
}
