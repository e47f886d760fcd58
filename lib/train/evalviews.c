#include "train/evalviews.h"

#include "image/image.h"
#include "util/err.h"
#include "util/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WHY = 512 };

/* What became of an image. Errors are a thread's own, so they are kept here. */
typedef struct {
    Record rec;
    ErrCode code; /* ERR_NONE: it can be used */
    char why[WHY];
} Slot;

struct EvalViews {
    int batch, side, resize;
    size_t view; /* bytes */
    Slot *slots;
    int64_t *ids;
    int32_t *labels;
    uint8_t *views;
};

EvalViews *evalviews_new(int batch, int side, int resize)
{
    EvalViews *v = calloc(1, sizeof *v);
    size_t n = (size_t)batch;

    if (v) {
        *v = (EvalViews){ .batch = batch, .side = side, .resize = resize,
                          .view = (size_t)side * (size_t)side * 3 };
        v->slots = calloc(n, sizeof *v->slots);
        v->ids = malloc(n * sizeof *v->ids);
        v->labels = malloc(n * sizeof *v->labels);
        v->views = malloc(n * v->view);
    }
    if (!v || !v->slots || !v->ids || !v->labels || !v->views) {
        err_set(ERR_MEMORY, "no memory for a batch of %d images of %d pixels; lower the batch size", batch,
                side);
        evalviews_free(&v);
    }
    return v;
}

void evalviews_free(EvalViews **v)
{
    if (!*v)
        return;
    free((*v)->slots);
    free((*v)->ids);
    free((*v)->labels);
    free((*v)->views);
    free(*v);
    *v = NULL;
}

static void note(Slot *s)
{
    s->code = err_code();
    snprintf(s->why, sizeof s->why, "%s", err_text());
}

/* Decode and crop n images to their places. */
static void render(EvalViews *v, int n)
{
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < n; i++) {
        Slot *s = &v->slots[i];
        Image im = { 0 };
        if (s->code)
            continue;
        fault_thread();
        if (image_decode(s->rec.bytes, s->rec.size, s->rec.reading, &im) < 0 ||
            image_eval_view(&im, v->resize, v->side, v->views + (size_t)i * v->view) < 0)
            note(s);
        image_free(&im);
    }
}

/* Report what failed and close the gaps. Returns how many are left, or -1. */
static int drop_bad(EvalViews *v, int n, const EvalSink *sink)
{
    int kept = 0;

    for (int i = 0; i < n; i++) {
        const Slot *s = &v->slots[i];
        if (s->code) {
            if (s->code != ERR_DATA)
                return err_set(s->code, "%s", s->why);
            if (sink->bad && sink->bad(sink->arg, &s->rec, (uint64_t)v->ids[i], s->why) < 0)
                return -1;
            continue;
        }
        if (kept < i) {
            v->ids[kept] = v->ids[i];
            v->labels[kept] = v->labels[i];
            memmove(v->views + (size_t)kept * v->view, v->views + (size_t)i * v->view, v->view);
        }
        kept++;
    }
    return kept;
}

static int flush(EvalViews *v, int n, const EvalSink *sink)
{
    render(v, n);
    n = drop_bad(v, n, sink);
    if (n <= 0)
        return n;
    EvalBatch b = { n, v->views, v->ids, v->labels };
    return sink->batch(sink->arg, &b) < 0 ? -1 : 0;
}

int evalviews_each(EvalViews *v, Dataset *ds, const int64_t *ids, int64_t n, const EvalSink *sink)
{
    int filled = 0;

    for (int64_t i = 0; i < n; i++) {
        int64_t id = ids ? ids[i] : i;
        Slot *s = &v->slots[filled];
        s->code = ERR_NONE;
        int rc = dataset_take(ds, (uint64_t)id, &s->rec);
        if (rc < 0)
            return -1;
        if (rc)
            note(s);
        else if (sink->labelled && s->rec.label < 0)
            continue;
        v->ids[filled] = id;
        v->labels[filled] = s->rec.label;
        if (++filled < v->batch)
            continue;
        if (flush(v, filled, sink) < 0)
            return -1;
        filled = 0;
    }
    return filled ? flush(v, filled, sink) : 0;
}
