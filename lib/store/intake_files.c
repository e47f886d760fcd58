/* Folders and lists of files. */
#include "store/intake_kinds.h"
#include "util/err.h"
#include "util/idset.h"
#include "util/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* ---------------------------------------------------------------- a folder */

typedef struct {
    char **name;
    size_t n, room;
} Names;

typedef struct {
    char *root;
    Names names; /* paths below root, in order */
    size_t next;
    char *path, *mark;
    bool marks;          /* X.cls marks X.*; then whether there is any */
    IdSet walked, least; /* folders: those read, and by how few links each is reached */
    bool surveyed;       /* least is known */
    int64_t detours;
} Folder;

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int add(const Folder *f, Names *to, const char *name)
{
    if (to->n == to->room) {
        size_t room = to->room ? 2 * to->room : 1024;
        char **grown = realloc(to->name, room * sizeof *grown);
        if (!grown)
            return err_set(ERR_MEMORY, "%s: no memory for %zu names", f->root, room);
        to->name = grown;
        to->room = room;
    }
    to->name[to->n] = strdup(name);
    return to->name[to->n++] ? 0 : err_set(ERR_MEMORY, "%s: out of memory", f->root);
}

static void drop(Names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->name[i]);
    free(names->name);
    *names = (Names){ .name = NULL };
}

/* Of a folder, and how many links lead to it. */
static uint64_t identity(const struct stat *st, uint64_t links)
{
    uint64_t id[3] = { st->st_dev, st->st_ino, links };
    return XXH3_64bits(id, sizeof id);
}

static bool hidden(FTS *fts, FTSENT *e)
{
    bool is = e->fts_level > 0 && e->fts_name[0] == '.';
    if (is)
        fts_set(fts, e, FTS_SKIP);
    return is;
}

/* All folders below a path that no path before had; further is for the links to folders there. */
static int survey_from(Folder *f, char *path, uint64_t links, IdSet *seen, Names *further)
{
    char *roots[] = { path, NULL };
    struct stat st;
    FTSENT *e;
    int rc = 0;
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    if (!fts)
        return err_system("%s", path);
    while (rc >= 0 && !stop_signal() && (e = fts_read(fts))) {
        bool link = e->fts_info == FTS_SL;
        if (hidden(fts, e) || (e->fts_info != FTS_D && !link) || stat(e->fts_accpath, &st) ||
            !S_ISDIR(st.st_mode))
            continue;
        if (link) {
            rc = add(f, further, e->fts_path);
            continue;
        }
        rc = idset_add(seen, identity(&st, 0));
        if (!rc)
            fts_set(fts, e, FTS_SKIP);
        else if (rc > 0)
            rc = idset_add(&f->least, identity(&st, links));
    }
    fts_close(fts);
    return rc < 0 ? -1 : 0;
}

/* By how few links each folder is reached. Only who meets a link needs to know. */
static int survey(Folder *f)
{
    IdSet seen = { 0 };
    Names ways = { .name = NULL }, further = { .name = NULL };
    int rc = add(f, &ways, f->root);
    for (uint64_t links = 0; !rc && ways.n; links++) {
        for (size_t i = 0; !rc && i < ways.n; i++)
            rc = survey_from(f, ways.name[i], links, &seen, &further);
        drop(&ways);
        ways = further;
        further = (Names){ .name = NULL };
    }
    drop(&ways);
    drop(&further);
    idset_free(&seen);
    f->surveyed = true;
    return rc;
}

/* Whether this folder is to be read: 1, 0 or -1. Of several ways to it the one with the fewest links is
 * taken, and of these the first. */
static int is_way(Folder *f, FTSENT *e)
{
    struct stat st, own;
    if (lstat(e->fts_accpath, &own) || stat(e->fts_accpath, &st))
        return 1; /* fts says why it can't be read */
    e->fts_number = e->fts_level > 0 ? e->fts_parent->fts_number + S_ISLNK(own.st_mode) : 0;
    if (e->fts_number && !f->surveyed && survey(f))
        return -1;
    if (e->fts_number && !idset_has(&f->least, identity(&st, (uint64_t)e->fts_number)))
        return 0;
    return idset_add(&f->walked, identity(&st, 0));
}

