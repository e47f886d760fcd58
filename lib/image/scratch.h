/* Private to lib/image: memory that a renderer keeps, and the operations that use it. */
#ifndef HSSL_SCRATCH_H
#define HSSL_SCRATCH_H

#include "image/image.h"
#include "image/pixels.h"
#include "image/render.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A buffer that grows. */
typedef struct {
    void *p;
    size_t capacity;
} Room;

/* At least n bytes (contents lost when it grows), at a multiple of 64; NULL with ERR_MEMORY. */
void *room_get(Room *r, size_t n);
void room_free(Room *r);

/* A picture in tiles (pixels.h): band b, colour c, group of columns g at p + (b * 3 + c) * plane + g * 64. */
typedef struct {
    int w, h;
    int64_t plane;
    uint8_t *p;
} Tiles;

struct RenderScratch {
    Image decoded;
    size_t decoded_capacity;
    Room rows, tiles, taps_x, taps_y, strips, planes, line;
};

/* Room for w x h pixels; ERR_DATA if that is too large a picture. */
int tiles_reserve(Tiles *t, int w, int h, Room *room);
/* Rows y .. y + rows - 1; y is a multiple of TILE_ROWS, and so is rows but for the last ones. */
void tiles_put(Tiles *t, int y, const uint8_t *rgb, int64_t stride, int rows);
/* A box of a picture; ERR_DATA if it does not lie there. */
int tiles_of(Tiles *t, const Image *im, ImageBox box, Room *room);

/* `count` planes of n bytes, each followed by PIXEL_MARGIN, in one block; NULL with ERR_MEMORY. */
uint8_t *planes_reserve(int n, int count, uint8_t *planes[], Room *room);

/* Give all outputs the same number of groups, the added ones of taps 0, but none beyond the last input: a loop whose
 * length changes from output to output is mispredicted so often that it costs more than the work added. */
void taps_level(const Axis *a, Taps *t);

/* image_resize from tiles to planes (with their margins), left and right exchanged if mirrored. The box lies in
 * the picture. */
int resize_tiles(const Tiles *from, ImageBox box, int w, int h, ImageFilter filter, bool mirrored,
                 uint8_t *const planes[3], RenderScratch *s);

/* Colour on three planes of n pixels each. Jitter applies the first `parts` of the order; gray: n bytes of room. */
void color_jitter(uint8_t *planes[3], int n, const uint8_t order[4], const float factor[4], uint8_t *gray,
                  int parts);
void color_gray(uint8_t *planes[3], int n);
/* Three extended box blurs each way; radius is the standard deviation. 0, or -1 with ERR_MEMORY. */
int blur_plane(uint8_t *plane, int w, int h, float radius, Room *room);

#endif
