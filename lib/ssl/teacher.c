#include "ssl/teacher.h"

#include "nn/ema.h"
#include "ssl/method.h"
#include "tensor/backend.h"
#include "tensor/recording.h"
#include "util/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Teacher {
    TrainConfig config;
    const Method *method;
    Network *net;
    Tape *tape;
    Backend *be;
    void *memory; /* of the parameters, where they started as a copy */
    size_t bytes;
    float *center, *center_base; /* [K]; center_base only where D is measured */
    float *figures;              /* [2] on the device: D, D_role */
    float *means;                /* [2][K], or NULL: see teacher_defer */
    const float *head_logits, *base_logits; /* of the last step, in the tape's arena */
    bool aux, measures;
    ViewBatch views; /* of this step */
    NetworkOut out;
    Recordings forwards; /* up to the logits: what follows depends on the step */
};

Teacher *teacher_new(const TrainConfig *c, const float *student)
{
    Teacher *t = calloc(1, sizeof *t);
    if (!t) {
        err_set(ERR_MEMORY, "teacher: out of memory");
        return NULL;
    }
    size_t k = (size_t)c->out_dim * sizeof(float);
    t->config = *c;
    if (!(t->tape = tape_new(c->device)) || !(t->method = method_find(c->method)))
        goto fail;
    t->be = tape_backend(t->tape);
    t->forwards.be = c->graph ? t->be : NULL;
    if (student) {
        t->bytes = network_bytes(c, NETWORK_ALL);
        if (!t->bytes || !(t->memory = t->be->alloc(t->be, t->bytes)) ||
            t->be->move(t->be, t->memory, student, t->bytes))
            goto fail;
    }
    if (!(t->net = network_new(c, NETWORK_ALL, false, t->memory)))
        goto fail;
    t->aux = network_has_aux(t->net);
    t->measures = t->aux && c->discrepancy;
    if (!(t->center = t->be->alloc(t->be, k)) || t->be->zero(t->be, t->center, k))
        goto fail;
    if (t->measures && (!(t->center_base = t->be->alloc(t->be, k)) || t->be->zero(t->be, t->center_base, k) ||
                        !(t->figures = t->be->alloc(t->be, 2 * sizeof(float)))))
        goto fail;
    return t;
fail:
    teacher_free(t);
    return NULL;
}

void teacher_free(Teacher *t)
{
    if (!t)
        return;
    size_t k = (size_t)t->config.out_dim * sizeof(float);
    recordings_forget(&t->forwards);
    network_free(t->net);
    if (t->memory)
        t->be->release(t->be, t->memory, t->bytes);
    if (t->center)
        t->be->release(t->be, t->center, k);
    if (t->center_base)
        t->be->release(t->be, t->center_base, k);
    if (t->figures)
        t->be->release(t->be, t->figures, 2 * sizeof(float));
    tape_free(t->tape);
    free(t);
}

size_t teacher_step_bytes(const Teacher *t)
{
    return tape_peak_bytes(t->tape);
}

Network *teacher_network(Teacher *t)
{
    return t->net;
}

static int logits(Teacher *t, Tensor *x, NetworkOut *out)
{
    int which = t->aux ? NETWORK_AUX_LOGITS | (t->measures ? NETWORK_BASE_LOGITS : 0) : NETWORK_BASE_LOGITS;
    return network_images(t->net, t->tape, 1, &x, t->aux, NULL, out) ||
                   network_logits(t->net, t->tape, which, out)
               ? -1
               : 0;
}

/* Begin; the figures are there for read_figures. */
static int measure(Teacher *t, const NetworkOut *out, int64_t rows, double temp)
{
    DiscrepancyArgs a = {
        .rows = rows, .k = t->config.out_dim, .base = out->base_logits->data, .head = out->aux_logits->data,
        .center_base = t->center_base, .center_head = t->center,
        .temp = temp, .student_temp = t->config.student_temp, .out = t->figures,
    };
    return t->be->discrepancy(t->be, &a);
}

static int read_figures(Teacher *t, Discrepancy *d)
{
    float value[2];
    if (t->be->read(t->be, value, t->figures, sizeof value))
        return -1;
    *d = (Discrepancy){ .d = value[0], .d_role = value[1] };
    return 0;
}

void teacher_defer(Teacher *t, float *means)
{
    t->means = means;
}

