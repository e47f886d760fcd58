/* The images that a training could not use: listed, extracted, verified. */
#include "show.h"
#include "store/quarantine.h"
#include "util/err.h"
#include "util/log.h"
#include "util/output.h"
#include "util/text.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* What is there under the final name is whole, and nothing is followed or written into. */
static int write_bad(const char *file, const BadImage *b, const Wanted *w)
{
    char *path;
    if (asprintf(&path, "%s/%s", w->extract, file) < 0)
        return err_set(ERR_MEMORY, "%s: out of memory", file);
    int rc = output_file(path, OUTPUT_PLAIN, b->bytes, b->kept);
    free(path);
    return rc;
}

/* "ID-name", harmless whatever the name; ".head" behind it where only the head was kept. */
static const char *bad_file(const BadImage *b)
{
    static char file[NAME_MAX + 1];
    char name[160];
    text_file_name(*b->name ? b->name : "image", name, sizeof name);
    snprintf(file, sizeof file, "%" PRIu64 "-%s%s", b->id, name, b->kept < b->size ? ".head" : "");
    return file;
}

static void show_bad(const BadImage *b, const char *file, const Wanted *w)
{
    if (w->json) {
        json_object *j = json_object_new_object();
        char sum[17];
        snprintf(sum, sizeof sum, "%016" PRIx64, b->checksum);
        json_object_object_add(j, "id", number_json(b->id));
        json_object_object_add(j, "name", text_json(b->name));
        json_object_object_add(j, "why", text_json(b->why));
        json_object_object_add(j, "label", json_object_new_int(b->label));
        json_object_object_add(j, "epoch", number_json(b->epoch));
        json_object_object_add(j, "seq", number_json(b->seq));
        json_object_object_add(j, "bytes", number_json(b->size));
        json_object_object_add(j, "kept", number_json(b->kept));
        if (b->size)
            json_object_object_add(j, "xxh3", text_json(sum));
        if (file)
            json_object_object_add(j, "file", text_json(file));
        print_json(j);
        return;
    }
    printf("%" PRIu64 "\t%d\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t", b->id, b->label, b->epoch, b->seq,
           b->size, b->kept);
    printf("%s\t%s%s%s\n", *b->name ? safe_text(b->name) : "-", safe_text(b->why), file ? "\t" : "", file ? file : "");
}

/* Lists, extracts or verifies the quarantine; a damaged entry does not hide the others. */
static int each_bad(Run *run, bool show, bool extract, const Wanted *w)
{
    uint64_t *ids;
    int64_t n = run_bad_ids(run, &ids), failed = 0;
    for (int64_t i = 0; i < n; i++) {
        BadImage b;
        int rc = run_bad_get(run, ids[i], extract || w->verify, &b);
        bool writes = !rc && extract && b.kept;
        if (!rc && extract && !b.kept)
            log_warn("%s: of image %" PRIu64 " nothing was kept", run_path(run), b.id);
        if (writes)
            rc = write_bad(bad_file(&b), &b, w);
        if (!rc && show)
            show_bad(&b, writes ? bad_file(&b) : NULL, w);
        if (rc && !failed++)
            log_error("%s", err_text());
        bad_image_free(&b);
    }
    free(ids);
    if (failed)
        err_set(ERR_DATA, "%s: %" PRId64 " of %" PRId64 " bad images can't be %s", run_path(run), failed, n,
                extract ? "extracted" : "read");
    return n < 0 || failed ? -1 : 0;
}

int list_bad(Run *run, const Wanted *w)
{
    if (w->extract && mkdir(w->extract, 0777) && errno != EEXIST)
        return err_system("--extract %s", w->extract);
    return each_bad(run, true, w->extract, w);
}

int verify_bad(Run *run, const Wanted *w)
{
    return each_bad(run, false, false, w);
}

int64_t count_bad(Run *run)
{
    uint64_t *ids;
    int64_t n = run_bad_ids(run, &ids);
    free(ids);
    return n;
}
