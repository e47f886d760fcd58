/* How a training gets what it needs, and leaves it. */
#include "training.h"

#include "stream/stage.h"
#include "tensor/backend.h"
#include "train/initfrom.h"
#include "util/err.h"
#include "util/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ViewBatch views_shape(const BatchShape *s)
{
    return (ViewBatch){ .batch = s->batch_size, .globals = s->globals, .locals = s->locals, .global_size = s->global_size,
                        .local_size = s->local_size };
}

/* The stream decides the sizes of the views. */
static int adopt_views(const Training *t)
{
    const BatchShape *s = t->shape;
    const Message *w = batches_welcome(t->batches);
    const char *planner = message_text(w, "planner", "the stage before it");
    /* One that was given none began for somebody else, or was asked for too much. */
    const char *remedy = message_int(w, "views_given", 1)
                             ? "give that no option about views, or the same"
                             : "that runs without such an option: start it anew, with it";
    const struct {
        const char *name;
        int64_t *value, stream;
    } sizes[] = {
        { "global-size", &config.global_size, s->global_size },
        { "local-crops", &config.local_crops, s->locals },
        { "local-size", &config.local_size, s->locals ? s->local_size : config.local_size },
    };
    if (s->globals != 2)
        return err_set(ERR_USAGE, "the stream has %d global views an image; %s takes 2", s->globals,
                       config.method);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (*sizes[i].value == sizes[i].stream)
            continue;
        if (t->goes_on)
            return err_set(ERR_USAGE, "%s was begun with %s %" PRId64 ", the stream has %" PRId64, options.output,
                           sizes[i].name, *sizes[i].value, sizes[i].stream);
        if (was_given(sizes[i].name))
            return err_set(ERR_USAGE,
                           "--%s %" PRId64 ": the stream has %" PRId64 ", and %.40s decides it: %s",
                           sizes[i].name, *sizes[i].value, sizes[i].stream, planner, remedy);
        *sizes[i].value = sizes[i].stream;
    }
    return config_check(&config);
}

/* The first record of the stream that is wanted: a run goes on with any number of ranks. */
static uint64_t part_position(const Training *t)
{
    uint64_t world = (uint64_t)group_world(t->group), s = (uint64_t)t->at.steps_per_epoch, step = (uint64_t)t->at.step;
    return s ? step / s * (t->at.records_per_epoch / world) + step % s * ((uint64_t)config.batch_size / world) : 0;
}

void open_stream(Training *t)
{
    Ticket ticket;
    Message wish;
    uint64_t *known = NULL;
    int64_t n = 0;
    t->bad = (BadImages){ .journal = &t->journal, .most = &options.max_bad };
    if (t->run && (n = bad_resume(&t->bad, t->run, &known)) < 0)
        give_up(t);
    message_init(&wish, MSG_HELLO);
    if (wish_put(&t->wish, &wish) || ticket_read(STDIN_FILENO, "views", &ticket)) {
        message_clear(&wish);
        give_up(t);
    }
    t->batches = batches_open(
        &ticket, &(BatchesConfig){.program = "hssl-train",
                                  .batch_size = config.batch_size / group_world(t->group),
                                  .records = t->at.records_per_epoch / (uint64_t)group_world(t->group),
                                  .start = part_position(t),
                                  .life = STDIN_FILENO,
                                  .wish = &wish,
                                  .bad = bad_take,
                                  .arg = &t->bad,
                                  .known = known,
                                  .n_known = (size_t)n});
    free(known);
    message_clear(&wish);
    if (!t->batches)
        give_up(t);
}

void leave(Training *t)
{
    teach_close(&t->teach);
    uploads_free(t->uploads);
    batches_close(&t->batches);
    student_free(t->student);
    health_free(t->watch.health);
    if (t->figures)
        t->be->release(t->be, t->figures, 2 * sizeof(float));
    if (t->run) {
        if ((run_set(t->run, "teacher_ticket", NULL) || run_set(t->run, "trainer_pid", NULL)) && !t->failed)
            log_warn("%s", err_text());
        if (run_close(t->run) && !t->failed)
            log_warn("%s", err_text());
    }
    if (run_close(t->old) && !t->failed)
        log_warn("%s", err_text());
    provenance_free(&t->origin);
    wish_free(&t->wish);
    if (t->journal.file && t->journal.file != stderr)
        fclose(t->journal.file);
    group_close(&t->group);
}

