/* hssl-synth: labelled images drawn from a seed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "image/image.h"
#include "image/synth.h"
#include "store/dataset.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"

static struct {
    int64_t n, classes, size, seed, quality, jobs;
    const char *part;
    bool force, progress;
} o = { .n = 2000, .classes = 10, .size = 64, .quality = 90, .part = "train", .progress = true };

static const Opt opts[] = {
    OPT_INT("images", 'n', &o.n, 1, 100000000, "N", "draw N images"),
    OPT_INT("classes", 'c', &o.classes, 1, SYNTH_MAX_CLASSES, "C", "of C classes, equally often"),
    OPT_INT("size", 's', &o.size, SYNTH_MIN_SIZE, SYNTH_MAX_SIZE, "PIXELS", "width and height"),
    OPT_INT("seed", 0, &o.seed, 0, 9e15, "SEED", "other images for another seed; the classes stay"),
    OPT_CHOICE("part", 'p', &o.part, "train|test|val", "which part; no two share an image"),
    OPT_INT("quality", 'q', &o.quality, 1, 100, "Q", "JPEG quality"),
    OPT_INT("jobs", 'j', &o.jobs, 0, 1024, "N", "draw in N threads (0: one a processor)"),
    OPT_FLAG("force", 'f', &o.force, "replace OUT.db if it is there"),
    OPT_FLAG("progress", 0, &o.progress, "show progress"),
    OPT_END
};

static const OptProgram program = {
    "hssl-synth", "[OPTION]... OUT.db", "draw a labelled image set to pre-train and evaluate on",
    .opts = opts, .examples = "  hssl-synth -n 4000 train.db && hssl-synth -n 1000 --part test test.db\n"
};

enum { BLOCK = 256 };

typedef struct {
    void *bytes;
    size_t size;
} Encoded;

static uint32_t part_number(const char *name)
{
    return !strcmp(name, "train") ? 0 : !strcmp(name, "test") ? 1 : 2;
}

/* Draw and encode images first .. first + count - 1. Errors are a thread's own, so the first one's text is
 * carried over to the caller. */
static int draw_block(const Synth *s, uint64_t first, int count, Encoded *out)
{
    int size = (int)o.size, failed = 0;
    uint32_t part = part_number(o.part);
    char why[512] = "";

#pragma omp parallel for schedule(dynamic, 8)
    for (int i = 0; i < count; i++) {
        Image im = { size, size, malloc((size_t)size * (size_t)size * 3) };
        int rc = im.rgb ? synth_draw(s, part, first + (uint64_t)i, im.rgb)
                        : err_set(ERR_MEMORY, "no memory for an image of %d pixels", size);
        if (rc == 0)
            rc = image_encode_jpeg(&im, (int)o.quality, &out[i].bytes, &out[i].size);
        if (rc < 0) {
#pragma omp critical
            if (!failed++)
                snprintf(why, sizeof why, "%s", err_text());
        }
        free(im.rgb);
    }
    return failed ? err_set(ERR_MEMORY, "%s", why) : 0;
}

static int store_block(DatasetWriter *w, const Synth *s, const int32_t *classes, uint64_t first, int count,
                       const Encoded *in)
{
    char name[128], class[64];

    for (int i = 0; i < count; i++) {
        uint64_t at = first + (uint64_t)i;
        int label = synth_label(s, at);
        snprintf(name, sizeof name, "%s/%s-%06" PRIu64 ".jpg", synth_class_name(label, class, sizeof class),
                 o.part, at);
        Record rec = { .bytes = in[i].bytes, .size = in[i].size, .name = name, .label = classes[label],
                       .width = (uint32_t)o.size, .height = (uint32_t)o.size };
        if (dataset_put(w, &rec) < 0)
            return -1;
    }
    return 0;
}

static int draw_all(const Synth *s, DatasetWriter *w)
{
    Encoded block[BLOCK];
    int32_t classes[SYNTH_MAX_CLASSES];
    char class[64];
    Progress progress;
    int rc = 0;

    for (int c = 0; c < o.classes; c++)
        if ((classes[c] = dataset_class(w, synth_class_name(c, class, sizeof class))) < 0)
            return -1;
    if (o.progress)
        progress_start(&progress, "draw", "images", 0, o.n);
    for (int64_t first = 0; first < o.n && rc == 0 && !stop_signal(); first += BLOCK) {
        int count = o.n - first < BLOCK ? (int)(o.n - first) : BLOCK;
        memset(block, 0, sizeof block);
        rc = draw_block(s, (uint64_t)first, count, block);
        if (rc == 0)
            rc = store_block(w, s, classes, (uint64_t)first, count, block);
        for (int i = 0; i < count; i++)
            free(block[i].bytes);
        if (o.progress && rc == 0)
            progress_update(&progress, first + count, "");
    }
    if (o.progress)
        progress_end(&progress);
    return rc;
}

int main(int argc, char **argv)
{
    if (opt_parse(&program, argc, argv) != 1)
        opt_usage("name one dataset to write");
    if (o.jobs)
        omp_set_num_threads((int)o.jobs);
    if (stop_install())
        die();

    Synth *s = synth_new((uint64_t)o.seed, (int)o.classes, (int)o.size);
    DatasetWriter *w = s ? dataset_create(argv[1], DATASET_WHOLE | (o.force ? DATASET_REPLACE : DATASET_NEW)) : NULL;
    if (!w && err_code() == ERR_EXISTS)
        die_with("%s; --force replaces it", err_text());
    if (!w)
        die();
    int rc = draw_all(s, w);
    if (rc < 0)
        log_error("%s", err_text());
    if (rc < 0 || stop_signal()) { /* part of a dataset would pass for the whole one */
        dataset_discard(w);
        return rc < 0 ? 1 : stop_status();
    }
    if (dataset_finish(w) < 0)
        die();
    synth_free(s);
    return 0;
}
