/* Tars, compressed or not, by libarchive. Nothing is unpacked to the disk: names in the archive are names only. */
#include "store/intake_kinds.h"
#include "util/err.h"
#include "util/stop.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 1 << 16, MOST_TRIES = 64 };

/* One that was read. Its mark may come behind it, so it waits until its sample is over: files of a sample
 * stand together. */
typedef struct {
    char *name, *mark;
    IntakeImage image;
    char *bad; /* why there is no image */
} Held;

enum { HELD = 64, HELD_BYTES = 64 << 20 }; /* a sample of more is not waited for */

typedef struct {
    struct archive *archive;
    struct archive_entry *entry;
    char *source;
    int fd;
    unsigned char block[BLOCK];
    size_t head; /* bytes of block that were read before */
    bool marks, ended;
    char *key, *mark; /* of the sample that is being read */
    Held held[HELD], current;
    int n, ready; /* held; and the first of them that wait for nothing */
    size_t bytes; /* of all that are held */
    char *why;    /* the error that follows the last of them */
} Archive;

static la_ssize_t read_block(struct archive *a, void *state, const void **out)
{
    Archive *ar = state;
    *out = ar->block;
    if (ar->head) {
        la_ssize_t n = (la_ssize_t)ar->head;
        ar->head = 0;
        return n;
    }
    ssize_t n = stop_read(ar->fd, ar->block, BLOCK);
    if (n < 0)
        archive_set_error(a, errno, "%s", strerror(errno));
    return n;
}

static la_int64_t skip_bytes(struct archive *a, void *state, la_int64_t n)
{
    Archive *ar = state;
    (void)a;
    return lseek(ar->fd, n, SEEK_CUR) < 0 ? 0 : n;
}

static void drop(Held *h)
{
    free(h->name);
    free(h->mark);
    free(h->image.bytes);
    free(h->bad);
    *h = (Held){ .name = NULL };
}

static void archive_close(void *state)
{
    Archive *ar = state;
    archive_entry_free(ar->entry);
    if (ar->archive)
        archive_read_free(ar->archive);
    if (ar->fd >= 0)
        close(ar->fd);
    for (int i = 0; i < ar->n; i++)
        drop(&ar->held[i]);
    drop(&ar->current);
    free(ar->key);
    free(ar->mark);
    free(ar->why);
    free(ar->source);
    free(ar);
}

static int failed(const Archive *ar)
{
    const char *why = archive_error_string(ar->archive);
    return err_set(ERR_DATA, "%s: %s", ar->source, why ? why : "the tar can't be read");
}

/* Those that is_archive() knows. Not archive_read_support_filter_all(): it starts programs for some. */
static bool support(struct archive *a)
{
    int (*const filters[])(struct archive *) = { archive_read_support_filter_gzip, archive_read_support_filter_bzip2,
                                                 archive_read_support_filter_xz, archive_read_support_filter_zstd };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (filters[i](a) != ARCHIVE_OK)
            return false;
    /* What cat makes of several is one: an end in the middle is no end. */
    return archive_read_support_format_tar(a) >= ARCHIVE_WARN &&
           archive_read_set_format_option(a, "tar", "read_concatenated_archives", "1") == ARCHIVE_OK;
}

static Archive *start(const char *name, int fd, const void *head, size_t n, bool skips)
{
    Archive *ar = calloc(1, sizeof *ar);
    if (!ar) {
        close(fd);
        err_set(ERR_MEMORY, "%s: out of memory", name);
        return NULL;
    }
    ar->fd = fd;
    ar->head = n < BLOCK ? n : BLOCK;
    if (n)
        memcpy(ar->block, head, ar->head);
    ar->source = strdup(name);
    ar->archive = archive_read_new();
    /* An entry of our own: libarchive makes use of its own unseen, also where there was no memory for it. */
    ar->entry = ar->archive ? archive_entry_new2(ar->archive) : NULL;
    if (!ar->source || !ar->entry)
        err_set(ERR_MEMORY, "%s: out of memory", name);
    else if (!support(ar->archive) || archive_read_open2(ar->archive, ar, NULL, read_block,
                                                         skips ? skip_bytes : NULL, NULL) < ARCHIVE_WARN)
        failed(ar);
    else
        return ar;
    archive_close(ar);
    return NULL;
}

