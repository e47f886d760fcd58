/* hssl-info: what is in a dataset, a run, a safetensors file or a ticket. */
#include "store/dataset.h"
#include "store/kind.h"
#include "store/quarantine.h"
#include "store/run.h"
#include "store/safetensors.h"
#include "stream/ticket.h"
#include "train/claim.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    bool json, list, log, verify, bad;
    const char *extract;
    int64_t lines, step, image;
} o = { .lines = 5, .step = -1, .image = -1 };

static const Opt opts[] = {
    OPT_FLAG("json", 0, &o.json, "print JSON"),
    OPT_FLAG("list", 'l', &o.list, "list every image of a dataset, every tensor of a run's checkpoint"),
    OPT_FLAG("log", 0, &o.log, "print a run's log, one JSON object a line"),
    OPT_INT("lines", 'n', &o.lines, 0, 9e15, "N", "show the last N lines of a run's log (with --log 0 is all of it)"),
    OPT_INT("step", 0, &o.step, -1, 9e15, "STEP", "list or verify the checkpoint of this step (-1: the last)"),
    OPT_INT("image", 0, &o.image, -1, 9e15, "ID", "write the bytes of a dataset's image to standard output"),
    OPT_FLAG("bad", 'b', &o.bad, "list the images that a training could not use"),
    OPT_STR("extract", 'x', &o.extract, "DIR", "with --bad: write their bytes to files in DIR"),
    OPT_FLAG("verify", 0, &o.verify, "recompute every checksum"),
    OPT_END
};

static const OptProgram program = {
    "hssl-info", "[OPTION]... FILE...", "show what is in datasets, runs, safetensors files and tickets", .opts = opts,
    .examples = "  hssl-info photos.db run.db vit_small.safetensors\n"
                "  hssl-info --log run.db | tail -n 1\n"
                "  hssl-info --image 7 photos.db > 7.jpg\n"
                "  hssl-info --bad --extract bad/ run.db\n"
};

static const char *nice_bytes(uint64_t n)
{
    static char text[4][32];
    static int i;
    static const char *const units[] = { "bytes", "kB", "MB", "GB", "TB" };
    double x = (double)n;
    int u = 0;
    for (; x >= 1000 && u < 4; u++)
        x /= 1000;
    i = (i + 1) % 4;
    snprintf(text[i], sizeof text[i], u ? "%.1f %s" : "%.0f %s", x, units[u]);
    return text[i];
}

/* Foreign text must not command the terminal. */
static const char *safe(const char *s)
{
    static char text[2][4200];
    static int i;
    size_t n = 0;
    i = !i;
    for (; s[n] && n < sizeof text[i] - 1; n++)
        text[i][n] = (unsigned char)s[n] < 32 || s[n] == 127 ? '?' : s[n];
    text[i][n] = 0;
    return text[i];
}

static void print_json(json_object *j)
{
    puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(j);
}

/* Names may hold any byte, JSON may not. */
static json_object *text_json(const char *s)
{
    char *proper = text_utf8(s);
    json_object *j = json_object_new_string(proper ? proper : "");
    free(proper);
    return j;
}

static json_object *number_json(uint64_t n)
{
    return json_object_new_int64((int64_t)n);
}

/* JSON text as an object, or as a string where it isn't JSON. */
static json_object *parsed(const char *s)
{
    json_object *j = json_tokener_parse(s);
    return j ? j : text_json(s);
}

/* ---------------------------------------------------------------- tensors */

static void shape_text(const StoredTensor *t, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < t->ndim && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%" PRId64, i ? ", " : "", t->shape[i]);
    if (n < size)
        snprintf(buf + n, size - n, "]");
}

static int print_tensor(const StoredTensor *t, void *arg)
{
    char shape[STORED_DIMS * 22 + 4];
    (void)arg;
    shape_text(t, shape, sizeof shape);
    printf("  %-48s %-4s %s\n", safe(t->name), stored_type_name(t->dtype), shape);
    return 0;
}

static int tensor_json(const StoredTensor *t, void *arg)
{
    json_object *j = json_object_new_object(), *shape = json_object_new_array();
    json_object_object_add(j, "name", text_json(t->name));
    json_object_object_add(j, "dtype", text_json(stored_type_name(t->dtype)));
    for (int i = 0; i < t->ndim; i++)
        json_object_array_add(shape, json_object_new_int64(t->shape[i]));
    json_object_object_add(j, "shape", shape);
    json_object_object_add(j, "bytes", number_json(t->bytes));
    json_object_array_add(arg, j);
    return 0;
}

