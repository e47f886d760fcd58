/* A dataset: its classes, a list of its images, one image. */
#include "show.h"
#include "store/dataset.h"
#include "util/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static int write_image(Dataset *ds, const Wanted *w)
{
    Record r;
    if (isatty(STDOUT_FILENO))
        return err_set(ERR_USAGE, "an image is not for a terminal: hssl-info --image %" PRId64 " %s > FILE", w->image,
                       dataset_path(ds));
    if (dataset_get(ds, (uint64_t)w->image, &r) || dataset_verify(ds, &r))
        return -1;
    return fwrite(r.bytes, 1, r.size, stdout) == r.size ? 0 : err_system("standard output");
}

static int list_images(Dataset *ds, const Wanted *w)
{
    Record r;
    for (uint64_t i = 0; i < dataset_count(ds); i++) {
        if (dataset_get(ds, i, &r) || (w->verify && dataset_verify(ds, &r)))
            return -1;
        if (w->json) {
            json_object *j = json_object_new_object();
            json_object_object_add(j, "id", number_json(i));
            json_object_object_add(j, "name", text_json(r.name));
            json_object_object_add(j, "label", json_object_new_int(r.label));
            json_object_object_add(j, "width", number_json(r.width));
            json_object_object_add(j, "height", number_json(r.height));
            json_object_object_add(j, "bytes", number_json(r.size));
            print_json(j);
        } else {
            printf("%" PRIu64 "\t%d\t%ux%u\t%zu\t%s\n", i, r.label, r.width, r.height, r.size, safe_text(r.name));
        }
    }
    return 0;
}

/* "": it can't be told. */
static const char *digest_of(Dataset *ds)
{
    static char text[17];
    return dataset_digest(ds, text) ? "" : text;
}

static void dataset_json(Dataset *ds, const Wanted *w)
{
    json_object *j = json_object_new_object(), *classes = json_object_new_array();
    json_object_object_add(j, "file", text_json(dataset_path(ds)));
    json_object_object_add(j, "kind", text_json("dataset"));
    json_object_object_add(j, "images", number_json(dataset_count(ds)));
    json_object_object_add(j, "bytes", number_json(dataset_bytes(ds)));
    const char *digest = digest_of(ds);
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
    int n = dataset_classes(ds);
    printf("%s: dataset of %" PRIu64 " images, %s, %d classes%s\n", safe_text(dataset_path(ds)), dataset_count(ds),
           nice_bytes(dataset_bytes(ds)), n, w->verify ? "; every checksum is right" : "");
    for (int i = 0; i < n && i < SHOWN; i++)
        printf("  %4d  %-32s %" PRIu64 "\n", i, safe_text(dataset_class_name(ds, i)), dataset_class_count(ds, i));
    if (n > SHOWN)
        printf("  ... and %d classes more\n", n - SHOWN);
    const char *digest = digest_of(ds);
    printf("  digest: %s\n", *digest ? digest : safe_text(err_text()));
    if (dataset_count(ds) && !dataset_get(ds, 0, &r))
        printf("  first: %s, %u x %u, %s\n", safe_text(r.name), r.width, r.height, nice_bytes(r.size));
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
