#include "train/features.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssl/network.h"
#include "store/run.h"
#include "tensor/ops.h"
#include "util/err.h"

struct Extractor {
    FeatureConfig c;
    TrainConfig train;
    int dim;
    int64_t step;
    char text[160];
    Tape *tape;
    Network *network; /* NULL: pixels */
    EvalViews *views;
    float *features; /* [batch, dim] */
};

int features_resize(int image_size)
{
    return image_size < 96 ? image_size : (image_size * 256 + 112) / 224;
}

static int lookup(void *arg, const char *name, StateTensor *found)
{
    StoredTensor t;

    if (checkpoint_get(arg, name, &t) < 0)
        return -1;
    if (t.ndim > 5 || (t.dtype != STORED_F32 && t.dtype != STORED_I64))
        return err_set(ERR_DATA, "%s: not a tensor of a network", name);
    *found = (StateTensor){ .type = t.dtype == STORED_F32 ? STATE_F32 : STATE_I64, .ndim = t.ndim,
                            .host = t.data, .bytes = t.bytes };
    memcpy(found->shape, t.shape, (size_t)t.ndim * sizeof *found->shape);
    return 0;
}

static int load_weights(Extractor *e, Run *run)
{
    Checkpoint *cp = run_checkpoint(run, e->c.step);
    int rc = cp ? network_load(e->network, e->c.student ? "student." : "teacher.", lookup, cp) : -1;

    if (rc == 0)
        e->step = (int64_t)checkpoint_step(cp);
    checkpoint_close(cp);
    return rc;
}

static int open_network(Extractor *e, Run *run)
{
    if (e->c.aux && !strcmp(e->train.aux, "none"))
        return err_set(ERR_USAGE, "%s: the run has no auxiliary head; take the base's features", e->c.run);
    e->network = network_new(&e->train, e->c.aux ? NETWORK_AUX : NETWORK_BACKBONE, false, NULL);
    if (!e->network || (!e->c.random_init && load_weights(e, run) < 0))
        return -1;
    e->dim = network_dim(e->network);
    const char *part = e->c.aux ? e->train.aux : "base";
    if (e->c.random_init)
        snprintf(e->text, sizeof e->text, "random %s of %s", part, e->train.arch);
    else
        snprintf(e->text, sizeof e->text, "%s %s of %s at step %lld", e->c.student ? "student" : "teacher",
                 part, e->train.arch, (long long)e->step);
    return 0;
}

static int open_run(Extractor *e)
{
    Run *run = run_open(e->c.run, false);
    int rc = run ? config_from_json(&e->train, run_config(run)) : -1;

    if (rc < 0 && run)
        err_prefix("%s", e->c.run);
    e->train.device = e->c.device;
    if (rc == 0 && !e->c.image_size)
        e->c.image_size = (int)e->train.global_size;
    if (rc == 0 && !e->c.pixels)
        rc = open_network(e, run);
    run_close(run);
    return rc;
}

static int allocate(Extractor *e)
{
    e->views = evalviews_new(e->c.batch, e->c.image_size, e->c.resize);
    if (!e->views)
        return -1;
    e->features = malloc((size_t)e->c.batch * (size_t)e->dim * sizeof *e->features);
    if (!e->features)
        return err_set(ERR_MEMORY, "no memory for features of %d images; lower the batch size", e->c.batch);
    return 0;
}

Extractor *extractor_open(const FeatureConfig *c)
{
    Extractor *e = calloc(1, sizeof *e);

    if (!e) {
        err_set(ERR_MEMORY, "no memory for %zu bytes", sizeof *e);
        return NULL;
    }
    e->c = *c;
    e->step = -1;
    if (!c->run && !c->pixels) {
        err_set(ERR_USAGE, "features of a network need a run");
        goto fail;
    }
    if (c->run && open_run(e) < 0)
        goto fail;
    if (!e->c.image_size)
        e->c.image_size = 32;
    if (!e->c.resize)
        e->c.resize = features_resize(e->c.image_size);
    if (e->c.resize < e->c.image_size) {
        err_set(ERR_USAGE, "images resized to %d pixels have no centre of %d", e->c.resize, e->c.image_size);
        goto fail;
    }
    if (c->pixels) {
        e->dim = 3 * e->c.image_size * e->c.image_size;
        snprintf(e->text, sizeof e->text, "pixels");
    }
    e->tape = tape_new(c->device);
    if (!e->tape || allocate(e) < 0)
        goto fail;
    return e;
fail:
    extractor_close(e);
    return NULL;
}

void extractor_close(Extractor *e)
{
    if (!e)
        return;
    network_free(e->network);
    tape_free(e->tape);
    evalviews_free(&e->views);
    free(e->features);
    free(e);
}

int extractor_dim(const Extractor *e)
{
    return e->dim;
}

int extractor_image_size(const Extractor *e)
{
    return e->c.image_size;
}

int extractor_resize(const Extractor *e)
{
    return e->c.resize;
}

const char *extractor_text(const Extractor *e)
{
    return e->text;
}

int64_t extractor_step(const Extractor *e)
{
    return e->step;
}

static int forward(Extractor *e, const EvalBatch *b)
{
    int64_t shape[4] = { b->n, e->c.image_size, e->c.image_size, 3 };

    tape_begin(e->tape, false);
    Tensor *x = tape_tensor(e->tape, DT_U8, 4, shape);
    if (!x || tape_write(e->tape, x, b->views) < 0)
        return -1;
    Tensor *y =
        e->network ? network_features(e->network, e->tape, x, e->c.aux) : op_image_normalize(e->tape, x);
    return y ? tape_read(e->tape, y, e->features) : -1;
}

typedef struct {
    Extractor *e;
    const FeatureSink *sink;
} Walk;

static int take_views(void *arg, const EvalBatch *b)
{
    const Walk *w = arg;

    if (forward(w->e, b) < 0)
        return -1;
    FeatureBatch out = { b->n, w->e->features, b->ids, b->labels };
    return w->sink->batch(w->sink->arg, &out);
}

static int take_bad(void *arg, const Record *rec, uint64_t id, const char *why)
{
    const Walk *w = arg;

    return w->sink->bad ? w->sink->bad(w->sink->arg, rec, id, why) : 0;
}

int extractor_each(Extractor *e, Dataset *ds, const int64_t *ids, int64_t n, const FeatureSink *sink)
{
    Walk w = { e, sink };
    EvalSink views = { take_views, take_bad, &w, .labelled = true };

    return evalviews_each(e->views, ds, ids, n, &views);
}
