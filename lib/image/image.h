/* Pictures of 8-bit RGB: decoding, encoding, resizing and colour, with the bytes that Pillow gives.
 *
 * Pillow means version 9.4: resizing goes along rows first, always. Pillow 13 was seen to differ by a few units in
 * some reductions of tall boxes; decoding, colour and blur are the same there.
 *
 * Nothing here knows where bytes come from or where pixels go. Rows are contiguous, w * 3 bytes, top first.
 * Functions return 0, or -1 with ERR_DATA (foreign bytes that are no picture, or too large a one) or ERR_MEMORY. */
#ifndef HSSL_IMAGE_H
#define HSSL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Larger pictures are refused: a decompression bomb, by Pillow's measure. */
#define IMAGE_MAX_PIXELS 178956970
/* A progressive JPEG of more scans is refused, or one whose scans times its pixels are more: each scan costs a pass
 * over all coefficients, and may be a few hundred bytes of the file. */
#define IMAGE_MAX_SCANS 500
#define IMAGE_MAX_SCAN_PIXELS (INT64_C(1) << 32)

typedef struct {
    int w, h;
    uint8_t *rgb; /* w * h * 3 bytes; malloc'd by whoever made it */
} Image;

void image_free(Image *im); /* of the pixels; harmless on an empty one */

typedef enum { IMAGE_JPEG, IMAGE_PNG } ImageType;
typedef struct {
    ImageType type;
    int w, h;        /* as stored */
    int orientation; /* by EXIF data: 1, also where there are none, to 8 */
    int bits;        /* of a colour's value, or of an index into a palette */
    bool alpha;      /* there is an alpha channel, or a colour that is transparent */
} ImageInfo;

/* Type, size and the rest from the head, without decoding. */
int image_probe(const void *bytes, size_t n, ImageInfo *info);

/* How the pixels of a file are read: a number that a data set keeps of each image, and that a stream hands on
 * to whoever decodes it. 0: as Pillow's open(...).convert("RGB") gives them. Otherwise
 *   IMAGE_TURN    of these bits, 2 to 8: the picture is turned upright after an EXIF orientation, as Pillow's
 *                 exif_transpose;
 *   IMAGE_SCALED  16 bits are scaled to 8, v to (v * 255 + 32767) / 65535. */
enum { IMAGE_TURN = 15, IMAGE_SCALED = 16 };
/* The reading of such a file where orientations are applied (turn) and 16 bits scaled (scale); 0 where
 * neither matters. */
unsigned image_reading(const ImageInfo *info, bool turn, bool scale);
/* The size of the picture that comes of it. */
void image_read_size(const ImageInfo *info, unsigned reading, int *w, int *h);

/* Decode to RGB as Pillow's open(...).convert("RGB"): gray, CMYK, palette, alpha (dropped) and 16-bit pictures
 * included (unscaled 16-bit colours lose the low byte, and 16-bit gray without alpha is clipped at 255, as
 * Pillow does).
 * Colour profiles and gamma are not applied. JPEG: accurate integer DCT, fancy upsampling. A picture whose
 * data end before all its pixels are known is an error that says at which byte; an end marker, a checksum or
 * anything else that is missing or wrong behind them is none. */
int image_decode(const void *bytes, size_t n, unsigned reading, Image *im);

/* The same into memory kept from call to call: *capacity bytes at im->rgb, grown as needed. scale: the decoder may
 * shrink a JPEG to scale/8 of its size (1..8; 8: whole). */
int image_decode_into(const void *bytes, size_t n, unsigned reading, int scale, Image *im, size_t *capacity);

/* malloc'd bytes. quality 1..100. */
int image_encode_jpeg(const Image *im, int quality, void **bytes, size_t *n);
int image_encode_png(const Image *im, void **bytes, size_t *n);

/* ---- resizing */

typedef enum { FILTER_BILINEAR, FILTER_BICUBIC } ImageFilter;
typedef struct {
    int x, y, w, h;
} ImageBox;

/* Crop the box, then resize the crop to w x h: antialiased, two passes, the borders of the box being the borders
 * of the resampling. out: w * h * 3 bytes. The box must lie in the picture. */
int image_resize(const Image *im, ImageBox box, int w, int h, ImageFilter filter, uint8_t *out);

/* The evaluation view: short side to `resize` (bicubic; long side truncated), then the central crop x crop box.
 * crop <= resize. out: crop * crop * 3 bytes. resize 0: the whole picture to crop x crop. */
int image_eval_view(const Image *im, int resize, int crop, uint8_t *out);
/* The same with a choice of filter. */
int image_eval_view_filter(const Image *im, int resize, int crop, ImageFilter filter, uint8_t *out);

#endif
