/* hssl-multicrop: decides every view of every image. It touches no pixel. */
#include "stream/stage.h"
#include "train/planning.h"
#include "train/wish.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"

enum { HOLD = 2048 };

static PlanningOptions o = PLANNING_DEFAULTS;

static StreamOptions stream = { .memory = STREAM_MEMORY };
static const Opt opts[] = { PLANNING_OPTS(&o), STREAM_OPTS(&stream), STREAM_MEMORY_OPT(&stream),
                            OPT_END };

static const OptProgram program = {
    "hssl-multicrop", "[OPTION]... < RECORDS > PLANS", "plan the views of each image", .opts = opts,
    .examples =
        "  hssl-load photos.db | hssl-multicrop --local 10 | hssl-augment -j8 | hssl-train -o run.db\n"
};

static Recipe recipe;
static const WishRoles role = { .plans = true };

static void compare(const Stage *st)
{
    wish_compare(source_wish(st->out), source_described(st->out), role);
}

static int plan(Message *m)
{
    ViewPlan plans[PLAN_MAX_VIEWS];
    if (m->bad)
        return 0;
    if (!m->width || !m->height || m->width > INT32_MAX || m->height > INT32_MAX)
        return message_set_bad(m, "no width and height: import it again");
    planning_views(m, &recipe, o.seed, plans);
    return planning_attach(m, plans, recipe.globals + recipe.locals);
}

static int pass(Stage *st, Message *m)
{
    bool held = false;
    while (!st->left) {
        int rc = 0;
        if (held && source_ready(st->out, m->seq)) {
            if (source_send(st->out, m))
                return -1;
            held = false;
        }
        while (!held && (rc = sink_next(st->in, m, 0)) == 1) {
            if (plan(m))
                return -1;
            held = !source_ready(st->out, m->seq);
            if (!held && source_send(st->out, m))
                return -1;
        }
        if (rc < 0 && !sink_ended(st->in))
            return -1;
        st->full = held;
        rc = rc < 0 ? stage_end(st, sink_last(st->in)) : stage_wait(st, -1, -1);
        if (rc < 0)
            return -1;
        if (st->restarted) {
            message_clear(m);
            held = st->restarted = false;
            compare(st);
        }
    }
    return 0;
}

static int welcome(Stage *st)
{
    Message w;
    message_init(&w, MSG_WELCOME);
    if (wish_take(source_wish(st->out), opts, role, &o, &recipe))
        log_warn("%s", err_text());
    if (planning_describe(&w, program.name, &o, &recipe) || wish_answer(&w, opts) ||
        message_copy_facts(&w, sink_welcome(st->in))) {
        message_clear(&w);
        return -1;
    }
    if (source_welcome(st->out, &w))
        return -1;
    compare(st);
    return 0;
}

int main(int argc, char **argv)
{
    Stage st;
    Message m = { 0 };
    if (opt_parse(&program, argc, argv))
        opt_usage("%s: takes no operands", argv[1]);
    if (planning_recipe(&o, &recipe))
        opt_usage("%s", err_text());
    if (stop_install())
        die();
    int rc = stage_open(&st, program.name, "records", "plans", HOLD, false, &stream);
    if (rc > 0)
        rc = welcome(&st) ? -1 : pass(&st, &m);
    if (rc < 0) {
        rc = stream_status();
        stage_fail(&st, program.name);
        if (err_code() != ERR_STOP)
            log_error("%s", err_text());
    }
    message_clear(&m);
    stage_close(&st);
    return rc;
}
