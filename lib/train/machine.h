/* A machine as a forecast sees it: what it does a second. Measured here, or read from a file that says it of
 * a machine that is not at hand. */
#ifndef HSSL_MACHINE_H
#define HSSL_MACHINE_H

#include <stdbool.h>

typedef struct {
    char name[80];
    char of[128]; /* what `student` and `teacher` were measured with; "" where that isn't said */
    /* a host */
    double cores;   /* processors */
    double memory;  /* bytes */
    double devices; /* that train, and so ranks: GPUs, or 1 where the processors do */
    /* one processor */
    double decode;  /* pixels a second of a compressed image */
    double render;  /* pixels a second of views */
    double copy;    /* bytes a second from one program to another, both ends' work */
    double message; /* seconds a program spends on a record beside its bytes */
    /* a device */
    bool gpu;                /* else the processors */
    double device_memory;    /* bytes; of processors that of the host; 0: unknown */
    double peak;             /* flops a second of large products */
    double student, teacher; /* flops a second in steps: with gradients, and without */
    double update;           /* bytes a second while weights are updated */
    double overhead;         /* seconds a step has beside all that grows with the batch */
    double busy;             /* processors that a step holds, the teacher included */
    double upload;           /* bytes a second of views on their way to a GPU; 0: nothing to send */
    /* between devices */
    double link, network; /* bytes a second of one device: within a host, between hosts */
    double latency;       /* seconds of one message between devices */
    double overlap;       /* share of the way back that sums over ranks can hide behind */
} Machine;

/* Values that are seldom known and matter little; all others are 0. */
void machine_init(Machine *m);
/* What follows from the rest, where it is still 0. */
void machine_fill(Machine *m);
/* 0, or -1: ERR_SYSTEM, or ERR_DATA that names the key that is missing, unknown or out of range. */
int machine_read(const char *path, Machine *out);
/* A new file, written beside and renamed. 0, or -1. */
int machine_write(const char *path, const Machine *m);
/* As in the file; a json_object * of json-c, NULL without memory. */
struct json_object *machine_json(const Machine *m);

#endif
