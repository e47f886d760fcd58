/* hssl-export: a run's weights under timm's names, as safetensors. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/backbone.h"
#include "ssl/config.h"
#include "store/claim.h"
#include "store/run.h"
#include "store/safetensors.h"
#include "train/features.h"
#include "train/timm.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/output.h"

static struct {
    const char *which, *timm;
    int64_t step;
    bool aux, heads, force;
} o = { .which = "teacher", .step = -1 };

static const Opt opts[] = {
    OPT_INT("step", 0, &o.step, -1, 9e15, "N", "checkpoint of step N (-1: the last)"),
    OPT_CHOICE("which", 0, &o.which, "teacher|student", "whose weights"),
    OPT_FLAG("with-aux", 0, &o.aux, "also the auxiliary head, as aux.*"),
    OPT_FLAG("with-heads", 0, &o.heads, "also the projection heads, as projection.* and projection_aux.*"),
    OPT_STR("timm", 0, &o.timm, "DIR", "write a folder for timm.create_model('local-dir:DIR'), not FILE"),
    OPT_FLAG("force", 'f', &o.force, "replace what is there"),
    OPT_END
};

static const OptProgram program = {
    "hssl-export", "[OPTION]... RUN {FILE.safetensors | --timm DIR}", "write a run's weights for timm",
    .opts = opts,
    .examples = "  hssl-export run.db vit_small.safetensors\n"
                "  hssl-export run.db --timm vit_small\n"
};

/* What a checkpoint calls a tensor and what the file calls it. The base model's names are timm's as they are;
 * "head." would be timm's classifier. */
static const struct {
    const char *from, *to;
    const bool *wanted;
} parts[] = {
    { "backbone.", "", NULL },
    { "aux.", "aux.", &o.aux },
    { "head.", "projection.", &o.heads },
    { "head_aux.", "projection_aux.", &o.heads },
};

typedef struct {
    char prefix[16]; /* "teacher." */
    StoredTensor *items;
    size_t count, room, of_base;
} List;

static int add(List *l, const StoredTensor *t, const char *name)
{
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        StoredTensor *items = realloc(l->items, room * sizeof *items);
        if (!items)
            return err_set(ERR_MEMORY, "no memory for a list of %zu tensors", room);
        l->items = items;
        l->room = room;
    }
    l->items[l->count] = *t;
    l->items[l->count].name = name;
    l->count++;
    return 0;
}

static int consider(const StoredTensor *t, void *arg)
{
    List *l = arg;
    size_t skip = strlen(l->prefix);

    if (strncmp(t->name, l->prefix, skip))
        return 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t from = strlen(parts[i].from);
        if (strncmp(t->name + skip, parts[i].from, from) || (parts[i].wanted && !*parts[i].wanted))
            continue;
        char *name;
        if (asprintf(&name, "%s%s", parts[i].to, t->name + skip + from) < 0)
            return err_set(ERR_MEMORY, "no memory for a name");
        l->of_base += i == 0;
        return add(l, t, name);
    }
    return 0;
}

static int put(Output *out, const List *l, const TrainConfig *c, const TimmModel *timm, const char *source,
               uint64_t step)
{
    char patch[24], size[24], steps[24], heads[24], resize[24];
    const char *const meta[][2] = {
        { "format", "pt" },
        { "arch", c->arch },
        { "patch_size", patch },
        { "img_size", size },
        { "num_heads", heads },
        { "architecture", timm->architecture },
        { "model_args", timm->model_args },
        { "pretrained_cfg", timm->pretrained_cfg },
        { "resize", resize },
        { "method", c->method },
        { "aux", c->aux },
        { "which", o.which },
        { "step", steps },
        { "source", source },
        { "producer", "hssl-export " HSSL_VERSION },
    };

    snprintf(patch, sizeof patch, "%" PRId64, c->patch_size);
    snprintf(size, sizeof size, "%" PRId64, c->global_size);
    snprintf(heads, sizeof heads, "%d",
             backbone_dims(c->arch, (int)c->dim, (int)c->depth, (int)c->heads).heads);
    snprintf(resize, sizeof resize, "%d", features_resize((int)c->global_size));
    snprintf(steps, sizeof steps, "%" PRIu64, step);
    return safetensors_put(out, l->items, l->count, meta, sizeof meta / sizeof *meta);
}

