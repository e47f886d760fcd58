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

int intake_parent(const char *path, char **out)
{
    const char *end = strrchr(path, '/'), *start;
    *out = NULL;
    while (end && end > path && end[-1] == '/')
        end--;
    if (!end || end == path)
        return 0;
    for (start = end; start > path && start[-1] != '/'; start--) {
    }
    size_t n = (size_t)(end - start);
    if (n == 1 && *start == '.')
        return 0;
    *out = strndup(start, n);
    return *out ? 0 : err_set(ERR_MEMORY, "out of memory");
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

static int open_stdin(Intake *in, bool nul)
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
    if (!nul && is_archive(head, n)) {
        in->kind = &intake_archive;
        in->state = intake_archive_open("standard input", fd, head, n);
    } else if (!nul && memchr(head, 0, n)) {
        close(fd);
        return err_set(ERR_DATA,
                       "standard input: neither a tar nor lines of text; for names ended by zero bytes give -0");
    } else {
        in->kind = &intake_list;
        in->state = intake_list_open(fd, nul, head, n);
    }
    return in->state ? 0 : -1;
}

static int open_path(Intake *in, const char *path)
{
    struct stat st;
    unsigned char head[512];
    if (stat(path, &st))
        return errno == ENOENT ? err_set(ERR_ABSENT, "%s: no such file or folder", path) : err_system("%s", path);
    if (intake_is_cifar(path)) {
        in->kind = &intake_cifar;
        in->state = intake_cifar_open(path);
        return in->state ? 0 : -1;
    }
    if (S_ISDIR(st.st_mode)) {
        in->kind = &intake_folder;
        in->state = intake_folder_open(path);
        return in->state ? 0 : -1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* nor may a pipe without a writer keep a signal waiting */
    if (fd < 0)
        return err_system("%s", path);
    size_t n = read_head(fd, head, sizeof head);
    if (is_archive(head, n)) {
        in->kind = &intake_archive;
        in->state = intake_archive_open(path, fd, head, n);
        return in->state ? 0 : -1;
    }
    close(fd);
    return err_set(ERR_DATA, "%s: neither a folder, a tar nor a CIFAR binary; a list of files goes to standard input: "
                             "hssl-import - OUT.db < %s", path, path);
}

Intake *intake_open(const char *source, bool nul)
{
    Intake *in = calloc(1, sizeof *in);
    if (!in) {
        err_set(ERR_MEMORY, "%s: out of memory", source);
        return NULL;
    }
    if (strcmp(source, "-") ? open_path(in, source) : open_stdin(in, nul)) {
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

int intake_next(Intake *in, IntakeItem *item)
{
    *item = (IntakeItem){ NULL, NULL };
    return in->kind->next(in->state, item);
}

int intake_load(Intake *in, IntakeImage *image)
{
    *image = (IntakeImage){ 0 };
    return in->kind->load(in->state, image);
}
