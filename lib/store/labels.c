#include "store/labels.h"

#include "store/dataset.h"
#include "util/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

enum { FIELDS = 64, TEXT_MAX = 1 << 30 }; /* fields of a row that are looked at; bytes of the table */

typedef struct {
    const char *name, *class_name;
    bool used;
} Row;

struct Labels {
    char *path, *text; /* rows point into it */
    Row *rows;
    size_t n, room;
    uint32_t *slots; /* open addressing: row + 1 */
    size_t n_slots;  /* a power of two, at least twice the rows */
    bool numbered;
};

/* ---------------------------------------------------------------- CSV */

typedef struct {
    const char *path;
    char *at;
    char separator;
    size_t row; /* from 1, empty ones counted */
    char *fields[FIELDS];
    int n;
} Reader;

static int read_field(Reader *r, char **field, char *end)
{
    while (*r->at == ' ')
        r->at++;
    char *start = r->at, *to = start;
    if (*r->at == '"') {
        for (r->at++; *r->at && (*r->at != '"' || r->at[1] == '"'); *to++ = *r->at++)
            r->at += *r->at == '"';
        if (!*r->at++)
            return err_set(ERR_DATA, "%s: row %zu: a quotation mark is not closed", r->path, r->row);
    }
    char *least = to;
    while (*r->at && *r->at != r->separator && *r->at != '\n')
        *to++ = *r->at++;
    *end = *r->at;
    r->at += *end != 0;
    while (to > least && (to[-1] == ' ' || to[-1] == '\r'))
        to--;
    *to = 0;
    *field = start;
    return 0;
}

/* 1: a row, 0: the end, -1. */
static int read_row(Reader *r)
{
    do {
        char end = r->separator, *field = NULL;
        if (!*r->at)
            return 0;
        r->row++;
        for (r->n = 0; end == r->separator;) {
            if (read_field(r, &field, &end))
                return -1;
            if (r->n < FIELDS)
                r->fields[r->n++] = field;
        }
    } while (r->n == 1 && !*r->fields[0]);
    return 1;
}

static char find_separator(const char *text)
{
    bool quoted = false;
    for (; *text && (quoted || *text != '\n'); text++) {
        quoted ^= *text == '"';
        if (!quoted && strchr(",;\t", *text))
            return *text;
    }
    return 0;
}

/* The column with the first of these words; -1. */
static int find_column(const Reader *r, const char *const *words)
{
    for (; *words; words++)
        for (int i = 0; i < r->n; i++)
            if (!strcasecmp(r->fields[i], *words))
                return i;
    return -1;
}

/* ---------------------------------------------------------------- the table */

static int read_text(Labels *l)
{
    size_t n = 0, room = 0;
    FILE *f = fopen(l->path, "re");
    if (!f)
        return err_system("%s", l->path);
    do {
        if (n + 1 >= room) {
            room = room ? 2 * room : 1 << 16;
            char *grown = room > TEXT_MAX ? NULL : realloc(l->text, room);
            if (!grown) {
                fclose(f);
                return err_set(room > TEXT_MAX ? ERR_DATA : ERR_MEMORY, "%s: no memory for %zu bytes of it",
                               l->path, room);
            }
            l->text = grown;
        }
        n += fread(l->text + n, 1, room - 1 - n, f);
    } while (!feof(f) && !ferror(f));
    l->text[n] = 0;
    if (ferror(f)) {
        err_system("%s", l->path);
        fclose(f);
        return -1;
    }
    fclose(f);
    return strlen(l->text) == n ? 0 : err_set(ERR_DATA, "%s: a zero byte in it: no CSV", l->path);
}

static int add_row(Labels *l, const char *name, const char *class_name)
{
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 1024;
        Row *grown = realloc(l->rows, room * sizeof *grown);
        if (!grown)
            return err_set(ERR_MEMORY, "%s: no memory for %zu rows", l->path, room);
        l->rows = grown;
        l->room = room;
    }
    while (name[0] == '.' && name[1] == '/')
        name += 2;
    l->rows[l->n++] = (Row){ name, *class_name && strcmp(class_name, "-1") ? class_name : NULL, false };
    return 0;
}

static bool is_number(const char *class_name)
{
    return !class_name || dataset_class_number(class_name) >= 0;
}

