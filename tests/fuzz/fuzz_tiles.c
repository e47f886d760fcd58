/* Pictures decoded as far as their views need, and no further. What comes out is what a full decode gives; only a
 * picture that is damaged below its last view may differ, by being taken. Input: fast, number of views (1), corner,
 * width and height in 256ths, side, filter and flip (6 a view), picture. */
#include "fuzz.h"

#include "image/render.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL = 1 << 18, VIEWS = 4 }; /* pixels: larger ones only cost time */

/* A piece of `all` pixels: where it begins and how long it is, at least 1. */
static void piece(FuzzInput *in, int all, int32_t *from, int32_t *length)
{
    *from = (int32_t)((int64_t)fuzz_take(in, 1) * all / 256);
    *length = 1 + (int32_t)((int64_t)fuzz_take(in, 1) * (all - *from) / 256);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    FuzzInput in = { bytes, bytes + size };
    uint32_t how = fuzz_take(&in, 1);
    bool fast = how & 128;
    int count = (int)(how % VIEWS) + 1;
    FuzzInput picture = in, boxes = in;
    size_t n, capacity = 0, skip = (size_t)count * 6;
    ImageInfo info;
    ViewPlan plans[VIEWS];
    uint8_t *outs[VIEWS], *full;
    Image im = { 0 };

    picture.at += skip < (size_t)(in.end - in.at) ? skip : (size_t)(in.end - in.at);
    uint8_t *file = fuzz_block(&picture, SIZE_MAX, &n);
    if (image_probe(file, n, &info) || (int64_t)info.w * info.h > SMALL) {
        free(file);
        return 0;
    }
    unsigned reading = image_reading(&info, true, true);
    image_read_size(&info, reading, &info.w, &info.h);
    for (int v = 0; v < count; v++) {
        ViewPlan p = { .order = { 0, 1, 2, 3 }, .factor = { 1, 1, 1, 0 } };
        piece(&boxes, info.w, &p.x, &p.w);
        piece(&boxes, info.h, &p.y, &p.h);
        p.size = (int32_t)(fuzz_take(&boxes, 1) & 63) + 1;
        uint32_t bits = fuzz_take(&boxes, 1);
        p.filter = bits & 1 ? FILTER_BICUBIC : FILTER_BILINEAR;
        p.flip = bits >> 1 & 1;
        plans[v] = p;
        if (!(outs[v] = malloc((size_t)p.size * (size_t)p.size * 3)))
            abort();
    }
    /* A new one for each input: rows that were not decoded hold nothing that would be right by chance. */
    RenderScratch *s = render_scratch_new();
    if (!s || !(full = malloc((size_t)64 * 64 * 3)))
        abort();
    bool taken = !render_views(file, n, reading, plans, count, fast, outs, s);
    if (!fast && !image_decode_into(file, n, reading, 8, &im, &capacity)) {
        MUST(taken);
        for (int v = 0; v < count; v++) {
            MUST(!render_view(&im, &plans[v], full, s));
            MUST(!memcmp(full, outs[v], (size_t)plans[v].size * (size_t)plans[v].size * 3));
        }
    }
    unsigned sum = 0;
    for (int v = 0; v < count; v++) {
        for (int i = 0; taken && i < plans[v].size * plans[v].size * 3; i++)
            sum += outs[v][i];
        free(outs[v]);
    }
    fuzz_sink = sum;
    image_free(&im);
    free(full);
    render_scratch_free(s);
    free(file);
    return 0;
}
