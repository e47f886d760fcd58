/* Features of a run's network and of pixels, streamed from a dataset. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tap.h"
#include "image/image.h"
#include "image/synth.h"
#include "ssl/network.h"
#include "store/run.h"
#include "tensor/ops.h"
#include "train/features.h"
#include "util/err.h"

enum { IMAGES = 21, SIZE = 16, BROKEN = 5, BARE = 9 };

static char dir[] = "/tmp/hssl-test.XXXXXX", data_file[64], run_file[64];

static TrainConfig config(void)
{
    TrainConfig c;

    config_init(&c);
    c.arch = "vit_nano";
    c.depth = 2;
    c.patch_size = 4;
    c.global_size = SIZE;
    c.local_size = 8;
    c.aux = "convnext";
    c.aux_depth = 1;
    c.out_dim = 32;
    return c;
}

/* One image can't be decoded, one has no label. */
static int make_dataset(void)
{
    Synth *s = synth_new(1, 3, SIZE);
    DatasetWriter *w = dataset_create(data_file, DATASET_NEW);
    int rc = s && w ? 0 : -1;
    uint8_t rgb[SIZE * SIZE * 3];

    for (int i = 0; i < IMAGES && rc == 0; i++) {
        char name[32], class[32];
        Image im = { SIZE, SIZE, rgb };
        void *bytes = NULL;
        size_t size;
        snprintf(name, sizeof name, "%d.jpg", i);
        int label = synth_label(s, (uint64_t)i);
        rc = synth_draw(s, 0, (uint64_t)i, rgb);
        if (rc == 0)
            rc = image_encode_jpeg(&im, 90, &bytes, &size);
        if (rc < 0)
            break;
        Record rec = { .bytes = bytes, .size = i == BROKEN ? 40 : size, .name = name, .width = SIZE, .height = SIZE,
                       .label = i == BARE ? -1 : dataset_class(w, synth_class_name(label, class, sizeof class)) };
        rc = dataset_put(w, &rec);
        free(bytes);
    }
    if (rc == 0)
        rc = dataset_finish(w);
    synth_free(s);
    return rc;
}

/* A run whose teacher and student differ, at step 3; step 7 has them swapped. */
static int make_run(const TrainConfig *c, Network *teacher, Network *student)
{
    char *json = config_to_json(c);
    Run *run = json ? run_create(run_file, json, false) : NULL;
    int rc = run ? 0 : -1;

    for (int step = 3; step <= 7 && rc == 0; step += 4) {
        StateList l = { 0 };
        rc = network_state(teacher, step == 3 ? "teacher." : "student.", &l);
        if (rc == 0)
            rc = network_state(student, step == 3 ? "student." : "teacher.", &l);
        StoredTensor *t = calloc(l.count, sizeof *t);
        for (size_t i = 0; t && i < l.count; i++) {
            t[i] = (StoredTensor){ .name = l.items[i].name, .dtype = STORED_F32, .ndim = l.items[i].ndim,
                                   .data = l.items[i].data, .bytes = l.items[i].bytes };
            memcpy(t[i].shape, l.items[i].shape, sizeof l.items[i].shape);
        }
        if (rc == 0)
            rc = t ? run_save(run, (uint64_t)step, "{}", t, l.count, 0) : -1;
        free(t);
        state_free(&l);
    }
    run_close(run);
    free(json);
    return rc;
}

typedef struct {
    float *features;
    int64_t ids[IMAGES], n, bad;
    size_t dim;
} Got;

static int collect(void *arg, const FeatureBatch *b)
{
    Got *g = arg;

    memcpy(g->features + (size_t)g->n * g->dim, b->features, (size_t)b->n * g->dim * sizeof(float));
    for (int64_t i = 0; i < b->n; i++)
        g->ids[g->n++] = b->ids[i];
    return 0;
}

static int count_bad(void *arg, const Record *rec, uint64_t id, const char *why)
{
    (void)rec;
    ((Got *)arg)->bad += id == BROKEN && *why;
    return 0;
}

/* Features of the whole dataset; NULL on failure. */
static float *extract(FeatureConfig c, Dataset *ds, Got *g)
{
    Extractor *e = extractor_open(&c);
    FeatureSink sink = { collect, count_bad, g };

    memset(g, 0, sizeof *g);
    if (!e)
        return NULL;
    g->dim = (size_t)extractor_dim(e);
    g->features = calloc(IMAGES * g->dim, sizeof(float));
    if (!g->features || extractor_each(e, ds, NULL, IMAGES, &sink) < 0) {
        free(g->features);
        g->features = NULL;
    }
    extractor_close(e);
    return g->features;
}

