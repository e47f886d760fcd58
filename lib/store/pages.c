/* What LMDB 0.9 writes on a little-endian 64-bit machine, as far as it is needed here:
 *
 *  1. The file is an array of pages of one size. Page number p lies at p * size. Pages 0 and 1 are meta pages.
 *  2. A page begins: its number (8), padding (2), flags (2), lower (2) and upper (2) bound of free space; for a
 *     large value the last two are one number: how many pages follow each other (4).
 *  3. A meta page goes on at 16: magic (4), version (4), address (8), map size (8), two databases (48 each): the
 *     free list and the main one, last page in use (8), transaction (8). The page size is the first database's pad.
 *  4. A database: pad (4), flags (2), depth (2), number of branch, leaf and overflow pages and of entries (8 each),
 *     root page (8), all ones where it is empty.
 *  5. A branch or leaf page holds, from 16 to lower, offsets (2 each) of its nodes in the order of their keys; the
 *     nodes fill the space from upper to the end.
 *  6. A node: low and high half of the data's size (2 + 2), flags (2), size of the key (2), key, data. In a branch
 *     the first three are one number: the child's page. Flags in a leaf: 1: the data is the number of the first page
 *     of a large value; 2: the data is a database (4.); 4: sorted duplicates, which we don't use.
 *  7. The free list maps a transaction to page numbers that it freed: their count (8), then as many numbers
 *     (8 each). */
#include "store/pages.h"

#include "util/err.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE_HEAD = 16,
    META_SIZE = 136,
    DB_SIZE = 48,
    NODE_HEAD = 8,
    P_BRANCH = 1,
    P_LEAF = 2,
    P_OVERFLOW = 4,
    P_META = 8,
    N_BIG = 1,
    N_DB = 2,
    DB_INTEGERKEY = 8,
    ENV_NOSUBDIR = 0x4000,
    MAX_DEPTH = 32
};

#define META_MAGIC 0xBEEFC0DEu

static const uint64_t no_page = ~UINT64_C(0);

typedef struct {
    const unsigned char *map;
    const char *path;
    uint64_t pages; /* that the file has and that are in use */
    uint64_t named; /* with those at its end that may be free and were never written */
    uint64_t txn;   /* the transaction that wrote this tree */
    size_t size;    /* of a page */
    unsigned char *used, *words;
    bool deep;
    const char *skip;
} Walk;

typedef struct {
    uint64_t entries, last_key;
    bool integer, main, free_list, any;
} Tree;

static int damaged(const Walk *w, uint64_t page, const char *what)
{
    return err_set(ERR_DATA, "%s: damaged: page %" PRIu64 ": %s", w->path, page, what);
}

static int take_of(Walk *w, uint64_t first, uint64_t n, uint64_t pages)
{
    if (first < 2 || first >= pages || n > pages - first)
        return damaged(w, first, "lies outside the file");
    for (uint64_t p = first; p < first + n; p++) {
        if (w->used[p >> 3] & (1 << (p & 7)))
            return damaged(w, p, "is used twice");
        w->used[p >> 3] |= (unsigned char)(1 << (p & 7));
    }
    return 0;
}

static int take(Walk *w, uint64_t first, uint64_t n)
{
    return take_of(w, first, n, w->pages);
}

static int walk_page(Walk *w, Tree *t, uint64_t page, int depth);

static int walk_db(Walk *w, const unsigned char *db, Tree *t)
{
    uint64_t root = load64(db + 40);
    unsigned flags = load16(db + 4), depth = load16(db + 6);
    if (t->free_list)
        flags &= ~(unsigned)ENV_NOSUBDIR; /* its flags are stored together with the environment's */
    if (flags & ~(unsigned)DB_INTEGERKEY)
        return err_set(ERR_DATA, "%s: damaged: a database with flags 0x%x", w->path, flags);
    if ((flags & DB_INTEGERKEY) && t->main)
        return err_set(ERR_DATA, "%s: damaged: the main database has numbers as keys", w->path);
    t->integer = flags & DB_INTEGERKEY;
    if (root == no_page) {
        if (load64(db + 32))
            return err_set(ERR_DATA, "%s: damaged: a database has entries but no pages", w->path);
        return 0;
    }
    if (depth < 1 || depth > MAX_DEPTH)
        return err_set(ERR_DATA, "%s: damaged: a tree of depth %u", w->path, depth);
    if (walk_page(w, t, root, (int)depth))
        return -1;
    if (t->entries != load64(db + 32))
        return err_set(ERR_DATA, "%s: damaged: %" PRIu64 " entries where %" PRIu64 " are announced", w->path, t->entries,
                       load64(db + 32));
    return 0;
}