int teacher_center(Teacher *t, const float *means)
{
    int64_t k = t->config.out_dim;
    double m = t->config.center_momentum;
    return t->method->center(t->tape, t->center, means, m, 1, k) ||
                   (t->measures && t->method->center(t->tape, t->center_base, means + k, m, 1, k))
               ? -1
               : 0;
}

static int take_in(Teacher *t, int which, const float *z, int64_t rows)
{
    int64_t k = t->config.out_dim;
    if (!t->means)
        return t->method->center(t->tape, which ? t->center_base : t->center, z, t->config.center_momentum, rows, k);
    return t->be->reduce(t->be, &(ReduceArgs){ .outer = 1, .reduce = rows, .n = k, .x = z, .x_outer = rows * k,
                                               .out = t->means + which * k, .factor = 1 / (float)rows });
}

static int forward_piece(void *arg)
{
    Teacher *t = arg;
    tape_begin(t->tape, false);
    return logits(t, views_tensor(t->tape, &t->views, 0), &t->out);
}

/* t->out, by the device alone where it can repeat that. */
static int forward(Teacher *t, const ViewBatch *views)
{
    if (!views_same_shape(&t->views, views))
        recordings_forget(&t->forwards);
    t->views = *views;
    const void *pixels = views_pixels(views, 0);
    int rc = recordings_repeat(&t->forwards, pixels, NULL);
    if (rc > 0)
        rc = recordings_make(&t->forwards, pixels, NULL, forward_piece, t);
    return rc > 0 ? forward_piece(t) : rc;
}

/* All of a step's work, without a wait. */
static int issue(Teacher *t, const ViewBatch *views, double temp, float *q, bool measures)
{
    if (views_check(views))
        return -1;
    int64_t rows = views->globals * views->batch, k = t->config.out_dim;
    if (forward(t, views))
        return -1;
    const NetworkOut *out = &t->out;
    const float *z = (t->aux ? out->aux_logits : out->base_logits)->data;
    t->head_logits = t->aux ? z : NULL;
    t->base_logits = out->base_logits ? out->base_logits->data : NULL;
    return t->method->targets(t->tape, z, t->center, temp, q, rows, k) || (measures && measure(t, out, rows, temp)) ||
                   take_in(t, 0, z, rows) || (t->measures && take_in(t, 1, out->base_logits->data, rows))
               ? -1
               : 0;
}

int teacher_begin(Teacher *t, const ViewBatch *views, double temp, float *q)
{
    return issue(t, views, temp, q, t->measures);
}

int teacher_discrepancy(Teacher *t, Discrepancy *d)
{
    *d = (Discrepancy){ NAN, NAN };
    return t->measures ? read_figures(t, d) : t->be->sync(t->be);
}

int teacher_targets(Teacher *t, const ViewBatch *views, double temp, float *q, Discrepancy *d)
{
    if (d)
        *d = (Discrepancy){ NAN, NAN };
    if (issue(t, views, temp, q, t->measures && d))
        return -1;
    return d ? teacher_discrepancy(t, d) : t->be->sync(t->be); /* the one wait for the device */
}

int teacher_measure(Teacher *t, const uint8_t *images, int64_t n, int64_t size, double temp, Discrepancy *d)
{
    if (!t->measures)
        return err_set(ERR_USAGE, "no discrepancy without an auxiliary head, or where it was switched off");
    NetworkOut out;
    recordings_forget(&t->forwards); /* the tape's memory is needed otherwise */
    tape_begin(t->tape, false);
    Tensor *x = tape_tensor(t->tape, DT_U8, 4, (int64_t[]){ n, size, size, 3 });
    return tape_write(t->tape, x, images) || logits(t, x, &out) || measure(t, &out, n, temp) || read_figures(t, d) ? -1 : 0;
}

const float *teacher_logits(const Teacher *t, bool head)
{
    return head ? t->head_logits : t->base_logits;
}

int teacher_update(Teacher *t, const float *student, double m)
{
    Params *params = network_params(t->net);
    return ema_update(t->be, params_flat(params), student, params_bytes(params) / sizeof(float), m);
}

int teacher_state(Teacher *t, StateList *l)
{
    int64_t shape[] = { 1, t->config.out_dim };
    if (network_state(t->net, "teacher.", l) || state_add(l, t->be, "", "center", STATE_F32, 2, shape, t->center))
        return -1;
    return t->measures ? state_add(l, t->be, "", "center_base", STATE_F32, 2, shape, t->center_base) : 0;
}
