/* Private to lib/image: the codecs behind image.h. */
#ifndef HSSL_CODEC_H
#define HSSL_CODEC_H

#include "image/image.h"
#include "image/scratch.h"

int jpeg_probe(const uint8_t *bytes, size_t n, ImageInfo *info);
int jpeg_decode(const uint8_t *bytes, size_t n, int scale, Image *im, size_t *capacity);
/* To tiles in `room`, as far down as row `bottom`; rows: memory to be kept. */
int jpeg_decode_tiles(const uint8_t *bytes, size_t n, int scale, int64_t bottom, Tiles *t, Room *room, Room *rows);
int png_probe(const uint8_t *bytes, size_t n, ImageInfo *info);
int png_decode(const uint8_t *bytes, size_t n, Image *im, size_t *capacity);

/* The type by the first bytes. */
int image_sniff(const void *bytes, size_t n, ImageType *type);
/* ERR_DATA for a picture too large, or of no pixels. */
int image_check_size(int w, int h);
/* Room for w x h pixels at im->rgb */
int image_reserve(Image *im, int w, int h, size_t *capacity);

#endif