/* ---------------------------------------------------------------- datasets */

static int write_image(Dataset *ds)
{
    Record r;
    if (isatty(STDOUT_FILENO))
        return err_set(ERR_USAGE, "an image is not for a terminal: hssl-info --image %" PRId64 " %s > FILE", o.image,
                       dataset_path(ds));
    if (dataset_get(ds, (uint64_t)o.image, &r) || dataset_verify(ds, &r))
        return -1;
    return fwrite(r.bytes, 1, r.size, stdout) == r.size ? 0 : err_system("standard output");
}

static int list_images(Dataset *ds)
{
    Record r;
    for (uint64_t i = 0; i < dataset_count(ds); i++) {
        if (dataset_get(ds, i, &r) || (o.verify && dataset_verify(ds, &r)))
            return -1;
        if (o.json) {
            json_object *j = json_object_new_object();
            json_object_object_add(j, "id", number_json(i));
            json_object_object_add(j, "name", text_json(r.name));
            json_object_object_add(j, "label", json_object_new_int(r.label));
            json_object_object_add(j, "width", number_json(r.width));
            json_object_object_add(j, "height", number_json(r.height));
            json_object_object_add(j, "bytes", number_json(r.size));
            print_json(j);
        } else {
            printf("%" PRIu64 "\t%d\t%ux%u\t%zu\t%s\n", i, r.label, r.width, r.height, r.size, safe(r.name));
        }
    }
    return 0;
}

static int verify_images(Dataset *ds)
{
    Record r;
    for (uint64_t i = 0; i < dataset_count(ds); i++)
        if (dataset_get(ds, i, &r) || dataset_verify(ds, &r))
            return -1;
    return 0;
}

static void dataset_json(const Dataset *ds)
{
    json_object *j = json_object_new_object(), *classes = json_object_new_array();
    json_object_object_add(j, "file", text_json(dataset_path(ds)));
    json_object_object_add(j, "kind", text_json("dataset"));
    json_object_object_add(j, "images", number_json(dataset_count(ds)));
    json_object_object_add(j, "bytes", number_json(dataset_bytes(ds)));
    for (int i = 0; i < dataset_classes(ds); i++) {
        json_object *c = json_object_new_object();
        json_object_object_add(c, "label", json_object_new_int(i));
        json_object_object_add(c, "name", text_json(dataset_class_name(ds, i)));
        json_object_object_add(c, "images", number_json(dataset_class_count(ds, i)));
        json_object_array_add(classes, c);
    }
    json_object_object_add(j, "classes", classes);
    if (o.verify)
        json_object_object_add(j, "verified", json_object_new_boolean(true));
    print_json(j);
}

static void dataset_text(Dataset *ds)
{
    enum { SHOWN = 20 };
    Record r;
    int n = dataset_classes(ds);
    printf("%s: dataset of %" PRIu64 " images, %s, %d classes%s\n", dataset_path(ds), dataset_count(ds),
           nice_bytes(dataset_bytes(ds)), n, o.verify ? "; every checksum is right" : "");
    for (int i = 0; i < n && i < SHOWN; i++)
        printf("  %4d  %-32s %" PRIu64 "\n", i, safe(dataset_class_name(ds, i)), dataset_class_count(ds, i));
    if (n > SHOWN)
        printf("  ... and %d classes more\n", n - SHOWN);
    if (dataset_count(ds) && !dataset_get(ds, 0, &r))
        printf("  first: %s, %u x %u, %s\n", safe(r.name), r.width, r.height, nice_bytes(r.size));
}

static int show_dataset(const char *path)
{
    Dataset *ds = dataset_open(path);
    int rc;
    if (!ds)
        return -1;
    if (o.image >= 0)
        rc = write_image(ds);
    else if (o.list)
        rc = list_images(ds);
    else
        rc = o.verify ? verify_images(ds) : 0;
    if (!rc && o.image < 0 && !o.list) {
        if (o.json)
            dataset_json(ds);
        else
            dataset_text(ds);
    }
    dataset_close(ds);
    return rc;
}

/* ---------------------------------------------------------------- runs */

static int print_line(int64_t number, const char *line, void *arg)
{
    (void)number;
    printf("%s%s\n", (const char *)arg, safe(line));
    return ferror(stdout);
}

static int line_json(int64_t number, const char *line, void *arg)
{
    (void)number;
    json_object_array_add(arg, parsed(line));
    return 0;
}

