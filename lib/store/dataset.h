/* A dataset: encoded images with label and name, in one LMDB file. Format: hssl-dataset(5).
 *
 * Ids run from 0 to dataset_count() - 1 without gaps, in the order of import. Bytes are as they were
 * imported (JPEG or PNG). A label is the rank of the image's class name among all class names of the file,
 * sorted by bytes, so it does not depend on the order in which classes were met. Where classes are numbers
 * instead (dataset_number_classes), a label is that number.
 *
 * A Dataset sees the images that were there when it was opened, also while an import goes on. All its
 * functions may be called by several threads at once. One process opens a file at most once at a time, and a
 * handle does not survive fork(). */
#ifndef HSSL_DATASET_H
#define HSSL_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DATASET_NAME_MAX = 4095, DATASET_IMAGE_MAX = 0x7f000000, DATASET_NUMBER_MAX = 65535 };

/* The rule of a data set, by which its images are read: EXIF orientations are applied; 16 bits are scaled
 * to 8. What it means for an image stands in its record. Data sets of older versions have neither. */
enum { DATASET_TURNED = 1, DATASET_SCALED = 2, DATASET_RULE = DATASET_TURNED | DATASET_SCALED };

typedef struct {
    const void *bytes; /* the encoded image */
    size_t size;
    const char *name;       /* unique in the dataset; for a folder, the path below it */
    int32_t label;          /* -1: none */
    uint32_t width, height; /* of the picture that is read */
    uint16_t reading;       /* how pixels are read from bytes, by image.h; 0: as they are stored there */
    uint64_t checksum;      /* XXH3-64 of bytes */
} Record;

typedef struct Dataset Dataset;

/* NULL: ERR_ABSENT (no such file), ERR_DATA (not a dataset, damaged, or of a newer version), ERR_BUSY (see
 * hssl-dataset(5), Locks), ERR_STORE. */
Dataset *dataset_open(const char *path) __attribute__((warn_unused_result));
void dataset_close(Dataset *ds);
const char *dataset_path(const Dataset *ds);
uint64_t dataset_count(const Dataset *ds);
uint64_t dataset_bytes(const Dataset *ds); /* encoded images, all together */
unsigned dataset_rule(const Dataset *ds);

/* The record's pointers stay good until dataset_rest or dataset_close. 0, or -1 with ERR_ABSENT (no such id), ERR_DATA
 * (damaged) or ERR_STORE (the file was overwritten in place). The checksum is not recomputed here: dataset_verify does. */
int dataset_get(Dataset *ds, uint64_t id, Record *rec) __attribute__((warn_unused_result));
/* Of a record that dataset_get refuses, what can be read: the name ("" where that is damaged, too) and the bytes of the
 * image, or of the whole record where its parts can't be told apart; size is 0 where there are none. Nothing of it has
 * been checked; label is -1, the other numbers are 0. */
void dataset_salvage(Dataset *ds, uint64_t id, Record *rec);
/* Give back the snapshot until the next record is read. While one is held, an import can't use space again that it has
 * freed: nobody holds it while he waits for a reader of his own. No other thread may use a record meanwhile. */
void dataset_rest(Dataset *ds);
/* Whether a record's bytes still have its checksum: 0, or -1 with ERR_DATA. */
int dataset_verify(const Dataset *ds, const Record *rec);
/* Reads and verifies a record, for those who go on without a bad one: 0; 1: it is damaged, err_text() says
 * how, and rec is what can be salvaged (all of it where only the checksum is wrong); -1: any other error. */
int dataset_take(Dataset *ds, uint64_t id, Record *rec) __attribute__((warn_unused_result));

/* What is in the dataset, as 16 hexadecimal digits: a digest over names, classes, checksums and readings of
 * the images in the order of their numbers. An import in one go and one in several give the same. It is read
 * from the header; a file written before there were digests is walked through for it. 0, or -1 with ERR_DATA
 * (a damaged record on that walk). */
