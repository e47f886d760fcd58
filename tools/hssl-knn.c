/* hssl-knn: how well features tell classes apart, by weighted nearest neighbours. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <json-c/json.h>

#include "eval/knn.h"
#include "store/safetensors.h"
#include "train/badimages.h"
#include "train/device.h"
#include "train/features.h"
#include "train/threads.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/text.h"

enum { MOST_K = 16 };

static struct {
    const char *train, *test, *which, *features, *k, *dump;
    int64_t step, image_size, resize, batch, threads, memory;
    OptAmount max_bad;
    double temperature;
    bool random_init, pixels, leave_out, json, progress;
    DeviceOptions device;
} o = { .device = DEVICE_DEFAULT, .which = "teacher", .features = "base", .k = "10,20,100,200", .step = -1, .batch = 64,
        .memory = INT64_C(1) << 30, .max_bad = { 100, false }, .temperature = 0.07, .leave_out = true,
        .progress = true };

static const Opt opts[] = {
    OPT_STR("train", 0, &o.train, "DATASET", "labelled images that vote"),
    OPT_STR("test", 0, &o.test, "DATASET", "labelled images to classify (default: those of --train)"),
    OPT_INT("step", 0, &o.step, -1, 9e15, "N", "checkpoint of step N (-1: the last)"),
    OPT_CHOICE("which", 0, &o.which, "teacher|student", "whose weights"),
    OPT_CHOICE("features", 0, &o.features, "base|head", "of the base model or of the auxiliary head"),
    OPT_FLAG("random-init", 0, &o.random_init, "baseline: the run's network before its first step"),
    OPT_FLAG("pixels", 0, &o.pixels, "baseline: the pixels; needs no RUN"),
    OPT_INT("image-size", 0, &o.image_size, 0, 4096, "PIXELS", "side of the centre crop (0: as trained; pixels: 32)"),
    OPT_INT("resize", 0, &o.resize, 0, 8192, "PIXELS", "shorter side before the crop (0: by rule)"),
    OPT_STR("k", 'k', &o.k, "LIST", "numbers of neighbours"),
    OPT_REAL("temperature", 0, &o.temperature, 1e-3, 1e3, "T", "votes are exp(similarity / T)"),
    OPT_FLAG("leave-out", 0, &o.leave_out, "an image in both sets has no vote on itself"),
    OPT_INT("batch-size", 0, &o.batch, 1, 65536, "N", "images in a forward pass"),
    OPT_SIZE("memory", 'm', &o.memory, 1 << 20, 1e15, "BYTES", "bound for queries and their neighbours"),
    OPT_INT("threads", 'j', &o.threads, 0, 1024, "N", "threads (0: one a processor)"),
    DEVICE_OPTS(&o.device),
    BAD_OPT(&o.max_bad),
    OPT_STR("dump", 0, &o.dump, "FILE", "write features and labels of the test images to FILE (safetensors)"),
    OPT_FLAG("json", 0, &o.json, "print one JSON object"),
    OPT_FLAG("progress", 0, &o.progress, "show progress"),
    OPT_END
};

static const OptProgram program = {
    "hssl-knn", "[OPTION]... [RUN] --train DATASET", "classify images by their nearest neighbours", .opts = opts,
    .examples = "  hssl-knn run.db --train train.db --test test.db\n"
                "  hssl-knn --pixels --train train.db --test test.db\n"
};

typedef struct {
    Extractor *ex;
    Knn *knn;
    Dataset *train, *test; /* may be the same */
    int32_t *class_map;    /* test label -> train label, or -1 */
    int64_t *test_ids;     /* labelled test images, and damaged ones */
    int64_t tests;
    int32_t *labels; /* of the queries at hand, by train's classes */
    int list[MOST_K], ks;
    KnnScore scores[MOST_K];
    int64_t bank;
    int32_t voted;     /* the label of all voters so far, or -1 */
    bool several;      /* labels voted */
    BadNames bad; /* 0: of the training images, 1: of other test images */
    Progress progress;
    int64_t done, answered; /* images through the network; queries scored */
    Output *dump;
    float *dump_features;
    int64_t *dump_ids, *dump_labels;
    int64_t dumped;
} Work;

