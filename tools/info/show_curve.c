/* How a run learns: its log as charts, and the warnings in it. */
#include "show.h"
#include "train/journal.h"
#include "util/chart.h"
#include "util/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEIGHT = 6, HIGHER = 10, MOST_COLUMNS = 120 };

typedef struct {
    JournalPoint *items;
    int64_t n;
} Points;

static void draw(const Chart *as, const Points *p, int which, const char *what, const char *unit)
{
    double *x = malloc((size_t)(p->n + 1) * sizeof *x), *y = malloc((size_t)(p->n + 1) * sizeof *y),
           last = NAN;
    char title[160];
    Chart c = *as;
    for (int64_t i = 0; x && y && i < p->n; i++) {
        x[i] = (double)p->items[i].step;
        y[i] = p->items[i].figure[which];
        last = isfinite(y[i]) ? y[i] : last;
    }
    if (x && y && isfinite(last)) {
        snprintf(title, sizeof title, "%s, now %.4g%s", what, last, unit);
        c.title = title;
        c.x = x;
        c.y = y;
        c.n = p->n;
        chart_draw(&c, stdout);
    }
    free(x);
    free(y);
}

static void draw_all(const Points *steps, const Points *health, double from, double to)
{
    int columns = chart_columns();
    double ln_k = health->n ? health->items[health->n - 1].figure[3] : NAN;
    char level[64] = "";
    Chart c = {.from = from,
               .to = to,
               .width = columns > MOST_COLUMNS ? MOST_COLUMNS : columns,
               .height = HIGHER,
               .line = ln_k,
               .utf8 = chart_utf8()};
    if (isfinite(ln_k))
        snprintf(level, sizeof level, " (line: ln K, %.4g)", ln_k);
    draw(&c, steps, 0, "loss", level);
    c.height = HEIGHT;
    draw(&c, health, 0, "entropy of the targets", level);
    draw(&c, health, 1, "entropy of the mean target", level);
    c.line = NAN;
    draw(&c, health, 2, "rank of the features", "");
    draw(&c, steps, 1, "learning rate", "");
}

int show_curve(Run *run)
{
    static const char *const of_steps[JOURNAL_FIGURES] = { "loss", "lr" };
    static const char *const of_health[JOURNAL_FIGURES] = { "entropy", "mean_entropy", "rank", "ln_k" };
    Points steps, health = { 0 };
    steps.n = journal_points(run, "step", of_steps, &steps.items);
    if (steps.n >= 0)
        health.n = journal_points(run, "health", of_health, &health.items);
    int rc = steps.n < 0 || health.n < 0 ? -1 : 0;
    printf("%s", rc ? "" : safe_text(run_path(run)));
    if (!rc && !steps.n && !health.n) {
        puts(": no step in its log yet");
    } else if (!rc) {
        double from = steps.n ? (double)steps.items[0].step : 0, to = from;
        if (steps.n)
            to = (double)steps.items[steps.n - 1].step;
        if (health.n)
            to = fmax(to, (double)health.items[health.n - 1].step);
        printf(", step %.0f to %.0f\n", from, to);
        draw_all(&steps, &health, from, to);
        if (!health.n)
            puts("entropy and rank: none in its log yet");
        rc = print_warnings(run);
    }
    free(steps.items);
    free(health.items);
    return rc;
}

int print_warnings(Run *run)
{
    JournalWarning w[JOURNAL_WARNINGS];
    int n = journal_warnings(run, w);
    for (int i = 0; i < n; i++) {
        printf("  warning since step %" PRId64 ", epoch %" PRId64 ": %s; ", w[i].step, w[i].epoch + 1,
               safe_text(w[i].text));
        printf("%s\n", safe_text(w[i].remedy));
    }
    return n < 0 ? -1 : 0;
}

int warnings_json(Run *run, json_object *list)
{
    JournalWarning w[JOURNAL_WARNINGS];
    int n = journal_warnings(run, w);
    for (int i = 0; i < n; i++) {
        json_object *j = json_object_new_object();
        json_object_object_add(j, "step", json_object_new_int64(w[i].step));
        json_object_object_add(j, "epoch", json_object_new_int64(w[i].epoch));
        json_object_object_add(j, "what", text_json(w[i].what));
        json_object_object_add(j, "text", text_json(w[i].text));
        json_object_object_add(j, "remedy", text_json(w[i].remedy));
        json_object_array_add(list, j);
    }
    return n < 0 ? -1 : 0;
}
