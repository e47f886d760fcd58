/* How hssl-plan prints: a table for people, JSON for machines. */
#include "plan.h"

#include "util/err.h"
#include "util/text.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- text */

static const char *bytes(double n)
{
    static char text[8][32];
    static int i;
    i = (i + 1) % 8;
    return text_bytes(n, text[i], sizeof text[i]);
}

static const char *flops(double n)
{
    static char text[8][32];
    static int i;
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E"};
    int u = 0;
    for (; n >= 1000 && u < 6; u++)
        n /= 1000;
    i = (i + 1) % 8;
    snprintf(text[i], sizeof text[i], "%.3g %sFLOP", n, units[u]);
    return text[i];
}

static void print_training(const Plan *p)
{
    const TrainConfig *c = &p->config;
    const Forecast *f = &p->forecast;
    char head[64] = "", locals[64] = "", ranks[64] = "";
    if (strcmp(c->aux, "none"))
        snprintf(head, sizeof head, " + %s of %lld", c->aux, (long long)c->aux_depth);
    if (c->local_crops)
        snprintf(locals, sizeof locals, " + %lld x %lld", (long long)c->local_crops,
                 (long long)c->local_size);
    if (p->run.ranks > 1)
        snprintf(ranks, sizeof ranks, ", on %.0f ranks of %.0f", p->run.ranks, p->work.batch);
    printf("%s, %s/%lld%s, K %lld, %.3g M parameters, views 2 x %lld%s\n", c->method, c->arch,
           (long long)c->patch_size, head, (long long)c->out_dim, p->work.parameters / 1e6,
           (long long)c->global_size, locals);
    printf("%.0f images of %s and %.3g Mpixel; %.0f epochs of %.0f steps of %lld images%s\n", p->data.images,
           bytes(p->data.record_bytes), p->data.image_pixels / 1e6, p->run.epochs, f->steps / p->run.epochs,
           (long long)c->batch_size, ranks);
}

static void print_machine(const Plan *p)
{
    const Machine *m = &p->machine;
    const Forecast *f = &p->forecast;
    printf("%s%s%.0f host%s of %.4g processors and %s", *m->name ? m->name : "a machine", ": ", f->hosts,
           f->hosts > 1 ? "s" : "", m->cores, bytes(m->memory));
    if (m->gpu)
        printf(", %.4g GPUs", m->devices);
    if (p->measured)
        printf("; measured in %.0f s", p->took);
    printf("\n%s/s in a step", flops(m->student));
    if (*m->of)
        printf(" (%s)", m->of);
    if (m->peak > 0)
        printf(", %.0f %% of a large product's", 100 * m->student / m->peak);
    printf("\n");
}

static void print_row(const Plan *p, const char *name, ForecastStage s)
{
    const StageForecast *st = &p->forecast.stage[s];
    double train = s == STAGE_TRAIN ? st->seconds / p->work.batch : st->seconds, hours = 0;
    if (st->rate <= 0)
        return;
    hours = p->forecast.steps * p->work.batch / st->rate / 3600;
    printf("%-20s %10.4g %12.4g %9.1f %11.4g%s\n", name, st->rate, 1e3 * train,
           100 * p->forecast.rank_rate / st->rate, hours, s == p->forecast.bound ? "  <- bounds it" : "");
}

