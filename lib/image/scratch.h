/* Private to lib/image: memory that a renderer keeps, and the operations that use it. */
#ifndef HSSL_SCRATCH_H
#define HSSL_SCRATCH_H

#include "image/image.h"
#include "image/pixels.h"
#include "image/render.h"

#include <stddef.h>
#include <stdint.h>

/* A buffer that grows. */
typedef struct {
    void *p;
    size_t capacity;
} Room;

/* At least n bytes (contents lost when it grows); NULL with ERR_MEMORY. */
void *room_get(Room *r, size_t n);
void room_free(Room *r);

struct RenderScratch {
    Image decoded;
    size_t decoded_capacity;
    Room taps_x, taps_y, rows, view, planes, line;
};

/* image_resize with kept memory. */
int resize_with(const Image *im, ImageBox box, int w, int h, ImageFilter filter, uint8_t *out, RenderScratch *s);

/* Colour on three planes of n pixels each. Jitter applies the first `parts` of the order; gray: n bytes of room. */
void color_jitter(uint8_t *planes[3], int n, const uint8_t order[4], const float factor[4], uint8_t *gray,
                  int parts);
void color_gray(uint8_t *planes[3], int n);
/* Three extended box blurs each way; radius is the standard deviation. 0, or -1 with ERR_MEMORY. */
int blur_plane(uint8_t *plane, int w, int h, float radius, Room *room);

#endif
