#include "train/initfrom.h"

#include "ssl/network.h"
#include "store/safetensors.h"
#include "tensor/ops.h"
#include "util/err.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 320 };

typedef struct {
    const SafeTensors *st;
    const StateList *wanted;
    InitFrom *found;
    float *converted; /* the last tensor that was not F32 */
    Tape *tape;       /* of the processor: the resized position embedding lives there */
} Source;

/* ---------------------------------------------------------------- names */

/* The file's tensor that is called so behind the prefix, or NULL. */
static const StoredTensor *get(const SafeTensors *st, const char *prefix, const char *name)
{
    char full[NAME];
    int n = snprintf(full, sizeof full, "%s%s", prefix, name);
    return n < NAME ? safetensors_get(st, full) : NULL;
}

static size_t count_under(const Source *src, const char *prefix)
{
    size_t n = 0;
    for (size_t i = 0; i < src->wanted->count; i++)
        n += get(src->st, prefix, src->wanted->items[i].name) != NULL;
    return n;
}

/* What stands in front of the name: its length, or -1 where t isn't called so. */
static int prefix_length(const StoredTensor *t, const char *name)
{
    size_t whole = strlen(t->name), part = strlen(name);
    if (whole < part || strcmp(t->name + whole - part, name) ||
        (whole > part && t->name[whole - part - 1] != '.'))
        return -1;
    return (int)(whole - part);
}

/* The prefix under which most of the base model is. The first of its tensors that is there at all tells which
 * there are. */
static int find_prefix(const Source *src)
{
    char prefix[sizeof src->found->prefix], twin[sizeof prefix] = "";
    size_t best = count_under(src, ""), tensors = safetensors_count(src->st);
    bool anywhere = best == src->wanted->count;
    for (size_t w = 0; w < src->wanted->count && !anywhere; w++)
        for (size_t i = 0; i < tensors; i++) {
            const StoredTensor *t = safetensors_at(src->st, i);
            int n = prefix_length(t, src->wanted->items[w].name);
            if (n < 1 || n >= (int)sizeof prefix)
                continue;
            anywhere = true;
            snprintf(prefix, sizeof prefix, "%.*s", n, t->name);
            size_t count = count_under(src, prefix);
            if (count == best && *src->found->prefix)
                memcpy(twin, prefix, sizeof twin);
            if (count <= best)
                continue;
            best = count;
            twin[0] = 0;
            memcpy(src->found->prefix, prefix, sizeof prefix);
        }
    if (*twin)
        return err_set(ERR_DATA, "holds a base model as %s* and another as %s*: leave one",
                       src->found->prefix, twin);
    return 0;
}

static size_t alike(const char *a, const char *b)
{
    size_t n = 0, m = 0, la = strlen(a), lb = strlen(b);
    while (n < la && n < lb && a[n] == b[n])
        n++;
    while (m < la - n && m < lb - n && a[la - 1 - m] == b[lb - 1 - m])
        m++;
    return n + m;
}

static int missing(const Source *src, const char *name)
{
    char full[NAME];
    const char *nearest = NULL;
    size_t best = 0;
    snprintf(full, sizeof full, "%s%s", src->found->prefix, name);
    for (size_t i = 0; i < safetensors_count(src->st); i++) {
        const char *other = safetensors_at(src->st, i)->name;
        size_t same = alike(full, other);
        if (!nearest || same > best) {
            nearest = other;
            best = same;
        }
    }
    if (!nearest)
        return err_set(ERR_ABSENT, "holds no tensors");
    return err_set(
        ERR_ABSENT,
        "no tensor %s, which the base model of this --arch, --dim and --depth has; the nearest of %zu "
        "is %.120s",
        full, safetensors_count(src->st), nearest);
}

/* ---------------------------------------------------------------- contents */

/* Side of the grid of a position embedding with a class token's row, or -1. */
static int grid_of(int ndim, const int64_t *shape)
{
    int64_t patches = ndim == 3 && shape[0] == 1 ? shape[1] - 1 : 0;
    int64_t side = patches > 0 && patches < 1 << 24 ? llround(sqrt((double)patches)) : 0;
    return side && side * side == patches ? (int)side : -1;
}

