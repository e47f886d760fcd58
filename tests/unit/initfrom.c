/* Weights that others have trained, as --init-from takes them: names, types, sizes. */
#include "../tap.h"

#include "ssl/student.h"
#include "store/safetensors.h"
#include "tensor/backend.h"
#include "train/initfrom.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIM = 8, GRID = 2, TENSORS = 40, NAME = 96 };

static char dir[] = "/tmp/hssl-init.XXXXXX", path[64];

/* A file in the making. */
typedef struct {
    StoredTensor t[TENSORS];
    char name[TENSORS][NAME];
    size_t n;
} File;

static TrainConfig config(void)
{
    TrainConfig c;
    config_init(&c);
    c.arch = "vit_nano";
    c.dim = DIM, c.depth = 1, c.heads = 2, c.patch_size = 4;
    c.global_size = 4 * GRID, c.local_crops = 0, c.batch_size = 2;
    c.out_dim = 16, c.head_hidden = 8, c.head_bottleneck = 4;
    return c;
}

static void put(File *f, const char *prefix, const char *name, StoredType type, int ndim,
                const int64_t *shape)
{
    StoredTensor *t = &f->t[f->n];
    Rng r = rng_make(5, RNG_TEST, strlen(name), f->n);
    *t = (StoredTensor){.dtype = type, .ndim = ndim, .name = f->name[f->n]};
    snprintf(f->name[f->n++], NAME, "%s%s", prefix, name);
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    int64_t n = stored_count(type, ndim, shape, &t->bytes);
    char *data = calloc(1, t->bytes);
    for (int64_t i = 0; i < n; i++) {
        float x = (float)rng_below(&r, 512) / 256 - 1; /* what bf16 and fp16 hold exactly */
        if (type == STORED_F32)
            memcpy(data + 4 * i, &x, 4);
        else /* the upper half of it, as it will have to come back */
            memcpy(data + 2 * i, (char *)&x + 2, 2);
    }
    t->data = data;
}

/* The base model of config(), but for the grid of its position embedding. */
static void put_base(File *f, const char *prefix, StoredType type, int grid)
{
    const struct {
        const char *name;
        int ndim;
        int64_t shape[4];
    } parts[] = {
        {"cls_token", 3, {1, 1, DIM}},
        {"pos_embed", 3, {1, 1 + grid * grid, DIM}},
        {"patch_embed.proj.weight", 4, {DIM, 3, 4, 4}},
        {"patch_embed.proj.bias", 1, {DIM}},
        {"blocks.0.norm1.weight", 1, {DIM}},
        {"blocks.0.norm1.bias", 1, {DIM}},
        {"blocks.0.attn.qkv.weight", 2, {3 * DIM, DIM}},
        {"blocks.0.attn.qkv.bias", 1, {3 * DIM}},
        {"blocks.0.attn.proj.weight", 2, {DIM, DIM}},
        {"blocks.0.attn.proj.bias", 1, {DIM}},
        {"blocks.0.norm2.weight", 1, {DIM}},
        {"blocks.0.norm2.bias", 1, {DIM}},
        {"blocks.0.mlp.fc1.weight", 2, {4 * DIM, DIM}},
        {"blocks.0.mlp.fc1.bias", 1, {4 * DIM}},
        {"blocks.0.mlp.fc2.weight", 2, {DIM, 4 * DIM}},
        {"blocks.0.mlp.fc2.bias", 1, {DIM}},
        {"norm.weight", 1, {DIM}},
        {"norm.bias", 1, {DIM}},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        put(f, prefix, parts[i].name, type, parts[i].ndim, parts[i].shape);
}

static StoredTensor *find(File *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(f->name[i], name))
            return &f->t[i];
    return NULL;
}

static void drop(File *f)
{
    for (size_t i = 0; i < f->n; i++)
        free((void *)(uintptr_t)f->t[i].data);
    *f = (File){0};
}

/* Write the file and begin with it. */
static int begin(const File *f, Student *s, InitFrom *found)
{
    unlink(path);
    if (safetensors_write(path, f->t, f->n, NULL, 0))
        return -1;
    return init_from(path, s, found);
}

static const float *value(Student *s, const char *name)
{
    char full[NAME];
    snprintf(full, sizeof full, "backbone.%s", name);
    const Param *p = params_find(network_params(student_network(s)), full);
    return p ? p->tensor->data : NULL;
}

/* How many values of the student differ from the file's, whose elements are f32 or the upper halves of such.
 */
static long differing(Student *s, const File *f, const char *prefix)
{
    long bad = 0;
    size_t skip = strlen(prefix);
    for (size_t i = 0; i < f->n; i++) {
        const StoredTensor *t = &f->t[i];
        const float *x = strncmp(t->name, prefix, skip) ? NULL : value(s, t->name + skip);
        size_t size = stored_type_size(t->dtype);
        for (size_t j = 0; x && j < t->bytes / size; j++) {
            float y = 0;
            memcpy((char *)&y + 4 - size, (const char *)t->data + j * size, size);
            bad += x[j] != y;
        }
    }
    return bad;
}

/* ---------------------------------------------------------------- the position embedding */

static double kernel(double d)
{
    const double a = -0.75;
    d = fabs(d);
    return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? a * (((d - 5) * d + 8) * d - 4) : 0;
}