/* The page numbers of the free list: none in use, each once. */
static int check_freed(Walk *w, uint64_t page, const unsigned char *data, size_t n)
{
    uint64_t count = n >= 8 ? load64(data) : no_page, last = no_page;
    if (n % 8 || count > n / 8 - 1)
        return damaged(w, page, "its list of free pages is too short");
    for (uint64_t i = 1; i <= count; i++) {
        uint64_t p = load64(data + 8 * i);
        if (p < 2 || p >= last)
            return damaged(w, page, "its list of free pages is out of order");
        last = p;
        /* Free pages at the end of the file may never have been written. One beyond the last number would be handed out
         * twice by LMDB. */
        if (take_of(w, p, 1, w->named))
            return -1;
    }
    return 0;
}

static int check_large(Walk *w, const Tree *t, uint64_t page, uint64_t first, uint64_t size)
{
    uint64_t n = (PAGE_HEAD + size + w->size - 1) / w->size;
    if (first < 2 || first >= w->pages || n > w->pages - first)
        return damaged(w, page, "a value lies outside the file");
    const unsigned char *head = w->map + first * w->size;
    if (w->deep || t->free_list) {
        if (load64(head) != first || load16(head + 10) != P_OVERFLOW || load32(head + 12) < n)
            return damaged(w, first, "is not the head of a large value");
        if (w->deep && take(w, first, load32(head + 12)))
            return -1;
    }
    return t->free_list ? check_freed(w, first, head + PAGE_HEAD, size) : 0;
}

static int check_leaf_node(Walk *w, Tree *t, uint64_t page, const unsigned char *node, uint64_t size)
{
    unsigned flags = load16(node + 4), ksize = load16(node + 6);
    const unsigned char *data = node + NODE_HEAD + ksize;
    t->entries++;
    if (t->integer) {
        uint64_t key = load64(node + NODE_HEAD);
        if (t->any && key <= t->last_key)
            return damaged(w, page, "keys out of order");
        if (t->free_list && (!key || key > w->txn))
            return damaged(w, page, "pages freed by a transaction that never was");
        t->any = true;
        t->last_key = key;
    }
    if (flags == N_BIG)
        return check_large(w, t, page, load64(data), size);
    if (flags == N_DB) {
        Tree sub = { 0 };
        if (!t->main || size != DB_SIZE)
            return damaged(w, page, "a database out of place");
        if (w->skip && strlen(w->skip) == ksize && !memcmp(w->skip, node + NODE_HEAD, ksize))
            return 0;
        return walk_db(w, data, &sub);
    }
    if (flags)
        return damaged(w, page, "a node with unknown flags");
    return t->free_list ? check_freed(w, page, data, size) : 0;
}

static int walk_page(Walk *w, Tree *t, uint64_t page, int depth)
{
    if (take(w, page, 1))
        return -1;
    const unsigned char *p = w->map + page * w->size;
    unsigned lower = load16(p + 12), upper = load16(p + 14), leaf = depth == 1, n = (lower - PAGE_HEAD) / 2;
    if (load64(p) != page)
        return damaged(w, page, "holds another page's number");
    if (load16(p + 10) != (leaf ? P_LEAF : P_BRANCH))
        return damaged(w, page, "is of the wrong kind");
    if (lower < PAGE_HEAD || lower % 2 || lower > upper || upper > w->size)
        return damaged(w, page, "impossible bounds");
    if (n < (leaf || t->free_list ? 1u : 2u))
        return damaged(w, page, "too few nodes");
    if (w->deep)
        memset(w->words, 0, w->size);

    /* All nodes of the page before any other page, since w->words is shared. */
    for (unsigned i = 0; i < n; i++) {
        size_t at = load16(p + PAGE_HEAD + 2 * i), room = w->size - at;
        if (at < upper || at % 2 || at > w->size - NODE_HEAD)
            return damaged(w, page, "a node lies outside it");
        unsigned ksize = load16(p + at + 6);
        uint64_t size = load32(p + at), inside = size;
        if (!leaf)
            inside = 0;
        else if (load16(p + at + 4) & N_BIG)
            inside = 8;
        if (NODE_HEAD + ksize + inside > room)
            return damaged(w, page, "a node reaches beyond it");
        if (t->integer && ksize != 8 && (leaf || i))
            return damaged(w, page, "a key of the wrong size");
        if (leaf && (!ksize || ksize > 511))
            return damaged(w, page, "a key of the wrong size");
        for (size_t k = at; w->deep && k < at + NODE_HEAD + ksize + inside; k++)
            if (w->words[k]++)
                return damaged(w, page, "nodes overlap");
    }
    for (unsigned i = 0; i < n; i++) {
        const unsigned char *node = p + load16(p + PAGE_HEAD + 2 * i);
        uint64_t low = load32(node);
        int rc = leaf ? check_leaf_node(w, t, page, node, low)
                      : walk_page(w, t, low | (uint64_t)load16(node + 4) << 32, depth - 1);
        if (rc)
            return -1;
    }
    return 0;
}