void *intake_archive_open(const char *name, int fd, const void *head, size_t n, bool marks)
{
    Archive *ar = start(name, fd, head, n, false);
    if (ar)
        ar->marks = marks;
    return ar;
}

static bool hidden(const char *name)
{
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (*p == '.' && p[1] && p[1] != '/' && !(p[1] == '.' && (!p[2] || p[2] == '/')))
            return true;
    }
    return false;
}

/* The next file that isn't hidden. 1, 0 at the end, or -1. */
static int next_file(Archive *ar, const char **out)
{
    int tries = 0;
    for (;;) {
        int rc = archive_read_next_header2(ar->archive, ar->entry);
        if (rc == ARCHIVE_EOF)
            return 0;
        if (rc == ARCHIVE_RETRY && tries++ < MOST_TRIES)
            continue;
        if (rc < ARCHIVE_WARN)
            return failed(ar);
        if (archive_entry_filetype(ar->entry) == AE_IFDIR)
            continue;
        /* In a locale without UTF-8 libarchive does not give such names as plain text. */
        const char *name = archive_entry_pathname(ar->entry);
        name = name ? name : archive_entry_pathname_utf8(ar->entry);
        if (!name)
            name = "(a name that can't be read)";
        while (name[0] == '.' && name[1] == '/')
            name += 2;
        if (hidden(name))
            continue;
        *out = name;
        return 1;
    }
}

static int read_entry(Archive *ar, IntakeImage *image)
{
    size_t n = 0, room = 0;
    char *bytes = NULL;
    if (archive_entry_hardlink(ar->entry) || archive_entry_symlink(ar->entry))
        return err_set(ERR_DATA, "a link; its bytes are not in the tar (tar -h --hard-dereference puts them there)");
    if (archive_entry_filetype(ar->entry) != AE_IFREG)
        return err_set(ERR_DATA, "not a regular file");
    if (archive_entry_size_is_set(ar->entry) && archive_entry_size(ar->entry) > INTAKE_IMAGE_MAX)
        return err_set(ERR_DATA, "%lld bytes are too many for an image", (long long)archive_entry_size(ar->entry));
    for (;;) {
        if (n == room) {
            /* The announced size may be a lie: memory follows what is really there. */
            room = room ? 2 * room : BLOCK;
            char *grown = n >= INTAKE_IMAGE_MAX ? NULL : realloc(bytes, room);
            if (!grown) {
                free(bytes);
                if (n >= INTAKE_IMAGE_MAX)
                    return err_set(ERR_DATA, "more than %d bytes are too many for an image", INTAKE_IMAGE_MAX);
                return err_set(ERR_MEMORY, "no memory for %zu bytes", room);
            }
            bytes = grown;
        }
        la_ssize_t got = archive_read_data(ar->archive, bytes + n, room - n);
        if (got < 0) { /* ARCHIVE_RETRY, too: some damage makes it the answer for ever */
            const char *why = archive_error_string(ar->archive);
            free(bytes);
            return err_set(ERR_DATA, "%s", why ? why : "can't be read from the tar");
        }
        if (!got)
            break;
        n += (size_t)got;
    }
    *image = (IntakeImage){ .bytes = bytes, .size = n };
    return 0;
}

static int no_memory(const Archive *ar)
{
    return err_set(ERR_MEMORY, "%s: out of memory", ar->source);
}

/* Those that waited get the mark, or go without one. */
static int let_go(Archive *ar)
{
    for (; ar->ready < ar->n; ar->ready++)
        if (ar->mark && !(ar->held[ar->ready].mark = strdup(ar->mark)))
            return no_memory(ar);
    return 0;
}

