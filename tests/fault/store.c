/* What faults.sh drives through lib/store, call by call: store DATASET|RUN PATH write|read.
 * write: makes or continues the file; the last word on standard output is how far it surely got. read: all of it must be
 * there up to that. Exit 0, or 1 with one line on standard error. */
#include "store/dataset.h"
#include "store/run.h"
#include "store/safetensors.h"
#include "util/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IMAGES = 40, STEPS = 3, BYTES = 3000 };

static int fail(void)
{
    fprintf(stderr, "store: %s\n", err_text());
    return 1;
}

static int write_dataset(const char *path)
{
    uint8_t bytes[BYTES];
    DatasetWriter *w = dataset_create(path, DATASET_RESUME);
    if (!w)
        return fail();
    for (uint64_t i = dataset_written(w); i < IMAGES; i++) {
        char name[32];
        snprintf(name, sizeof name, "%" PRIu64 ".jpg", i);
        memset(bytes, (int)i, sizeof bytes);
        Record r = { .bytes = bytes, .size = 1 + (size_t)i * 71 % BYTES, .name = name, .label = dataset_class(w, i & 1 ? "odd" : "even") };
        if (r.label < 0 || dataset_put(w, &r) || (i % 10 == 9 && dataset_commit(w))) {
            int rc = fail();
            dataset_discard(w);
            return rc;
        }
    }
    return dataset_finish(w) ? fail() : 0;
}

static int read_dataset(const char *path, uint64_t least)
{
    Record r;
    Dataset *ds = dataset_open(path);
    if (!ds)
        return least ? fail() : 0;
    int rc = 0;
    if (dataset_count(ds) < least)
        rc = err_set(ERR_DATA, "%" PRIu64 " images of %" PRIu64, dataset_count(ds), least);
    for (uint64_t i = 0; !rc && i < dataset_count(ds); i++)
        rc = dataset_get(ds, i, &r) || dataset_verify(ds, &r);
    dataset_close(ds);
    return rc ? fail() : 0;
}

static int64_t last_step(Run *run)
{
    Checkpoint *cp = run_checkpoint(run, -1);
    int64_t step = cp ? (int64_t)checkpoint_step(cp) : err_code() == ERR_ABSENT ? 0 : -1;
    checkpoint_close(cp);
    return step;
}

static int write_run(const char *path)
{
    static float big[20000];
    const StoredTensor t[] = { { "w", STORED_F32, 2, { 100, 200 }, big, sizeof big },
                               { "b", STORED_F32, 1, { 5 }, big, 20 } };
    Run *run = access(path, F_OK) ? run_create(path, "{}", false) : run_open(path, true);
    if (!run) /* as hssl-train --force would: an empty file, or one that was never finished */
        return fail();
    int64_t step = last_step(run);
    int rc = step < 0 || run_set(run, "ticket", "x") ? -1 : 0;
    while (!rc && step++ < STEPS)
        rc = run_log(run, "{\"step\":1}") || run_save(run, (uint64_t)step, "{}", t, 2, 2);
    if (rc)
        fail();
    return run_close(run) && !rc ? fail() : rc ? 1 : 0;
}

static int read_run(const char *path, uint64_t least)
{
    Run *run = run_open(path, false);
    if (!run)
        return least ? fail() : 0;
    Checkpoint *cp = run_checkpoint(run, -1);
    int rc = cp ? checkpoint_verify(cp) : err_code() == ERR_ABSENT && !least ? 0 : -1;
    if (!rc && cp && checkpoint_step(cp) < least)
        rc = err_set(ERR_DATA, "step %" PRIu64 " of %" PRIu64, checkpoint_step(cp), least);
    if (rc)
        fail();
    checkpoint_close(cp);
    return run_close(run) || rc;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    uint64_t least = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
    bool run = !strcmp(argv[1], "run"), writing = !strcmp(argv[3], "write");
    if (writing)
        return run ? write_run(argv[2]) : write_dataset(argv[2]);
    return run ? read_run(argv[2], least) : read_dataset(argv[2], least);
}
