#include "util/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MARGIN = 11, MOST_WIDTH = 400, MOST_HEIGHT = 60 };

/* Dots: across x up of a character, 2 x 4 in braille. */
typedef struct {
    int columns, rows, across, up;
    double low, high;
    unsigned char dots[MOST_HEIGHT][MOST_WIDTH];  /* of the points */
    unsigned char level[MOST_HEIGHT][MOST_WIDTH]; /* of the line */
} Canvas;

/* Braille numbers its dots down the left column, then the right one; the lowest row came later. */
static const unsigned char BITS[2][4] = { { 0x40, 0x04, 0x02, 0x01 }, { 0x80, 0x20, 0x10, 0x08 } };

static void set(const Canvas *c, unsigned char (*dots)[MOST_WIDTH], int x, int y)
{
    if (x < 0 || y < 0 || x >= c->columns * c->across || y >= c->rows * c->up)
        return;
    dots[c->rows - 1 - y / c->up][x / c->across] |= BITS[x % c->across][y % c->up];
}

static int height_of(const Canvas *c, double y)
{
    double most = c->rows * c->up - 1, span = c->high - c->low;
    return (int)lround(span > 0 ? (y - c->low) / span * most : most / 2);
}

/* From one point to the next, without gaps. */
static void join(Canvas *c, int x0, int y0, int x1, int y1)
{
    int steps = abs(x1 - x0) > abs(y1 - y0) ? abs(x1 - x0) : abs(y1 - y0);
    for (int i = 0; i <= steps; i++) {
        double part = steps ? (double)i / steps : 0;
        set(c, c->dots, x0 + (int)lround(part * (x1 - x0)), y0 + (int)lround(part * (y1 - y0)));
    }
}

/* The means of the points that share a column of dots. */
static void trace(const Chart *in, Canvas *c)
{
    double span = in->to - in->from, sum = 0;
    int64_t count = 0;
    int wide = c->columns * c->across, at = -1, last_x = -1, last_y = 0;
    for (int64_t i = 0; i <= in->n; i++) {
        bool known = i < in->n && isfinite(in->y[i]);
        int x = known ? (int)lround(span > 0 ? (in->x[i] - in->from) / span * (wide - 1) : 0) : at;
        if (count && (x != at || i == in->n)) {
            int y = height_of(c, sum / (double)count);
            join(c, last_x < 0 ? at : last_x, last_x < 0 ? y : last_y, at, y);
            last_x = at;
            last_y = y;
            sum = 0;
            count = 0;
        }
        if (!known)
            continue;
        at = x;
        sum += in->y[i];
        count++;
    }
}

static bool find_range(const Chart *in, Canvas *c)
{
    c->low = INFINITY;
    c->high = -INFINITY;
    for (int64_t i = 0; i < in->n; i++)
        if (isfinite(in->y[i])) {
            c->low = fmin(c->low, in->y[i]);
            c->high = fmax(c->high, in->y[i]);
        }
    if (c->low > c->high)
        return false;
    if (isfinite(in->line)) {
        c->low = fmin(c->low, in->line);
        c->high = fmax(c->high, in->line);
    }
    return true;
}

static void put_cell(const Chart *in, unsigned dots, unsigned level, FILE *to)
{
    unsigned both = dots | level;
    if (in->utf8 && both)
        fprintf(to, "\342%c%c", (int)(0xa0 + (both >> 6)), (int)(0x80 + (both & 0x3f)));
    else
        fputc(dots ? '*' : level ? '-' : ' ', to);
}

void chart_draw(const Chart *in, FILE *to)
{
    Canvas c = { .across = in->utf8 ? 2 : 1, .up = in->utf8 ? 4 : 1 };
    int width = in->width < CHART_WIDTH ? CHART_WIDTH : in->width, height = in->height < 2 ? 2 : in->height;
    c.columns = width - MARGIN > MOST_WIDTH ? MOST_WIDTH : width - MARGIN;
    c.rows = height > MOST_HEIGHT ? MOST_HEIGHT : height;
    fprintf(to, "%s\n", in->title);
    if (!find_range(in, &c))
        return;
    trace(in, &c);
    if (isfinite(in->line))
        for (int x = 0; x < c.columns * c.across; x += in->utf8 ? 2 : 1)
            set(&c, c.level, x, height_of(&c, in->line));
    for (int r = 0; r < c.rows; r++) {
        int last = c.columns;
        while (last > 0 && !c.dots[r][last - 1] && !c.level[r][last - 1])
            last--;
        if (!r || r == c.rows - 1)
            fprintf(to, "%*.3g |", MARGIN - 2, r ? c.low : c.high);
        else
            fprintf(to, "%*s|", MARGIN - 1, "");
        for (int x = 0; x < last; x++)
            put_cell(in, c.dots[r][x], c.level[r][x], to);
        fputc('\n', to);
    }
}

bool chart_utf8(void)
{
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

int chart_columns(void)
{
    struct winsize w;
    const char *given = getenv("COLUMNS");
    int columns = given ? atoi(given) : 0;
    if (columns <= 0 && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w))
        columns = w.ws_col;
    return columns > 0 ? columns : 80;
}
