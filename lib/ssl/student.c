#include "ssl/student.h"

#include "nn/adamw.h"
#include "ssl/method.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "tensor/recording.h"
#include "util/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a step reports, side by side on the device. */
enum { LOSS, TERM_BASE, TERM_HEAD, FIGURES };
/* Gradients are added up over ranks so many floats at a time at least, while backward goes on. */
enum { BUCKET = 2 << 20, MOST_BLOCKS = 256 /* as --depth has it */ };

struct Student {
    TrainConfig config;
    const Method *method;
    Network *net;
    AdamW *adamw;
    Tape *tape;
    Backend *be;
    float *figures; /* [FIGURES] */
    float *factors, *drawn[2]; /* of drop path, on the device and, of even and odd steps, on the host; of the global views,
                                  then of the local ones */
    size_t factors_room; /* bytes */
    int64_t drawn_step;  /* the last that was drawn for these views; -1: none */
    int logits;
    Group *group; /* or NULL */
    size_t unsummed; /* floats at the beginning of the gradients that aren't being added up yet */
    int blocks_left; /* of the base model, on the way back */
    size_t block_at[MOST_BLOCKS]; /* where their gradients begin */
    int blocks;
    /* between forward and backward */
    NetworkOut out;
    ViewBatch views;
    const float *targets;
    int64_t step;
    bool pending;
    /* Both halves of a step, repeated by the device where it can; the tape has no record of a repeated forward pass. */
    Recordings ahead, back;
    bool repeated;
};

size_t student_bytes(const TrainConfig *c)
{
    return network_bytes(c, NETWORK_ALL);
}

Student *student_new(const TrainConfig *c, void *memory)
{
    Student *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(ERR_MEMORY, "student: out of memory");
        return NULL;
    }
    s->config = *c;
    if (!(s->tape = tape_new(c->device)))
        goto fail;
    s->be = tape_backend(s->tape);
    s->ahead.be = s->back.be = c->graph ? s->be : NULL;
    if (!(s->figures = s->be->alloc(s->be, FIGURES * sizeof(float))) || !(s->method = method_find(c->method)) ||
        !(s->net = network_new(c, NETWORK_ALL, true, memory)))
        goto fail;
    if (memory) {
        if (s->be->zero(s->be, memory, params_bytes(network_params(s->net))) ||
            params_init(network_params(s->net), (uint64_t)c->seed))
            goto fail;
    }
    s->logits = NETWORK_BASE_LOGITS | (network_has_aux(s->net) ? NETWORK_AUX_LOGITS : 0);
    s->adamw = adamw_new(network_params(s->net), s->be, c->beta1, c->beta2, c->adam_eps);
    if (!s->adamw)
        goto fail;
    return s;
fail:
    student_free(s);
    return NULL;
}

static void factors_free(Student *s)
{
    if (s->factors)
        s->be->release(s->be, s->factors, s->factors_room);
    for (int i = 0; i < 2; i++) {
        if (s->drawn[i])
            s->be->unpin(s->be, s->drawn[i]);
        free(s->drawn[i]);
        s->drawn[i] = NULL;
    }
    s->factors = NULL;
    s->factors_room = 0;
    s->drawn_step = -1;
}

static void forget_recordings(Student *s)
{
    recordings_forget(&s->ahead);
    recordings_forget(&s->back);
}

void student_free(Student *s)
{
    if (!s)
        return;
    forget_recordings(s);
    adamw_free(s->adamw);
    network_free(s->net);
    if (s->figures)
        s->be->release(s->be, s->figures, FIGURES * sizeof(float));
    factors_free(s);
    tape_free(s->tape);
    free(s);
}

Network *student_network(Student *s)
{
    return s->net;
}

size_t student_step_bytes(const Student *s)
{
    return tape_peak_bytes(s->tape);
}

const float *student_flat(const Student *s)
{
    return params_flat(network_params(s->net));
}

