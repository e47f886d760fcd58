#include "image/synth.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/rng.h"

enum { SHAPES = 12, FILLS = 4, GRID = 96 };
#define EXTENT 1.5f /* a table covers [-EXTENT, EXTENT]^2; shapes lie within the unit disc or nearly so */
#define TAU 6.28318530718f

static const char *const shape_names[SHAPES] = { "disc",     "cross", "triangle", "ring",  "star", "bar",
                                                 "crescent", "ell",   "square",   "heart", "tee",  "zigzag" };
static const char *const fill_names[FILLS] = { "plain", "hollow", "halved", "striped" };

struct Synth {
    uint64_t seed;
    int classes, size;
    float distance[SHAPES][GRID * GRID]; /* signed distance to each shape's edge, negative inside */
};

/* ---------------------------------------------------------------- shapes */

typedef struct {
    int n;
    float xy[24];
} Polygon;

static const Polygon cross = { 12, { -.32f, -1, .32f, -1, .32f, -.32f, 1, -.32f, 1, .32f, .32f, .32f,
                                     .32f, 1, -.32f, 1, -.32f, .32f, -1, .32f, -1, -.32f, -.32f, -.32f } };
static const Polygon triangle = { 3, { 0, -1.1f, .95f, .55f, -.95f, .55f } };
static const Polygon bar = { 4, { -1.2f, -.32f, 1.2f, -.32f, 1.2f, .32f, -1.2f, .32f } };
static const Polygon ell = { 6, { -.8f, -1, -.2f, -1, -.2f, .4f, .8f, .4f, .8f, 1, -.8f, 1 } };
static const Polygon square = { 4, { -.78f, -.78f, .78f, -.78f, .78f, .78f, -.78f, .78f } };
static const Polygon tee = { 8, { -1, -.9f, 1, -.9f, 1, -.35f, .3f, -.35f, .3f, 1, -.3f, 1, -.3f, -.35f, -1, -.35f } };
static const Polygon zigzag = { 8, { -1.1f, -.1f, -.3f, -.8f, .35f, .1f, .95f, -.45f, 1.15f, .1f,
                                     .3f, .85f, -.35f, -.05f, -.85f, .45f } };

static float polygon_distance(const Polygon *p, float x, float y)
{
    float best = 1e9f;
    bool inside = false;

    for (int i = 0, j = p->n - 1; i < p->n; j = i++) {
        float ax = p->xy[2 * j], ay = p->xy[2 * j + 1], bx = p->xy[2 * i], by = p->xy[2 * i + 1];
        float ex = bx - ax, ey = by - ay, wx = x - ax, wy = y - ay;
        float t = (wx * ex + wy * ey) / (ex * ex + ey * ey);

        t = t < 0 ? 0 : t > 1 ? 1 : t;
        wx -= t * ex;
        wy -= t * ey;
        best = fminf(best, wx * wx + wy * wy);
        if ((ay > y) != (by > y) && x < ex * (y - ay) / ey + ax)
            inside = !inside;
    }
    return inside ? -sqrtf(best) : sqrtf(best);
}

static float star_distance(float x, float y)
{
    Polygon star = { 10, { 0 } };

    for (int i = 0; i < 10; i++) {
        float r = i % 2 ? .45f : 1.15f, a = TAU * (float)i / 10;
        star.xy[2 * i] = r * sinf(a);
        star.xy[2 * i + 1] = -r * cosf(a);
    }
    return polygon_distance(&star, x, y);
}

/* x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, as a polygon. */
static float heart_distance(float x, float y)
{
    Polygon heart = { 12, { 0 } };

    for (int i = 0; i < 12; i++) {
        float t = TAU * (float)i / 12, sine = sinf(t);
        heart.xy[2 * i] = sine * sine * sine;
        heart.xy[2 * i + 1] = -(13 * cosf(t) - 5 * cosf(2 * t) - 2 * cosf(3 * t) - cosf(4 * t)) / 15.f;
    }
    return polygon_distance(&heart, x, y);
}

