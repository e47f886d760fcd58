#include "stream/stage.h"

#include "stream/ends.h"
#include "stream/gauges.h"
#include "util/err.h"
#include "util/stop.h"

#include <stdio.h>
#include <unistd.h>

enum { NEIGHBOUR_MS = 5 };

static int sooner(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* What this process does while it sits in poll. */
static GaugeState waits_for(const Sink *in, const Source *out, const Hub *hub)
{
    if (out && source_blocked(out))
        return GAUGE_WAITS_OUT;
    if (hub && hub_busy(hub))
        return GAUGE_BUSY;
    return in && !(out && sink_sated(in)) ? GAUGE_WAITS_IN : GAUGE_WAITS_OUT;
}

static int wait_all(Sink *in, Source *out, Hub *hub, int fd, int timeout_ms)
{
    zmq_pollitem_t items[3 * END_ITEMS + 2];
    int n = 0, timeout = timeout_ms;

    if (in) {
        sink_flush(in);
        if (sink_look(in))
            return -1;
        timeout = sooner(timeout, sink_patience(in));
        n += sink_items(in, items + n);
    }
    if (out) {
        timeout = sooner(timeout, source_patience(out));
        n += source_items(out, items + n);
    }
    if (hub) {
        timeout = sooner(timeout, hub_patience(hub));
        n += hub_items(hub, items + n);
    }
    if (fd >= 0)
        items[n++] = (zmq_pollitem_t){ .fd = fd, .events = ZMQ_POLLIN };
    gauge_state(waits_for(in, out, hub));
    int rc = wire_poll(items, n, timeout, true);
    gauge_state(GAUGE_BUSY);
    if (rc < 0)
        return -1;
    if (out)
        source_look(out);
    if (out && source_left(out) &&
        stop_within(NEIGHBOUR_MS)) /* a signal to all, which the consumer saw first */
        return err_set(ERR_STOP, "stopped by a signal");
    if (hub && hub_look(hub))
        return -1;
    return rc > 0;
}

int stream_wait(Sink *in, Source *out, int fd, int timeout_ms)
{
    return wait_all(in, out, NULL, fd, timeout_ms);
}

int stage_open(Stage *st, const char *program, const char *takes, const char *gives, uint64_t credit,
               bool alone, const StreamOptions *o)
{
    Ticket ticket;
    uint64_t limit = UINT64_MAX;
    *st = (Stage){ 0 };
    if (ticket_read(STDIN_FILENO, takes, &ticket))
        return -1;
    if (!alone) {
        st->out = source_open(gives ? gives : ticket.kind, program, o);
        if (!st->out || source_announce(st->out, STDOUT_FILENO) < 0)
            return -1;
        int rc = source_hello(st->out, &st->start);
        if (rc <= 0)
            return rc;
        limit = source_limit(st->out);
    }
    st->in = sink_open(&ticket, &(SinkConfig){ .program = program,
                                               .kinds = takes,
                                               .start = st->start,
                                               .credit = credit,
                                               .limit = limit,
                                               .life = STDIN_FILENO,
                                               .memory = o ? o->memory : 0,
                                               .wish = st->out ? source_wish(st->out) : NULL });
    return st->in && sink_welcome(st->in) ? 1 : -1;
}

static int begin_anew(Stage *st)
{
    st->restarted = true;
    if (st->hub)
        hub_restart(st->hub);
    return sink_restart(st->in, st->start, source_limit(st->out), source_wish(st->out));
}

static int pass_upstream(Stage *st)
{
    uint64_t seq;
    st->left = source_left(st->out);
    if (source_restarted(st->out, &st->start))
        return begin_anew(st);
    while (source_acked(st->out, &seq)) {
        if (!st->hub || hub_acked(st->hub, seq))
            sink_ack(st->in, seq);
    }
    sink_limit(st->in, source_limit(st->out));
    sink_flush(st->in);
    return 0;
}

int stage_wait(Stage *st, int fd, int timeout_ms)
{
    int rc = wait_all(st->full ? NULL : st->in, st->out, st->hub, fd, timeout_ms);
    return st->out && pass_upstream(st) ? -1 : rc;
}

int stage_end(Stage *st, uint64_t seq)
{
    if (!st->out)
        return 0;
    if (source_end(st->out, seq))
        return -1;
    st->full = true;
    while (!st->left && !st->restarted)
        if (stage_wait(st, -1, -1) < 0)
            return -1;
    return st->restarted;
}

void stage_fail(Stage *st, const char *program)
{
    char reason[512];
    if (!st->out)
        return;
    if (err_code() == ERR_STOP)
        snprintf(reason, sizeof reason, "%s " SOURCE_STOPPED, program);
    else
        snprintf(reason, sizeof reason, "%s gave up: %s", program, err_text());
    source_fail(st->out, reason);
}

void stage_close(Stage *st)
{
    hub_close(&st->hub);
    sink_close(&st->in);
    source_close(&st->out);
}

int stream_status(void)
{
    if (err_code() == ERR_STOP && stop_status())
        return stop_status();
    return err_code() == ERR_USAGE ? 2 : 1;
}