static void refuse(void)
{
    if (err_code() == ERR_EXISTS)
        die_with("%s; --force replaces it", err_text());
    die();
}

/* What is written: a file, or the two of a folder. */
typedef struct {
    char *path, *path_config; /* path_config NULL: a file alone */
    Output *weights, *config;
} Target;

/* A folder that was made and stayed empty is not left behind. */
static void drop_folder(void)
{
    rmdir(o.timm);
}

static char *join(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s%s%s", folder, *folder ? "/" : "", name) < 0)
        die_with("no memory for a name");
    return path;
}

static Output *open_output(const char *path, const char *run)
{
    const char *const sources[OUTPUT_SOURCES] = { run };
    Output *out = output_open(path, sources, OUTPUT_LASTING | (o.force ? 0 : OUTPUT_NEW));
    if (!out)
        refuse();
    return out;
}

static void open_target(Target *t, const char *file, const char *run)
{
    *t = (Target){ .path = o.timm ? join(o.timm, "model.safetensors") : join("", file) };
    if (o.timm && !mkdir(o.timm, 0777))
        atexit(drop_folder);
    t->weights = open_output(t->path, run);
    if (o.timm)
        t->config = open_output(t->path_config = join(o.timm, "config.json"), run);
}

/* Not a run or a dataset that somebody uses. */
static int write_target(Target *t, const List *l, const TrainConfig *c, const char *run, uint64_t step)
{
    TimmModel timm;
    if (claim_check_free(t->path) || (t->config && claim_check_free(t->path_config)) ||
        timm_describe(c, &timm))
        return -1;
    int rc = put(t->weights, l, c, &timm, run, step) ? err_prefix("%s", t->path) : 0;
    if (!rc && t->config)
        rc = output_write(t->config, timm.config, strlen(timm.config));
    timm_free(&timm);
    return rc;
}

/* Where config.json is there, the weights are: it comes last. */
static void commit_target(Target *t)
{
    if (output_commit(&t->weights) < 0 || (t->config && output_commit(&t->config) < 0))
        refuse();
    free(t->path);
    free(t->path_config);
}

int main(int argc, char **argv)
{
    List l = { 0 };
    TrainConfig c;
    Target target;

    int operands = opt_parse(&program, argc, argv);
    if (operands != (o.timm ? 1 : 2))
        opt_usage("name a run and %s",
                  o.timm ? "no file: --timm says where its weights go" : "the file to write");
    if (o.timm && (o.aux || o.heads))
        opt_usage("--timm takes the base model alone: leave out --with-aux and --with-heads");
    open_target(&target, argv[2], argv[1]);

    Run *run = run_open(argv[1], false);
    if (!run)
        die();
    if (config_from_json(&c, run_config(run)) < 0) {
        err_prefix("%s", argv[1]);
        die();
    }
    if (o.aux && !strcmp(c.aux, "none"))
        die_with("%s: the run has no auxiliary head: leave out --with-aux", argv[1]);
    Checkpoint *cp = run_checkpoint(run, o.step);
    if (!cp)
        die();
    snprintf(l.prefix, sizeof l.prefix, "%s.", o.which);
    if (checkpoint_each(cp, consider, &l) < 0)
        die();
    if (!l.of_base)
        die_with("%s: step %" PRIu64 " has no weights of the %s", argv[1], checkpoint_step(cp), o.which);
    if (write_target(&target, &l, &c, argv[1], checkpoint_step(cp)) < 0)
        die();
    checkpoint_close(cp);
    run_close(run); /* before somebody may be slow to take what was written */
    commit_target(&target);

    for (size_t i = 0; i < l.count; i++)
        free((void *)(uintptr_t)l.items[i].name);
    free(l.items);
    return 0;
}