static float shape_distance(int shape, float x, float y)
{
    switch (shape) {
    case 0: return hypotf(x, y) - .92f;
    case 1: return polygon_distance(&cross, x, y);
    case 2: return polygon_distance(&triangle, x, y);
    case 3: return fabsf(hypotf(x, y) - .75f) - .25f;
    case 4: return star_distance(x, y);
    case 5: return polygon_distance(&bar, x, y);
    case 6: return fmaxf(hypotf(x, y) - 1.f, .78f - hypotf(x - .5f, y));
    case 7: return polygon_distance(&ell, x, y);
    case 8: return polygon_distance(&square, x, y);
    case 9: return heart_distance(x, y);
    case 10: return polygon_distance(&tee, x, y);
    default: return polygon_distance(&zigzag, x, y);
    }
}

/* Bilinear look-up; far outside of the table the border value will do. */
static float table_distance(const float *table, float x, float y)
{
    float u = (x + EXTENT) * ((GRID - 1) / (2 * EXTENT)), v = (y + EXTENT) * ((GRID - 1) / (2 * EXTENT));

    u = u < 0 ? 0 : u > GRID - 1.001f ? GRID - 1.001f : u;
    v = v < 0 ? 0 : v > GRID - 1.001f ? GRID - 1.001f : v;
    int i = (int)u, j = (int)v;
    float fu = u - (float)i, fv = v - (float)j;
    const float *t = table + j * GRID + i;
    return (t[0] * (1 - fu) + t[1] * fu) * (1 - fv) + (t[GRID] * (1 - fu) + t[GRID + 1] * fu) * fv;
}

/* ---------------------------------------------------------------- classes */

static int class_shape(int label)
{
    return label % SHAPES;
}

/* Neighbouring classes differ in both; the 48 pairs are distinct. */
static int class_fill(int label)
{
    return (label + label / SHAPES) % FILLS;
}

Synth *synth_new(uint64_t seed, int classes, int size)
{
    if (classes < 1 || classes > SYNTH_MAX_CLASSES || size < SYNTH_MIN_SIZE || size > SYNTH_MAX_SIZE) {
        err_set(ERR_USAGE, "%d classes of %d pixels: 1 to %d classes and %d to %d pixels can be drawn", classes, size,
                SYNTH_MAX_CLASSES, SYNTH_MIN_SIZE, SYNTH_MAX_SIZE);
        return NULL;
    }
    Synth *s = malloc(sizeof *s);
    if (!s) {
        err_set(ERR_MEMORY, "no memory for %zu bytes", sizeof *s);
        return NULL;
    }
    s->seed = seed;
    s->classes = classes;
    s->size = size;
    for (int k = 0; k < SHAPES; k++)
        for (int j = 0; j < GRID; j++)
            for (int i = 0; i < GRID; i++)
                s->distance[k][j * GRID + i] = shape_distance(k, EXTENT * (2 * (float)i / (GRID - 1) - 1),
                                                              EXTENT * (2 * (float)j / (GRID - 1) - 1));
    return s;
}

void synth_free(Synth *s)
{
    free(s);
}

int synth_label(const Synth *s, uint64_t i)
{
    return (int)(i % (uint64_t)s->classes);
}

char *synth_class_name(int label, char *buf, size_t size)
{
    snprintf(buf, size, "%s-%s", shape_names[class_shape(label)], fill_names[class_fill(label)]);
    return buf;
}

/* ---------------------------------------------------------------- painting (float RGB in [0, 1]) */

typedef struct {
    int size;
    float *rgb;
} Canvas;

static float range(Rng *r, float lo, float hi)
{
    return lo + (hi - lo) * rng_uniform(r);
}

static float luminance(const float *c)
{
    return .299f * c[0] + .587f * c[1] + .114f * c[2];
}

