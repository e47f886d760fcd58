/* Decoding and rendering on one core: images/s of the whole stage and time by part.
 *
 *   build/bench/augment DIR [GLOBAL_SIZE LOCALS LOCAL_SIZE]     every JPEG or PNG below DIR, at most 1000
 *
 * Recipe of DINO (2 x 224 + 8 x 96 by default). Prints a table, then one JSON line. */
#include "image/render.h"
#include "image/scratch.h"
#include "util/err.h"
#include "util/log.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1000, PASSES = 3 };

static struct {
    void *bytes;
    size_t n;
    int w, h;
} files[MOST];
static int count;

static int add_file(const char *path, const struct stat *st, int type)
{
    if (type != FTW_F || count == MOST || st->st_size == 0)
        return 0;
    FILE *f = fopen(path, "rb");
    void *bytes = malloc((size_t)st->st_size);
    ImageInfo info;
    if (f && bytes && fread(bytes, 1, (size_t)st->st_size, f) == (size_t)st->st_size &&
        !image_probe(bytes, (size_t)st->st_size, &info)) {
        files[count].bytes = bytes;
        files[count].n = (size_t)st->st_size;
        files[count].w = info.w;
        files[count++].h = info.h;
    } else {
        free(bytes);
    }
    if (f)
        fclose(f);
    return 0;
}

/* The plan without some of its parts, to see what they cost. */
enum { WHOLE, NO_BLUR, NO_COLOR, ONLY_DECODE, PARTS };

static double run(const Recipe *r, int part)
{
    static const char *const names[] = { "whole", "without blur", "without blur and colour", "decode alone" };
    RenderScratch *s = render_scratch_new();
    int views = r->globals + r->locals;
    uint8_t *outs[PLAN_MAX_VIEWS];
    ViewPlan plans[PLAN_MAX_VIEWS];
    for (int v = 0; v < views; v++)
        outs[v] = malloc((size_t)PLAN_MAX_SIZE * PLAN_MAX_SIZE / 16);
    double best = 0;
    for (int pass = 0; pass <= PASSES; pass++) {
        double start = log_seconds();
        for (int i = 0; i < count; i++) {
            plan_views(r, 1, (uint64_t)pass, (uint64_t)i, files[i].w, files[i].h, plans);
            for (int v = 0; v < views; v++) {
                plans[v].blur = part >= NO_BLUR ? 0 : plans[v].blur;
                if (part >= NO_COLOR)
                    plans[v].jitter = plans[v].gray = plans[v].solarize = 0;
            }
            if (render_views(files[i].bytes, files[i].n, plans, part == ONLY_DECODE ? 0 : views, false, outs, s))
                die();
        }
        double rate = count / (log_seconds() - start);
        best = pass && rate > best ? rate : best;
    }
    printf("%-26s %8.1f images/s %8.3f ms/image\n", names[part], best, 1e3 / best);
    for (int v = 0; v < views; v++)
        free(outs[v]);
    render_scratch_free(s);
    return best;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        die_with("usage: augment DIR [GLOBAL_SIZE LOCALS LOCAL_SIZE]");
    ftw(argv[1], add_file, 32);
    if (!count)
        die_with("%s: no JPEG or PNG below it", argv[1]);
    Recipe r = *recipe_find("dino");
    r.global_size = argc > 2 ? atoi(argv[2]) : 224;
    r.locals = argc > 3 ? atoi(argv[3]) : 8;
    r.local_size = argc > 4 ? atoi(argv[4]) : 96;
    if (recipe_check(&r) || r.global_size > 1024)
        die();
    printf("%d images, 2 x %d + %d x %d, one core, %s\n", count, r.global_size, r.locals, r.local_size,
           isa_name(isa_best()));
    double rate[PARTS];
    for (int part = 0; part < PARTS; part++)
        rate[part] = run(&r, part);
    printf("{\"bench\":\"augment\",\"images\":%d,\"images_per_s\":%.1f,\"decode_images_per_s\":%.1f,\"isa\":\"%s\"}\n",
           count, rate[WHOLE], rate[ONLY_DECODE], isa_name(isa_best()));
    return 0;
}
