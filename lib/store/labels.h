/* A table of labels that came beside the images, as CSV: a row for each image, with its name and its class.
 * What is understood stands in hssl-import(1). */
#ifndef HSSL_LABELS_H
#define HSSL_LABELS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Labels Labels;

/* NULL: ERR_SYSTEM, ERR_MEMORY, or ERR_DATA that names the row. */
Labels *labels_read(const char *path) __attribute__((warn_unused_result));
void labels_free(Labels *l);
/* Whether all classes are numbers as dataset_class_number() knows them: these are the labels then. */
bool labels_numbered(const Labels *l);
/* The class of an image: by its whole name, else that without folders, else without its suffix, too. 1: there
 * is a row, and *class_name is NULL where it gives none; 0: there is no row. The text is good until
 * labels_free. */
int labels_find(Labels *l, const char *name, const char **class_name);
/* Rows whose image nobody asked for, and the name in the first of them, or NULL. */
int64_t labels_unused(const Labels *l, const char **first);

#endif
