/* A run: its settings, checkpoints and log; the tensors of one checkpoint. */
#include "show.h"
#include "store/run.h"
#include "store/claim.h"
#include "util/err.h"
#include "util/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int print_line(int64_t number, const char *line, void *arg)
{
    (void)number;
    fputs(arg, stdout);
    text_put_json(stdout, line);
    return putchar('\n') == EOF || ferror(stdout) ? err_system("standard output") : 0;
}

static int line_json(int64_t number, const char *line, void *arg)
{
    (void)number;
    json_object_array_add(arg, parsed_json(line));
    return 0;
}

/* Adds one checkpoint to the output: as JSON to list, or as a line. */
static int show_checkpoint(Run *run, uint64_t step, json_object *list, const Wanted *w)
{
    Checkpoint *cp = run_checkpoint(run, (int64_t)step);
    int rc = 0;
    if (!cp)
        return err_code() == ERR_ABSENT ? 0 : -1; /* a trainer dropped it just now */
    if (w->verify)
        rc = checkpoint_verify(cp);
    size_t tensors = checkpoint_count(cp);
    uint64_t bytes = checkpoint_bytes(cp);
    if (list) {
        json_object *j = json_object_new_object();
        json_object_object_add(j, "step", number_json(step));
        json_object_object_add(j, "tensors", number_json(tensors));
        json_object_object_add(j, "bytes", number_json(bytes));
        json_object_object_add(j, "meta", parsed_json(checkpoint_meta(cp)));
        json_object_array_add(list, j);
    }
    checkpoint_close(cp); /* before anything is printed: a snapshot that waits for a reader makes the run grow */
    if (!list)
        printf("  checkpoint of step %" PRIu64 ": %zu tensors, %s\n", step, tensors, nice_bytes(bytes));
    return rc;
}

static int list_tensors(Run *run, const Wanted *w)
{
    Checkpoint *cp = run_checkpoint(run, w->step);
    if (!cp)
        return -1;
    uint64_t step = checkpoint_step(cp);
    char *text = NULL;
    size_t size;
    json_object *list = json_object_new_array();
    FILE *lines = open_memstream(&text, &size); /* written once the checkpoint is closed */
    int rc = w->verify ? checkpoint_verify(cp) : 0;
    if (!rc && !lines)
        rc = err_set(ERR_MEMORY, "out of memory");
    if (!rc)
        rc = w->json ? checkpoint_each(cp, tensor_json, list) : checkpoint_each(cp, print_tensor, lines);
    checkpoint_close(cp);
    if (lines && fclose(lines) && !rc)
        rc = err_set(ERR_MEMORY, "out of memory");
    if (!rc && w->json)
        print_json(json_object_get(list));
    else if (!rc)
        printf("%s: step %" PRIu64 "\n%s", safe_text(run_path(run)), step, text);
    json_object_put(list);
    free(text);
    return rc;
}

static void print_config(const char *text)
{
    json_object *config = json_tokener_parse(text);
    if (!config || !json_object_is_type(config, json_type_object)) {
        printf("  config: %s\n", safe_text(text));
    } else {
        json_object_object_foreach(config, key, value)
            printf("  %-28s %s\n", safe_text(key),
                   safe_text(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN)));
    }
    json_object_put(config);
}

/* ---------------------------------------------------------------- the run as a whole */

/* Where the teacher of a training in progress publishes. What a killed trainer left there leads nowhere. */
static char *live_teacher(Run *run)
{
    char *ticket = claim_held(run_path(run)) ? run_get(run, "teacher_ticket") : NULL;
    if (!ticket || *ticket)
        return ticket;
    free(ticket); /* one that is part of the trainer publishes nothing */
    return NULL;
}

static int run_text(Run *run, const uint64_t *steps, int64_t n, const Wanted *w)
{
    int64_t lines = run_log_count(run);
    char *ticket = live_teacher(run);
    printf("%s: run, %" PRId64 " checkpoints, %" PRId64 " lines of log\n", safe_text(run_path(run)), n, lines);
    print_config(run_config(run));
    print_provenance(run);
    if (ticket)
        printf("  live teacher: %s\n", safe_text(ticket));
    free(ticket);
    int64_t bad = count_bad(run);
    int rc = lines < 0 || bad < 0 || print_warnings(run);
    for (int64_t i = 0; i < n && !rc; i++)
        rc = show_checkpoint(run, steps[i], NULL, w);
    if (bad > 0)
        printf("  %" PRId64 " bad image%s: --bad lists them\n", bad, bad == 1 ? "" : "s");
    if (!rc && w->lines && lines > 0) {
        printf("  last lines of the log:\n");
        rc = run_log_each(run, -w->lines, print_line, (void *)"    ");
    }
    return rc;
}

static int run_json(Run *run, const uint64_t *steps, int64_t n, const Wanted *w)
{
    json_object *j = json_object_new_object(), *list = json_object_new_array(),
                *log = json_object_new_array(), *warnings = json_object_new_array();
    int64_t lines = run_log_count(run);
    char *ticket = live_teacher(run);
    int64_t bad = count_bad(run);
    int rc = lines < 0 || bad < 0;
    json_object_object_add(j, "file", text_json(run_path(run)));
    json_object_object_add(j, "kind", text_json("run"));
    json_object_object_add(j, "config", parsed_json(run_config(run)));
    json_object *provenance = provenance_json(run);
    if (provenance)
        json_object_object_add(j, "provenance", provenance);
    json_object_object_add(j, "log_lines", json_object_new_int64(lines));
    for (int64_t i = 0; i < n && !rc; i++)
        rc = show_checkpoint(run, steps[i], list, w);
    if (!rc && w->lines)
        rc = run_log_each(run, -w->lines, line_json, log);
    json_object_object_add(j, "checkpoints", list);
    json_object_object_add(j, "log", log);
    json_object_object_add(j, "bad", json_object_new_int64(bad));
    if (!rc)
        rc = warnings_json(run, warnings);
    json_object_object_add(j, "warnings", warnings);
    if (ticket)
        json_object_object_add(j, "teacher_ticket", text_json(ticket));
    if (w->verify)
        json_object_object_add(j, "verified", json_object_new_boolean(!rc));
    free(ticket);
    print_json(j);
    return rc;
}

int show_run(const char *path, const Wanted *w)
{
    uint64_t *steps = NULL;
    Run *run = run_open(path, false);
    if (!run)
        return -1;
    int rc = 0;
    if (w->log) {
        rc = run_log_each(run, w->lines_given ? -w->lines : 0, print_line, (void *)"");
    } else if (w->curve) {
        rc = show_curve(run);
    } else if (w->command) {
        rc = show_command(run, w);
    } else if (w->bad) {
        rc = list_bad(run, w);
    } else if (w->list) {
        rc = list_tensors(run, w);
    } else {
        int64_t n = run_steps(run, &steps);
        rc = n < 0 || (w->verify && verify_bad(run, w)) ? -1 : 0;
        rc = rc ? rc : w->json ? run_json(run, steps, n, w) : run_text(run, steps, n, w);
        free(steps);
    }
    return run_close(run) || rc ? -1 : 0;
}
