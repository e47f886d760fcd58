/* Where a run comes from: what it keeps of that as it begins, and what it is held against as it goes on. */
#include "training.h"

#include "models/backbone.h"
#include "tensor/backend.h"
#include "util/err.h"
#include "util/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SHARED = 16384, WORDS = 400 }; /* bytes of facts that ranks compare; of differences that are said */

int origin_read(Training *t)
{
    char *json = run_get(t->run, "provenance");
    if (!json)
        return err_code() == ERR_ABSENT ? 0 : -1;
    int rc = provenance_from_json(&t->origin, json);
    free(json);
    t->origin_known = !rc;
    return rc ? err_prefix("%s", options.output) : 0;
}

/* ---------------------------------------------------------------- weights of others */

/* A run that goes on has its weights, or begins once more with those that it was to begin with. */
static int check_start(const Training *t, const char *key, const char *option, const char **given)
{
    const char *was = provenance_get(&t->origin, key);
    if (*given && t->origin_known && (!was || strcmp(was, *given)))
        return err_set(ERR_USAGE, "--%s %s: %s was begun %s%s, and keeps what it was begun with", option,
                       *given, options.output, was ? "with " : "without", was ? was : "");
    if (t->resuming)
        *given = NULL;
    else if (!*given && was && !(*given = strdup(was))) /* an option, for the life of the program */
        return err_set(ERR_MEMORY, "out of memory");
    return 0;
}

int origin_start(const Training *t)
{
    return check_start(t, "init_from", "init-from", &options.init_from) ||
                   check_start(t, "continue_from", "continue-from", &options.continue_from)
               ? -1
               : 0;
}

/* The options that decide what parts a model has, and how its weights work together. */
static int check_model(const TrainConfig *old)
{
    const struct {
        const char *option;
        int64_t was, now;
    } whole[] = {
        { "patch-size", old->patch_size, config.patch_size },
        { "out-dim", old->out_dim, config.out_dim },
        { "head-hidden", old->head_hidden, config.head_hidden },
        { "head-bottleneck", old->head_bottleneck, config.head_bottleneck },
        { "aux-depth", strcmp(old->aux, "none") ? old->aux_depth : 0,
          strcmp(config.aux, "none") ? config.aux_depth : 0 },
    };
    const struct {
        const char *option, *was, *now;
    } words[] = { { "method", old->method, config.method },
                  { "aux", old->aux, config.aux },
                  { "share-proj", old->share_proj, config.share_proj } };
    BackboneDims a = backbone_dims(old->arch, (int)old->dim, (int)old->depth, (int)old->heads),
                 b = backbone_dims(config.arch, (int)config.dim, (int)config.depth, (int)config.heads);
    if (a.dim != b.dim || a.depth != b.depth || a.heads != b.heads)
        return err_set(ERR_USAGE,
                       "--arch, --dim, --depth, --heads: a model of width %d, depth %d and %d heads, and %s "
                       "has one of %d, %d and %d",
                       b.dim, b.depth, b.heads, options.continue_from, a.dim, a.depth, a.heads);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].was, words[i].now))
            return err_set(ERR_USAGE, "--%s %s: the weights of %s are for %s", words[i].option, words[i].now,
                           options.continue_from, words[i].was);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (whole[i].was != whole[i].now)
            return err_set(ERR_USAGE, "--%s %" PRId64 ": the weights of %s are for %" PRId64, whole[i].option,
                           whole[i].now, options.continue_from, whole[i].was);
    return 0;
}

