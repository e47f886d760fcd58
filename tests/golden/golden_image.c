/* Images: decoding, resizing, colour, blur, whole views. Bytes must be equal. */
#include "golden.h"
#include "golden_tape.h"
#include "image/render.h"
#include "image/scratch.h"
#include "tensor/ops.h"
#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A stored U8 [H,W,3] as a picture of its own; empty (and the case failed) when absent. */
static Image picture(Golden *g, const char *name)
{
    const GoldenTensor *t = golden_get(g, name);
    Image im = { 0 };
    if (t && t->ndim == 3 && t->shape[2] == 3 && (im.rgb = malloc(t->count))) {
        memcpy(im.rgb, t->data, t->count);
        im.w = (int)t->shape[1];
        im.h = (int)t->shape[0];
    }
    return im;
}

/* Apply an operation on planes to a copy of the picture and compare. */
typedef void PlaneOp(uint8_t *planes[3], int w, int h, uint8_t *gray, const void *arg);

static void check_planes(Golden *g, const Image *im, PlaneOp *op, const void *arg, const char *name)
{
    int n = im->w * im->h;
    uint8_t *block = malloc((size_t)n * 7), *planes[3] = {block, block + n, block + 2 * n},
            *rgb = block + 4 * n;
    pixels()->split(im->rgb, n, planes[0], planes[1], planes[2]);
    op(planes, im->w, im->h, block + 3 * n, arg);
    pixels()->join(planes[0], planes[1], planes[2], n, rgb);
    golden_check_equal(g, name, rgb, (size_t)n * 3);
    free(block);
}

static void op_blur(uint8_t *planes[3], int w, int h, uint8_t *gray, const void *arg)
{
    Room room = { 0 };
    (void)gray;
    for (int c = 0; c < 3; c++)
        blur_plane(planes[c], w, h, *(const float *)arg, &room);
    room_free(&room);
}

static void blur(Golden *g)
{
    const char *images[] = { "in.image", "in.small" };
    const GoldenTensor *radii = golden_get(g, "in.radii");
    for (int i = 0; radii && i < 2; i++) {
        Image im = picture(g, images[i]);
        for (int r = 0; im.rgb && r < (int)radii->count; r++) {
            char name[64];
            snprintf(name, sizeof name, i ? "out.small.%d" : "out.%d", r);
            check_planes(g, &im, op_blur, (const float *)radii->data + r, name);
        }
        image_free(&im);
    }
}

typedef struct {
    uint8_t order[4];
    float factor[4];
    int parts; /* how many of the order to apply */
} Jitter;

static void op_jitter(uint8_t *planes[3], int w, int h, uint8_t *gray, const void *arg)
{
    const Jitter *j = arg;
    color_jitter(planes, w * h, j->order, j->factor, gray, j->parts);
}

static void op_gray(uint8_t *planes[3], int w, int h, uint8_t *gray, const void *arg)
{
    (void)gray;
    (void)arg;
    color_gray(planes, w * h);
}

static void op_solarize(uint8_t *planes[3], int w, int h, uint8_t *gray, const void *arg)
{
    (void)gray;
    (void)arg;
    for (int c = 0; c < 3; c++)
        pixels()->solarize(planes[c], w * h);
}

static void color(Golden *g)
{
    static const char *const parts[] = { "brightness", "contrast", "saturation", "hue" };
    Image im = picture(g, "in.image"), noise = picture(g, "in.image2");
    if (!im.rgb || !noise.rgb)
        return;
    for (uint8_t part = 0; part < 4; part++) {
        char name[64];
        snprintf(name, sizeof name, "in.%s_factors", parts[part]);
        const GoldenTensor *factors = golden_get(g, name);
        for (int i = 0; factors && i < (int)factors->count; i++) {
            Jitter j = { .order = { part }, .parts = 1 };
            j.factor[part] = ((const float *)factors->data)[i];
            snprintf(name, sizeof name, "out.%s.%d", parts[part], i);
            check_planes(g, &im, op_jitter, &j, name);
            snprintf(name, sizeof name, "out.%s2.%d", parts[part], i);
            if (golden_find(g, name))
                check_planes(g, &noise, op_jitter, &j, name);
        }
    }
    check_planes(g, &im, op_gray, NULL, "out.grayscale");
    check_planes(g, &im, op_solarize, NULL, "out.solarize");

    int n = noise.w * noise.h;
    uint8_t *p = malloc((size_t)n * 4);
    pixels()->split(noise.rgb, n, p, p + n, p + 2 * n);
    pixels()->gray(p, p + n, p + 2 * n, n, p + 3 * n);
    golden_check_equal(g, "out.luma", p + 3 * n, (size_t)n);
    free(p);

    /* views are square: flip the picture by squares */
    int side = im.w < im.h ? im.w : im.h;
    uint8_t *flipped = calloc((size_t)im.w * (size_t)im.h, 3),
            *view = malloc((size_t)side * (size_t)side * 3);
    RenderScratch *s = render_scratch_new();
    for (int y = 0; y < im.h; y += side)
        for (int x = 0; x < im.w; x += side) {
            ViewPlan v = {.x = x < im.w - side ? x : im.w - side,
                          .y = y < im.h - side ? y : im.h - side,
                          .w = side,
                          .h = side,
                          .size = side,
                          .flip = 1};
            if (render_view(&im, &v, view, s))
                golden_fail(g, "%s", err_text());
            for (int row = 0; row < side; row++)
                memcpy(flipped + ((v.y + row) * im.w + im.w - v.x - side) * 3, view + row * side * 3,
                       (size_t)side * 3);
        }
    render_scratch_free(s);
    free(view);
    golden_check_equal(g, "out.hflip", flipped, (size_t)im.w * (size_t)im.h * 3);
    free(flipped);
    image_free(&im);
    image_free(&noise);
}

