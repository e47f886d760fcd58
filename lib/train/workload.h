/* What a training takes, in flops and bytes, counted by taking one step of it on a device that computes
 * nothing (tensor/dry.h): the real student and the real teacher at the real size. */
#ifndef HSSL_WORKLOAD_H
#define HSSL_WORKLOAD_H

#include "ssl/config.h"

/* Bytes on the device of one rank. */
typedef struct {
    double weights; /* the student's parameters, in fp32 */
    double gradients, moments;
    double step;    /* activations of the student, and their gradients */
    double teacher; /* the teacher's parameters and centres */
    double teacher_step;
    double targets, views;
    double all;
} WorkloadMemory;

typedef struct {
    double batch; /* images a step of one rank */
    double parameters;
    /* flops an image */
    double forward, backward; /* of the student */
    double teacher;
    double covered; /* part of backward beside which gradients are already being added up over ranks */
    /* bytes */
    double view_pixels, view_bytes; /* an image's, 8 bits a sample */
    double weight_bytes;            /* to the teacher, each step; gradients over ranks are as many */
    double target_bytes;            /* from the teacher, an image */
    double plan_bytes;              /* of the crop plan, an image */
    WorkloadMemory memory;
} Workload;

/* c->device: "cpu", or a GPU's name with its precision, which needn't be there; c->batch_size: of all ranks
 * together, a multiple of their number. 0, or -1. */
int workload_count(const TrainConfig *c, int64_t ranks, Workload *out);

#endif