int origin_open(Training *t)
{
    TrainConfig old;
    Progression at;
    struct stat a, b;
    if (!stat(options.continue_from, &a) && !stat(options.output, &b) && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
        return err_set(ERR_USAGE,
                       "--continue-from %s: that is the run to be written; --resume goes on with it",
                       options.continue_from);
    if (!(t->old = run_open(options.continue_from, false)))
        return err_prefix("--continue-from");
    int rc = saving_peek(t->old, &at);
    if (rc)
        return rc < 0 ? -1
                      : err_set(ERR_ABSENT, "--continue-from %s: it has no checkpoint yet",
                                options.continue_from);
    if (config_from_json(&old, run_config(t->old)))
        return err_prefix("--continue-from %s", options.continue_from);
    if (!t->goes_on)
        adopt_settings(t->old, true);
    return check_model(&old);
}

int origin_load(Training *t)
{
    Progression was;
    char step[32];
    if (!t->old)
        return 0;
    if (saving_read(t->old, t->student, t->teach, &was))
        return err_code() == ERR_ABSENT || err_code() == ERR_SHAPE
                   ? err_prefix("--continue-from: does not fit")
                   : -1;
    Run *old = t->old; /* its trainer may need the room */
    t->old = NULL;
    if (run_close(old))
        return -1;
    t->origin_changed = true;
    snprintf(step, sizeof step, "%" PRId64, was.step);
    log_info("begins with weights, moments and centres of %s, step %s, digest %s", options.continue_from,
             step, was.digest);
    return provenance_set(&t->origin, "continued_step", step) ||
                   provenance_set(&t->origin, "continued_digest", was.digest)
               ? -1
               : 0;
}

/* ---------------------------------------------------------------- the wish */

static int set_number(Provenance *p, const char *key, int64_t x)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, x);
    return provenance_set(p, key, text);
}

/* The views of a run: of another one all but the draws, which are the new one's own. */
static int wish_as_run(Wish *w, const char *path, const char *verb, const Provenance *p, bool another)
{
    const char *slash = strrchr(path, '/');
    snprintf(w->whose, sizeof w->whose, "%.60s %s", slash ? slash + 1 : path, verb);
    for (int i = 0; i < PROVENANCE_FACTS; i++) {
        const ProvenanceFact *f = provenance_fact(i);
        if (wish_can_be(f) && !(another && !strcmp(f->key, "view_seed")) &&
            provenance_set(&w->views, f->key, p->text[i]))
            return -1;
    }
    return 0;
}

static int wish_as_other_run(Wish *w, Run *run)
{
    Provenance p = { 0 };
    char *json = run_get(run, "provenance");
    if (!json && err_code() != ERR_ABSENT) /* as with older versions */
        return -1;
    int rc = (json && provenance_from_json(&p, json)) || wish_as_run(w, run_path(run), "has", &p, true);
    free(json);
    provenance_free(&p);
    return rc ? err_prefix("%s", run_path(run)) : 0;
}

/* What belongs to the sizes that an architecture is made for, beside them. */
static int wish_look(Wish *w)
{
    const BackboneViews *v = backbone_find(config.arch)->views;
    char least[32], most[32], text[sizeof least + sizeof most];
    snprintf(text, sizeof text, "%s,%s", text_real(v->local_scale[0], least, sizeof least),
             text_real(v->local_scale[1], most, sizeof most));
    return provenance_set(&w->views, "local_scale", text) ||
                   provenance_set(&w->views, "blur_scale", text_real(v->blur_scale, least, sizeof least))
               ? -1
               : 0;
}

/* Those that are only defaults are left to the stages. */
static int wish_settings(Wish *w)
{
    const struct {
        const char *option, *key;
        int64_t value;
    } all[] = { { "global-size", "global_size", config.global_size },
                { "local-crops", "locals", config.local_crops },
                { "local-size", "local_size", config.local_size } };
    bool preset[3];
    for (int i = 0; i < 3; i++) {
        const char *origin = origin_of(all[i].option);
        preset[i] = !strcmp(origin, "preset");
        if (strcmp(origin, "default") && (i < 2 || config.local_crops) &&
            set_number(&w->views, all[i].key, all[i].value))
            return -1;
    }
    if (preset[0] && preset[1] && preset[2])
        snprintf(w->whose, sizeof w->whose, "%s is made for", config.arch);
    return preset[0] && preset[2] ? wish_look(w) : 0;
}