/* ---------------------------------------------------------------- options and inputs */

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void parse_list(Work *w)
{
    const char *at = o.k;

    for (;;) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || v < 1 || v > 1000000 || w->ks == MOST_K)
            opt_usage("--k %s: at most %d numbers from 1 to 1000000, with commas", o.k, MOST_K);
        w->list[w->ks++] = (int)v;
        if (!*end)
            break;
        if (*end != ',')
            opt_usage("--k %s: numbers with commas between them", o.k);
        at = end + 1;
    }
    qsort(w->list, (size_t)w->ks, sizeof *w->list, ascending);
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Labels are ranks among a file's own classes: match the two files by the names. */
static int map_classes(Work *w)
{
    int known = dataset_classes(w->train), asked = dataset_classes(w->test), absent = 0;

    if (known == 0 || asked == 0)
        return err_set(ERR_DATA, "%s: no labels, so nothing to vote about",
                       dataset_path(known ? w->test : w->train));
    w->class_map = malloc((size_t)asked * sizeof *w->class_map);
    if (!w->class_map)
        return err_set(ERR_MEMORY, "no memory for %d classes", asked);
    for (int i = 0; i < asked; i++) {
        w->class_map[i] = -1;
        for (int j = 0; j < known && w->class_map[i] < 0; j++)
            if (!strcmp(dataset_class_name(w->test, i), dataset_class_name(w->train, j)))
                w->class_map[i] = j;
        absent += w->class_map[i] < 0;
    }
    if (absent == asked)
        return err_set(ERR_DATA, "%s and %s have no class in common", dataset_path(w->train), dataset_path(w->test));
    if (absent)
        log_warn("%s: %d of %d classes are not in %s: their images count as wrong", dataset_path(w->test), absent,
                 asked, dataset_path(w->train));
    return 0;
}

static int list_tests(Work *w)
{
    int64_t n = (int64_t)dataset_count(w->test);
    Record rec;

    w->test_ids = malloc(((size_t)n + 1) * sizeof *w->test_ids);
    if (!w->test_ids)
        return err_set(ERR_MEMORY, "no memory for a list of %" PRId64 " images", n);
    for (int64_t i = 0; i < n; i++) {
        bool damaged = dataset_get(w->test, (uint64_t)i, &rec) < 0;
        if (damaged && err_code() != ERR_DATA)
            return -1;
        if (damaged || rec.label >= 0) /* a damaged one is found bad when its turn comes */
            w->test_ids[w->tests++] = i;
    }
    return w->tests ? 0 : err_set(ERR_DATA, "%s: no labelled image", dataset_path(w->test));
}

/* ---------------------------------------------------------------- the work */

/* An image may be met as a query and as a voter: it is named and counted once. */
static int bad_query(void *arg, const Record *rec, uint64_t id, const char *why)
{
    Work *w = arg;

    return bad_name(&w->bad, w->test != w->train, rec, id, why);
}

static int bad_voter(void *arg, const Record *rec, uint64_t id, const char *why)
{
    Work *w = arg;

    return bad_name(&w->bad, 0, rec, id, why);
}

static void advance(Work *w, int64_t n)
{
    w->done += n;
    if (o.progress)
        progress_update(&w->progress, w->done, "");
}

static void dump_batch(Work *w, const FeatureBatch *b)
{
    size_t dim = (size_t)extractor_dim(w->ex);

    memcpy(w->dump_features + (size_t)w->dumped * dim, b->features, (size_t)b->n * dim * sizeof(float));
    for (int64_t i = 0; i < b->n; i++, w->dumped++) {
        w->dump_ids[w->dumped] = b->ids[i];
        w->dump_labels[w->dumped] = b->labels[i];
    }
}

static int take_queries(void *arg, const FeatureBatch *b)
{
    Work *w = arg;

    for (int64_t i = 0; i < b->n; i++)
        w->labels[knn_query_count(w->knn) + i] = w->class_map[b->labels[i]];
    if (o.dump)
        dump_batch(w, b);
    advance(w, b->n);
    return knn_queries(w->knn, b->n, b->features, o.leave_out && w->train == w->test ? b->ids : NULL);
}

static int take_bank(void *arg, const FeatureBatch *b)
{
    Work *w = arg;

    for (int64_t i = 0; i < b->n; i++) {
        w->several |= w->voted >= 0 && b->labels[i] != w->voted;
        w->voted = b->labels[i];
    }
    advance(w, b->n);
    return knn_bank(w->knn, b->n, b->features, b->labels, b->ids);
}

/* As many queries as the bound allows at a time; each round streams the bank again. */
static int64_t queries_per_round(KnnConfig c, int64_t tests)
{
    int64_t low = 0, high = tests;

    while (low < high) {
        c.queries = low + (high - low + 1) / 2;
        if (knn_bytes(&c) <= (size_t)o.memory)
            low = c.queries;
        else
            high = c.queries - 1;
    }
    return low;
}

