/* CIFAR-10 and CIFAR-100 as their authors' binary files: records of a label (CIFAR-100: a coarse and a fine one) and
 * 3072 bytes, the red, green and blue planes of 32 x 32 pixels.   [Krizhevsky 2009] */
#include "store/intake_kinds.h"
#include "util/err.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE, PATH = 4096, FILES = 16 };

typedef struct {
    char dir[PATH];
    char files[FILES][64];
    int n_files, file; /* the one being read is file - 1 */
    FILE *in;
    int labels; /* bytes before the pixels: 1 or 2 */
    int64_t total, index;
    unsigned char record[2 + PIXELS];
    char *classes[100];
    char name[128], class_name[8];
} Cifar;

static int64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) || !S_ISREG(st.st_mode) ? -1 : (int64_t)st.st_size;
}

static bool join(char *out, const char *dir, const char *name)
{
    return snprintf(out, PATH, "%s/%s", dir, name) < PATH;
}

/* 1: CIFAR-10, 2: CIFAR-100, 0: neither. */
static int kind_of(const char *path)
{
    size_t n = strlen(path);
    int64_t size = n > 4 && !strcmp(path + n - 4, ".bin") ? size_of(path) : -1;
    if (size <= 0)
        return 0;
    return size % (1 + PIXELS) == 0 ? 1 : size % (2 + PIXELS) == 0 ? 2 : 0;
}

bool intake_is_cifar(const char *path)
{
    char file[PATH];
    return kind_of(path) || (join(file, path, "data_batch_1.bin") && kind_of(file)) ||
           (join(file, path, "train.bin") && kind_of(file));
}

static int add_file(Cifar *c, const char *name)
{
    char path[PATH];
    if (!join(path, c->dir, name) || strlen(name) >= sizeof c->files[0])
        return err_set(ERR_DATA, "%s/%s: too long a name", c->dir, name);
    int kind = kind_of(path);
    if (!kind || (c->labels && kind != c->labels))
        return err_set(ERR_DATA, "%s: not a whole number of CIFAR records", path);
    c->labels = kind;
    c->total += size_of(path) / (kind + PIXELS);
    snprintf(c->files[c->n_files++], sizeof c->files[0], "%s", name);
    return 0;
}

static int find_files(Cifar *c, const char *path)
{
    char name[32], file[PATH];
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
        if (snprintf(c->dir, sizeof c->dir, "%s", path) >= PATH)
            return err_set(ERR_DATA, "%s: too long a name", path);
        for (int i = 1; i <= 10; i++) {
            snprintf(name, sizeof name, "data_batch_%d.bin", i);
            if (join(file, path, name) && size_of(file) >= 0 && add_file(c, name))
                return -1;
        }
        return c->n_files ? 0 : add_file(c, "train.bin");
    }
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= PATH)
        return err_set(ERR_DATA, "%s: too long a name", path);
    snprintf(c->dir, sizeof c->dir, "%.*s", slash ? (int)n : 1, slash ? path : ".");
    return add_file(c, slash ? slash + 1 : path);
}

/* Class names from the file that comes with the data; without it the numbers are the names. */
static void read_classes(Cifar *c)
{
    char path[PATH], line[128];
    int n = 0, most = c->labels == 1 ? 10 : 100;
    if (!join(path, c->dir, c->labels == 1 ? "batches.meta.txt" : "fine_label_names.txt"))
        return;
    FILE *in = fopen(path, "r");
    if (!in)
        return;
    while (n < most && fgets(line, sizeof line, in)) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line)
            c->classes[n++] = strdup(line);
    }
    fclose(in);
    while (n < most && n > 0)
        free(c->classes[--n]), c->classes[n] = NULL;
}

static void cifar_close(void *state)
{
    Cifar *c = state;
    if (c->in)
        fclose(c->in);
    for (int i = 0; i < 100; i++)
        free(c->classes[i]);
    free(c);
}

void *intake_cifar_open(const char *path)
{
    Cifar *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(ERR_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    if (find_files(c, path)) {
        cifar_close(c);
        return NULL;
    }
    read_classes(c);
    return c;
}

static int cifar_next(void *state, IntakeItem *item)
{
    Cifar *c = state;
    char path[PATH];
    size_t want = (size_t)c->labels + PIXELS;
    while (!c->in || fread(c->record, 1, want, c->in) != want) {
        if (c->in && ferror(c->in))
            return err_system("%s/%s", c->dir, c->files[c->file - 1]);
        if (c->in)
            fclose(c->in);
        c->in = NULL;
        if (c->file == c->n_files)
            return 0;
        if (!join(path, c->dir, c->files[c->file]))
            return err_set(ERR_DATA, "%s: too long a name", c->dir);
        c->in = fopen(path, "rb");
        if (!c->in)
            return err_system("%s", path);
        c->file++;
        c->index = 0;
    }
    const char *file = c->files[c->file - 1];
    int label = c->record[c->labels - 1];
    snprintf(c->name, sizeof c->name, "%.*s/%05" PRId64 ".png", (int)(strlen(file) - 4), file, c->index++);
    snprintf(c->class_name, sizeof c->class_name, c->labels == 1 ? "%d" : "%02d", label);
    *item = (IntakeItem){ .name = c->name, .class_name = c->class_name };
    if (label < 100 && c->classes[label])
        item->class_name = c->classes[label];
    return 1;
}

static int cifar_load(void *state, IntakeImage *image)
{
    Cifar *c = state;
    const unsigned char *plane = c->record + c->labels;
    if (c->record[c->labels - 1] >= (c->labels == 1 ? 10 : 100))
        return err_set(ERR_DATA, "its label is %d", c->record[c->labels - 1]);
    unsigned char *rgb = malloc(PIXELS);
    if (!rgb)
        return err_set(ERR_MEMORY, "out of memory");
    for (int i = 0; i < PLANE; i++)
        for (int k = 0; k < 3; k++)
            rgb[3 * i + k] = plane[k * PLANE + i];
    *image = (IntakeImage){ rgb, PIXELS, SIDE, SIDE };
    return 0;
}

static int64_t cifar_total(const void *state)
{
    return ((const Cifar *)state)->total;
}

const IntakeKind intake_cifar = { "CIFAR binary", cifar_next, cifar_load, cifar_total, cifar_close };
