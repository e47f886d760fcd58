/* Several ranks that train one model: what they agree on, share and add up. */
#include "training.h"

#include "tensor/backend.h"
#include "util/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SETTINGS = 16384, VIEWS = 4096 }; /* bytes of them at most */
enum { FIGURES = 2 };        /* D, D_role: t->figures, on the device */

/* "cuda" is another GPU for each rank of a host, unless whoever started them lets each see but one. */
static void choose_gpu(const Place *p)
{
    static char name[32];
    const char *seen = getenv("CUDA_VISIBLE_DEVICES");
    if (p->world == 1 || strcmp(options.device.device, "cuda") || (seen && *seen && !strchr(seen, ',')))
        return;
    snprintf(name, sizeof name, "cuda:%d", p->local);
    options.device.device = name;
}

static void end_at_once(void)
{
    _exit(1);
}

int ranks_meet(Training *t)
{
    Place p;
    if (place_find(&p))
        return -1;
    choose_gpu(&p);
    if (!(config.device = device_name(&options.device, "bf16")) || !(t->be = backend_open(config.device)))
        return -1;
    if (p.world > 1 && options.teacher)
        return err_set(ERR_USAGE, "--teacher: each of %d ranks starts a teacher of its own", p.world);
    return (t->group = group_open(&p, t->be, end_at_once)) ? 0 : -1;
}

/* What the first rank tells the others before they begin. */
typedef struct {
    char settings[SETTINGS], views[VIEWS], whose[WISH_WHOSE];
    Progression at;
    bool goes_on, resuming, warm, complete;
} Agreement;

static int propose(const Training *t, bool complete, Agreement *a)
{
    int world = group_world(t->group);
    if (config.batch_size % world)
        return err_set(ERR_USAGE, "--batch-size %" PRId64 ": not to be shared by %d ranks alike; take a multiple",
                       config.batch_size, world);
    char *text = config_to_json(&config);
    if (!text)
        return -1;
    size_t n = strlen(text);
    if (n < SETTINGS)
        memcpy(a->settings, text, n + 1);
    free(text);
    char *views = provenance_to_json(&t->wish.views);
    if (!views)
        return -1;
    size_t m = strlen(views);
    if (m < VIEWS)
        memcpy(a->views, views, m + 1);
    free(views);
    memcpy(a->whose, t->wish.whose, sizeof a->whose);
    a->at = t->at;
    a->goes_on = t->goes_on;
    a->resuming = t->resuming;
    a->warm = t->warm;
    a->complete = complete;
    return n < SETTINGS && m < VIEWS ? 0 : err_set(ERR_SHAPE, "settings of %zu and %zu bytes", n, m);
}

static int adopt(Training *t, Agreement *a)
{
    TrainConfig agreed;
    a->settings[SETTINGS - 1] = a->views[VIEWS - 1] = a->whose[WISH_WHOSE - 1] = 0;
    if (config_from_json(&agreed, a->settings) || provenance_from_json(&t->wish.views, a->views))
        return -1;
    memcpy(t->wish.whose, a->whose, sizeof a->whose);
    agreed.device = config.device;
    agreed.recompute = config.recompute;
    agreed.graph = config.graph;
    config = agreed;
    t->at = a->at;
    t->goes_on = a->goes_on;
    t->resuming = a->resuming;
    t->warm = a->warm;
    return 0;
}

int ranks_agree(Training *t, bool *complete)
{
    if (group_world(t->group) == 1)
        return 0;
    Agreement *a = calloc(1, sizeof *a);
    int rc = a ? 0 : err_set(ERR_MEMORY, "ranks: out of memory");
    if (!rc && is_first(t))
        rc = propose(t, *complete, a);
    if (!rc)
        rc = group_share(t->group, a, sizeof *a);
    if (!rc && !is_first(t))
        rc = adopt(t, a);
    if (!rc)
        *complete = a->complete;
    free(a);
    return rc;
}

TrainConfig ranks_part(const Training *t)
{
    TrainConfig part = config;
    part.batch_size /= group_world(t->group);
    return part;
}

int ranks_check_stream(const Training *t, uint64_t *records_per_epoch)
{
    const Message *w = batches_welcome(t->batches);
    int rank = group_rank(t->group), world = group_world(t->group);
    *records_per_epoch = t->shape->records_per_epoch;
    if (world == 1)
        return 0;
    int64_t of = message_int(w, "world", 1), which = message_int(w, "rank", 0), all = message_int(w, "dataset_count", 0);
    if (of != world || which != rank || all / world != (int64_t)t->shape->records_per_epoch)
        return err_set(ERR_USAGE, "the stream is part %" PRId64 " of %" PRId64 ", this is rank %d of %d: start hssl-load in each "
                                  "rank's pipeline, or give it --rank and --world", which, of, rank, world);
    *records_per_epoch = (uint64_t)all;
    return 0;
}

/* ---------------------------------------------------------------- state */

static int share_tensor(Training *t, StateTensor *x)
{
    if (is_first(t))
        return group_share(t->group, (void *)(uintptr_t)x->host, x->bytes);
    void *bytes = malloc(x->bytes ? x->bytes : 1);
    int rc = bytes ? group_share(t->group, bytes, x->bytes)
                   : err_set(ERR_MEMORY, "%s: no memory for %zu bytes", x->name, x->bytes);
    if (!rc && x->be)
        rc = x->be->write(x->be, x->data, bytes, x->bytes) || x->be->sync(x->be) ? -1 : 0;
    else if (!rc)
        memcpy(x->data, bytes, x->bytes);
    free(bytes);
    return rc;
}

int ranks_share_state(Training *t)
{
    StateList l = { 0 };
    TeachState ts;
    if (group_world(t->group) == 1)
        return 0;
    /* A rank that is not ready yet would leave the bytes in the line until it breaks. */
    if (group_meet(t->group) || teach_state_open(t->teach, &ts))
        return -1;
    int rc = student_state(t->student, &l) || (is_first(t) && (state_fetch(&l) || teach_save(t->teach, &ts))) ? -1 : 0;
    for (size_t i = 0; !rc && i < l.count; i++)
        rc = share_tensor(t, &l.items[i]);
    if (!rc)
        rc = group_share(t->group, ts.params, ts.floats * sizeof(float)) || (!is_first(t) && teach_load(t->teach, &ts)) ? -1 : 0;
    state_free(&l);
    teach_state_close(&ts);
    return rc;
}

/* ---------------------------------------------------------------- sums */

int ranks_sum(Training *t, const Discrepancy *d)
{
    const float figures[FIGURES] = { (float)d->d, (float)d->d_role };
    int64_t n;
    if (!t->figures && !(t->figures = t->be->alloc(t->be, sizeof figures)))
        return -1;
    float *means = teach_means(t->teach, &n);
    return t->be->write(t->be, t->figures, figures, sizeof figures) || group_sum(t->group, means, n) ||
                   group_sum(t->group, t->figures, FIGURES)
               ? -1
               : 0;
}

int ranks_summed(Training *t, Discrepancy *d)
{
    float figures[FIGURES];
    int64_t n;
    int world = group_world(t->group);
    if (world == 1)
        return 0;
    float *means = teach_means(t->teach, &n);
    PointArgs scale = { .n = n, .x = means, .out = means, .factor = 1 / (float)world };
    if (t->be->add(t->be, &scale) || t->be->read(t->be, figures, t->figures, sizeof figures))
        return -1;
    *d = (Discrepancy){ .d = figures[0] / world, .d_role = figures[1] / world };
    return 0;
}