static bool meta_good(const unsigned char *page, size_t want)
{
    const unsigned char *m = page + PAGE_HEAD;
    size_t size = load32(m + 24);
    return (load16(page + 10) & P_META) && load32(m) == META_MAGIC && load32(m + 4) == 1 &&
           size >= 512 && size <= 32768 && !(size & (size - 1)) && (!want || size == want);
}

int pages_check_head(int fd, const char *path, const char *what)
{
    unsigned char first[PAGE_HEAD + META_SIZE], second[PAGE_HEAD + META_SIZE];
    struct stat st;
    if (fstat(fd, &st))
        return err_system("%s", path);
    if (pread(fd, first, sizeof first, 0) != (ssize_t)sizeof first ||
        load32(first + PAGE_HEAD) != META_MAGIC)
        return err_set(ERR_DATA, "%s: not a %s", path, what);
    if (load32(first + PAGE_HEAD + 4) != 1)
        return err_set(ERR_DATA, "%s: written by another version of LMDB (format %u)", path,
                       load32(first + PAGE_HEAD + 4));
    if (!meta_good(first, 0))
        return err_set(ERR_DATA, "%s: damaged: page 0", path);
    size_t size = load32(first + PAGE_HEAD + 24);
    if (pread(fd, second, sizeof second, (off_t)size) != (ssize_t)sizeof second || !meta_good(second, size))
        return err_set(ERR_DATA, "%s: damaged or truncated: page 1", path);
    uint64_t most = (uint64_t)st.st_size / size;
    for (int i = 0; i < 2; i++) {
        const unsigned char *m = (i ? second : first) + PAGE_HEAD;
        uint64_t last = load64(m + 120);
        /* A few pages at the end may be free and never written. A huge number would make the map huge. */
        if (last < 1 || last > most + (UINT64_C(1) << 20) || load64(m + 16) > UINT64_C(1) << 46)
            return err_set(ERR_DATA, "%s: damaged or truncated: it has %" PRIu64 " pages of at least %" PRIu64, path, most,
                           last);
    }
    return 0;
}

static const unsigned char *pages_map(int fd, size_t length, const char *path)
{
    void *p = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        err_system("%s: mapping %zu bytes", path, length);
        return NULL;
    }
    return p;
}

static void pages_unmap(const unsigned char *map, size_t length)
{
    if (map)
        munmap((void *)map, length);
}

/* The meta page of a transaction, if it is still there. */
static bool read_meta(int fd, size_t size, uint64_t txn, unsigned char meta[META_SIZE])
{
    return pread(fd, meta, META_SIZE, (off_t)(PAGE_HEAD + (txn & 1) * size)) == META_SIZE &&
           load32(meta) == META_MAGIC && load64(meta + 128) == txn;
}

static bool pin_page(FaultWatch *w, uint64_t page)
{
    unsigned char *to = w->bytes + (size_t)w->n * w->page;
    w->at[w->n] = (off_t)(page * w->page);
    if (pread(w->fd, to, w->page, w->at[w->n]) != (ssize_t)w->page || load64(to) != page)
        return false;
    w->n++;
    return true;
}

