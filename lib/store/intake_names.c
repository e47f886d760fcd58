/* What the names of images say: the folders they lie in, and which files belong together. */
#include "store/intake_kinds.h"
#include "util/err.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* The first folder of a name, *n bytes long; NULL where there is none. What stands behind the last slash is
 * no folder. */
static const char *first_folder(const char *name, size_t *n)
{
    for (const char *slash; (slash = strchr(name, '/')); name = slash + 1) {
        *n = (size_t)(slash - name);
        if (*n && !(*n == 1 && *name == '.') && !(*n == 2 && name[0] == '.' && name[1] == '.'))
            return name;
    }
    return NULL;
}

int intake_folders(const char *name)
{
    size_t n;
    int folders = 0;
    for (const char *at = name; (at = first_folder(at, &n)); at += n)
        folders++;
    return folders;
}

int intake_folder_at(const char *name, int level, char **out)
{
    size_t n;
    *out = NULL;
    if (level < 0)
        level += intake_folders(name) + 1;
    const char *at = level > 0 ? first_folder(name, &n) : NULL;
    for (; at && level > 1; level--)
        at = first_folder(at + n, &n);
    if (!at)
        return 0;
    *out = strndup(at, n);
    return *out ? 0 : err_set(ERR_MEMORY, "out of memory");
}

/* ---------------------------------------------------------------- where they part */

static int common_folders(const char *a, const char *b)
{
    size_t n = 0, m = 0;
    int common = 0;
    for (;; common++) {
        a = first_folder(a, &n);
        b = first_folder(b, &m);
        if (!a || !b || n != m || memcmp(a, b, n))
            return common;
        a += n;
        b += m;
    }
}

int intake_parting_see(IntakeParting *p, const char *name, int (*is_image)(void *arg), void *arg)
{
    int folders = intake_folders(name), common = p->chain ? common_folders(p->chain, name) : 0;
    common = common < p->common ? common : p->common;
    if (p->chain && common == p->common && (folders == common || p->deeper))
        return 0; /* it changes nothing */
    int rc = is_image(arg);
    if (rc <= 0)
        return rc;
    if (!p->chain) {
        p->chain = strdup(name);
        p->common = folders;
        return p->chain ? 0 : err_set(ERR_MEMORY, "out of memory");
    }
    /* Images seen before lie in folders that this one doesn't, or this one lies below theirs. */
    p->common = common;
    p->deeper = true;
    return 0;
}

int intake_parting_level(const IntakeParting *p)
{
    return p->deeper || !p->common ? p->common + 1 : p->common;
}

void intake_parting_free(IntakeParting *p)
{
    free(p->chain);
    *p = (IntakeParting){ NULL, 0, false };
}

/* ---------------------------------------------------------------- marks */

size_t intake_key(const char *name)
{
    const char *file = strrchr(name, '/');
    file = file ? file + 1 : name;
    return (size_t)(file - name) + strcspn(file, ".");
}

bool intake_is_mark(const char *name)
{
    return !strcmp(name + intake_key(name), ".cls");
}

char *intake_mark(const void *bytes, ssize_t size)
{
    const char *s = size < 0 ? "\1" : bytes;
    size_t n = size < 0 ? 1 : size < INTAKE_MARK_MAX ? (size_t)size : INTAKE_MARK_MAX;
    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    for (; n && isspace((unsigned char)*s); s++)
        n--;
    char *mark = malloc(n + 1);
    if (!mark)
        return NULL;
    for (size_t i = 0; i < n; i++)
        mark[i] = iscntrl((unsigned char)s[i]) ? 1 : s[i];
    mark[n] = 0;
    return mark;
}
