#include "store/intake.h"

#include "store/intake_kinds.h"
#include "util/err.h"
#include "util/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct Intake {
    const IntakeKind *kind;
    void *state;
    int level; /* 0: classes come with the images */
    char *class_name;
};

int intake_read_file(const char *path, IntakeImage *image)
{
    struct stat st;
    size_t room, n = 0;
    char *bytes = NULL;
    /* Not blocking: a pipe without a writer must not hang us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(ERR_SYSTEM, "%s", strerror(errno));
    if (fstat(fd, &st)) {
        err_set(ERR_SYSTEM, "%s", strerror(errno));
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(ERR_DATA, S_ISDIR(st.st_mode) ? "is a directory" : "not a regular file");
        goto fail;
    }
    if (st.st_size > INTAKE_IMAGE_MAX) {
        err_set(ERR_DATA, "%lld bytes are too many for an image", (long long)st.st_size);
        goto fail;
    }
    room = (size_t)st.st_size;
    bytes = malloc(room + 1);
    if (!bytes) {
        err_set(ERR_MEMORY, "no memory for %zu bytes", room);
        goto fail;
    }
    while (n < room) {
        ssize_t got = read(fd, bytes + n, room - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            err_set(ERR_SYSTEM, "%s", strerror(errno));
            goto fail;
        }
        if (!got)
            break; /* it shrank meanwhile */
        n += (size_t)got;
    }
    close(fd);
    *image = (IntakeImage){ .bytes = bytes, .size = n };
    return 0;
fail:
    free(bytes);
    close(fd);
    return -1;
}

bool intake_is_image(const void *bytes, size_t n)
{
    return (n >= 3 && !memcmp(bytes, "\xff\xd8\xff", 3)) ||
           (n >= 8 && !memcmp(bytes, "\x89PNG\r\n\x1a\n", 8));
}

static bool is_archive(const unsigned char *p, size_t n)
{
    static const struct {
        const char *bytes;
        size_t n;
    } magics[] = { { "\x1f\x8b", 2 }, { "BZh", 3 }, { "\xfd" "7zXZ", 5 }, { "\x28\xb5\x2f\xfd", 4 } };
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (n >= magics[i].n && !memcmp(p, magics[i].bytes, magics[i].n))
            return true;
    /* A tar begins with a header of 512 bytes, of which some are always zero. */
    return n >= 262 && !memcmp(p + 257, "ustar", 5);
}