static void jitter_order(Golden *g)
{
    const GoldenTensor *orders = golden_get(g, "in.orders"), *factors = golden_get(g, "in.factors");
    Image im = picture(g, "in.image");
    for (int i = 0; orders && factors && im.rgb && i < (int)orders->shape[0]; i++) {
        Jitter j = { .parts = 4 };
        char name[32];
        for (int k = 0; k < 4; k++) {
            j.order[k] = (uint8_t)((const int32_t *)orders->data)[i * 4 + k];
            j.factor[k] = ((const float *)factors->data)[i * 4 + k];
        }
        snprintf(name, sizeof name, "out.%d", i);
        check_planes(g, &im, op_jitter, &j, name);
    }
    image_free(&im);
}

static void check_resize(Golden *g, const Image *im, ImageBox box, int w, int h, ImageFilter filter,
                         const char *name)
{
    uint8_t *out = malloc((size_t)w * (size_t)h * 3);
    if (image_resize(im, box, w, h, filter, out))
        golden_fail(g, "%s", err_text());
    else
        golden_check_equal(g, name, out, (size_t)w * (size_t)h * 3);
    free(out);
}

/* Boxes are stored as top, left, height, width. */
static ImageBox box_at(const GoldenTensor *boxes, int i)
{
    const int32_t *b = (const int32_t *)boxes->data + 4 * i;
    return (ImageBox){ b[1], b[0], b[3], b[2] };
}

static void resized_crop(Golden *g)
{
    const GoldenTensor *boxes = golden_get(g, "in.boxes"), *sizes = golden_find(g, "in.sizes");
    Image im = picture(g, "in.image");
    static const int squares[] = { 224, 96 };
    for (int i = 0; boxes && im.rgb && i < (int)boxes->shape[0]; i++) {
        char name[64];
        if (!sizes) {
            snprintf(name, sizeof name, "out.%d", squares[i % 2]);
            check_resize(g, &im, box_at(boxes, i), squares[i % 2], squares[i % 2], FILTER_BICUBIC, name);
            continue;
        }
        const int32_t *size = (const int32_t *)sizes->data + 2 * i;
        snprintf(name, sizeof name, "out.bicubic.%d", i);
        check_resize(g, &im, box_at(boxes, i), size[1], size[0], FILTER_BICUBIC, name);
        snprintf(name, sizeof name, "out.bilinear.%d", i);
        check_resize(g, &im, box_at(boxes, i), size[1], size[0], FILTER_BILINEAR, name);
    }
    image_free(&im);
}

static void eval_resize(Golden *g)
{
    int side = golden_int(g, "short", 0), crop = golden_int(g, "crop", 0);
    Image im = picture(g, "in.image");
    uint8_t *out = malloc((size_t)crop * (size_t)crop * 3);
    for (int f = FILTER_BILINEAR; im.rgb && f <= FILTER_BICUBIC; f++) {
        const char *whole = f ? "out.bicubic" : "out.bilinear";
        const GoldenTensor *t = golden_get(g, whole);
        if (t)
            check_resize(g, &im, (ImageBox){0, 0, im.w, im.h}, (int)t->shape[1], (int)t->shape[0],
                         (ImageFilter)f, whole);
        if (image_eval_view_filter(&im, side, crop, (ImageFilter)f, out))
            golden_fail(g, "%s", err_text());
        golden_check_equal(g, f ? "out.bicubic_crop" : "out.bilinear_crop", out,
                           (size_t)crop * (size_t)crop * 3);
    }
    free(out);
    image_free(&im);
}

static void jpeg(Golden *g)
{
    const GoldenTensor *t;
    for (size_t i = 0; (t = golden_at(g, i)); i++) {
        char name[128];
        Image im;
        if (strncmp(t->name, "in.jpeg.", 8))
            continue;
        snprintf(name, sizeof name, "out.rgb.%s", t->name + 8);
        if (image_decode(t->data, t->count, 0, &im)) {
            golden_fail(g, "%s: %s", t->name, err_text());
            continue;
        }
        golden_check_equal(g, name, im.rgb, (size_t)im.w * (size_t)im.h * 3);
        image_free(&im);
    }
}

