/* For the targets of pictures: decode one whole. */
#ifndef HSSL_FUZZ_PICTURE_H
#define HSSL_FUZZ_PICTURE_H

#include "fuzz.h"

#include "image/image.h"

#include <stdbool.h>

/* The picture may be tried: its head is readable and it is small enough, since larger ones only cost time. */
static inline bool picture_is_small(const uint8_t *bytes, size_t n)
{
    enum { SMALL = 1 << 19 }; /* pixels */
    ImageInfo info;
    if (image_probe(bytes, n, &info) || (int64_t)info.w * info.h > SMALL)
        return false;
    MUST(info.w > 0 && info.h > 0);
    return true;
}

/* Decode at scale / 8, read as a data set of today would have it, and look at every pixel. That it can't be
 * decoded is no finding. */
static inline void picture_decode(const uint8_t *bytes, size_t n, int scale)
{
    Image im = { 0 };
    size_t capacity = 0;
    ImageInfo info;
    unsigned reading = image_probe(bytes, n, &info) ? 0 : image_reading(&info, true, true);
    if (!image_decode_into(bytes, n, reading, scale, &im, &capacity)) {
        unsigned sum = 0;
        MUST(im.w > 0 && im.h > 0 && capacity >= (size_t)im.w * (size_t)im.h * 3);
        for (size_t i = 0; i < (size_t)im.w * (size_t)im.h * 3; i++)
            sum += im.rgb[i];
        fuzz_sink = sum;
    }
    image_free(&im);
}

#endif