void student_join(Student *s, Group *g)
{
    Params *params = network_params(s->net);
    char name[64];
    s->group = g;
    s->drawn_step = -1;
    /* Sums over ranks begin on the way back, on the host's word. */
    forget_recordings(s);
    s->ahead.be = s->back.be = s->config.graph && group_world(g) < 2 ? s->be : NULL;
    for (s->blocks = 0; s->blocks < MOST_BLOCKS; s->blocks++) {
        snprintf(name, sizeof name, "backbone.blocks.%d.norm1.weight", s->blocks);
        const Param *p = params_find(params, name);
        if (!p)
            break;
        s->block_at[s->blocks] = p->offset;
    }
}

static int sum_from(Student *s, size_t from)
{
    size_t n = s->unsummed - from;
    s->unsummed = from;
    return group_sum(s->group, params_flat_grad(network_params(s->net)) + from, (int64_t)n);
}

/* The way back has left another block of the base behind, and with it all that lies behind it in the layout: where views of
 * several sizes go one after the other, the global ones went first, so they come last. */
static int block_done(void *arg)
{
    Student *s = arg;
    size_t at = s->block_at[--s->blocks_left];
    return s->unsummed - at >= BUCKET ? sum_from(s, at) : 0;
}

static int factors_grow(Student *s, size_t bytes)
{
    if (bytes <= s->factors_room)
        return 0;
    forget_recordings(s);
    factors_free(s);
    s->factors = s->be->alloc(s->be, bytes);
    if (!s->factors)
        return err_prefix("drop path");
    s->factors_room = bytes;
    for (int i = 0; i < 2; i++) {
        if (!(s->drawn[i] = malloc(bytes))) {
            factors_free(s);
            return err_set(ERR_MEMORY, "drop path: no memory for %zu bytes", bytes);
        }
        s->be->pin(s->be, s->drawn[i], bytes);
    }
    return 0;
}

/* How many factors the global (0) or local (1) views have. */
static int64_t factors_of(const Student *s, int local)
{
    const ViewBatch *v = &s->views;
    return network_draws(s->net) * (local ? v->locals : v->globals) * v->batch;
}

/* Which paths a step drops, for all views. */
static void draw(Student *s, int64_t step)
{
    const ViewBatch *v = &s->views;
    DropPath d = { .seed = (uint64_t)s->config.seed, .step = (uint64_t)step, .rank = group_rank(s->group),
                   .ranks = group_world(s->group) };
    float *to = s->drawn[step & 1];
    network_draw(s->net, &d, v->globals * v->batch, to);
    d.group = 1;
    network_draw(s->net, &d, v->locals * v->batch, to + factors_of(s, 0));
    s->drawn_step = step;
}

/* Those of this step go up at once. They were drawn while the device went back in the step before. */
static int send_factors(Student *s)
{
    size_t bytes = (size_t)(factors_of(s, 0) + factors_of(s, 1)) * sizeof(float);
    if (!bytes)
        return 0;
    if (factors_grow(s, bytes))
        return -1;
    if (s->drawn_step != s->step)
        draw(s, s->step);
    return s->be->write(s->be, s->factors, s->drawn[s->step & 1], bytes);
}

bool student_packs(const TrainConfig *c, const Backend *be)
{
    return c->pack && c->local_crops && !be->mlp;
}

/* Image vectors of the views of sizes first, first + 1, ..., in one pass. */
static int images(Student *s, int first, int sizes, bool record, Probe *probe, NetworkOut *out)
{
    Tensor *x[SAMPLE_SIZES];
    NetworkPass how = { .recompute = s->config.recompute, .probe = probe };
    for (int i = 0; i < sizes; i++) {
        x[i] = views_tensor(s->tape, &s->views, first + i);
        if (network_draws(s->net))
            how.factors[i] = s->factors + (first + i ? factors_of(s, 0) : 0);
    }
    if (!first && record && s->blocks) {
        how.reached = block_done;
        how.reached_arg = s;
    }
    return network_images(s->net, s->tape, sizes, x, s->logits & NETWORK_AUX_LOGITS, &how, out);
}