int origin_wish(Training *t)
{
    t->wish = (Wish){ .whose = "hssl-train wants" };
    if (t->goes_on ? wish_as_run(&t->wish, options.output, "was begun with", &t->origin, false)
                   : t->old && wish_as_other_run(&t->wish, t->old))
        return -1;
    return wish_settings(&t->wish);
}

void origin_compare(const Training *t)
{
    char words[640];
    const Message *w = batches_welcome(t->batches);
    if (wish_differs(&t->wish, w, (WishRoles){ .plans = true, .renders = true }, words, sizeof words))
        log_info("%s %s", message_text(w, "planner", "the stream"), words);
}

/* ---------------------------------------------------------------- the stream */

/* All ranks work on one stream, each on its part. */
static int same_for_all(Training *t, const Provenance *mine)
{
    Provenance here = { 0 }, first = { 0 };
    char *text = NULL, *shared = calloc(1, SHARED), words[WORDS];
    bool unchecked;
    int rank = group_rank(t->group), rc = shared ? 0 : err_set(ERR_MEMORY, "ranks: out of memory");
    for (int i = 0; !rc && i < PROVENANCE_FACTS; i++)
        if (provenance_fact(i)->decides)
            rc = provenance_set(&here, provenance_fact(i)->key, mine->text[i]);
    if (!rc && !(text = provenance_to_json(&here)))
        rc = -1;
    if (!rc && strlen(text) >= SHARED)
        rc = err_set(ERR_SHAPE, "facts of %zu bytes", strlen(text));
    if (!rc)
        memcpy(shared, text, strlen(text) + 1);
    rc = rc || group_meet(t->group) || group_share(t->group, shared, SHARED) ? -1 : 0;
    if (!rc && rank) {
        shared[SHARED - 1] = 0;
        rc = provenance_from_json(&first, shared);
        if (!rc && provenance_compare(&first, &here, words, sizeof words, &unchecked))
            rc = err_set(ERR_USAGE,
                         "the stream of rank %d is not that of rank 0: %s; each rank's pipeline is the same",
                         rank, words);
    }
    /* The first makes a run for nobody before the others have agreed. */
    rc = rc || group_meet(t->group) || t->be->sync(t->be) ? -1 : 0;
    provenance_free(&here);
    provenance_free(&first);
    free(text);
    free(shared);
    return rc;
}

/* A run goes on with the stream that it was begun with. */
static int same_as_before(Training *t, const Provenance *now)
{
    char words[WORDS];
    bool unchecked;
    int n = provenance_compare(&t->origin, now, words, sizeof words, &unchecked);
    if (unchecked)
        log_warn("%s does not tell all of the stream it was begun with, as older versions did not: whether "
                 "this is the same could not be checked",
                 options.output);
    if (!n)
        return 0;
    if (!options.resume_anyway) {
        char *name = text_shell(options.output);
        err_set(ERR_USAGE,
                "%s was trained on another stream: %s; take the same pipeline (hssl-info --command %s prints "
                "it), or go on with --resume-anyway",
                options.output, words, name ? name : "RUN");
        free(name);
        return -1;
    }
    log_warn("%s goes on with another stream from step %" PRId64 " on, as --resume-anyway says: %s",
             options.output, t->at.step, words);
    t->origin_changed = true;
    return provenance_follow(&t->origin, t->at.step, now);
}

/* What chooses among kernels. */
static int set_variable(Provenance *p, const char *key, const char *name)
{
    const char *value = getenv(name);
    return provenance_set(p, key, value && *value ? value : NULL);
}