static int classify_round(Work *w, KnnConfig c, int64_t first)
{
    FeatureSink queries = { take_queries, bad_query, w }, bank = { take_bank, bad_voter, w };
    int rc = -1;

    w->labels = malloc((size_t)c.queries * sizeof *w->labels);
    w->knn = knn_new(&c);
    if (!w->labels)
        err_set(ERR_MEMORY, "no memory for %" PRId64 " labels", c.queries);
    else if (w->knn && extractor_each(w->ex, w->test, w->test_ids + first, c.queries, &queries) == 0)
        rc = extractor_each(w->ex, w->train, NULL, (int64_t)dataset_count(w->train), &bank);
    if (rc == 0)
        rc = knn_score(w->knn, w->labels, w->list, w->ks, w->scores);
    if (rc == 0) {
        w->bank = knn_bank_size(w->knn);
        w->answered += knn_query_count(w->knn);
    }
    knn_free(w->knn);
    w->knn = NULL;
    free(w->labels);
    return rc;
}

static int classify(Work *w)
{
    KnnConfig c = { .queries = w->tests, .dim = extractor_dim(w->ex), .classes = dataset_classes(w->train),
                    .nearest = w->list[w->ks - 1], .temperature = o.temperature, .device = o.device.name };
    int64_t bank = (int64_t)dataset_count(w->train);

    if (c.nearest > bank)
        c.nearest = bank > 0 ? (int)bank : 1;
    int64_t room = queries_per_round(c, w->tests);
    if (room < 1) {
        c.queries = 1;
        return err_set(ERR_MEMORY, "--memory: one query alone takes %zu bytes", knn_bytes(&c));
    }
    int64_t rounds = (w->tests + room - 1) / room;
    if (rounds > 1)
        log_info("%" PRId64 " test images at a time: the train images are read %" PRId64 " times (--memory)", room,
                 rounds);
    if (o.progress)
        progress_start(&w->progress, "features", "images", 0, w->tests + rounds * bank);
    for (int64_t first = 0; first < w->tests; first += room) {
        c.queries = w->tests - first < room ? w->tests - first : room;
        if (classify_round(w, c, first) < 0)
            return -1;
    }
    if (o.progress)
        progress_end(&w->progress);
    if (w->answered == 0 || w->bank == 0)
        return err_set(ERR_DATA, "%s: no labelled image that could be used",
                       dataset_path(w->bank ? w->test : w->train));
    if (w->scores[0].alone == w->answered)
        return err_set(ERR_DATA, "%s: nobody can vote: no test image has another image of it as a neighbour "
                                 "(more --train images, or --no-leave-out)", dataset_path(w->train));
    if (!w->several)
        log_warn("%s: a single class, %s: every answer is right (hssl-import --class-level)",
                 dataset_path(w->train), dataset_class_name(w->train, w->voted));
    if (w->scores[0].alone)
        log_warn("%" PRId64 " of %" PRId64 " test images have no neighbour: they count as wrong",
                 w->scores[0].alone, w->answered);
    return 0;
}

/* ---------------------------------------------------------------- what comes out */

static int dump_start(Work *w, const char *run)
{
    const char *const sources[OUTPUT_SOURCES] = { o.train, o.test ? o.test : run, run };
    size_t n = (size_t)w->tests;

    w->dump = output_open(o.dump, sources, OUTPUT_LASTING);
    if (!w->dump)
        return err_prefix("--dump");
    w->dump_features = malloc(n * (size_t)extractor_dim(w->ex) * sizeof(float));
    w->dump_ids = malloc(n * sizeof(int64_t));
    w->dump_labels = malloc(n * sizeof(int64_t));
    return w->dump_features && w->dump_ids && w->dump_labels
               ? 0
               : err_set(ERR_MEMORY, "no memory for %zu feature vectors to dump", n);
}

static int dump_finish(Work *w)
{
    int64_t n = w->dumped, dim = extractor_dim(w->ex);
    const StoredTensor tensors[] = {
        { "features", STORED_F32, 2, { n, dim }, w->dump_features, (size_t)(n * dim) * sizeof(float) },
        { "ids", STORED_I64, 1, { n }, w->dump_ids, (size_t)n * sizeof(int64_t) },
        { "labels", STORED_I64, 1, { n }, w->dump_labels, (size_t)n * sizeof(int64_t) },
    };
    const char *const meta[][2] = { { "format", "hssl-features" },
                                    { "features", extractor_text(w->ex) },
                                    { "dataset", dataset_path(w->test) } };

    return safetensors_put(w->dump, tensors, 3, meta, 3) ? err_prefix("--dump %s", o.dump) : output_commit(&w->dump);
}

static double percent(int64_t part, int64_t all)
{
    return 100.0 * (double)part / (double)all;
}

/* The list's entry for k = 20, which is what is usually quoted; else the first. */
static int headline(const Work *w)
{
    for (int i = 0; i < w->ks; i++)
        if (w->list[i] == 20)
            return i;
    return 0;
}

static int best(const Work *w)
{
    int at = 0;

    for (int i = 1; i < w->ks; i++)
        if (w->scores[i].top1 > w->scores[at].top1)
            at = i;
    return at;
}

