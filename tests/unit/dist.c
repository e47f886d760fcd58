/* The ranks of a training: where they are, how they meet, what becomes of them when one ends. */
#include "../tap.h"

#include "dist/address.h"
#include "dist/channel.h"
#include "dist/group.h"
#include "dist/muster.h"
#include "util/err.h"
#include "util/log.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const variables[] = { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                                         "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_RANK", "PMI_SIZE", "RANK", "WORLD_SIZE",
                                         "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS",
                                         "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_ID", "SLURM_JOB_ID",
                                         "SLURM_JOB_NODELIST", "SLURM_STEP_NODELIST", "MASTER_ADDR", "MASTER_PORT", "HSSL_MUSTER",
                                         "TORCHELASTIC_RUN_ID", "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
                                         "SLURM_STEP_NUM_NODES", "HSSL_SECRET", "HSSL_SECRET_FILE" };

/* "NAME=VALUE NAME=VALUE": these alone. */
static void environment(const char *pairs)
{
    char copy[512], *rest = copy, *one;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    snprintf(copy, sizeof copy, "%s", pairs);
    while ((one = strsep(&rest, " ")))
        if (strchr(one, '=')) {
            *strchr(one, '=') = 0;
            setenv(one, one + strlen(one) + 1, 1);
        }
}

static void test_place(void)
{
    static const struct {
        const char *text, *by;
        int rank, world, local;
    } cases[] = {
        { "", "", 0, 1, 0 },
        { "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1", "torchrun", 3, 8, 1 },
        { "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0", "mpirun", 1, 2, 0 },
        { "PMI_RANK=5 PMI_SIZE=6 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2", "mpirun", 5, 6, 1 },
        { "PMI_RANK=1 PMI_SIZE=2 SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_ID=0", "slurm", 1, 2, 0 },
        { "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=1 SLURM_NTASKS_PER_NODE=8 SLURM_STEP_ID=0", "slurm", 1, 2, 1 },
        { "SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_LOCALID=0 SLURM_STEP_ID=0", "slurm", 2, 4, 0 },
        { "SLURM_PROCID=0 SLURM_NTASKS=4", "", 0, 1, 0 }, /* a batch script's shell */
        { "RANK=0 WORLD_SIZE=1", "", 0, 1, 0 },
        { "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_STEP_ID=1", "mpirun", 1, 2, 1 },
    };
    Place p;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        environment(cases[i].text);
        ok(!place_find(&p) && p.rank == cases[i].rank && p.world == cases[i].world && p.local == cases[i].local &&
               !strcmp(p.by, cases[i].by),
           "place of '%s'", cases[i].text);
    }
    static const struct {
        const char *text;
        bool spread;
    } hosts[] = {
        { "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1", false },
        { "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=8", false },
        { "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2", true },
        { "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=8 SLURM_STEP_ID=0", false },
        { "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=8 SLURM_STEP_ID=0 SLURM_STEP_NUM_NODES=2", true },
    };
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        environment(hosts[i].text);
        ok(!place_find(&p) && p.spread == hosts[i].spread, "%s by '%s'", hosts[i].spread ? "several hosts" : "one host",
           hosts[i].text);
    }
    environment("RANK=8 WORLD_SIZE=8");
    ok(place_find(&p) < 0 && strstr(err_text(), "RANK=8"), "a rank out of range: %s", err_text());
    environment("RANK=x WORLD_SIZE=8");
    ok(place_find(&p) < 0 && strstr(err_text(), "RANK=x"), "no number: %s", err_text());

    static const char *const meet[][2] = {
        { "HSSL_MUSTER=here:77", "here:77" },
        { "MASTER_ADDR=10.0.0.1 MASTER_PORT=29500", "10.0.0.1:29501" },
        { "SLURM_JOB_NODELIST=node[03-07,9],x SLURM_JOB_ID=41", "node03:20041" },
        { "SLURM_JOB_NODELIST=alpha,beta SLURM_JOB_ID=20001", "alpha:20001" },
        { "SLURM_JOB_NODELIST=n[7] SLURM_JOB_ID=1", "n7:20001" },
        { "SLURM_JOB_NODELIST=a,b SLURM_STEP_NODELIST=b SLURM_JOB_ID=1", "b:20001" },
    };
    char address[256], token[128];
    p = (Place){ .world = 2 };
    for (size_t i = 0; i < sizeof meet / sizeof *meet; i++) {
        environment(meet[i][0]);
        ok(!place_meeting(&p, address, sizeof address, token, sizeof token) && !strcmp(address, meet[i][1]), "they meet at %s",
           address);
    }
    environment("");
    ok(place_meeting(&p, address, sizeof address, token, sizeof token) < 0 && strstr(err_text(), "HSSL_MUSTER"),
       "or are told what to set");
}

