/* What torch.save writes is known by its first bytes, and refused with the way out: to read it is to run the
 * program that it is. */
#ifndef HSSL_PICKLE_H
#define HSSL_PICKLE_H

#include <stddef.h>

/* Bytes that are enough to know one: torch.save puts the file's name into them. */
enum { PICKLE_HEAD = 512 };

/* head: the file's first n bytes. 0: it is something else; -1 with ERR_DATA, whose text has the command that
 * converts it. */
int pickle_refuse(const char *path, const void *head, size_t n);

#endif
