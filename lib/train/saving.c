#include "train/saving.h"

#include "stream/batch.h"
#include "tensor/backend.h"
#include "util/err.h"
#include "util/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { PIECE = 4 << 20 }; /* bytes of parameters that are digested at a time */

/* ---------------------------------------------------------------- state */

/* Everything that a checkpoint holds, with the teacher's part in *ts. */
static int list_state(Student *s, TeachState *ts, int64_t k, StateList *l)
{
    Params *params = network_params(student_network(s));
    int64_t center[] = { 1, k };
    if (student_state(s, l))
        return -1;
    for (size_t i = 0; i < params_count(params); i++) {
        const Param *p = params_at(params, i);
        if (state_add(l, NULL, "teacher.", p->name, STATE_F32, p->tensor->ndim, p->tensor->shape,
                      ts->params + p->offset))
            return -1;
    }
    if (state_add(l, NULL, "", "center", STATE_F32, 2, center, ts->center))
        return -1;
    return ts->center_base ? state_add(l, NULL, "", "center_base", STATE_F32, 2, center, ts->center_base) : 0;
}

/* The student's parameters lie on its device, and come by pieces. */
static int digest_student(XXH3_state_t *h, Student *s, size_t bytes)
{
    const char *flat = (const char *)student_flat(s);
    Backend *be = network_backend(student_network(s));
    char *piece = malloc(PIECE);
    int rc = piece ? 0 : err_set(ERR_MEMORY, "digest: no memory for %d bytes", PIECE);
    for (size_t at = 0; !rc && at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        rc = be->read(be, piece, flat + at, n);
        if (!rc)
            XXH3_64bits_update(h, piece, n);
    }
    free(piece);
    return rc;
}

static int make_digest(Student *s, const TeachState *ts, char out[17])
{
    size_t bytes = params_bytes(network_params(student_network(s)));
    XXH3_state_t *h = XXH3_createState();
    if (!h)
        return err_set(ERR_MEMORY, "digest: out of memory");
    XXH3_64bits_reset(h);
    int rc = digest_student(h, s, bytes);
    XXH3_64bits_update(h, ts->params, bytes);
    snprintf(out, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(h));
    XXH3_freeState(h);
    return rc;
}

static int all_finite(const StateList *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const StateTensor *t = &l->items[i];
        const float *x = t->host;
        size_t n = t->type == STATE_F32 ? t->bytes / sizeof(float) : 0, bad = 0;
        for (size_t j = 0; j < n; j++)
            bad += !isfinite(x[j]);
        if (bad)
            return err_set(ERR_MATH, "%s: %zu of its %zu values are not finite", t->name, bad, n);
    }
    return 0;
}

/* ---------------------------------------------------------------- meta */

static bool add_real(json_object *o, const char *key, double x)
{
    return json_add(o, key, json_object_new_double(x));
}

static char *to_meta(const Progression *p)
{
    char *text = NULL;
    json_object *o = json_object_new_object(), *e = json_object_new_object();
    if (o && e && json_add_whole(o, "step", p->step) && json_add_whole(o, "position", (int64_t)p->position) &&
        json_add_whole(o, "records_per_epoch", (int64_t)p->records_per_epoch) &&
        json_add_whole(o, "steps_per_epoch", p->steps_per_epoch) && json_add_whole(o, "images", p->images) &&
        json_add_whole(o, "threads", p->threads) && add_real(o, "seconds", p->seconds) &&
        json_add(o, "digest", json_object_new_string(p->digest)) &&
        json_add_whole(e, "steps", p->epoch.steps) && add_real(e, "loss", p->epoch.loss) &&
        add_real(e, "d", p->epoch.d) && add_real(e, "d_role", p->epoch.d_role) &&
        json_add(o, "epoch_sums", json_object_get(e))) {
        const char *plain = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        text = plain ? strdup(plain) : NULL;
    }
    json_object_put(e);
    json_object_put(o);
    if (!text)
        err_set(ERR_MEMORY, "checkpoint: out of memory");
    return text;
}

static int64_t whole(json_object *o, const char *key)
{
    json_object *v;
    return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_int)
               ? json_object_get_int64(v)
               : -1;
}