static size_t read_head(int fd, unsigned char *head, size_t room)
{
    size_t n = 0;
    while (n < room) {
        ssize_t got = stop_read(fd, head + n, room - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    return n;
}

static int take_level(Intake *in, IntakeParting *p, int rc)
{
    in->level = intake_parting_level(p);
    intake_parting_free(p);
    return rc;
}

/* n bytes were read from fd. */
static int open_archive(Intake *in, const char *name, int fd, const void *head, size_t n,
                        const IntakeHow *how)
{
    struct stat st;
    if (!in->level && !fstat(fd, &st) && S_ISREG(st.st_mode)) {
        IntakeParting parting = { .chain = NULL };
        off_t at = lseek(fd, 0, SEEK_CUR);
        int rc = 0;
        if (lseek(fd, at - (off_t)n, SEEK_SET) >= 0)
            rc = take_level(in, &parting, intake_archive_parting(fd, &parting));
        if (!rc && lseek(fd, at, SEEK_SET) < 0)
            rc = err_system("%s", name);
        if (rc) {
            close(fd);
            return -1;
        }
    }
    if (!in->level)
        in->level = -1;
    in->kind = &intake_archive;
    in->state = intake_archive_open(name, fd, head, n, how->marks);
    return in->state ? 0 : -1;
}

static int open_stdin(Intake *in, const IntakeHow *how)
{
    unsigned char head[512];
    if (isatty(STDIN_FILENO))
        return err_set(ERR_USAGE, "standard input is a terminal; feed a tar or a list of files, as in: "
                                  "find photos -name '*.jpg' | hssl-import - photos.db");
    int fd = dup(STDIN_FILENO);
    if (fd < 0)
        return err_system("standard input");
    size_t n = read_head(fd, head, sizeof head);
    if (!n) {
        close(fd);
        return err_set(ERR_DATA, "standard input: nothing there; a tar or a list of files is wanted");
    }
    if (!how->nul && is_archive(head, n))
        return open_archive(in, "standard input", fd, head, n, how);
    if (!how->nul && memchr(head, 0, n)) {
        close(fd);
        return err_set(ERR_DATA,
                       "standard input: neither a tar nor lines of text; for names ended by zero bytes give -0");
    }
    if (!in->level)
        in->level = -1;
    in->kind = &intake_list;
    in->state = intake_list_open(fd, how->nul, head, n);
    return in->state ? 0 : -1;
}

static int open_folder(Intake *in, const char *path, const IntakeHow *how)
{
    IntakeParting parting = { .chain = NULL };
    in->kind = &intake_folder;
    in->state = intake_folder_open(path, how->marks);
    if (!in->state || in->level)
        return in->state ? 0 : -1;
    if (!take_level(in, &parting, intake_folder_parting(in->state, &parting)))
        return 0;
    in->kind->close(in->state);
    return -1;
}

static int open_path(Intake *in, const char *path, const IntakeHow *how)
{
    struct stat st;
    unsigned char head[512];
    if (stat(path, &st))
        return errno == ENOENT ? err_set(ERR_ABSENT, "%s: no such file or folder", path) : err_system("%s", path);
    if (intake_is_cifar(path)) {
        in->kind = &intake_cifar;
        in->level = 0;
        in->state = intake_cifar_open(path);
        return in->state ? 0 : -1;
    }
    if (S_ISDIR(st.st_mode))
        return open_folder(in, path, how);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* nor may a pipe without a writer keep a signal waiting */
    if (fd < 0)
        return err_system("%s", path);
    size_t n = read_head(fd, head, sizeof head);
    if (is_archive(head, n))
        return open_archive(in, path, fd, head, n, how);
    close(fd);
    if (n >= 4 && (!memcmp(head, "\xff\xd8\xff", 3) || !memcmp(head, "\x89PNG", 4)))
        return err_set(ERR_DATA, "%s: an image; a SOURCE is a folder, a tar or a list: "
                                 "printf '%%s\\n' IMAGE... | hssl-import - OUT.db", path);
    return err_set(ERR_DATA, "%s: neither a folder, a tar nor a CIFAR binary; a list of files goes to standard input: "
                             "hssl-import - OUT.db < %s", path, path);
}

Intake *intake_open(const char *source, const IntakeHow *how)
{
    Intake *in = calloc(1, sizeof *in);
    if (!in) {
        err_set(ERR_MEMORY, "%s: out of memory", source);
        return NULL;
    }
    in->level = how->level;
    if (strcmp(source, "-") ? open_path(in, source, how) : open_stdin(in, how)) {
        free(in);
        return NULL;
    }
    return in;
}

void intake_close(Intake *in)
{
    if (!in)
        return;
    in->kind->close(in->state);
    free(in->class_name);
    free(in);
}

const char *intake_kind(const Intake *in)
{
    return in->kind->name;
}

int64_t intake_total(const Intake *in)
{
    return in->kind->total ? in->kind->total(in->state) : 0;
}

int intake_level(const Intake *in)
{
    return in->level;
}

int64_t intake_detours(const Intake *in)
{
    return in->kind == &intake_folder ? intake_folder_detours(in->state) : 0;
}

int intake_next(Intake *in, IntakeItem *item)
{
    *item = (IntakeItem){ NULL, NULL, NULL };
    int rc = in->kind->next(in->state, item);
    if (rc <= 0 || !in->level)
        return rc;
    free(in->class_name);
    if (intake_folder_at(item->name, in->level, &in->class_name))
        return -1;
    item->class_name = in->class_name;
    return 1;
}

int intake_load(Intake *in, IntakeImage *image)
{
    *image = (IntakeImage){ 0 };
    return in->kind->load(in->state, image);
}
