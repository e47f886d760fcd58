/* What both ends of the teacher's link know of its messages. Private to lib/train. */
#ifndef HSSL_TEACH_NOTES_H
#define HSSL_TEACH_NOTES_H

#include "stream/message.h"

enum { TEACH_PROTOCOL = 2 };

/* Kinds of ticket. */
#define TEACH_KIND "teacher"
#define TARGETS_KIND "targets"

/* Begin a note of this name. 0, or -1. */
int note_begin(Message *m, const char *op);
/* Its name; "" for anything that is not a note. */
const char *note_op(const Message *m);
/* The tensor of a note as float32 [elements], checked; NULL with ERR_DATA. Inline bytes must be aligned. */
const MsgTensor *note_floats(const Message *m, const char *name, size_t elements);

#endif
