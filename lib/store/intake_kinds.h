/* The kinds of sources behind intake.h, each a table of functions. Private to lib/store. */
#ifndef HSSL_INTAKE_KINDS_H
#define HSSL_INTAKE_KINDS_H

#include "store/intake.h"

/* Bytes of an item. A file or a tar of a few hundred bytes may hold gigabytes of holes; no picture that can be decoded
 * (image.h) needs as many as this. */
enum { INTAKE_IMAGE_MAX = 3 << 28 };

typedef struct {
    const char *name;
    int (*next)(void *state, IntakeItem *item);
    int (*load)(void *state, IntakeImage *image);
    int64_t (*total)(const void *state); /* or NULL */
    void (*close)(void *state);
} IntakeKind;

extern const IntakeKind intake_folder, intake_list, intake_archive, intake_cifar;

/* Each makes a kind's state, or NULL with an error. head: what was read from fd already (n bytes). The descriptor is
 * taken over. */
void *intake_folder_open(const char *path);
void *intake_list_open(int fd, bool nul, const void *head, size_t n);
void *intake_archive_open(const char *name, int fd, const void *head, size_t n);
/* A file, or a folder that holds data_batch_1.bin or train.bin. */
void *intake_cifar_open(const char *path);
bool intake_is_cifar(const char *path);

/* A whole regular file. 0, or -1. */
int intake_read_file(const char *path, IntakeImage *image);
/* The name of the folder that path lies in, as malloc'd text through *out; NULL where there is none. 0, or -1. */
int intake_parent(const char *path, char **out);

#endif
