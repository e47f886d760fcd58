/* A contact sheet: rows of square tiles on white, each row an image's views. */
#ifndef HSSL_SHEET_H
#define HSSL_SHEET_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Sheet Sheet;

/* Tiles of more than largest pixels a side are scaled down to it, and all others by the same factor, so that a
 * small view stays small beside a large one; tiles that are all tiny are enlarged by a whole number. */
Sheet *sheet_new(int largest); /* NULL with ERR_MEMORY */
/* Start a row. */
int sheet_row(Sheet *s);
/* Add a view of side x side x 3 bytes to the row begun last; the pixels are copied. 0, or -1 with ERR_MEMORY. */
int sheet_tile(Sheet *s, const uint8_t *rgb, int side);
int sheet_rows(const Sheet *s);
/* Draw everything: *w x *h x 3 bytes, malloc'd. */
uint8_t *sheet_draw(const Sheet *s, int *w, int *h);
void sheet_free(Sheet **s);

#endif
