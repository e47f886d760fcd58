#include "stream/badlist.h"

#include "util/err.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int badlist_add(BadList *l, const Message *m, size_t room)
{
    const MsgTensor *t = message_tensor(m, "image");
    size_t size = t && t->data && t->dtype == MSG_U8 ? t->bytes : 0;
    size_t kept = size <= BADLIST_IMAGE && size <= room ? size : size < BADLIST_HEAD ? size : BADLIST_HEAD;
    size_t name = m->name ? strnlen(m->name, BADLIST_TEXT) : 0, why = strnlen(m->bad, BADLIST_TEXT);
    if (l->n == l->room) {
        size_t more = l->room ? 2 * l->room : 4;
        BadRecord *bigger = realloc(l->item, more * sizeof *bigger);
        if (!bigger)
            return err_set(ERR_MEMORY, "out of memory");
        l->item = bigger;
        l->room = more;
    }
    char *block = malloc(kept + name + why + 2); /* the image, the name, the reason; `bytes` owns it */
    if (!block)
        return err_set(ERR_MEMORY, "no memory for a bad image of %zu bytes", kept);
    if (kept)
        memcpy(block, t->data, kept);
    char *texts = block + kept;
    if (name)
        memcpy(texts, m->name, name);
    texts[name] = 0;
    memcpy(texts + name + 1, m->bad, why);
    texts[name + 1 + why] = 0;
    l->item[l->n++] = (BadRecord){ .id = m->id, .seq = m->seq, .epoch = m->epoch, .label = m->label,
                                   .name = texts, .why = texts + name + 1, .size = size, .bytes = block,
                                   .kept = kept, .checksum = size ? XXH3_64bits(t->data, size) : 0 };
    l->bytes += kept;
    return 0;
}

static int by_seq(const void *a, const void *b)
{
    uint64_t x = ((const BadRecord *)a)->seq, y = ((const BadRecord *)b)->seq;
    return (x > y) - (x < y);
}

void badlist_sort(BadList *l)
{
    if (l->n)
        qsort(l->item, l->n, sizeof *l->item, by_seq);
}

void badlist_clear(BadList *l)
{
    for (size_t i = 0; i < l->n; i++)
        free((void *)l->item[i].bytes);
    free(l->item);
    *l = (BadList){ 0 };
}
