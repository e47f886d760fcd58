/* Private to lib/image: the codecs behind image.h. */
#ifndef HSSL_CODEC_H
#define HSSL_CODEC_H

#include "image/image.h"
#include "image/scratch.h"

/* These two leave info->orientation to image_orientation. */
int jpeg_probe(const uint8_t *bytes, size_t n, ImageInfo *info);
int jpeg_decode(const uint8_t *bytes, size_t n, int scale, Image *im, size_t *capacity);
/* To tiles in `room`, as far down as row `bottom`; rows: memory to be kept. */
int jpeg_decode_tiles(const uint8_t *bytes, size_t n, int scale, int64_t bottom, Tiles *t, Room *room, Room *rows);
int png_probe(const uint8_t *bytes, size_t n, ImageInfo *info);
/* scale: 16 bits to 8, as image.h says. */
int png_decode(const uint8_t *bytes, size_t n, bool scale, Image *im, size_t *capacity);

/* What EXIF data say, 1..8; 1 where they say nothing, or nothing that makes sense: of the data alone, with or
 * without "Exif\0\0" before them, and of a file. */
int exif_orientation(const uint8_t *p, size_t n);
int image_orientation(const uint8_t *p, size_t n, ImageType type);
/* The sides of a picture of w x h pixels when it is turned upright. */
void image_turned_size(int turn, int *w, int *h);
/* Rows y .. y + rows - 1 of a picture turned upright, one behind the other. Some rows at once cost much less
 * than one by one: what is a row there may be a column in `from`. */
void image_turn_rows(const Image *from, int turn, int y, int rows, uint8_t *to);

/* The type by the first bytes. */
int image_sniff(const void *bytes, size_t n, ImageType *type);
/* ERR_DATA for one that image.h does not have. */
int image_check_reading(unsigned reading);
/* image_decode_into without turning the picture. */
int image_decode_stored(const void *bytes, size_t n, unsigned reading, int scale, Image *im,
                        size_t *capacity);
/* ERR_DATA for a picture too large, or of no pixels. */
int image_check_size(int w, int h);
/* Room for w x h pixels at im->rgb */
int image_reserve(Image *im, int w, int h, size_t *capacity);

#endif