/* Files of all kinds, read as a new data set has it; and a view of each, which comes by another way. */
static void pixels_of_files(Golden *g)
{
    const GoldenTensor *t;
    RenderScratch *s = render_scratch_new();
    for (size_t i = 0; (t = golden_at(g, i)); i++) {
        char name[128];
        ImageInfo info;
        Image im = { 0 };
        uint8_t whole[16 * 16 * 3], view[16 * 16 * 3], *outs[] = { view };
        ViewPlan p = { .x = 2, .y = 1, .w = 6, .h = 7, .size = 16, .filter = FILTER_BICUBIC, .flip = 1 };
        if (strncmp(t->name, "in.file.", 8))
            continue;
        snprintf(name, sizeof name, "out.rgb.%s", t->name + 8);
        unsigned reading = image_probe(t->data, t->count, &info) ? 0 : image_reading(&info, true, true);
        const GoldenTensor *want = golden_get(g, name);
        if (image_decode(t->data, t->count, reading, &im))
            golden_fail(g, "%s: %s", t->name, err_text());
        else if (want && (im.h != want->shape[0] || im.w != want->shape[1]))
            golden_fail(g, "%s: %d x %d", t->name, im.w, im.h);
        else
            golden_check_equal(g, name, im.rgb, (size_t)im.w * (size_t)im.h * 3);
        if (im.rgb && (render_view(&im, &p, whole, s) ||
                       render_views(t->data, t->count, reading, &p, 1, false, outs, s) ||
                       memcmp(whole, view, sizeof view)))
            golden_fail(g, "%s: a view differs from that of the decoded picture: %s", t->name, err_text());
        image_free(&im);
    }
    render_scratch_free(s);
}

static void check_normalized(Golden *g, uint8_t *rgb, int w, int h, const char *name)
{
    Tape *t = tape_new("cpu");
    tape_begin(t, false);
    Tensor *x = tape_wrap(t, DT_U8, 4, (int64_t[]){ 1, h, w, 3 }, rgb);
    Tensor *y = op_image_normalize(t, x);
    float *out = malloc((size_t)w * (size_t)h * 3 * sizeof *out);
    if (!y || tape_read(t, y, out))
        golden_fail(g, "%s", err_text());
    else
        golden_check(g, name, out);
    free(out);
    tape_free(t);
}

static void normalize(Golden *g)
{
    Image im = picture(g, "in.image");
    if (im.rgb)
        check_normalized(g, im.rgb, im.w, im.h, "out.y");
    image_free(&im);
}

static double number(json_object *list, int i)
{
    return json_object_get_double(json_object_array_get_idx(list, (size_t)i));
}

static void pipeline(Golden *g)
{
    json_object *views = json_object_object_get(golden_config(g), "views"), *o;
    Image im = picture(g, "in.image");
    RenderScratch *s = render_scratch_new();
    for (int i = 0; im.rgb && views && i < (int)json_object_array_length(views); i++) {
        json_object *v = json_object_array_get_idx(views, (size_t)i), *box = json_object_object_get(v, "box");
        ViewPlan p = { .y = (int)number(box, 0), .x = (int)number(box, 1), .h = (int)number(box, 2),
                       .w = (int)number(box, 3), .filter = FILTER_BICUBIC };
        p.size = json_object_get_int(json_object_object_get(v, "size"));
        p.flip = (uint8_t)json_object_get_boolean(json_object_object_get(v, "flip"));
        p.gray = (uint8_t)json_object_get_boolean(json_object_object_get(v, "gray"));
        p.solarize = (uint8_t)json_object_get_boolean(json_object_object_get(v, "solarize"));
        p.blur = (float)json_object_get_double(json_object_object_get(v, "blur"));
        if ((o = json_object_object_get(v, "order"))) {
            p.jitter = 1;
            for (int k = 0; k < 4; k++) {
                p.order[k] = (uint8_t)number(o, k);
                p.factor[k] = (float)number(json_object_object_get(v, "factors"), k);
            }
        }
        uint8_t *out = malloc((size_t)p.size * (size_t)p.size * 3);
        char name[32];
        if (render_view(&im, &p, out, s))
            golden_fail(g, "%s", err_text());
        snprintf(name, sizeof name, "out.u8.%d", i);
        golden_check_equal(g, name, out, (size_t)p.size * (size_t)p.size * 3);
        snprintf(name, sizeof name, "out.f32.%d", i);
        check_normalized(g, out, p.size, p.size, name);
        free(out);
    }
    render_scratch_free(s);
    image_free(&im);
}

static const GoldenCase cases[] = {
    { "image_blur", blur },
    { "image_color", color },
    { "image_jitter_order", jitter_order },
    { "image_resized_crop*", resized_crop },
    { "image_eval_resize", eval_resize },
    { "image_jpeg", jpeg },
    { "image_pixels", pixels_of_files },
    { "image_normalize", normalize },
    { "image_pipeline", pipeline },
    { 0 },
};
GOLDEN_REGISTER(cases)