/* Adds one checkpoint to the output: as JSON to list, or as a line. */
static int show_checkpoint(Run *run, uint64_t step, json_object *list)
{
    Checkpoint *cp = run_checkpoint(run, (int64_t)step);
    int rc = 0;
    if (!cp)
        return err_code() == ERR_ABSENT ? 0 : -1; /* a trainer dropped it just now */
    if (list) {
        json_object *j = json_object_new_object();
        json_object_object_add(j, "step", number_json(step));
        json_object_object_add(j, "tensors", number_json(checkpoint_count(cp)));
        json_object_object_add(j, "bytes", number_json(checkpoint_bytes(cp)));
        json_object_object_add(j, "meta", parsed(checkpoint_meta(cp)));
        json_object_array_add(list, j);
    } else {
        printf("  checkpoint of step %" PRIu64 ": %zu tensors, %s\n", step, checkpoint_count(cp),
               nice_bytes(checkpoint_bytes(cp)));
    }
    if (o.verify)
        rc = checkpoint_verify(cp);
    checkpoint_close(cp);
    return rc;
}

static int list_tensors(Run *run)
{
    Checkpoint *cp = run_checkpoint(run, o.step);
    if (!cp)
        return -1;
    int rc = o.verify ? checkpoint_verify(cp) : 0;
    if (!rc && o.json) {
        json_object *list = json_object_new_array();
        rc = checkpoint_each(cp, tensor_json, list);
        print_json(list);
    } else if (!rc) {
        printf("%s: step %" PRIu64 "\n", run_path(run), checkpoint_step(cp));
        rc = checkpoint_each(cp, print_tensor, NULL);
    }
    checkpoint_close(cp);
    return rc;
}

static void print_config(const char *text)
{
    json_object *config = json_tokener_parse(text);
    if (!config || !json_object_is_type(config, json_type_object)) {
        printf("  config: %s\n", safe(text));
    } else {
        json_object_object_foreach(config, key, value)
            printf("  %-28s %s\n", safe(key), safe(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN)));
    }
    json_object_put(config);
}

/* ---------------------------------------------------------------- bad images */

/* Write through a name of its own and rename, so that what is there under the final name is whole, and nothing is
 * followed or written into. */
