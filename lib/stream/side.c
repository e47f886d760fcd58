#include "stream/side.h"

#include "stream/gauges.h"
#include "stream/link.h"
#include "util/err.h"
#include "util/log.h"

#include <stdlib.h>
#include <string.h>

/* Seconds between looks whether somebody watches. */
static const double LOOK = 0.02;

struct Side {
    Link *link;
    double looked;
    bool watched;
    uint64_t welcomed; /* watchers, so far */
};

Side *side_open(void)
{
    Ticket t;
    Side *s = calloc(1, sizeof *s);
    const char *line = s && (s->link = link_publish("tap")) ? link_ticket(s->link) : "";
    if (*line && !ticket_parse(line, strlen(line), &t)) {
        gauges_name(GAUGE_TAP, t.endpoint);
        return s;
    }
    log_debug("stream", "no side channel: %s", err_text());
    err_clear();
    side_close(&s);
    return NULL;
}

/* Loses the copy where it fails: the stream matters more. */
static void publish(Side *s, const Message *m)
{
    Message copy;
    if (message_copy(&copy, m) || message_make_inline(&copy) || link_send(s->link, &copy)) {
        message_clear(&copy);
        err_clear();
    }
}

void side_show(Side *s, const Message *m, const Message *welcome)
{
    double now = log_seconds();
    if (!s)
        return;
    if (now - s->looked >= LOOK || m->type != MSG_DATA) {
        uint64_t arrivals = link_arrivals(s->link);
        s->looked = now;
        s->watched = link_listeners(s->link) > 0;
        if (s->watched && arrivals != s->welcomed)
            publish(s, welcome);
        s->welcomed = arrivals;
    }
    if (s->watched)
        publish(s, m);
}

void side_close(Side **side)
{
    if (*side && (*side)->link)
        link_close(&(*side)->link);
    free(*side);
    *side = NULL;
}
