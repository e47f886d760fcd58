/* hssl-import: images of a folder, a list, a tar or CIFAR binaries into one dataset. */
#include "import/import.h"

#include "image/image.h"
#include "store/dataset.h"
#include "store/intake.h"
#include "store/labels.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    bool nul, strict, verify, force, json, repair, orientation;
    const char *labels, *prefix;
    int64_t limit, per_class, jobs, level;
} o = { .labels = "auto", .prefix = "", .orientation = true };

static const Opt opts[] = {
    OPT_FLAG("null", '0', &o.nul, "names on standard input end with a zero byte (find -print0)"),
    OPT_STR("labels", 0, &o.labels, "WHERE",
            "classes from auto, folder, cls (X.cls), none, or the table FILE.csv"),
    OPT_INT("class-level", 0, &o.level, -64, 64, "N",
            "class: the N-th folder below SOURCE, from -1 the innermost (0: find it)"),
    OPT_STR("prefix", 0, &o.prefix, "P", "put P before each name, for sources with the same names"),
    OPT_INT("limit", 'n', &o.limit, 0, 9e15, "N", "at most N images, of a folder spread over all (0: all)"),
    OPT_INT("per-class", 0, &o.per_class, 0, 9e15, "N",
            "at most N images of each class, the first ones (0: all)"),
    OPT_FLAG("orientation", 0, &o.orientation, "turn pictures upright as their EXIF orientation says"),
    OPT_FLAG("verify", 0, &o.verify, "decode every image and skip what doesn't decode"),
    OPT_INT("jobs", 'j', &o.jobs, 0, 1024, "N", "check in N threads (0: one a processor)"),
    OPT_FLAG("strict", 0, &o.strict, "exit with 1 if anything was skipped"),
    OPT_FLAG("force", 'f', &o.force, "start anew if OUT.db exists, instead of going on with it"),
    OPT_FLAG("repair", 0, &o.repair, "import nothing: check OUT.db, the only operand, and set its counts right"),
    OPT_FLAG("json", 0, &o.json, "print the totals as JSON on standard output"),
    OPT_END
};

static const OptProgram program = {
    "hssl-import", "[OPTION]... SOURCE OUT.db",
    "store images, as they are, with label and name in one dataset", .opts = opts,
    .examples =
        "  hssl-import photos/ photos.db            # photos/CLASS/x.jpg: labels; photos/x.jpg: none\n"
        "  tar c photos | hssl-import - photos.db\n"
        "  find photos -name '*.jpg' -print0 | hssl-import -0 - photos.db\n"
        "  hssl-import --labels train.csv train/ train.db\n"
        "  hssl-import cifar-10-batches-bin/ cifar10.db\n"
};

/* ---------------------------------------------------------------- the class of an image */

static enum { AUTO, FOLDER, CLS, NONE, TABLE } from;
static Labels *table;
static bool marked_some;
static Count unknown; /* images that the table, or a .cls, says nothing of */
static Count other;   /* images that are there already with another class */

typedef struct {
    const char *name; /* NULL: none */
    bool number;      /* the label is to be this number */
    bool unknown;
    const char *bad;
} Class;

static Class class_of(const IntakeItem *item)
{
    Class c = { .name = NULL };
    bool marked = (from == AUTO || from == CLS) && item->mark;
    marked_some = marked_some || marked;
    if (from == TABLE) {
        c.unknown = !labels_find(table, item->name, &c.name);
        c.number = c.name && labels_numbered(table);
    } else if (marked && strchr(item->mark, 1)) {
        c.bad = "its .cls can't be read, or holds neither a number nor a name";
    } else if (marked) {
        c.name = *item->mark && strcmp(item->mark, "-1") ? item->mark : NULL;
        c.number = c.name && dataset_class_number(c.name) >= 0;
    } else if (from == AUTO || from == FOLDER) {
        c.name = item->class_name;
        c.unknown = from == AUTO && c.name;
    } else {
        c.unknown = from == CLS;
    }
    return c;
}

/* ---------------------------------------------------------------- one image */

typedef struct {
    char *name, *class_name; /* class_name NULL: none */
    bool number, unknown;    /* as in Class */
    IntakeImage image;
    ImageInfo info;
    unsigned reading;
    char *bad; /* why it is skipped */
} Slot;

static unsigned rule; /* of the dataset: DATASET_TURNED, DATASET_SCALED */

