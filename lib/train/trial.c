#include "train/trial.h"

#include "image/render.h"
#include "image/synth.h"
#include "util/err.h"
#include "util/log.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { COPY_BLOCK = 64 << 10, COPY_BLOCKS = 256, COPY_TURNS = 4 };
enum { DRAWN = 8, QUALITY = 90, LEAST_RECORDS = 8, DECODE_EACH = 3 };

static double own_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void tick(const Trial *t, const char *what)
{
    if (t->tick)
        t->tick(t->arg, what);
}

/* Bytes a second through a socket of this host, both ends on one processor, as records travel. */
static int copy_rate(double *rate)
{
    int end[2];
    const size_t bytes = (size_t)COPY_BLOCKS * COPY_BLOCK; /* more than caches hold */
    char *block = malloc(2 * bytes);
    double best = 0;
    if (!block || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end)) {
        free(block);
        return block ? err_system("socketpair")
                     : err_set(ERR_MEMORY, "out of memory: %zu bytes wanted", 2 * bytes);
    }
    memset(block, 1, 2 * bytes);
    for (int turn = 0; turn < COPY_TURNS; turn++) {
        double began = own_seconds();
        size_t moved = 0;
        for (int i = 0; i < COPY_BLOCKS; i++) {
            char *from = block + (size_t)i * COPY_BLOCK;
            ssize_t n = write(end[0], from, COPY_BLOCK), got = 0;
            for (ssize_t part = 1; n > 0 && part > 0 && got < n; got += part)
                part = read(end[1], from + bytes + got, (size_t)(n - got));
            moved += (size_t)got;
        }
        best = fmax(best, (double)moved / (own_seconds() - began));
    }
    close(end[0]);
    close(end[1]);
    free(block);
    *rate = best;
    return best > 0 ? 0 : err_set(ERR_SYSTEM, "nothing goes through a socket");
}

int trial_host(Machine *m)
{
    cpu_set_t set;
    gethostname(m->name, sizeof m->name - 1);
    m->cores = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    m->memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return copy_rate(&m->copy);
}

/* ---- images */

typedef struct {
    Dataset *ds; /* or pictures that were drawn */
    void *bytes[DRAWN];
    size_t size[DRAWN];
    int side;
} Source;

static int draw(Source *s, double pixels)
{
    double side = round(sqrt(pixels));
    s->side = (int)fmin(SYNTH_MAX_SIZE, fmax(SYNTH_MIN_SIZE, side));
    Synth *y = synth_new(0, SYNTH_MAX_CLASSES, s->side);
    Image im = {s->side, s->side, y ? malloc((size_t)s->side * (size_t)s->side * 3) : NULL};
    int rc = !y ? -1 : im.rgb ? 0 : err_set(ERR_MEMORY, "out of memory for a picture");
    for (int i = 0; i < DRAWN && !rc; i++)
        rc = synth_draw(y, 0, (uint64_t)i, im.rgb) ||
                     image_encode_jpeg(&im, QUALITY, &s->bytes[i], &s->size[i])
                 ? -1
                 : 0;
    image_free(&im);
    synth_free(y);
    return rc;
}

/* Record i of a walk that is spread over the whole dataset however early it ends. */
static int take(Source *s, uint64_t i, Record *rec)
{
    if (!s->ds) {
        *rec = (Record){.bytes = s->bytes[i % DRAWN],
                        .size = s->size[i % DRAWN],
                        .width = (uint32_t)s->side,
                        .height = (uint32_t)s->side};
        return 0;
    }
    double at = (double)i * 0.6180339887498949;
    return dataset_take(s->ds, (uint64_t)((at - floor(at)) * (double)dataset_count(s->ds)), rec);
}

typedef struct {
    RenderScratch *scratch;
    uint8_t *views, *outs[PLAN_MAX_VIEWS];
    Image whole;
    size_t capacity;
    double pixels, decode, render; /* seconds of these */
    double decoded;                /* pixels of the images that decode is of */
    int64_t n;
} Renderer;

