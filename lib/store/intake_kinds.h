/* The kinds of sources behind intake.h, each a table of functions. Private to lib/store. */
#ifndef HSSL_INTAKE_KINDS_H
#define HSSL_INTAKE_KINDS_H

#include "store/intake.h"

#include <sys/types.h>

/* Bytes of an item, and of a mark. A file or a tar of a few hundred bytes may hold gigabytes of holes; no
 * picture that can be decoded (image.h) needs as many as this. */
enum { INTAKE_IMAGE_MAX = 3 << 28, INTAKE_MARK_MAX = 8192 };

typedef struct {
    const char *name;
    int (*next)(void *state, IntakeItem *item); /* name and mark */
    int (*load)(void *state, IntakeImage *image);
    int64_t (*total)(const void *state); /* or NULL */
    void (*close)(void *state);
} IntakeKind;

extern const IntakeKind intake_folder, intake_list, intake_archive, intake_cifar;

/* Each makes a kind's state, or NULL with an error. head: what was read from fd already (n bytes). The descriptor is
 * taken over. */
void *intake_folder_open(const char *path, bool marks);
void *intake_list_open(int fd, bool nul, const void *head, size_t n);
void *intake_archive_open(const char *name, int fd, const void *head, size_t n, bool marks);
/* A file, or a folder that holds data_batch_1.bin or train.bin. */
void *intake_cifar_open(const char *path);
bool intake_is_cifar(const char *path);

/* A whole regular file. 0, or -1. */
int intake_read_file(const char *path, IntakeImage *image);
/* Whether a picture begins with these bytes. */
bool intake_is_image(const void *bytes, size_t n);
int64_t intake_folder_detours(const void *state);

/* ---- folders in names ---- */

/* Folders that a name has: empty ones, "." and ".." don't count. */
int intake_folders(const char *name);
/* The folder of a name at a level, as malloc'd text through *out; NULL where there is none. 0, or -1. */
int intake_folder_at(const char *name, int level, char **out);

/* Where the folders of a source's images part. {0}: nothing seen. */
typedef struct {
    char *chain; /* name of the first image */
    int common;  /* so many of its folders are those of all images */
    bool deeper; /* an image lies further below */
} IntakeParting;

/* One more name. is_image (1, 0, -1) is asked only where it matters. 0, or -1. */
int intake_parting_see(IntakeParting *p, const char *name, int (*is_image)(void *arg), void *arg);
/* The first level at which not all images lie in the same folder; the last one where they all lie in one. */
int intake_parting_level(const IntakeParting *p);
void intake_parting_free(IntakeParting *p);
/* The same of all there is. 0, or -1. A tar is read from where fd stands, which moves; damage ends it,
 * silently. */
int intake_folder_parting(void *state, IntakeParting *p);
int intake_archive_parting(int fd, IntakeParting *p);

/* ---- marks ---- */

/* "a/b" of "a/b.left.jpg": what the files of a sample share. Length of it. */
size_t intake_key(const char *name);
bool intake_is_mark(const char *name);
/* What is in a X.cls as text, malloc'd, at most INTAKE_MARK_MAX bytes of it; NULL without memory. n below 0:
 * it can't be read. */
char *intake_mark(const void *bytes, ssize_t n);

#endif