static int list(Folder *f)
{
    char *roots[] = { f->root, NULL };
    size_t skip = strlen(f->root);
    bool marks = f->marks;
    FTSENT *e;
    int rc = 0;
    f->marks = false;
    FTS *fts = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR | FTS_NOSTAT, by_name);
    if (!fts)
        return err_system("%s", f->root);
    while (!rc && !stop_signal() && (errno = 0, e = fts_read(fts))) {
        int way = 1;
        if (hidden(fts, e))
            continue;
        switch (e->fts_info) {
        case FTS_D:
            way = is_way(f, e);
            rc = way < 0 ? -1 : 0;
            if (!way)
                fts_set(fts, e, FTS_SKIP);
            break;
        case FTS_DP:
            break;
        case FTS_DC: /* a link back to where we come from */
            way = 0;
            break;
        case FTS_DNR:
            if (e->fts_level == 0) {
                rc = err_set(ERR_SYSTEM, "%s: %s", f->root, strerror(e->fts_errno));
                break;
            }
            /* fallthrough */
        default:
            if (marks && intake_is_mark(e->fts_name))
                f->marks = true;
            else
                rc = add(f, &f->names, e->fts_path + skip + strspn(e->fts_path + skip, "/"));
        }
        f->detours += !way;
    }
    if (!rc && errno)
        rc = err_system("%s", f->root);
    fts_close(fts);
    return rc;
}

static void folder_close(void *state)
{
    Folder *f = state;
    drop(&f->names);
    idset_free(&f->walked);
    idset_free(&f->least);
    free(f->mark);
    free(f->path);
    free(f->root);
    free(f);
}

void *intake_folder_open(const char *path, bool marks)
{
    Folder *f = calloc(1, sizeof *f);
    if (!f || !(f->root = strdup(path))) {
        free(f);
        err_set(ERR_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    f->marks = marks;
    for (size_t n = strlen(path); n > 1 && f->root[n - 1] == '/'; n--)
        f->root[n - 1] = 0;
    if (!list(f))
        return f;
    folder_close(f);
    return NULL;
}

/* The path of the first n bytes of a name, and more behind them. */
static int make_path(Folder *f, const char *name, size_t n, const char *more)
{
    size_t room = strlen(f->root) + n + strlen(more) + 2;
    char *path = realloc(f->path, room);
    if (!path)
        return err_set(ERR_MEMORY, "out of memory");
    f->path = path;
    snprintf(path, room, "%s/%.*s%s", f->root, (int)n, name, more);
    return 0;
}

/* Up to size bytes of the file at f->path; -1 where that can't be. */
static ssize_t read_head(const Folder *f, void *to, size_t size)
{
    struct stat st;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    ssize_t n = fstat(fd, &st) || !S_ISREG(st.st_mode) ? -1 : pread(fd, to, size, 0);
    close(fd);
    return n;
}

static int find_mark(Folder *f, const char *name)
{
    char text[INTAKE_MARK_MAX];
    struct stat st;
    free(f->mark);
    f->mark = NULL;
    if (make_path(f, name, intake_key(name), ".cls"))
        return -1;
    if (lstat(f->path, &st) || S_ISDIR(st.st_mode))
        return 0;
    f->mark = intake_mark(text, read_head(f, text, sizeof text));
    return f->mark ? 0 : err_set(ERR_MEMORY, "out of memory");
}

static int folder_next(void *state, IntakeItem *item)
{
    Folder *f = state;
    if (f->next == f->names.n)
        return 0;
    const char *name = f->names.name[f->next++];
    if (f->marks && find_mark(f, name))
        return -1;
    *item = (IntakeItem){ .name = name, .mark = f->mark };
    return 1;
}

static int folder_load(void *state, IntakeImage *image)
{
    Folder *f = state;
    const char *name = f->names.name[f->next - 1];
    return make_path(f, name, strlen(name), "") ? -1 : intake_read_file(f->path, image);
}

static int is_image(void *state)
{
    Folder *f = state;
    unsigned char head[16];
    const char *name = f->names.name[f->next];
    if (make_path(f, name, strlen(name), ""))
        return -1;
    ssize_t n = read_head(f, head, sizeof head);
    return n > 0 && intake_is_image(head, (size_t)n);
}

int intake_folder_parting(void *state, IntakeParting *p)
{
    Folder *f = state;
    int rc = 0;
    for (f->next = 0; !rc && f->next < f->names.n && !stop_signal() && !(p->deeper && !p->common); f->next++)
        rc = intake_parting_see(p, f->names.name[f->next], is_image, f);
    f->next = 0;
    return rc;
}

int64_t intake_folder_detours(const void *state)
{
    return ((const Folder *)state)->detours;
}

static int64_t folder_total(const void *state)
{
    return (int64_t)((const Folder *)state)->names.n;
}

const IntakeKind intake_folder = { "folder", folder_next, folder_load, folder_total, folder_close };

/* ---------------------------------------------------------------- a list */

typedef struct {
    int fd;
    FILE *file; /* reads fd */
    char *head; /* what was read before */
    size_t head_size, at;
    char *name;
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
    *item = (IntakeItem){ .name = l->name };
    return 1;
}

static int list_load(void *state, IntakeImage *image)
{
    return intake_read_file(((List *)state)->name, image);
}

const IntakeKind intake_list = { "list of files", list_next, list_load, NULL, list_close };
