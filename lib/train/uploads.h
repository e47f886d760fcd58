/* Batches of views on their way to the device: the next one goes up while the device works on the one before. */
#ifndef HSSL_TRAIN_UPLOADS_H
#define HSSL_TRAIN_UPLOADS_H

#include "ssl/views.h"
#include "stream/shm.h"
#include "tensor/backend.h"

typedef struct Uploads Uploads;

/* shape: counts and sizes of every batch, its pixels unused. block: where the host's pixels lie, or NULL. NULL on
 * failure. */
Uploads *uploads_new(Backend *be, const ViewBatch *shape, const ShmBlock *block);
void uploads_free(Uploads *u);

/* Start to copy batch `number`, whose pixels on the host must stay until uploads_take has given them. The batch before
 * the last one taken must be done with. Nothing where it is under way already, or where the device reads the host's
 * memory in place. 0, or -1. */
int uploads_begin(Uploads *u, uint64_t number, const uint8_t *global, const uint8_t *local);
/* The batch, pixels on the device, good until the next but one is begun. 0, or -1. */
int uploads_take(Uploads *u, uint64_t number, const uint8_t *global, const uint8_t *local, ViewBatch *out);

/* The memory that holds all batches, *bytes long; NULL where they are used in place. */
void *uploads_memory(const Uploads *u, size_t *bytes);

#endif