static int renderer_open(Renderer *w, const Recipe *r)
{
    size_t global = (size_t)r->global_size * (size_t)r->global_size * 3,
           local = (size_t)r->local_size * (size_t)r->local_size * 3;
    *w = (Renderer){.scratch = render_scratch_new()};
    w->views = malloc((size_t)r->globals * global + (size_t)r->locals * local);
    if (!w->scratch || !w->views)
        return err_set(ERR_MEMORY, "no memory to render in");
    for (int v = 0; v < r->globals + r->locals; v++)
        w->outs[v] =
            w->views + (v < r->globals ? (size_t)v * global
                                       : (size_t)r->globals * global + (size_t)(v - r->globals) * local);
    return 0;
}

static void renderer_close(Renderer *w)
{
    image_free(&w->whole);
    render_scratch_free(w->scratch);
    free(w->views);
}

/* Decoding alone is measured with some of the images, only to tell it from the rest. */
static void one(Renderer *w, const Recipe *r, bool fast, const Record *rec, uint64_t i)
{
    ViewPlan plans[PLAN_MAX_VIEWS];
    plan_views(r, 0, 0, i, (int)rec->width, (int)rec->height, plans);
    double began = own_seconds(), pixels = (double)rec->width * rec->height;
    if (render_views(rec->bytes, rec->size, rec->reading, plans, r->globals + r->locals, fast, w->outs,
                     w->scratch))
        return;
    w->render += own_seconds() - began;
    w->pixels += pixels;
    w->n++;
    if (i % DECODE_EACH)
        return;
    began = own_seconds();
    if (image_decode_into(rec->bytes, rec->size, rec->reading, 8, &w->whole, &w->capacity))
        return;
    w->decode += own_seconds() - began;
    w->decoded += pixels;
}

int trial_render(Dataset *ds, const Recipe *r, bool fast, const Trial *t, ForecastData *d, Machine *m)
{
    Source s = {.ds = ds};
    Renderer w = {0};
    Record rec;
    int rc = (ds ? 0 : draw(&s, d->image_pixels)) || renderer_open(&w, r) ? -1 : 0;
    /* The first images grow the memory that later ones find. */
    double until = log_seconds() + t->seconds;
    uint64_t most = ds ? 4 * dataset_count(ds) + LEAST_RECORDS : UINT64_MAX;
    bool warm = false;
    for (uint64_t i = 0; !rc && i < most && (log_seconds() < until || (w.n < LEAST_RECORDS && i < 100));
         i++) {
        int got = take(&s, i, &rec);
        if (got < 0)
            rc = -1;
        else if (!got && rec.width && rec.height)
            one(&w, r, fast, &rec, i);
        if (!warm && w.n == DECODE_EACH) {
            w.n = 0;
            w.pixels = w.decode = w.render = w.decoded = 0;
            warm = true;
        }
        tick(t, "rendering");
    }
    if (!rc && !(w.n && w.decoded > 0))
        rc =
            err_set(ERR_DATA, "%s: no image of it can be rendered", ds ? dataset_path(ds) : "drawn pictures");
    if (!rc) {
        double n = (double)w.n, views = 0;
        for (int v = 0; v < r->globals + r->locals; v++)
            views += v < r->globals ? (double)r->global_size * r->global_size
                                    : (double)r->local_size * r->local_size;
        /* What views take may come out as less than nothing where they need but a part of the image. */
        double decode = fmin(w.decode / w.decoded * w.pixels, 0.9 * w.render);
        m->decode = w.pixels / decode;
        m->render = views * n / (w.render - decode);
        if (ds) {
            d->images = (double)dataset_count(ds);
            d->record_bytes = (double)dataset_bytes(ds) / d->images;
            d->image_pixels = w.pixels / n;
        }
    }
    renderer_close(&w);
    for (int i = 0; i < DRAWN; i++)
        free(s.bytes[i]);
    return rc;
}