static int resize(Source *src, const StateTensor *want, StateTensor *got)
{
    int from = grid_of(got->ndim, got->shape), to = grid_of(want->ndim, want->shape);
    if (from < 0 || to < 0 || got->shape[2] != want->shape[2])
        return 0; /* state_load says what is wrong */
    src->found->grid_from = from;
    src->found->grid_to = to;
    if (from == to)
        return 0;
    if (!(src->tape = tape_new("cpu")))
        return -1;
    tape_begin(src->tape, false);
    Tensor *x = tape_tensor(src->tape, DT_F32, 3, got->shape);
    if (!x || tape_write(src->tape, x, got->host))
        return -1;
    Tensor *y = op_pos_resize(src->tape, x, 1, to, to, 0);
    if (!y)
        return -1;
    got->shape[1] = y->shape[1];
    got->host = y->data;
    got->bytes = tensor_bytes(y);
    return 0;
}

static int convert(Source *src, const StoredTensor *t, const StateTensor *want, StateTensor *got)
{
    size_t n = t->bytes / stored_type_size(t->dtype);
    got->host = t->data;
    got->bytes = n * sizeof(float);
    if (t->dtype == STORED_F32)
        return 0;
    free(src->converted);
    if (!(src->converted = malloc(got->bytes + 1)))
        return err_set(ERR_MEMORY, "%s: no memory for %zu bytes", want->name, got->bytes);
    src->found->converted = true;
    got->host = src->converted;
    return stored_to_f32(t, src->converted);
}

static int look_up(void *arg, const char *name, StateTensor *got)
{
    Source *src = arg;
    const StateTensor *want = src->wanted->items;
    const StoredTensor *t = get(src->st, src->found->prefix, name);
    if (!t)
        return missing(src, name);
    while (strcmp(want->name, name))
        want++;
    *got = (StateTensor){.type = STATE_F32, .ndim = t->ndim};
    if (t->ndim > (int)(sizeof got->shape / sizeof *got->shape))
        return err_set(ERR_SHAPE, "%s: %d dimensions", t->name, t->ndim);
    memcpy(got->shape, t->shape, (size_t)t->ndim * sizeof *got->shape);
    if (convert(src, t, want, got))
        return -1;
    return strcmp(name, "pos_embed") ? 0 : resize(src, want, got);
}

static void count(const Source *src)
{
    InitFrom *found = src->found;
    size_t skip = strlen(found->prefix);
    found->taken = src->wanted->count;
    found->rest = safetensors_count(src->st) - found->taken;
    for (size_t i = 0; found->rest && !*found->other && i < safetensors_count(src->st); i++) {
        const char *name = safetensors_at(src->st, i)->name;
        size_t w = 0;
        if (!strncmp(name, found->prefix, skip))
            while (w < found->taken && strcmp(name + skip, src->wanted->items[w].name))
                w++;
        else
            w = found->taken;
        if (w == found->taken)
            snprintf(found->other, sizeof found->other, "%s", name);
    }
}

int init_from(const char *path, Student *s, InitFrom *found)
{
    StateList wanted = {0};
    SafeTensors *st = safetensors_open(path);
    Source src = {.st = st, .wanted = &wanted, .found = found};
    *found = (InitFrom){0};
    if (!st)
        return -1;
    int rc = network_backbone_state(student_network(s), "", &wanted) || find_prefix(&src) ||
                     state_load(&wanted, look_up, &src) || safetensors_intact(st)
                 ? -1
                 : 0;
    if (!rc)
        count(&src);
    else if (err_code() == ERR_SHAPE)
        err_set(ERR_SHAPE, "%s (see --arch, --dim and --patch-size)", err_text());
    tape_free(src.tape);
    free(src.converted);
    state_free(&wanted);
    safetensors_close(st);
    return rc ? err_prefix("%s", path) : 0;
}