static float clamp01(float v)
{
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* A random colour of the given luminance. */
static void tint(Rng *r, float wanted, float out[3])
{
    for (int c = 0; c < 3; c++)
        out[c] = rng_uniform(r);
    float y = luminance(out);
    for (int c = 0; c < 3; c++)
        out[c] = clamp01(wanted + .4f * (out[c] - y));
}

/* Add bilinearly interpolated random colours of a coarse grid. */
static void add_clouds(const Canvas *cv, Rng *r, int cells, float strength)
{
    enum { MOST = 9 };
    float node[MOST][MOST][3];
    float step = (float)cells / (float)cv->size;

    for (int j = 0; j <= cells; j++)
        for (int i = 0; i <= cells; i++)
            for (int c = 0; c < 3; c++)
                node[j][i][c] = strength * (rng_uniform(r) - .5f);
    for (int y = 0; y < cv->size; y++) {
        float v = ((float)y + .5f) * step;
        int j = (int)v;
        float fv = v - (float)j;
        for (int x = 0; x < cv->size; x++) {
            float u = ((float)x + .5f) * step;
            int i = (int)u;
            float fu = u - (float)i;
            float *p = cv->rgb + 3 * ((size_t)y * (size_t)cv->size + (size_t)x);
            for (int c = 0; c < 3; c++)
                p[c] += (node[j][i][c] * (1 - fu) + node[j][i + 1][c] * fu) * (1 - fv) +
                        (node[j + 1][i][c] * (1 - fu) + node[j + 1][i + 1][c] * fu) * fv;
        }
    }
}

static void blend(float *p, const float colour[3], float alpha)
{
    for (int c = 0; c < 3; c++)
        p[c] += alpha * (colour[c] - p[c]);
}

/* How much of the second colour a point of the motif has; distances in units of the radius. */
static float second_colour(int fill, float x, float d, float edge)
{
    switch (fill) {
    case 1: return clamp01(.5f + (-.22f - d) / edge);
    case 2: return clamp01(.5f + x / edge);
    case 3: return clamp01(.5f + (fabsf(x - .66f * rintf(x / .66f)) - .165f) / edge);
    default: return 0;
    }
}

static void paint_motif(const Synth *s, const Canvas *cv, Rng *r, int label, float pitch, float cx, float cy)
{
    float radius = pitch * range(r, .33f, .45f), angle = range(r, 0, TAU);
    float ca = cosf(angle) / radius, sa = sinf(angle) / radius, edge = 1 / radius;
    float mirror = rng_below(r, 2) ? -1.f : 1.f;
    float colour[2][3];
    const float *table = s->distance[class_shape(label)];
    int fill = class_fill(label), n = cv->size;
    float draws[2];

    for (int k = 0; k < 2; k++)
        draws[k] = rng_uniform(r);
    if (cx < -radius || cy < -radius || cx > (float)n + radius || cy > (float)n + radius)
        return;
    int px = cx < 0 ? 0 : cx >= (float)n ? n - 1 : (int)cx, py = cy < 0 ? 0 : cy >= (float)n ? n - 1 : (int)cy;
    float under = luminance(cv->rgb + 3 * ((size_t)py * (size_t)n + (size_t)px));
    /* Lighter or darker than the ground, wherever there is room; which more often depends on the class. */
    bool lighter = under < .25f || (under < .75f && draws[0] < (label % 2 ? .72f : .28f));
    float reach = .35f + .2f * draws[1];
    tint(r, lighter ? under + reach : under - reach, colour[0]);
    tint(r, lighter ? under - .15f : under + .15f, colour[1]);

    int reach_px = (int)(radius * 1.35f) + 2;
    int x0 = (int)cx - reach_px, x1 = (int)cx + reach_px, y0 = (int)cy - reach_px, y1 = (int)cy + reach_px;
    for (int y = y0 < 0 ? 0 : y0; y <= y1 && y < n; y++)
        for (int x = x0 < 0 ? 0 : x0; x <= x1 && x < n; x++) {
            float dx = (float)x + .5f - cx, dy = (float)y + .5f - cy;
            float u = mirror * (ca * dx + sa * dy), v = ca * dy - sa * dx;
            float d = table_distance(table, u, v), alpha = clamp01(.5f - d / edge);
            if (alpha <= 0)
                continue;
            float *p = cv->rgb + 3 * ((size_t)y * (size_t)n + (size_t)x);
            float second = second_colour(fill, u, d, edge);
            blend(p, colour[0], alpha * (1 - second));
            /* A hollow motif shows the ground. */
            if (fill != 1)
                blend(p, colour[1], alpha * second);
        }
}

/* The motif on a turned lattice with jitter, over the whole picture and beyond its border. */
static void paint_motifs(const Synth *s, const Canvas *cv, Rng *r, int label)
{
    static const float pitches[3] = { .3f, .18f, .45f };
    float n = (float)cv->size, pitch = n * pitches[label % 3] * range(r, .9f, 1.1f), angle = range(r, 0, TAU);
    float ca = pitch * cosf(angle), sa = pitch * sinf(angle), ox = range(r, 0, n), oy = range(r, 0, n);

    int cells = (int)(1.5f * n / pitch) + 1;
    for (int j = -cells; j <= cells; j++)
        for (int i = -cells; i <= cells; i++) {
            float u = (float)i + range(r, -.12f, .12f), v = (float)j + range(r, -.12f, .12f);
            paint_motif(s, cv, r, label, pitch, ox + ca * u - sa * v, oy + sa * u + ca * v);
        }
}

/* Thin strokes and small spots that belong to no class. */
static void paint_distractors(const Canvas *cv, Rng *r)
{
    float n = (float)cv->size;
    int count = (int)rng_below(r, 3);

    for (int k = 0; k < count; k++) {
        bool spot = rng_below(r, 2);
        float cx = range(r, 0, n), cy = range(r, 0, n), angle = range(r, 0, TAU), ca = cosf(angle), sa = sinf(angle);
        float half = spot ? 0 : n * range(r, .1f, .3f), thick = n * (spot ? range(r, .015f, .035f) : .009f);
        float colour[3], alpha0 = range(r, .5f, .9f);
        tint(r, rng_uniform(r), colour);
        int reach = (int)(half + thick) + 2;
        for (int y = (int)cy - reach < 0 ? 0 : (int)cy - reach; y <= (int)cy + reach && y < cv->size; y++)
            for (int x = (int)cx - reach < 0 ? 0 : (int)cx - reach; x <= (int)cx + reach && x < cv->size; x++) {
                float dx = (float)x + .5f - cx, dy = (float)y + .5f - cy;
                float along = fmaxf(fabsf(ca * dx + sa * dy) - half, 0), across = ca * dy - sa * dx;
                float alpha = alpha0 * clamp01(.5f + thick - sqrtf(along * along + across * across));
                if (alpha > 0)
                    blend(cv->rgb + 3 * ((size_t)y * (size_t)cv->size + (size_t)x), colour, alpha);
            }
    }
}

/* Lighting gradient and sensor noise, and to bytes. Noise is the sum of four bytes of one draw. */
static void finish(const Canvas *cv, Rng *r, uint8_t *out)
{
    float n = (float)cv->size, angle = range(r, 0, TAU), slope = range(r, 0, .3f), gain = range(r, .95f, 1.05f);
    float gx = slope * cosf(angle) / n, gy = slope * sinf(angle) / n, noise = range(r, .01f, .04f) / 148;

    for (int y = 0; y < cv->size; y++)
        for (int x = 0; x < cv->size; x++) {
            size_t at = 3 * ((size_t)y * (size_t)cv->size + (size_t)x);
            float light = gain * (1 + gx * ((float)x - n / 2) + gy * ((float)y - n / 2));
            for (int c = 0; c < 3; c++) {
                uint32_t w = rng_u32(r);
                float bell = (float)((w & 255) + (w >> 8 & 255) + (w >> 16 & 255) + (w >> 24)) - 510;
                out[at + (size_t)c] = (uint8_t)(255 * clamp01(cv->rgb[at + (size_t)c] * light + noise * bell) + .5f);
            }
        }
}

int synth_draw(const Synth *s, uint32_t part, uint64_t i, uint8_t *rgb)
{
    size_t count = 3 * (size_t)s->size * (size_t)s->size;
    Canvas cv = { s->size, malloc(count * sizeof(float)) };
    Rng r = rng_make(s->seed, RNG_SYNTH, i, part);

    if (!cv.rgb)
        return err_set(ERR_MEMORY, "no memory for %zu bytes", count * sizeof(float));
    for (size_t k = 0; k < count; k++)
        cv.rgb[k] = .5f;
    add_clouds(&cv, &r, 2, .12f);
    add_clouds(&cv, &r, 4 + (int)rng_below(&r, 4), .12f);
    paint_motifs(s, &cv, &r, synth_label(s, i));
    paint_distractors(&cv, &r);
    finish(&cv, &r, rgb);
    free(cv.rgb);
    return 0;
}