/* ---------------------------------------------------------------- musters of processes */

enum { SHARED = 3 << 20 };

/* What the processes tell the test. */
typedef struct {
    atomic_int joined, shared, told, late;
    char text[4][512];
} Board;
static Board *board;
static int my_rank;
static atomic_int heard;

static void on_end(void *arg, MusterEnd how, const char *text)
{
    (void)arg;
    snprintf(board->text[my_rank], sizeof board->text[my_rank], "%s%s", how == MUSTER_STOPPED ? "stopped: " : "", text);
    atomic_fetch_add(&board->told, 1);
    heard = 1;
}

static void on_late(void *arg)
{
    (void)arg;
    atomic_fetch_add(&board->late, 1);
}

enum { PATIENCE_MS = TAP_PATIENCE_S * 1000 };
static const unsigned char job_key[CHANNEL_KEY] = "the key of this job";

static MusterConfig config(int rank, int world)
{
    my_rank = rank;
    return (MusterConfig){ .rank = rank, .world = world, .key = job_key, .patience_ms = PATIENCE_MS,
                           .ended = on_end, .late = on_late };
}

static bool wait_for(atomic_int *x, int value)
{
    for (int i = 0; i < PATIENCE_MS / 5 && *x < value; i++)
        usleep(5000);
    return *x >= value;
}

typedef enum { ORDERLY, KILLED, FAILS, STOPS } Fate;

/* A rank: meets, gets rank 0's bytes, and ends as its fate says. */
static int rank_main(int rank, int world, int listening, const char *address, Fate fate)
{
    MusterConfig c = config(rank, world);
    Muster *m = muster_open(&c, listening, address);
    if (!m)
        return 9;
    char *bytes = malloc(SHARED);
    for (int i = 0; bytes && i < SHARED; i++)
        bytes[i] = rank ? 0 : (char)(i * 7 + i / 1000);
    if (rank)
        usleep(50000);
    int rc = muster_share(m, bytes, SHARED);
    for (int i = 0; !rc && i < SHARED; i++)
        rc = bytes[i] != (char)(i * 7 + i / 1000);
    free(bytes);
    if (!rc)
        atomic_fetch_add(&board->shared, 1);
    atomic_fetch_add(&board->joined, 1);
    if (fate == KILLED)
        pause();
    if (fate == FAILS)
        muster_end(m, "its disk is full");
    if (fate == STOPS)
        muster_end(m, NULL);
    if (fate == ORDERLY && board->late >= 0) /* below 0: nobody ends */
        for (int i = 0; i < PATIENCE_MS / 5 && !heard; i++)
            usleep(5000);
    muster_close(&m);
    return rc ? 8 : heard;
}

static const char *meeting = "127.0.0.1:0";

