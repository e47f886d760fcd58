/* hssl-load: a dataset's records, shuffled anew each epoch, handed out on demand. */
#include "dist/place.h"
#include "store/dataset.h"
#include "stream/source.h"
#include "stream/stage.h"
#include "util/err.h"
#include "util/idset.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/rng.h"
#include "util/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
    int64_t seed, epochs, rank, world;
    bool shuffle;
    StreamOptions stream;
} o = { .world = 1, .shuffle = true, .stream.fan_out = 1 };

static const Opt opts[] = {
    OPT_INT("seed", 's', &o.seed, 0, 9e15, "N", "key of the shuffled order"),
    OPT_INT("epochs", 'e', &o.epochs, 0, 1e9, "N", "end after N epochs (0: go on until the consumer leaves)"),
    OPT_FLAG("shuffle", 0, &o.shuffle, "a new order each epoch, else the dataset's"),
    OPT_INT("rank", 'r', &o.rank, 0, 1e6, "R", "stream the part of rank R of the --world"),
    OPT_INT("world", 'w', &o.world, 1, 1e6, "W", "number of ranks that share an epoch"),
    OPT_INT("fan-out", 0, &o.stream.fan_out, 1, 64, "N", "feed N consumers, each with every record"),
    STREAM_OPTS(&o.stream),
    OPT_END
};

static const OptProgram program = {
    "hssl-load", "[OPTION]... DATASET > RECORDS", "stream the records of a dataset", .opts = opts,
    .examples = "  hssl-load photos.db | hssl-augment -j8 | hssl-train -o run.db\n"
                "  hssl-load --no-shuffle --epochs 1 photos.db | hssl-tap --json 2> list.jsonl\n"
};

/* Record at position i of an epoch of this rank: global position i * world + rank, permuted. */
static uint64_t record_id(uint64_t epoch, uint64_t i, uint64_t count)
{
    uint64_t global = i * (uint64_t)o.world + (uint64_t)o.rank;
    return o.shuffle ? rng_permute((uint64_t)o.seed, epoch, global, count) : global;
}

static int describe(Source *s, Dataset *ds, uint64_t per_epoch)
{
    char digest[17] = "";
    Message m;
    message_init(&m, MSG_WELCOME);
    if (dataset_digest(ds, digest)) { /* a damaged record is a bad image, and no reason to end */
        log_warn("no digest of the data set: %s", err_text());
        *digest = 0;
    }
    if ((*digest && message_set_text(&m, "dataset_digest", digest)) ||
        message_set_int(&m, "records_per_epoch", (int64_t)per_epoch) ||
        message_set_text(&m, "dataset", dataset_path(ds)) ||
        message_set_int(&m, "dataset_count", (int64_t)dataset_count(ds)) ||
        message_set_int(&m, "classes", dataset_classes(ds)) || message_set_int(&m, "load_seed", o.seed) ||
        message_set_int(&m, "shuffle", o.shuffle) || message_set_int(&m, "epochs", o.epochs) ||
        message_set_int(&m, "rank", o.rank) || message_set_int(&m, "world", o.world)) {
        message_clear(&m);
        return -1;
    }
    return source_welcome(s, &m);
}

/* A damaged record is a bad image: reported, and replaced by whoever makes batches. What is left of it goes along. */
static int mark_bad(Message *m, const Record *r)
{
    static IdSet named;
    char why[512];
    snprintf(why, sizeof why, "%s", err_text());
    if (idset_add(&named, m->id) > 0) /* once, however many epochs meet it */
        log_warn("img %llu%s%s: %s", (unsigned long long)m->id, *r->name ? " " : "", r->name, why);
    return message_set_bad(m, why);
}

static int send_record(Source *s, Dataset *ds, uint64_t seq, uint64_t per_epoch)
{
    Record r;
    Message m;
    message_init(&m, MSG_DATA);
    m.seq = seq;
    m.epoch = seq / per_epoch;
    m.id = record_id(m.epoch, seq % per_epoch, dataset_count(ds));
    int rc = dataset_take(ds, m.id, &r);
    if (rc < 0)
        return message_clear(&m), -1;
    rc = rc ? mark_bad(&m, &r) : 0;
    const int64_t shape[] = { (int64_t)r.size };
    m.label = r.label;
    m.width = r.width;
    m.height = r.height;
    m.reading = r.reading;
    if (rc || message_set_name(&m, r.name) ||
        (r.size && message_add_copy(&m, "image", MSG_U8, 1, shape, r.bytes))) {
        message_clear(&m);
        return -1;
    }
    return source_send(s, &m);
}

static int stream(Source *s, Dataset *ds, uint64_t per_epoch)
{
    uint64_t seq, total = o.epochs ? (uint64_t)o.epochs * per_epoch : UINT64_MAX;
    int rc = source_hello(s, &seq);
    if (rc <= 0)
        return rc;
    if (describe(s, ds, per_epoch))
        return -1;
    while (!source_left(s)) {
        while (source_next(s, total, &seq))
            if (send_record(s, ds, seq, per_epoch))
                return -1;
        dataset_rest(ds); /* nobody knows for how long */
        if (stream_wait(NULL, s, -1, -1) < 0)
            return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int operands = opt_parse(&program, argc, argv), rc = 1;
    Place place;
    if (!opt_given(opts, "rank") && !opt_given(opts, "world")) {
        if (place_find(&place))
            die();
        o.rank = place.rank;
        o.world = place.world;
    }
    if (operands != 1)
        opt_usage("one DATASET is needed");
    if (o.rank >= o.world)
        opt_usage("--rank %lld: must be below --world %lld", (long long)o.rank, (long long)o.world);
    if (stop_install())
        die();
    Dataset *ds = dataset_open(argv[1]);
    if (!ds)
        die();
    uint64_t count = dataset_count(ds), per_epoch = count / (uint64_t)o.world;
    if (!per_epoch) {
        dataset_close(ds);
        die_with("%s: %llu image%s too few for %lld rank%s", argv[1], (unsigned long long)count,
                 count == 1 ? " is" : "s are", (long long)o.world, o.world == 1 ? "" : "s");
    }
    Source *s = source_open("records", program.name, &o.stream);
    if (s && (rc = source_announce(s, STDOUT_FILENO)) >= 0) {
        if (rc)
            log_info("this line is the stream's ticket: give it to a consumer on standard input "
                     "(hssl-augment, hssl-multicrop, hssl-tap)");
        rc = stream(s, ds, per_epoch);
    }
    if (!s || rc < 0) {
        rc = stream_status();
        if (err_code() != ERR_STOP)
            log_error("%s", err_text());
        if (s)
            source_fail(s, err_code() == ERR_STOP ? "hssl-load " SOURCE_STOPPED : err_text());
    }
    source_close(&s);
    dataset_close(ds);
    return rc;
}