static void print_stages(const Plan *p)
{
    const Forecast *f = &p->forecast;
    char workers[32];
    double jobs = p->run.jobs > 0 ? p->run.jobs : f->rank_cores;
    snprintf(workers, sizeof workers, "  %.0f worker%s", jobs, jobs > 1 ? "s" : "");
    printf("\n%-20s %10s %12s %9s %11s\n", p->run.ranks > 1 ? "STAGE OF A RANK" : "STAGE", "IMAGES/S",
           "MS AN IMAGE", "BUSY%", "HOURS ALONE");
    print_row(p, "hssl-load", STAGE_LOAD);
    print_row(p, "hssl-multicrop", STAGE_MULTICROP);
    print_row(p, "hssl-augment", STAGE_AUGMENT);
    print_row(p, workers, STAGE_WORKERS);
    print_row(p, "upload", STAGE_UPLOAD);
    print_row(p, "hssl-train", STAGE_TRAIN);
    print_row(p, "all on processors", STAGE_PROCESSORS);
    printf("a step, %.4g ms: student %.4g, teacher %.4g, update %.4g", 1e3 * f->step_s, 1e3 * f->student_s,
           1e3 * f->teacher_s, 1e3 * f->update_s);
    if (p->run.ranks > 1)
        printf(", sums over ranks %.4g of which %.4g are hidden", 1e3 * f->allreduce_s, 1e3 * f->hidden_s);
    printf("\n");
}

static void print_costs(const Plan *p)
{
    const Workload *w = &p->work;
    const WorkloadMemory *m = &w->memory;
    const Forecast *f = &p->forecast;
    printf("\nflops      an image: student %s forward, %s backward, teacher %s; %s/s", flops(w->forward),
           flops(w->backward), flops(w->teacher), flops(f->flops_rate));
    if (p->machine.peak > 0 && f->flops_rate > p->machine.peak)
        printf(", more than the peak that was measured: the machine was busy then, measure again");
    else if (p->machine.peak > 0)
        printf(", %.0f %% of the peak", 100 * f->flops_rate / p->machine.peak);
    printf("\nbytes      an image: record %s, views %s, targets %s; a step: weights %s to the teacher\n",
           bytes(p->data.record_bytes), bytes(w->view_bytes), bytes(w->target_bytes), bytes(w->weight_bytes));
    printf("           a second: records %s, views %s, targets %s, weights %s", bytes(f->records_hop),
           bytes(f->views_hop), bytes(f->targets_hop), bytes(f->weights_hop));
    if (p->run.ranks > 1)
        printf(", gradients %s", bytes(f->gradients_hop));
    printf("\nmemory     weights %s, gradients %s, moments %s, activations %s;\n", bytes(m->weights),
           bytes(m->gradients), bytes(m->moments), bytes(m->step));
    printf("           teacher %s and %s, targets %s, views %s\n", bytes(m->teacher), bytes(m->teacher_step),
           bytes(m->targets), bytes(m->views));
    if (p->machine.gpu && f->device_have > 0)
        printf("           %s of %s of a GPU, ", bytes(f->device_need), bytes(f->device_have));
    else if (p->machine.gpu)
        printf("           %s of a GPU, ", bytes(f->device_need));
    else
        printf("           ");
    printf("%s of %s of a host: %s\n", bytes(f->host_need), bytes(f->host_have),
           f->fits ? "fits" : "DOES NOT FIT");
}

int print_table(const Plan *p)
{
    const Forecast *f = &p->forecast;
    char advice[400];
    print_training(p);
    print_machine(p);
    print_stages(p);
    print_costs(p);
    forecast_advice(f, &p->run, &p->machine, advice, sizeof advice);
    printf("\n%.4g images/s, %.4g hours\n%s\n", f->rate, f->hours, advice);
    if (!f->fits)
        printf("it does not fit: a smaller --batch-size, fewer local views%s or --recompute need less\n",
               p->machine.gpu ? ", --precision bf16" : "");
    return ferror(stdout) ? err_system("standard output") : 0;
}

/* ---------------------------------------------------------------- JSON */

static void number(json_object *to, const char *key, double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", v);
    json_object_object_add(to, key, json_object_new_double_s(v, text));
}

static void text(json_object *to, const char *key, const char *v)
{
    json_object_object_add(to, key, json_object_new_string(v));
}

typedef struct {
    const char *key;
    double value;
} Field;

static void fields(json_object *to, const Field *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        number(to, f[i].key, f[i].value);
}
#define FIELDS(to, ...)                                                                                      \
    fields(to, (const Field[]){__VA_ARGS__}, sizeof((const Field[]){__VA_ARGS__}) / sizeof(Field))