static const struct {
    const char *name, *bytes;
    size_t at, n;
} foreign[] = {
    { "a GIF", "GIF8", 0, 4 },
    { "a WebP image", "WEBP", 8, 4 },
    { "a BMP image", "BM", 0, 2 },
    { "a TIFF image", "II*\0", 0, 4 },
    { "a TIFF image", "MM\0*", 0, 4 },
    { "an AVIF or HEIF image", "ftyp", 4, 4 },
    { "a JPEG 2000 image", "jP  ", 4, 4 },
    { "a PDF", "%PDF", 0, 4 },
    { "a web page", "<!DOCTYPE", 0, 9 },
    { "a tar, to be imported by itself", "ustar", 257, 5 },
};

static void refuse(Slot *s, const char *why)
{
    if (!s->bad)
        s->bad = strdup(why);
}

/* A JPEG without its end marker, or a PNG without its end chunk, may have been cut off. Entropy-coded data
 * never holds FF D9; a thumbnail in the head may. */
static bool cut_off(const unsigned char *p, size_t n)
{
    if (n > 8 && !memcmp(p, "\x89PNG", 4))
        return !memmem(p + 8, n - 8, "IEND\xae\x42\x60\x82", 8);
    size_t at = 2;
    while (at + 4 <= n && p[at] == 0xff && p[at + 1] != 0xda) {
        if (p[at + 1] == 0xff) {
            at++;
            continue;
        }
        at += 2 + ((size_t)p[at + 2] << 8 | p[at + 3]);
    }
    return at >= n || !memmem(p + at, n - at, "\xff\xd9", 2);
}

static int encode(Slot *s)
{
    Image raw = { .w = s->image.width, .h = s->image.height, .rgb = s->image.bytes };
    void *png;
    size_t size;
    if (image_encode_png(&raw, &png, &size))
        return -1;
    free(s->image.bytes);
    s->image = (IntakeImage){ .bytes = png, .size = size };
    return 0;
}

static void check(Slot *s)
{
    if (s->bad)
        return;
    if (s->image.width && encode(s)) {
        refuse(s, err_text());
        return;
    }
    const unsigned char *p = s->image.bytes;
    size_t n = s->image.size;
    if (!n) {
        refuse(s, "an empty file");
        return;
    }
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        char why[64];
        if (n < foreign[i].at + foreign[i].n || memcmp(p + foreign[i].at, foreign[i].bytes, foreign[i].n))
            continue;
        snprintf(why, sizeof why, "%s; JPEG and PNG are read", foreign[i].name);
        refuse(s, why);
        return;
    }
    if (image_probe(p, n, &s->info)) {
        refuse(s, err_text());
        return;
    }
    s->reading = image_reading(&s->info, rule & DATASET_TURNED, rule & DATASET_SCALED);
    if (o.verify || cut_off(p, n)) {
        /* Some encoders leave out the end marker: only decoding tells whether pixels are missing. */
        Image decoded = { 0 };
        if (image_decode(p, n, s->reading, &decoded))
            refuse(s, err_text());
        image_free(&decoded);
    }
}

/* ---------------------------------------------------------------- batches of images */

enum { SLOTS = 256, BATCH_BYTES = 32 << 20 };

static Slot slots[SLOTS];
static int n_slots;
static size_t batch_bytes;
static int64_t imported, present;
static struct {
    int64_t turned, kept, scaled, clipped,
        alpha; /* of those imported: kept and clipped are turned and scaled by no rule */
} met;

static bool enough(const char *class_name)
{
    return o.per_class && *tally_of(class_name) >= o.per_class;
}

/* What nobody has seen yet of a new dataset goes away. */
static void give_up(DatasetWriter *w) __attribute__((noreturn));
static void give_up(DatasetWriter *w)
{
    dataset_discard(w);
    die();
}

static void meet(const Slot *s)
{
    bool turned = s->reading & IMAGE_TURN, scaled = s->reading & IMAGE_SCALED;
    imported++;
    met.turned += turned;
    met.kept += !turned && s->info.orientation > 1;
    met.scaled += scaled;
    met.clipped += !scaled && s->info.bits == 16;
    met.alpha += s->info.alpha;
}

