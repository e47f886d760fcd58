/* Foreign collections of images, read one by one: a folder, a list of files, a tar, CIFAR binaries.
 *
 * The order of a folder is that of its names, bytewise, and so the same everywhere. Hidden files are passed
 * over. A folder is read once, whatever links lead to it: on the way with the fewest links, and of these on
 * the first.
 *
 * An image's class is one of the folders in its name, all at the same level: 1 is the first one, -1 the
 * innermost. By default a source that can be looked through beforehand (a folder, a tar that is a regular
 * file) has the first level at which not all of its images lie in the same folder; what comes through a pipe
 * has -1. For CIFAR the class comes with the image. */
#ifndef HSSL_INTAKE_H
#define HSSL_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Intake Intake;

typedef struct {
    bool nul;   /* names on standard input end with zero bytes */
    bool marks; /* of a tar and a folder: X.cls is no item but the mark of the items X.* beside it */
    int level;  /* 0: the default */
} IntakeHow;

typedef struct {
    const char *name; /* for a folder, the path below it; good until the next intake_next, as are these */
    const char *class_name; /* NULL: none */
    const char *mark;       /* its X.cls without white space around, U+0001 for what is no text; NULL: none */
} IntakeItem;

typedef struct {
    void *bytes; /* malloc'd, the caller's. An encoded image, or with width: RGB, width * height * 3 */
    size_t size;
    int width, height;
} IntakeImage;

/* source "-": standard input, a tar (compressed, too) or names of files, one a line or, with nul, ended by zero bytes.
 * NULL with an error. */
Intake *intake_open(const char *source, const IntakeHow *how) __attribute__((warn_unused_result));
void intake_close(Intake *in);
/* "folder", "list of files", "tar", "CIFAR binary": for messages. */
const char *intake_kind(const Intake *in);
/* Items there are, if that is known beforehand; else 0. */
int64_t intake_total(const Intake *in);
/* The level of the folders that are classes; 0 for CIFAR. */
int intake_level(const Intake *in);
/* Ways to a folder that were not followed, since it is read on another one. */
int64_t intake_detours(const Intake *in);

/* 1: an item; 0: no more; -1: the source can't be read on. */
int intake_next(Intake *in, IntakeItem *item) __attribute__((warn_unused_result));
/* The item's content: 0, or -1 with the reason why just this one can't be had. Optional, and at most once an item. */
int intake_load(Intake *in, IntakeImage *image) __attribute__((warn_unused_result));

#endif