static double real(json_object *o, const char *key)
{
    json_object *v;
    return json_object_object_get_ex(o, key, &v) ? json_object_get_double(v) : 0;
}

/* A position without an overflow, at the beginning of a batch, of the epoch that the step is in. */
static bool consistent(const Progression *p)
{
    int64_t in_epoch = p->step % p->steps_per_epoch;
    uint64_t images = p->position % p->records_per_epoch;
    return p->records_per_epoch <= (uint64_t)BATCH_MOST_RECORDS &&
           p->position / p->records_per_epoch == (uint64_t)(p->step / p->steps_per_epoch) &&
           (in_epoch ? images % (uint64_t)in_epoch == 0 : images == 0) && p->images >= 0 &&
           p->images <= INT64_MAX / 2 && p->threads >= 0 && isfinite(p->seconds) && p->epoch.steps >= 0 &&
           p->epoch.steps <= in_epoch;
}

static int from_meta(const char *text, uint64_t step, Progression *p)
{
    json_object *o = json_tokener_parse(text), *e = NULL, *digest = NULL;
    int rc = -1;
    *p = (Progression){ 0 };
    if (o && json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, "epoch_sums", &e) &&
        json_object_object_get_ex(o, "digest", &digest) && whole(o, "step") == (int64_t)step &&
        whole(o, "position") >= 0 && whole(o, "records_per_epoch") > 0 && whole(o, "steps_per_epoch") > 0) {
        *p = (Progression){ .step = (int64_t)step, .position = (uint64_t)whole(o, "position"),
                            .records_per_epoch = (uint64_t)whole(o, "records_per_epoch"),
                            .steps_per_epoch = whole(o, "steps_per_epoch"), .images = whole(o, "images"),
                            .threads = whole(o, "threads"), .seconds = real(o, "seconds"),
                            .epoch = { .steps = whole(e, "steps"), .loss = real(e, "loss"), .d = real(e, "d"),
                                       .d_role = real(e, "d_role") } };
        snprintf(p->digest, sizeof p->digest, "%s", json_object_get_string(digest));
        rc = consistent(p) ? 0 : -1;
    }
    json_object_put(o);
    return rc ? err_set(ERR_DATA, "checkpoint of step %" PRIu64 ": its description is not one of a training",
                        step)
              : 0;
}

/* ---------------------------------------------------------------- out */

static int write_state(Run *run, const StateList *l, const Progression *p, int keep)
{
    StoredTensor *out = calloc(l->count, sizeof *out);
    char *meta = to_meta(p);
    int rc = -1;
    if (!out)
        err_set(ERR_MEMORY, "checkpoint: out of memory");
    if (out && meta) {
        for (size_t i = 0; i < l->count; i++) {
            const StateTensor *t = &l->items[i];
            out[i] = (StoredTensor){ .name = t->name, .dtype = t->type == STATE_F32 ? STORED_F32 : STORED_I64,
                                     .ndim = t->ndim, .data = t->host, .bytes = t->bytes };
            for (int d = 0; d < t->ndim; d++)
                out[i].shape[d] = t->shape[d];
        }
        rc = run_save(run, (uint64_t)p->step, meta, out, l->count, keep);
    }
    free(meta);
    free(out);
    return rc;
}

static int64_t prototypes(Student *s)
{
    const Param *v = params_find(network_params(student_network(s)), "head.last_layer.weight_v");
    return v ? v->tensor->shape[0] : err_set(ERR_ABSENT, "the student has no projection head");
}

int saving_write(Run *run, Student *s, Teach *t, Progression *p, int keep)
{
    TeachState ts;
    StateList l = { 0 };
    int64_t k = prototypes(s);
    if (k < 0 || teach_state_open(t, &ts))
        return -1;
    int rc = teach_save(t, &ts) || list_state(s, &ts, k, &l) || state_fetch(&l) || all_finite(&l) ||
                     make_digest(s, &ts, p->digest)
                 ? -1 : 0;
    if (!rc) {
        student_rest(s); /* for what the transaction holds in memory */
        rc = write_state(run, &l, p, keep);
    }
    state_free(&l);
    teach_state_close(&ts);
    return rc;
}