static void put(DatasetWriter *w, const Slot *s)
{
    int width, height;
    image_read_size(&s->info, s->reading, &width, &height);
    Record r = { .bytes = s->image.bytes, .size = s->image.size, .name = s->name,
                 .width = (uint32_t)width, .height = (uint32_t)height, .reading = (uint16_t)s->reading };
    if (!(s->number && dataset_number_classes(w)) && !dataset_put_in(w, &r, s->class_name)) {
        meet(s);
        ++*tally_of(s->class_name);
        if (s->unknown)
            count_one(&unknown, s->name);
    } else if (err_code() == ERR_EXISTS) {
        present++;
    } else if (err_code() == ERR_USAGE || err_code() == ERR_DATA) {
        skip(s->name, err_text());
    } else {
        give_up(w);
    }
}

static void flush_batch(DatasetWriter *w)
{
    /* Threads pay where there is something to decode or encode; looking at heads is too little work. */
    bool heavy = n_slots > 1 && (o.verify || slots[0].image.width);
#pragma omp parallel for schedule(dynamic) num_threads((int)o.jobs) if (heavy)
    for (int i = 0; i < n_slots; i++)
        check(&slots[i]);
    for (int i = 0; i < n_slots; i++) {
        Slot *s = &slots[i];
        if (s->bad)
            skip(s->name, s->bad);
        else if (!enough(s->class_name))
            put(w, s);
        free(s->name);
        free(s->class_name);
        free(s->image.bytes);
        free(s->bad);
        *s = (Slot){ 0 };
    }
    n_slots = 0;
    batch_bytes = 0;
}

static void take(Intake *in, const char *name, const Class *class)
{
    Slot *s = &slots[n_slots++];
    s->name = strdup(name);
    s->class_name = class->name ? strdup(class->name) : NULL;
    if (!s->name || (class->name && !s->class_name))
        die_with("out of memory");
    s->number = class->number;
    s->unknown = class->unknown;
    if (class->bad)
        refuse(s, class->bad);
    if (intake_load(in, &s->image))
        refuse(s, err_text());
    batch_bytes += s->image.size;
}

/* --limit where the number of items is known: item i (from 0) of total is one of `limit` spread ones. */
static bool chosen(int64_t i, int64_t total)
{
    if (!o.limit || !total || o.limit >= total)
        return true;
    return (int64_t)((__int128)(i + 1) * o.limit / total) > (int64_t)((__int128)i * o.limit / total);
}

/* The name that an image gets; good until the next one. */
static const char *full_name(const char *name)
{
    static char *full;
    if (!*o.prefix)
        return name;
    free(full);
    if (asprintf(&full, "%s%s", o.prefix, name) < 0)
        die_with("out of memory");
    return full;
}

/* Returns whether the source was looked through to its end. */
static bool import(Intake *in, DatasetWriter *w)
{
    IntakeItem item;
    Progress progress;
    int64_t total = intake_total(in), i = 0;
    int rc = 0;
    progress_start(&progress, "import", "images", 0, total);
    for (;
         !stop_signal() && (total || !o.limit || imported + present < o.limit) && (rc = intake_next(in, &item)) > 0;
         i++) {
        Class class = class_of(&item);
        if (!chosen(i, total) || enough(class.name))
            continue;
        const char *name = full_name(item.name);
        const char *has = NULL;
        int there = dataset_find(w, name, &has);
        if (there < 0)
            give_up(w);
        if (there) {
            present++;
            ++*tally_of(class.name);
            if (class.unknown)
                count_one(&unknown, name);
            if (!class.bad && strcmp(has ? has : "", class.name ? class.name : ""))
                count_one(&other, name);
        } else {
            take(in, name, &class);
        }
        /* Without a total the limit is exact only if no batch runs past it. */
        if (n_slots == SLOTS || batch_bytes > BATCH_BYTES ||
            (o.limit && !total && imported + present + n_slots >= o.limit))
            flush_batch(w);
        progress_update(&progress, i + 1, "");
    }
    if (rc < 0 && !stop_signal()) {
        char why[512];
        snprintf(why, sizeof why, "%s", err_text());
        flush_batch(w);
        progress_end(&progress);
        skips_end();
        /* Part of a new dataset takes no old one's place. */
        bool nothing_stays = !dataset_written(w) || o.force;
        if (nothing_stays)
            dataset_discard(w);
        else if (dataset_finish(w))
            log_error("%s", err_text());
        die_with("%s%s", why, nothing_stays ? "" : " (what was read before is stored)");
    }
    flush_batch(w);
    progress_end(&progress);
    return !stop_signal() && !rc;
}