static int clamp(int i, int n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Bicubic to an explicit size, one value in double: u = (j + 0.5) G / out - 0.5. */
static double resampled(const float *pos, int from, int to, int row, int col, int channel)
{
    double v = (row + 0.5) * from / to - 0.5, u = (col + 0.5) * from / to - 0.5, sum = 0;
    int r = (int)floor(v), c = (int)floor(u);
    for (int i = -1; i <= 2; i++)
        for (int j = -1; j <= 2; j++)
            sum += kernel(v - r - i) * kernel(u - c - j) *
                   (double)pos[(1 + clamp(r + i, from) * from + clamp(c + j, from)) * DIM + channel];
    return sum;
}

static void test_sizes(Student *s)
{
    static const int grids[] = {1, 2, 3, 5, 14};
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        File f = {0};
        InitFrom found;
        double worst = 0;
        put_base(&f, "", STORED_F32, grids[g]);
        ok(!begin(&f, s, &found), "an embedding for %d x %d patches", grids[g], grids[g]);
        const float *from = find(&f, "pos_embed")->data, *now = value(s, "pos_embed");
        ok(!memcmp(from, now, DIM * sizeof *now), "the class token's row is as it was");
        for (int i = 0; i < GRID * GRID * DIM; i++) {
            double want = resampled(from, grids[g], GRID, i / DIM / GRID, i / DIM % GRID, i % DIM);
            worst = fmax(worst, fabs((double)now[DIM + i] - want));
        }
        ok(worst < (grids[g] == GRID ? 1e-30 : 1e-6), "the others are resampled: off by %.2g", worst);
        ok(found.grid_from == grids[g] && found.grid_to == GRID, "and it says so");
        ok(found.taken == f.n && !found.rest && !*found.prefix && !found.converted,
           "all of the file was taken");
        drop(&f);
    }
}

/* ---------------------------------------------------------------- names and types */

static void test_names(Student *s)
{
    static const char *const prefixes[] = {"", "backbone.", "module.backbone.", "student.", "any.thing."};
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        File f = {0};
        InitFrom found;
        put_base(&f, prefixes[p], STORED_F32, GRID);
        put(&f, "", "head.mlp.0.weight", STORED_F32, 2, (int64_t[]){4, DIM});
        ok(!begin(&f, s, &found), "names behind \"%s\"", prefixes[p]);
        is_str(found.prefix, prefixes[p], "it says what stood before them");
        is_int(differing(s, &f, prefixes[p]), 0, "every value is the file's");
        ok(found.rest == 1 && !strcmp(found.other, "head.mlp.0.weight"), "and that a head is left: %zu, %s",
           found.rest, found.other);
        drop(&f);
    }
    File f = {0};
    InitFrom found;
    put_base(&f, "backbone.", STORED_F32, GRID);
    put(&f, "", "norm.weight", STORED_F32, 1, (int64_t[]){DIM + 1});
    ok(!begin(&f, s, &found) && !strcmp(found.prefix, "backbone.") && !differing(s, &f, "backbone."),
       "one tensor alone without the prefix changes nothing");
    drop(&f);
    put_base(&f, "", STORED_BF16, GRID);
    ok(!begin(&f, s, &found) && found.converted && !differing(s, &f, ""), "bf16 becomes fp32");
    drop(&f);
}

static void refused(Student *s, File *f, ErrCode code, const char *text, const char *what)
{
    InitFrom found;
    ok(begin(f, s, &found) < 0 && err_code() == code && strstr(err_text(), text), "%s: %s", what, err_text());
    const char *again = strstr(err_text(), path);
    ok(again && !strstr(again + 1, path), "the file is named once");
    drop(f);
}

static void test_refusals(Student *s)
{
    static const int64_t one[] = {1};
    File f = {0};
    put_base(&f, "teacher.", STORED_F32, GRID);
    put_base(&f, "student.", STORED_F32, GRID);
    refused(s, &f, ERR_DATA, "as student.* and another as teacher.*", "two base models");
    put_base(&f, "backbone.", STORED_F32, GRID);
    strcpy(f.name[11], "backbone.blocks.1.norm2.bias");
    refused(s, &f, ERR_ABSENT, "no tensor backbone.blocks.0.norm2.bias", "one is missing");
    put_base(&f, "", STORED_F32, GRID);
    strcpy(f.name[0], "class_token");
    refused(s, &f, ERR_ABSENT, "the nearest of 18 is class_token", "another name is the nearest");
    put(&f, "", "conv1.weight", STORED_F32, 1, one);
    refused(s, &f, ERR_ABSENT, "no tensor cls_token", "a model of another kind");
    refused(s, &f, ERR_ABSENT, "holds no tensors", "nothing");
    put_base(&f, "", STORED_F32, GRID);
    find(&f, "pos_embed")->shape[1] = GRID * GRID; /* without a class token's row */
    find(&f, "pos_embed")->bytes -= DIM * 4;
    refused(s, &f, ERR_SHAPE, "pos_embed", "an embedding without a class token");
    put_base(&f, "", STORED_F32, GRID);
    find(&f, "norm.bias")->shape[0] = DIM / 2;
    find(&f, "norm.bias")->bytes /= 2;
    refused(s, &f, ERR_SHAPE, "--arch, --dim and --patch-size", "another width");
    put_base(&f, "", STORED_F32, GRID);
    find(&f, "norm.bias")->dtype = STORED_I32;
    refused(s, &f, ERR_DATA, "I32", "whole numbers");
}

int main(void)
{
    TrainConfig c = config();
    Student *s = mkdtemp(dir) ? student_new(&c, NULL) : NULL;
    if (!ok(s != NULL, "a student"))
        return tap_done();
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    test_sizes(s);
    test_names(s);
    test_refusals(s);
    student_free(s);
    unlink(path);
    rmdir(dir);
    return tap_done();
}
