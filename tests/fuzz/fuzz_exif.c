/* EXIF data, of which the orientation is wanted: alone, and in a file whose kind the first byte says. */
#include "fuzz.h"

#include "image/codec.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    FuzzInput in = { bytes, bytes + size };
    uint32_t kind = fuzz_take(&in, 1) % 3;
    size_t n;
    uint8_t *data = fuzz_block(&in, SIZE_MAX, &n);
    int orientation = kind == 0 ? exif_orientation(data, n)
                                : image_orientation(data, n, kind == 1 ? IMAGE_JPEG : IMAGE_PNG);
    MUST(orientation >= 1 && orientation <= 8);
    free(data);
    return 0;
}