static json_object *score_json(const KnnScore *s)
{
    json_object *j = json_object_new_object();

    json_object_object_add(j, "k", json_object_new_int(s->k));
    json_object_object_add(j, "used", json_object_new_int(s->used));
    json_object_object_add(j, "top1", json_object_new_double(percent(s->top1, s->queries)));
    json_object_object_add(j, "top5", json_object_new_double(percent(s->top5, s->queries)));
    return j;
}

static void print_json(const Work *w)
{
    json_object *j = json_object_new_object(), *list = json_object_new_array();

    json_object_object_add(j, "features", json_object_new_string(extractor_text(w->ex)));
    json_object_object_add(j, "step", json_object_new_int64(extractor_step(w->ex)));
    json_object_object_add(j, "dim", json_object_new_int(extractor_dim(w->ex)));
    json_object_object_add(j, "image_size", json_object_new_int(extractor_image_size(w->ex)));
    json_object_object_add(j, "resize", json_object_new_int(extractor_resize(w->ex)));
    json_object_object_add(j, "train", json_object_new_int64(w->bank));
    json_object_object_add(j, "test", json_object_new_int64(w->answered));
    json_object_object_add(j, "bad", json_object_new_int64(w->bad.count));
    for (int i = 0; i < w->ks; i++)
        json_object_array_add(list, score_json(&w->scores[i]));
    json_object_object_add(j, "knn", list);
    json_object_object_add(j, "headline", score_json(&w->scores[headline(w)]));
    json_object_object_add(j, "best", score_json(&w->scores[best(w)]));
    text_put_json(stdout, json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN));
    putchar('\n');
    json_object_put(j);
}

static void print_table(const Work *w)
{
    const KnnScore *h = &w->scores[headline(w)], *b = &w->scores[best(w)];

    printf("%s: %d values, %d pixels\n", extractor_text(w->ex), extractor_dim(w->ex), extractor_image_size(w->ex));
    printf("%" PRId64 " test images, %" PRId64 " train images, %d classes\n\n", w->answered, w->bank,
           dataset_classes(w->train));
    printf("%8s %8s %8s %8s\n", "k", "used", "top-1", "top-5");
    for (int i = 0; i < w->ks; i++)
        printf("%8d %8d %8.2f %8.2f\n", w->scores[i].k, w->scores[i].used,
               percent(w->scores[i].top1, w->scores[i].queries),
               percent(w->scores[i].top5, w->scores[i].queries));
    printf("\ntop-1 %.2f at k = %d; best %.2f at k = %d\n", percent(h->top1, h->queries), h->k,
           percent(b->top1, b->queries), b->k);
}

static void open_inputs(Work *w, const char *run)
{
    FeatureConfig c = { .run = run, .step = o.step, .student = !strcmp(o.which, "student"),
                        .aux = !strcmp(o.features, "head"), .random_init = o.random_init, .pixels = o.pixels,
                        .image_size = (int)o.image_size, .resize = (int)o.resize, .batch = (int)o.batch,
                        .device = device_name(&o.device, "fp32") };

    if (!c.device)
        die();
    w->train = dataset_open(o.train);
    if (w->train)
        w->test = o.test && !same_file(o.train, o.test) ? dataset_open(o.test) : w->train;
    if (!w->train || !w->test || map_classes(w) < 0 || list_tests(w) < 0)
        die();
    w->bad.most = &o.max_bad;
    w->bad.whole = (int64_t)dataset_count(w->train);
    if (w->test != w->train)
        w->bad.whole += (int64_t)dataset_count(w->test);
    w->ex = extractor_open(&c);
    if (!w->ex || (o.dump && dump_start(w, run) < 0))
        die();
}

int main(int argc, char **argv)
{
    Work w = { .voted = -1 };
    threads_settle(argv);
    int operands = opt_parse(&program, argc, argv);

    if (!o.train)
        opt_usage("--train names the labelled images that vote");
    if (o.pixels && (o.random_init || !strcmp(o.features, "head")))
        opt_usage("--pixels goes without --random-init and --features head");
    if (operands > 1 || (operands == 0 && !o.pixels))
        opt_usage("name one run (or none with --pixels)");
    parse_list(&w);
    threads_use((int)o.threads);

    open_inputs(&w, operands ? argv[1] : NULL);
    if (classify(&w) < 0)
        die();
    dataset_rest(w.train); /* before somebody may be slow to read what is written */
    dataset_rest(w.test);
    if (o.dump && dump_finish(&w) < 0)
        die();
    if (o.json)
        print_json(&w);
    else
        print_table(&w);

    if (w.test != w.train)
        dataset_close(w.test);
    dataset_close(w.train);
    extractor_close(w.ex);
    bad_names_free(&w.bad);
    free(w.class_map);
    free(w.test_ids);
    free(w.dump_features);
    free(w.dump_ids);
    free(w.dump_labels);
    return log_status(0);
}
