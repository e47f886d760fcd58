#include "train/alarms.h"

#include <math.h>
#include <string.h>

/* Windows in a row. */
enum { STREAK = 3, LONG_STREAK = 5 };

static const struct {
    const char *name, *says, *remedy;
} words[ALARM_KINDS] = {
    {"uniform", "the targets have collapsed: they are uniform, whatever the image",
     "lower --lr or lengthen --warmup-epochs; a lower --teacher-temp, or a --center-momentum nearer to 0"},
    {"one-sided", "the targets have collapsed: all mass is on a few prototypes, whatever the image",
     "leave centring on (--center-momentum below 1); a higher --teacher-temp, a lower --lr"},
    {"rank", "the features have collapsed: they take a few directions only",
     "lower --lr or lengthen --warmup-epochs"},
    {"loss", "the loss has risen above that of an untrained student",
     "lower --lr, lengthen --warmup-epochs, or lower --clip-grad"},
    {"starved", "the trainer waits for views most of the time",
     "add workers (hssl-augment with a larger -j, or --join on another host); hssl-top says what limits it"},
};

const char *alarm_name(AlarmKind k)
{
    return words[k].name;
}

const char *alarm_says(AlarmKind k)
{
    return words[k].says;
}

const char *alarm_remedy(AlarmKind k)
{
    return words[k].remedy;
}

void alarms_init(Alarms *a, const TrainConfig *c, int64_t steps_per_epoch)
{
    *a = (Alarms){
        .ln_k = log((double)c->out_dim), .warmup = c->warmup_epochs * steps_per_epoch, .least = INFINITY};
    a->weight = strcmp(c->aux, "none") && c->hssl_weight > 0 ? 2 * c->hssl_weight : 1; /* of two terms */
    for (int i = 0; i < ALARM_KINDS; i++)
        a->of[i].since = -1;
    /* Logits of an untrained student: cosines of random directions over its temperature, with this variance,
     * half of which is what the logarithm of the sum over their exponentials has more than ln K. */
    double variance = 1 / ((double)c->head_bottleneck * c->student_temp * c->student_temp);
    a->untrained = a->ln_k + variance / 2;
}

void alarms_go_on(Alarms *a, const char *name, int64_t since)
{
    for (int i = 0; i < ALARM_KINDS; i++)
        if (!strcmp(words[i].name, name))
            a->of[i].since = since;
}

/* One more window that calls for this warning, or against it. */
static unsigned count(Alarms *a, AlarmKind k, bool calls, int streak, int64_t step)
{
    bool on = alarm_is_on(a, k);
    a->of[k].streak = calls != on ? a->of[k].streak + 1 : 0;
    if (a->of[k].streak < streak)
        return 0;
    a->of[k].since = on ? -1 : step;
    a->of[k].streak = 0;
    return 1u << k;
}

unsigned alarms_judge(Alarms *a, int64_t step, const HealthFigures *f)
{
    double k = a->ln_k, lacks = 1 - f->entropy / k, loss = f->loss / a->weight;
    bool warm = step > a->warmup, pinned = loss > 0.98 * k;
    /* Targets begin all but uniform where K is large, and leave that slowly while the learning rate rises:
     * then only those count that are so to the last digits. */
    bool uniform = pinned && lacks < (warm ? 0.005 : 1e-4);
    bool one_sided = f->mean_entropy < 0.05 * k && loss < 0.05 * k;
    bool flat = f->rank < (warm && f->dim >= 128 ? 4 : 1.5);
    bool worse = loss > a->untrained && loss > a->least + 0.03 * k;
    a->least = fmin(a->least, loss);
    a->uniform = pinned && lacks < 0.005 ? a->uniform + 1 : 0;
    return count(a, ALARM_UNIFORM, uniform, LONG_STREAK, step) |
           count(a, ALARM_ONE_SIDED, one_sided, STREAK, step) |
           count(a, ALARM_RANK, flat, LONG_STREAK, step) |
           count(a, ALARM_LOSS, worse, loss > 1.5 * a->untrained ? STREAK - 1 : STREAK, step);
}

unsigned alarms_waits(Alarms *a, int64_t step, double seconds, double waited)
{
    return count(a, ALARM_STARVED, waited > 0.5 * seconds, STREAK - 1, step);
}

unsigned alarms_end(Alarms *a, int64_t step)
{
    if (alarm_is_on(a, ALARM_UNIFORM) || a->uniform < LONG_STREAK)
        return 0;
    a->of[ALARM_UNIFORM].since = step;
    return 1u << ALARM_UNIFORM;
}
