/* Foreign collections of images, read one by one: a folder, a list of files, a tar, CIFAR binaries.
 *
 * The order of a folder is that of its names, bytewise, and so the same everywhere. Hidden files are passed over.
 * An image's class is the name of the folder it lies in, where that is below the source (for a tar and a list: where
 * there is one); for CIFAR it comes with the image. */
#ifndef HSSL_INTAKE_H
#define HSSL_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Intake Intake;

typedef struct {
    const char *name;       /* for a folder, the path below it; good until the next intake_next */
    const char *class_name; /* NULL: none */
} IntakeItem;

typedef struct {
    void *bytes; /* malloc'd, the caller's. An encoded image, or with width: RGB, width * height * 3 */
    size_t size;
    int width, height;
} IntakeImage;

/* source "-": standard input, a tar (compressed, too) or names of files, one a line or, with nul, ended by zero bytes.
 * NULL with an error. */
Intake *intake_open(const char *source, bool nul) __attribute__((warn_unused_result));
void intake_close(Intake *in);
/* "folder", "list of files", "tar", "CIFAR binary": for messages. */
const char *intake_kind(const Intake *in);
/* Items there are, if that is known beforehand; else 0. */
int64_t intake_total(const Intake *in);

/* 1: an item; 0: no more; -1: the source can't be read on. */
int intake_next(Intake *in, IntakeItem *item) __attribute__((warn_unused_result));
/* The item's content: 0, or -1 with the reason why just this one can't be had. Optional, and at most once an item. */
int intake_load(Intake *in, IntakeImage *image) __attribute__((warn_unused_result));

#endif
