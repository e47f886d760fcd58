/* A small line chart in characters: braille dots where the terminal takes UTF-8, else ASCII. */
#ifndef HSSL_CHART_H
#define HSSL_CHART_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* n points, x ascending. Those that are not finite are left out. */
typedef struct {
    const char *title;
    const double *x, *y;
    int64_t n;
    double line;       /* a level to draw beside the points, or NaN */
    double from, to;   /* the x of both edges */
    int width,
        height; /* characters, the numbers at the left included; at least CHART_WIDTH and 2 are taken */
    bool utf8;
} Chart;

enum { CHART_WIDTH = 24 };

/* A line with the title, then height lines; nothing but the title where there is no point. */
void chart_draw(const Chart *c, FILE *to);

/* Whether the locale of the environment (LC_ALL, LC_CTYPE, LANG) is one of UTF-8. */
bool chart_utf8(void);
/* Columns of the terminal that is standard output, of COLUMNS, or 80. */
int chart_columns(void);

#endif
