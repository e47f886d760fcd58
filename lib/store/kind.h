/* What kind of file something is, from its content. */
#ifndef HSSL_KIND_H
#define HSSL_KIND_H

typedef enum { KIND_UNKNOWN, KIND_DATASET, KIND_RUN, KIND_SAFETENSORS, KIND_TICKET } FileKind;

/* KIND_UNKNOWN comes with an error that says why: no such file, damaged, or nothing of ours. */
FileKind kind_of_file(const char *path);

#endif
