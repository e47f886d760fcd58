/* hssl-info: what is in a dataset, a run, a safetensors file or a ticket. */
#include "info/show.h"
#include "store/kind.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"

#include <string.h>

static Wanted o = { .lines = 5, .step = -1, .image = -1 };

static const Opt opts[] = {
    OPT_FLAG("json", 0, &o.json, "print JSON"),
    OPT_FLAG("list", 'l', &o.list, "list every image of a dataset, every tensor of a run's checkpoint"),
    OPT_FLAG("log", 0, &o.log, "print a run's log, one JSON object a line"),
    OPT_INT("lines", 'n', &o.lines, 0, 9e15, "N", "show the last N lines of a run's log (with --log 0 is all of it)"),
    OPT_INT("step", 0, &o.step, -1, 9e15, "STEP", "list or verify the checkpoint of this step (-1: the last)"),
    OPT_INT("image", 0, &o.image, -1, 9e15, "ID", "write the bytes of a dataset's image to standard output"),
    OPT_FLAG("curve", 0, &o.curve, "draw how a run learns: loss, entropies, rank of the features, rate"),
    OPT_FLAG("command", 0, &o.command, "print the commands that made a run, for a shell"),
    OPT_FLAG("bad", 'b', &o.bad, "list the images that a training could not use"),
    OPT_STR("extract", 'x', &o.extract, "DIR", "with --bad: write their bytes to files in DIR"),
    OPT_FLAG("verify", 0, &o.verify, "recompute every checksum"),
    OPT_END
};

static const OptProgram program = {
    "hssl-info", "[OPTION]... FILE...", "show what is in datasets, runs, safetensors files and tickets", .opts = opts,
    .examples = "  hssl-info photos.db run.db vit_small.safetensors\n"
                "  hssl-info --log run.db | tail -n 1\n"
                "  hssl-info --curve run.db\n"
                "  hssl-info --command run.db > again.sh\n"
                "  hssl-info --image 7 photos.db > 7.jpg\n"
                "  hssl-info --bad --extract bad/ run.db\n"
};

static int show(const char *path)
{
    if (!strcmp(path, "-"))
        return show_ticket(path, &o);
    FileKind kind = kind_of_file(path);
    if (o.image >= 0 && kind != KIND_DATASET && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a dataset: --image is for datasets", path);
    if (o.log && kind != KIND_RUN && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a run: --log is for runs", path);
    if (o.command && kind != KIND_RUN && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a run: --command is for runs", path);
    if (o.curve && kind != KIND_RUN && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a run: --curve is for runs", path);
    if (o.bad && kind != KIND_RUN && kind != KIND_UNKNOWN)
        return err_set(ERR_USAGE, "%s: not a run: --bad is for runs", path);
    switch (kind) {
    case KIND_DATASET: return show_dataset(path, &o);
    case KIND_RUN: return show_run(path, &o);
    case KIND_SAFETENSORS: return show_safetensors(path, &o);
    case KIND_TICKET: return show_ticket(path, &o);
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
    o.lines_given = opt_given(opts, "lines");
    for (int i = 1; i <= n; i++)
        if (show(argv[i])) {
            log_error("%s", err_text());
            rc = 1;
        }
    return log_status(rc);
}