static json_object *object(json_object *in, const char *key)
{
    json_object *j = json_object_new_object();
    json_object_object_add(in, key, j);
    return j;
}

static json_object *stages_json(const Plan *p)
{
    json_object *all = json_object_new_array();
    for (int i = 0; i < STAGES; i++) {
        const StageForecast *s = &p->forecast.stage[i];
        if (s->rate <= 0)
            continue;
        json_object *j = json_object_new_object();
        text(j, "stage", forecast_stage_name((ForecastStage)i));
        FIELDS(j, {"images_per_s", s->rate}, {"seconds", s->seconds},
               {"busy", p->forecast.rank_rate / s->rate},
               {"hours", p->forecast.steps * p->work.batch / s->rate / 3600});
        json_object_array_add(all, j);
    }
    return all;
}

int print_plan_json(const Plan *p)
{
    const Workload *w = &p->work;
    const Forecast *f = &p->forecast;
    const WorkloadMemory *m = &w->memory;
    char advice[400];
    json_object *j = json_object_new_object(), *part;
    forecast_advice(f, &p->run, &p->machine, advice, sizeof advice);
    FIELDS(j, {"images_per_s", f->rate}, {"hours", f->hours});
    text(j, "bound", forecast_stage_name(f->bound));
    text(j, "advice", advice);
    number(j, "workers_wanted", f->wanted);
    json_object_object_add(j, "fits", json_object_new_boolean(f->fits));
    json_object_object_add(j, "measured", json_object_new_boolean(p->measured));
    part = object(j, "training");
    text(part, "arch", p->config.arch);
    text(part, "aux", p->config.aux);
    FIELDS(part, {"images", p->data.images}, {"epochs", p->run.epochs}, {"steps", f->steps},
           {"batch_size", (double)p->config.batch_size}, {"ranks", p->run.ranks}, {"rank_batch", w->batch},
           {"hosts", f->hosts}, {"per_host", f->per_host}, {"rank_cores", f->rank_cores},
           {"parameters", w->parameters}, {"image_pixels", p->data.image_pixels},
           {"view_pixels", w->view_pixels});
    json_object_object_add(j, "stages", stages_json(p));
    FIELDS(object(j, "step"), {"step_s", f->step_s}, {"student_s", f->student_s}, {"teacher_s", f->teacher_s},
           {"update_s", f->update_s}, {"allreduce_s", f->allreduce_s}, {"hidden_s", f->hidden_s});
    FIELDS(object(j, "flops"), {"image", w->forward + w->backward + w->teacher}, {"forward", w->forward},
           {"backward", w->backward}, {"teacher", w->teacher}, {"per_s", f->flops_rate},
           {"of_peak", p->machine.peak > 0 ? f->flops_rate / p->machine.peak : 0});
    FIELDS(object(j, "bytes"), {"record", p->data.record_bytes}, {"plan", w->plan_bytes},
           {"views", w->view_bytes}, {"targets", w->target_bytes}, {"weights", w->weight_bytes},
           {"records_per_s", f->records_hop}, {"views_per_s", f->views_hop},
           {"targets_per_s", f->targets_hop}, {"weights_per_s", f->weights_hop},
           {"gradients_per_s", f->gradients_hop});
    FIELDS(object(j, "memory"), {"weights", m->weights}, {"gradients", m->gradients}, {"moments", m->moments},
           {"activations", m->step}, {"teacher", m->teacher}, {"teacher_activations", m->teacher_step},
           {"targets", m->targets}, {"views", m->views}, {"device_need", f->device_need},
           {"device_have", f->device_have}, {"host_need", f->host_need}, {"host_have", f->host_have});
    json_object *machine = machine_json(&p->machine);
    json_object_object_add(j, "machine", machine);
    bool wrote =
        machine &&
        puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) >= 0;
    json_object_put(j);
    return wrote ? 0 : machine ? err_system("standard output") : -1;
}