/* What the trainer itself adds when a run begins. */
static int describe_trainer(Training *t)
{
    Provenance *p = &t->origin;
    const char *comma = strchr(config.device, ',');
    char device[64], precision[16], bad[64];
    int world = group_world(t->group);
    snprintf(device, sizeof device, "%s", options.device.device);
    if (world > 1 && !strncmp(device, "cuda", 4)) /* each rank takes its own */
        snprintf(device, sizeof device, "cuda");
    snprintf(precision, sizeof precision, "%.*s", comma ? (int)strcspn(comma + 1, ",") : 4,
             comma ? comma + 1 : "fp32");
    Opt most = {.type = OPT_T_AMOUNT, .value = &options.max_bad};
    return set_number(p, "ranks", world) || set_number(p, "threads", t->threads) ||
                   provenance_set(p, "version", HSSL_VERSION) || provenance_set(p, "device", device) ||
                   provenance_set(p, "precision", precision) ||
                   provenance_set(p, "deterministic", options.device.deterministic ? "true" : "false") ||
                   provenance_set(p, "teacher_device", options.teacher_device) ||
                   provenance_set(p, "max_bad", opt_format(&most, bad, sizeof bad)) ||
                   provenance_set(p, "init_from", options.init_from) ||
                   provenance_set(p, "continue_from", options.continue_from) ||
                   provenance_set(p, "output", options.output) || set_variable(p, "isa", "HSSL_ISA") ||
                   set_variable(p, "attention", "HSSL_ATTENTION") || set_variable(p, "gelu", "HSSL_GELU")
               ? -1
               : 0;
}

/* The schedules stretch over the new number of epochs. */
static int change_epochs(Training *t)
{
    char was[32], now[32];
    if (!t->epochs_before || !t->resuming)
        return 0;
    StepRates before, after;
    TrainConfig old = config;
    old.epochs = t->epochs_before;
    config_rates(&old, t->at.steps_per_epoch, t->at.step, &before);
    config_rates(&config, t->at.steps_per_epoch, t->at.step, &after);
    log_warn("%s: %" PRId64 " epochs instead of %" PRId64 ": from step %" PRId64
             " on the schedules are those of %" PRId64
             " epochs; learning rate %.4g, which would have been %.4g",
             options.output, config.epochs, old.epochs, t->at.step, config.epochs, after.lr, before.lr);
    snprintf(was, sizeof was, "%" PRId64, old.epochs);
    snprintf(now, sizeof now, "%" PRId64, config.epochs);
    return provenance_change(&t->origin, t->at.step, "epochs", was, now);
}

int origin_check(Training *t)
{
    Provenance now;
    bool several = group_world(t->group) > 1;
    bool fresh = !t->goes_on ||
                 (!t->resuming && (!t->origin_known || options.resume_anyway)); /* nothing is learnt yet */
    int rc = provenance_from_stream(&now, batches_welcome(t->batches));
    if (!rc && several) /* all parts together are the whole */
        rc = set_number(&now, "rank", 0) || set_number(&now, "world", 1) || same_for_all(t, &now) ? -1 : 0;
    t->changes_before = t->origin.changes ? json_object_array_length(t->origin.changes) : 0;
    if (!rc && is_first(t) && fresh) {
        provenance_free(&t->origin);
        t->origin = now;
        t->origin_changed = true;
        return describe_trainer(t);
    }
    if (!rc && is_first(t))
        rc = same_as_before(t, &now) || change_epochs(t) ? -1 : 0;
    t->origin_changed |= t->epochs_before != 0;
    provenance_free(&now);
    return rc;
}

/* ---------------------------------------------------------------- into the run */

int origin_keep(Training *t)
{
    if (t->run && !t->origin_changed)
        return 0;
    char *settings = config_to_json(&config), *facts = settings ? provenance_to_json(&t->origin) : NULL;
    int rc = -1;
    if (facts && t->run)
        rc = run_configure(t->run, settings, "provenance", facts);
    else if (facts &&
             (t->run = run_create_with(options.output, settings, "provenance", facts, options.force)))
        rc = 0;
    free(settings);
    free(facts);
    return rc;
}

int origin_log(Training *t)
{
    size_t n = t->origin.changes ? json_object_array_length(t->origin.changes) : 0;
    for (size_t i = t->changes_before; i < n; i++) {
        json_object *line = journal_line("change"), *change = json_object_array_get_idx(t->origin.changes, i);
        json_object_object_foreach(change, key, value)
            json_object_object_add(line, strcmp(key, "key") ? key : "what", json_object_get(value));
        if (journal_write(&t->journal, line))
            return -1;
    }
    return 0;
}
