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

typedef struct {
    struct archive *archive;
    struct archive_entry *entry;
    char *source;
    int fd;
    unsigned char block[BLOCK];
    size_t head; /* bytes of block that were read before */
    char *name, *class_name;
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

static void archive_close(void *state)
{
    Archive *ar = state;
    archive_entry_free(ar->entry);
    if (ar->archive)
        archive_read_free(ar->archive);
    if (ar->fd >= 0)
        close(ar->fd);
    free(ar->source);
    free(ar->name);
    free(ar->class_name);
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
    return archive_read_support_format_tar(a) >= ARCHIVE_WARN;
}

void *intake_archive_open(const char *name, int fd, const void *head, size_t n)
{
    Archive *ar = calloc(1, sizeof *ar);
    if (!ar) {
        close(fd);
        err_set(ERR_MEMORY, "%s: out of memory", name);
        return NULL;
    }
    ar->fd = fd;
    ar->head = n < BLOCK ? n : BLOCK;
    memcpy(ar->block, head, ar->head);
    ar->source = strdup(name);
    ar->archive = archive_read_new();
    /* An entry of our own: libarchive makes use of its own unseen, also where there was no memory for it. */
    ar->entry = ar->archive ? archive_entry_new2(ar->archive) : NULL;
    if (!ar->source || !ar->entry)
        err_set(ERR_MEMORY, "%s: out of memory", name);
    else if (!support(ar->archive) || archive_read_open(ar->archive, ar, NULL, read_block, NULL) < ARCHIVE_WARN)
        failed(ar);
    else
        return ar;
    archive_close(ar);
    return NULL;
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

static int archive_next(void *state, IntakeItem *item)
{
    Archive *ar = state;
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
        free(ar->name);
        free(ar->class_name);
        ar->class_name = NULL;
        ar->name = strdup(name);
        if (!ar->name || intake_parent(ar->name, &ar->class_name))
            return err_set(ERR_MEMORY, "%s: out of memory", ar->source);
        *item = (IntakeItem){ ar->name, ar->class_name };
        return 1;
    }
}

static int archive_load(void *state, IntakeImage *image)
{
    Archive *ar = state;
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

const IntakeKind intake_archive = { "tar", archive_next, archive_load, NULL, archive_close };
