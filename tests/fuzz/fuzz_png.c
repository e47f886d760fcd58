/* PNG pictures, decoded as they are. */
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
    return 0;
}

#ifdef HSSL_FUZZ
/* Mutated chunks get their checksums back; else libpng would look at few of them. */
static uint32_t crc(const uint8_t *p, size_t n)
{
    uint32_t c = UINT32_MAX;
    for (; n; n--) {
        c ^= *p++;
        for (int i = 0; i < 8; i++)
            c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    }
    return ~c;
}

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t n, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t room, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t room, unsigned seed)
{
    enum { SIGNATURE = 8, AROUND = 12 };
    n = LLVMFuzzerMutate(bytes, n, room);
    for (size_t at = SIGNATURE; seed % 16 && at + AROUND <= n;) {
        size_t length = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length > n - at - AROUND)
            break;
        uint32_t sum = crc(bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += AROUND + length;
    }
    return n;
}
#endif