static int read_rows(Labels *l)
{
    static const char *const names[] = { "filename", "file_name", "file", "filepath", "file_path", "path",
                                         "image_path", "image", "name", "image_id", "id", NULL };
    static const char *const classes[] = { "label", "class", "class_name", "category", "target", NULL };
    Reader r = { .path = l->path, .at = l->text };
    if (!strncmp(r.at, "\xef\xbb\xbf", 3))
        r.at += 3;
    r.at += strspn(r.at, "\r\n");
    r.separator = find_separator(r.at);
    if (!r.separator)
        return err_set(ERR_DATA, "%s: no CSV: neither a comma, a semicolon nor a tab in its first row",
                       l->path);
    int rc = read_row(&r);
    if (rc < 0)
        return -1;
    int name = find_column(&r, names), class = find_column(&r, classes);
    bool first = name == 0 || (name > 0 && !*r.fields[0]); /* else it may be a class that is called so */
    bool header = name >= 0 && r.n > 1 && (class >= 0 || first);
    if (!header)
        name = 0, class = 1;
    else if (class < 0) /* called as the things themselves are, "breed" */
        class = name + 1 < r.n ? name + 1 : name - 1;
    for (rc = header ? read_row(&r) : rc; rc > 0; rc = read_row(&r)) {
        if (r.n <= name || r.n <= class)
            return err_set(ERR_DATA,
                           "%s: row %zu has %d fields: name and class are wanted in fields %d and %d",
                           l->path, r.row, r.n, name + 1, class + 1);
        if (add_row(l, r.fields[name], r.fields[class]))
            return -1;
    }
    if (rc < 0)
        return -1;
    l->numbered = l->n > 0;
    for (size_t i = 1; i < l->n; i++)
        l->numbered = l->numbered && is_number(l->rows[i].class_name);
    /* A header of other words: the only class that is not a number. */
    if (l->numbered && !header && l->n > 1 && !is_number(l->rows[0].class_name))
        memmove(l->rows, l->rows + 1, --l->n * sizeof *l->rows);
    l->numbered = l->numbered && is_number(l->rows[0].class_name);
    return l->n ? 0 : err_set(ERR_DATA, "%s: no row with a name and a class", l->path);
}

static size_t find_slot(const Labels *l, const char *name, size_t length)
{
    size_t i = XXH3_64bits(name, length) & (l->n_slots - 1);
    while (l->slots[i]) {
        const char *other = l->rows[l->slots[i] - 1].name;
        if (!strncmp(other, name, length) && !other[length])
            break;
        i = (i + 1) & (l->n_slots - 1);
    }
    return i;
}

static int index_rows(Labels *l)
{
    for (l->n_slots = 64; l->n_slots < 2 * l->n; l->n_slots *= 2) {
    }
    l->slots = calloc(l->n_slots, sizeof *l->slots);
    if (!l->slots)
        return err_set(ERR_MEMORY, "%s: no memory for %zu rows", l->path, l->n);
    for (size_t i = 0; i < l->n; i++) {
        const Row *row = &l->rows[i];
        size_t slot = find_slot(l, row->name, strlen(row->name));
        const Row *other = l->slots[slot] ? &l->rows[l->slots[slot] - 1] : NULL;
        if (other &&
            strcmp(other->class_name ? other->class_name : "", row->class_name ? row->class_name : ""))
            return err_set(ERR_DATA, "%s: two classes for %.200s: %.100s and %.100s", l->path, row->name,
                           other->class_name ? other->class_name : "none",
                           row->class_name ? row->class_name : "none");
        if (other)
            l->rows[i].used = true; /* said twice; the first one counts */
        else
            l->slots[slot] = (uint32_t)i + 1;
    }
    return 0;
}

Labels *labels_read(const char *path)
{
    Labels *l = calloc(1, sizeof *l);
    if (!l || !(l->path = strdup(path)))
        err_set(ERR_MEMORY, "%s: out of memory", path);
    else if (!read_text(l) && !read_rows(l) && !index_rows(l))
        return l;
    labels_free(l);
    return NULL;
}

void labels_free(Labels *l)
{
    if (!l)
        return;
    free(l->path);
    free(l->text);
    free(l->rows);
    free(l->slots);
    free(l);
}

bool labels_numbered(const Labels *l)
{
    return l->numbered;
}

int labels_find(Labels *l, const char *name, const char **class_name)
{
    const char *file = strrchr(name, '/'), *dot;
    file = file ? file + 1 : name;
    dot = strrchr(file, '.');
    uint32_t row = l->slots[find_slot(l, name, strlen(name))];
    row = row ? row : l->slots[find_slot(l, file, strlen(file))];
    row = row || !dot ? row : l->slots[find_slot(l, file, (size_t)(dot - file))];
    *class_name = row ? l->rows[row - 1].class_name : NULL;
    if (row)
        l->rows[row - 1].used = true;
    return row > 0;
}

int64_t labels_unused(const Labels *l, const char **first)
{
    int64_t n = 0;
    *first = NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (!l->rows[i].used && !n++)
            *first = l->rows[i].name;
    }
    return n;
}
