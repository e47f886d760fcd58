#include "train/outlook.h"

#include "util/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double LONG_HOURS = 72, LONG_HOURS_GPU = 720, SHORT_HOURS = 24;

/* ---------------------------------------------------------------- memory */

/* The number behind key in a file, times unit; -1 where there is none. */
static double number_in(const char *path, const char *key, double unit)
{
    char line[256];
    double value = -1;
    FILE *f = fopen(path, "r");
    while (f && value < 0 && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), "%lf", &value) != 1)
            value = -1;
    if (f)
        fclose(f);
    return value < 0 ? -1 : value * unit;
}

double memory_available(void)
{
    double host = number_in("/proc/meminfo", "MemAvailable:", 1024);
    double most = number_in("/sys/fs/cgroup/memory.max", "", 1),
           used = number_in("/sys/fs/cgroup/memory.current", "", 1);
    if (most >= 0 && used >= 0 && (host < 0 || most - used < host))
        return fmax(most - used, 0);
    return fmax(host, 0);
}

/* ---------------------------------------------------------------- judging */

double outlook_hours(const Outlook *o)
{
    return o->steps * o->step_s / 3600;
}

bool outlook_swaps(const Outlook *o)
{
    return o->available > 0 && o->memory > o->available;
}

bool outlook_excessive(const Outlook *o)
{
    return outlook_swaps(o) || outlook_hours(o) > (o->gpu ? LONG_HOURS_GPU : LONG_HOURS);
}

static double image_flops(const Workload *w)
{
    return w->forward + w->backward + w->teacher;
}

int outlook_smaller(const TrainConfig *c, const Workload *w, const Outlook *o, SmallerTraining *out)
{
    static const struct {
        const char *arch;
        int64_t global_size, local_size;
    } tries[] = { { "vit_tiny", 0, 0 }, { "vit_tiny", 96, 48 }, { "vit_nano", 32, 16 } };
    *out = (SmallerTraining){ 0 };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        TrainConfig small = *c;
        Workload count;
        small.arch = tries[i].arch;
        small.dim = small.depth = small.heads = 0;
        if (tries[i].global_size) {
            small.global_size = tries[i].global_size;
            small.local_size = tries[i].local_size;
        }
        config_preset(&small, NULL);
        if (config_check(&small) || image_flops(w) <= 0)
            continue;
        if (workload_count(&small, 1, &count))
            return -1;
        double share = image_flops(&count) / image_flops(w);
        if (share > 0.7)
            continue;
        *out = (SmallerTraining){.arch = small.arch,
                                 .global_size = tries[i].global_size ? (double)small.global_size : 0,
                                 .hours = outlook_hours(o) * share,
                                 .memory = count.memory.all};
        if (out->hours <= SHORT_HOURS && !(o->available > 0 && out->memory > o->available))
            break;
    }
    return 0;
}

/* ---------------------------------------------------------------- words */

/* With a comma behind the thousands, which are rounded to tens. */
static void hours_text(double h, char *to, size_t size)
{
    int tens = h < 1e6 ? (int)(h / 10 + 0.5) : 0;
    if (h * 60 < 2)
        snprintf(to, size, "%.0f s", ceil(h * 3600));
    else if (h < 2)
        snprintf(to, size, "%.0f min", h * 60);
    else if (h < 1000)
        snprintf(to, size, h < 10 ? "%.1f h" : "%.0f h", h);
    else if (h < 999990)
        snprintf(to, size, "%d,%03d h", tens / 100, tens % 100 * 10);
    else
        snprintf(to, size, "%.2g h", h);
}

static void step_text(double s, char *to, size_t size)
{
    if (s < 1)
        snprintf(to, size, s < 0.01 ? "%.2g ms" : "%.0f ms", s * 1000);
    else
        snprintf(to, size, s < 10 ? "%.1f s" : "%.0f s", s);
}

void outlook_text(const Outlook *o, const SmallerTraining *s, char *text, size_t size)
{
    char memory[32], step[32], hours[32], on[32] = "", than[64] = "", small[128] = "";
    step_text(o->step_s, step, sizeof step);
    hours_text(outlook_hours(o), hours, sizeof hours);
    if (!o->gpu)
        snprintf(on, sizeof on, " on %d thread%s", o->threads, o->threads == 1 ? "" : "s");
    if (outlook_swaps(o))
        snprintf(than, sizeof than, ", of which %s are there", text_bytes(o->available, small, sizeof small));
    text_bytes(o->memory, memory, sizeof memory);
    *small = 0;
    if (s && s->arch) {
        char shorter[32], sizes[48] = "";
        hours_text(s->hours, shorter, sizeof shorter);
        if (s->global_size > 0)
            snprintf(sizes, sizeof sizes, " with --global-size %.0f", s->global_size);
        snprintf(small, sizeof small, "; %s%s would take about %s: see hssl-plan", s->arch, sizes, shorter);
    }
    snprintf(text, size, "about %s%s, %s a step, %s for %.*f epoch%s%s%s", memory, than, step, hours,
             o->epochs > 10 || fabs(o->epochs - round(o->epochs)) < 0.05 ? 0 : 1, o->epochs,
             fabs(o->epochs - 1) < 0.05 ? "" : "s", on, small);
}
