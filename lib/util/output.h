/* A file that a program writes whole: it appears under its name once all of it is there, or not at all.
 *
 * It is written without a name, in the directory of its target, and takes the target's place by rename: what
 * stands there, be it a link, is replaced, and never followed or written into. Where the file system knows no
 * files without a name it has a fresh one that nobody can have planted. Mode by umask. A device, a pipe or a
 * descriptor of the process (/dev/stdout) is written to instead, at the end, from a file without name in $TMPDIR:
 * so nothing that is borrowed for the writing has to be held while a reader takes his time. */
#ifndef HSSL_OUTPUT_H
#define HSSL_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct Output Output;

enum {
    OUTPUT_NEW = 1,     /* ERR_EXISTS where something is there already, also if it came while we wrote */
    OUTPUT_PLAIN = 2,   /* a regular file whatever is there: a device or a pipe is replaced, too */
    OUTPUT_PRIVATE = 4, /* for its owner only */
    OUTPUT_LASTING = 8  /* on the disk, with its name, when output_commit returns */
};

/* sources: files that the target must not be, under any name, nor one of their lock files NAME-lock: OUTPUT_SOURCES
 * of them, NULL where there are fewer; or NULL. NULL with ERR_USAGE (a source itself, a directory or a disk),
 * ERR_EXISTS or ERR_SYSTEM. */
enum { OUTPUT_SOURCES = 3 };
Output *output_open(const char *path, const char *const sources[OUTPUT_SOURCES], int flags) __attribute__((warn_unused_result));
int output_write(Output *o, const void *bytes, size_t n) __attribute__((warn_unused_result));
/* Puts the file in its place. 0 or -1; *o is closed and NULL either way. */
int output_commit(Output **o) __attribute__((warn_unused_result));
/* Forgets what was written; nothing is left. *o may be NULL. */
void output_cancel(Output **o);

/* All of it in one call. */
int output_file(const char *path, int flags, const void *bytes, size_t n) __attribute__((warn_unused_result));
/* A file, device or pipe to append to, such as a log. NULL as above. */
FILE *output_append(const char *path, const char *const sources[OUTPUT_SOURCES])
    __attribute__((warn_unused_result));

#endif
