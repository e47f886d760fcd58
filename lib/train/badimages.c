#include "train/badimages.h"

#include "store/quarantine.h"
#include "util/err.h"
#include "util/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* 0 while `bad` different images of `whole` are not too many; else -1 with ERR_DATA. remedy: what the user
 * can do, besides raising the limit. */
static int allowed(const OptAmount *most, int64_t bad, int64_t whole, const char *remedy)
{
    int64_t limit = opt_amount(most, whole);
    char percent[64] = "";
    if (limit < 0 || bad <= limit)
        return 0;
    if (most->percent)
        snprintf(percent, sizeof percent, "%.15g%% of %" PRId64 " = ", most->number, whole);
    return err_set(ERR_DATA, "%" PRId64 " bad images, and --max-bad allows %s%" PRId64 ": %s; mend or remove "
                             "them, or raise --max-bad", bad, percent, limit, remedy);
}

int bad_name(BadNames *b, int dataset, const Record *rec, uint64_t id, const char *why)
{
    int rc = idset_add(&b->named[dataset], id);
    if (rc <= 0)
        return rc;
    log_warn("image %" PRIu64 "%s%s%s: %s", id, *rec->name ? " (" : "", rec->name, *rec->name ? ")" : "",
             why);
    return allowed(b->most, ++b->count, b->whole, "they are named above");
}

void bad_names_free(BadNames *b)
{
    idset_free(&b->named[0]);
    idset_free(&b->named[1]);
}

static int check(const BadImages *b)
{
    char remedy[512] = "they are named above";
    if (b->journal->run)
        snprintf(remedy, sizeof remedy, "hssl-info --bad %s lists them", run_path(b->journal->run));
    return allowed(b->most, b->count, b->whole, remedy);
}

int64_t bad_resume(BadImages *b, Run *run, uint64_t **ids)
{
    return b->count = run_bad_ids(run, ids);
}

int bad_begin(BadImages *b, const Message *welcome)
{
    b->whole = message_int(welcome, "dataset_count", message_int(welcome, "records_per_epoch", 0));
    return check(b);
}

static int log_one(Journal *j, const BadRecord *r)
{
    json_object *line = journal_line("bad");
    journal_int(line, "id", (int64_t)r->id);
    journal_text(line, "name", r->name);
    journal_text(line, "why", r->why);
    if (r->label >= 0)
        journal_int(line, "label", r->label);
    journal_int(line, "epoch", (int64_t)r->epoch);
    journal_int(line, "seq", (int64_t)r->seq);
    journal_int(line, "bytes", (int64_t)r->size);
    return journal_write(j, line);
}

/* Without a run they are named on standard error. */
static int name_all(BadImages *b, const BadRecord *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        log_warn("image %" PRIu64 "%s%s%s: %s", list[i].id, *list[i].name ? " (" : "", list[i].name,
                 *list[i].name ? ")" : "", list[i].why);
    b->count += (int64_t)n;
    return check(b);
}

int bad_take(void *arg, const BadRecord *list, size_t n)
{
    BadImages *b = arg;
    if (!b->journal->run)
        return name_all(b, list, n);
    BadImage *images = calloc(n, sizeof *images);
    if (!images)
        return err_set(ERR_MEMORY, "no memory for %zu bad images", n);
    for (size_t i = 0; i < n; i++)
        images[i] = (BadImage){ .id = list[i].id, .label = list[i].label, .seq = list[i].seq,
                                .epoch = list[i].epoch, .name = list[i].name, .why = list[i].why,
                                .size = list[i].size, .checksum = list[i].checksum,
                                .bytes = list[i].bytes, .kept = list[i].kept };
    int rc = run_bad_put(b->journal->run, images, n);
    free(images);
    for (size_t i = 0; i < n && !rc; i++)
        rc = log_one(b->journal, &list[i]);
    b->count += (int64_t)n;
    return rc ? -1 : check(b);
}