static void start(pid_t *pids, int world, int ends, Fate fate)
{
    char address[256];
    memset(board, 0, sizeof *board);
    board->late = fate == ORDERLY ? -1 : 0;
    int listening = address_listen(meeting, false, address, sizeof address);
    fflush(stdout);
    for (int r = 0; r < world; r++)
        if (!(pids[r] = fork())) {
            if (r)
                close(listening);
            _exit(rank_main(r, world, r ? -1 : listening, address, r == ends ? fate : ORDERLY));
        }
    close(listening);
}

static int status_of(pid_t pid)
{
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_muster(void)
{
    pid_t pids[4];
    char here[64];
    start(pids, 3, -1, ORDERLY);
    bool fine = true;
    for (int i = 0; i < 3; i++)
        fine = status_of(pids[i]) == 0 && fine;
    ok(fine && board->shared == 3 && !board->told, "three ranks meet, share, and part in order");

    snprintf(here, sizeof here, "@hssl-test-%d", (int)getpid());
    meeting = here;
    start(pids, 3, -1, ORDERLY);
    for (int i = 0; i < 3; i++)
        fine = status_of(pids[i]) == 0 && fine;
    ok(fine && board->shared == 3 && !board->told, "they do so by a name of this host, too");
    meeting = "127.0.0.1:0";

    start(pids, 4, 2, KILLED);
    ok(wait_for(&board->joined, 4), "four ranks");
    kill(pids[2], SIGKILL);
    status_of(pids[2]);
    for (int i = 0; i < 4; i++)
        if (i != 2)
            fine = status_of(pids[i]) == 1 && fine;
    char name[64];
    snprintf(name, sizeof name, "process %d) has gone", (int)pids[2]);
    ok(fine && board->told == 3, "one is killed: the others end");
    ok(strstr(board->text[0], "rank 2 (host ") && strstr(board->text[0], name) && !strcmp(board->text[0], board->text[1]) &&
           !strcmp(board->text[0], board->text[3]),
       "and know which: %s", board->text[3]);

    start(pids, 3, 0, KILLED);
    wait_for(&board->joined, 3);
    kill(pids[0], SIGKILL);
    status_of(pids[0]);
    ok(status_of(pids[1]) == 1 && status_of(pids[2]) == 1 && !strcmp(board->text[1], "rank 0 has gone"),
       "rank 0 is killed: so do they");

    start(pids, 3, 1, FAILS);
    fine = status_of(pids[0]) == 1 && status_of(pids[2]) == 1;
    status_of(pids[1]);
    ok(fine && strstr(board->text[2], "rank 1 (") && strstr(board->text[2], ": its disk is full"), "last words: %s",
       board->text[2]);
    start(pids, 3, 0, FAILS);
    fine = status_of(pids[1]) == 1 && status_of(pids[2]) == 1;
    status_of(pids[0]);
    ok(fine && !strcmp(board->text[2], "rank 0: its disk is full"), "of rank 0: %s", board->text[2]);
    start(pids, 3, 2, STOPS);
    fine = status_of(pids[0]) == 1 && status_of(pids[1]) == 1;
    status_of(pids[2]);
    ok(fine && !strncmp(board->text[1], "stopped: rank", 13), "a signal: %s", board->text[1]);
}

static void test_alone(void)
{
    Place p;
    float x[2] = { 1, 2 };
    environment("");
    Group *g = place_find(&p) ? NULL : group_open(&p, backend_cpu(), abort);
    ok(g && group_rank(g) == 0 && group_world(g) == 1 && !group_sum(g, x, 2) && !group_settle(g) && x[1] == 2 &&
           !group_share(g, x, sizeof x) && !group_check(g),
       "a group of one");
    group_close(&g);
    ok(group_rank(NULL) == 0 && group_world(NULL) == 1 && !group_check(NULL), "none is one of one");
    environment("RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1");
    ok(!place_find(&p) && !group_open(&p, backend_cpu(), abort) && strstr(err_text(), "mpirun"), "%s", err_text());
}

int main(void)
{
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        return 1;
    test_place();
    test_muster();
    test_alone();
    return tap_done();
}
