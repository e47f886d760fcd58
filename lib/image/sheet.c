#include "image/sheet.h"

#include "util/err.h"

#include <stdlib.h>
#include <string.h>

enum { MARGIN = 4, WHITE = 255, MAX_DRAWN = 1 << 15 };

typedef struct {
    int row, side;
    uint8_t *rgb;
} Tile;

struct Sheet {
    int largest, rows, tiles, room;
    Tile *tile;
};

Sheet *sheet_new(int largest)
{
    Sheet *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(ERR_MEMORY, "contact sheet: out of memory");
        return NULL;
    }
    s->largest = largest;
    return s;
}

int sheet_row(Sheet *s)
{
    s->rows++;
    return 0;
}

int sheet_rows(const Sheet *s)
{
    return s->rows;
}

int sheet_tile(Sheet *s, const uint8_t *rgb, int side)
{
    size_t bytes = (size_t)side * (size_t)side * 3;
    if (s->tiles == s->room) {
        int room = s->room ? 2 * s->room : 64;
        Tile *bigger = realloc(s->tile, (size_t)room * sizeof *bigger);
        if (!bigger)
            return err_set(ERR_MEMORY, "contact sheet: out of memory");
        s->tile = bigger;
        s->room = room;
    }
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (!copy)
        return err_set(ERR_MEMORY, "contact sheet: out of memory (%zu bytes)", bytes);
    memcpy(copy, rgb, bytes);
    s->tile[s->tiles++] = (Tile){ s->rows - 1, side, copy };
    return 0;
}

/* The mean of the source pixels under each target pixel, or the nearest one when enlarging. */
static void draw_tile(const Tile *t, int side, uint8_t *to, int stride)
{
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            int x0 = x * t->side / side, x1 = (x + 1) * t->side / side, y0 = y * t->side / side,
                y1 = (y + 1) * t->side / side;
            x1 += x1 == x0;
            y1 += y1 == y0;
            unsigned sum[3] = { 0 }, n = (unsigned)((x1 - x0) * (y1 - y0));
            for (int v = y0; v < y1; v++)
                for (int u = x0; u < x1; u++)
                    for (int c = 0; c < 3; c++)
                        sum[c] += t->rgb[((size_t)v * (size_t)t->side + (size_t)u) * 3 + (size_t)c];
            for (int c = 0; c < 3; c++)
                to[(size_t)y * (size_t)stride + (size_t)x * 3 + (size_t)c] = (uint8_t)((sum[c] + n / 2) / n);
        }
}

/* The side at which a tile of this side is drawn on a sheet whose largest tile is `big`. */
static int drawn_side(const Sheet *s, int side, int big)
{
    int drawn;
    if (big > s->largest)
        drawn = (int)((long long)side * s->largest / big);
    else
        drawn = side * (2 * big <= s->largest ? s->largest / 2 / big > 0 ? s->largest / 2 / big : 1 : 1);
    return drawn > 0 ? drawn : 1;
}

uint8_t *sheet_draw(const Sheet *s, int *w, int *h)
{
    int big = 1, width = MARGIN, row_width = MARGIN, row = -1;
    int *top = calloc((size_t)s->rows + 1, sizeof *top);
    uint8_t *rgb = NULL;
    if (!top)
        goto out;
    for (int i = 0; i < s->tiles; i++)
        big = s->tile[i].side > big ? s->tile[i].side : big;
    for (int i = 0; i < s->tiles; i++) {
        int side = drawn_side(s, s->tile[i].side, big);
        if (s->tile[i].row != row)
            row_width = MARGIN;
        row = s->tile[i].row;
        row_width += side + MARGIN;
        width = row_width > width ? row_width : width;
        top[row + 1] = side > top[row + 1] ? side : top[row + 1]; /* the row's height for now */
    }
    top[0] = MARGIN;
    for (int r = 0; r < s->rows; r++)
        top[r + 1] += top[r] + MARGIN;
    *w = width;
    *h = top[s->rows] > 2 * MARGIN ? top[s->rows] : 2 * MARGIN;
    if (*w > MAX_DRAWN || *h > MAX_DRAWN) {
        err_set(ERR_USAGE, "contact sheet: %d x %d pixels are too many: show fewer images", *w, *h);
        goto out;
    }
    if (!(rgb = malloc((size_t)*w * (size_t)*h * 3)))
        goto out;
    memset(rgb, WHITE, (size_t)*w * (size_t)*h * 3);
    row = -1;
    for (int i = 0, x = MARGIN; i < s->tiles; i++) {
        int side = drawn_side(s, s->tile[i].side, big);
        if (s->tile[i].row != row)
            x = MARGIN;
        row = s->tile[i].row;
        draw_tile(&s->tile[i], side, rgb + ((size_t)top[row] * (size_t)*w + (size_t)x) * 3, *w * 3);
        x += side + MARGIN;
    }
out:
    if (!top || (!rgb && err_code() != ERR_USAGE))
        err_set(ERR_MEMORY, "contact sheet: out of memory");
    free(top);
    return rgb;
}

void sheet_free(Sheet **sheet)
{
    Sheet *s = *sheet;
    if (!s)
        return;
    for (int i = 0; i < s->tiles; i++)
        free(s->tile[i].rgb);
    free(s->tile);
    free(s);
    *sheet = NULL;
}