/* What was left out or left without a class, one line for each kind. whole: the source was looked through. */
static void print_counts(const Intake *in, const char *source, bool whole)
{
    const char *first;
    int64_t unused = table && whole ? labels_unused(table, &first) : 0;
    skips_end();
    if (intake_detours(in))
        log_warn("%" PRId64 " links to folders that are read on another way were not followed",
                 intake_detours(in));
    if (unknown.n && table)
        log_warn("%" PRId64 " image%s without a row in %s, and so without a class; the first: %s", unknown.n,
                 unknown.n == 1 ? "" : "s", o.labels, unknown.first);
    else if (unknown.n && from == CLS)
        log_warn("%" PRId64 " image%s without a .cls beside it, and so without a class; the first: %s",
                 unknown.n, unknown.n == 1 ? "" : "s", unknown.first);
    else if (unknown.n && marked_some)
        log_warn("%" PRId64
                 " image%s without a .cls beside it, as others have, and so with the class of its folder "
                 "(--labels cls: none); the first: %s",
                 unknown.n, unknown.n == 1 ? "" : "s", unknown.first);
    if (other.n)
        log_warn("%" PRId64
                 " image%s there already with another class, which stays: -f imports all anew; the "
                 "first: %s",
                 other.n, other.n == 1 ? " is" : "s are", other.first);
    if (unused)
        log_warn("%" PRId64 " row%s of %s without an image in %s; the first: %.200s", unused,
                 unused == 1 ? "" : "s", o.labels, source, first);
}

static void print_totals(const char *path, const Dataset *ds)
{
    char what[160];
    int64_t skipped = skips();
    snprintf(what, sizeof what, "%" PRId64 " imported, %" PRId64 " there already%s, %" PRId64 " skipped",
             imported, present, present && !imported ? " (other images of the same names want --prefix)" : "",
             skipped);
    if (o.json)
        printf("{\"imported\":%" PRId64 ",\"present\":%" PRId64 ",\"skipped\":%" PRId64 ",\"turned\":%" PRId64
               ",\"scaled\":%" PRId64 ",\"alpha\":%" PRId64 ",\"images\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"classes\":%d}\n",
               imported, present, skipped, met.turned, met.scaled, met.alpha, ds ? dataset_count(ds) : 0,
               ds ? dataset_bytes(ds) : 0, ds ? dataset_classes(ds) : 0);
    int used = 0; /* of numbers, not all between them are classes */
    for (int i = 0; ds && i < dataset_classes(ds); i++)
        used += dataset_class_count(ds, i) > 0;
    if (ds)
        log_info("%s: %" PRIu64 " image%s in %d class%s, %.1f MB; %s", path, dataset_count(ds),
                 dataset_count(ds) == 1 ? "" : "s", used, used == 1 ? "" : "es",
                 (double)dataset_bytes(ds) / 1e6, what);
    else
        log_info("%s: %s", path, what);
}

/* What was made of pictures that are more than 8-bit RGB the right way up: one line, where there are any. */
static void say_met(const char *path)
{
    const struct {
        int64_t n;
        const char *what;
    } list[] = {
        {met.turned, "turned upright as their EXIF orientation says (--no-orientation keeps the file's)"},
        {met.kept, "whose EXIF orientation is not applied"},
        {met.scaled, "of 16 bits, scaled to 8"},
        {met.clipped,
         "of 16 bits, not scaled to 8: gray beyond 255 is white (an older version began the dataset)"},
        {met.alpha, "with an alpha channel, which is dropped (RGB as stored)"},
    };
    char line[512] = "";
    int at = 0;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].n)
            at += snprintf(line + at, sizeof line - (size_t)at, "%s%" PRId64 " %s", at ? "; " : "", list[i].n,
                           list[i].what);
    if (at)
        log_info("%s: among those imported: %s", path, line);
}