/* The image vectors of both sizes of views, one behind the other, and their logits. In one pass the products are larger, which
 * fills a GPU better; where there are kernels for whole branches, those take one size. */
static int forward(Student *s, bool record, Probe *probe)
{
    Tape *t = s->tape;
    NetworkOut part[SAMPLE_SIZES];
    int parts = s->views.locals ? 2 : 1;
    bool at_once = student_packs(&s->config, s->be);
    tape_begin(t, record);
    for (int i = 0; i < parts; i += at_once ? parts : 1)
        if (images(s, i, at_once ? parts : 1, record, probe, &part[i]))
            return -1;
    s->out = part[0];
    if (parts == 2) {
        s->out.base = op_concat(t, 2, (Tensor *[]){ part[0].base, part[1].base }, 0);
        if (part[0].aux)
            s->out.aux = op_concat(t, 2, (Tensor *[]){ part[0].aux, part[1].aux }, 0);
    }
    return network_logits(s->net, t, s->logits, &s->out);
}

static int forward_piece(void *arg)
{
    return forward(arg, true, NULL);
}

/* By the device alone where both halves of the step can be repeated; else the tape gets its record. */
static int go_forward(Student *s)
{
    const ViewBatch *v = &s->views;
    s->repeated = false;
    if (recordings_any(&s->back)) {
        int rc = recordings_repeat(&s->ahead, views_pixels(v, 0), views_pixels(v, 1));
        s->repeated = !rc;
        if (rc <= 0)
            return rc;
    }
    int rc = recordings_make(&s->ahead, views_pixels(v, 0), views_pixels(v, 1), forward_piece, s);
    return rc > 0 ? forward(s, true, NULL) : rc;
}

int student_forward(Student *s, const ViewBatch *views, const StepRates *rates)
{
    if (views_check(views))
        return -1;
    if (!views_same_shape(&s->views, views)) {
        forget_recordings(s);
        s->drawn_step = -1;
    }
    s->views = *views;
    s->step = rates->step;
    s->pending = !send_factors(s) && !go_forward(s);
    return s->pending ? 0 : -1;
}

const Tensor *student_features(const Student *s)
{
    return s->out.base;
}

/* Why a loss was not finite: the first tensor that isn't, in the order of use. */
static int blame(Student *s, double loss)
{
    Backend *be = s->be;
    Params *params = network_params(s->net);
    char who[200] = "";
    bool finite = true;
    forget_recordings(s); /* the tape is needed */
    for (size_t i = 0; i < params_count(params) && !*who; i++) {
        const Param *p = params_at(params, i);
        if (!be->all_finite(be, DT_F32, p->tensor->data, (int64_t)p->count, &finite) && !finite)
            snprintf(who, sizeof who, "parameter %s", p->name);
    }
    if (!*who && !be->all_finite(be, DT_F32, s->targets, s->views.globals * s->views.batch * s->config.out_dim, &finite) &&
        !finite)
        snprintf(who, sizeof who, "the teacher's targets");
    Probe probe = { "" };
    if (!*who && !forward(s, false, &probe)) {
        Pass pass = { .probe = &probe };
        probe_see(&pass, s->tape, s->out.base_logits, "logits of the base");
        probe_see(&pass, s->tape, s->out.aux_logits, "logits of the auxiliary head");
        snprintf(who, sizeof who, "%s", probe.first);
    }
    return err_set(ERR_MATH, "step %lld: the loss is %g; first tensor that is not finite: %s",
                   (long long)s->step, loss, *who ? who : "the loss itself");
}