/* The roots of the databases that a leaf of the main tree names, as many as there is room for. */
static bool pin_named(FaultWatch *w)
{
    const unsigned char *p = w->bytes;
    unsigned lower = load16(p + 12), n = lower > PAGE_HEAD ? (lower - PAGE_HEAD) / 2 : 0;
    bool good = true;
    for (unsigned i = 0; good && i < n && PAGE_HEAD + 2 * i + 2 <= w->page && load16(p + 10) == P_LEAF; i++) {
        size_t at = load16(p + PAGE_HEAD + 2 * i);
        size_t db = at + NODE_HEAD <= w->page ? at + NODE_HEAD + load16(p + at + 6) : w->page;
        if (db + DB_SIZE > w->page || !(load16(p + at + 4) & N_DB))
            continue;
        uint64_t root = load64(p + db + 40);
        good = root == no_page || w->n == FAULT_PAGES || pin_page(w, root);
    }
    return good;
}

bool pages_pin(StoreEnv *e, uint64_t txn, bool keep)
{
    FaultWatch *w = &e->watch;
    unsigned char meta[META_SIZE];
    if (!read_meta(w->fd, e->page, txn, meta))
        return false;
    uint64_t root = load64(meta + 72 + 40);
    if (e->pinned == txn) {
        bool as_it_was = root == no_page ? !w->n
                                         : w->n && w->at[0] == (off_t)(root * e->page) && fault_same(w, FAULT_PAGES);
        if (keep && as_it_was)
            atomic_store(&w->active, true);
        return as_it_was;
    }
    if (!keep)
        return true;
    atomic_store(&w->active, false);
    e->pinned = no_page;
    w->n = 0;
    if (root != no_page && !(pin_page(w, root) && pin_named(w))) { /* it is empty as long as nothing was stored */
        w->n = 0;
        return !e->sound;
    }
    e->pinned = txn;
    atomic_store(&w->active, true);
    return true;
}

int pages_check_tree(const StoreEnv *e, MDB_txn *txn, bool deep, const char *skip)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    int fd, rc = -1;
    mdb_env_info(e->mdb, &info);
    mdb_env_stat(e->mdb, &stat);
    Walk w = { .path = e->path, .size = stat.ms_psize, .txn = mdb_txn_id(txn), .deep = deep, .skip = skip };
    unsigned char meta[META_SIZE];
    if (mdb_env_get_fd(e->mdb, &fd) || fstat(fd, &st))
        return err_system("%s", e->path);

    /* The meta page of this transaction. A writer may be putting a newer one in its place: ERR_EXISTS asks to retry. */
    if (!read_meta(fd, w.size, mdb_txn_id(txn), meta))
        return err_set(ERR_EXISTS, "%s: written to too fast to be opened", e->path);

    w.named = load64(meta + 120) + 1; /* pages_check_head() has seen that it is not much more than there is */
    w.pages = (uint64_t)st.st_size / w.size;
    if (w.pages > load64(meta + 120) + 1)
        w.pages = load64(meta + 120) + 1;
    if (w.pages > info.me_mapsize / w.size)
        w.pages = info.me_mapsize / w.size;
    /* LMDB tells where it mapped the file only for a fixed map: a map of our own, of the same pages. */
    size_t length = (size_t)w.pages * w.size;
    w.map = NULL;
    w.used = calloc((size_t)((w.named > w.pages ? w.named : w.pages) / 8 + 1), 1);
    w.words = deep ? malloc(w.size) : NULL;
    if (!w.used || (deep && !w.words)) {
        err_set(ERR_MEMORY, "%s: no memory to check %" PRIu64 " pages", e->path, w.pages);
        goto out;
    }
    w.map = pages_map(fd, length, e->path);
    if (!w.map)
        goto out;
    Tree free_list = { .free_list = true }, main = { .main = true };
    if (walk_db(&w, meta + 72, &main))
        goto out;
    if (deep && (!(load16(meta + 24 + 4) & DB_INTEGERKEY) || walk_db(&w, meta + 24, &free_list))) {
        if (!(load16(meta + 24 + 4) & DB_INTEGERKEY))
            err_set(ERR_DATA, "%s: damaged: its free list", e->path);
        goto out;
    }
    rc = 0;
out:
    pages_unmap(w.map, length);
    free(w.used);
    free(w.words);
    return rc;
}
