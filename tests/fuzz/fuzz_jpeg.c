/* JPEG pictures, decoded as they are and shrunk. */
#include "fuzz.h"

#include "image/image.h"

#include <stdlib.h>

enum { SMALL = 1 << 19 }; /* pixels: larger ones only cost time */

static void decode(const uint8_t *bytes, size_t n, int scale)
{
    Image im = { 0 };
    size_t capacity = 0;
    if (!image_decode_into(bytes, n, scale, &im, &capacity)) {
        unsigned sum = 0;
        MUST(im.w > 0 && im.h > 0 && capacity >= (size_t)im.w * (size_t)im.h * 3);
        for (size_t i = 0; i < (size_t)im.w * (size_t)im.h * 3; i++)
            sum += im.rgb[i];
        fuzz_sink = sum;
    }
    image_free(&im);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    ImageInfo info;
    if (image_probe(bytes, n, &info) || (int64_t)info.w * info.h > SMALL)
        return 0;
    MUST(info.w > 0 && info.h > 0);
    decode(bytes, n, 8);
    decode(bytes, n, 1 + (int)(n % 7));
    return 0;
}
