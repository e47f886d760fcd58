/* hssl-teach: the teacher, an exponential moving average of the student, as a process of its own. */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "stream/stage.h"
#include "train/device.h"
#include "train/teach.h"
#include "train/threads.h"
#include "util/err.h"
#include "util/log.h"
#include "util/opt.h"
#include "util/stop.h"

static struct {
    int64_t threads, every, parent;
    DeviceOptions device;
    bool graph;
} o = { .every = 10, .device = DEVICE_DEFAULT, .graph = true };

static const Opt opts[] = {
    OPT_INT("threads", 't', &o.threads, 0, 1024, "N", "work in N threads (0: as many as the trainer)"),
    DEVICE_OPTS(&o.device),
    OPT_FLAG("graph", 0, &o.graph, "on a GPU: record the work of a step and repeat it at once"),
    OPT_INT("every", 0, &o.every, 0, 1000000, "N", "publish whole logits every N steps (0: never)"),
    OPT_INT("child-of", 0, &o.parent, 0, 1 << 30, "PID", "end with process PID, which started this one"),
    OPT_END
};

static const OptProgram program = {
    "hssl-teach", "[OPTION]... > TICKET", "serve a trainer as its teacher", .opts = opts,
    .examples =
        "  hssl-teach >teacher.ticket & sleep 1\n"
        "  hssl-load photos.db | hssl-augment | hssl-train --teacher \"$(cat teacher.ticket)\" -o run.db\n"
};

/* A child leaves signals to the trainer, which finishes its step and saves with the teacher's help, and never
 * outlives it. */
static void be_child(void)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != o.parent)
        die_with("process %lld, which started this one, has gone", (long long)o.parent);
}

int main(int argc, char **argv)
{
    int operands = opt_parse(&program, argc, argv);
    if (operands)
        opt_usage("%s: unexpected operand", argv[1]);
    if (o.parent)
        be_child();
    else
        threads_settle(argv);
    if (stop_install())
        die();
    TeachServer server = { .every = o.every, .threads = (int)o.threads, .graph = o.graph };
    if (!(server.device = device_name(&o.device, "bf16")) || !(server.trainer = link_listen("teacher")))
        die();
    if (!(server.published = link_publish("targets")))
        log_warn("nobody can watch: %s", err_text());
    fputs(link_ticket(server.trainer), stdout);
    if (fflush(stdout))
        die_with("standard output: cannot write the ticket");
    if (o.parent)
        link_watch(server.trainer, STDIN_FILENO);
    int rc = teach_serve(&server);
    int status = rc ? stream_status() : 0;
    /* A child's trainer speaks for both; when it has gone, nobody asked. */
    if (rc && !stop_signal() && !(o.parent && err_code() == ERR_PEER))
        log_error("%s", err_text());
    link_close(&server.published);
    link_close(&server.trainer);
    return status;
}
