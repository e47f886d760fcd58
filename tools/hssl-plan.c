/* hssl-plan: what a training will take, before it is spent. */
#include "plan/plan.h"

#include "models/backbone.h"
#include "store/dataset.h"
#include "train/device.h"
#include "train/planning.h"
#include "train/threads.h"
#include "train/trial.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Means of ImageNet's training images. */
enum { IMAGE_BYTES = 110000, IMAGE_PIXELS = 190000 };

static TrainConfig config;
static PlanningOptions views = PLANNING_DEFAULTS;
static struct {
    const char *machine, *write;
    int64_t images, image_bytes, image_pixels, jobs, ranks, per_host, threads;
    double seconds;
    bool fast, json;
    DeviceOptions device;
} o = {.image_bytes = IMAGE_BYTES,
       .image_pixels = IMAGE_PIXELS,
       .jobs = 1,
       .ranks = 1,
       .seconds = 10,
       .device = DEVICE_DEFAULT};

static const Opt own_opts[] = {
    OPT_STR("machine", 'm', &o.machine, "FILE", "plan for the machine of FILE, and measure nothing"),
    OPT_STR("write-machine", 'w', &o.write, "FILE", "write what was measured to FILE"),
    OPT_REAL("seconds", 0, &o.seconds, 0.5, 3600, "S", "measure for about S seconds"),
    OPT_INT("images", 'n', &o.images, 0, 1e15, "N", "images an epoch (0: the dataset's)"),
    OPT_SIZE("image-bytes", 0, &o.image_bytes, 1, 1e12, "BYTES",
             "mean size of a file, where there is no dataset"),
    OPT_INT("image-pixels", 0, &o.image_pixels, 1, 1e9, "N",
            "mean pixels of an image, where there is no dataset"),
    OPT_INT("jobs", 'j', &o.jobs, 0, 200, "N", "workers of hssl-augment (0: one a processor)"),
    OPT_FLAG("fast", 'f', &o.fast, "render as hssl-augment --fast"),
    OPT_INT("ranks", 0, &o.ranks, 1, 1e6, "N", "ranks that train together"),
    OPT_INT("per-host", 0, &o.per_host, 0, 1e6, "N", "ranks of a host (0: one a device)"),
    DEVICE_OPTS(&o.device),
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "compute in N threads (0: one a processor)"),
    OPT_FLAG("recompute", 0, &config.recompute,
             "keep the outputs of layers only, and compute the rest twice"),
    OPT_FLAG("graph", 0, &config.graph, "on a GPU: record the work of a step and repeat it at once"),
    OPT_FLAG("json", 0, &o.json, "print JSON"),
    OPT_END};
static const Opt view_opts[] = {PLANNING_OPTS(&views), OPT_END};

static Opt opts[CONFIG_OPTIONS + sizeof own_opts / sizeof *own_opts + sizeof view_opts / sizeof *view_opts];

static const OptProgram program = {
    "hssl-plan", "[OPTION]... [DATASET]", "tell what a training will take, before it is spent", .opts = opts,
    .examples = "  hssl-plan --arch vit_small --aux convnext --out-dim 8192 --epochs 100 -j8 photos.db\n"
                "  hssl-plan --write-machine here.json photos.db\n"
                "  hssl-plan --machine gpus.json --ranks 64 --batch-size 4096 --images 1281167\n"};

/* ---------------------------------------------------------------- settings */

/* The options of hssl-train, then this program's, then those of hssl-multicrop that aren't among them. */
static void make_options(void)
{
    int n = config_options(&config, opts, CONFIG_OPTIONS);
    memcpy(opts + n, own_opts, sizeof own_opts);
    n += (int)(sizeof own_opts / sizeof *own_opts) - 1;
    for (const Opt *v = view_opts; v->type; v++) {
        int i = 0;
        while (i < n && strcmp(opts[i].name, v->name))
            i++;
        if (i == n) {
            opts[n] = *v;
            if (v->letter == 's') /* --seed is hssl-train's */
                opts[n].letter = 0;
            n++;
        }
    }
    opts[n] = (Opt)OPT_END;
}

/* What the views are: the options of hssl-multicrop before those of hssl-train before the recipe. Shares of
 * the area and blur may be those that the architecture is made for, as where hssl-train wishes them. */
static int settle_views(Recipe *recipe)
{
    const Recipe *r = recipe_find(views.recipe);
    const BackboneViews *own = backbone_find(config.arch)->views;
    bool open = own && planning_look_open(opts);
    if (open && !opt_given(opts, "local-crops-scale"))
        memcpy(views.local_scale, own->local_scale, sizeof views.local_scale);
    if (open && !opt_given(opts, "blur-scale"))
        views.blur_scale = own->blur_scale;
    if (views.locals >= 0)
        config.local_crops = views.locals;
    else if (opt_given(opts, "recipe") && !opt_given(opts, "local-crops") && r)
        config.local_crops = r->locals;
    views.locals = config.local_crops;
    views.global_size = config.global_size;
    views.local_size = config.local_size;
    if (planning_recipe(&views, recipe))
        return -1;
    if (recipe->globals != 2)
        return err_set(ERR_USAGE, "--recipe %s: %s takes 2 global views, it has %d", recipe->name,
                       config.method, recipe->globals);
    return config_check(&config);
}