/* The weights make the mean over ranks of the sum over them. */
static int backward_piece(void *arg)
{
    Student *s = arg;
    Tape *t = s->tape;
    const ViewBatch *v = &s->views;
    int64_t shape[] = { v->globals * v->batch, s->config.out_dim };
    double weight = s->out.aux_logits ? s->config.hssl_weight : 1;
    LossTerm term = { .targets = tape_wrap(t, DT_F32, 2, shape, (float *)(uintptr_t)s->targets),
                      .views = v->globals + v->locals, .batch = v->batch,
                      .weight = (float)(weight / group_world(s->group)) };
    if (s->be->zero(s->be, s->figures, FIGURES * sizeof(float)))
        return -1;
    term.student = s->out.base_logits;
    term.value = s->figures + TERM_BASE;
    Tensor *loss = s->method->term(t, &s->config, &term);
    if (s->out.aux_logits) {
        term.student = s->out.aux_logits;
        term.value = s->figures + TERM_HEAD;
        loss = op_add(t, loss, s->method->term(t, &s->config, &term));
    }
    if (!loss || s->be->move(s->be, s->figures + LOSS, loss->data, sizeof(float)))
        return -1;
    s->unsummed = params_bytes(network_params(s->net)) / sizeof(float);
    s->blocks_left = s->blocks;
    return tape_backward(t, loss);
}

int student_backward(Student *s, const float *q)
{
    if (!s->pending)
        return err_set(ERR_USAGE, "student: no forward pass to go back from");
    s->pending = false;
    s->targets = q;
    int rc = recordings_repeat(&s->back, q, NULL);
    if (rc > 0)
        rc = s->repeated && forward(s, true, NULL) ? -1 : recordings_make(&s->back, q, NULL, backward_piece, s);
    if (rc > 0)
        rc = forward(s, true, NULL) || backward_piece(s) ? -1 : 0;
    if (rc)
        return -1;
    if (s->factors)
        draw(s, s->step + 1);
    return group_world(s->group) > 1 ? sum_from(s, 0) || group_sum(s->group, s->figures, FIGURES) ? -1 : 0 : 0;
}

int student_update(Student *s, const StepRates *r, StudentReport *report)
{
    float figures[FIGURES];
    int worst, rc;
    if ((s->group && group_settle(s->group)) || adamw_norms(s->adamw, s->figures + LOSS) ||
        adamw_step(s->adamw, r->lr, r->weight_decay, s->config.clip_grad, r->freeze_last) ||
        (rc = adamw_settle(s->adamw, &report->grad_norm, &worst)) < 0 ||
        s->be->read(s->be, figures, s->figures, sizeof figures))
        return -1;
    double ranks = group_world(s->group);
    report->loss = figures[LOSS];
    report->term_base = figures[TERM_BASE] / ranks;
    report->term_head = figures[TERM_HEAD] / ranks;
    if (!rc)
        return 0;
    if (!isfinite(report->loss))
        return blame(s, report->loss);
    if (worst < 0)
        return err_set(ERR_MATH, "step %lld: the loss is %g; the gradients are too large to be added up", (long long)s->step,
                       report->loss);
    return err_set(ERR_MATH, "step %lld: the loss is %g; first tensor that is not finite: gradient of %s",
                   (long long)s->step, report->loss, params_at(network_params(s->net), (size_t)worst)->name);
}

int student_finish(Student *s, const float *q, const StepRates *rates, StudentReport *report)
{
    return student_backward(s, q) ? -1 : student_update(s, rates, report);
}

void student_rest(Student *s)
{
    if (s->pending)
        return;
    forget_recordings(s);
    tape_rest(s->tape);
}

int student_state(Student *s, StateList *l)
{
    Params *params = network_params(s->net);
    Backend *be = s->be;
    if (network_state(s->net, "student.", l))
        return -1;
    for (size_t i = 0; i < params_count(params); i++) {
        const Param *q = params_at(params, i);
        if (q->trains && (state_add(l, be, "adamw.m.", q->name, STATE_F32, q->tensor->ndim, q->tensor->shape,
                                    adamw_m(s->adamw, i)) ||
                          state_add(l, be, "adamw.v.", q->name, STATE_F32, q->tensor->ndim, q->tensor->shape,
                                    adamw_v(s->adamw, i))))
            return -1;
    }
    return state_add(l, NULL, "", "adamw.steps", STATE_I64, 1, (int64_t[]){ (int64_t)params_count(params) },
                     adamw_steps(s->adamw));
}