/* The options give a new dataset its rule; an old one keeps its own. */
static void settle_rule(DatasetWriter *w, const char *path)
{
    rule = DATASET_SCALED | (o.orientation ? DATASET_TURNED : 0);
    unsigned has = dataset_writer_rule(w);
    if (!dataset_written(w)) {
        dataset_set_rule(w, rule);
        return;
    }
    if (opt_given(opts, "orientation") && (has ^ rule) & DATASET_TURNED) {
        dataset_discard(w);
        die_with("%s: EXIF orientations are %s in it, which --%sorientation contradicts: leave the option "
                 "out, or import "
                 "into another dataset",
                 path, has & DATASET_TURNED ? "applied" : "not applied", o.orientation ? "" : "no-");
    }
    rule = has;
}

static int repair(const char *path)
{
    uint64_t announced = 0;
    int rc = dataset_repair(path, &announced);
    Dataset *ds = rc < 0 ? NULL : dataset_open(path);
    if (!ds)
        die();
    if (rc && announced != dataset_count(ds))
        log_info("%s: repaired: %" PRIu64 " sound images, of which its header told %" PRIu64, path, dataset_count(ds),
                 announced);
    else if (rc)
        log_info("%s: repaired: %" PRIu64 " sound images, whose sums were wrong", path, dataset_count(ds));
    else
        log_info("%s: its %" PRIu64 " images are sound, and nothing is to be repaired", path, dataset_count(ds));
    dataset_close(ds);
    return 0;
}

/* Where classes come from; what doesn't go together is wrong usage. */
static void choose_labels(void)
{
    static const char *const words[] = { "auto", "folder", "cls", "none" };
    for (from = AUTO; from < TABLE && strcmp(o.labels, words[from]); from++) {
    }
    if (o.level && from != AUTO && from != FOLDER)
        opt_usage("--class-level is for classes that come from folders, and --labels %s takes others",
                  o.labels);
    if (from == TABLE && !(table = labels_read(o.labels)))
        die();
}

static void check_source(const Intake *in)
{
    const char *kind = intake_kind(in);
    if (o.level && !intake_level(in))
        opt_usage("--class-level is for folders, and the images of a %s bring their classes with them", kind);
    if (from == CLS && strcmp(kind, "tar") && strcmp(kind, "folder"))
        opt_usage("--labels cls is for a tar or a folder, and the source is a %s", kind);
}

int main(int argc, char **argv)
{
    int operands = opt_parse(&program, argc, argv);
    if (o.repair && operands != 1)
        opt_usage("--repair wants one OUT.db");
    if (o.repair)
        return repair(argv[1]);
    if (operands != 2)
        opt_usage("one SOURCE and an OUT.db are wanted%s",
                  operands > 2 ? "; many files: printf '%s\\n' FILE... | hssl-import - OUT.db" : "");
    const char *source = argv[1], *path = argv[2];
    if (!o.jobs)
        o.jobs = omp_get_num_procs();
    if (stop_install())
        die();

    choose_labels();
    bool folders = from == AUTO || from == FOLDER;
    const IntakeHow how = { .nul = o.nul, .marks = from != FOLDER, .level = folders ? (int)o.level : -1 };
    Intake *in = intake_open(source, &how);
    if (!in && stop_signal())
        return stop_status();
    if (!in)
        die();
    check_source(in);
    DatasetWriter *w = dataset_create(path, o.force ? DATASET_REPLACE | DATASET_WHOLE : DATASET_RESUME);
    if (!w)
        die();
    settle_rule(w, path);
    bool whole = import(in, w);
    if (o.force && stop_signal()) {
        dataset_discard(w);
        log_info("stopped; %s is as it was", path);
        return stop_status();
    }
    uint64_t count = dataset_written(w);
    if (!count)
        dataset_discard(w);
    else if (dataset_finish(w))
        die();
    print_counts(in, source, whole);
    int level = folders && !marked_some ? intake_level(in) : 0;
    intake_close(in);

    Dataset *ds = count ? dataset_open(path) : NULL;
    if (count && !ds)
        die();
    if (ds)
        dataset_rest(ds); /* another importer may be at work while somebody reads this */
    print_totals(path, ds);
    say_met(path);
    if (ds && from != NONE && !stop_signal())
        look_at_classes(ds, level, from == TABLE ? o.labels : from == CLS || marked_some ? ".cls" : source);
    dataset_close(ds);
    tally_free();
    labels_free(table);
    int rc = log_status(0);
    if (rc)
        return rc;
    if (stop_signal()) {
        log_info("stopped; the same command goes on");
        return stop_status();
    }
    if (!count)
        die_with("%s: no image to import", source);
    return o.strict && skips();
}