/* Errors while things are set up: say so, leave in order. */
void give_up(Training *t)
{
    int status = stream_status();
    bool asked = err_code() == ERR_STOP;
    const char *remedy = memory_remedy();
    char why[ERR_TEXT];
    snprintf(why, sizeof why, "%s", err_text());
    if (group_check(t->group) == 0) {
        if (!asked)
            log_error("%s%s", why, remedy);
        group_end(t->group, asked ? NULL : why);
    } else { /* of another rank, which was said already */
        status = stream_status();
    }
    t->failed = true;
    leave(t);
    exit(status);
}

/* A teacher of its own gets this program's device, unless it has got one of its own. */
static void open_teacher(Training *t)
{
    TeachConfig c = { .ticket = options.teacher, .in_process = options.teacher_in_process, .be = t->be,
                      .ranks = group_world(t->group), .best = MEDIUM_IPC, .device = options.device.device,
                      .precision = options.device.precision, .varies = !options.device.deterministic, .plain = !config.graph };
    if (options.teacher_device) {
        c.device = options.teacher_device;
        if (!strcmp(c.device, "cpu"))
            c.precision = "auto";
    }
    if (!strcmp(options.medium, "auto") || !medium_find(options.medium, &c.best))
        t->teach = teach_open(&c);
}

/* The run: not before everything else is there, for a start that fails leaves no run, and an old one as it was. */
static int open_run(Training *t)
{
    char pid[32];
    const char *from = options.init_from ? options.init_from : options.continue_from; /* one at most */
    const char *const sources[OUTPUT_SOURCES] = { options.output, from };
    if (options.log && !(t->journal.file = strcmp(options.log, "-") ? output_append(options.log, sources) : stderr))
        return err_prefix("--log");
    if (origin_load(t) || (t->resuming && saving_read(t->run, t->student, t->teach, &t->at)) ||
        origin_keep(t))
        return -1;
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (run_set(t->run, "trainer_pid", pid) || run_set(t->run, "teacher_ticket", teach_published(t->teach)))
        return -1;
    t->journal.run = t->run;
    return 0;
}

static void say_init(const InitFrom *from)
{
    char rest[160] = "";
    if (from->rest)
        snprintf(rest, sizeof rest, "; %zu others, such as %.80s, are left", from->rest, from->other);
    log_info("base model from %s: %zu tensors%s%s%s%s", options.init_from, from->taken,
             *from->prefix ? ", their names without " : "", from->prefix,
             from->converted ? ", as fp32" : "", rest);
    if (from->grid_to != from->grid_from)
        log_info("position embedding resized from %d x %d to %d x %d patches (bicubic)", from->grid_from,
                 from->grid_from, from->grid_to, from->grid_to);
}

static int init_base(Training *t)
{
    if (!options.init_from || t->resuming || !is_first(t))
        return 0;
    InitFrom from;
    if (init_from(options.init_from, t->student, &from))
        return err_prefix("--init-from");
    say_init(&from);
    return 0;
}

static int know_stream(Training *t)
{
    uint64_t records;
    if (!(t->shape = batches_shape(t->batches)) || adopt_views(t) ||
        ranks_check_stream(t, &records))
        return -1;
    if (t->at.records_per_epoch && t->at.records_per_epoch != records)
        return err_set(ERR_USAGE, "%s was trained on %" PRIu64 " images an epoch, the stream has %" PRIu64, options.output,
                       t->at.records_per_epoch, records);
    if (is_first(t) && !t->goes_on)
        origin_compare(t);
    t->at.records_per_epoch = records;
    t->at.steps_per_epoch = (int64_t)t->shape->batches_per_epoch;
    t->total = config.epochs * t->at.steps_per_epoch;
    return origin_check(t);
}

void set_up(Training *t)
{
    open_teacher(t);
    if (!t->teach || know_stream(t))
        give_up(t);
    if (is_first(t)) {
        if (watch_plan(t))
            give_up(t);
        describe(t);
    }
    TrainConfig part = ranks_part(t);
    size_t bytes = student_bytes(&part);
    float *memory = bytes ? teach_memory(t->teach, bytes) : NULL;
    if (!memory || !(t->student = student_new(&part, memory)) || init_base(t))
        give_up(t);
    if (group_world(t->group) > 1)
        student_join(t->student, t->group);
    ViewBatch views = views_shape(t->shape);
    if (!(t->uploads = uploads_new(t->be, &views, batches_block(t->batches))))
        give_up(t);
    void *views_memory = uploads_memory(t->uploads, &bytes);
    if (teach_start(t->teach, &part, t->threads, views_memory, bytes) || (is_first(t) && open_run(t)) ||
        ((t->resuming || t->warm) && ranks_share_state(t)) ||
        bad_begin(&t->bad, batches_welcome(t->batches)) ||
        (is_first(t) && (log_start(t) || origin_log(t) || watch_begin(t, &part))))
        give_up(t);
}
