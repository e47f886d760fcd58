#include "image/image.h"
#include "image/scratch.h"

#include "util/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* Keys' cubic with a = -0.5. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* Taps for resampling `in` places to `out`, as Pillow's precompute_coeffs, rounded to 22 bits. */
static int taps_make(Taps *t, int in, int out, ImageFilter filter, Room *room)
{
    double (*f)(double) = filter == FILTER_BILINEAR ? bilinear : bicubic;
    double scale = (double)in / out, stretch = scale < 1 ? 1 : scale;
    double support = (filter == FILTER_BILINEAR ? 1 : 2) * stretch;
    int reach = (int)ceil(support) * 2 + 1, width = (reach + 3) & ~3;
    size_t n = (size_t)out * (size_t)width;

    /* one block: weights of a place (double), then k, kh, kl, lo, n */
    size_t bytes = (size_t)width * sizeof(double) + n * (sizeof *t->k + 2 * sizeof *t->kh) +
                   (size_t)out * 2 * sizeof *t->lo;
    double *w = room_get(room, bytes);
    if (!w)
        return -1;
    t->outputs = out;
    t->width = width;
    t->k = (int32_t *)(w + width);
    t->kh = (int16_t *)(t->k + n);
    t->kl = t->kh + n;
    t->lo = (int *)(t->kl + n);
    t->n = t->lo + out;

    for (int i = 0; i < out; i++) {
        double center = (i + 0.5) * scale, sum = 0;
        int lo = (int)(center - support + 0.5), hi = (int)(center + support + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        int count = hi - lo;
        for (int j = 0; j < count; j++) {
            w[j] = f((j + lo - center + 0.5) / stretch);
            sum += w[j];
        }
        int32_t *k = t->k + (size_t)i * (size_t)width;
        int16_t *kh = t->kh + (size_t)i * (size_t)width, *kl = t->kl + (size_t)i * (size_t)width;
        for (int j = 0; j < width; j++) {
            double x = j < count ? (sum != 0 ? w[j] / sum : w[j]) * (1 << TAP_BITS) : 0;
            k[j] = (int32_t)(x < 0 ? x - 0.5 : x + 0.5);
            kh[j] = (int16_t)(k[j] >> 12);
            kl[j] = (int16_t)(k[j] & 4095);
        }
        t->lo[i] = lo;
        t->n[i] = count;
    }
    return 0;
}

int resize_with(const Image *im, ImageBox box, int w, int h, ImageFilter filter, uint8_t *out, RenderScratch *s)
{
    const PixelKernels *k = pixels();
    int64_t stride = (int64_t)im->w * 3;
    const uint8_t *src = im->rgb + box.y * stride + box.x * 3;
    Taps x, y = { 0 };

    if (box.w < 1 || box.h < 1 || box.x < 0 || box.y < 0 || box.w > im->w - box.x || box.h > im->h - box.y || w < 1 ||
        h < 1)
        return err_set(ERR_DATA, "box %d,%d %dx%d does not lie in the image of %d x %d", box.x, box.y, box.w, box.h,
                       im->w, im->h);
    if (box.h != h && taps_make(&y, box.h, h, filter, &s->taps_y))
        return -1;
    if (box.w != w) {
        /* Along x first, into the rows that the pass along y will read. */
        if (taps_make(&x, box.w, w, filter, &s->taps_x))
            return -1;
        int first = y.outputs ? y.lo[0] : 0;
        int rows = y.outputs ? y.lo[h - 1] + y.n[h - 1] - first : h;
        uint8_t *to = out;
        if (y.outputs && !(to = room_get(&s->rows, (size_t)rows * (size_t)w * 3)))
            return -1;
        k->resample_x(src + first * stride, stride, rows, &x, to, (int64_t)w * 3);
        src = to - (int64_t)first * w * 3;
        stride = (int64_t)w * 3;
    }
    if (y.outputs)
        for (int i = 0; i < h; i++)
            k->resample_y(src + y.lo[i] * stride, stride, y.n[i], y.k + (size_t)i * (size_t)y.width, w * 3,
                          out + (size_t)i * (size_t)w * 3);
    else if (box.w == w)
        for (int i = 0; i < h; i++)
            memcpy(out + (size_t)i * (size_t)w * 3, src + i * stride, (size_t)w * 3);
    return 0;
}

int image_resize(const Image *im, ImageBox box, int w, int h, ImageFilter filter, uint8_t *out)
{
    RenderScratch *s = render_scratch_new();
    int rc = s ? 0 : -1;
    if (!rc) {
        /* The vector loops read a little past a row's end; a picture of the caller's has no margin for that. */
        size_t size = (size_t)im->w * (size_t)im->h * 3;
        Image padded = { im->w, im->h, malloc(size + 64) };
        if (padded.rgb) {
            memcpy(padded.rgb, im->rgb, size);
            memset(padded.rgb + size, 0, 64);
            rc = resize_with(&padded, box, w, h, filter, out, s);
            free(padded.rgb);
        } else {
            rc = err_set(ERR_MEMORY, "image of %d x %d pixels: out of memory", im->w, im->h);
        }
    }
    render_scratch_free(s);
    return rc;
}

int image_eval_view_filter(const Image *im, int resize, int crop, ImageFilter filter, uint8_t *out)
{
    ImageBox whole = { 0, 0, im->w, im->h };
    if (resize == 0)
        return image_resize(im, whole, crop, crop, filter, out);
    if (crop < 1 || resize < crop)
        return err_set(ERR_USAGE, "evaluation view: crop of %d from a short side of %d", crop, resize);
    int shorter = im->w < im->h ? im->w : im->h, longer = im->w < im->h ? im->h : im->w;
    int64_t length = (int64_t)resize * longer / shorter;
    if (length * resize > IMAGE_MAX_PIXELS)
        return err_set(ERR_DATA, "%d x %d pixels: too long and thin to evaluate", im->w, im->h);
    int w = im->w < im->h ? resize : (int)length, h = im->w < im->h ? (int)length : resize;
    Image big = { w, h, malloc((size_t)w * (size_t)h * 3) };
    if (!big.rgb)
        return err_set(ERR_MEMORY, "image of %d x %d pixels: out of memory", w, h);
    int rc = image_resize(im, whole, w, h, filter, big.rgb);
    int top = (int)rint((h - crop) / 2.0), left = (int)rint((w - crop) / 2.0);
    for (int y = 0; !rc && y < crop; y++)
        memcpy(out + (size_t)y * (size_t)crop * 3, big.rgb + ((size_t)(top + y) * (size_t)w + (size_t)left) * 3,
               (size_t)crop * 3);
    free(big.rgb);
    return rc;
}

int image_eval_view(const Image *im, int resize, int crop, uint8_t *out)
{
    return image_eval_view_filter(im, resize, crop, FILTER_BICUBIC, out);
}