static int write_bad(int dir, const char *file, const BadImage *b)
{
    enum { PARTLY = 8 };
    char part[NAME_MAX + 1];
    snprintf(part, sizeof part, ".%.*s.part", NAME_MAX - PARTLY, file);
    unlinkat(dir, part, 0);
    int fd = openat(dir, part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_system("%s/%s", o.extract, file);
    int rc = 0;
    for (size_t at = 0; at < b->kept && !rc;) {
        ssize_t n = write(fd, (const char *)b->bytes + at, b->kept - at);
        if (n < 0 && errno != EINTR)
            rc = err_system("%s/%s", o.extract, file);
        at += n > 0 ? (size_t)n : 0;
    }
    if (close(fd) && !rc)
        rc = err_system("%s/%s", o.extract, file);
    if (!rc && renameat(dir, part, dir, file))
        rc = err_system("%s/%s", o.extract, file);
    if (rc)
        unlinkat(dir, part, 0);
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

static void show_bad(const BadImage *b, const char *file)
{
    if (o.json) {
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
    printf("%s\t%s%s%s\n", *b->name ? safe(b->name) : "-", safe(b->why), file ? "\t" : "", file ? file : "");
}

/* Lists, extracts or verifies the quarantine; a damaged entry does not hide the others. */
static int each_bad(Run *run, bool show, int dir)
{
    uint64_t *ids;
    int64_t n = run_bad_ids(run, &ids), failed = 0;
    for (int64_t i = 0; i < n; i++) {
        BadImage b;
        int rc = run_bad_get(run, ids[i], dir >= 0 || o.verify, &b);
        bool writes = !rc && dir >= 0 && b.kept;
        if (!rc && dir >= 0 && !b.kept)
            log_warn("%s: of image %" PRIu64 " nothing was kept", run_path(run), b.id);
        if (writes)
            rc = write_bad(dir, bad_file(&b), &b);
        if (!rc && show)
            show_bad(&b, writes ? bad_file(&b) : NULL);
        if (rc && !failed++)
            log_error("%s", err_text());
        bad_image_free(&b);
    }
    free(ids);
    if (failed)
        err_set(ERR_DATA, "%s: %" PRId64 " of %" PRId64 " bad images can't be %s", run_path(run), failed, n,
                dir >= 0 ? "extracted" : "read");
    return n < 0 || failed ? -1 : 0;
}

static int list_bad(Run *run)
{
    int dir = -1;
    if (o.extract) {
        if (mkdir(o.extract, 0777) && errno != EEXIST)
            return err_system("--extract %s", o.extract);
        dir = open(o.extract, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
            return err_system("--extract %s", o.extract);
    }
    int rc = each_bad(run, true, dir);
    if (dir >= 0)
        close(dir);
    return rc;
}

/* How many there are; -1. */
static int64_t count_bad(Run *run)
{
    uint64_t *ids;
    int64_t n = run_bad_ids(run, &ids);
    free(ids);
    return n;
}

/* ---------------------------------------------------------------- a run as a whole */

/* Where the teacher of a training in progress publishes. What a killed trainer left there leads nowhere. */
static char *live_teacher(Run *run)
{
    return claim_held(run_path(run)) ? run_get(run, "teacher_ticket") : NULL;
}

static int run_text(Run *run, const uint64_t *steps, int64_t n)
{
    int64_t lines = run_log_count(run);
    char *ticket = live_teacher(run);
    printf("%s: run, %" PRId64 " checkpoints, %" PRId64 " lines of log\n", run_path(run), n, lines);
    print_config(run_config(run));
    if (ticket)
        printf("  live teacher: %s\n", safe(ticket));
    free(ticket);
    int64_t bad = count_bad(run);
    int rc = lines < 0 || bad < 0;
    for (int64_t i = 0; i < n && !rc; i++)
        rc = show_checkpoint(run, steps[i], NULL);
    if (bad > 0)
        printf("  %" PRId64 " bad image%s: --bad lists them\n", bad, bad == 1 ? "" : "s");
    if (!rc && o.lines && lines > 0) {
        printf("  last lines of the log:\n");
        rc = run_log_each(run, -o.lines, print_line, (void *)"    ");
    }
    return rc;
}

static int run_json(Run *run, const uint64_t *steps, int64_t n)
{
    json_object *j = json_object_new_object(), *list = json_object_new_array(), *log = json_object_new_array();
    int64_t lines = run_log_count(run);
    char *ticket = live_teacher(run);
    int64_t bad = count_bad(run);
    int rc = lines < 0 || bad < 0;
    json_object_object_add(j, "file", text_json(run_path(run)));
    json_object_object_add(j, "kind", text_json("run"));
    json_object_object_add(j, "config", parsed(run_config(run)));
    json_object_object_add(j, "log_lines", json_object_new_int64(lines));
    for (int64_t i = 0; i < n && !rc; i++)
        rc = show_checkpoint(run, steps[i], list);
    if (!rc && o.lines)
        rc = run_log_each(run, -o.lines, line_json, log);
    json_object_object_add(j, "checkpoints", list);
    json_object_object_add(j, "log", log);
    json_object_object_add(j, "bad", json_object_new_int64(bad));
    if (ticket)
        json_object_object_add(j, "teacher_ticket", text_json(ticket));
    if (o.verify)
        json_object_object_add(j, "verified", json_object_new_boolean(!rc));
    free(ticket);
    print_json(j);
    return rc;
}

static int show_run(const char *path)
{
    uint64_t *steps = NULL;
    Run *run = run_open(path, false);
    if (!run)
        return -1;
    int rc = 0;
    if (o.log) {
        bool some = o.lines && strcmp(opt_origin(opts, "lines"), "default");
        rc = run_log_each(run, some ? -o.lines : 0, print_line, (void *)"");
    } else if (o.bad) {
        rc = list_bad(run);
    } else if (o.list) {
        rc = list_tensors(run);
    } else {
        int64_t n = run_steps(run, &steps);
        rc = n < 0 || (o.verify && each_bad(run, false, -1)) ? -1 : 0;
        rc = rc ? rc : o.json ? run_json(run, steps, n) : run_text(run, steps, n);
        free(steps);
    }
    return run_close(run) || rc ? -1 : 0;
}

/* ---------------------------------------------------------------- safetensors, tickets */

/* What is printed may be passed on; who holds the secret may take the stream. */
static const char *ticket_value(const Ticket *t, int i)
{
    return strcmp(t->pair[i].key, "secret") ? t->pair[i].value : "(not shown)";
}

static int sum_bytes(const StoredTensor *t, void *arg)
{
    *(uint64_t *)arg += t->bytes;
    return 0;
}

static int show_safetensors(const char *path)
{
    uint64_t bytes = 0;
    const char *value;
    SafeTensors *st = safetensors_open(path);
    if (!st)
        return -1;
    safetensors_each(st, sum_bytes, &bytes);
    if (o.json) {
        json_object *j = json_object_new_object(), *list = json_object_new_array(), *meta = json_object_new_object();
        json_object_object_add(j, "file", text_json(path));
        json_object_object_add(j, "kind", text_json("safetensors"));
        json_object_object_add(j, "bytes", number_json(bytes));
        for (size_t i = 0; i < safetensors_meta_count(st); i++) {
            const char *key = safetensors_meta_at(st, i, &value);
            json_object_object_add(meta, key, text_json(value));
        }
        json_object_object_add(j, "metadata", meta);
        safetensors_each(st, tensor_json, list);
        json_object_object_add(j, "tensors", list);
        print_json(j);
    } else {
        printf("%s: safetensors, %zu tensors, %s\n", path, safetensors_count(st), nice_bytes(bytes));
        for (size_t i = 0; i < safetensors_meta_count(st); i++) {
            const char *key = safetensors_meta_at(st, i, &value);
            printf("  %s = %s\n", safe(key), safe(value));
        }
        safetensors_each(st, print_tensor, NULL);
    }
    safetensors_close(st);
    return 0;
}

static int show_ticket(const char *path)
{
    char line[TICKET_MAX_LINE + 1];
    Ticket t;
    FILE *in = strcmp(path, "-") ? fopen(path, "r") : stdin;
    if (!in)
        return err_system("%s", path);
    bool got = fgets(line, sizeof line, in);
    if (in != stdin)
        fclose(in);
    if (!got)
        return err_set(ERR_DATA, "%s: no ticket there", path);
    if (ticket_parse(line, strlen(line), &t))
        return err_prefix("%s", path);
    const char *by = ticket_program(t.kind);
    if (o.json) {
        json_object *j = json_object_new_object(), *pairs = json_object_new_object();
        json_object_object_add(j, "file", text_json(path));
        json_object_object_add(j, "kind", text_json("ticket"));
        json_object_object_add(j, "stream", text_json(t.kind));
        json_object_object_add(j, "endpoint", text_json(t.endpoint));
        for (int i = 0; i < t.pairs; i++)
            json_object_object_add(pairs, t.pair[i].key, text_json(ticket_value(&t, i)));
        json_object_object_add(j, "pairs", pairs);
        print_json(j);
        return 0;
    }
    printf("%s: ticket of a stream of %s%s%s%s\n  endpoint  %s\n", path, t.kind, by ? " (made by " : "", by ? by : "",
           by ? ")" : "", t.endpoint);
    for (int i = 0; i < t.pairs; i++)
        printf("  %s = %s\n", t.pair[i].key, safe(ticket_value(&t, i)));
    if (!strncmp(t.endpoint, "ipc://", 6))
        printf("  %s\n", access(t.endpoint + 6, F_OK) ? "nobody is there: its producer has ended" : "its socket is there");
    return 0;
}

static int show(const char *path)
{
    if (!strcmp(path, "-"))
        return show_ticket(path);
    FileKind kind = kind_of_file(path);
    if (o.image >= 0 && kind != KIND_DATASET && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a dataset: --image is for datasets", path);
    if (o.log && kind != KIND_RUN && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a run: --log is for runs", path);
    if (o.bad && kind != KIND_RUN && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a run: --bad is for runs", path);
    switch (kind) {
    case KIND_DATASET: return show_dataset(path);
    case KIND_RUN: return show_run(path);
    case KIND_SAFETENSORS: return show_safetensors(path);
    case KIND_TICKET: return show_ticket(path);
    case KIND_UNKNOWN: break;
    }
    return -1;
}

int main(int argc, char **argv)
{
    int n = opt_parse(&program, argc, argv), rc = 0;
    if (n < 1)
        opt_usage("a FILE is wanted");
    if (o.extract && !o.bad)
        opt_usage("--extract is for --bad");
    if (o.extract && n > 1)
        opt_usage("--extract: one run at a time, since two may have images of the same name");
    for (int i = 1; i <= n; i++)
        if (show(argv[i])) {
            log_error("%s", err_text());
            rc = 1;
        }
    if (log_close_stdout())
        die();
    return rc;
}
