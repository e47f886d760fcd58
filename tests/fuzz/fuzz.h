/* What the fuzz targets share. A target is one file fuzz_NAME.c that defines LLVMFuzzerTestOneInput. `make fuzz` links
 * it with libFuzzer; `make check` links it with replay.c, which feeds it corpus/NAME and some mutations of it. */
#ifndef HSSL_FUZZ_H
#define HSSL_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* A property that every input must keep. */
#define MUST(condition) ((condition) ? (void)0 : __builtin_trap())

/* Where a target leaves what it computed of everything it read, so that no reading is optimised away. */
extern volatile unsigned fuzz_sink;

/* A cursor over the input for targets that take more than one thing from it; past the end it gives zeros. */
typedef struct {
    const uint8_t *at, *end;
} FuzzInput;
uint32_t fuzz_take(FuzzInput *in, int bytes); /* little-endian, at most 4 */
/* The next n bytes, or what is left of them, as a block of their own, so that reading past them is noticed.
 * malloc'd; never NULL. *got: how many. */
uint8_t *fuzz_block(FuzzInput *in, size_t n, size_t *got);

/* A file of these bytes in a directory of this process; the next call with the same name replaces it. */
const char *fuzz_file(const char *name, const void *bytes, size_t n);
/* Remove them all, and the directory; also done at exit. */
void fuzz_files_end(void);

#endif
