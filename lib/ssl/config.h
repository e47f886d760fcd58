/* What a training run is made of: every hyper-parameter, in the names of the options.
 *
 * Defaults are DINO's own [Caron 2021, and its released code] where HSSL doesn't say otherwise. The fields
 * are described once, as a table of options; the command line, the text in a run's file and the presets all
 * go through that table. Strings point at the library's own tables (never owned by the caller). */
#ifndef HSSL_SSL_CONFIG_H
#define HSSL_SSL_CONFIG_H

#include "util/opt.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    /* the base model */
    const char *arch;                /* see models/backbone.h */
    int64_t patch_size;              /* pixels */
    int64_t global_size, local_size; /* pixels of a global and a local view */
    int64_t local_crops;             /* local views an image; global views are 2 */
    double drop_path;                /* rate of the last block of the student */
    int64_t dim, depth, heads;       /* 0: the architecture's own */
    /* the auxiliary head */
    const char *aux; /* "none", "vit", "convnext" */
    int64_t aux_depth;
    bool aux_first_shortcut; /* keep the shortcut of the first layer */
    double hssl_weight;      /* of each of the two terms of Eq. 2; 0.5 takes their mean */
    /* projection */
    const char *share_proj; /* what base and auxiliary projection share: "none", "last", "all" */
    int64_t out_dim;        /* K */
    int64_t head_hidden, head_bottleneck;
    bool norm_last_layer; /* the lengths of the last layer's rows stay 1 */
    /* method */
    const char *method; /* "dino" */
    double student_temp, teacher_temp, warmup_teacher_temp, center_momentum;
    int64_t warmup_teacher_temp_epochs;
    double momentum_teacher; /* at step 0; 1 at the end */
    bool discrepancy;        /* the teacher also computes D, which costs it a projection of its base */
    /* optimisation */
    int64_t batch_size, epochs, warmup_epochs, freeze_last_layer;
    double lr, min_lr; /* lr for a batch of 256: what is used is lr * batch_size / 256 [Goyal 2017] */
    double weight_decay, weight_decay_end;
    double beta1, beta2, adam_eps;
    double clip_grad; /* each tensor's own norm; 0: none */
    int64_t seed;
    /* how it is computed: not stored, for a run may go on another way */
    const char *device; /* for tape_new */
    bool recompute;     /* compute the inside of layers twice, to save memory */
    bool graph;         /* a device that can repeats recorded steps (tensor/recording.h) */
    bool pack;          /* views of both sizes go through the model together where that suits the device */
} TrainConfig;

/* The defaults. */
void config_init(TrainConfig *c);

/* The table of options that points into c. Returns how many entries out got (no OPT_END); max at least
 * CONFIG_OPTIONS. Their values are the defaults the moment they are printed. */
#define CONFIG_OPTIONS 48
int config_options(TrainConfig *c, Opt *out, int max);

/* Settings that suit a size of model, for every option of opts (ended by OPT_END) that was given neither on
 * the command line nor in the environment. opts NULL: all of them. Architectures without such settings
 * keep the defaults. */
void config_preset(TrainConfig *c, const Opt *opts);

/* Check what single ranges can't: sizes are multiples of the patch, names exist. 0, or -1 with ERR_USAGE. */
int config_check(const TrainConfig *c);

/* The configuration as one JSON object (malloc'd), and back. Reading starts from the defaults, refuses
 * unknown keys and values out of range (ERR_DATA), and ends with config_check. */
char *config_to_json(const TrainConfig *c);
int config_from_json(TrainConfig *c, const char *json);

/* What the schedules (nn/schedule.h) say at a step: pure functions of the configuration and the step. Learning rate,
 * weight decay and momentum change with every step, the teacher's temperature with every epoch. */
typedef struct {
    int64_t step; /* from 0 */
    int64_t epoch;
    double lr, weight_decay, momentum, teacher_temp;
    bool freeze_last; /* the last layers of the projection heads get no update */
} StepRates;
void config_rates(const TrainConfig *c, int64_t steps_per_epoch, int64_t step, StepRates *out);

#endif
