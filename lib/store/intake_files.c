/* Folders and lists of files. */
#include "store/intake_kinds.h"
#include "util/err.h"
#include "util/stop.h"

#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- a folder */

typedef struct {
    char *root;
    char **names; /* paths below root, in order */
    size_t n, room, next;
    char *class_name, *path;
} Folder;

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int add(Folder *f, const char *name)
{
    if (f->n == f->room) {
        size_t room = f->room ? 2 * f->room : 1024;
        char **grown = realloc(f->names, room * sizeof *grown);
        if (!grown)
            return err_set(ERR_MEMORY, "%s: no memory for %zu names", f->root, room);
        f->names = grown;
        f->room = room;
    }
    f->names[f->n] = strdup(name);
    return f->names[f->n++] ? 0 : err_set(ERR_MEMORY, "%s: out of memory", f->root);
}

static int list(Folder *f)
{
    char *roots[] = { f->root, NULL };
    size_t skip = strlen(f->root);
    FTSENT *e;
    int rc = 0;
    FTS *fts = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR | FTS_NOSTAT, by_name);
    if (!fts)
        return err_system("%s", f->root);
    while (!rc && !stop_signal() && (errno = 0, e = fts_read(fts))) {
        if (e->fts_level > 0 && e->fts_name[0] == '.') {
            fts_set(fts, e, FTS_SKIP);
            continue;
        }
        switch (e->fts_info) {
        case FTS_D:
        case FTS_DP:
        case FTS_DC: /* a link back to where we come from */
            break;
        case FTS_DNR:
            if (e->fts_level == 0) {
                rc = err_set(ERR_SYSTEM, "%s: %s", f->root, strerror(e->fts_errno));
                break;
            }
            /* fallthrough */
        default:
            rc = add(f, e->fts_path + skip + strspn(e->fts_path + skip, "/"));
        }
    }
    if (!rc && errno)
        rc = err_system("%s", f->root);
    fts_close(fts);
    return rc;
}

static void folder_close(void *state)
{
    Folder *f = state;
    for (size_t i = 0; i < f->n; i++)
        free(f->names[i]);
    free(f->names);
    free(f->class_name);
    free(f->path);
    free(f->root);
    free(f);
}

void *intake_folder_open(const char *path)
{
    Folder *f = calloc(1, sizeof *f);
    if (!f || !(f->root = strdup(path))) {
        free(f);
        err_set(ERR_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    for (size_t n = strlen(path); n > 1 && f->root[n - 1] == '/'; n--)
        f->root[n - 1] = 0;
    if (!list(f))
        return f;
    folder_close(f);
    return NULL;
}

static int folder_next(void *state, IntakeItem *item)
{
    Folder *f = state;
    if (f->next == f->n)
        return 0;
    const char *name = f->names[f->next++];
    free(f->class_name);
    if (intake_parent(name, &f->class_name))
        return -1;
    *item = (IntakeItem){ name, f->class_name };
    return 1;
}

static int folder_load(void *state, IntakeImage *image)
{
    Folder *f = state;
    const char *name = f->names[f->next - 1];
    size_t n = strlen(f->root) + strlen(name) + 2;
    char *path = realloc(f->path, n);
    if (!path)
        return err_set(ERR_MEMORY, "out of memory");
    f->path = path;
    snprintf(path, n, "%s/%s", f->root, name);
    return intake_read_file(path, image);
}

static int64_t folder_total(const void *state)
{
    return (int64_t)((const Folder *)state)->n;
}

const IntakeKind intake_folder = { "folder", folder_next, folder_load, folder_total, folder_close };

/* ---------------------------------------------------------------- a list */

typedef struct {
    int fd;
    FILE *file; /* reads fd */
    char *head; /* what was read before */
    size_t head_size, at;
    char *name, *class_name;
    size_t n, room;
    int end; /* the byte that ends a name */
} List;

static void list_close(void *state)
{
    List *l = state;
    if (l->file)
        fclose(l->file);
    close(l->fd);
    free(l->head);
    free(l->name);
    free(l->class_name);
    free(l);
}

static ssize_t list_read(void *state, char *to, size_t n)
{
    return stop_read(((List *)state)->fd, to, n);
}

void *intake_list_open(int fd, bool nul, const void *head, size_t n)
{
    List *l = calloc(1, sizeof *l);
    if (l)
        l->fd = fd;
    else
        close(fd);
    if (!l || !(l->head = malloc(n + 1)) ||
        !(l->file = fopencookie(l, "r", (cookie_io_functions_t){ .read = list_read }))) {
        if (l)
            list_close(l);
        err_set(ERR_MEMORY, "standard input: out of memory");
        return NULL;
    }
    memcpy(l->head, head, n);
    l->head_size = n;
    l->end = nul ? 0 : '\n';
    return l;
}

static int next_byte(List *l)
{
    return l->at < l->head_size ? (unsigned char)l->head[l->at++] : getc_unlocked(l->file);
}

static int read_name(List *l)
{
    int c;
    l->n = 0;
    while ((c = next_byte(l)) != EOF && c != l->end) {
        if (l->n + 2 > l->room) {
            size_t room = l->room ? 2 * l->room : 256;
            char *grown = room > 1 << 20 ? NULL : realloc(l->name, room);
            if (!grown)
                return err_set(ERR_DATA, "standard input: not a list of files: a name of more than %zu bytes", l->n);
            l->name = grown;
            l->room = room;
        }
        if (!c)
            return err_set(ERR_DATA, "standard input: a zero byte in a name; for names ended by zero bytes give -0");
        l->name[l->n++] = (char)c;
    }
    if (c == EOF && ferror(l->file))
        return err_system("standard input");
    return c != EOF || l->n;
}

static int list_next(void *state, IntakeItem *item)
{
    List *l = state;
    int rc;
    do {
        rc = read_name(l);
        if (rc <= 0)
            return rc;
        if (l->n && !l->end && l->name[l->n - 1] == '\n')
            return err_set(ERR_DATA, "standard input: names ended by line breaks; leave out -0");
        if (l->n && l->end && l->name[l->n - 1] == '\r')
            l->n--;
    } while (!l->n);
    l->name[l->n] = 0;
    free(l->class_name);
    if (intake_parent(l->name, &l->class_name))
        return -1;
    *item = (IntakeItem){ l->name, l->class_name };
    return 1;
}

static int list_load(void *state, IntakeImage *image)
{
    return intake_read_file(((List *)state)->name, image);
}

const IntakeKind intake_list = { "list of files", list_next, list_load, NULL, list_close };