/* ---------------------------------------------------------------- measuring */

static Progress progress;
static double began;

static void tick(void *arg, const char *what)
{
    double *total = arg;
    progress_update(&progress, (int64_t)fmin(1000 * (log_seconds() - began), 999 * *total), what);
}

static int measure(Plan *p, Dataset *ds, const Recipe *recipe, int threads)
{
    Trial t = {.tick = tick, .arg = &o.seconds};
    Machine *m = &p->machine;
    began = log_seconds();
    progress_start(&progress, "measuring", "ms", 0, (int64_t)(1000 * o.seconds));
    machine_init(m);
    t.seconds = fmin(3, o.seconds / 4);
    int rc = trial_host(m) || trial_render(ds, recipe, o.fast, &t, &p->data, m) ? -1 : 0;
    t.seconds = o.seconds - t.seconds;
    if (!rc)
        rc = trial_step(&config, o.ranks, threads, &t, m);
    progress_end(&progress);
    p->measured = true;
    p->took = log_seconds() - began;
    return rc;
}

/* The dataset's figures without rendering any of it. */
static int sample(Dataset *ds, ForecastData *d)
{
    enum { SAMPLE = 1000 };
    double pixels = 0;
    Record r;
    uint64_t n = dataset_count(ds), each = n / SAMPLE + 1, seen = 0;
    for (uint64_t i = 0; i < n; i += each)
        if (!dataset_get(ds, i, &r) && r.width) {
            pixels += (double)r.width * r.height;
            seen++;
        }
    if (!seen)
        return err_set(ERR_DATA, "%s: no image of it can be read", dataset_path(ds));
    *d = (ForecastData){(double)n, (double)dataset_bytes(ds) / (double)n, pixels / (double)seen};
    return 0;
}

static int find_machine(Plan *p, Dataset *ds, const Recipe *recipe)
{
    if (o.machine) {
        if (machine_read(o.machine, &p->machine) || (ds && sample(ds, &p->data)))
            return -1;
        if (opt_given(opts, "device") && p->machine.gpu != !strncmp(o.device.device, "cuda", 4))
            opt_usage("--device %s: %s is of a machine that trains on %s", o.device.device, o.machine,
                      p->machine.gpu ? "GPUs" : "processors");
        /* The GPU itself is not wanted, only what it keeps. */
        config.device = !p->machine.gpu                       ? "cpu"
                        : !strcmp(o.device.precision, "fp32") ? "cuda,fp32"
                        : !strcmp(o.device.precision, "tf32") ? "cuda,tf32"
                                                              : "cuda,bf16";
        return 0;
    }
    if (!(config.device = device_name(&o.device, "bf16")))
        return -1;
    return measure(p, ds, recipe, threads_use((int)o.threads));
}

int main(int argc, char **argv)
{
    Plan p = {.measured = false};
    Recipe recipe;
    char **original = calloc((size_t)argc + 1, sizeof *original); /* opt_parse moves operands */
    if (original)
        memcpy(original, argv, (size_t)argc * sizeof *original);
    config_init(&config);
    make_options();
    int n = opt_parse(&program, argc, argv);
    if (n > 1)
        opt_usage("%s: one DATASET is enough", argv[2]);
    if (!n && !o.images)
        opt_usage("of what? A DATASET or --images N is wanted");
    if (o.machine && o.write)
        opt_usage("--machine and --write-machine exclude each other");
    config_preset(&config, opts);
    if (settle_views(&recipe))
        opt_usage("%s", err_text());
    if (config.batch_size % o.ranks)
        opt_usage("--batch-size %lld: not a multiple of --ranks %lld", (long long)config.batch_size,
                  (long long)o.ranks);
    if (original && !o.machine)
        threads_settle(original);
    free(original);

    p.data = (ForecastData){(double)o.images, (double)o.image_bytes, (double)o.image_pixels};
    p.run = (ForecastRun){(double)config.epochs, (double)o.ranks, (double)o.per_host, (double)o.jobs};
    Dataset *ds = n ? dataset_open(argv[1]) : NULL;
    if (n && !ds)
        die();
    if (ds && !dataset_count(ds))
        die_with("%s: it is empty", argv[1]);
    if (find_machine(&p, ds, &recipe) || workload_count(&config, o.ranks, &p.work))
        die();
    if (o.images)
        p.data.images = (double)o.images;
    if (p.data.images < (double)config.batch_size)
        die_with("%.0f images do not make a batch of %lld", p.data.images, (long long)config.batch_size);
    dataset_close(ds);
    if (o.write && machine_write(o.write, &p.machine))
        die();
    p.config = config;
    forecast(&p.work, &p.data, &p.run, &p.machine, &p.forecast);
    if (o.json ? print_plan_json(&p) : print_table(&p))
        die();
    return log_status(0);
}
