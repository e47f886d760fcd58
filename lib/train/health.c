#include "train/health.h"

#include "train/spectrum.h"
#include "util/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums over a stretch of steps. */
typedef struct {
    int64_t steps, looks, rows;
    double loss, entropy;
    double *mean; /* [K] */
} Sums;

struct Health {
    Backend *be;
    int64_t k, every, rows; /* rows of targets a look */
    float *q;               /* [rows, K] */
    Sums window, epoch;
    /* features */
    int64_t dim, taken;     /* rows of them a look */
    DType dtype;
    void *kept;             /* of the device: those of the look that is due */
    void *down;             /* the same on the host */
    float *ring;            /* [HEALTH_ROWS, dim], the last ones */
    int64_t filled, next;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

Health *health_new(Backend *be, const TrainConfig *c, int64_t rows, int64_t steps)
{
    Health *h = calloc(1, sizeof *h);
    if (!h) {
        err_set(ERR_MEMORY, "health: out of memory");
        return NULL;
    }
    int64_t most = HEALTH_FLOATS / c->out_dim, each = steps / (HEALTH_LOOKS * HEALTH_EVERY);
    h->be = be;
    h->k = c->out_dim;
    h->rows = least(rows, most > 2 ? most : 2);
    h->taken = least(rows, HEALTH_ROWS);
    h->every = each < 1 ? 1 : least(each, HEALTH_EVERY);
    h->q = malloc((size_t)(h->rows * h->k) * sizeof *h->q);
    h->window.mean = calloc((size_t)h->k, sizeof(double));
    h->epoch.mean = calloc((size_t)h->k, sizeof(double));
    if (h->q && h->window.mean && h->epoch.mean)
        return h;
    err_set(ERR_MEMORY, "health: no memory for %lld targets", (long long)(h->rows * h->k));
    health_free(h);
    return NULL;
}

static size_t kept_bytes(const Health *h)
{
    return (size_t)(h->taken * h->dim) * dtype_size(h->dtype);
}

void health_free(Health *h)
{
    if (!h)
        return;
    if (h->kept)
        h->be->release(h->be, h->kept, kept_bytes(h));
    free(h->down);
    free(h->ring);
    free(h->q);
    free(h->window.mean);
    free(h->epoch.mean);
    free(h);
}

bool health_due(const Health *h, int64_t step, bool ends_epoch)
{
    return ends_epoch || (step + 1) % h->every == 0;
}

int health_keep(Health *h, const Tensor *features)
{
    if (!h->kept) {
        h->dim = features->shape[1];
        h->dtype = features->dtype;
        if (!(h->kept = h->be->alloc(h->be, kept_bytes(h))))
            return -1;
        h->down = malloc(kept_bytes(h));
        h->ring = malloc((size_t)(HEALTH_ROWS * h->dim) * sizeof *h->ring);
        if (!h->down || !h->ring)
            return err_set(ERR_MEMORY, "health: no memory for %d features", HEALTH_ROWS);
    }
    return h->be->move(h->be, h->kept, features->data, kept_bytes(h));
}

static float real_of(const void *from, DType dtype, int64_t i)
{
    float value;
    if (dtype == DT_F32)
        return ((const float *)from)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)from)[i] << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void take_features(Health *h)
{
    for (int64_t r = 0; r < h->taken; r++) {
        float *to = h->ring + h->next * h->dim;
        for (int64_t i = 0; i < h->dim; i++)
            to[i] = real_of(h->down, h->dtype, r * h->dim + i);
        h->next = (h->next + 1) % HEALTH_ROWS;
        h->filled = least(h->filled + 1, HEALTH_ROWS);
    }
}

static double entropies(const float *q, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (q[i] > 0)
            sum -= q[i] * logf(q[i]);
    return sum;
}

static void add_look(Sums *s, const Health *h, double entropy)
{
    s->looks++;
    s->rows += h->rows;
    s->entropy += entropy;
    for (int64_t r = 0; r < h->rows; r++)
        for (int64_t i = 0; i < h->k; i++)
            s->mean[i] += h->q[r * h->k + i];
}

static void add_step(Sums *s, double loss)
{
    s->steps++;
    s->loss += loss;
}

int health_step(Health *h, double loss, const float *q)
{
    add_step(&h->window, loss);
    add_step(&h->epoch, loss);
    if (!q)
        return 0;
    if (h->be->read(h->be, h->q, q, (size_t)(h->rows * h->k) * sizeof *h->q) ||
        h->be->read(h->be, h->down, h->kept, kept_bytes(h)) || h->be->sync(h->be))
        return -1;
    double entropy = entropies(h->q, h->rows * h->k);
    add_look(&h->window, h, entropy);
    add_look(&h->epoch, h, entropy);
    take_features(h);
    return 0;
}

static int figures(Health *h, const Sums *s, HealthFigures *out)
{
    double rows = (double)s->rows, entropy = 0;
    *out = (HealthFigures){ .steps = s->steps, .looks = s->looks, .loss = s->loss / (double)s->steps,
                            .entropy = fmax(s->entropy, 0) / rows, .mean_entropy = NAN, .rank = NAN,
                            .dim = h->dim };
    if (!s->looks)
        return 0;
    for (int64_t i = 0; i < h->k; i++)
        if (s->mean[i] > 0)
            entropy -= s->mean[i] / rows * log(s->mean[i] / rows);
    out->mean_entropy = fmax(entropy, 0); /* the last digits of certain targets */
    out->rank = effective_rank(h->ring, h->filled, h->dim);
    return out->rank < 0 ? -1 : 0;
}

static void begin(Sums *s, int64_t k)
{
    double *mean = s->mean;
    memset(mean, 0, (size_t)k * sizeof *mean);
    *s = (Sums){ .mean = mean };
}

int health_window(Health *h, HealthFigures *out)
{
    if (h->window.looks < HEALTH_LOOKS)
        return 0;
    int rc = figures(h, &h->window, out);
    begin(&h->window, h->k);
    return rc ? -1 : 1;
}

int health_epoch(Health *h, HealthFigures *out)
{
    int rc = figures(h, &h->epoch, out);
    begin(&h->epoch, h->k);
    return rc;
}
