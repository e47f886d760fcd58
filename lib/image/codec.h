/* Private to lib/image: the codecs behind image.h. */
#ifndef HSSL_CODEC_H
#define HSSL_CODEC_H

#include "image/image.h"

int jpeg_probe(const uint8_t *bytes, size_t n, ImageInfo *info);
int jpeg_decode(const uint8_t *bytes, size_t n, int scale, Image *im, size_t *capacity);
int png_probe(const uint8_t *bytes, size_t n, ImageInfo *info);
int png_decode(const uint8_t *bytes, size_t n, Image *im, size_t *capacity);

/* Room for w x h pixels at im->rgb, with a margin that vector loads may read past the end. */
int image_reserve(Image *im, int w, int h, size_t *capacity);

#endif