/* ---------------------------------------------------------------- in */

static int fill(const StoredTensor *got, StateTensor *found)
{
    if (got->dtype != STORED_F32 && got->dtype != STORED_I64)
        return err_set(ERR_DATA, "%s: elements of type %s, not F32", got->name, stored_type_name(got->dtype));
    if (got->ndim > 5)
        return err_set(ERR_DATA, "%s: %d dimensions", got->name, got->ndim);
    found->type = got->dtype == STORED_F32 ? STATE_F32 : STATE_I64;
    found->ndim = got->ndim;
    for (int d = 0; d < got->ndim; d++)
        found->shape[d] = got->shape[d];
    found->host = got->data;
    found->bytes = got->bytes;
    return 0;
}

static int look_up_checkpoint(void *arg, const char *name, StateTensor *found)
{
    StoredTensor got;
    return checkpoint_get(arg, name, &got) || fill(&got, found) ? -1 : 0;
}

typedef struct {
    const StateList *wanted;
    char name[160];
} Unwanted;

static int find_unwanted(const StoredTensor *t, void *arg)
{
    Unwanted *u = arg;
    for (size_t i = 0; i < u->wanted->count; i++)
        if (!strcmp(u->wanted->items[i].name, t->name))
            return 0;
    if (!strcmp(t->name, "center_base")) /* whoever does not measure D does without */
        return 0;
    snprintf(u->name, sizeof u->name, "%s", t->name);
    return 1;
}

/* What would be left behind without a word is part of what was learnt. */
static int all_wanted(Checkpoint *cp, const StateList *l)
{
    Unwanted u = { .wanted = l };
    int rc = checkpoint_count(cp) == l->count ? 0 : checkpoint_each(cp, find_unwanted, &u);
    return rc > 0 ? err_set(ERR_SHAPE, "%s: the model has no such part", u.name) : rc;
}

int saving_peek(Run *run, Progression *p)
{
    Checkpoint *cp = run_checkpoint(run, -1);
    if (!cp)
        return err_code() == ERR_ABSENT ? 1 : -1;
    int rc = from_meta(checkpoint_meta(cp), checkpoint_step(cp), p);
    checkpoint_close(cp);
    return rc;
}

int saving_read(Run *run, Student *s, Teach *t, Progression *p)
{
    TeachState ts;
    StateList l = { 0 };
    int64_t k = prototypes(s);
    Checkpoint *cp = k < 0 ? NULL : run_checkpoint(run, -1);
    if (!cp)
        return -1;
    if (teach_state_open(t, &ts)) {
        checkpoint_close(cp);
        return -1;
    }
    int rc = from_meta(checkpoint_meta(cp), checkpoint_step(cp), p) || list_state(s, &ts, k, &l) ||
                     all_wanted(cp, &l) || state_load(&l, look_up_checkpoint, cp)
                 ? -1 : 0;
    if (!rc) {
        char digest[17];
        rc = make_digest(s, &ts, digest) ? -1
             : strcmp(digest, p->digest)
                 ? err_set(ERR_DATA, "checkpoint of step %" PRId64 ": digest %s, not %s: damaged", p->step,
                           digest, p->digest)
                 : teach_load(t, &ts);
    }
    state_free(&l);
    teach_state_close(&ts);
    checkpoint_close(cp);
    return rc ? err_prefix("%s", run_path(run)) : 0;
}

Teacher *saving_teacher(Run *run, int64_t step, const TrainConfig *c, Progression *p)
{
    StateList l = { 0 };
    Checkpoint *cp = run_checkpoint(run, step);
    Teacher *t = cp && !from_meta(checkpoint_meta(cp), checkpoint_step(cp), p) ? teacher_new(c, NULL) : NULL;
    if (t && (teacher_state(t, &l) || state_load(&l, look_up_checkpoint, cp))) {
        err_prefix("%s", run_path(run));
        teacher_free(t);
        t = NULL;
    }
    state_free(&l);
    checkpoint_close(cp);
    return t;
}