/* The same, one image at a time and by hand. */
static float *expect(Network *n, Dataset *ds, bool aux, size_t dim)
{
    float *out = calloc(IMAGES * dim, sizeof *out);
    Tape *t = tape_new("cpu");
    int64_t shape[4] = { 1, SIZE, SIZE, 3 }, row = 0;

    for (int i = 0; out && t && i < IMAGES; i++) {
        Record rec;
        Image im = { 0 };
        if (i == BROKEN || i == BARE)
            continue;
        if (dataset_get(ds, (uint64_t)i, &rec) < 0 || image_decode(rec.bytes, rec.size, rec.reading, &im) < 0)
            break;
        tape_begin(t, false);
        Tensor *x = tape_tensor(t, DT_U8, 4, shape), *y = NULL;
        if (x && tape_write(t, x, im.rgb) == 0)
            y = n ? network_features(n, t, x, aux) : op_image_normalize(t, x);
        if (!y || tape_read(t, y, out + (size_t)row++ * dim) < 0)
            diag("%s", err_text());
        image_free(&im);
    }
    tape_free(t);
    return out;
}

static void compare(FeatureConfig c, Network *n, Dataset *ds, const char *name)
{
    Got g;
    float *got = extract(c, ds, &g);

    if (!ok(got != NULL, "%s: extracted", name)) {
        diag("%s", err_text());
        return;
    }
    float *want = expect(n, ds, c.aux, g.dim);
    ok(g.n == IMAGES - 2 && g.bad == 1, "%s: all but the bare and the broken image, which is reported", name);
    ok(g.ids[BROKEN] == BROKEN + 1 && g.ids[IMAGES - 3] == IMAGES - 1, "%s: in order", name);
    is_close(got, want, (size_t)g.n * g.dim, 1e-5, "%s: the network's values", name);
    free(got);
    free(want);
}

/* An error that is not the image's own ends the walk, and no image is blamed. */
static void fatal(Dataset *ds)
{
    FeatureConfig f = { .pixels = true, .image_size = SIZE, .batch = 3, .device = "cpu" };
    const int64_t ids[] = { 0, IMAGES, BROKEN };
    float room[IMAGES * SIZE * SIZE * 3];
    Got g = { .features = room, .dim = sizeof room / sizeof *room / IMAGES };
    FeatureSink sink = { collect, count_bad, &g };
    Extractor *e = extractor_open(&f);

    ok(e && extractor_each(e, ds, ids, 3, &sink) < 0 && err_code() == ERR_ABSENT && !g.bad,
       "an id that is none ends the walk: %s", err_text());
    extractor_close(e);
}

int main(void)
{
    TrainConfig c = config();

    if (!mkdtemp(dir))
        return 1;
    snprintf(data_file, sizeof data_file, "%s/data.db", dir);
    snprintf(run_file, sizeof run_file, "%s/run.db", dir);
    c.seed = 2;
    Network *student = network_new(&c, NETWORK_ALL, false, NULL);
    c.seed = 1;
    Network *teacher = network_new(&c, NETWORK_ALL, false, NULL), *fresh = network_new(&c, NETWORK_ALL, false, NULL);
    Dataset *ds = make_dataset() == 0 ? dataset_open(data_file) : NULL;

    if (ok(teacher && student && fresh && ds && make_run(&c, teacher, student) == 0, "a dataset and a run")) {
        FeatureConfig f = { .run = run_file, .step = 3, .batch = 4, .device = "cpu" };
        compare(f, teacher, ds, "teacher");
        f.aux = true;
        compare(f, teacher, ds, "teacher's head");
        f.student = true;
        compare(f, student, ds, "student's head");
        f.aux = false;
        f.batch = 64;
        compare(f, student, ds, "student");
        f.step = -1;
        compare(f, teacher, ds, "the last step");
        f.random_init = true;
        f.student = false;
        compare(f, fresh, ds, "random weights");
        f = (FeatureConfig){ .pixels = true, .image_size = SIZE, .batch = 3, .device = "cpu" };
        compare(f, NULL, ds, "pixels");
        fatal(ds);

        f = (FeatureConfig){ .run = run_file, .step = 4, .batch = 4, .device = "cpu" };
        ok(!extractor_open(&f) && err_code() == ERR_ABSENT, "a step without checkpoint: %s", err_text());
        f = (FeatureConfig){ .batch = 4, .device = "cpu" };
        ok(!extractor_open(&f) && err_code() == ERR_USAGE, "neither run nor pixels: %s", err_text());
        f = (FeatureConfig){ .run = run_file, .step = -1, .batch = 4, .device = "cpu", .image_size = 32, .resize = 16 };
        ok(!extractor_open(&f) && err_code() == ERR_USAGE, "a crop larger than the image: %s", err_text());
    } else {
        diag("%s", err_text());
    }
    is_int(features_resize(224), 256, "256 for 224");
    is_int(features_resize(32), 32, "small pictures are not cropped");
    dataset_close(ds);
    network_free(teacher);
    network_free(student);
    network_free(fresh);
    unlink(data_file);
    unlink(run_file);
    /* LMDB's lock files lie beside. */
    char lock[80];
    snprintf(lock, sizeof lock, "%s-lock", data_file);
    unlink(lock);
    snprintf(lock, sizeof lock, "%s-lock", run_file);
    unlink(lock);
    rmdir(dir);
    return tap_done();
}