/* The file belongs to this sample; the one before is over. */
static int begin_sample(Archive *ar, const char *name)
{
    size_t n = intake_key(name);
    if (ar->key && !strncmp(ar->key, name, n) && !ar->key[n])
        return 0;
    if (let_go(ar))
        return -1;
    free(ar->key);
    free(ar->mark);
    ar->mark = NULL;
    ar->key = strndup(name, n);
    return ar->key ? 0 : no_memory(ar);
}

static int read_mark(Archive *ar)
{
    IntakeImage text;
    if (read_entry(ar, &text))
        text = (IntakeImage){ .bytes = NULL };
    free(ar->mark);
    ar->mark = intake_mark(text.bytes, text.bytes ? (ssize_t)text.size : -1);
    free(text.bytes);
    return ar->mark ? let_go(ar) : no_memory(ar);
}

/* Reads one file. 1, 0 at the end, or -1. */
static int read_on(Archive *ar)
{
    const char *name;
    int rc = next_file(ar, &name);
    if (rc <= 0)
        return rc;
    if (ar->marks && begin_sample(ar, name))
        return -1;
    if (ar->marks && intake_is_mark(name))
        return read_mark(ar) ? -1 : 1;
    Held *h = &ar->held[ar->n];
    h->name = strdup(name);
    if (!h->name)
        return no_memory(ar);
    ar->n++;
    if (read_entry(ar, &h->image) && !(h->bad = strdup(err_text())))
        return no_memory(ar);
    ar->bytes += h->image.size;
    return (!ar->marks || ar->mark || ar->n == HELD || ar->bytes > HELD_BYTES) && let_go(ar) ? -1 : 1;
}

static int archive_next(void *state, IntakeItem *item)
{
    Archive *ar = state;
    while (!ar->ready && !ar->ended) {
        int rc = read_on(ar);
        if (rc > 0)
            continue;
        ar->ended = true;
        if (rc < 0 && !(ar->why = strdup(err_text())))
            return no_memory(ar);
        if (let_go(ar))
            return -1;
    }
    if (!ar->ready)
        return ar->why ? err_set(ERR_DATA, "%s", ar->why) : 0;
    drop(&ar->current);
    ar->current = ar->held[0];
    ar->bytes -= ar->current.image.size;
    ar->ready--;
    memmove(ar->held, ar->held + 1, (size_t)--ar->n * sizeof *ar->held);
    ar->held[ar->n] = (Held){ .name = NULL };
    *item = (IntakeItem){ .name = ar->current.name, .mark = ar->current.mark };
    return 1;
}

static int archive_load(void *state, IntakeImage *image)
{
    Archive *ar = state;
    if (ar->current.bad)
        return err_set(ERR_DATA, "%s", ar->current.bad);
    *image = ar->current.image;
    ar->current.image = (IntakeImage){ .bytes = NULL };
    return 0;
}

static int entry_is_image(void *arg)
{
    const Archive *ar = arg;
    unsigned char head[16];
    if (archive_entry_filetype(ar->entry) != AE_IFREG)
        return 0;
    la_ssize_t n = archive_read_data(ar->archive, head, sizeof head);
    return n > 0 && intake_is_image(head, (size_t)n);
}

int intake_archive_parting(int fd, IntakeParting *p)
{
    const char *name;
    int own = dup(fd), rc = 0;
    if (own < 0)
        return err_system("tar");
    Archive *ar = start("tar", own, NULL, 0, true);
    if (!ar)
        return err_code() == ERR_MEMORY ? -1 : 0;
    /* Images in different folders of the first level: there is no more to know. */
    while (!rc && !stop_signal() && !(p->deeper && !p->common) && next_file(ar, &name) > 0)
        rc = intake_parting_see(p, name, entry_is_image, ar);
    archive_close(ar);
    return rc;
}

const IntakeKind intake_archive = { "tar", archive_next, archive_load, NULL, archive_close };
