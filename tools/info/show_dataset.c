/* A dataset: its classes, a list of its images, one image. */
#include "show.h"
#include "store/dataset.h"
#include "util/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int write_image(Dataset *ds, const Wanted *w)
{
    Record r;
    if (isatty(STDOUT_FILENO))
        return err_set(ERR_USAGE, "an image is not for a terminal: hssl-info --image %" PRId64 " %s > FILE", w->image,
                       dataset_path(ds));
    if (dataset_get(ds, (uint64_t)w->image, &r) || dataset_verify(ds, &r))
        return -1;
    void *copy = malloc(r.size + 1);
    if (!copy)
        return err_set(ERR_MEMORY, "no memory for an image of %zu bytes", r.size);
    memcpy(copy, r.bytes, r.size);
    dataset_rest(ds);
    int rc = fwrite(copy, 1, r.size, stdout) == r.size ? 0 : err_system("standard output");
    free(copy);
    return rc;
}

/* What is shown of an image, and outlives the snapshot. */
typedef struct {
    uint64_t id;
    char name[DATASET_NAME_MAX + 1];
    Record r; /* its pointers lead nowhere */
} Entry;

static void show_image(const Entry *e, const Wanted *w)
{
    const Record *r = &e->r;
    if (!w->json) {
        printf("%" PRIu64 "\t%d\t%ux%u\t%zu\t%s\n", e->id, r->label, r->width, r->height, r->size, safe_text(e->name));
        return;
    }
    json_object *j = json_object_new_object();
    json_object_object_add(j, "id", number_json(e->id));
    json_object_object_add(j, "name", text_json(e->name));
    json_object_object_add(j, "label", json_object_new_int(r->label));
    json_object_object_add(j, "width", number_json(r->width));
    json_object_object_add(j, "height", number_json(r->height));
    json_object_object_add(j, "reading", number_json(r->reading));
    json_object_object_add(j, "bytes", number_json(r->size));
    print_json(j);
}

/* Some images at a time, so that no snapshot is held while a reader takes his time. */
static int list_images(Dataset *ds, const Wanted *w)
{
    enum { SOME = 64 };
    uint64_t count = dataset_count(ds);
    Entry *e = malloc(SOME * sizeof *e);
    int rc = e ? 0 : err_set(ERR_MEMORY, "out of memory");
    for (uint64_t first = 0; first < count && !rc; first += SOME) {
        int n = 0;
        for (; n < SOME && first + (uint64_t)n < count && !rc; n += !rc) {
            e[n].id = first + (uint64_t)n;
            rc = dataset_get(ds, e[n].id, &e[n].r) || (w->verify && dataset_verify(ds, &e[n].r)) ? -1 : 0;
            if (!rc)
                snprintf(e[n].name, sizeof e[n].name, "%s", e[n].r.name);
        }
        dataset_rest(ds);
        for (int i = 0; i < n; i++)
            show_image(&e[i], w);
    }
    free(e);
    return rc;
}

/* "": it can't be told. */
static const char *digest_of(Dataset *ds)
{
    static char text[17];
    return dataset_digest(ds, text) ? "" : text;
}

static void dataset_json(Dataset *ds, const Wanted *w)
{
    dataset_rest(ds);
    json_object *j = json_object_new_object(), *classes = json_object_new_array();
    json_object_object_add(j, "file", text_json(dataset_path(ds)));
    json_object_object_add(j, "kind", text_json("dataset"));
    json_object_object_add(j, "images", number_json(dataset_count(ds)));
    json_object_object_add(j, "bytes", number_json(dataset_bytes(ds)));
    const char *digest = digest_of(ds);
    json_object_object_add(j, "turned", json_object_new_boolean(dataset_rule(ds) & DATASET_TURNED));
    json_object_object_add(j, "scaled", json_object_new_boolean(dataset_rule(ds) & DATASET_SCALED));
    json_object_object_add(j, "digest", *digest ? json_object_new_string(digest) : NULL);
    for (int i = 0; i < dataset_classes(ds); i++) {
        json_object *c = json_object_new_object();
        json_object_object_add(c, "label", json_object_new_int(i));
        json_object_object_add(c, "name", text_json(dataset_class_name(ds, i)));
        json_object_object_add(c, "images", number_json(dataset_class_count(ds, i)));
        json_object_array_add(classes, c);
    }
    json_object_object_add(j, "classes", classes);
    if (w->verify)
        json_object_object_add(j, "verified", json_object_new_boolean(true));
    print_json(j);
}

static void dataset_text(Dataset *ds, const Wanted *w)
{
    enum { SHOWN = 20 };
    Record r;
    char first[DATASET_NAME_MAX + 1];
    int n = dataset_classes(ds), some = dataset_count(ds) && !dataset_get(ds, 0, &r);
    snprintf(first, sizeof first, "%s", some ? r.name : "");
    const char *digest = digest_of(ds);
    dataset_rest(ds);
    printf("%s: dataset of %" PRIu64 " images, %s, %d classes%s\n", safe_text(dataset_path(ds)), dataset_count(ds),
           nice_bytes(dataset_bytes(ds)), n, w->verify ? "; every checksum is right" : "");
    for (int i = 0; i < n && i < SHOWN; i++)
        printf("  %4d  %-32s %" PRIu64 "\n", i, safe_text(dataset_class_name(ds, i)), dataset_class_count(ds, i));
    if (n > SHOWN)
        printf("  ... and %d classes more\n", n - SHOWN);
    printf("  pixels: EXIF orientation %sapplied; %s\n", dataset_rule(ds) & DATASET_TURNED ? "" : "not ",
           dataset_rule(ds) & DATASET_SCALED ? "16 bits scaled to 8" : "16-bit gray clipped at 255");
    printf("  digest: %s\n", *digest ? digest : safe_text(err_text()));
    if (some)
        printf("  first: %s, %u x %u, %s\n", safe_text(first), r.width, r.height, nice_bytes(r.size));
}

int show_dataset(const char *path, const Wanted *w)
{
    Dataset *ds = dataset_open(path);
    int rc;
    if (!ds)
        return -1;
    if (w->image >= 0)
        rc = write_image(ds, w);
    else if (w->list)
        rc = list_images(ds, w);
    else
        rc = w->verify ? dataset_verify_all(ds) : 0;
    if (!rc && w->image < 0 && !w->list) {
        if (w->json)
            dataset_json(ds, w);
        else
            dataset_text(ds, w);
    }
    dataset_close(ds);
    return rc;
}