int dataset_digest(Dataset *ds, char out[17]) __attribute__((warn_unused_result));
/* Every record's checksum, and the digest: 0, or -1 with ERR_DATA that names the first that is wrong. */
int dataset_verify_all(Dataset *ds) __attribute__((warn_unused_result));

/* Labels are below it; 0: no labels. Of numbered classes some between may have no image. */
int dataset_classes(const Dataset *ds);
const char *dataset_class_name(const Dataset *ds, int label); /* NULL: no such label */
uint64_t dataset_class_count(const Dataset *ds, int label);   /* images that have it */
/* A class's number: 0 to DATASET_NUMBER_MAX, as printf writes it ("7", not "07"); else -1. */
int32_t dataset_class_number(const char *name);

typedef struct DatasetWriter DatasetWriter;

typedef enum {
    DATASET_NEW = 0,     /* a new file; an old one is ERR_EXISTS unless it is empty */
    DATASET_RESUME = 1,  /* go on with an old file, if there is one */
    DATASET_REPLACE = 2, /* a new file, which takes the place of an old dataset; any other file is ERR_DATA */
    DATASET_WHOLE = 4    /* besides: a new file is there when it is finished, else it is with its first commit of images */
} DatasetHow;

/* One writer at a time: ERR_BUSY where another process writes the dataset, makes one of that name, or has open the one
 * that would be replaced. */
DatasetWriter *dataset_create(const char *path, unsigned how) __attribute__((warn_unused_result));
/* The rule of the data set that is written. A new one has DATASET_RULE until it is given another, before its
 * first image. */
unsigned dataset_writer_rule(const DatasetWriter *w);
void dataset_set_rule(DatasetWriter *w, unsigned rule);
/* Commits and closes; NULL is harmless. 0, or -1 if the last commit failed. */
int dataset_finish(DatasetWriter *w) __attribute__((warn_unused_result));
/* Drops what was not committed and closes; a new file that nobody has seen yet goes away, and an old one stays. */
void dataset_discard(DatasetWriter *w);

/* From now on, and for good, classes are numbers. 0, or -1 with ERR_USAGE where there are classes with names.
 */
int dataset_number_classes(DatasetWriter *w) __attribute__((warn_unused_result));
/* The number to put into Record.label for a class, made on first use, even if no image follows. It is the
 * writer's own number: readers see the label. -1 on error: ERR_USAGE where the name can't be a class's. */
int32_t dataset_class(DatasetWriter *w, const char *name) __attribute__((warn_unused_result));
/* Appends a record; its id becomes dataset_written(w) - 1. The checksum is computed here, rec->checksum is not
 * read. A name that is there already is ERR_EXISTS. */
int dataset_put(DatasetWriter *w, const Record *rec) __attribute__((warn_unused_result));
/* The same under a class, or none (NULL), instead of rec->label: a record that is refused leaves no class
 * behind. */
int dataset_put_in(DatasetWriter *w, const Record *rec, const char *class_name)
    __attribute__((warn_unused_result));
/* 1: the name is there; 0: it is not; -1: error. */
int dataset_has(DatasetWriter *w, const char *name) __attribute__((warn_unused_result));
/* The same, with the class that the image has, or NULL; good until the writer is closed. */
int dataset_find(DatasetWriter *w, const char *name, const char **class_name)
    __attribute__((warn_unused_result));
uint64_t dataset_written(const DatasetWriter *w);
/* Makes what was put so far durable. Also happens by itself every few megabytes. */
int dataset_commit(DatasetWriter *w) __attribute__((warn_unused_result));

/* Recompute what a dataset says of its images, from them: numbers of images, bytes, images of each class, digest, and
 * where each name is. Every image is checked first. *announced: images, as the header had it. 1: something was wrong and
 * is right now; 0: all was right; -1 with ERR_DATA: more than that is damaged, and nothing was changed; or another error. */
int dataset_repair(const char *path, uint64_t *announced) __attribute__((warn_unused_result));

#endif
