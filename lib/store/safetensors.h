/* safetensors files: 8 bytes little-endian header length, a JSON header, raw little-endian data.
 * See hssl-safetensors(5) for what is checked. */
#ifndef HSSL_SAFETENSORS_H
#define HSSL_SAFETENSORS_H

#include "store/stored.h"
#include "util/output.h"

typedef struct SafeTensors SafeTensors;

/* Maps the file and checks all of its header: lengths, types, shapes, offsets, overlaps, holes. NULL with
 * ERR_SYSTEM, ERR_ABSENT, ERR_DATA or ERR_MEMORY. */
SafeTensors *safetensors_open(const char *path) __attribute__((warn_unused_result));
void safetensors_close(SafeTensors *st);
const char *safetensors_path(const SafeTensors *st);
size_t safetensors_count(const SafeTensors *st);
/* Tensor i, in the order of names; borrowed until close. NULL if there is none. data is aligned to its element. */
const StoredTensor *safetensors_at(const SafeTensors *st, size_t i);
/* NULL with ERR_ABSENT. */
const StoredTensor *safetensors_get(const SafeTensors *st, const char *name);
int safetensors_each(const SafeTensors *st, StoredEach *cb, void *arg);
/* 0, or -1 with ERR_STORE: the file was overwritten in place since it was opened: what was read may be anything. */
int safetensors_intact(const SafeTensors *st) __attribute__((warn_unused_result));
/* A string of __metadata__, or NULL (no error recorded). */
const char *safetensors_meta(const SafeTensors *st, const char *key);
/* Number of strings in __metadata__, and the i-th as key and value. */
size_t safetensors_meta_count(const SafeTensors *st);
const char *safetensors_meta_at(const SafeTensors *st, size_t i, const char **value);

/* Write a file into o. meta: n_meta pairs key, value. Data is laid out in the order given, 8-byte elements first, so
 * that every tensor is aligned. */
int safetensors_put(Output *o, const StoredTensor *tensors, size_t n, const char *const meta[][2], size_t n_meta)
    __attribute__((warn_unused_result));
/* The same to a name; on the disk when the call returns. */
int safetensors_write(const char *path, const StoredTensor *tensors, size_t n, const char *const meta[][2],
                      size_t n_meta) __attribute__((warn_unused_result));

#endif
